"""`trading tune`: searches settings that learn better, and says what the best are worth."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
import yaml
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
from trading.config import Settings, absolute_paths
from trading.config.gone import gone
from trading.config.loading import load_space
from trading.config.space import SPACE, Point, SearchRange, Space, points, read_space
from trading.errors import ConfigError, DataError
from trading.files import FileLock, LockHeld, write

if TYPE_CHECKING:
    from trading.app.tuning.outcome import HeldBackReturns
    from trading.app.tuning.plan import SearchPlan
    from trading.app.tuning.record import Trial

_PICTURES = (".png", ".svg", ".pdf")
_LAYERS = (".yaml", ".yml")
_SEARCH = "search.json"
_LOCK = ".lock"
_WIDTH = 160
"""Characters of a line where no terminal says how many there are."""


def tune(
    config: ConfigOption = None,
    overrides: SetOption = None,
    history: HistoryOfFoldsOption = None,
    simulated: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Learn in simulated markets, and trade at least so many held-out sessions a fold, "
            "in whole episodes.",
        ),
    ] = None,
    space: Annotated[
        Path | None, typer.Option(help="YAML file of what is searched; unset: tune.space.")
    ] = None,
    folds: Annotated[int, typer.Option(min=1, help="Policies of each trial.")] = 3,
    test_days: Annotated[
        int, typer.Option(min=1, help="Days that each fold trades, with --history.")
    ] = 5,
    purge: PurgeOption = 1,
    embargo: EmbargoOption = 1,
    last_days: Annotated[
        int,
        typer.Option(min=1, help="Last days of the history, which only the winner trades."),
    ] = 5,
    steps: StepsOption = None,
    into: Annotated[
        Path | None, typer.Option(help="Folder of the search; default: state_dir/tune.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the search in that folder.")
    ] = False,
    best: Annotated[
        Path | None,
        typer.Option(help="File of the winner's settings; default: best.yaml in that folder."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Picture of the search; default: search.png there.")
    ] = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search settings: many trials learn, and are scored on sessions that none learns from.

    What is searched stands in tune.space, or in the file that --space names. A search that was
    stopped or killed goes on by the same command with --resume.
    """
    if (history is None) == (simulated is None):
        misuse("give either --history FOLDER or --simulated SESSIONS")
    check_output("--picture", picture, *_PICTURES)
    check_output("--best", best, *_LAYERS)
    flags = [] if steps is None else [f"learning.pretrain_steps={steps}"]
    flags += [] if address is None else [f"ray.address={address}"]
    settings = settings_for(config, [*flags, *(overrides or [])], several=True)
    searched = _space(settings, space)
    files = _Files((into or settings.paths.state_dir / "tune").resolve(), best, picture)
    counts = {"folds": folds}
    if history is not None:
        counts |= {
            "test_days": test_days, "purge": purge, "embargo": embargo, "last_days": last_days
        }  # fmt: skip
    with failures():
        _tune(settings, searched, history, simulated or 1, counts, files, resume, as_json)


class _Files(NamedTuple):
    """Where a search is written."""

    work: Path
    best: Path | None
    picture: Path | None


def _tune(
    settings: Settings,
    space: Space,
    history: Path | None,
    simulated: int,
    counts: dict[str, int],
    files: _Files,
    resume: bool,
    as_json: bool,
) -> None:
    """Plan the search, search, and say what was found."""
    from trading.app.tuning.plan import plan_of_days, plan_of_markets
    from trading.live.assembly import check_plugins

    given, settings = settings, absolute_paths(settings)
    check_plugins(settings)
    display = Display(Console(highlight=False, stderr=as_json))
    stop = Event()
    with ExitStack() as stack:
        stack.enter_context(_owned(files.work, resume=resume))
        if history is not None:
            plan = plan_of_days(settings, history, files.work / "folds", **counts)
        else:
            plan = plan_of_markets(settings, simulated, **counts)
        made = _points(settings, space)
        _begin(files.work, plan, made, resume)
        kept = _search(plan, space, made, files.work, display, stop, stack)
        output = _Output(given, plan, files, as_json, display)
        _finish(output, space, kept, stop.is_set())


