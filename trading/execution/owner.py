"""The owner's desk: commands are checked, journalled with their effects, and answered.

Who has the account's broker obeys: the live market's thread while the application runs, and the
command line while it does not. Each command is one transaction, and one that comes again by its key
is answered as before and does nothing.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from trading.errors import OwnerRefused
from trading.execution.broker import PaperBroker
from trading.execution.commands import Command, CommandResult, now_utc
from trading.execution.events import (
    CashMoved,
    CorporateActionApplied,
    Event,
    OwnerCommand,
    OwnerCommanded,
    UnderlyingReinstated,
)
from trading.execution.money import round_usd
from trading.execution.portfolio import Account, unexplained_from
from trading.execution.states import OWNER_ORDERS, RESTRICTION_RULES, Cause
from trading.execution.undo import undo_event

__all__ = [
    "Command",
    "CommandResult",
    "Effect",
    "account_status",
    "check_text",
    "execute_command",
    "now_utc",
]

Effect: TypeAlias = Callable[[PaperBroker, Command, int, float | None], tuple[str, Sequence[Event]]]
"""Says what a command does, with its events: of broker, command, exchange time, equity in USD."""

MOST_USD = 1e12
"""Nothing above this is paid in at once: it is a slip of the keyboard."""
LONGEST_TEXT = 500
"""Characters of a name, reason or key."""

_ORDERS = {
    OwnerCommand.HALT: Cause.OWNER_HALT,
    OwnerCommand.REDUCE: Cause.OWNER_REDUCE,
    OwnerCommand.FLATTEN: Cause.OWNER_FLATTEN,
}


def execute_command(
    broker: PaperBroker,
    command: Command,
    now_ns: int,
    equity: float | None = None,
    effect: Effect | None = None,
) -> CommandResult:
    """Do what the owner wants.

    Parameters
    ----------
    broker
        Of the account.
    command
        What is wanted.
    now_ns
        Exchange time.
    equity
        The account's worth now in USD; None where no market is looked at.
    effect
        What it does, for a command that is prepared elsewhere: a choice of the champion, a reload
        of the settings.

    Raises
    ------
    OwnerRefused
        It cannot be done, and nothing was written; the message says why and what can.
    """
    account = broker.account
    equity = broker.known_equity() if equity is None else equity
    check_text(command)
    command = msgspec.structs.replace(command, symbol=_as_written(account, command.symbol))
    before = account.commands.get(command.key) if command.key else None
    if before is not None:
        # What it closed is held no more, so nothing says how that is written.
        asked = (command.command, command.symbol.upper(), command.amount)
        differs = asked != (before.command, before.symbol.upper(), before.amount)
        # Journals of older versions do not say what was promoted.
        if differs or before.which not in ("", command.which):
            raise OwnerRefused(
                f"the key {command.key!r} was the one of {before.command} before: give every "
                "command a key of its own"
            )
        return CommandResult(before.answer, before.number, True, account_status(broker, equity))
    does = effect or _EFFECTS.get(command.command)
    if does is None:
        raise OwnerRefused(f"{command.command} is done only while the application runs: start it")
    said, events = does(broker, command, now_ns, equity)
    number = account.owner_commands + 1
    word = OwnerCommanded(
        now_ns,
        number,
        command.command,
        command.by,
        command.why,
        command.key,
        command.at or now_utc(),
        said,
        command.symbol,
        command.amount,
        command.which,
    )
    broker.record([word, *events])
    if equity is not None:
        equity += sum(event.amount for event in events if isinstance(event, CashMoved))
        broker.know_equity(equity, now_ns)
    if any(isinstance(event, CashMoved | CorporateActionApplied) for event in events):
        broker.call_margin(now_ns)
    return CommandResult(said, number, False, account_status(broker, equity))


def _as_written(account: Account, symbol: str) -> str:
    """Return the symbol that is meant, as it is held: `spy` is SPY."""
    ordered = [each.order.underlying for each in account.working_orders.values()]
    known = (*account.strategies, *account.suspensions, *account.positions, *ordered)
    name = symbol.strip()
    return next((each for each in known if each.upper() == name.upper()), name)


def account_status(broker: PaperBroker, equity: float | None) -> dict[str, Any]:
    """Return where an account stands, as JSON values; money in USD, None where it is not known."""
    account = broker.account
    return {
        "id": account.account_id,
        "trading_state": account.trading_state.upper(),
        "trading_state_reason": account.state_reason,
        "restrictions": [
            {
                "cause": cause,
                "state": each.state.upper(),
                "reason": each.reason,
                "leaves": RESTRICTION_RULES[cause].leaves
                if cause in RESTRICTION_RULES
                else "nothing",
                "owner": RESTRICTION_RULES[cause].owner
                if cause in RESTRICTION_RULES
                else "`resume`",
            }
            for cause, each in account.restrictions.items()
        ],
        "suspended": account.suspended,
        "cash": account.cash,
        "buying_power": account.buying_power,
        "equity": equity,
        "paid_in": account.paid_in,
        "day_start_equity": account.day_start_equity,
        "peak_equity": account.peak_equity,
        "open": {name: held.strategy for name, held in account.strategies.items()},
        "to_close": account.to_close,
        "owner_commands": account.owner_commands,
    }


def check_text(command: Command) -> None:
    """Refuse texts of a command that the journal does not take."""
    for name in ("by", "why", "key", "symbol", "at", "which"):
        text = getattr(command, name)
        if len(text) > LONGEST_TEXT or not text.isprintable():
            raise OwnerRefused(
                f"{name}: {text[:40]!r} is too long or holds what cannot be printed: give at most "
                f"{LONGEST_TEXT} printable characters"
            )
    if not command.by.strip():
        raise OwnerRefused("by: is empty: say who commands")


def _order(
    broker: PaperBroker, command: Command, now_ns: int, equity: float | None
) -> tuple[str, list[Event]]:
    """Halt, reduce or flatten: the newest of them replaces the one before."""
    account, cause = broker.account, _ORDERS[command.command]
    reason = f"{command.command} by {command.by}" + (f": {command.why}" if command.why else "")
    others = [each for each in OWNER_ORDERS if each != cause]
    events = broker.entering(cause, now_ns, reason=reason, instead_of=others)
    open_now = ", ".join(account.strategies) or "nothing"
    said = {
        OwnerCommand.HALT: f"halted: nothing trades until `resume`; open are {open_now}",
        OwnerCommand.REDUCE: f"reducing: only closing trades until `resume`; open are {open_now}",
        OwnerCommand.FLATTEN: (
            f"flattening: to be closed from the next bar on are {open_now}; nothing is opened "
            "until `resume`"
        ),
    }[command.command]
    return said + _others(broker, {cause, *others}), events


def _others(broker: PaperBroker, but: set[str]) -> str:
    """Return what else restricts trading."""
    reasons = [
        each.reason for cause, each in broker.account.restrictions.items() if cause not in but
    ]
    return f" (beside {', '.join(reasons)})" if reasons else ""


def _resume(
    broker: PaperBroker, command: Command, now_ns: int, equity: float | None
) -> tuple[str, list[Event]]:
    """End what the owner ordered, and all whose cause is gone; the others keep their reason."""
    account = broker.account
    stands: dict[str, str] = {}
    for cause in account.restrictions:
        if why := broker.risk.why_unresolved(cause, account, equity):
            stands[cause] = why
    ended = [cause for cause in account.restrictions if cause not in stands]
    told = "; ".join(f"{cause} stands: {why}" for cause, why in stands.items())
    if stands and not ended:
        raise OwnerRefused(told)
    said = "trading goes on" if not stands else f"still {account.trading_state}: {told}"
    if ended:
        said = f"ended: {', '.join(ended)}; {said}"
    elif account.closing:
        said = f"not to be closed any more: {', '.join(account.closing)}; {said}"
    else:
        said = "nothing restricts trading"
    if equity is None and ended:
        said += "; a cause that still holds enters again at the next bar"
    why_now = f"resumed by {command.by}" + (f": {command.why}" if command.why else "")
    return said, broker.ending(ended, why_now, now_ns)


def _close(
    broker: PaperBroker, command: Command, now_ns: int, equity: float | None
) -> tuple[str, list[Event]]:
    account, symbol = broker.account, command.symbol
    held, waiting = account.strategies.get(symbol), broker.waiting_on(symbol)
    if held is None and waiting is not None:
        said = f"{waiting.order.order_id} is cancelled: it was to open on {symbol}"
        return said, broker.cancellations([waiting], now_ns, "cancelled by the owner")
    if held is None:
        position = account.positions.get(symbol)
        open_now = ", ".join(account.strategies) or "nothing"
        hint = (
            f"{symbol} is a leg of {position.underlying}: close that"
            if position
            else (f"open are {open_now}")
        )
        raise OwnerRefused(f"nothing is open on {symbol or 'no symbol'}: {hint}")
    said = f"to be closed from the next bar on: {held.strategy} on {symbol}, {held.units} units"
    if Cause.OWNER_HALT in account.restrictions:
        raise OwnerRefused(
            f"{symbol} is not closed while the owner's halt stands: `reduce` or `resume` first"
        )
    return said, []


def _reinstate(
    broker: PaperBroker, command: Command, now_ns: int, equity: float | None
) -> tuple[str, list[Event]]:
    """End the suspensions of an underlying that wait for its owner's word."""
    account, symbol = broker.account, command.symbol
    reasons = account.suspensions.get(symbol, [])
    waiting = [each for each in reasons if unexplained_from(each) is not None]
    if not waiting:
        others = "; ".join(reasons)
        raise OwnerRefused(
            f"{symbol} is suspended, and not for want of an explanation: {others}"
            if reasons
            else f"{symbol or 'no symbol'} is not suspended: suspended are "
            f"{', '.join(account.suspensions) or 'none'}"
        )
    why = f"reinstated by {command.by}" + (f": {command.why}" if command.why else "")
    first = account.suspension_changes + 1
    events: list[Event] = [
        UnderlyingReinstated(now_ns, number, symbol, why, each)
        for number, each in enumerate(waiting, first)
    ]
    left = [each for each in reasons if each not in waiting]
    said = f"{symbol} still is suspended: {'; '.join(left)}" if left else f"{symbol} trades again"
    return f"{said}; what fell due on it meanwhile is done first", events


