"""The paper broker: takes orders, fills them against live quotes, settles what expires.

Every step is written to the journal in one transaction before it reaches the account, so the
account in memory is never ahead of the disk.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from trading.errors import DataError, JournalError, OrderError
from trading.execution.crossing import Crossing, contract_fault, cross
from trading.execution.events import (
    Event,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    SessionClosed,
    Settled,
    StateChanged,
)
from trading.execution.fees import FeeSchedule
from trading.execution.journal import Journal
from trading.execution.margin import required_cash
from trading.execution.orders import (
    Fill,
    Intent,
    Leg,
    LegFill,
    Order,
    OrderType,
    QuoteView,
    Rejection,
    RejectReason,
    TimeInForce,
)
from trading.execution.portfolio import Account, WorkingOrder, legs_reserve, marked
from trading.execution.risk import Broken, RiskEngine, RiskLimits, TradingState
from trading.market.contracts import OptionContract, Right, parse_symbol

MAX_QUOTE_AGE_NS = 90_000_000_000
EXERCISE_THRESHOLD = 0.01
"""USD a share in the money from which the OCC exercises an expiring option (OCC Rule 805)."""


def settlement_price(contract: OptionContract, spot: float) -> float:
    """What a contract is worth when it expires at `spot`, USD a share."""
    intrinsic = round(max(0.0, contract.right * (spot - contract.strike)), 6)
    return intrinsic if intrinsic >= EXERCISE_THRESHOLD else 0.0


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
        """Revalue held contracts at `quotes`; a contract without a quote keeps its value."""
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
    ) -> Fill | Rejection | None:
        """Check an order and trade what can trade now.

        Parameters
        ----------
        quotes : mapping of symbol to QuoteView
            At least the order's contracts.
        session_open : bool
            Whether the options' session is open at `now_ns`.
        equity : float, optional
            Account value for the daily loss limit; by default `equity()` after marking `quotes`.

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
            return self._reject(gated, by_risk=True)
        for reason, detail in self._refusals(order, quotes, session_open):
            return self._reject(Rejection(order.order_id, now_ns, reason, detail))
        crossing = self._cross(order, order.units, quotes, now_ns)
        is_limit = order.order_type is OrderType.LIMIT
        waits = order.time_in_force is TimeInForce.DAY and (is_limit or crossing.units > 0)
        if crossing.reason is not None and not waits:
            detail = _quoted(order, quotes)
            return self._reject(Rejection(order.order_id, now_ns, crossing.reason, detail))
        rest = order.units - crossing.units
        reserved_per_unit = self._reservation(crossing, rest) if rest and waits else 0.0
        required = self._required(crossing, crossing.units, crossing.net)
        broken = self.risk.check(
            order,
            self.account,
            required_cash=required + reserved_per_unit * rest,
            notional=crossing.gross * self.account.multiplier * order.units,
            equity=self.account.equity(self.marks) if equity is None else equity,
            now_ns=now_ns,
        )
        if broken is not None:
            return self._reject(broken, by_risk=True)
        events: list[Event] = [OrderAccepted(now_ns, order, reserved_per_unit)]
        fill = None
        if crossing.units:
            fill = self._fill(crossing, order.units, now_ns)
            events.append(OrderFilled(now_ns, fill))
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
    ) -> list[Fill]:
        """Mark to `quotes`, halt on a daily loss, and trade the orders that wait."""
        self.mark(quotes)
        value = self.account.equity(self.marks) if equity is None else equity
        halted = self.account.trading_state is TradingState.HALTED
        if not halted and self.risk.daily_loss_breached(self.account, value):
            known = math.isfinite(value)
            reason = RejectReason.DAILY_LOSS if known else RejectReason.NOT_A_NUMBER
            self.set_trading_state(TradingState.HALTED, reason, now_ns)
        fills = []
        if session_open:
            for waiting in list(self.account.working_orders.values()):
                fill = self._fill_waiting(waiting, quotes, now_ns)
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
        """Settle the held ones of expiring contracts in cash at their intrinsic value.

        Orders that wait on them are cancelled. All of it is one transaction, so a spread is never
        left with one leg.

        Raises
        ------
        DataError
            An underlying's closing price is missing or no positive number; nothing is settled.
        """
        settlements = self._settlements(symbols, underlying_prices, now_ns)
        expiring = {settlement.symbol for settlement in settlements}
        affected = [
            waiting
            for waiting in self.account.working_orders.values()
            if any(leg.symbol in expiring for leg in waiting.order.legs)
        ]
        self.record([*self._cancellations(affected, now_ns, "contract expired"), *settlements])
        return settlements

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

        Waiting orders are cancelled, `expiring` contracts settle as by `settle`, and `equity`, in
        which they count at `settlement_price`, becomes the base of the daily loss. A halt for a
        daily loss ends with the day; any other halt stays.

        Raises
        ------
        DataError
            As `settle`; nothing is written then.
        """
        events = self._cancellations(self.account.working_orders.values(), now_ns, "expired")
        events += self._settlements(expiring, underlying_prices or {}, now_ns)
        events.append(SessionClosed(now_ns, session_date, equity, reward))
        if (
            self.account.trading_state is TradingState.HALTED
            and self.account.state_reason == RejectReason.DAILY_LOSS
        ):
            events.append(StateChanged(now_ns, TradingState.ACTIVE, "session closed"))
        self.record(events)

    def set_trading_state(self, state: TradingState, reason: str, now_ns: int) -> None:
        """Change what may trade; orders that the new state forbids are cancelled."""
        self.record(self._state_events(state, reason, now_ns))

    def rehearse(self) -> None:
        """Match an order that is not sent, so that no compiler runs while trading."""
        symbol = OptionContract("A", date(2000, 1, 3), Right.CALL, 1000).symbol
        order = Order("rehearsal", 0, "A", "long_call", Intent.OPEN, (Leg(symbol, 1),), 1)
        quotes = {symbol: QuoteView(1.0, 1.1, 1.0, 1.0, 1)}
        crossing = self._cross(order, 1, quotes, 1)
        self._required(crossing, 1, crossing.net)

    def _settlements(
        self, symbols: Iterable[str], underlying_prices: Mapping[str, float], now_ns: int
    ) -> list[Settled]:
        held = [symbol for symbol in dict.fromkeys(symbols) if symbol in self.account.positions]
        return [self._settlement(symbol, underlying_prices, now_ns) for symbol in held]

    def _refusals(
        self, order: Order, quotes: Mapping[str, QuoteView], session_open: bool
    ) -> Broken:
        """What can be refused before prices matter, the first reason first."""
        if not session_open:
            yield RejectReason.OUTSIDE_SESSION, f"{order.underlying} does not trade now"
        for leg in order.legs:
            fault = contract_fault(leg.symbol, quotes)
            if fault:
                yield RejectReason.UNKNOWN_CONTRACT, fault
        for waiting in self.account.working_orders.values():
            if waiting.order.underlying == order.underlying:
                detail = f"order {waiting.order.order_id} waits on {order.underlying}"
                yield RejectReason.POSITION_EXISTS, detail
        if order.intent is Intent.OPEN:
            yield from self._not_openable(order)
        else:
            yield from self._not_closable(order)

    def _not_openable(self, order: Order) -> Broken:
        held = self.account.strategies.get(order.underlying)
        if held is not None:
            detail = f"{held.strategy} is open on {order.underlying}: close it first"
            yield RejectReason.POSITION_EXISTS, detail

    def _not_closable(self, order: Order) -> Broken:
        held = self.account.strategies.get(order.underlying)
        units = held.units if held else 0
        if order.units > units:
            detail = f"{order.units} units to close, {units} are open on {order.underlying}"
            yield RejectReason.NO_POSITION, detail
        legs = {leg.symbol: leg.ratio for leg in held.legs} if held else {}
        if {leg.symbol: -leg.ratio for leg in order.legs} != legs:
            detail = f"the legs open on {order.underlying} are {legs}: close them together"
            yield RejectReason.NO_POSITION, detail

    def _cross(
        self, order: Order, units: int, quotes: Mapping[str, QuoteView], now_ns: int
    ) -> Crossing:
        return cross(order, units, quotes, now_ns, self.max_quote_age_ns, self.slippage)

    def _required(self, crossing: Crossing, units: int, net: float) -> float:
        """Buying power that `units` at a net price take, fees included, USD."""
        if units == 0:
            return 0.0
        order, multiplier = crossing.order, self.account.multiplier
        if order.intent is Intent.OPEN:
            reserve = legs_reserve(order.legs, multiplier)
        else:
            reserve = -self.account.strategies[order.underlying].reserve_per_unit
        fees = crossing.fees(self.schedule, units, multiplier)
        return round(float(required_cash(net, reserve, units, multiplier, fees)), 6)

    def _reservation(self, crossing: Crossing, units: int) -> float:
        """Buying power that each of `units` waiting units holds, USD, rounded up to the cent."""
        limit = crossing.order.limit_price
        required = self._required(crossing, units, crossing.net if limit is None else limit)
        if not math.isfinite(required):
            return required
        return max(0.0, math.ceil(100.0 * required / units) / 100.0)

    def _fill(self, crossing: Crossing, remaining: int, now_ns: int) -> Fill:
        order, units = crossing.order, crossing.units
        legs = tuple(
            LegFill(leg.symbol, leg.ratio * units, float(price))
            for leg, price in zip(order.legs, crossing.prices, strict=True)
        )
        cost = sum(leg.quantity * leg.price for leg in legs) * self.account.multiplier
        return Fill(
            fill_id=f"{order.order_id}/{order.units - remaining + 1}",
            order_id=order.order_id,
            ts_ns=now_ns,
            underlying=order.underlying,
            units=units,
            legs=legs,
            premium=round(-cost, 6),
            fees=crossing.fees(self.schedule, units, self.account.multiplier),
        )

    def _fill_waiting(
        self, waiting: WorkingOrder, quotes: Mapping[str, QuoteView], now_ns: int
    ) -> Fill | None:
        order = waiting.order
        if any(leg.symbol not in quotes for leg in order.legs):
            return None
        crossing = self._cross(order, waiting.remaining, quotes, now_ns)
        if crossing.units == 0:
            return None
        required = self._required(crossing, crossing.units, crossing.net)
        available = self.account.buying_power + waiting.reserved_per_unit * crossing.units
        if not (required <= 0.0 or required <= available):
            self.cancel(order.order_id, now_ns, RejectReason.BUYING_POWER)
            return None
        fill = self._fill(crossing, waiting.remaining, now_ns)
        self.record([OrderFilled(now_ns, fill)])
        return fill

    def _settlement(
        self, symbol: str, underlying_prices: Mapping[str, float], now_ns: int
    ) -> Settled:
        position = self.account.positions[symbol]
        contract = parse_symbol(symbol)
        spot = underlying_prices.get(position.underlying, math.nan)
        if not 0.0 < spot < math.inf:
            raise DataError(
                f"cannot settle {symbol}: the closing price of {position.underlying} is {spot}"
            )
        price = settlement_price(contract, spot)
        cash = round(position.quantity * price * self.account.multiplier, 6)
        return Settled(now_ns, symbol, position.quantity, price, cash, spot)

    def _reject(self, rejection: Rejection, *, by_risk: bool = False) -> Rejection:
        events: list[Event] = [OrderRejected(rejection.ts_ns, rejection)]
        if by_risk and rejection.reason in RiskEngine.HALTING:
            events += self._state_events(TradingState.HALTED, rejection.reason, rejection.ts_ns)
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


def _quoted(order: Order, quotes: Mapping[str, QuoteView]) -> str:
    views = ((leg.symbol, quotes[leg.symbol]) for leg in order.legs)
    return ", ".join(f"{symbol} {view.bid} x {view.ask}" for symbol, view in views)
