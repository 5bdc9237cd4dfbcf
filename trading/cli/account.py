"""`trading account`: the owner's commands, whether or not the application runs."""

import contextlib
import functools
import getpass
import inspect
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from trading.cli.common import (
    DEBUG_VARIABLE,
    ConfigOption,
    JsonOption,
    SetOption,
    StrategyOption,
    failure_text,
    failures,
    settings_for,
)
from trading.config import Settings
from trading.errors import AccountLeased, JournalError, OwnerRefused

if TYPE_CHECKING:
    from trading.execution.owner import Command

account_app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="See how the account stands, and command it: halt, reduce, resume, flatten, close, "
    "reset-peak, deposit, withdraw, reinstate, undo-action.",
)

_FAILED = 1
_POLL_S = 0.2

WhyOption = Annotated[str, typer.Option("--why", help="The reason, for the journal.")]
ByOption = Annotated[
    str | None, typer.Option("--by", help="Who commands; unset: this user on this host.")
]
KeyOption = Annotated[
    str, typer.Option("--key", help="The same key again is the same command: it is done once.")
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0.1, help="Seconds to wait for who trades the account.")
]


class _Asked(NamedTuple):
    """What the owner asks for, whoever carries it out."""

    name: str
    symbol: str = ""
    amount: float = 0.0


@account_app.command()
def status(
    config: ConfigOption = None,
    overrides: SetOption = None,
    strategy: StrategyOption = None,
    as_json: JsonOption = False,
    timeout: TimeoutOption = 5.0,
) -> None:
    """Print what may be traded and why, money, what is open, and who trades the account."""
    settings = settings_for(config, overrides or [], strategy)
    from trading.execution.broker import PaperBroker
    from trading.execution.configured_fees import configured_fees
    from trading.execution.journal import Journal
    from trading.execution.lease import holder_of
    from trading.execution.mailbox import RequestNotTaken, ask
    from trading.execution.owner import account_status
    from trading.live import assembly

    with command_failures(as_json):
        path = _journal(settings)
        holder = holder_of(path)
        account: dict[str, Any] | None = None
        if holder is not None:
            try:
                reply = ask(path, None, timeout)
            except RequestNotTaken:
                reply = None
            if reply is not None and reply.refused:
                raise OwnerRefused(reply.refused)
            account = None if reply is None else reply.answer["account"]
        if account is None:
            with Journal(path, read_only=True) as journal:
                limits = assembly.risk_limits(settings)
                broker = PaperBroker(
                    journal, journal.fold(), configured_fees(settings.execution), limits
                )
                account = account_status(broker, broker.known_equity())
        account["traded_by"] = None if holder is None else str(holder)
    if as_json:
        print(json.dumps(account))
    else:
        _print_account(account)


def _carry_out(
    asked: _Asked,
    config: ConfigOption = None,
    overrides: SetOption = None,
    strategy: StrategyOption = None,
    why: WhyOption = "",
    by: ByOption = None,
    key: KeyOption = "",
    as_json: JsonOption = False,
    timeout: TimeoutOption = 30.0,
) -> None:
    settings = settings_for(config, overrides or [], strategy)
    from trading.execution.events import OwnerCommand
    from trading.execution.owner import Command, now_utc

    who = by if by is not None else this_user()
    kind = OwnerCommand(asked.name)
    command = Command(kind, who, why, key, asked.symbol, asked.amount, now_utc())
    with command_failures(as_json):
        answer = give(settings, command, timeout)
    if as_json:
        print(json.dumps({"done": True, **answer}))
        return
    print(answer["said"] + (" (done before)" if answer["repeated"] else ""))
    print(_state_line(answer["account"]))


@contextlib.contextmanager
def command_failures(as_json: bool) -> Iterator[None]:
    """Tell a script in JSON why something was not done, and a person as every command does."""
    if not as_json:
        with failures():
            yield
        return
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:
        print(json.dumps({"done": False, "said": failure_text(error)}))
        if os.environ.get(DEBUG_VARIABLE):
            raise
        raise typer.Exit(_FAILED) from None


def this_user() -> str:
    """Who commands where nobody is named; in a container the user may have a number alone."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _owners(asks: Callable[..., _Asked]) -> Callable[..., None]:
    """Add the options that all of the owner's commands have to what one of them asks for."""
    own = inspect.signature(asks).parameters

    @functools.wraps(asks)
    def command(**given: Any) -> None:
        asked = asks(**{name: given.pop(name) for name in own})
        _carry_out(asked, **given)

    shared = list(inspect.signature(_carry_out).parameters.values())[1:]
    parameters = [*own.values(), *shared]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


@account_app.command()
@_owners
def halt() -> _Asked:
    """Let nothing trade until `resume`; expiry and settlement still happen."""
    return _Asked("halt")


@account_app.command()
@_owners
def reduce() -> _Asked:
    """Let only what closes a strategy trade until `resume`."""
    return _Asked("reduce")


@account_app.command()
@_owners
def resume() -> _Asked:
    """End the owner's orders and every restriction whose cause is gone; see docs/states.md."""
    return _Asked("resume")


