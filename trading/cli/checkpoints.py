"""`trading checkpoints`: what was learnt, which policy trades, and to let another one trade."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from trading.cli.common import (
    ConfigOption,
    JsonOption,
    SetOption,
    StrategyOption,
    check_output,
    failures,
    settings_for,
)
from trading.config import Settings
from trading.errors import CheckpointError

if TYPE_CHECKING:
    from trading.learning.champion.manager import AccountChampion
    from trading.learning.champion.owner_choice import OwnerChoice
    from trading.learning.champion.store import ChampionPointer

checkpoints_app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="List champions and checkpoints, and choose which policy trades.",
)

_POLL_S = 0.5
_WIDTH = 140

WhichArgument = Annotated[
    str,
    typer.Argument(
        help="champion-3, step-120 (or 120), the folder of a checkpoint or model, or a .pt file."
    ),
]

WaitOption = Annotated[
    float,
    typer.Option(min=0.0, help="Seconds to wait until the account that trades has taken it up."),
]


@checkpoints_app.command("list")
def list_(
    config: ConfigOption = None,
    overrides: SetOption = None,
    strategy: StrategyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the champions and the learner's checkpoints, the newest last."""
    settings = settings_for(config, overrides or [], strategy)
    from trading.learning.checkpoints import verify

    with failures():
        folder = settings.paths.checkpoints
        if not folder.is_dir():
            raise CheckpointError(
                f"no checkpoints at {folder}: start trading or training first, or name their "
                "folder by paths.state_dir or paths.checkpoint_dir"
            )
        choice = _choice(settings)
        champions, store = choice.champions, choice.store
        pointer = champions.pointer()
        if as_json:
            print(json.dumps(_listed(choice)))
            return
        table = Table()
        table.add_column("", no_wrap=True)  # to be pasted into `promote`
        for name in ("version", "written (UTC)", "by", "kl", "difference a session", "reason"):
            table.add_column(name, overflow="fold")
        for number in champions.numbers():
            mark = _mark(pointer, number)
            try:
                row = _champion_row(champions.metadata(number))
            except CheckpointError as error:
                row = ("", "", "", "", "", f"damaged: {error}")
            table.add_row(f"champion-{number}{mark}", *row)
        for step in store.steps():
            path = store.path(step)
            version = ""
            try:
                version, reason = str(verify(path).get("version", step)), "the learner's"
            except CheckpointError as error:
                reason = f"damaged: {error}"
            table.add_row(f"step-{step}", version, _written(path), "", "", "", reason)
        _console().print(table)


