"""`trading backtest` and `trading evaluate`: a policy beside the baselines."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from trading.app.display import Display
from trading.cli.common import (
    AddressOption,
    ConfigOption,
    JsonOption,
    SetOption,
    check_output,
    failures,
    misuse,
    settings_for,
)
from trading.cli.folds import EmbargoOption, HistoryOfFoldsOption, PurgeOption, StepsOption
from trading.config import Settings
from trading.files import write
from trading.progress import counted

if TYPE_CHECKING:
    from trading.envs.rules import TradingRules
    from trading.envs.structures import Structure
    from trading.evaluation.backtest import Backtest
    from trading.evaluation.evaluate import PolicyOfFold
    from trading.evaluation.summary import Figures
    from trading.plugins.plugin_registry import SessionTrader

_PAGES = (".html", ".htm")
_WIDTH = 110
"""Characters of a line where no terminal says how many there are."""

HtmlOption = Annotated[Path | None, typer.Option(help="Write a tear sheet to this file.")]
TrialsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Deflate the Sharpe ratios for so many things tried; count seeds and settings too.",
    ),
]


def backtest(
    config: ConfigOption = None,
    overrides: SetOption = None,
    history: Annotated[
        Path | None, typer.Option(help="Folder of a history; every day of it is traded.")
    ] = None,
    simulated: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Trade at least so many simulated sessions instead, in whole episodes.",
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint of the policy; unset: baselines only.")
    ] = None,
    trader: Annotated[
        str | None, typer.Option(help="Rule-based trader that a file of plugins registers.")
    ] = None,
    beside: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Whether baselines trade as well.")
    ] = True,
    trials: TrialsOption = None,
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Trade whole sessions with a policy, a trader of rules, and baselines, and compare them.

    The policy acts as it trades live (policy.act) in the first row, and the other way in the next.
    """
    if (history is None) == (simulated is None):
        misuse("give either --history FOLDER or --simulated SESSIONS")
    check_output("--html", html, *_PAGES)
    if not beside and model is None and trader is None:
        misuse("--no-baselines leaves nobody to trade: name --model or --trader")
    settings = settings_for(config, overrides or [], several=True)
    with failures():
        from trading.live.assembly import trading_rules
        from trading.plugins.discovery import load_plugins

        load_plugins(settings)
        rules = trading_rules(settings)
        told = f"simulated sessions, seed {settings.seed}" if history is None else str(history)
        compared = _compared(settings, rules.structures, model, trader, beside=beside)
        if model is not None and not as_json:
            row = "which is the first row" if trader is None else "its first row"
            print(f"the policy trades {acts(settings.policy.act)} (policy.act), {row}")
        results = _backtests(settings, rules, compared.traders, history, simulated or 1)
        about = [("traded", told), ("episodes", _about_episodes(settings, history, simulated))]
        about += [*compared.about, *_about_settings(settings)]
        output = _Output(f"Backtest: {told}", html, as_json, about, compared.asked)
        _report(output, results, trials, settings.seed)


class _Compared(NamedTuple):
    """Who is compared in a backtest."""

    traders: "Mapping[str, SessionTrader]"
    """In the order of their rows."""
    asked: str | None
    """The trader that was asked about; None: baselines only."""
    about: list[tuple[str, str]]
    """What the ones that were asked about are known by."""


def _compared(
    settings: Settings,
    structures: "tuple[Structure, ...]",
    model: Path | None,
    trader: str | None,
    *,
    beside: bool,
) -> _Compared:
    """Return the trader of rules, the policy in both of its ways, and baselines if wanted."""
    from trading.evaluation.backtest import learnt
    from trading.evaluation.baselines import baselines
    from trading.live.assembly import policy_of, rule_based

    traders: dict[str, SessionTrader] = {}
    about: list[tuple[str, str]] = []
    if trader is not None:
        traders[f"{trader}, rule-based"] = own = rule_based(settings, settings.seed, trader)
        about.append(("trader", f"{own.plugin} (sha256 {own.plugin.digest})"))
    if model is not None:
        acting = settings.policy.act
        for each in (acting, "sampled" if acting == "greedy" else "greedy"):
            traders[f"policy, {acts(each)}"] = learnt(policy_of(settings, model, each))
        about += _about_model(model)
    asked = next(iter(traders), None)
    if beside:
        traders |= baselines(settings.seed, structures, settings.env.features)
    return _Compared(traders, asked, about)