@account_app.command()
@_owners
def flatten() -> _Asked:
    """Close everything, from the next bar on until all is closed; nothing is opened meanwhile."""
    return _Asked("flatten")


@account_app.command()
@_owners
def close(
    symbol: Annotated[str, typer.Argument(help="The underlying, as in SPY.")],
) -> _Asked:
    """Close what is open on one underlying, all its legs together, from the next bar on."""
    return _Asked("close", symbol=symbol)


@account_app.command()
@_owners
def reinstate(
    symbol: Annotated[str, typer.Argument(help="The underlying, as in SPY.")],
) -> _Asked:
    """Say that a move was real (or an action right) for which an underlying is suspended."""
    return _Asked("reinstate", symbol=symbol)


@account_app.command("undo-action")
@_owners
def undo_action(
    symbol: Annotated[str, typer.Argument(help="The underlying, as in SPY.")],
) -> _Asked:
    """Take the last corporate action of an underlying back: it was called off, or told wrongly."""
    return _Asked("undo_action", symbol=symbol)


@account_app.command("reset-peak")
@_owners
def reset_peak() -> _Asked:
    """Accept the loss so far: the drawdown is measured from the present equity."""
    return _Asked("reset_peak")


@account_app.command()
@_owners
def deposit(amount: Annotated[float, typer.Argument(help="USD.")]) -> _Asked:
    """Pay cash in. It is no profit, and changes no loss in percent."""
    return _Asked("deposit", amount=amount)


@account_app.command()
@_owners
def withdraw(
    amount: Annotated[float, typer.Argument(help="USD, at most the buying power.")],
) -> _Asked:
    """Take cash out. It is no loss, and changes no loss in percent."""
    return _Asked("withdraw", amount=amount)


def give(settings: Settings, command: "Command", timeout_s: float) -> dict[str, Any]:
    """Hand a command to who trades the account, or obey it here where nobody does."""
    from trading.execution.lease import AccountLease
    from trading.execution.mailbox import RequestNotTaken, ask

    path = _journal(settings)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            lease = AccountLease(path)
        except AccountLeased as leased:
            left_s = deadline - time.monotonic()
            if left_s <= 0.0:
                raise OwnerRefused(
                    f"{leased.holder} trades the account and did not take the command within "
                    f"{timeout_s:g} s: it may be starting; try again, and wait longer"
                ) from None
            try:
                # In parts: it may end, or a successor come, while it does not answer.
                reply = ask(path, command, min(left_s, 2.0))
            except RequestNotTaken:
                time.sleep(_POLL_S)
                continue
            if reply.refused:
                raise OwnerRefused(reply.refused) from None
            return reply.answer
        with lease:
            return _obey_here(settings, path, command)


def _obey_here(settings: Settings, path: Path, command: "Command") -> dict[str, Any]:
    import msgspec

    from trading.execution.broker import PaperBroker
    from trading.execution.configured_fees import configured_fees
    from trading.execution.events import OwnerCommand
    from trading.execution.journal import Journal
    from trading.execution.owner import execute_command
    from trading.live import assembly

    with Journal(path) as journal:
        account, effect = journal.fold(), None
        if command.command in (OwnerCommand.PROMOTE, OwnerCommand.ROLLBACK):
            from trading.learning.champion.store import AccountChampion

            standing = AccountChampion.of(account)
            effect = assembly.champion_change(settings, command, standing)
        broker = PaperBroker(
            journal, account, configured_fees(settings.execution), assembly.risk_limits(settings)
        )
        answer: dict[str, Any] = msgspec.to_builtins(
            execute_command(broker, command, account.last_ts_ns, effect=effect)
        )
        return answer


def _journal(settings: Settings) -> Path:
    from trading.live import assembly

    path = assembly.journal_path(settings)
    if not path.is_file():
        raise JournalError(
            f"no journal at {path}: the account {settings.account.id} has not traded yet; start "
            "trading first, or name another by account.id, paths.state_dir or --config"
        )
    return path


def _state_line(account: dict[str, Any]) -> str:
    reasons = "; ".join(f"{each['reason']}" for each in account["restrictions"])
    return f"account {account['id']}: {account['trading_state']}" + (
        f" ({reasons})" if reasons else ""
    )


def _print_account(account: dict[str, Any]) -> None:
    print(_state_line(account))
    for each in account["restrictions"]:
        print(f"  {each['cause']} ({each['state']}): ends by {each['leaves']}; {each['owner']}")
    for underlying, reason in account["suspended"].items():
        print(f"  {underlying} is suspended: {reason}")
    for name in ("equity", "cash", "buying_power", "paid_in", "day_start_equity", "peak_equity"):
        value = account[name]
        shown = "not known while nothing trades" if value is None else f"{value:,.2f} USD"
        print(f"{name.replace('_', ' '):<17} {shown}")
    for underlying, strategy in account["open"].items():
        reason = account.get("unclosed", {}).get(underlying)
        asked = " (to be closed)" if underlying in account["to_close"] else ""
        print(
            f"open              {strategy} on {underlying}{asked}{f': {reason}' if reason else ''}"
        )
    print(f"traded by         {account['traded_by'] or 'nobody'}")