@checkpoints_app.command()
def show(
    which: WhichArgument,
    config: ConfigOption = None,
    overrides: SetOption = None,
    strategy: StrategyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check one champion or checkpoint file by file, and print what its manifest says."""
    settings = settings_for(config, overrides or [], strategy)
    from trading.learning.champion.card import LEARNT_FROM
    from trading.learning.checkpoints import load_module_weights, verify
    from trading.learning.noted_catalogue import CATALOGUE
    from trading.learning.noted_settings import NOTED, shown

    with failures():
        path, _ = _choice(settings).find(which)
        metadata = {} if path.is_file() else verify(path)
        weights = load_module_weights(path)
        parameters = sum(array.size for array in weights.values())
        if as_json:
            print(json.dumps({"folder": str(path), **metadata, "parameters": parameters}))
            return
        table = Table(show_header=False)
        table.add_column("", no_wrap=True)
        table.add_column("", overflow="fold")
        table.add_row("folder", str(path))
        for name, value in metadata.items():
            if name == "compared":
                for each in value:
                    table.add_row(f"on {each['held_out']}", _difference(each))
            elif name == NOTED:
                told = (f"{setting}={shown(each)}" for setting, each in sorted(value.items()))
                table.add_row("learnt with", "\n".join(told))
            elif name == LEARNT_FROM:
                table.add_row("learnt from", "\n".join(value.values()))
            elif name == CATALOGUE:
                kinds = ", ".join(f"{len(known)} {kind}" for kind, known in value.items())
                table.add_row("catalogue", kinds)
            elif name == "time":
                table.add_row("written (UTC)", _utc(value))
            else:
                table.add_row(name, "" if value is None else str(value))
        table.add_row("parameters", f"{parameters:,}")
        _console().print(table)


@checkpoints_app.command()
def card(
    which: WhichArgument,
    config: ConfigOption = None,
    overrides: SetOption = None,
    strategy: StrategyOption = None,
) -> None:
    """Print the model card: data, settings, digest, results and limits, as Markdown.

    A champion's was written when it was promoted. That of anything else is made of what its
    manifest says.
    """
    settings = settings_for(config, overrides or [], strategy)
    from trading.learning.champion.card import CARD, model_card
    from trading.learning.champion.store import weights_digest
    from trading.learning.checkpoints import load_module_weights, verify

    with failures():
        path, _ = _choice(settings).find(which)
        metadata = {} if path.is_file() else verify(path)
        written = path / CARD
        if written.is_file():
            print(written.read_text(encoding="utf-8"), end="")
            return
        digest = weights_digest(load_module_weights(path))
        print(model_card(path.name, metadata, digest), end="")


@checkpoints_app.command()
def promote(
    which: WhichArgument,
    config: ConfigOption = None,
    overrides: SetOption = None,
    strategy: StrategyOption = None,
    wait: WaitOption = 90.0,
) -> None:
    """Let a checkpoint, an earlier champion or a model trade; it takes effect while trading runs.

    It is checked first and copied; the gate is not asked. An account that only closes since a loss
    under its champion opens positions again.
    """
    settings = settings_for(config, overrides or [], strategy)
    from trading.live.assembly import model_config

    with failures():
        config_of_model = model_config(settings)
        choice = _choice(settings)
        choice.find(which)
        _change(settings, wait, lambda at: choice.promote(which, config_of_model, at))


@checkpoints_app.command()
def export(
    which: WhichArgument,
    file: Annotated[Path, typer.Argument(help="Where the weights go: a file that ends in .pt.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
    strategy: StrategyOption = None,
) -> None:
    """Write the network's weights of a champion or checkpoint to one file.

    `promote` and MODEL_PATH take it; `torch.load(FILE, weights_only=True)` reads it.
    """
    from trading.learning.checkpoints import (
        WEIGHTS_SUFFIX,
        load_module_weights,
        write_weights_file,
    )

    check_output("FILE", file, WEIGHTS_SUFFIX)
    settings = settings_for(config, overrides or [], strategy)
    with failures():
        path, _ = _choice(settings).find(which)
        write_weights_file(file, load_module_weights(path))
        print(f"the weights of {path.name} are in {file}")


@checkpoints_app.command()
def rollback(
    config: ConfigOption = None,
    overrides: SetOption = None,
    strategy: StrategyOption = None,
    wait: WaitOption = 90.0,
) -> None:
    """Let the champion before the present one trade again; it takes effect while trading runs."""
    settings = settings_for(config, overrides or [], strategy)
    with failures():
        _change(settings, wait, _choice(settings).roll_back)


def _choice(settings: Settings) -> "OwnerChoice":
    from trading.learning.champion.owner_choice import OwnerChoice
    from trading.live.assembly import champion_notes

    folder, keep = settings.paths.checkpoints, settings.learning.keep_checkpoints
    return OwnerChoice(folder, keep, champion_notes(settings))


def _change(
    settings: Settings, wait_s: float, move: Callable[["AccountChampion | None"], "ChampionPointer"]
) -> None:
    """Move the pointer from where the account is, and tell once the account has followed."""
    from trading.execution.journal import Journal
    from trading.execution.lease import holder_of
    from trading.learning.champion.manager import AccountChampion
    from trading.learning.champion.owner_choice import describe_pointer
    from trading.live.assembly import journal_path

    journal, last_seq, account_has, account_champion = journal_path(settings), 0, 0, None
    if journal.exists():
        with Journal(journal, read_only=True) as opened:
            account, last_seq = opened.fold(), opened.last_seq
        account_champion, account_has = AccountChampion.of(account), account.champion
    pointer = move(account_champion)
    name, told = describe_pointer(pointer)
    if holder_of(journal) is None:
        print(f"{name} is to trade from the next start on {told}")
    elif _follows(journal, last_seq, account_has, pointer.champion, wait_s):
        print(f"{name} trades {told}")
    else:
        print(
            f"{name} is to trade {told}; after {wait_s:g} s the account has not taken it up: it "
            "does at the next bar of an open market, and /status shows it; where it does not, the "
            "log says why"
        )


def _follows(journal: Path, last_seq: int, account_has: int, champion: int, wait_s: float) -> bool:
    """Whether the account trades with a champion within so many seconds, as its journal says."""
    from trading.execution.events import ChampionPromoted, ChampionRolledBack
    from trading.execution.journal import Journal

    deadline = time.monotonic() + wait_s
    while True:
        with Journal(journal, read_only=True) as opened:
            for event in opened.events(last_seq):
                if isinstance(event, ChampionPromoted | ChampionRolledBack):
                    account_has = event.champion
            last_seq = opened.last_seq
        if account_has == champion:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)


def _console() -> Console:
    """Wide where no terminal says how wide: what is pasted from it must be whole."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    return console


def _listed(choice: "OwnerChoice") -> list[dict[str, Any]]:
    """Champions and checkpoints as JSON values, the newest last; a damaged one says so."""
    from trading.learning.checkpoints import verify

    champions, store = choice.champions, choice.store
    pointer = champions.pointer()
    paths = {f"champion-{each}": champions.path(each) for each in champions.numbers()}
    paths |= {f"step-{step}": store.path(step) for step in store.steps()}
    trades = "" if pointer is None else f"champion-{pointer.champion}"
    before = "" if pointer is None else f"champion-{pointer.before}"
    listed = []
    for name, path in paths.items():
        row: dict[str, Any] = {"name": name, "folder": str(path)}
        row |= {"trades": name == trades, "before": name == before}
        try:
            row["metadata"] = verify(path)
        except CheckpointError as error:
            row["damaged"] = str(error)
        listed.append(row)
    return listed


def _mark(pointer: "ChampionPointer | None", number: int) -> str:
    if pointer is None:
        return ""
    return {pointer.champion: "  trades", pointer.before: "  before"}.get(number, "")


def _champion_row(metadata: dict[str, Any]) -> tuple[str, ...]:
    kl = metadata["kl"]
    return (
        str(metadata["version"]),
        _utc(metadata["time"]),
        metadata["by"],
        "" if kl is None else f"{kl:.4f}",
        "\n".join(f"{each['held_out']} {_difference(each)}" for each in metadata["compared"]),
        metadata["reason"],
    )


def _difference(each: dict[str, Any]) -> str:
    """In percent of the initial capital a session, with its bounds."""
    bounds = "" if each["low"] is None else f" [{each['low']:+.3f}, {each['high']:+.3f}]"
    return f"{each['difference']:+.3f} %{bounds}"


def _written(path: Path) -> str:
    return _utc(path.stat().st_mtime)


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
