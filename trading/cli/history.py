"""The verb `trading history`: recorded days as markets to train on."""

import json
from collections.abc import Iterator
from datetime import date as Date  # noqa: N812 - `date` is an option's name
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from trading.cli.common import ConfigOption, JsonOption, SetOption, failures, misuse, settings_for
from trading.cli.data import (
    CatalogInsteadOption,
    FirstDayOption,
    FlatFilesOption,
    LastDayOption,
    RecordingsOption,
    SymbolsOption,
    day_of,
    sessions_between,
    with_symbols,
)
from trading.config import Settings
from trading.progress import counted

if TYPE_CHECKING:
    from trading.data.recorded_session import RecordedSession
    from trading.envs.history import HistoryDay


def history(
    date: FirstDayOption = None,
    until: LastDayOption = None,
    symbols: SymbolsOption = None,
    recordings: RecordingsOption = None,
    flat_files: FlatFilesOption = None,
    catalog: CatalogInsteadOption = None,
    into: Annotated[
        Path | None, typer.Option(help="Folder of the history; default: state_dir/history.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Only show what a history holds.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write recorded days as a history, which `learning.history` then trains on.

    The days come from recordings of live trading (data.record), or from imported quotes.
    A history belongs to the rules, fees and features it was written with.
    """
    settings = settings_for(config, with_symbols(symbols, overrides), several=True)
    folder = into or settings.paths.state_dir / "history"
    sources = [each for each in (recordings, flat_files, catalog) if each is not None]
    first, last = day_of("--date", date), day_of("--until", until)
    if len(sources) > 1:
        misuse("--recordings, --flat-files and --catalog exclude each other")
    if show and (sources or first is not None):
        misuse("--show only reads: leave out --date and where days come from")
    if not show and first is None:
        misuse("name the days with --date and --until, or ask for --show")
    if last is not None and (first is None or last < first):
        misuse("--until needs a --date that is not later")
    with failures():
        if show or first is None:
            _say(folder, _read(folder, settings), as_json)
            return
        days = sessions_between(first, last or first)
        told = recorded_sessions(settings, days, recordings, flat_files, catalog)
        _say(folder, _write(folder, settings, told), as_json)
        if not as_json:
            told_how = f"history {folder}: train on it with --set learning.history={folder}"
            Console(highlight=False).print(told_how, soft_wrap=True)


def _read(folder: Path, settings: Settings) -> "list[HistoryDay]":
    from trading.envs.history import History
    from trading.live.assembly import fee_schedule, own_features, trading_rules

    rules, fees = trading_rules(settings), fee_schedule(settings)
    return list(History(folder, rules, fees, own_features(settings)).days)


def _write(
    folder: Path, settings: Settings, told: "Iterator[RecordedSession]"
) -> "list[HistoryDay]":
    from trading.envs.history import write_history
    from trading.live.assembly import (
        between_sessions,
        fee_schedule,
        own_features,
        trading_rules,
    )
    from trading.market.calendar import ExchangeCalendar

    between = between_sessions(settings)
    written = write_history(
        folder,
        told,
        trading_rules(settings),
        fee_schedule(settings),
        ExchangeCalendar(),
        each_trades=True,
        nights=settings.env.sessions_per_episode > 1,
        dividends=between.dividends,
        actions=between.actions,
        features=own_features(settings),
    )
    return list(written)


def _say(folder: Path, days: "list[HistoryDay]", as_json: bool) -> None:
    """Print what a history holds."""
    if not as_json:
        Console(highlight=False).print(_table(days))
        return
    listed = [
        {
            "underlying": day.underlying,
            "date": day.date,
            "bars": int(day.bars),
            "contracts": int(day.contracts),
        }
        for day in days
    ]
    print(json.dumps({"folder": str(folder), "days": listed}))


def recorded_sessions(
    settings: Settings,
    days: list[Date],
    recordings: Path | None,
    flat_files: Path | None,
    catalog: Path | None,
) -> Iterator["RecordedSession"]:
    """Every day of every symbol from the one source that was named; says how fast that goes."""
    from trading.data.catalog import Catalog
    from trading.data.recorded_session import RecordedSession
    from trading.data.recording import load_recording
    from trading.live.assembly import corporate_actions, recordings_path
    from trading.market.calendar import ExchangeCalendar
    from trading.market.corporate_actions import special_dividends

    calendar = ExchangeCalendar()
    told, dividends = corporate_actions(settings)
    actions = [*told, *special_dividends(dividends)]
    bar_ns = settings.data.bar_seconds * 1_000_000_000
    wanted = list(product(days, settings.symbols))
    with counted("recorded days", "sessions", len(wanted)) as progress:
        for done, (day, symbol) in enumerate(wanted):
            progress(done)
            if flat_files is not None:
                yield RecordedSession.from_flat_files(
                    flat_files, day, symbol, calendar, bar_ns, actions=actions
                )
            elif catalog is not None:
                yield RecordedSession.from_catalog(
                    Catalog(catalog), day, symbol, calendar, bar_ns, actions=actions
                )
            else:
                folder = recordings or recordings_path(settings)
                yield load_recording(folder, day, symbol)
        progress(len(wanted))


def _table(days: list["HistoryDay"]) -> Table:
    table = Table("underlying", "date")
    table.add_column("bars", justify="right")
    table.add_column("contracts", justify="right")
    for day in days:
        table.add_row(day.underlying, day.date, f"{day.bars:,}", f"{day.contracts:,}")
    return table
