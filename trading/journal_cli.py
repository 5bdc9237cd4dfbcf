"""`trading journal`: check an account's journal, export it, watch it grow."""

import contextlib
import csv
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, get_args

import msgspec
import typer

from trading.errors import JournalError

if TYPE_CHECKING:
    from trading.execution.events import (
        AccountOpened,
        BasesScaled,
        Carried,
        CashMoved,
        ChallengerRefused,
        ChampionPromoted,
        ChampionRolledBack,
        Compared,
        CorporateActionApplied,
        DecisionMade,
        DividendPaid,
        Event,
        MarginChanged,
        OrderAccepted,
        OrderCancelled,
        OrderFilled,
        OrderRejected,
        OwnerCommanded,
        PeakReset,
        SessionClosed,
        Settled,
        StateChanged,
        TermsAdopted,
        TimeTakenBack,
        UnderlyingReinstated,
        UnderlyingSuspended,
        WeightsAdopted,
    )
    from trading.execution.journal import Journal

_FAILED = 1
_POLL_S = 0.5
_NANO = 1_000_000_000
_NESTED = ("order", "fill", "rejection")

journal_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Look into an account's journal."
)

PathArgument = Annotated[Path, typer.Argument(help="The journal's SQLite file.")]


class ExportFormat(StrEnum):
    """How `export` writes events."""

    JSONL = "jsonl"
    """One JSON object a line: `seq`, then the event as the journal stores it."""
    CSV = "csv"
    """One row an event: the fields of its order, fill or rejection are columns too."""


@journal_app.command()
def verify(
    path: PathArgument,
    forget: Annotated[
        bool,
        typer.Option(
            "--forget-snapshots",
            help="First remove the snapshots; the next start folds all events.",
        ),
    ] = False,
) -> None:
    """Check a whole journal, fold it, and print the account and its digest.

    The fold from the first event must equal every snapshot that a start may begin with.
    """
    from trading.execution.journal import Journal
    from trading.execution.journal_integrity import inspect_journal

    with _failing():
        if forget:
            with Journal(path) as journal:
                journal.forget_snapshots()
        integrity = inspect_journal(path)
        if not integrity.whole:
            raise JournalError(str(integrity))
        with Journal(path, read_only=True) as journal:
            account, snapshots = journal.checked_fold()
            print(f"events      {journal.last_seq}")
            print(f"digest      {journal.digest()}")
            print(f"account     {account.account_id}")
            print(f"cash        {account.cash:.2f}")
            print(f"reserved    {account.reserved:.2f}")
            print(f"positions   {len(account.positions)}")
            print(f"fills       {account.fills}")
            print(f"fees        {account.fees_paid:.2f}")
            print(f"fingerprint {account.fingerprint()}")
            print(f"snapshots   {snapshots} equal the fold")
            print("integrity   whole")


