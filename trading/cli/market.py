"""The verb `trading market`: what a simulated market is, and one that looks like recorded days."""

import json
from collections.abc import Mapping
from math import isfinite, isinf, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich import box
from rich.console import Console
from rich.table import Table

from trading.cli.common import (
    ConfigOption,
    JsonOption,
    SetOption,
    check_output,
    failures,
    misuse,
    settings_for,
)
from trading.cli.data import (
    CatalogInsteadOption,
    FlatFilesOption,
    LastDayOption,
    RecordingsOption,
    SymbolsOption,
    day_of,
    sessions_between,
    with_symbols,
)
from trading.config import Settings
from trading.files import write
from trading.progress import counted

if TYPE_CHECKING:
    from trading.data.recorded_session import RecordedSession
    from trading.market.model_statistics import Estimate, ModelStatistics
    from trading.market.recorded_market import Fit, SampledSession
    from trading.market.session_statistics import Statistics

market_app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Show, draw and fit simulated markets; docs/markets.md says what they are made of.",
)

PathsOption = Annotated[
    int, typer.Option(min=20, help="Years that are simulated; more make intervals narrower.")
]


@market_app.command()
def describe(
    config: ConfigOption = None,
    overrides: SetOption = None,
    paths: PathsOption = 400,
    as_json: JsonOption = False,
) -> None:
    """Print what a market is: its figures, measured from simulated sessions.

    The market is that of the settings: --set market.file=configs/markets/trend.yaml.
    """
    settings = settings_for(config, overrides or [])
    with failures():
        if as_json:
            print(json.dumps(_plain_portrait(settings, _portrait(settings, paths))))
            return
        console = _console()
        _print_given(console, settings)
        found = _portrait(settings, paths)
        for group, figures in found.figures.items():
            console.print(_table(group, {name: (_shown(each),) for name, each in figures.items()}))
        console.print(_held_table(found))
        console.print(_quote_table(settings))


@market_app.command()
def plot(
    into: Annotated[Path, typer.Option(help="Picture to write: PNG, SVG, PDF or another.")] = Path(
        "market.png"
    ),
    config: ConfigOption = None,
    overrides: SetOption = None,
    paths: PathsOption = 400,
) -> None:
    """Draw a market: paths, volatility, what options pay, smiles and spreads."""
    with failures():
        from matplotlib.backend_bases import FigureCanvasBase

        kinds = sorted(FigureCanvasBase.get_supported_filetypes())
        check_output("--into", into, *(f".{kind}" for kind in kinds))
    settings = settings_for(config, overrides or [])
    with failures():
        from trading.cli.market_picture import draw
        from trading.live.simulated_world import simulated_world

        draw(
            simulated_world(settings.market).model,
            _portrait(settings, paths),
            into,
            _name(settings),
        )
        _console().print(f"picture: {into}", soft_wrap=True)


