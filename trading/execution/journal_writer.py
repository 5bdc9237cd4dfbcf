"""Writes the journal of one account, and keeps its state in memory and its holdings' values.

Every step is written to the journal in one transaction before it reaches the account, so the
account in memory is never ahead of the disk.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from trading.errors import JournalError
from trading.execution.events import (
    BasesScaled,
    ChampionPromoted,
    ChampionRolledBack,
    Event,
    OrderCancelled,
    PeakReset,
    PromotedBy,
    RolledBackBy,
    SessionClosed,
    StateChanged,
    UnderlyingReinstated,
    UnderlyingSuspended,
    WeightsAdopted,
)
from trading.execution.holdings import Position, WorkingOrder, marked
from trading.execution.journal import Journal
from trading.execution.orders import Intent, QuoteView
from trading.execution.portfolio import Account
from trading.execution.states import RESTRICTION_RULES, Cause, Restriction, TradingState, strictest


class AccountJournalWriter:
    """The journal of one account, the account in memory, and the marks of its holdings.

    Parameters
    ----------
    journal, account : Journal, Account
        `account` is what `journal.open_account` returned; from then on only this object changes
        either of them.

    Raises
    ------
    JournalError
        The account is not open, or the journal cannot be written; then the account is unchanged.

    Attributes
    ----------
    marks : dict
        Last known value of each holding, USD a share.
    """

    def __init__(self, journal: Journal, account: Account) -> None:
        if not account.account_id:
            raise JournalError(f"account of {journal.path} is not open: use Journal.open_account")
        self.journal = journal
        self.account = account
        self.marks: dict[str, float] = {}
        self.followers: list[Callable[[Sequence[Event]], None]] = []
        """Told of events once they are journalled and applied."""

    def next_order_id(self) -> str:
        """Return the id that the next submitted order must carry; it continues after a restart."""
        return self.account.next_order_id

    def record(self, events: Sequence[Event]) -> None:
        """Journal events in one transaction, then apply them: decisions of a bar, weights."""
        self.journal.append_many(events)
        for event in events:
            self.account.apply(event)
        if any(isinstance(event, SessionClosed) for event in events):
            self.journal.keep_snapshot(self.account)
        for follow in self.followers:
            follow(events)

    def mark(self, quotes: Mapping[str, QuoteView]) -> None:
        """Revalue holdings at `quotes`; one without a quote keeps its value.

        Those of a suspended underlying keep theirs whatever the quotes say.
        """
        suspended = self.account.suspensions
        self.marks = {
            symbol: marked(quotes[symbol], last)
            if symbol in quotes and position.underlying not in suspended
            else last
            for symbol, position in self.account.positions.items()
            for last in (self.last_mark(position),)
        }

    def last_mark(self, position: Position) -> float:
        """Last known value of a holding, USD a share; what was paid for it before the first."""
        kept = self.account.kept_marks.get(position.underlying, {}).get(position.symbol)
        if kept is not None:
            return kept
        mark = self.marks.get(position.symbol, math.nan)
        return mark if math.isfinite(mark) else position.average_price

    def equity(self) -> float:
        """Cash plus positions at their last known value (their price at opening before that)."""
        self.mark({})
        return self.account.equity(self.marks)

    def set_trading_state(self, state: TradingState, reason: str, now_ns: int) -> None:
        """Restrict trading by hand, for `reason`; ACTIVE ends every restriction there is.

        Orders that the state forbids are cancelled. What restricted trading before stands beside
        it; a cause that still holds enters again at the next bar.
        """
        if state is TradingState.ACTIVE:
            self.record([StateChanged(now_ns, state, reason)])
        else:
            self.record(self.entering(reason, now_ns, state))

    def suspend(self, underlying: str, reason: str, now_ns: int) -> None:
        """Let an underlying neither trade nor move in value; its waiting orders are cancelled.

        All others go on. A second reason is kept beside the first; a known one changes nothing.
        """
        self.record(self._suspension(underlying, reason, now_ns))

    def reinstate(
        self, underlying: str, reason: str, now_ns: int, lifts: str | None = None
    ) -> None:
        """End the suspension of an underlying; nothing happens where there is none.

        `reason` says why. Only the suspension for `lifts` ends, where it is given: the underlying
        stays suspended for its other reasons.
        """
        reasons = self.account.suspensions.get(underlying, ())
        if reasons and (lifts is None or lifts in reasons):
            number = self.account.suspension_changes + 1
            self.record([UnderlyingReinstated(now_ns, number, underlying, reason, lifts)])

    def _suspension(self, underlying: str, reason: str, now_ns: int) -> list[Event]:
        account = self.account
        if reason in account.suspensions.get(underlying, ()):
            return []
        marks = {
            symbol: self.last_mark(position)
            for symbol, position in account.positions.items()
            if position.underlying == underlying
        }
        waiting = [
            each for each in account.working_orders.values() if each.order.underlying == underlying
        ]
        number = account.suspension_changes + 1
        return [
            UnderlyingSuspended(now_ns, number, underlying, reason, marks),
            *self.cancellations(waiting, now_ns, f"{underlying} is suspended: {reason}"),
        ]

    def reset_peak(self, equity: float, now_ns: int) -> None:
        """Measure the drawdown from `equity` (USD) on, which ends the restriction for one."""
        reset = PeakReset(now_ns, self.account.peak_resets + 1, equity)
        self.record([reset, *self.ending([Cause.MAX_DRAWDOWN], "the peak was reset", now_ns)])

    def know_equity(self, equity: float, now_ns: int) -> None:
        """Make up for what waited for the account's worth (USD): moved cash, and peaks.

        To be called before `equity` is held against any limit; what is no number changes nothing.
        """
        if not math.isfinite(equity):
            return
        if self.account.unscaled_cash or self.account.champion_peak_due:
            self.record([BasesScaled(now_ns, self.account.scalings + 1, equity)])
        if self.account.peak_reset_due:
            self.reset_peak(equity, now_ns)

    def known_equity(self) -> float | None:
        """Return what the account is worth without looking at any market.

        None where it holds something.

        In USD.
        """
        return None if self.account.positions else self.account.cash

    def change_champion(
        self, change: ChampionPromoted | ChampionRolledBack, adopted: WeightsAdopted
    ) -> None:
        """Let another champion trade, in one transaction."""
        self.record(self.champion_events(change, adopted))

    def champion_events(
        self, change: ChampionPromoted | ChampionRolledBack, adopted: WeightsAdopted
    ) -> list[Event]:
        """Return what lets another champion trade, for one transaction.

        An owner's word also ends the state of only closing that the loss under a champion led to.
        """
        events: list[Event] = [change, adopted]
        if change.by in (PromotedBy.OWNER, RolledBackBy.OWNER):
            why = f"champion {change.champion} is its owner's choice"
            events += self.ending([Cause.CHAMPION_DRAWDOWN], why, change.ts_ns)
        return events

    def _roll_back_champion(self, equity: float, now_ns: int) -> None:
        """Go back to the champion before, and leave only closing, in one transaction."""
        account = self.account
        lost_pct = 100.0 * (1.0 - equity / account.champion_peak_equity)
        earlier = account.champion_before
        fallen = ChampionRolledBack(
            now_ns,
            account.rollbacks + 1,
            earlier or account.champion,
            account.champion_before_version if earlier else account.champion_version,
            account.champion,
            RolledBackBy.DRAWDOWN,
            f"equity fell {lost_pct:.2f} % under champion {account.champion}"
            + ("" if earlier else "; no earlier champion is known"),
            equity,
            account.champion_peak_equity,
        )
        self.record([fallen, *self.entering(Cause.CHAMPION_DRAWDOWN, now_ns)])

    def call_margin(self, now_ns: int) -> None:
        """Call for margin where buying power is below zero, and end the call where it is not."""
        if self.account.buying_power < 0.0:
            self._restrict(Cause.MARGIN_CALL, now_ns)
        else:
            self.record(self.ending([Cause.MARGIN_CALL], "margin call met", now_ns))

    def _restrict(self, cause: Cause, now_ns: int) -> None:
        """Let a cause of the table restrict trading; nothing changes where it does already."""
        self.record(self.entering(cause, now_ns))

    def entering(
        self,
        cause: str,
        now_ns: int,
        state: TradingState | None = None,
        reason: str = "",
        *,
        instead_of: Sequence[str] = (),
        flatten: bool = False,
    ) -> list[Event]:
        """Return the events by which a cause restricts trading in place of others.

        Waiting orders that it forbids end.

        None where it stands already as it is. State and reason are those of the table by default.
        """
        flatten = flatten or (cause in RESTRICTION_RULES and RESTRICTION_RULES[cause].flatten)
        new = Restriction(
            state or RESTRICTION_RULES[cause].state, reason or str(cause), now_ns, flatten
        )
        standing = self.account.restrictions
        old = standing.get(cause)
        replaced = [each for each in instead_of if each in standing and each != cause]
        same = old is not None and (old.state, old.reason) == (new.state, new.reason)
        if same and not replaced:
            return []
        events: list[Event] = []
        after = dict(standing)
        for each in replaced:
            del after[each]
            holds = strictest(after)[0]
            events.append(StateChanged(now_ns, holds, f"replaced by {cause}", each))
        after[cause] = new
        holds = strictest(after)[0]
        events.append(
            StateChanged(now_ns, holds, new.reason, cause, new.state, flatten=new.flatten)
        )
        forbidden = [
            waiting
            for waiting in self.account.working_orders.values()
            if holds is TradingState.HALTED
            or (holds is TradingState.REDUCING and waiting.order.intent is Intent.OPEN)
        ]
        return [*events, *self.cancellations(forbidden, now_ns, f"trading is {holds}")]

    def ending(self, causes: Iterable[str], why: str, now_ns: int) -> list[Event]:
        """Causes restrict trading no more; no event for one that does not."""
        left = dict(self.account.restrictions)
        events: list[Event] = []
        for cause in causes:
            if left.pop(cause, None) is not None:
                events.append(StateChanged(now_ns, strictest(left)[0], why, cause))
        return events

    @staticmethod
    def cancellations(waiting: Iterable[WorkingOrder], now_ns: int, reason: str) -> list[Event]:
        """Return the end of waiting orders."""
        return [OrderCancelled(now_ns, entry.order.order_id, reason) for entry in waiting]
