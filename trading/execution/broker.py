"""The paper broker: takes orders, fills them against live quotes, settles what expires.

Every step is written to the journal in one transaction before it reaches the account, so the
account in memory is never ahead of the disk.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from trading.errors import JournalError, OrderError
from trading.execution.assignment import early_assignments
from trading.execution.crossing import Crossing, cross, quoted
from trading.execution.events import (
    DividendPaid,
    Event,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    PeakReset,
    SessionClosed,
    Settled,
    StateChanged,
)
from trading.execution.exposure import Greeks, headroom
from trading.execution.fees import FeeSchedule
from trading.execution.holdings import WorkingOrder, marked
from trading.execution.journal import Journal
from trading.execution.legs import is_stock
from trading.execution.margin import required_cash, uncovered_margin
from trading.execution.margin_watch import cents_up, margin_changes, margins_after
from trading.execution.money import usd
from trading.execution.orders import (
    Fill,
    Intent,
    Leg,
    Order,
    OrderType,
    QuoteView,
    Rejection,
    RejectReason,
    TimeInForce,
)
from trading.execution.portfolio import Account
from trading.execution.refusals import refusals
from trading.execution.requirement import legs_reserve, market_requirement
from trading.execution.risk import RiskEngine, RiskLimits, TradingState
from trading.execution.settlement import settlement_price, settlements
from trading.market.contracts import OptionContract, Right
from trading.market.dividends import Dividend

__all__ = ["MAX_QUOTE_AGE_NS", "PaperBroker", "settlement_price"]

MAX_QUOTE_AGE_NS = 90_000_000_000


class PaperBroker:
    """Executes the orders of one account.

    Parameters
    ----------
    journal, account : Journal, Account
        `account` is what `journal.open_account` returned; from then on only this broker changes
        either of them.
    schedule : FeeSchedule
        What orders pay.
    limits : RiskLimits
        What orders may risk.
    slippage : float
        USD a share and leg beyond the touch, >= 0.
    max_quote_age_ns : int
        Nothing trades on a quote older than this.

    Raises
    ------
    OrderError
        The slippage is negative or NaN, or an order does not carry the next order id.
    JournalError
        The account is not open, or the journal cannot be written; then the account is unchanged.
    """

    def __init__(
        self,
        journal: Journal,
        account: Account,
        schedule: FeeSchedule,
        limits: RiskLimits,
        slippage: float = 0.0,
        max_quote_age_ns: int = MAX_QUOTE_AGE_NS,
    ) -> None:
        if not 0.0 <= slippage < math.inf:
            raise OrderError(f"slippage is {slippage}: give USD a share, 0 or more")
        if not account.account_id:
            raise JournalError(f"account of {journal.path} is not open: use Journal.open_account")
        self.journal = journal
        self.account = account
        self.schedule = schedule
        self.risk = RiskEngine(limits)
        self.slippage = slippage
        self.max_quote_age_ns = max_quote_age_ns
        self.marks: dict[str, float] = {}

    def next_order_id(self) -> str:
        """The id that the next submitted order must carry; it continues after a restart."""
        return self.account.next_order_id

    def record(self, events: Sequence[Event]) -> None:
        """Journal events in one transaction, then apply them: decisions of a bar, weights."""
        self.journal.append_many(events)
        for event in events:
            self.account.apply(event)

    def mark(self, quotes: Mapping[str, QuoteView]) -> None:
        """Revalue holdings at `quotes`; one without a quote keeps its value."""
        held = self.account.positions
        self.marks = {
            symbol: marked(quotes[symbol], last) if symbol in quotes else last
            for symbol, position in held.items()
            for last in (self.marks.get(symbol, position.average_price),)
        }

    def equity(self) -> float:
        """Cash plus positions at their last known value (their price at opening before that)."""
        self.mark({})
        return self.account.equity(self.marks)

    def submit(
        self,
        order: Order,
        quotes: Mapping[str, QuoteView],
        session_open: bool,
        now_ns: int,
        equity: float | None = None,
        greeks: Greeks | None = None,
        unit_greeks: Greeks | None = None,
        spots: Mapping[str, float] | None = None,
    ) -> Fill | Rejection | None:
        """Check an order and trade what can trade now.

        Parameters
        ----------
        quotes : mapping of symbol to QuoteView
            At least the order's legs; the sizes of a stock are round lots.
        session_open : bool
            Whether the options' session is open at `now_ns`.
        equity : float, optional
            Account value for the limits; by default `equity()` after marking `quotes`.
        greeks, unit_greeks : Greeks, optional
            The account's before the order, and those of one unit of it, for the limits on them;
            see `RiskEngine.check` for an order without. NaN rejects an opening order and halts.
        spots : mapping of underlying to float, optional
            Prices of underlyings in USD a share, for the margin of uncovered sales; by default the
            mid of the stock's quote. Leave out what has no price yet: NaN rejects and halts.

        Returns
        -------
        Fill, Rejection or None
            None: the order is accepted and waits. A `Fill` may cover fewer units than asked; the
            rest is cancelled (IOC) or waits (DAY).
        """
        if order.order_id != self.account.next_order_id:
            raise OrderError(
                f"order {order.order_id!r} is out of sequence: the next id is "
                f"{self.account.next_order_id!r}"
            )
        self.mark(quotes)
        gated = self.risk.gate(order, self.account, now_ns)
        if gated is not None:
            return self._reject(gated)
        for reason, detail in refusals(order, self.account, quotes, session_open):
            return self._reject(Rejection(order.order_id, now_ns, reason, detail))
        crossing = self._cross(order, order.units, quotes, now_ns)
        waits = self._may_wait(crossing)
        if crossing.reason is not None and not waits:
            detail = quoted(order, quotes)
            return self._reject(Rejection(order.order_id, now_ns, crossing.reason, detail))
        margin = self._unit_margin(crossing, quotes, spots)
        rest = order.units - crossing.units
        reserved_per_unit = self._reservation(crossing, margin, rest) if rest and waits else 0.0
        required = self._required(crossing, margin, crossing.units, crossing.net)
        broken = self.risk.check(
            order,
            self.account,
            required_cash=required + reserved_per_unit * rest,
            notional=crossing.gross * self.account.multiplier * order.units,
            equity=self.account.equity(self.marks) if equity is None else equity,
            now_ns=now_ns,
            greeks=greeks,
            unit_greeks=unit_greeks,
        )
        if broken is not None:
            return self._reject(broken)
        events: list[Event] = [OrderAccepted(now_ns, order, reserved_per_unit)]
        fill = None
        if crossing.units:
            fill = crossing.fill(self.schedule, order.units, self.account.multiplier, now_ns)
            events.append(OrderFilled(now_ns, fill, self._moving(order, margin)))
        if rest and not waits:
            missing = f"{rest} of {order.units} units were not displayed"
            events.append(OrderCancelled(now_ns, order.order_id, missing))
        self.record(events)
        return fill

    def on_bar(
        self,
        quotes: Mapping[str, QuoteView],
        now_ns: int,
        session_open: bool = True,
        equity: float | None = None,
        spots: Mapping[str, float] | None = None,
    ) -> list[Fill]:
        """Mark to `quotes`, watch margin and losses, and trade the orders that wait.

        A daily loss halts trading, a drawdown or a margin call leaves only closing; a margin call
        ends by itself when buying power is back at zero. `spots` as in `submit`, for strategies
        whose margin moves.
        """
        self.mark(quotes)
        self._watch_margin(quotes, spots, now_ns)
        self._watch_losses(self.account.equity(self.marks) if equity is None else equity, now_ns)
        fills = []
        for order_id in list(self.account.working_orders) if session_open else []:
            # An order before it may have halted trading, which cancels this one.
            waiting = self.account.working_orders.get(order_id)
            fill = self._fill_waiting(waiting, quotes, spots, now_ns) if waiting else None
            if fill is not None:
                fills.append(fill)
        return fills

    def cancel(self, order_id: str, now_ns: int, reason: str = "cancelled by the owner") -> None:
        """Cancel a waiting order; raises OrderError when it does not wait."""
        if order_id not in self.account.working_orders:
            raise OrderError(f"order {order_id!r} does not wait: it is done or was never accepted")
        self.record([OrderCancelled(now_ns, order_id, reason)])

    def expire_day_orders(self, now_ns: int) -> None:
        """Cancel every waiting order: the session is over."""
        self.record(self._cancellations(self.account.working_orders.values(), now_ns, "expired"))

    def settle(
        self, symbols: Iterable[str], underlying_prices: Mapping[str, float], now_ns: int
    ) -> list[Settled]:
        """End the held ones of expiring contracts: paid, exercised or assigned, see `settlement`.

        Orders that wait on them are cancelled. All of it is one transaction, so a spread is never
        left with one leg. Delivered stock is marked at its closing price.

        Raises
        ------
        DataError
            An underlying's closing price is missing or no positive number; nothing is settled.
        """
        ended = self._settlements(symbols, underlying_prices, now_ns)
        self._book_endings(ended, "contract expired", now_ns)
        return ended

    def assign_early(
        self,
        dividends: Iterable[Dividend],
        quotes: Mapping[str, QuoteView],
        underlying_prices: Mapping[str, float],
        now_ns: int,
    ) -> list[Settled]:
        """Assign sold calls whose holders take the stock for its dividend; one transaction.

        To be called at the close of the last session before the ex-dates of `dividends`, before
        `close_session`; `quotes` are of the held calls and of the puts of the same strikes. Orders
        that wait on an assigned contract are cancelled. See `assignment`.

        Raises
        ------
        DataError
            Calls are sold on an underlying without a closing price; nothing is assigned.
        """
        assigned = [
            event
            for dividend in dividends
            for event in early_assignments(
                self.account.positions,
                dividend,
                quotes,
                underlying_prices.get(dividend.underlying, math.nan),
                self.account.multiplier,
                now_ns,
            )
        ]
        self._book_endings(assigned, "contract assigned", now_ns)
        return assigned

    def pay_dividends(self, dividends: Iterable[Dividend], now_ns: int) -> list[DividendPaid]:
        """Book the dividends of stock held into its ex-date; short stock owes them.

        To be called when the session of the ex-date begins, before anything trades. Each dividend
        is booked once.
        """
        paid = []
        for dividend in dividends:
            held = self.account.positions.get(dividend.underlying)
            ex_date = dividend.ex_date.isoformat()
            if held is None or self.account.has_paid(dividend.underlying, ex_date):
                continue
            cash = usd(held.quantity * self.account.multiplier * dividend.amount)
            paid.append(
                DividendPaid(
                    now_ns, dividend.underlying, ex_date, held.quantity, dividend.amount, cash
                )
            )
        self.record(paid)
        return paid

    def stock_to_liquidate(self) -> list[str]:
        """Underlyings with stock that nobody chose to hold: delivered, or left by an expiry.

        Each is to be closed in its next session by `liquidation`, ahead of the agent's actions.
        """
        return [name for name, held in self.account.strategies.items() if held.delivered]

    def liquidation(self, underlying: str, now_ns: int) -> Order:
        """The order that closes everything on an underlying at the market, options and stock.

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

    def close_session(
        self,
        session_date: str,
        equity: float,
        now_ns: int,
        *,
        reward: float = 0.0,
        expiring: Iterable[str] = (),
        underlying_prices: Mapping[str, float] | None = None,
    ) -> None:
        """End a session in one transaction.

        Waiting orders are cancelled, `expiring` contracts end as by `settle`, and `equity`, in
        which they count at `settlement_price` and stock at its closing price, becomes the base of
        the daily loss and perhaps the peak. A halt for a daily loss ends with the day; any other
        halt stays.

        Raises
        ------
        DataError
            As `settle`; nothing is written then.
        """
        ended = self._settlements(expiring, underlying_prices or {}, now_ns)
        events = self._cancellations(self.account.working_orders.values(), now_ns, "expired")
        events += [*ended, *margins_after(self.account, ended, self.marks, now_ns)]
        events.append(SessionClosed(now_ns, session_date, equity, reward))
        if (
            self.account.trading_state is TradingState.HALTED
            and self.account.state_reason == RejectReason.DAILY_LOSS
        ):
            events.append(StateChanged(now_ns, TradingState.ACTIVE, "session closed"))
        self._record_endings(events, ended, now_ns)

    def reset_peak(self, equity: float, now_ns: int) -> None:
        """Measure the drawdown from `equity` (USD) on: for an owner who resumes after one."""
        self.record([PeakReset(now_ns, self.account.peak_resets + 1, equity)])

    def set_trading_state(self, state: TradingState, reason: str, now_ns: int) -> None:
        """Change what may trade; orders that the new state forbids are cancelled."""
        self.record(self._state_events(state, reason, now_ns))

    def rehearse(self) -> None:
        """Match an order that is not sent, so that no compiler runs while trading."""
        symbol = OptionContract("A", date(2000, 1, 3), Right.CALL, 1000).symbol
        order = Order("rehearsal", 0, "A", "long_call", Intent.OPEN, (Leg(symbol, 1),), 1)
        quotes = {symbol: QuoteView(1.0, 1.1, 1.0, 1.0, 1)}
        crossing = self._cross(order, 1, quotes, 1)
        self._required(crossing, legs_reserve(order.legs, 100.0), 1, crossing.net)
        uncovered_margin(1, 1.0, 1.0, 1.0, False)
        headroom(1.0, 0.0, 1.0)

    def _may_wait(self, crossing: Crossing) -> bool:
        """Whether units that do not trade now may wait."""
        order = crossing.order
        if order.time_in_force is not TimeInForce.DAY:
            return False
        if crossing.reason is RejectReason.NOT_A_NUMBER:
            return False
        return order.order_type is OrderType.LIMIT or crossing.units > 0

    def _settlements(
        self, symbols: Iterable[str], underlying_prices: Mapping[str, float], now_ns: int
    ) -> list[Settled]:
        account = self.account
        return settlements(
            account.positions, symbols, underlying_prices, account.multiplier, now_ns
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
        cancelled = self._cancellations(affected, now_ns, why)
        self._record_endings([*cancelled, *ended, *margins], ended, now_ns)

    def _record_endings(
        self, events: Sequence[Event], ended: Sequence[Settled], now_ns: int
    ) -> None:
        """Book the end of positions among `events`, and mark the stock that it brings."""
        held = self.account.positions
        prices = {held[each.symbol].underlying: each.underlying_price for each in ended}
        self.record(events)
        self.marks |= {ticker: price for ticker, price in prices.items() if ticker in held}
        self._call_margin(now_ns)

    def _cross(
        self, order: Order, units: int, quotes: Mapping[str, QuoteView], now_ns: int
    ) -> Crossing:
        return cross(order, units, quotes, now_ns, self.max_quote_age_ns, self.slippage)

    def _unit_margin(
        self,
        crossing: Crossing,
        quotes: Mapping[str, QuoteView],
        spots: Mapping[str, float] | None,
    ) -> float:
        """What one unit of an order adds to the reserve, USD; negative when it closes."""
        order, multiplier = crossing.order, self.account.multiplier
        if order.intent is Intent.CLOSE:
            return -self.account.strategies[order.underlying].reserve_per_unit
        greatest_loss = legs_reserve(order.legs, multiplier)
        spot = self._spots(quotes, spots).get(order.underlying)
        if not self.risk.limits.allow_naked_shorts or spot is None or not crossing.marks:
            return greatest_loss
        margin = market_requirement(order.legs, multiplier, spot, crossing.marks)
        return greatest_loss if margin == greatest_loss else cents_up(margin)

    def _moving(self, order: Order, margin: float) -> float | None:
        """The margin to write down with a fill; None when the legs alone say it."""
        if order.intent is Intent.CLOSE:
            return None
        return None if margin == legs_reserve(order.legs, self.account.multiplier) else margin

    def _spots(
        self, quotes: Mapping[str, QuoteView], spots: Mapping[str, float] | None
    ) -> Mapping[str, float]:
        """Prices of underlyings: as given, or the value of the stock where it is quoted or held."""
        if spots is not None:
            return spots
        mids = {
            symbol: marked(view, math.nan) for symbol, view in quotes.items() if is_stock(symbol)
        }
        mids = {symbol: mid for symbol, mid in mids.items() if not math.isnan(mid)}
        return {s: mark for s, mark in self.marks.items() if is_stock(s)} | mids

    def _required(self, crossing: Crossing, margin: float, units: int, net: float) -> float:
        """Buying power that `units` at a net price take, fees included, USD."""
        if units == 0:
            return 0.0
        multiplier = self.account.multiplier
        _, fees = crossing.cash(self.schedule, units, multiplier)
        return float(usd(required_cash(net, margin, units, multiplier, fees)))

    def _reservation(self, crossing: Crossing, margin: float, units: int) -> float:
        """Buying power that each of `units` waiting units holds, USD, rounded up to the cent."""
        limit = crossing.order.limit_price
        required = self._required(crossing, margin, units, crossing.net if limit is None else limit)
        if not math.isfinite(required):
            return required
        return max(0.0, math.ceil(100.0 * required / units) / 100.0)

    def _fill_waiting(
        self,
        waiting: WorkingOrder,
        quotes: Mapping[str, QuoteView],
        spots: Mapping[str, float] | None,
        now_ns: int,
    ) -> Fill | None:
        order = waiting.order
        if any(leg.symbol not in quotes for leg in order.legs):
            return None
        crossing = self._cross(order, waiting.remaining, quotes, now_ns)
        if crossing.reason is RejectReason.NOT_A_NUMBER:
            self.set_trading_state(TradingState.HALTED, crossing.reason, now_ns)
        if crossing.units == 0:
            return None
        margin = self._unit_margin(crossing, quotes, spots)
        required = self._required(crossing, margin, crossing.units, crossing.net)
        available = self.account.buying_power + waiting.reserved_per_unit * crossing.units
        if not (required <= 0.0 or required <= available):
            self.cancel(order.order_id, now_ns, RejectReason.BUYING_POWER)
            return None
        fill = crossing.fill(self.schedule, waiting.remaining, self.account.multiplier, now_ns)
        self.record([OrderFilled(now_ns, fill, self._moving(order, margin))])
        return fill

    def _watch_margin(
        self, quotes: Mapping[str, QuoteView], spots: Mapping[str, float] | None, now_ns: int
    ) -> None:
        changes = margin_changes(self.account, self.marks, self._spots(quotes, spots), now_ns)
        known = [change for change in changes if math.isfinite(change.reserve_per_unit)]
        if len(known) < len(changes):
            self._restrict(TradingState.HALTED, RejectReason.NOT_A_NUMBER, now_ns)
            return
        self.record(known)
        self._call_margin(now_ns)

    def _call_margin(self, now_ns: int) -> None:
        """Call for margin where buying power is below zero, and end the call where it is not."""
        account = self.account
        if account.buying_power < 0.0:
            if account.trading_state is TradingState.ACTIVE:
                self.set_trading_state(TradingState.REDUCING, RejectReason.MARGIN_CALL, now_ns)
        elif (
            account.trading_state is TradingState.REDUCING
            and account.state_reason == RejectReason.MARGIN_CALL
        ):
            self.set_trading_state(TradingState.ACTIVE, "margin call met", now_ns)

    def _watch_losses(self, equity: float, now_ns: int) -> None:
        if not math.isfinite(equity):
            self._restrict(TradingState.HALTED, RejectReason.NOT_A_NUMBER, now_ns)
        elif self.risk.daily_loss_breached(self.account, equity):
            self._restrict(TradingState.HALTED, RejectReason.DAILY_LOSS, now_ns)
        elif self.risk.drawdown_breached(self.account, equity):
            self._restrict(TradingState.REDUCING, RejectReason.MAX_DRAWDOWN, now_ns)

    def _restrict(self, state: TradingState, reason: RejectReason, now_ns: int) -> None:
        """Enter a stricter state of trading; a halt, and the same state, stay as they are."""
        now = self.account.trading_state
        if now is not TradingState.HALTED and (now, self.account.state_reason) != (state, reason):
            self.set_trading_state(state, reason, now_ns)

    def _reject(self, rejection: Rejection) -> Rejection:
        events: list[Event] = [OrderRejected(rejection.ts_ns, rejection)]
        state = RiskEngine.CONSEQUENCES.get(rejection.reason)
        if state is not None and self.account.trading_state is not TradingState.HALTED:
            events += self._state_events(state, rejection.reason, rejection.ts_ns)
        self.record(events)
        return rejection

    def _state_events(self, state: TradingState, reason: str, now_ns: int) -> list[Event]:
        forbidden = [
            waiting
            for waiting in self.account.working_orders.values()
            if state is TradingState.HALTED
            or (state is TradingState.REDUCING and waiting.order.intent is Intent.OPEN)
        ]
        cancelled = self._cancellations(forbidden, now_ns, f"trading is {state}")
        return [StateChanged(now_ns, state, str(reason)), *cancelled]

    @staticmethod
    def _cancellations(waiting: Iterable[WorkingOrder], now_ns: int, reason: str) -> list[Event]:
        return [OrderCancelled(now_ns, entry.order.order_id, reason) for entry in waiting]
