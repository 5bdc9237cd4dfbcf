"""The paper broker: takes orders, fills them against live quotes, settles what expires.

Every step is written to the journal in one transaction before it reaches the account, so the
account in memory is never ahead of the disk.
"""

import math
from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

from trading.errors import OrderError
from trading.execution.carry import NO_CARRY, CarryRates, carried
from trading.execution.clearing import Clearing
from trading.execution.events import (
    Carried,
    Event,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderRepriced,
)
from trading.execution.exposure import Greeks, headroom
from trading.execution.fees import FeeSchedule
from trading.execution.holdings import WorkingOrder
from trading.execution.journal import Journal
from trading.execution.margin.buying_power import (
    initial_margin,
    margin_to_journal,
    order_buying_power_effect,
    underlying_prices,
    working_order_effect,
)
from trading.execution.margin.formulas import uncovered_margin
from trading.execution.margin.maintenance import margin_changes
from trading.execution.margin.reg_t import defined_risk_margin
from trading.execution.matching import LIMIT_TOLERANCE, FillStyle, working_share
from trading.execution.order_matching import MatchResult, match_order, quoted
from trading.execution.order_validation import validation_errors
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
from trading.execution.risk import RiskEngine, RiskLimits, is_affordable
from trading.execution.settlement import settlement_price
from trading.execution.states import Cause
from trading.execution.working_orders import with_limits
from trading.market.contracts import OptionContract, Right

__all__ = ["MAX_QUOTE_AGE_NS", "PaperBroker", "settlement_price"]

MAX_QUOTE_AGE_NS = 90_000_000_000


class _Refused(NamedTuple):
    """Why an order does nothing, and the underlying that it concerns; None: the whole account."""

    rejection: Rejection
    underlying: str | None


class _Plan(NamedTuple):
    """What an order that passed every check does."""

    matched: MatchResult
    margin: float
    waits: bool
    """Units that do not trade now wait."""
    buying_power_per_unit: float