def _space(settings: Settings, file: Path | None) -> Space:
    """Return what is searched; a mistake ends the command with exit code 2."""
    if settings.learning.pretrain_steps < settings.tune.judgements:
        misuse(
            f"learning.pretrain_steps: {settings.learning.pretrain_steps} is less than "
            f"tune.judgements, {settings.tune.judgements}: a trial must learn before each"
        )
    try:
        found = load_space(file) if file is not None else read_space(settings.tune.space, SPACE)
    except ConfigError as error:
        misuse(*error.lines)
    if not found:
        misuse(
            f"{file or SPACE} is empty: name what is searched, as in `learning.learning_rate: "
            "{low: 1e-5, high: 1e-2, scale: log}`"
        )
    fixed = [key for key in found if key.startswith("model.") or key in _SHAPES]
    if settings.tune.method == "pbt" and fixed:
        misuse(
            f"{SPACE}.{fixed[0]}: with tune.method pbt a trial goes on from another one's weights, "
            "which do not fit then: leave it out, or take tune.method asha"
        )
    values = settings.flat()
    unset = [
        key
        for key, each in found.items()
        if isinstance(each, SearchRange) and not isinstance(values[key], int | float)
    ]
    if settings.tune.method == "pbt" and unset:
        misuse(
            f"{SPACE}.{unset[0]}: tune.method pbt multiplies the value that is set, which is "
            f"{values[unset[0]]!r}: set a number of the range, or give a list of choices"
        )
    searched = _DISCOUNTS & {*found}
    own = {f"learning.{name}" for name in settings.learning.model_fields_set}
    given = {key for key in _DISCOUNTS & own if values[key] is not None}
    if searched and len(searched | given) > 1:
        misuse(
            f"{SPACE}.{min(searched)}: learning.gamma and learning.horizon are two forms of one "
            "setting: search and set one of them"
        )
    return found


_DISCOUNTS = {"learning.gamma", "learning.horizon"}
_SHAPES = {"learning.num_envs", "learning.rollout_length", "learning.accounts_per_market"}


def _points(settings: Settings, space: Space) -> list[Point]:
    import numpy as np

    values = settings.flat()
    given = {key: values[key] for key in space}
    return points(space, settings.tune.trials, given, np.random.default_rng(settings.seed))


@contextmanager
def _owned(work: Path, *, resume: bool) -> Iterator[None]:
    """Have a search's folder while the block runs, before anything in it is written anew.

    Raises
    ------
    DataError
        Another search runs there, or one is there that is not to be gone on with.
    """
    is_new = not work.exists()
    work.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(work / _LOCK)
    except LockHeld as held:
        raise DataError(
            f"another search runs in {work} ({held.holder}): end it, or name another folder by "
            "--into"
        ) from None
    with lock:
        try:
            if not resume and (work / _SEARCH).exists():
                raise DataError(
                    f"{work} holds a search: go on with it by --resume, remove it, or name "
                    "another folder by --into"
                )
            yield
        finally:
            if is_new and [each.name for each in work.iterdir()] == [_LOCK]:
                (work / _LOCK).unlink()
                work.rmdir()


