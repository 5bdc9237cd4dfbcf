"""Checks that every order passes before it may trade."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import ClassVar, TypeAlias

from trading.errors import ConfigError
from trading.execution.exposure import FLAT, Greeks, headroom, loss_floor
from trading.execution.margin.reg_t import sells_short
from trading.execution.orders import Intent, Order, Rejection, RejectReason
from trading.execution.portfolio import Account
from trading.execution.states import RESTRICTION_RULES, Cause, TradingState, owner_may_close

MINUTE_NS = 60_000_000_000

Broken: TypeAlias = Iterator[tuple[RejectReason, str]]
"""Limits that an order breaks, the first one first."""


@dataclass(frozen=True, slots=True)
class RiskLimits:
    """What one account and one of its orders may risk; every limit is above zero."""

    max_positions: int
    """Open strategies, counting orders that wait to open one."""
    max_contracts_per_order: int
    """Option contracts of an opening order, all legs together."""
    max_order_notional: float
    """USD that change hands in an opening order: premiums, and the price of stock, added up."""
    max_daily_loss_pct: float
    """Loss since the last session's close, in percent of the equity there, that halts trading."""
    max_orders_per_minute: int
    """Accepted orders within 60 s of exchange time."""
    max_delta_pct: float
    """Account's delta, `Greeks.delta`, in percent of equity, either way."""
    max_gamma_pct: float
    """Account's gamma, `Greeks.gamma`, in percent of equity, either way."""
    max_vega_pct: float
    """Account's vega, `Greeks.vega`, in percent of equity, either way."""
    max_drawdown_pct: float
    """Loss from the account's peak equity, in percent of it, that leaves only closing."""
    max_champion_drawdown_pct: float
    """Loss from the peak equity under a champion, in percent of it, that rolls it back."""
    min_short_equity: float
    """USD of equity that selling short needs (FINRA Rule 4210(b)); covered calls and puts secured
    by cash are free of it."""
    allow_naked_shorts: bool
    """Whether uncovered options and stock may be sold short, at Reg-T margin."""

    def __post_init__(self) -> None:
        lines = [
            f"risk.{field.name}: {getattr(self, field.name)} is not above 0"
            for field in fields(self)
            if field.name != "allow_naked_shorts" and not getattr(self, field.name) > 0
        ]
        if lines:
            raise ConfigError(lines)


def is_affordable(order: Order, buying_power_effect: float, buying_power: float) -> bool:
    """Return whether an order leaves no buying power below zero.

    One that closes may also just free some.

    So a position can be closed while a margin call stands. NaN is not affordable.
    """
    frees = order.intent is Intent.CLOSE and buying_power_effect <= 0.0
    return frees or buying_power_effect <= buying_power