def _undo_action(
    broker: PaperBroker, command: Command, now_ns: int, equity: float | None
) -> tuple[str, list[Event]]:
    """Turn what a corporate action made of positions back into what they were."""
    event, marks = undo_event(broker, command.symbol, now_ns)
    why = f"{event.underlying}: {event.terms}"
    names = (event.underlying, event.after, event.spun_off)
    waiting = [
        each for each in broker.account.working_orders.values() if each.order.underlying in names
    ]
    broker.marks |= marks
    held = ", ".join(f"{each.into_quantity} {each.into}" for each in event.converted if each.into)
    said = f"taken back: {event.undoes}; held again are {held}"
    return said, [*broker.cancellations(waiting, now_ns, why), event]


def _reset_peak(
    broker: PaperBroker, command: Command, now_ns: int, equity: float | None
) -> tuple[str, list[Event]]:
    if equity is None or not math.isfinite(equity):
        return "the peak is reset to the equity of the next bar", []
    return f"the drawdown is measured from {equity:.2f} USD on", []


def _deposit(
    broker: PaperBroker, command: Command, now_ns: int, equity: float | None
) -> tuple[str, list[Event]]:
    amount = _amount(command)
    return _cash(broker, amount, now_ns, equity, f"paid in {amount:.2f} USD")


