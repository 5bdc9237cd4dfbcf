"""`trading checkpoints`: what was learnt, which policy trades, and to let another one trade."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from trading.cli.account import ByOption, WhyOption, command_failures, give, this_user
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
    from trading.execution.owner import Command
    from trading.learning.champion.owner_choice import OwnerChoice
    from trading.learning.champion.store import AccountChampion

checkpoints_app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="List champions and checkpoints, and choose which policy trades.",
)

_WIDTH = 140

WhichArgument = Annotated[
    str,
    typer.Argument(
        help="champion-3, step-120 (or 120), the folder of a checkpoint or model, or a .pt file."
    ),
]

WaitOption = Annotated[
    float,
    typer.Option(min=0.0, help="Seconds to wait for who trades the account."),
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
    with failures():
        folder = settings.paths.checkpoints
        if not folder.is_dir():
            raise CheckpointError(
                f"no checkpoints at {folder}: start trading or training first, or name their "
                "folder by paths.state_dir or paths.checkpoint_dir"
            )
        listed = _listed(_choice(settings), _account(settings))
        if as_json:
            print(json.dumps(listed))
            return
        table = Table()
        table.add_column("", no_wrap=True)  # to be pasted into `promote`
        for name in ("version", "written (UTC)", "by", "kl", "difference a session", "reason"):
            table.add_column(name, overflow="fold")
        for each in listed:
            table.add_row(*_row(each))
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
    why: WhyOption = "",
    by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a checkpoint, an earlier champion or a model trade, whether or not the application runs.

    It is checked first and copied; the gate is not asked. An account that only closes since a loss
    under its champion opens positions again.
    """
    settings = settings_for(config, overrides or [], strategy)
    from trading.execution.owner import check_text
    from trading.learning.champion.store import AccountChampion
    from trading.live.assembly import journal_path, model_config, owner_choice

    with command_failures(as_json):
        # Before a champion is written.
        check_text(_command("promote", by, why))
        choice, account = owner_choice(settings), _account(settings)
        is_new = not journal_path(settings).is_file()
        if is_new:
            # Its first start begins with the newest champion.
            account = AccountChampion(newest=max([0, *choice.champions.numbers()]))
        champion = choice.prepare(which, model_config(settings), account)
        name = f"champion-{champion.number}"
        if is_new:
            said = f"{name} trades from the first start on (version {champion.version})"
            if why or by is not None:
                said += "; who and why are not kept, for there is no journal yet"
            print(json.dumps({"done": True, "said": said}) if as_json else said)
        else:
            command = _command("promote", by, why, name)
            _give(settings, command, wait, as_json)


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
    why: WhyOption = "",
    by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let the champion before the present one trade again, whether or not the application runs."""
    settings = settings_for(config, overrides or [], strategy)
    with command_failures(as_json):
        _give(settings, _command("rollback", by, why), wait, as_json)


def _choice(settings: Settings) -> "OwnerChoice":
    from trading.learning.champion.owner_choice import OwnerChoice
    from trading.live.assembly import champion_notes

    folder, keep = settings.paths.checkpoints, settings.learning.keep_checkpoints
    return OwnerChoice(folder, keep, champion_notes(settings), settings.account.id)


def _command(name: str, by: str | None, why: str, which: str = "") -> "Command":
    from trading.execution.events import OwnerCommand
    from trading.execution.owner import Command, now_utc

    who = by if by is not None else this_user()
    return Command(OwnerCommand(name), who, why, at=now_utc(), which=which)


def _give(settings: Settings, command: "Command", wait_s: float, as_json: bool) -> None:
    """Hand the choice to whoever writes the account's journal, and print what came of it."""
    answer = give(settings, command, wait_s)
    print(json.dumps({"done": True, **answer}) if as_json else answer["said"])


def _account(settings: Settings) -> "AccountChampion":
    """Which champion trades, as the account's journal says; none where there is no journal."""
    from trading.execution.journal import Journal
    from trading.learning.champion.store import AccountChampion
    from trading.live.assembly import journal_path

    path = journal_path(settings)
    if not path.is_file():
        return AccountChampion()
    with Journal(path, read_only=True) as journal:
        return AccountChampion.of(journal.restore())


def _console() -> Console:
    """Wide where no terminal says how wide: what is pasted from it must be whole."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    return console


def _listed(choice: "OwnerChoice", account: "AccountChampion") -> list[dict[str, Any]]:
    """Champions and checkpoints as JSON values, the newest last; a damaged one says so."""
    from trading.learning.checkpoints import verify

    champions, store = choice.champions, choice.store
    paths = {f"champion-{each}": champions.path(each) for each in champions.numbers()}
    paths |= {f"step-{step}": store.path(step) for step in store.steps()}
    trades, before = f"champion-{account.champion}", f"champion-{account.before}"
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


def _row(listed: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the table for a champion or checkpoint, as of `_listed`."""
    name, folder = listed["name"], Path(listed["folder"])
    name += "  trades" if listed["trades"] else "  before" if listed["before"] else ""
    if "damaged" in listed:
        return name, "", _written(folder), "", "", "", f"damaged: {listed['damaged']}"
    metadata = listed["metadata"]
    if "by" not in metadata:
        version = str(metadata.get("version", metadata["step"]))
        return name, version, _written(folder), "", "", "", "the learner's"
    kl = metadata["kl"]
    return (
        name,
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