class RiskEngine:
    """Decides whether an order may trade; changes nothing itself.

    Every comparison is written so that NaN fails it. When it rejects for one of `CONSEQUENCES`, the
    account must enter that state.
    """

    CONSEQUENCES: ClassVar[dict[RejectReason, TradingState]] = {
        reason: RESTRICTION_RULES[reason].state
        for reason in (
            RejectReason.DAILY_LOSS,
            RejectReason.NOT_A_NUMBER,
            RejectReason.MAX_DRAWDOWN,
        )
    }

    def __init__(self, limits: RiskLimits) -> None:
        self.limits = limits

    def gate(
        self, order: Order, account: Account, now_ns: int, *, by_owner: bool = False
    ) -> Rejection | None:
        """Refuse what needs no price: by the trading state, or for a limit that is no number."""
        return _first(order, now_ns, self._forbidden(order, account, by_owner))

    def why_unresolved(self, cause: str, account: Account, equity: float | None) -> str:
        """Return why a cause still stands, with the way out.

        Empty when it does not, or nobody can tell.

        `equity` is the account's now in USD, None where that is not known.
        """
        if cause == Cause.MARGIN_CALL and account.buying_power < 0.0:
            return (
                f"buying power is {account.buying_power:.2f} USD: close positions, or pay in with "
                "`trading account deposit`"
            )
        if equity is None:
            return ""
        if cause == Cause.NOT_A_NUMBER and not math.isfinite(equity):
            return "equity is no number: see which holding has no price"
        if cause == Cause.DAILY_LOSS and self.daily_loss_breached(account, equity):
            return (
                f"equity {equity:.2f} is more than {self.limits.max_daily_loss_pct} % "
                f"(risk.max_daily_loss_pct) below {account.day_start_equity:.2f}, where the day "
                "began: it ends with the session"
            )
        if cause == Cause.MAX_DRAWDOWN and self.drawdown_breached(account, equity):
            return (
                f"equity {equity:.2f} is more than {self.limits.max_drawdown_pct} % "
                f"(risk.max_drawdown_pct) below its peak of {account.peak_equity:.2f}: accept that "
                "with `trading account reset-peak`"
            )
        return ""

    def daily_loss_breached(self, account: Account, equity: float) -> bool:
        """Return whether `equity` (USD) is below what the daily loss limit allows.

        NaN is a breach.
        """
        return not equity >= loss_floor(
            account.day_start_equity, self.limits.max_daily_loss_pct / 100.0
        )

    def drawdown_breached(self, account: Account, equity: float) -> bool:
        """Return whether `equity` (USD) is too far below the account's peak; NaN is a breach."""
        return not equity >= loss_floor(account.peak_equity, self.limits.max_drawdown_pct / 100.0)

    def champion_breached(self, account: Account, equity: float) -> bool:
        """Return whether `equity` (USD) is too far below the peak under the champion.

        NaN is a breach.
        """
        limit = self.limits.max_champion_drawdown_pct / 100.0
        lowest = loss_floor(account.champion_peak_equity, limit)
        return account.champion > 0 and not equity >= lowest

    def check(
        self,
        order: Order,
        account: Account,
        buying_power_effect: float,
        notional: float,
        equity: float,
        now_ns: int,
        greeks: Greeks | None = None,
        unit_greeks: Greeks | None = None,
        *,
        by_owner: bool = False,
    ) -> Rejection | None:
        """Return the first limit that the order breaks, or None.

        Parameters
        ----------
        buying_power_effect : float
            Buying power that the order consumes including fees, USD, see
            `margin.formulas.buying_power_effect`; inf for a position without a greatest loss.
        notional : float
            Price of all legs and units added up, USD.
        equity : float
            Account value now, USD.
        greeks, unit_greeks : Greeks, optional
            The account's before the order, and those of one unit of it. An opening order without
            `unit_greeks` is not held against the limits on greeks: who cannot compute them must
            limit exposure otherwise. With them, an account that holds anything needs `greeks` too.
        by_owner : bool
            It closes by the owner's word, so that neither the day's loss nor an equity that is no
            number holds it back.
        """
        if by_owner and order.intent is Intent.CLOSE:
            broken = self._broken_by_owner(order, account, buying_power_effect, notional, now_ns)
        else:
            broken = self._broken(
                order, account, buying_power_effect, notional, equity, now_ns, greeks, unit_greeks
            )
        return _first(order, now_ns, broken)

    def _broken(
        self,
        order: Order,
        account: Account,
        buying_power_effect: float,
        notional: float,
        equity: float,
        now_ns: int,
        greeks: Greeks | None,
        unit_greeks: Greeks | None,
    ) -> Broken:
        limits = self.limits
        yield from self._forbidden(order, account, by_owner=False)
        if not math.isfinite(equity + notional) or math.isnan(buying_power_effect):
            yield RejectReason.NOT_A_NUMBER, f"{equity=} {notional=} {buying_power_effect=}"
        if self.daily_loss_breached(account, equity):
            yield (
                RejectReason.DAILY_LOSS,
                (
                    f"equity {equity:.2f} after {account.day_start_equity:.2f} at the start of the "
                    f"day is a loss above {limits.max_daily_loss_pct} %"
                ),
            )
        yield from self._broken_by_rate(account, now_ns)
        if order.intent is Intent.OPEN:
            yield from self._broken_by_opening(order, account, notional, equity)
            yield from self._broken_by_greeks(order, account, equity, greeks, unit_greeks)
        yield from _unaffordable(order, account, buying_power_effect)

    def _broken_by_owner(
        self,
        order: Order,
        account: Account,
        buying_power_effect: float,
        notional: float,
        now_ns: int,
    ) -> Broken:
        yield from self._forbidden(order, account, by_owner=True)
        if not math.isfinite(notional) or math.isnan(buying_power_effect):
            yield RejectReason.NOT_A_NUMBER, f"{notional=} {buying_power_effect=}"
        yield from self._broken_by_rate(account, now_ns)
        yield from _unaffordable(order, account, buying_power_effect)

    def _broken_by_rate(self, account: Account, now_ns: int) -> Broken:
        recent = sum(now_ns - ts_ns < MINUTE_NS for ts_ns in account.recent_order_ns)
        if not recent < self.limits.max_orders_per_minute:
            yield RejectReason.ORDER_RATE, f"{recent} orders within a minute"

    def _forbidden(self, order: Order, account: Account, by_owner: bool) -> Broken:
        overrides = by_owner and order.intent is Intent.CLOSE
        overrides = overrides and owner_may_close(account.restrictions)
        if account.trading_state is TradingState.HALTED and not overrides:
            yield RejectReason.HALTED, f"trading is halted: {account.state_reason}"
        if account.trading_state is TradingState.REDUCING and order.intent is Intent.OPEN:
            yield RejectReason.REDUCING, f"only closing is allowed: {account.state_reason}"
        if order.underlying in account.suspensions:
            detail = f"{order.underlying} is suspended: {account.suspended[order.underlying]}"
            yield RejectReason.SUSPENDED, detail
        if order.limit_price is not None and not math.isfinite(order.limit_price):
            yield RejectReason.NOT_A_NUMBER, f"limit price {order.limit_price}"

    def _broken_by_opening(
        self, order: Order, account: Account, notional: float, equity: float
    ) -> Broken:
        # `trading.envs.market_snapshots` and `account_view` size orders by the same limits, and by
        # those on greeks and buying power below; `tests/envs/test_sizing.py` ties the two.
        limits = self.limits
        if self.drawdown_breached(account, equity):
            detail = (
                f"equity {equity:.2f} is more than {limits.max_drawdown_pct} % below the peak of "
                f"{account.peak_equity:.2f}"
            )
            yield RejectReason.MAX_DRAWDOWN, detail
        if not equity >= limits.min_short_equity and sells_short(order.legs):
            detail = f"selling short needs equity of {limits.min_short_equity:.2f} USD"
            yield RejectReason.MIN_EQUITY, f"{detail}, there are {equity:.2f}"
        opening = {
            waiting.order.underlying
            for waiting in account.working_orders.values()
            if waiting.order.intent is Intent.OPEN
        }
        positions = len(opening | account.strategies.keys())
        if not positions < limits.max_positions:
            yield RejectReason.MAX_POSITIONS, f"{positions} of {limits.max_positions} are open"
        contracts = order.contracts_per_unit * order.units
        if not contracts <= limits.max_contracts_per_order:
            detail = f"{contracts} contracts, at most {limits.max_contracts_per_order}"
            yield RejectReason.MAX_CONTRACTS, detail
        if not notional <= limits.max_order_notional:
            detail = f"{notional:.2f} USD change hands, at most {limits.max_order_notional:.2f}"
            yield RejectReason.MAX_NOTIONAL, detail

    def _broken_by_greeks(
        self,
        order: Order,
        account: Account,
        equity: float,
        greeks: Greeks | None,
        unit_greeks: Greeks | None,
    ) -> Broken:
        if not all(math.isfinite(value) for value in (*(greeks or FLAT), *(unit_greeks or FLAT))):
            yield RejectReason.NOT_A_NUMBER, f"{greeks=} {unit_greeks=}"
        if unit_greeks is None:
            return
        if greeks is None and account.positions:
            detail = "the account's greeks are not given, so that no limit on them can be checked"
            yield RejectReason.MAX_DELTA, detail
        limits = self.limits
        bounds = zip(
            (RejectReason.MAX_DELTA, RejectReason.MAX_GAMMA, RejectReason.MAX_VEGA),
            (limits.max_delta_pct, limits.max_gamma_pct, limits.max_vega_pct),
            greeks or FLAT,
            unit_greeks,
            strict=True,
        )
        for reason, percent, current, unit in bounds:
            limit = equity * percent / 100.0
            if not order.units <= headroom(limit, current, unit):
                detail = f"{current:.0f} and {order.units} times {unit:.0f} USD"
                yield reason, f"{detail}, at most {limit:.0f} ({percent} % of equity)"


def _unaffordable(order: Order, account: Account, buying_power_effect: float) -> Broken:
    if buying_power_effect == math.inf:
        detail = (
            "no greatest loss: cover sold options and stock by bought ones that last as long, "
            "or allow uncovered sales with risk.allow_naked_shorts and give the spot"
        )
        yield RejectReason.UNDEFINED_RISK, detail
    if not is_affordable(order, buying_power_effect, account.buying_power):
        detail = f"needs {buying_power_effect:.2f} USD of {account.buying_power:.2f}"
        yield RejectReason.BUYING_POWER, detail


def _first(order: Order, now_ns: int, broken: Broken) -> Rejection | None:
    for reason, detail in broken:
        return Rejection(order.order_id, now_ns, reason, detail)
    return None