def _withdraw(
    broker: PaperBroker, command: Command, now_ns: int, equity: float | None
) -> tuple[str, list[Event]]:
    amount = _amount(command)
    power = broker.account.buying_power
    if amount > power:
        raise OwnerRefused(
            f"amount: {amount:.2f} USD is more than the buying power of {max(power, 0.0):.2f}: "
            "take out less, or close positions first"
        )
    return _cash(broker, -amount, now_ns, equity, f"took out {amount:.2f} USD")


def _cash(
    broker: PaperBroker, amount: float, now_ns: int, equity: float | None, done: str
) -> tuple[str, list[Event]]:
    account = broker.account
    known = equity if equity is not None and math.isfinite(equity) else None
    event = CashMoved(now_ns, account.cash_moves + 1, amount, known)
    return f"{done}: cash is {round_usd(account.cash + amount):.2f} USD", [event]


def _amount(command: Command) -> float:
    # The bounds come first: beyond them there are no whole cents, and NaN lies within none.
    told = command.amount
    cents = round(told * 100.0) if 0.0 < told <= MOST_USD else 0
    if cents < 1 or abs(cents / 100.0 - told) > 1e-9:
        raise OwnerRefused(
            f"amount: {told} is not allowed: give USD in whole cents, from 0.01 to {MOST_USD:.0f}"
        )
    return cents / 100.0


_EFFECTS: dict[OwnerCommand, Effect] = {
    OwnerCommand.HALT: _order,
    OwnerCommand.REDUCE: _order,
    OwnerCommand.FLATTEN: _order,
    OwnerCommand.RESUME: _resume,
    OwnerCommand.CLOSE: _close,
    OwnerCommand.REINSTATE: _reinstate,
    OwnerCommand.UNDO_ACTION: _undo_action,
    OwnerCommand.RESET_PEAK: _reset_peak,
    OwnerCommand.DEPOSIT: _deposit,
    OwnerCommand.WITHDRAW: _withdraw,
}
