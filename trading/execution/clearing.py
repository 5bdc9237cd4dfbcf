"""What happens to an account without a trade: expiry, assignment, dividends, the session's end."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from trading.errors import OrderError
from trading.execution.adjustment import adjustment
from trading.execution.assignment import early_assignments
from trading.execution.events import (
    CorporateActionApplied,
    DividendPaid,
    Ending,
    Event,
    SessionClosed,
    Settled,
)
from trading.execution.journal_writer import AccountJournalWriter
from trading.execution.margin.maintenance import margins_after
from trading.execution.money import round_usd
from trading.execution.orders import Intent, Leg, Order, QuoteView
from trading.execution.settlement import settlements
from trading.execution.states import Cause, TradingState
from trading.market.closes import CloseSource
from trading.market.contracts import Right, parse_symbol
from trading.market.corporate_actions import (
    CorporateAction,
    Delisting,
    Merger,
    action_id,
    without_adjusting,
)
from trading.market.dividends import Dividend


class Clearing(AccountJournalWriter):
    """Writes what expiry, assignment, dividends and corporate actions do to an account."""

    def apply_action(
        self,
        action: CorporateAction,
        now_ns: int,
        *,
        spot: float = math.nan,
        marks: Mapping[str, float] | None = None,
        adjusted_root: str = "",
    ) -> CorporateActionApplied | None:
        """Convert what is held on an action's underlying; None where nothing is, or it was done.

        To be called when the session of the ex-date begins, before anything trades, in the order
        of `corporate_actions.in_order`. Orders that wait on the underlying are cancelled. All of it
        is one transaction, and applying it again changes nothing. Contracts that deliver nothing
        but cash are paid it at once. `marks` (by default the last known ones) holds the value of
        each position, which the conversion keeps; see `adjustment` for the rest. Afterwards `marks`
        of these books say what each new position is worth.

        Raises
        ------
        DataError
            A fraction of a share must be paid, and there is no price; nothing is converted.
        """
        account = self.account
        held = account.strategies.get(action.underlying)
        if held is None or action_id(action) in account.actions or isinstance(action, Delisting):
            return None
        self.mark({})
        values = self.marks | dict(marks or {})
        booked = adjustment(account, action, values, spot, now_ns, adjusted_root=adjusted_root)
        waiting = [
            order
            for order in account.working_orders.values()
            if order.order.underlying in (action.underlying, booked.event.after)
        ]
        why = f"{action.underlying}: {action.terms}"
        events: list[Event] = [*self.cancellations(waiting, now_ns, why), booked.event]
        if isinstance(action, Merger):
            events += _paid_in_cash(booked.event, account.multiplier, action.cash, now_ns)
        self.record(events)
        known = values | booked.marks
        self.marks = {symbol: known[symbol] for symbol in account.positions if symbol in known}
        self.call_margin(now_ns)
        return booked.event

    def settle(
        self,
        symbols: Iterable[str],
        underlying_prices: Mapping[str, float],
        now_ns: int,
        sources: Mapping[str, CloseSource] | None = None,
    ) -> list[Settled]:
        """End the held ones of expiring contracts: paid, exercised or assigned, see `settlement`.

        Orders that wait on them are cancelled. All of it is one transaction, so a spread is never
        left with one leg. Delivered stock is marked at its closing price. `sources` says where
        prices come from; `now_ns` is the close of the session that they are of.

        Raises
        ------
        DataError
            An underlying's closing price is missing or no positive number; nothing is settled.
        """
        ended = self._settlements(symbols, underlying_prices, now_ns, sources)
        self._book_endings(ended, "contract expired", now_ns)
        return ended

    def assign_early(
        self,
        dividends: Iterable[Dividend],
        quotes: Mapping[str, QuoteView],
        underlying_prices: Mapping[str, float],
        now_ns: int,
        sources: Mapping[str, CloseSource] | None = None,
    ) -> list[Settled]:
        """Assign sold calls whose holders take the stock for its dividend; one transaction.

        To be called at the close of the last session before the ex-dates of `dividends`, before
        `close_session`; `quotes` are of the held calls and of the puts of the same strikes. Orders
        that wait on an assigned contract are cancelled. See `assignment`. For a special dividend
        that lowers strikes nobody exercises: the contract keeps its worth through it.

        Raises
        ------
        DataError
            Calls are sold on an underlying without a closing price; nothing is assigned.
        """
        told = sources or {}
        assigned = [
            event
            for dividend in added_up(without_adjusting(dividends))
            for event in early_assignments(
                self.account.positions,
                dividend,
                quotes,
                underlying_prices.get(dividend.underlying, math.nan),
                self.account.multiplier,
                now_ns,
                self.account.adjusted,
                told.get(dividend.underlying, CloseSource.OFFICIAL),
            )
        ]
        self._book_endings(assigned, "contract assigned", now_ns)
        return assigned

    def pay_dividends(self, dividends: Iterable[Dividend], now_ns: int) -> list[DividendPaid]:
        """Book the dividends of stock held into its ex-date; short stock owes them.

        To be called when the session of the ex-date begins, before anything trades. Those of one
        ex-date add up, and what is told later, or corrected, is paid for the stock that was held
        then. Each is booked once, also one that nothing is held for: so stock that is bought later
        on the ex-date gets nothing when the session begins a second time after a restart.
        """
        paid = []
        account = self.account
        for dividend in added_up(dividends):
            ex_date, underlying = dividend.ex_date.isoformat(), dividend.underlying
            lots, lot, before, count = account.paid_so_far(underlying, ex_date)
            owed = round(dividend.amount - before, 6)
            if count and not owed:
                continue
            if not count:
                held = account.positions.get(underlying)
                lots = held.quantity if held else 0
                lot = account.stock_lots.get(underlying, 0.0)
            cash = round_usd(lots * (lot or account.multiplier) * owed)
            number = count + 1
            paid.append(
                DividendPaid(now_ns, underlying, ex_date, lots, owed, cash, number=number, lot=lot)
            )
        self.record(paid)
        self.call_margin(now_ns)
        return paid

    def close_session(
        self,
        session_date: str,
        equity: float,
        now_ns: int,
        *,
        reward: float = 0.0,
        rewards: Mapping[str, float] | None = None,
        profits: Mapping[str, float] | None = None,
        expiring: Iterable[str] = (),
        underlying_prices: Mapping[str, float] | None = None,
        sources: Mapping[str, CloseSource] | None = None,
    ) -> None:
        """End a session in one transaction.

        Waiting orders are cancelled, `expiring` contracts end as by `settle`, and `equity`, in
        which they count at `settlement_price` and stock at its closing price, becomes the base of
        the daily loss and perhaps the peak. A halt for a daily loss ends with the day; whatever
        else restricts trading stays. `reward`, `rewards` and `profits` as in `SessionClosed`.

        Raises
        ------
        DataError
            As `settle`; nothing is written then.
        """
        ended = self._settlements(expiring, underlying_prices or {}, now_ns, sources)
        self.know_equity(equity, now_ns)
        self.mark({})
        events = self.cancellations(self.account.working_orders.values(), now_ns, "expired")
        events += [*ended, *margins_after(self.account, ended, self.marks, now_ns)]
        events.append(
            SessionClosed(
                now_ns, session_date, equity, reward, dict(rewards or {}), dict(profits or {})
            )
        )
        events += self.ending([Cause.DAILY_LOSS], "session closed", now_ns)
        self._record_endings(events, ended, now_ns)

    def stock_to_liquidate(self) -> list[str]:
        """Underlyings with stock that nobody chose to hold: delivered, or left by an expiry.

        Each is to be closed in its next session by `liquidation`, ahead of the agent's actions.
        None while trading is halted: then nothing may be closed; nor what is suspended. What the
        owner wants closed is left out: that has its own way.
        """
        account = self.account
        if account.trading_state is TradingState.HALTED:
            return []
        asked = account.to_close
        return [
            name
            for name, held in account.strategies.items()
            if held.delivered and name not in account.suspensions and name not in asked
        ]

    def liquidation(self, underlying: str, now_ns: int) -> Order:
        """Return the order that closes all options and stock of an underlying at the market.

        It is for `submit` at once, as it carries the next order id. What does not trade is left
        for another one at the next bar.

        Raises
        ------
        OrderError
            Nothing is open on the underlying.
        """
        held = self.account.strategies.get(underlying)
        if held is None:
            raise OrderError(f"nothing is open on {underlying}: there is nothing to liquidate")
        return Order(
            order_id=self.account.next_order_id,
            ts_ns=now_ns,
            underlying=underlying,
            strategy=held.strategy,
            intent=Intent.CLOSE,
            legs=tuple(Leg(leg.symbol, -leg.ratio) for leg in held.legs),
            units=held.units,
        )

    def _settlements(
        self,
        symbols: Iterable[str],
        underlying_prices: Mapping[str, float],
        now_ns: int,
        sources: Mapping[str, CloseSource] | None = None,
    ) -> list[Settled]:
        account = self.account
        return settlements(
            account.positions,
            symbols,
            underlying_prices,
            account.multiplier,
            now_ns,
            account.adjusted,
            sources,
        )

    def _book_endings(self, ended: Sequence[Settled], why: str, now_ns: int) -> None:
        symbols = {event.symbol for event in ended}
        affected = [
            waiting
            for waiting in self.account.working_orders.values()
            if any(leg.symbol in symbols for leg in waiting.order.legs)
        ]
        self.mark({})
        margins = margins_after(self.account, ended, self.marks, now_ns)
        cancelled = self.cancellations(affected, now_ns, why)
        self._record_endings([*cancelled, *ended, *margins], ended, now_ns)

    def _record_endings(
        self, events: Sequence[Event], ended: Sequence[Settled], now_ns: int
    ) -> None:
        """Book the end of positions among `events`, and mark the stock that it brings."""
        held = self.account.positions
        prices = {held[each.symbol].underlying: each.underlying_price for each in ended}
        self.record(events)
        self.marks |= {ticker: price for ticker, price in prices.items() if ticker in held}
        self.call_margin(now_ns)


def added_up(dividends: Iterable[Dividend]) -> list[Dividend]:
    """One dividend for each underlying and ex-date: those of one morning count together."""
    totals: dict[tuple[str, date], float] = {}
    for each in dividends:
        key = (each.underlying, each.ex_date)
        totals[key] = totals.get(key, 0.0) + each.amount
    return [
        Dividend(underlying, ex_date, round(amount, 6))
        for (underlying, ex_date), amount in totals.items()
    ]


def _paid_in_cash(
    event: CorporateActionApplied, multiplier: float, share: float, now_ns: int
) -> list[Settled]:
    """Return the end of contracts that deliver only cash.

    What they are worth is fixed, so it is paid.
    """
    ended = []
    for each in event.converted:
        if each.deliverable is None or each.deliverable.shares or each.deliverable.others:
            continue
        contract = parse_symbol(each.into)
        sign = 1 if contract.right is Right.CALL else -1
        price = max(0.0, sign * (each.deliverable.cash / multiplier - contract.strike))
        price = round(price, 6)
        ended.append(
            Settled(
                now_ns,
                each.into,
                each.into_quantity,
                price,
                round_usd(each.into_quantity * multiplier * price) + 0.0,
                share,
                ending=Ending.CASH if price else Ending.WORTHLESS,
                source=CloseSource.ACTION,
            )
        )
    return ended
