import math
from typing import Any

import pytest

from tests.execution.scene import NOW_NS, SECOND_NS, SHAPES
from tests.usual import risk_limits
from trading.errors import ConfigError
from trading.execution.events import (
    AccountOpened,
    OrderAccepted,
    PeakReset,
    SessionClosed,
    StateChanged,
)
from trading.execution.exposure import FLAT, Greeks
from trading.execution.holdings import Position
from trading.execution.orders import Intent, Leg, Order, OrderType, RejectReason
from trading.execution.portfolio import Account
from trading.execution.risk import RiskEngine
from trading.execution.states import TradingState

ENGINE = RiskEngine(
    risk_limits(max_positions=1, max_orders_per_minute=2, max_order_notional=50_000.0)
)


def account() -> Account:
    made = Account()
    made.apply(AccountOpened(NOW_NS, "paper", 10_000.0))
    return made


def order(
    intent: Intent = Intent.OPEN,
    units: int = 1,
    limit: float | None = None,
    legs: tuple[Leg, ...] = SHAPES["bull_call_debit"],
) -> Order:
    kind = OrderType.MARKET if limit is None else OrderType.LIMIT
    return Order(
        "paper-1", NOW_NS, "SPY", "x", intent, legs, units, kind,
        limit_price=limit,
    )  # fmt: skip


def reason(made: Order, held: Account | None = None, **changed: Any) -> RejectReason | None:
    values = {"buying_power_effect": 200.0, "notional": 400.0, "equity": 10_000.0} | changed
    rejection = ENGINE.check(made, held or account(), now_ns=NOW_NS, **values)
    return rejection.reason if rejection else None


def test_an_order_within_every_limit_passes() -> None:
    assert reason(order()) is None
    assert reason(order(limit=2.0), buying_power_effect=10_000.0, notional=50_000.0) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["notional", "equity"])
def test_what_is_no_number_never_passes(name: str, bad: float) -> None:
    assert reason(order(), **{name: bad}) is RejectReason.NOT_A_NUMBER
    assert reason(order(Intent.CLOSE), **{name: bad}) is RejectReason.NOT_A_NUMBER


def test_a_requirement_or_limit_price_that_is_no_number_never_passes() -> None:
    assert reason(order(), buying_power_effect=math.nan) is RejectReason.NOT_A_NUMBER
    assert reason(order(limit=math.nan)) is RejectReason.NOT_A_NUMBER
    assert ENGINE.daily_loss_breached(account(), math.nan)
    assert ENGINE.CONSEQUENCES[RejectReason.NOT_A_NUMBER] is TradingState.HALTED


def test_contracts_of_an_order_are_limited() -> None:
    assert reason(order(units=10)) is None
    assert reason(order(units=11)) is RejectReason.MAX_CONTRACTS


def test_money_that_changes_hands_in_an_order_is_limited() -> None:
    assert reason(order(), notional=50_000.0) is None
    assert reason(order(), notional=50_000.01) is RejectReason.MAX_NOTIONAL


def test_buying_power_is_limited() -> None:
    assert reason(order(), buying_power_effect=10_000.0) is None
    assert reason(order(), buying_power_effect=10_000.01) is RejectReason.BUYING_POWER


def test_a_loss_without_a_bound_has_its_own_reason() -> None:
    assert reason(order(), buying_power_effect=math.inf) is RejectReason.UNDEFINED_RISK


def test_the_daily_loss_is_limited_for_every_order() -> None:
    assert reason(order(), equity=9_500.0) is None
    for intent in Intent:
        assert reason(order(intent), equity=9_499.99) is RejectReason.DAILY_LOSS


def test_delta_gamma_and_vega_of_the_account_are_limited_in_percent_of_equity() -> None:
    # Of 10,000 USD: delta 20,000, gamma 30,000, vega 500.
    held = Greeks(0.0, 0.0, 0.0)
    for greek, limit, expected in (
        ("delta", 20_000.0, RejectReason.MAX_DELTA),
        ("gamma", 30_000.0, RejectReason.MAX_GAMMA),
        ("vega", 500.0, RejectReason.MAX_VEGA),
    ):
        for sign in (1.0, -1.0):
            within = Greeks(0.0, 0.0, 0.0)._replace(**{greek: sign * limit / 2})
            beyond = within._replace(**{greek: sign * (limit / 2 + 1.0)})
            assert reason(order(units=2), greeks=held, unit_greeks=within) is None
            assert reason(order(units=2), greeks=held, unit_greeks=beyond) is expected
            full = held._replace(**{greek: sign * limit})
            assert reason(order(), greeks=full, unit_greeks=within) is expected