@journal_app.command()
def export(
    path: PathArgument,
    to: Annotated[
        ExportFormat | None,
        typer.Option("--format", help="Default: what the output's name ends with, else jsonl."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new file; unset: standard output.")
    ] = None,
) -> None:
    """Write every event as JSON lines or CSV."""
    from trading.execution.journal import Journal

    with _failing():
        chosen = to or _format_of(output)
        with Journal(path, read_only=True) as journal:
            if output is None:
                _WRITERS[chosen](journal, sys.stdout)
            else:
                _export_file(journal, output, chosen)


@journal_app.command()
def tail(
    path: PathArgument,
    number: Annotated[int, typer.Option("-n", min=0, help="How many of the last events.")] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new events until Ctrl-C.")
    ] = False,
) -> None:
    """Print the last events, one readable line each; times are UTC."""
    from trading.execution.journal import Journal

    with (
        _failing(),
        contextlib.suppress(KeyboardInterrupt),
        Journal(path, read_only=True) as journal,
    ):
        seq = max(0, journal.last_seq - number)
        while True:
            for event in journal.events(after=seq):
                seq += 1
                print(_line(seq, event), flush=True)
            if not follow:
                return
            time.sleep(_POLL_S)


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
    if output.exists():
        raise JournalError(f"{output} exists already: remove it, or name another output")
    unfinished = output.with_name(output.name + ".unfinished")
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            _WRITERS[chosen](journal, file)
        os.replace(unfinished, output)
    except OSError as error:
        raise JournalError(f"cannot write {output}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _write_json_lines(journal: "Journal", file: TextIO) -> None:
    for seq, event in enumerate(journal.events(), 1):
        record = {"seq": seq, **msgspec.to_builtins(event)}
        file.write(msgspec.json.encode(record).decode() + "\n")


def _write_csv(journal: "Journal", file: TextIO) -> None:
    columns = ["seq", "time_utc", "ts_ns", "kind", *_csv_fields()]
    # csv ends lines with \r\n by itself; a plain \n is what other tools of this system write.
    table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    table.writeheader()
    for seq, event in enumerate(journal.events(), 1):
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
    """A number or text as it is; lists as JSON, nothing as an empty cell."""
    if isinstance(value, list | tuple | dict):
        return msgspec.json.encode(value).decode()
    return "" if value is None else value


_WRITERS: dict[ExportFormat, Callable[["Journal", TextIO], None]] = {
    ExportFormat.JSONL: _write_json_lines,
    ExportFormat.CSV: _write_csv,
}


def _utc(ts_ns: int) -> str:
    seconds, rest = divmod(ts_ns, _NANO)
    when = datetime.fromtimestamp(seconds, UTC)
    return f"{when:%Y-%m-%d %H:%M:%S}.{rest // 1_000_000:03d}"


def _line(seq: int, event: "Event") -> str:
    kind = str(event.__struct_config__.tag)
    return f"{seq:>8}  {_utc(event.ts_ns)}  {kind:<20}  {_DESCRIBED[kind](event)}"


def _amount(quantity: int, symbol: str) -> str:
    """Contracts, or round lots of a stock."""
    return f"{quantity:+d} {symbol}" if symbol.startswith("O:") else f"{quantity:+d} lots {symbol}"


def _opened(event: "AccountOpened") -> str:
    return f"{event.account_id} with {event.cash:.2f} USD"


def _decided(event: "DecisionMade") -> str:
    masked = " (masked)" if event.masked else ""
    return (
        f"{event.underlying} {event.action_name}{masked}, value {event.value:+.4f}, reward "
        f"{event.reward:+.4f}, weights {event.weights_version}"
    )


def _accepted(event: "OrderAccepted") -> str:
    order = event.order
    legs = ", ".join(_amount(leg.ratio, leg.symbol) for leg in order.legs)
    limit = "" if order.limit_price is None else f" {order.limit_price:.2f}"
    return (
        f"{order.order_id} {order.intent} {order.units} {order.strategy} on {order.underlying}, "
        f"{order.order_type}{limit} {order.time_in_force}: {legs}"
    )


def _rejected(event: "OrderRejected") -> str:
    rejection = event.rejection
    return f"{rejection.order_id} {rejection.reason}: {rejection.detail}"


def _filled(event: "OrderFilled") -> str:
    fill = event.fill
    legs = ", ".join(f"{_amount(leg.quantity, leg.symbol)} at {leg.price:.2f}" for leg in fill.legs)
    return f"{fill.fill_id} {legs}; premium {fill.premium:+.2f}, fees {fill.fees:.2f}"


def _cancelled(event: "OrderCancelled") -> str:
    return f"{event.order_id}: {event.reason}"


def _settled(event: "Settled") -> str:
    unit = "shares" if event.lot else "lots"
    source = f" ({event.source})" if event.source else ""
    stock = f", stock {event.lots:+d} {unit}" if event.lots else ""
    return (
        f"{event.quantity:+d} {event.symbol} {event.ending} at {event.price:.2f}, underlying "
        f"{event.underlying_price:.2f}{source}: cash {event.cash:+.2f}{stock}"
    )


def _carried(event: "Carried") -> str:
    fees = "".join(f", {name} borrowed {-fee:+.2f}" for name, fee in event.borrow_fees.items())
    return f"to {event.through}: interest {event.interest:+.2f}{fees}"


def _dividend_paid(event: "DividendPaid") -> str:
    return (
        f"{event.amount:.4f} a share on {event.lots:+d} lots of {event.underlying}, ex "
        f"{event.ex_date}: cash {event.cash:+.2f}"
    )


def _corporate_action_applied(event: "CorporateActionApplied") -> str:
    changes = ", ".join(
        f"{each.quantity:+d} {each.symbol or 'of'} -> {each.into_quantity:+d} {each.into or 'cash'}"
        for each in event.converted
    )
    lieu = f", of it {event.cash_in_lieu:+.2f} in lieu of fractions" if event.cash_in_lieu else ""
    return (
        f"{event.underlying} {event.what} {event.terms}, ex {event.ex_date}: {changes}; cash "
        f"{event.cash:+.2f}{lieu}"
    )


def _margin_changed(event: "MarginChanged") -> str:
    return f"{event.underlying} holds back {event.reserve_per_unit:.2f} a unit"


def _peak_reset(event: "PeakReset") -> str:
    return f"drawdown from {event.equity:.2f} on"


def _session_closed(event: "SessionClosed") -> str:
    return f"{event.date}, equity {event.equity:.2f}"


def _state_changed(event: "StateChanged") -> str:
    if not event.cause or event.reason == event.cause:
        return f"{event.trading_state}: {event.reason}"
    did = "ended" if event.restricts == "active" else "entered"
    return f"{event.trading_state}: {event.cause} {did}, {event.reason}"


def _terms_adopted(event: "TermsAdopted") -> str:
    return f"bars of {event.terms.get('data.bar_seconds', '?')} s, {len(event.terms)} terms"


def _owner_commanded(event: "OwnerCommanded") -> str:
    what = f"{event.symbol}" if event.symbol else f"{event.amount:.2f}" if event.amount else ""
    why = f", {event.why}" if event.why else ""
    return f"{event.command} {what} by {event.by} at {event.at}{why}: {event.answer}"


def _cash_moved(event: "CashMoved") -> str:
    return f"{event.amount:+.2f} USD {'paid in' if event.amount > 0.0 else 'taken out'}"


def _bases_scaled(event: "BasesScaled") -> str:
    return f"equity {event.equity:.2f} after cash was moved"


def _underlying_suspended(event: "UnderlyingSuspended") -> str:
    return f"{event.underlying}: {event.reason}"


def _underlying_reinstated(event: "UnderlyingReinstated") -> str:
    lifted = f" after {event.lifts}" if event.lifts else ""
    return f"{event.underlying}{lifted}: {event.reason}"


def _time_taken_back(event: "TimeTakenBack") -> str:
    return f"events dated later hold nothing up; last session {event.last_session or 'none'}"


def _weights_adopted(event: "WeightsAdopted") -> str:
    return f"version {event.version}, {event.digest}"


def _champion_promoted(event: "ChampionPromoted") -> str:
    return (
        f"{event.champion} (version {event.version}) after {event.before or 'none'}, by "
        f"{event.by}: {event.reason}{_numbers(event.kl, event.compared)}"
    )


def _challenger_refused(event: "ChallengerRefused") -> str:
    reset = "; learning begins again from the champion" if event.reset else ""
    return (
        f"version {event.version}, {event.in_a_row} in a row: {event.reason}{reset}"
        f"{_numbers(event.kl, event.compared)}"
    )


def _champion_rolled_back(event: "ChampionRolledBack") -> str:
    return (
        f"{event.champion} (version {event.version}) after {event.discarded}, by {event.by}: "
        f"{event.reason}; equity {event.equity:.2f}, peak {event.peak:.2f}"
    )


def _numbers(kl: float | None, compared: "tuple[Compared, ...]") -> str:
    """What the gate measured, in percent of the initial capital a session."""
    parts = [] if kl is None else [f"kl {kl:.4f}"]
    for each in compared:
        bounds = (
            "" if each.low is None or each.high is None else f" [{each.low:+.3f}, {each.high:+.3f}]"
        )
        parts.append(f"{each.held_out} {each.difference:+.3f} %{bounds} on {each.sessions}")
    return f" ({', '.join(parts)})" if parts else ""


_DESCRIBED: dict[str, Callable[[Any], str]] = {
    "account_opened": _opened,
    "decision_made": _decided,
    "order_accepted": _accepted,
    "order_rejected": _rejected,
    "order_filled": _filled,
    "order_cancelled": _cancelled,
    "settled": _settled,
    "carried": _carried,
    "dividend_paid": _dividend_paid,
    "corporate_action_applied": _corporate_action_applied,
    "margin_changed": _margin_changed,
    "peak_reset": _peak_reset,
    "session_closed": _session_closed,
    "state_changed": _state_changed,
    "terms_adopted": _terms_adopted,
    "owner_commanded": _owner_commanded,
    "cash_moved": _cash_moved,
    "bases_scaled": _bases_scaled,
    "underlying_suspended": _underlying_suspended,
    "underlying_reinstated": _underlying_reinstated,
    "time_taken_back": _time_taken_back,
    "weights_adopted": _weights_adopted,
    "champion_promoted": _champion_promoted,
    "challenger_refused": _challenger_refused,
    "champion_rolled_back": _champion_rolled_back,
}
