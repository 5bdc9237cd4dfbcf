"""`trading journal`: check an account's journal, export it, watch it grow."""

import contextlib
import csv
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, get_args

import msgspec
import typer

from trading.cli.common import (
    ConfigOption,
    JsonOption,
    SetOption,
    StrategyOption,
    check_output,
    settings_for,
)
from trading.errors import JournalError
from trading.files import replacing

if TYPE_CHECKING:
    from trading.execution.events import Event
    from trading.execution.journal import Journal

_FAILED = 1
_POLL_S = 0.5
_NANO = 1_000_000_000
_NESTED = ("order", "fill", "rejection")

journal_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Look into an account's journal."
)

PathArgument = Annotated[
    Path | None, typer.Argument(help="The journal's SQLite file; unset: the settings' account's.")
]


class ExportFormat(StrEnum):
    """How `export` writes events."""

    JSONL = "jsonl"
    """One JSON object a line: `seq`, then the event as the journal stores it."""
    CSV = "csv"
    """One row an event: the fields of its order, fill or rejection are columns too."""


@journal_app.command()
def verify(
    path: PathArgument = None,
    forget: Annotated[
        bool,
        typer.Option(
            "--forget-snapshots",
            help="First remove the snapshots; the next start folds all events.",
        ),
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    strategy: StrategyOption = None,
) -> None:
    """Check a whole journal, fold it, and print the account and its digest.

    The fold from the first event must equal every snapshot that a start may begin with.
    """
    from trading.execution.journal import Journal
    from trading.execution.journal.integrity import inspect_journal

    path = path or _own(config, overrides, strategy)
    with _failing():
        if forget:
            with Journal(path) as journal:
                journal.forget_snapshots()
        integrity = inspect_journal(path)
        if not integrity.whole:
            raise JournalError(str(integrity))
        with Journal(path, read_only=True) as journal:
            account, snapshots = journal.checked_fold()
            told: dict[str, Any] = {
                "events": journal.last_seq,
                "digest": journal.digest(),
                "account": account.account_id,
                "cash": account.cash,
                "reserved": account.margin_used,
                "positions": len(account.positions),
                "fills": account.fills,
                "fees": account.fees_paid,
                "fingerprint": account.fingerprint(),
                "snapshots": snapshots,
                "integrity": "whole",
            }
    if as_json:
        print(json.dumps(told))
        return
    told["snapshots"] = f"{snapshots} equal the fold"
    for name, value in told.items():
        print(f"{name:<11} {f'{value:.2f}' if isinstance(value, float) else value}")


@journal_app.command()
def export(
    path: PathArgument = None,
    to: Annotated[
        ExportFormat | None,
        typer.Option("--format", help="Default: what the output's name ends with, else jsonl."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new file; unset: standard output.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    strategy: StrategyOption = None,
) -> None:
    """Write every event as JSON lines or CSV."""
    from trading.execution.journal import Journal

    path = path or _own(config, overrides, strategy)
    with _failing():
        if output is not None and output.exists():
            raise JournalError(f"{output} exists already: remove it, or name another output")
        check_output("--output", output, *(() if to else (".jsonl", ".json", ".csv")))
        chosen = to or _format_of(output)
        with Journal(path, read_only=True) as journal:
            if output is None:
                _WRITERS[chosen](journal.events(), sys.stdout)
            else:
                _export_file(journal, output, chosen)


@journal_app.command()
def tail(
    path: PathArgument = None,
    number: Annotated[int, typer.Option("-n", min=0, help="How many of the last events.")] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new events until Ctrl-C.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    strategy: StrategyOption = None,
) -> None:
    """Print the last events, one readable line each; times are UTC."""
    from trading.execution.journal import Journal

    path = path or _own(config, overrides, strategy)
    with (
        _failing(),
        contextlib.suppress(KeyboardInterrupt),
        Journal(path, read_only=True) as journal,
    ):
        seq = max(0, journal.last_seq - number)
        while True:
            for event in journal.events(after=seq):
                seq += 1
                print(_json_line(seq, event) if as_json else _line(seq, event), flush=True)
            if not follow:
                return
            time.sleep(_POLL_S)


def _own(config: Path | None, overrides: list[str] | None, strategy: str | None) -> Path:
    """Return the journal of the settings' account."""
    from trading.live.assembly import journal_path

    return journal_path(settings_for(config, overrides or [], strategy))


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """End with one line and exit code 1 when the journal or the output cannot be used."""
    try:
        yield
    except JournalError as error:
        print(f"trading: {error}", file=sys.stderr)
        raise typer.Exit(_FAILED) from None


def _format_of(output: Path | None) -> ExportFormat:
    is_csv = output is not None and output.suffix.lower() == ".csv"
    return ExportFormat.CSV if is_csv else ExportFormat.JSONL


def _export_file(journal: "Journal", output: Path, chosen: ExportFormat) -> None:
    """Write a file that is there only once it is whole."""
    try:
        with (
            replacing(output) as staged,
            staged.open("w", encoding="utf-8", newline="") as file,
        ):
            _WRITERS[chosen](_counted(journal), file)
    except OSError as error:
        raise JournalError(f"cannot write {output}: {error}") from error


def _counted(journal: "Journal") -> "Iterator[Event]":
    """Every event, with how many are left on a terminal."""
    from trading.progress import counted

    with counted("writing", "events", journal.last_seq) as progress:
        for number, event in enumerate(journal.events(), 1):
            yield event
            if number % 1000 == 0:
                progress(number)


def _write_json_lines(events: "Iterable[Event]", file: TextIO) -> None:
    for seq, event in enumerate(events, 1):
        file.write(_json_line(seq, event) + "\n")


def _json_line(seq: int, event: "Event") -> str:
    """Return the event as the journal stores it, with its number before."""
    return msgspec.json.encode({"seq": seq, **msgspec.to_builtins(event)}).decode()


def _write_csv(events: "Iterable[Event]", file: TextIO) -> None:
    columns = ["seq", "time_utc", "ts_ns", "kind", *_csv_fields()]
    # csv ends lines with \r\n by itself; a plain \n is what other tools of this system write.
    table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    table.writeheader()
    for seq, event in enumerate(events, 1):
        fields = dict(msgspec.to_builtins(event))
        for name in _NESTED:
            fields = {**fields.pop(name, {}), **fields}
        cells = {name: _cell(value) for name, value in fields.items()}
        table.writerow({"seq": seq, "time_utc": _utc(event.ts_ns), **cells})


def _csv_fields() -> list[str]:
    """Every field that an event, its order, fill or rejection has, in order of definition."""
    from trading.execution.events import Event
    from trading.execution.orders import Fill, Order, Rejection

    names = dict.fromkeys(
        field.name
        for each in (*get_args(Event), Order, Fill, Rejection)
        for field in msgspec.structs.fields(each)
    )
    return [name for name in names if name not in {"ts_ns", *_NESTED}]


def _cell(value: object) -> object:
    """Return a number or text as it is; lists as JSON, nothing as an empty cell."""
    if isinstance(value, list | tuple | dict):
        return msgspec.json.encode(value).decode()
    return "" if value is None else value


_WRITERS: dict[ExportFormat, Callable[["Iterable[Event]", TextIO], None]] = {
    ExportFormat.JSONL: _write_json_lines,
    ExportFormat.CSV: _write_csv,
}


def _utc(ts_ns: int) -> str:
    seconds, rest = divmod(ts_ns, _NANO)
    when = datetime.fromtimestamp(seconds, UTC)
    return f"{when:%Y-%m-%d %H:%M:%S}.{rest // 1_000_000:03d}"


def _line(seq: int, event: "Event") -> str:
    from trading.execution.journal.lines import describe_event, kind_of

    return f"{seq:>8}  {_utc(event.ts_ns)}  {kind_of(event):<20}  {describe_event(event)}"
