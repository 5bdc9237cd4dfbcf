"""`trading account`: the owner's commands, whether or not the application runs."""

import getpass
import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading.command_line import ConfigOption, SetOption, failures, settings_for
from trading.config import Settings
from trading.errors import AccountLeased, JournalError, OwnerRefused, TradingError

if TYPE_CHECKING:
    from trading.execution.owner import Command

account_app = typer.Typer(
    no_args_is_help=True,
    help="See how the account stands, and command it: halt, reduce, resume, flatten, close, "
    "reset-peak, deposit, withdraw.",
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
JsonOption = Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0.1, help="Seconds to wait for who trades the account.")
]


@account_app.command()
def status(
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
    timeout: TimeoutOption = 5.0,
) -> None:
    """Print what may be traded and why, money, what is open, and who trades the account."""
    settings = settings_for(config, overrides or [])
    from trading.execution.broker import PaperBroker
    from trading.execution.fees import FeeSchedule
    from trading.execution.journal import Journal
    from trading.execution.lease import holder_of
    from trading.execution.mailbox import NotTaken, ask
    from trading.execution.owner import standing
    from trading.live import assembly

    with failures():
        path = _journal(settings)
        holder = holder_of(path)
        account: dict[str, Any] | None = None
        if holder is not None:
            try:
                account = ask(path, None, timeout).answer["account"]
            except NotTaken:
                account = None
        if account is None:
            with Journal(path, read_only=True) as journal:
                limits = assembly.risk_limits(settings)
                broker = PaperBroker(journal, journal.fold(), FeeSchedule(), limits)
                account = standing(broker, broker.known_equity())
        account["traded_by"] = None if holder is None else str(holder)
    if as_json:
        print(json.dumps(account))
    else:
        _print_account(account)


@account_app.command()
def halt(
    config: ConfigOption = None,
    overrides: SetOption = None,
    why: WhyOption = "",
    by: ByOption = None,
    key: KeyOption = "",
    as_json: JsonOption = False,
    timeout: TimeoutOption = 30.0,
) -> None:
    """Let nothing trade until `resume`; expiry and settlement still happen."""
    _command("halt", config, overrides, why, by, key, as_json, timeout)


@account_app.command()
def reduce(
    config: ConfigOption = None,
    overrides: SetOption = None,
    why: WhyOption = "",
    by: ByOption = None,
    key: KeyOption = "",
    as_json: JsonOption = False,
    timeout: TimeoutOption = 30.0,
) -> None:
    """Let only what closes a strategy trade until `resume`."""
    _command("reduce", config, overrides, why, by, key, as_json, timeout)


@account_app.command()
def resume(
    config: ConfigOption = None,
    overrides: SetOption = None,
    why: WhyOption = "",
    by: ByOption = None,
    key: KeyOption = "",
    as_json: JsonOption = False,
    timeout: TimeoutOption = 30.0,
) -> None:
    """End the owner's orders and every restriction whose cause is gone; see docs/states.md."""
    _command("resume", config, overrides, why, by, key, as_json, timeout)


@account_app.command()
def flatten(
    config: ConfigOption = None,
    overrides: SetOption = None,
    why: WhyOption = "",
    by: ByOption = None,
    key: KeyOption = "",
    as_json: JsonOption = False,
    timeout: TimeoutOption = 30.0,
) -> None:
    """Close everything, from the next bar on until all is closed; nothing is opened meanwhile."""
    _command("flatten", config, overrides, why, by, key, as_json, timeout)


@account_app.command()
def close(
    symbol: Annotated[str, typer.Argument(help="The underlying, as in SPY.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
    why: WhyOption = "",
    by: ByOption = None,
    key: KeyOption = "",
    as_json: JsonOption = False,
    timeout: TimeoutOption = 30.0,
) -> None:
    """Close what is open on one underlying, all its legs together, from the next bar on."""
    _command("close", config, overrides, why, by, key, as_json, timeout, symbol=symbol)


@account_app.command("reset-peak")
def reset_peak(
    config: ConfigOption = None,
    overrides: SetOption = None,
    why: WhyOption = "",
    by: ByOption = None,
    key: KeyOption = "",
    as_json: JsonOption = False,
    timeout: TimeoutOption = 30.0,
) -> None:
    """Accept the loss so far: the drawdown is measured from the present equity."""
    _command("reset_peak", config, overrides, why, by, key, as_json, timeout)


@account_app.command()
def deposit(
    amount: Annotated[float, typer.Argument(help="USD.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
    why: WhyOption = "",
    by: ByOption = None,
    key: KeyOption = "",
    as_json: JsonOption = False,
    timeout: TimeoutOption = 30.0,
) -> None:
    """Pay cash in. It is no profit, and changes no loss in percent."""
    _command("deposit", config, overrides, why, by, key, as_json, timeout, amount=amount)


@account_app.command()
def withdraw(
    amount: Annotated[float, typer.Argument(help="USD, at most the buying power.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
    why: WhyOption = "",
    by: ByOption = None,
    key: KeyOption = "",
    as_json: JsonOption = False,
    timeout: TimeoutOption = 30.0,
) -> None:
    """Take cash out. It is no loss, and changes no loss in percent."""
    _command("withdraw", config, overrides, why, by, key, as_json, timeout, amount=amount)


def _command(
    name: str,
    config: Path | None,
    overrides: list[str] | None,
    why: str,
    by: str | None,
    key: str,
    as_json: bool,
    timeout_s: float,
    symbol: str = "",
    amount: float = 0.0,
) -> None:
    settings = settings_for(config, overrides or [])
    from trading.execution.events import OwnerCommand
    from trading.execution.owner import Command, now_utc

    who = by if by is not None else f"{getpass.getuser()}@{socket.gethostname()}"
    command = Command(OwnerCommand(name), who, why, key, symbol, amount, now_utc())
    try:
        answer = _give(settings, command, timeout_s)
    except (TradingError, OSError) as error:
        if not as_json:
            with failures():
                raise
        print(json.dumps({"done": False, "said": str(error)}))
        raise typer.Exit(_FAILED) from None
    if as_json:
        print(json.dumps({"done": True, **answer}))
        return
    print(answer["said"] + (" (done before)" if answer["repeated"] else ""))
    print(_state_line(answer["account"]))


def _give(settings: Settings, command: "Command", timeout_s: float) -> dict[str, Any]:
    """Hand a command to who trades the account, or obey it here where nobody does."""
    from trading.execution.lease import AccountLease
    from trading.execution.mailbox import NotTaken, ask

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
                    f"{timeout_s:g} s: it may be starting; try again, with a longer --timeout"
                ) from None
            try:
                # In parts: it may end, or a successor come, while it does not answer.
                reply = ask(path, command, min(left_s, 2.0))
            except NotTaken:
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
    from trading.execution.fees import FeeSchedule
    from trading.execution.journal import Journal
    from trading.execution.owner import obey
    from trading.live import assembly

    with Journal(path) as journal:
        account = journal.fold()
        broker = PaperBroker(journal, account, FeeSchedule(), assembly.risk_limits(settings))
        answer: dict[str, Any] = msgspec.to_builtins(obey(broker, command, account.last_ts_ns))
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