@market_app.command()
def fit(
    date: Annotated[str | None, typer.Option(help="First recorded day, YYYY-MM-DD.")] = None,
    until: LastDayOption = None,
    symbols: SymbolsOption = None,
    recordings: RecordingsOption = None,
    flat_files: FlatFilesOption = None,
    catalog: CatalogInsteadOption = None,
    into: Annotated[
        Path | None, typer.Option(help="YAML file to write, for --set market.file=FILE.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit a market to recorded days, and show what is left over.

    Spreads, sizes, ages, missing sides, volatility by expiry and strike, and the premium. The file
    holds the market's figures and nothing of what was recorded.
    """
    check_output("--into", into)
    settings = settings_for(config, with_symbols(symbols, overrides))
    first, last = day_of("--date", date), day_of("--until", until)
    if first is None:
        misuse("name the recorded days with --date, and --until for more than one")
    if sum(each is not None for each in (recordings, flat_files, catalog)) > 1:
        misuse("--recordings, --flat-files and --catalog exclude each other")
    if last is not None and last < first:
        misuse("--until must not be before --date")
    with failures():
        from trading.cli.history import recorded_sessions
        from trading.market.recorded_market import ROUNDS
        from trading.market.recorded_market import fit as fitted_to

        console = _console(stderr=as_json)
        days = sessions_between(first, last or first)
        told = recorded_sessions(settings, days, recordings, flat_files, catalog)
        watched = [_watched(each) for each in told]
        rate = settings.env.risk_free_rate_pct / 100.0
        with counted("fitting", "rounds", ROUNDS) as progress:
            found = fitted_to(watched, rate, settings.seed, progress)
        market = _settings_of(found)
        text = yaml.safe_dump({"market": market}, sort_keys=False)
        if into is not None:
            write(into, f"# Fitted to {found.sessions} recorded session(s).\n{text}".encode())
        if as_json:
            print(json.dumps(_plain_fit(found, market, into)))
            return
        _print_fit(console, found)
        if into is None:
            console.print(text, markup=False)
        else:
            console.print(f"market: trade it with --set market.file={into}", soft_wrap=True)


def _console(*, stderr: bool = False) -> Console:
    console = Console(highlight=False, stderr=stderr)
    if not console.is_terminal:
        console.width = 100
    return console


def _name(settings: Settings) -> str:
    if settings.market.file is not None:
        return settings.market.file.stem
    return "the default market" if settings.market.is_default else "the market of the settings"


def _portrait(settings: Settings, paths: int) -> "ModelStatistics":
    from trading.live.simulated_world import simulated_world
    from trading.market.model_statistics import measure_model

    model = simulated_world(settings.market).model
    with counted("simulating", "years", paths) as progress:
        return measure_model(model, settings.seed, paths, progress=progress)


def _plain_portrait(settings: Settings, found: "ModelStatistics") -> dict[str, Any]:
    """Return what `describe` tells as JSON values; null: never, or not known."""
    return {
        "market": _name(settings),
        "given": _given(settings),
        "figures": {
            group: {name: _plain_estimate(*each) for name, each in figures.items()}
            for group, figures in found.figures.items()
        },
        "held_to_expiry_pct": [
            {"sessions": tenor, "option": strike, **_plain_estimate(*each)}
            for (tenor, strike), each in found.held.items()
        ],
        "quotes": [
            {**figure._asdict(), "value": _known(value)}
            for figure, value in _quote_figures(settings).items()
        ],
    }


def _plain_fit(found: "Fit", market: dict[str, Any], into: Path | None) -> dict[str, Any]:
    """Return what `fit` tells as JSON values; `file`: where the settings were written."""
    return {
        "sessions": found.sessions,
        "market": market,
        "file": None if into is None else str(into),
        "left_over": [
            {**each.figure._asdict(), "recorded": _known(each.recorded), "fitted": each.fitted}
            for each in found.residuals
        ],
        "premium": _plain_estimate(*found.premium),
    }


def _plain_estimate(value: float, error: float) -> dict[str, float | None]:
    return {"value": _known(value), "error": _known(error)}


def _known(value: float) -> float | None:
    return float(value) if isfinite(value) else None


def _print_given(console: Console, settings: Settings) -> None:
    """Print the settings that make it another market than the default one."""
    given = {key: (str(value),) for key, value in _given(settings).items()}
    console.print(f"{_name(settings)}: live, and in the middle of what training draws")
    if given:
        console.print(_table("given", given))


def _given(settings: Settings) -> dict[str, Any]:
    from trading.config import MarketSettings

    usual = _leaves(MarketSettings().model_dump(mode="json", exclude={"file"}))
    own = _leaves(settings.market.model_dump(mode="json", exclude={"file"}))
    return {key: value for key, value in own.items() if usual.get(key) != value}


def _leaves(tree: dict[str, Any], prefix: str = "market.") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        inner = _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        found |= {f"{prefix}{name}": value} if inner is None else inner
    return found


def _shown(measured: "Estimate") -> str:
    value, error = measured
    if isnan(value):
        return "never"
    return f"{value:.2f}" if isnan(error) else f"{value:.2f} ± {error:.2f}"


def _table(
    title: str, rows: Mapping[str, tuple[str, ...]], heads: tuple[str, ...] = ("",)
) -> Table:
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE, pad_edge=False, show_header=any(heads)
    )
    table.add_column("", overflow="fold")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _held_table(found: "ModelStatistics") -> Table:
    from trading.market.model_statistics import STRIKES, TENORS

    rows = {
        f"{tenor} sessions": tuple(_shown(found.held[tenor, strike]) for strike in STRIKES)
        for tenor in TENORS
    }
    title = "what options gain that are bought at an open and held to their expiry, %"
    return _table(title, rows, STRIKES)


def _quote_figures(settings: Settings) -> "Statistics":
    """Of one session of the first symbol on the live exchange."""
    from trading.live.simulated_world import quoted_session
    from trading.market.session_statistics import session_figures

    return session_figures(*quoted_session(settings))


def _quote_table(settings: Settings) -> Table:
    rows: dict[str, tuple[str, ...]] = {}
    groups: dict[str, list[str]] = {}
    for figure, value in _quote_figures(settings).items():
        name = f"{figure.group}: {figure.bucket}"
        groups.setdefault(name, []).append(f"{figure.measure} {value:.3g}")
    rows = {name: ("  ".join(cells),) for name, cells in groups.items()}
    return _table(f"quotes of {settings.symbols[0]} in a session", rows)


def _watched(told: "RecordedSession") -> "SampledSession":
    import numpy as np

    from trading.market.calendar import MINUTE_NS, ExchangeCalendar
    from trading.market.chain import Chain
    from trading.market.recorded_market import sample_session

    calendar = ExchangeCalendar()
    expiries = [calendar.expiry_ns(each.expiry, each.root) for each in told.contracts]
    chain = Chain(told.underlying, told.contracts, expiries)
    column = np.array([chain.index[each.symbol] for each in told.contracts])
    quotes, order = told.quotes, np.argsort(told.quotes.ts_ns, kind="stable")
    columns = (column[quotes.contract], *quotes[1:6])
    return sample_session(
        chain,
        (told.bars.start_ns + MINUTE_NS, told.bars.close),
        [each[order] for each in columns],
        told.session.open_ns,
        told.session.close_ns,
    )


def _print_fit(console: Console, found: "Fit") -> None:
    rows = {
        f"{each.figure.group}: {each.figure.bucket}, {each.figure.measure}": (
            f"{each.recorded:.3g}",
            f"{each.fitted:.3g}",
            f"{round(each.fitted - each.recorded, 9) + 0.0:+.2g}",
        )
        for each in found.residuals
    }
    console.print(_table("what is left over", rows, ("recorded", "fitted", "difference")))
    premium, error = found.premium
    told = f"{100 * premium:.0f} %"
    if isinf(error):
        told += " in one session, which says next to nothing of the market: left as it was"
    else:
        told += f" ± {100 * error:.0f}"
    console.print(
        f"implied over realised volatility of the open hours, minus one: {told}", soft_wrap=True
    )


def _settings_of(found: "Fit") -> dict[str, Any]:
    from trading.live.simulated_world import settings_of_model

    return settings_of_model(found.model, found.tick_class)