def _backtests(
    settings: Settings,
    rules: "TradingRules",
    traders: "Mapping[str, SessionTrader]",
    history: Path | None,
    sessions: int,
) -> "dict[str, Backtest]":
    """Trade every day of a history, or so many simulated sessions, by each trader."""
    from trading.envs.history import History
    from trading.evaluation.backtest import (
        backtest_history,
        backtest_simulation,
        simulated_episodes,
    )
    from trading.live.assembly import fee_schedule, own_features
    from trading.live.simulated_world import simulated_world

    fees, seed = fee_schedule(settings), settings.seed
    distribution = simulated_world(settings.market).distribution
    features, in_a_row = own_features(settings), settings.env.sessions_per_episode
    if history is not None:
        each = len(History(history, rules, fees, features).days)
    else:
        episodes, in_a_row = simulated_episodes(sessions, in_a_row)
        each = episodes * in_a_row
    results = {}
    with counted("backtest", "sessions", each * len(traders)) as progress:
        for before, (name, trader) in enumerate(traders.items()):

            def told(done: int, before: int = before) -> None:
                progress(before * each + done)

            made_for = (in_a_row, features, told)
            if history is not None:
                results[name] = backtest_history(history, rules, fees, trader, *made_for)
            else:
                results[name] = backtest_simulation(
                    sessions, seed, rules, fees, trader, distribution, *made_for
                )
    return results


def evaluate(
    config: ConfigOption = None,
    overrides: SetOption = None,
    history: HistoryOfFoldsOption = None,
    simulated: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Make a history of so many simulated days instead, each of a market of its own.",
        ),
    ] = None,
    folds: Annotated[int, typer.Option(min=1, help="Times that a policy is learnt anew.")] = 3,
    test_days: Annotated[int, typer.Option(min=1, help="Days that each fold trades.")] = 5,
    purge: PurgeOption = 1,
    embargo: EmbargoOption = 1,
    steps: StepsOption = None,
    model: Annotated[
        Path | None, typer.Option(help="Model that every fold begins with; unset: new weights.")
    ] = None,
    training: Annotated[
        bool, typer.Option(help="Without it, --model trades every fold as it is.")
    ] = True,
    into: Annotated[
        Path | None, typer.Option(help="Folder of the folds; default: state_dir/evaluation.")
    ] = None,
    address: AddressOption = None,
    trials: TrialsOption = None,
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Walk forward: learn from past days, trade the days that follow, and compare with baselines.

    The folds' test days are the last ones of the history; each fold learns anew from the days
    before its own. Only what was traded on test days is shown.
    """
    if (history is None) == (simulated is None):
        misuse("give either --history FOLDER or --simulated DAYS")
    if not training and (model is None or steps is not None):
        misuse(
            "--no-training needs the --model that is to trade"
            if model is None
            else "--no-training and --steps exclude each other"
        )
    check_output("--html", html, *_PAGES)
    settings = _settings_of_folds(config, overrides, steps, model, address)
    run = _WalkForward(
        settings=settings,
        display=Display(Console(highlight=False, stderr=as_json)),
        work=(into or settings.paths.state_dir / "evaluation").resolve(),
        training=training,
        cut={"folds": folds, "test_days": test_days, "purge": purge, "embargo": embargo},
    )
    with failures():
        results, traded = run.results(history, simulated or 1)
        about = [("folds", f"{folds} of {test_days} days each, of {traded}")]
        about.append(("episodes", _about_episodes(settings, traded, simulated)))
        about += _about_model(model) if model is not None else []
        about += _about_settings(settings)
        output = _Output(f"Walk forward, {folds} folds", html, as_json, about, next(iter(results)))
        _report(output, results, trials, settings.seed, more_trials=folds - 1 if training else 0)


def _settings_of_folds(
    config: Path | None,
    overrides: list[str] | None,
    steps: int | None,
    model: Path | None,
    address: str | None,
) -> Settings:
    """Return the settings with what the command's flags say; a mistake ends the command."""
    flags = [] if steps is None else [f"learning.pretrain_steps={steps}"]
    flags += [] if model is None else [f"paths.model_path={model}"]
    flags += [] if address is None else [f"ray.address={address}"]
    return settings_for(config, [*flags, *(overrides or [])], several=True)


