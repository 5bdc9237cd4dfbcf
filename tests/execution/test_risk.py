import math
from typing import Any

import pytest

from tests.execution.scene import NOW_NS, SECOND_NS, SHAPES
from trading.errors import ConfigError
from trading.execution.events import AccountOpened, OrderAccepted, StateChanged
from trading.execution.orders import Intent, Order, OrderType, RejectReason
from trading.execution.portfolio import Account
from trading.execution.risk import RiskEngine, RiskLimits, TradingState

ENGINE = RiskEngine(RiskLimits(max_positions=1, max_orders_per_minute=2))


def account() -> Account:
    made = Account()
    made.apply(AccountOpened(NOW_NS, "paper", 10_000.0))
    return made


def order(intent: Intent = Intent.OPEN, units: int = 1, limit: float | None = None) -> Order:
    kind = OrderType.MARKET if limit is None else OrderType.LIMIT
    return Order(
        "paper-1", NOW_NS, "SPY", "x", intent, SHAPES["bull_call_debit"], units, kind,
        limit_price=limit,
    )  # fmt: skip


def reason(made: Order, held: Account | None = None, **changed: Any) -> RejectReason | None:
    values = {"required_cash": 200.0, "notional": 400.0, "equity": 10_000.0} | changed
    rejection = ENGINE.check(made, held or account(), now_ns=NOW_NS, **values)
    return rejection.reason if rejection else None


def test_an_order_within_every_limit_passes() -> None:
    assert reason(order()) is None
    assert reason(order(limit=2.0), required_cash=10_000.0, notional=50_000.0) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["notional", "equity"])
def test_what_is_no_number_never_passes(name: str, bad: float) -> None:
    assert reason(order(), **{name: bad}) is RejectReason.NOT_A_NUMBER
    assert reason(order(Intent.CLOSE), **{name: bad}) is RejectReason.NOT_A_NUMBER


def test_a_requirement_or_limit_price_that_is_no_number_never_passes() -> None:
    assert reason(order(), required_cash=math.nan) is RejectReason.NOT_A_NUMBER
    assert reason(order(limit=math.nan)) is RejectReason.NOT_A_NUMBER
    assert ENGINE.daily_loss_breached(account(), math.nan)
    assert ENGINE.CONSEQUENCES[RejectReason.NOT_A_NUMBER] is TradingState.HALTED


def test_each_limit_names_itself() -> None:
    assert reason(order(units=11)) is RejectReason.MAX_CONTRACTS
    assert reason(order(), notional=50_000.01) is RejectReason.MAX_NOTIONAL
    assert reason(order(), required_cash=10_000.01) is RejectReason.BUYING_POWER
    assert reason(order(), required_cash=math.inf) is RejectReason.UNDEFINED_RISK
    assert reason(order(), equity=9_499.99) is RejectReason.DAILY_LOSS
    assert reason(order(), equity=9_500.0) is None


def test_an_order_that_waits_to_open_counts_as_a_position() -> None:
    held = account()
    held.apply(OrderAccepted(NOW_NS, order()))
    assert reason(order(), held) is RejectReason.MAX_POSITIONS


def test_order_rate_counts_the_last_minute_alone() -> None:
    for age_s, expected in ((59, RejectReason.ORDER_RATE), (60, None)):
        held = account()
        held.recent_order_ns = [NOW_NS - age_s * SECOND_NS] * 2
        assert reason(order(), held) is expected


def test_closing_is_free_of_size_limits() -> None:
    close = order(Intent.CLOSE, units=50)
    assert reason(close, required_cash=-1.0, notional=1e6) is None


def test_reducing_lets_only_closing_pass_and_halted_nothing() -> None:
    held = account()
    held.apply(StateChanged(NOW_NS, TradingState.REDUCING, "operator"))
    assert reason(order(), held) is RejectReason.REDUCING
    assert reason(order(Intent.CLOSE), held) is None
    held.apply(StateChanged(NOW_NS, TradingState.HALTED, "operator"))
    assert reason(order(Intent.CLOSE), held) is RejectReason.HALTED


@pytest.mark.parametrize("bad", [math.nan, 0.0, -1.0])
def test_a_limit_that_limits_nothing_is_refused(bad: float) -> None:
    with pytest.raises(ConfigError, match=r"risk\.max_daily_loss_pct"):
        RiskLimits(max_daily_loss_pct=bad)