def _begin(work: Path, plan: "SearchPlan", made: list[Point], resume: bool) -> None:
    """Note what is searched, or check that it is what the folder's search is about."""
    from trading.envs.structures import noted_structures
    from trading.learning.noted_settings import differences, noted_settings
    from trading.live.assembly import own_features, own_structures

    file = work / _SEARCH
    told = {
        "settings": noted_settings(plan.settings),
        "tune": plan.settings.tune.model_dump(mode="json", exclude={"space", "concurrent"}),
        "folds": plan.told,
        "points": made,
        "own features": str(own_features(plan.settings) or ""),
        "own structures": noted_structures(own_structures(plan.settings)),
    }
    told = json.loads(json.dumps(told))
    if not resume:
        write(file, (json.dumps(told, indent=1) + "\n").encode())
        return
    try:
        then = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{work} holds no search: begin one without --resume") from None
    except ValueError as error:
        raise DataError(f"{file} cannot be read ({error}): begin another search") from error
    changed = differences(then["settings"], told["settings"])
    tried = {key for point in then.get("points", ()) for key in point}
    changed += [f"it searches {key}: {why}" for key in sorted(tried) if (why := gone(key))]
    # A search of an older version does not tell of its features or structures.
    others = [n for n in told if n != "settings" and then.get(n, told[n]) != told[n]]
    changed += [f"{name} is not what it was" for name in others]
    if changed:
        raise DataError(
            f"{work} holds another search ({'; '.join(changed)}): go on with it by the settings "
            "and options that it was begun with, or name another folder by --into"
        )


def _search(
    plan: "SearchPlan",
    space: Space,
    made: list[Point],
    work: Path,
    display: Display,
    stop: Event,
    stack: ExitStack,
) -> Mapping[int, Path]:
    from trading.app.up import ray_runtime, stop_signals

    display.note(f"{len(made)} trials; {plan.told}")
    for note in plan.notes:
        display.note(note)
    stack.enter_context(stop_signals(stop))
    stack.enter_context(ray_runtime(plan.settings, display, shows_logs=False))
    # Ray reads how to authenticate when it is imported, and the runtime sets that.
    from trading.app.tuning.record import TrialLog
    from trading.app.tuning.search import run_trials

    record = TrialLog(work / RECORD)
    return run_trials(plan, space, made, work, record, display.phase, stop.is_set)


RECORD = "results.jsonl"


class _Output(NamedTuple):
    settings: Settings
    """As they were given, with their own paths."""
    plan: "SearchPlan"
    written: _Files
    as_json: bool
    display: Display


def _finish(output: _Output, space: Space, kept: Mapping[int, Path], is_stopped: bool) -> None:
    """Trade the last sessions, write the files, and print the table."""
    from trading.app.tuning.outcome import elsewhere, ranked, settings_layer, winner_of
    from trading.app.tuning.record import TrialLog
    from trading.cli.tune_picture import draw

    plan, work, display = output.plan, output.written.work, output.display
    trials = TrialLog(work / RECORD).trials()
    judgements = plan.settings.tune.judgements
    winner = None if is_stopped else winner_of(trials, judgements)
    last: HeldBackReturns | None = None
    files: dict[str, str] = {}
    if winner is not None and winner.newest is not None:
        display.phase("the winner trades sessions that no trial was scored on")
        last = elsewhere(plan, trials, winner.number, kept)
        best = output.written.best or work / "best.yaml"
        layer = settings_layer(output.settings, winner.newest.point)
        heading = f"# Trial {winner.number} of {work}: {winner.newest.score:+.3f} % a session\n"
        write(best, (heading + yaml.safe_dump(layer, sort_keys=False)).encode())
        files["best"] = str(best)
    in_order = ranked(trials)
    if any(trial.judged for trial in in_order):
        picture = output.written.picture or work / "search.png"
        draw(in_order, space, None if winner is None else winner.number, picture)
        files["picture"] = str(picture)
    rows = [_row(trial, space, judgements, plan.settings.seed) for trial in in_order]
    if output.as_json:
        print(json.dumps(_plain(plan, rows, winner, last, files, is_stopped)))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    _print(console, rows, space)
    for line in _said(plan, winner, last, is_stopped):
        console.print(line, soft_wrap=True)
    for name, file in files.items():
        console.print(f"{name}: {file}", soft_wrap=True)
    if "best" in files:
        console.print(f"learn with it: trading train --config {files['best']}", soft_wrap=True)