class _WalkForward(NamedTuple):
    """How folds are made, learnt and traded."""

    settings: Settings
    display: Display
    work: Path
    """Folder of the folds."""
    training: bool
    cut: dict[str, int]
    """The counts of `trading.evaluation.walk_forward.walk_forward`."""

    def results(self, history: Path | None, simulated: int) -> "tuple[dict[str, Backtest], Path]":
        """Return what each trader made of the test days, and of which history they are.

        Without a history one of so many `simulated` days is made.
        """
        from trading.evaluation.evaluate import check_unused, days_of, evaluate_folds
        from trading.evaluation.simulated_history import write_simulated_history
        from trading.evaluation.walk_forward import walk_forward
        from trading.live.assembly import (
            check_plugins,
            fee_schedule,
            own_features,
            trading_rules,
        )
        from trading.live.simulated_world import simulated_world
        from trading.plugins.discovery import load_plugins

        settings, phase = self.settings, self.display.phase
        load_plugins(settings)
        check_plugins(settings)
        rules, fees, seed = trading_rules(settings), fee_schedule(settings), settings.seed
        features = own_features(settings)
        check_unused(self.work)
        if history is None:
            history = self.work / "history"
            phase(f"making {simulated} simulated days")
            distribution = simulated_world(settings.market).distribution
            write_simulated_history(history, simulated, seed, rules, fees, distribution, features)
        folds = walk_forward(days_of(history, rules, fees, features), **self.cut)
        in_a_row = settings.env.sessions_per_episode
        with ExitStack() as stack:
            policy_of = _policy_of_fold(settings, self.training, self.display, stack)
            told_by = (policy_of, phase, in_a_row, features)
            results = evaluate_folds(history, folds, self.work, rules, fees, seed, *told_by)
        return results, history


def acts(acting: str | float) -> str:
    """How a policy acts, for people."""
    return acting if isinstance(acting, str) else f"at temperature {acting:g}"


def _policy_of_fold(
    settings: Settings, training: bool, display: Display, stack: ExitStack
) -> "PolicyOfFold":
    """Learn with Ray, which runs until the stack ends; or the model as it is."""
    model = settings.paths.model_path
    if not training and model is not None:
        from trading.live.assembly import policy_of

        policy = policy_of(settings, model)
        return lambda train, state: policy
    from trading.app.up import ray_runtime, stop_signals
    from trading.config import absolute_paths

    stop = Event()
    settings = absolute_paths(settings)
    stack.enter_context(stop_signals(stop))
    stack.enter_context(ray_runtime(settings, display))
    # Ray reads how to authenticate when it is imported, and the runtime sets that.
    from trading.app.retraining import retrained

    return retrained(settings, display, stop.is_set)


def _about_model(model: Path) -> list[tuple[str, str]]:
    """Return what a model is known by.

    Where it lies, its weights' digest, and what its manifest says.
    """
    from trading.learning.champion.store import weights_digest
    from trading.learning.checkpoints import MANIFEST, load_module_weights, verify

    told = [("model", str(model)), ("weights", weights_digest(load_module_weights(model)))]
    metadata = verify(model) if (model / MANIFEST).is_file() else {}
    known = [name for name in ("version", "step", "by", "reason") if name in metadata]
    return [*told, *((name, str(metadata[name])) for name in known)]


def _about_episodes(settings: Settings, history: Path | None, sessions: int | None) -> str:
    """How many sessions one account trades in a row, and why not more.

    Both a history and a number of sessions: so many simulated days were made into that history.
    """
    from trading.envs.history import History, single_days
    from trading.evaluation.backtest import simulated_episodes
    from trading.live.assembly import fee_schedule, own_features, trading_rules

    in_a_row = settings.env.sessions_per_episode
    if history is None:
        episodes, in_a_row = simulated_episodes(sessions or 1, in_a_row)
        return f"{episodes} of {in_a_row} session{'s' * (in_a_row > 1)} in a row each"
    if sessions is not None:
        return "1 session each: each simulated day is a market of its own"
    made_for = (trading_rules(settings), fee_schedule(settings), own_features(settings))
    single = single_days(History(history, *made_for), in_a_row)
    return single or f"at most {in_a_row} session{'s' * (in_a_row > 1)} in a row each"


