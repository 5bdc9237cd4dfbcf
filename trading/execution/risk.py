"""Checks that every order passes before it may trade."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from trading.errors import ConfigError
from trading.execution.orders import Intent, Order, Rejection, RejectReason

if TYPE_CHECKING:
    from trading.execution.portfolio import Account

MINUTE_NS = 60_000_000_000

Broken: TypeAlias = Iterator[tuple[RejectReason, str]]
"""Limits that an order breaks, the first one first."""


class TradingState(StrEnum):
    """What an account may trade."""

    ACTIVE = "active"
    """Every order that passes the checks."""
    REDUCING = "reducing"
    """Only orders that close a strategy."""
    HALTED = "halted"
    """Nothing; expiry and settlement still happen."""


@dataclass(frozen=True, slots=True)
class RiskLimits:
    """What one account and one of its orders may risk; every limit is above zero."""

    max_positions: int = 10
    """Open strategies, counting orders that wait to open one."""
    max_contracts_per_order: int = 20
    """Contracts of an opening order, all legs together."""
    max_order_notional: float = 50_000.0
    """USD of premium of an opening order, all legs added up."""
    max_daily_loss_pct: float = 5.0
    """Loss since the last session's close, in percent of the equity there, that halts trading."""
    max_orders_per_minute: int = 30
    """Accepted orders within 60 s of exchange time."""

    def __post_init__(self) -> None:
        lines = [
            f"risk.{field.name}: {getattr(self, field.name)} is not above 0"
            for field in fields(self)
            if not getattr(self, field.name) > 0
        ]
        if lines:
            raise ConfigError(lines)


class RiskEngine:
    """Decides whether an order may trade; changes nothing itself.

    Every comparison is written so that NaN fails it. When it rejects for one of `HALTING`, the
    account must be halted.
    """

    HALTING = frozenset({RejectReason.DAILY_LOSS, RejectReason.NOT_A_NUMBER})

    def __init__(self, limits: RiskLimits) -> None:
        self.limits = limits

    def gate(self, order: Order, account: "Account", now_ns: int) -> Rejection | None:
        """Refuse what needs no price: by the trading state, or for a limit that is no number."""
        return _first(order, now_ns, self._forbidden(order, account))

    def daily_loss_breached(self, account: "Account", equity: float) -> bool:
        """Whether `equity` (USD) is below what the daily loss limit allows; NaN is a breach."""
        floor = account.day_start_equity * (1.0 - self.limits.max_daily_loss_pct / 100.0)
        return not equity >= floor

    def check(
        self,
        order: Order,
        account: "Account",
        required_cash: float,
        notional: float,
        equity: float,
        now_ns: int,
    ) -> Rejection | None:
        """The first limit that the order breaks, or None.

        Parameters
        ----------
        required_cash : float
            Buying power that the order consumes including fees, USD, see
            `margin.required_cash`; inf for a position without a greatest loss.
        notional : float
            Premium of all legs and units added up, USD.
        equity : float
            Account value now, USD.
        """
        broken = self._broken(order, account, required_cash, notional, equity, now_ns)
        return _first(order, now_ns, broken)

    def _broken(
        self,
        order: Order,
        account: "Account",
        required_cash: float,
        notional: float,
        equity: float,
        now_ns: int,
    ) -> Broken:
        limits = self.limits
        yield from self._forbidden(order, account)
        if not math.isfinite(equity + notional) or math.isnan(required_cash):
            yield RejectReason.NOT_A_NUMBER, f"{equity=} {notional=} {required_cash=}"
        if self.daily_loss_breached(account, equity):
            yield (
                RejectReason.DAILY_LOSS,
                (
                    f"equity {equity:.2f} after {account.day_start_equity:.2f} at the start of the "
                    f"day is a loss above {limits.max_daily_loss_pct} %"
                ),
            )
        recent = sum(now_ns - ts_ns < MINUTE_NS for ts_ns in account.recent_order_ns)
        if not recent < limits.max_orders_per_minute:
            yield RejectReason.ORDER_RATE, f"{recent} orders within a minute"
        if order.intent is Intent.OPEN:
            yield from self._broken_by_opening(order, account, notional)
        if required_cash == math.inf:
            detail = "no greatest loss: cover sold options with bought ones of the same expiry"
            yield RejectReason.UNDEFINED_RISK, detail
        if not (required_cash <= 0.0 or required_cash <= account.buying_power):
            detail = f"needs {required_cash:.2f} USD of {account.buying_power:.2f}"
            yield RejectReason.BUYING_POWER, detail

    def _forbidden(self, order: Order, account: "Account") -> Broken:
        if account.trading_state is TradingState.HALTED:
            yield RejectReason.HALTED, f"trading is halted: {account.state_reason}"
        if account.trading_state is TradingState.REDUCING and order.intent is Intent.OPEN:
            yield RejectReason.REDUCING, f"only closing is allowed: {account.state_reason}"
        if order.limit_price is not None and not math.isfinite(order.limit_price):
            yield RejectReason.NOT_A_NUMBER, f"limit price {order.limit_price}"

    def _broken_by_opening(self, order: Order, account: "Account", notional: float) -> Broken:
        limits = self.limits
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
            detail = f"{notional:.2f} USD of premium, at most {limits.max_order_notional:.2f}"
            yield RejectReason.MAX_NOTIONAL, detail


def _first(order: Order, now_ns: int, broken: Broken) -> Rejection | None:
    for reason, detail in broken:
        return Rejection(order.order_id, now_ns, reason, detail)
    return None