def _row(trial: "Trial", space: Space, judgements: int, seed: int) -> dict[str, Any]:
    import numpy as np

    from trading.app.tuning.outcome import GIVEN, mean_return

    newest = trial.newest
    row: dict[str, Any] = {"trial": trial.number, "as_given": trial.number == GIVEN}
    row["ended"] = _ended(trial, judgements)
    row["failure"] = trial.failure
    if newest is not None:
        found = mean_return(np.array(newest.returns), seed)
        interval = [each if np.isfinite(each) else None for each in (found.low, found.high)]
        row |= {"score": found.mean, "interval": interval, "sessions": found.sessions}
        row |= {"decisions": newest.decisions, "judgement": newest.judgement}
        row["settings"] = {key: newest.point[key] for key in space}
    return row


def _ended(trial: "Trial", judgements: int) -> str:
    reached = trial.newest.judgement if trial.newest else 0
    if trial.failure:
        return "failed"
    if reached == judgements:
        return "at its end"
    return f"{'ended' if trial.has_ended else 'goes on'} at {reached} of {judgements}"


def _plain(
    plan: "SearchPlan",
    rows: list[dict[str, Any]],
    winner: "Trial | None",
    last: "HeldBackReturns | None",
    files: dict[str, str],
    is_stopped: bool,
) -> dict[str, Any]:
    import msgspec
    import numpy as np

    told: dict[str, Any] = {"folds": plan.told, "stopped": is_stopped, "trials": rows}
    told["winner"] = None if winner is None else winner.number
    if last is not None:
        found = last.winner._asdict()
        told["last"] = {key: each if np.isfinite(each) else None for key, each in found.items()}
        told["beside_given"] = msgspec.to_builtins(last.beside_given)
    return told | {"files": files}


def _print(console: Console, rows: list[dict[str, Any]], space: Space) -> None:
    table = Table(
        title="Trials, the best first; return a session, % of the capital",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    for name in ("trial", "score", "95 % interval", "decisions"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("ended")
    for key in space:
        table.add_column(key.rpartition(".")[2], justify="right", overflow="fold")
    for row in rows:
        name = f"{row['trial']}{' (as given)' if row['as_given'] else ''}"
        if "score" not in row:
            table.add_row(name, "", "", "", f"{row['ended']}: {row['failure']}")
            continue
        low, high = row["interval"]
        interval = "-" if low is None else f"{low:+.3f} to {high:+.3f}"
        values = [_shown(each) for each in row["settings"].values()]
        ended = row["ended"] + (f": {row['failure']}" if row["failure"] else "")
        table.add_row(
            name, f"{row['score']:+.3f}", interval, f"{row['decisions']:,}", ended, *values
        )
    console.print(table)


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "unset" if value is None else str(value)


def _said(
    plan: "SearchPlan", winner: "Trial | None", last: "HeldBackReturns | None", is_stopped: bool
) -> list[str]:
    """Return what it means, a sentence a line."""
    import numpy as np

    if is_stopped:
        return ["stopped: the same command with --resume goes on"]
    if winner is None or last is None:
        return ["no trial came to its end: see why each ended, then go on by --resume"]
    found = last.winner
    bounds = f" [{found.low:+.3f}, {found.high:+.3f}]" if np.isfinite(found.low) else ""
    counted = "sessions" if plan.settings.env.sessions_per_episode == 1 else "episodes"
    lines = [
        f"trial {winner.number} scored best, which is also luck: the best of many always does",
        f"on {found.sessions} {counted} that no trial was scored on: {found.mean:+.3f} % a session"
        f"{bounds}",
    ]
    beside = last.beside_given
    if beside is not None:
        bounds = (
            f" [{beside.low:+.3f}, {beside.high:+.3f}]"
            if beside.low is not None
            else f", too few {counted} to tell"
        )
        lines.append(f"there, beside the settings as given: {beside.difference:+.3f}{bounds}")
    if plan.settings.tune.method == "pbt":
        lines.append("pbt changes settings on the way: these are its last, not all that it used")
    return lines