def test_an_order_that_leads_back_within_a_limit_on_greeks_passes() -> None:
    beyond = Greeks(25_000.0, 0.0, 0.0)
    assert reason(order(), greeks=beyond, unit_greeks=Greeks(-3_000.0, 0.0, 0.0)) is None
    assert reason(order(), greeks=beyond, unit_greeks=FLAT) is RejectReason.MAX_DELTA


def test_closing_is_free_of_limits_on_greeks() -> None:
    unit = Greeks(1e9, math.nan, 1e9)
    assert reason(order(Intent.CLOSE), greeks=unit, unit_greeks=unit) is None


def test_an_opening_order_without_its_greeks_is_not_checked_and_unknown_ones_never_pass() -> None:
    unit = Greeks(1.0, 1.0, 1.0)
    assert reason(order(), greeks=Greeks(1e9, 1e9, 1e9)) is None
    assert reason(order(), unit_greeks=unit) is None
    held = account()
    held.positions["SPY"] = Position("SPY", "SPY", 1, 100.0)
    assert reason(order(), held, unit_greeks=unit) is RejectReason.MAX_DELTA
    for bad in (math.nan, math.inf):
        wrong = unit._replace(vega=bad)
        assert reason(order(), greeks=wrong) is RejectReason.NOT_A_NUMBER
        assert reason(order(), greeks=unit, unit_greeks=wrong) is RejectReason.NOT_A_NUMBER


def test_drawdown_is_measured_from_the_peak_and_leaves_only_closing() -> None:
    held = account()
    held.apply(SessionClosed(NOW_NS, "2026-01-05", 20_000.0))
    held.apply(SessionClosed(NOW_NS, "2026-01-06", 15_100.0))
    assert held.peak_equity == 20_000.0
    assert reason(order(), held, equity=15_000.0) is None
    assert reason(order(), held, equity=14_999.0) is RejectReason.MAX_DRAWDOWN
    assert reason(order(Intent.CLOSE), held, equity=14_999.0) is None
    assert ENGINE.CONSEQUENCES[RejectReason.MAX_DRAWDOWN] is TradingState.REDUCING
    assert ENGINE.drawdown_breached(held, math.nan)
    held.apply(PeakReset(NOW_NS, 1, 15_000.0))
    assert reason(order(), held, equity=14_999.0) is None


def test_a_loss_is_measured_also_where_equity_is_negative() -> None:
    held = account()
    held.apply(SessionClosed(NOW_NS, "2026-01-05", -100.0))
    assert not ENGINE.daily_loss_breached(held, -105.0)
    assert ENGINE.daily_loss_breached(held, -105.1)


def test_selling_short_needs_the_least_equity_and_covered_sales_do_not() -> None:
    poor = account()
    poor.day_start_equity = poor.peak_equity = 1_999.0
    assert reason(order(), poor, equity=1_999.0) is RejectReason.MIN_EQUITY
    assert reason(order(), poor, equity=2_000.0) is None
    for shape in ("covered_call", "short_put", "long_call"):
        free = order(legs=SHAPES[shape])
        assert reason(free, poor, equity=1_999.0) is None


def test_closing_may_free_buying_power_while_it_is_negative_and_opening_may_not() -> None:
    held = account()
    held.cash = -500.0
    assert reason(order(Intent.CLOSE), held, buying_power_effect=-1.0) is None
    assert reason(order(Intent.CLOSE), held, buying_power_effect=1.0) is RejectReason.BUYING_POWER
    assert reason(order(), held, buying_power_effect=-1.0) is RejectReason.BUYING_POWER


def test_stock_counts_towards_the_notional_and_not_as_contracts() -> None:
    assert order(units=20, legs=SHAPES["covered_call"]).contracts_per_unit == 1
    assert reason(order(units=20, legs=SHAPES["covered_call"])) is None


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
    assert reason(close, buying_power_effect=-1.0, notional=1e6) is None


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
        risk_limits(max_daily_loss_pct=bad)