def _about_settings(settings: Settings) -> list[tuple[str, str]]:
    """Fees, and the settings that evaluation depends on and that are not the defaults."""
    from trading.learning.noted_settings import noted_settings, shown

    now, plain = noted_settings(settings), noted_settings(Settings())
    changed = [
        f"{name}={shown(value)}" for name, value in sorted(now.items()) if plain.get(name) != value
    ]
    execution = settings.execution
    fees = (
        f"{execution.commission:g} USD commission a contract, {execution.orf_fee:g} ORF, "
        f"{execution.occ_fee:g} OCC, {execution.taf_fee:g} TAF on sales, "
        f"{execution.sec_fee_per_million:g} a million of sales to the SEC; slippage "
        f"{execution.slippage:g} USD a share and leg"
    )
    if execution.fee_schedule is not None:
        from trading.live.assembly import fee_schedule

        schedule = fee_schedule(settings)._asdict()
        rates = ", ".join(f"{name} {rate:g}" for name, rate in schedule.items())
        fees = f"{execution.fee_schedule} (execution.fee_schedule): {rates}"
    begins = "a session" if settings.env.sessions_per_episode == 1 else "an episode"
    return [
        ("capital", f"{settings.account.initial_capital:,.0f} USD {begins}"),
        ("fees", fees),
        ("settings", "the defaults" if not changed else ", ".join(changed)),
    ]


class _Output(NamedTuple):
    """Where the figures go, and what is said about them."""

    title: str
    html: Path | None
    as_json: bool
    about: list[tuple[str, str]]
    asked: str | None
    """The trader that was asked about; None: baselines only."""


def _report(
    output: _Output,
    results: Mapping[str, "Backtest"],
    trials: int | None,
    seed: int,
    more_trials: int = 0,
) -> None:
    """Print the figures, and write the page where one is asked for.

    Unless `trials` says how many things were tried, `more_trials` count beside the traders: each
    fold's policy is a trial of its own.
    """
    from trading.evaluation.summary import default_trials, summaries
    from trading.evaluation.tear_sheet import tear_sheet

    tables = summaries(results, trials or default_trials(results) + more_trials, seed)
    if output.html is not None:
        sheet = tear_sheet(output.title, results, tables, output.about, output.asked)
        write(output.html, sheet.encode())
    if output.as_json:
        print(json.dumps(_plain(output, results, tables)))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    for heading, figures in tables.items():
        names = [name for name, _ in next(iter(figures.values()))]
        table = Table(title=heading, title_justify="left", box=box.SIMPLE, pad_edge=False)
        table.add_column("", no_wrap=True)
        for name in names:
            table.add_column(name, justify="right", overflow="fold")
        for trader, values in figures.items():
            table.add_row(trader, *(value for _, value in values))
        console.print(table)
    if output.html is not None:
        console.print(f"tear sheet: {output.html}", soft_wrap=True)


def _plain(
    output: _Output,
    results: Mapping[str, "Backtest"],
    tables: "Mapping[str, Mapping[str, Figures]]",
) -> dict[str, Any]:
    """Figures as they are shown, and each session's returns and fills as numbers."""
    return {
        "title": output.title,
        "about": dict(output.about),
        "asked": output.asked,
        "traders": {
            name: {
                "figures": {heading: dict(traders[name]) for heading, traders in tables.items()},
                "sessions": [
                    {
                        "session": session,
                        "return": float(gain),
                        "closed_return": float(closed),
                        "fills": int(fills),
                    }
                    for session, gain, closed, fills in zip(
                        result.names,
                        result.returns,
                        result.closed_returns,
                        result.trades,
                        strict=True,
                    )
                ],
            }
            for name, result in results.items()
        },
    }
