"""Taking back a corporate action that was none: the vendor called it off, or told it wrongly.

The journal is final, so that an action is undone by another event, which turns every position back
into what it was. It is exact: what was held, at which average price, under which strategy, comes
from the journal's own fold of before the action. Equity stays as it is: what the converted
positions are worth now, with the cash that was paid for fractions, is what those of before are
worth then.
"""

import math
from collections.abc import Mapping

from trading.errors import OwnerRefused
from trading.execution.adjustment import Adjustment
from trading.execution.events import Converted, CorporateActionApplied
from trading.execution.journal_writer import AccountJournalWriter
from trading.execution.legs import is_stock
from trading.execution.money import round_usd
from trading.execution.portfolio import Account

__all__ = ["undo_event"]


def undo_event(writer: AccountJournalWriter, underlying: str, now_ns: int) -> Adjustment:
    """Return what takes the last corporate action of what is open on `underlying` back.

    Nothing is changed here; the marks are those of what is held again, USD a share.

    Raises
    ------
    OwnerRefused
        None was applied, or what it made of the positions is not what is held now.
    """
    account = writer.account
    found = _last(writer, underlying)
    if found is None:
        known = ", ".join(account.actions) or "none"
        raise OwnerRefused(
            f"no corporate action was applied to what is open on {underlying or 'no symbol'}: "
            f"applied are {known}"
        )
    applied, before = found
    _check_unchanged(applied, account)
    worth = _worth_now(writer, applied)
    spun_off = worth.get(applied.spun_off, 0.0)
    back, marks = _turned_back(applied, account, before, worth)
    moved = 0.0
    if applied.spun_off:
        moved = -spun_off
    elif applied.after != applied.underlying:
        moved = sum(worth.values()) + applied.cash
    times = sum(name.endswith(f" of {applied.action}") for name in account.actions)
    event = CorporateActionApplied(
        ts_ns=now_ns,
        action=f"undone {times + 1} of {applied.action}",
        what=applied.what,
        underlying=applied.after,
        ex_date=applied.ex_date,
        terms=f"{applied.terms}, taken back",
        converted=tuple(back),
        after=applied.underlying,
        cash=round_usd(-applied.cash) + 0.0,
        cash_in_lieu=round_usd(-applied.cash_in_lieu) + 0.0,
        moved=round_usd(moved) + 0.0,
        spun_off=applied.spun_off,
        undoes=applied.action,
        to_close=before.strategies[applied.underlying].delivered,
    )
    return Adjustment(event, marks)


def _worth_now(writer: AccountJournalWriter, applied: CorporateActionApplied) -> dict[str, float]:
    """Return what each position that an action made is worth now, USD."""
    account = writer.account
    return {
        each.into: writer.last_mark(account.positions[each.into])
        * account.positions[each.into].quantity
        * account.size(each.into)
        for each in applied.converted
        if each.into
    }


def _turned_back(
    applied: CorporateActionApplied, account: Account, before: Account, worth: Mapping[str, float]
) -> tuple[list[Converted], dict[str, float]]:
    """Return how each position becomes what it was `before`, and its mark then, USD a share."""
    marks: dict[str, float] = {}
    back: list[Converted] = []
    for each in applied.converted:
        if not each.symbol:
            back.append(Converted(each.into, each.into_quantity, "", 0, each.average_price))
            continue
        position = before.positions[each.symbol]
        value = worth.get(each.into, 0.0)
        if is_stock(each.symbol):
            value += applied.cash + worth.get(applied.spun_off, 0.0)
        marks[each.symbol] = value / (position.quantity * before.size(each.symbol))
        held = account.positions.get(each.into)
        back.append(
            Converted(
                each.into,
                held.quantity if held else 0,
                each.symbol,
                position.quantity,
                position.average_price,
                marks[each.symbol],
                before.deliverables.get(each.symbol),
                before.stock_lots.get(each.symbol, 0.0),
            )
        )
    return back, marks


def _last(
    writer: AccountJournalWriter, underlying: str
) -> tuple[CorporateActionApplied, Account] | None:
    """Return the last action that made what is open on an underlying, and the account before it."""
    if underlying not in writer.account.strategies:
        return None
    last = 0
    for seq, event in enumerate(writer.journal.events(), 1):
        if not isinstance(event, CorporateActionApplied) or event.undoes:
            continue
        if event.after == underlying and event.action in writer.account.actions:
            last = seq
    if not last:
        return None
    before = Account()
    for seq, event in enumerate(writer.journal.events(), 1):
        if seq == last:
            assert isinstance(event, CorporateActionApplied)
            return event, before
        before.apply(event)
    raise AssertionError(f"event {last} of {writer.journal.path} was there and is not")


def _check_unchanged(applied: CorporateActionApplied, account: Account) -> None:
    """Refuse where what the action made of the positions is not all that is held of them."""
    if applied.underlying != applied.after and applied.underlying in account.strategies:
        raise OwnerRefused(
            f"{applied.action} ({applied.terms}) cannot be taken back while something else is open "
            f"on {applied.underlying}: close that first, with `trading account close "
            f"{applied.underlying}`"
        )
    names = {applied.after, applied.spun_off} - {""}
    held = {
        symbol: position.quantity * account.size(symbol)
        for symbol, position in account.positions.items()
        if position.underlying in names
    }
    made = {
        each.into: each.into_quantity
        * ((each.lot or account.multiplier) if is_stock(each.into) else account.multiplier)
        for each in applied.converted
        if each.into
    }
    changed = {symbol for symbol in {*held, *made} if held.get(symbol) != made.get(symbol)}
    # What a special dividend took from the price paid is no longer what the action made of it.
    changed |= {
        each.into
        for each in applied.converted
        if each.into in held
        and not math.isclose(account.positions[each.into].average_price, each.average_price)
    }
    if changed:
        raise OwnerRefused(
            f"{applied.action} ({applied.terms}) cannot be taken back: "
            f"{', '.join(sorted(changed))} changed since; close what is left with "
            f"`trading account close {applied.after}`"
        )