class PaperBroker(Clearing):
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
    carry : CarryRates
        Interest on cash and fees of borrowed stock.
    style : FillStyle
        How much of the spread fills pay.
    working_steps : int
        In so many steps an order of `FillStyle.WORKING` comes from mid to the touch, >= 1.

    Raises
    ------
    OrderError
        The slippage is negative or NaN, there are no steps, or an order does not carry the next
        order id.
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
        carry: CarryRates = NO_CARRY,
        style: FillStyle = FillStyle.TOUCH,
        working_steps: int = 1,
    ) -> None:
        if working_steps < 1:
            raise OrderError(f"a working order takes {working_steps} steps: give 1 or more")
        if not 0.0 <= slippage < math.inf:
            raise OrderError(f"slippage is {slippage}: give USD a share, 0 or more")
        super().__init__(journal, account)
        self.schedule = schedule
        self.risk = RiskEngine(limits)
        self.slippage = slippage
        self.max_quote_age_ns = max_quote_age_ns
        self.carry = carry
        self.style = style
        self.working_steps = working_steps

    def book_carry(
        self, today: date, through: date, prices: Mapping[str, float], now_ns: int
    ) -> Carried | None:
        """Book interest and borrowing fees up to the next session, before a session is closed.

        Each day is booked once; `prices` are of stock, USD a share. See `carry.carried`.
        """
        event = carried(self.account, self.carry, prices, today, through, now_ns)
        if event is not None:
            self.record([event])
        return event

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
        by_owner: bool = False,
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
            see `RiskEngine.check` for an order without. NaN rejects an opening order; it halts
            where it is the account's, and suspends the underlying where it is the order's.
        spots : mapping of underlying to float, optional
            Prices of underlyings in USD a share, for the margin of uncovered sales; by default the
            mid of the stock's quote. Leave out what has no price yet: NaN rejects and suspends.
        by_owner : bool
            A closing order by the owner's word: it trades in spite of what restricts trading, but
            for the owner's own halt; see `states`.

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
        plan = self._plan(
            order, quotes, session_open, now_ns, equity, greeks, unit_greeks, spots, by_owner
        )
        if isinstance(plan, _Refused):
            return self._reject(*plan)
        matched, rest = plan.matched, order.units - plan.matched.units
        events: list[Event] = [OrderAccepted(now_ns, order, plan.buying_power_per_unit)]
        fill = None
        if matched.units:
            fill = matched.fill(self.schedule, order.units, self.account.multiplier, now_ns)
            moving = margin_to_journal(matched, self.account, plan.margin)
            events.append(OrderFilled(now_ns, fill, moving))
        if rest and not plan.waits:
            missing = f"{rest} of {order.units} units were not displayed"
            events.append(OrderCancelled(now_ns, order.order_id, missing))
        self.record(events)
        return fill

    def close_for_owner(
        self,
        underlying: str,
        quotes: Mapping[str, QuoteView],
        session_open: bool,
        now_ns: int,
        spots: Mapping[str, float] | None = None,
        *,
        by_owner: bool = True,
    ) -> Fill | str:
        """Close the strategy on an underlying at the market by the owner's word, all legs at once.

        Where it is not by a command (`by_owner`) whatever restricts trading holds it back.

        What is displayed trades, in one transaction; the rest is for the next call. An order that
        would be refused is not sent, so that trying again at every bar leaves no trace: the reason
        is returned instead.
        """
        order = self.liquidation(underlying, now_ns)
        args = (order, quotes, session_open, now_ns, None, None, None, spots, by_owner)
        plan = self._plan(*args)
        if isinstance(plan, _Refused):
            return f"{plan.rejection.reason}: {plan.rejection.detail}"
        done = self.submit(*args)
        assert isinstance(done, Fill), f"{order} was to trade, and did not: {done}"
        return done

    def _plan(
        self,
        order: Order,
        quotes: Mapping[str, QuoteView],
        session_open: bool,
        now_ns: int,
        equity: float | None,
        greeks: Greeks | None,
        unit_greeks: Greeks | None,
        spots: Mapping[str, float] | None,
        by_owner: bool,
    ) -> "_Plan | _Refused":
        """Return what an order would do, or why it is refused; nothing is written."""
        self.mark(quotes)
        gated = self.risk.gate(order, self.account, now_ns, by_owner=by_owner)
        if gated is not None:
            return _Refused(gated, order.underlying)
        for reason, detail in validation_errors(order, self.account, quotes, session_open):
            refused = Rejection(order.order_id, now_ns, reason, detail)
            return _Refused(refused, order.underlying)
        matched = self._match(order, order.units, quotes, now_ns)
        waits = self._may_wait(matched)
        if matched.reason is not None and not waits:
            detail = quoted(order, quotes)
            refused = Rejection(order.order_id, now_ns, matched.reason, detail)
            return _Refused(refused, order.underlying)
        margin = self._initial_margin(matched, quotes, spots)
        rest = order.units - matched.units
        buying_power_per_unit = 0.0
        if rest and waits:
            priced = matched.at_limits(order) if order.leg_limits else matched
            buying_power_per_unit = working_order_effect(
                priced, rest, margin, self.schedule, self.account.multiplier
            )
        equity = self.account.equity(self.marks) if equity is None else equity
        broken = self.risk.check(
            order,
            self.account,
            buying_power_effect=self._effect(matched, margin) + buying_power_per_unit * rest,
            notional=matched.gross * self.account.multiplier * order.units,
            equity=equity,
            now_ns=now_ns,
            greeks=greeks,
            unit_greeks=unit_greeks,
            by_owner=by_owner,
        )
        if broken is not None:
            is_known = all(math.isfinite(value) for value in (equity, *(greeks or ())))
            return _Refused(broken, order.underlying if is_known or by_owner else None)
        return _Plan(matched, margin, waits, buying_power_per_unit)

    def on_bar(
        self,
        quotes: Mapping[str, QuoteView],
        now_ns: int,
        equity: float | None = None,
        spots: Mapping[str, float] | None = None,
        marks: Mapping[str, float] | None = None,
    ) -> None:
        """Mark to `quotes`, watch margin and losses; orders that wait trade by `fill_waiting`.

        What restricts trading then, and for how long, is the table in `states`. A drawdown under
        the champion also makes the one before it the account's champion again. `spots` as in
        `submit`, for strategies whose margin moves. `marks` are the values of holdings in USD a
        share that go before those of `quotes`. Where the margin of a strategy is no number, its
        underlying is suspended.
        """
        self.mark(quotes)
        self.marks |= {
            symbol: mark for symbol, mark in (marks or {}).items() if symbol in self.marks
        }
        self._watch_margin(quotes, spots, now_ns)
        worth = self.account.equity(self.marks) if equity is None else equity
        self.know_equity(worth, now_ns)
        self._watch_losses(worth, now_ns)

    def fill_waiting(
        self,
        quotes: Mapping[str, QuoteView],
        now_ns: int,
        spots: Mapping[str, float] | None = None,
    ) -> list[Fill]:
        """Trade the orders that wait and whose legs all have a quote in `quotes`.

        One that works trades at its own limit and is over then, whatever is left of it.
        """
        fills = []
        for order_id in list(self.account.working_orders):
            # An order before it may have halted trading, which cancels this one.
            waiting = self.account.working_orders.get(order_id)
            fill = self._fill_waiting(waiting, quotes, spots, now_ns) if waiting else None
            if fill is not None:
                fills.append(fill)
        return fills

    def patient(self, order: Order, quotes: Mapping[str, QuoteView], now_ns: int) -> Order:
        """Return a market order as one that works from mid to the touch, where that is the style.

        It stays what it is where quotes allow no trade, or mid is as good as the touch: then there
        is nothing to wait for.
        """
        if self.style is not FillStyle.WORKING or self.account.adjusted.touches(order.legs):
            return order
        matched = self._match(order, order.units, quotes, now_ns)
        if matched.units == 0:
            return order
        limit = self._at_step(order, quotes, 0)
        assert limit.limit_price is not None
        return order if matched.net <= limit.limit_price + LIMIT_TOLERANCE else limit

    def waiting_on(self, underlying: str) -> WorkingOrder | None:
        """Return the order that waits on an underlying; there is one at most."""
        for waiting in self.account.working_orders.values():
            if waiting.order.underlying == underlying:
                return waiting
        return None

    def step(
        self,
        waiting: WorkingOrder,
        quotes: Mapping[str, QuoteView],
        now_ns: int,
        spots: Mapping[str, float] | None = None,
    ) -> Fill | None:
        """Bring a working order a step nearer to the touch, and trade it where they meet.

        Its limit is that of the quotes of now. It stays as it is while any leg shows no quote that
        could trade a unit, and is cancelled where the new limit is beyond the buying power.
        """
        if any(leg.symbol not in quotes for leg in waiting.order.legs):
            return None
        before = self._match(waiting.order, waiting.remaining, quotes, now_ns)
        if before.reason not in (None, RejectReason.LIMIT_NOT_MARKETABLE):
            return None
        number = waiting.step + 1
        order = self._at_step(waiting.order, quotes, number)
        matched = self._match(order, waiting.remaining, quotes, now_ns)
        priced = matched.at_limits(order)
        margin = self._initial_margin(matched, quotes, spots)
        multiplier = self.account.multiplier
        needed = order_buying_power_effect(
            priced, waiting.remaining, priced.net, margin, self.schedule, multiplier
        )
        available = self.account.buying_power + waiting.buying_power_held
        if not is_affordable(order, needed, available):
            self.cancel(order.order_id, now_ns, RejectReason.BUYING_POWER)
            return None
        held = working_order_effect(priced, waiting.remaining, margin, self.schedule, multiplier)
        moved = OrderRepriced(now_ns, order.order_id, number, priced.net, order.leg_limits, held)
        if matched.units == 0:
            self.record([moved])
            return None
        return self._fill_working(priced, waiting.remaining, margin, now_ns, [moved])

    def _at_step(self, order: Order, quotes: Mapping[str, QuoteView], step: int) -> Order:
        share = float(working_share(step, self.working_steps))
        return with_limits(order, quotes, self.slippage, share)

    def _fill_working(
        self,
        priced: MatchResult,
        remaining: int,
        margin: float,
        now_ns: int,
        first: list[Event],
    ) -> Fill:
        """Trade what is displayed of a working order at its limit, and cancel the rest."""
        fill = priced.fill(self.schedule, remaining, self.account.multiplier, now_ns)
        moving = margin_to_journal(priced, self.account, margin)
        events = [*first, OrderFilled(now_ns, fill, moving)]
        if remaining > fill.units:
            missing = f"{remaining - fill.units} of {remaining} units were not displayed"
            events.append(OrderCancelled(now_ns, fill.order_id, missing))
        self.record(events)
        return fill

    def cancel(self, order_id: str, now_ns: int, reason: str = "cancelled by the owner") -> None:
        """Cancel a waiting order; raises OrderError when it does not wait."""
        if order_id not in self.account.working_orders:
            raise OrderError(f"order {order_id!r} does not wait: it is done or was never accepted")
        self.record([OrderCancelled(now_ns, order_id, reason)])

    def warm_up_kernels(self) -> None:
        """Match an order that is not sent, so that no compiler runs while trading."""
        symbol = OptionContract("A", date(2000, 1, 3), Right.CALL, 1000).symbol
        order = Order("warm-up", 0, "A", "long_call", Intent.OPEN, (Leg(symbol, 1),), 1)
        quotes = {symbol: QuoteView(1.0, 1.1, 1.0, 1.0, 1)}
        matched = self._match(order, 1, quotes, 1)
        self._effect(matched, defined_risk_margin(order.legs, self.account.multiplier))
        uncovered_margin(1, 1.0, 1.0, 1.0, False)
        headroom(1.0, 0.0, 1.0)

    def _may_wait(self, matched: MatchResult) -> bool:
        """Return whether units that do not trade now may wait."""
        order = matched.order
        if order.time_in_force is not TimeInForce.DAY:
            return False
        if matched.reason is RejectReason.NOT_A_NUMBER:
            return False
        return order.order_type is OrderType.LIMIT or matched.units > 0

    def _match(
        self, order: Order, units: int, quotes: Mapping[str, QuoteView], now_ns: int
    ) -> MatchResult:
        return match_order(
            order,
            units,
            quotes,
            now_ns,
            self.max_quote_age_ns,
            self.slippage,
            self.account.adjusted,
            self.account.multiplier,
            self.style,
        )

    def _initial_margin(
        self,
        matched: MatchResult,
        quotes: Mapping[str, QuoteView],
        spots: Mapping[str, float] | None,
    ) -> float:
        prices = underlying_prices(quotes, self.marks) if spots is None else spots
        spot = prices.get(matched.order.underlying)
        allow_naked = self.risk.limits.allow_naked_shorts
        return initial_margin(matched, self.account, spot, allow_naked=allow_naked)

    def _effect(self, matched: MatchResult, margin: float) -> float:
        multiplier = self.account.multiplier
        return order_buying_power_effect(
            matched, matched.units, matched.net, margin, self.schedule, multiplier
        )

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
        matched = self._match(order, waiting.remaining, quotes, now_ns)
        if matched.reason is RejectReason.NOT_A_NUMBER:
            self.suspend(order.underlying, matched.reason, now_ns)
        if matched.units == 0:
            return None
        margin = self._initial_margin(matched, quotes, spots)
        if order.leg_limits:
            matched = matched.at_limits(order)
        needed = self._effect(matched, margin)
        # Of one that works what does not trade now is cancelled: all that it held is free for it.
        freed = waiting.remaining if order.leg_limits else matched.units
        available = self.account.buying_power + waiting.buying_power_per_unit * freed
        if not is_affordable(order, needed, available):
            self.cancel(order.order_id, now_ns, RejectReason.BUYING_POWER)
            return None
        if order.leg_limits:
            return self._fill_working(matched, waiting.remaining, margin, now_ns, [])
        fill = matched.fill(self.schedule, waiting.remaining, self.account.multiplier, now_ns)
        self.record([OrderFilled(now_ns, fill, margin_to_journal(matched, self.account, margin))])
        return fill

    def _watch_margin(
        self, quotes: Mapping[str, QuoteView], spots: Mapping[str, float] | None, now_ns: int
    ) -> None:
        prices = underlying_prices(quotes, self.marks) if spots is None else dict(spots)
        for underlying in self.account.suspensions:
            prices.pop(underlying, None)
        changes = margin_changes(self.account, self.marks, prices, now_ns)
        unknown = [each for each in changes if not math.isfinite(each.reserve_per_unit)]
        for change in unknown:
            self.suspend(change.underlying, RejectReason.NOT_A_NUMBER, now_ns)
            prices.pop(change.underlying)
        if unknown:
            changes = margin_changes(self.account, self.marks, prices, now_ns)
        self.record(changes)
        self.call_margin(now_ns)

    def _watch_losses(self, equity: float, now_ns: int) -> None:
        if not math.isfinite(equity):
            self._restrict(Cause.NOT_A_NUMBER, now_ns)
            return
        if self.risk.daily_loss_breached(self.account, equity):
            self._restrict(Cause.DAILY_LOSS, now_ns)
        if self.risk.drawdown_breached(self.account, equity):
            self._restrict(Cause.MAX_DRAWDOWN, now_ns)
        if self.risk.champion_breached(self.account, equity):
            self._roll_back_champion(equity, now_ns)

    def _reject(self, rejection: Rejection, underlying: str | None) -> Rejection:
        """Write a rejection down with what follows from it.

        A number that is none suspends the `underlying` that it concerns; None: the whole account.
        """
        events: list[Event] = [OrderRejected(rejection.ts_ns, rejection)]
        if rejection.reason is RejectReason.NOT_A_NUMBER and underlying is not None:
            events += self._suspension(underlying, rejection.reason, rejection.ts_ns)
        elif rejection.reason in RiskEngine.CONSEQUENCES:
            events += self.entering(rejection.reason, rejection.ts_ns)
        self.record(events)
        return rejection
