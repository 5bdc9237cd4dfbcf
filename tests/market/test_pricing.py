"""Prices, greeks and volatilities agree with QuantLib and with each other."""

import math

import numpy as np
import pytest
import QuantLib as ql  # noqa: N813 (the package's own short name)
from hypothesis import assume, given
from hypothesis import strategies as st

from trading.market.pricing import (
    YEAR_NS,
    IvReason,
    black_price,
    bsm_price,
    greeks,
    implied_volatility,
)

COUNT = 3000


def random_contracts() -> list[tuple[int, float, float, float, float, float, float]]:
    """(right, spot, strike, t, rate, div, iv) within four standard deviations of the forward."""
    rng = np.random.default_rng(20260105)
    rows = []
    for _ in range(COUNT):
        right = int(rng.choice([1, -1]))
        spot = float(np.exp(rng.uniform(np.log(5.0), np.log(5000.0))))
        t = float(np.rint(np.exp(rng.uniform(0.0, np.log(900.0))))) / 365.0
        rate, div = float(rng.uniform(-0.01, 0.08)), float(rng.uniform(0.0, 0.05))
        iv = float(np.exp(rng.uniform(np.log(0.04), np.log(2.0))))
        strike = spot * float(np.exp(rng.uniform(-4.0, 4.0) * iv * np.sqrt(t)))
        rows.append((right, spot, strike, t, rate, div, iv))
    return rows


def quantlib(
    right: int, spot: float, strike: float, t: float, rate: float, div: float, iv: float
) -> ql.VanillaOption:
    """The same contract with QuantLib's analytic engine; `t` is a whole number of days."""
    today, days = ql.Date(5, 1, 2026), ql.Actual365Fixed()
    ql.Settings.instance().evaluationDate = today
    process = ql.BlackScholesMertonProcess(
        ql.QuoteHandle(ql.SimpleQuote(spot)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, div, days)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, rate, days)),
        ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), iv, days)),
    )
    payoff = ql.PlainVanillaPayoff(ql.Option.Call if right == 1 else ql.Option.Put, strike)
    option = ql.VanillaOption(payoff, ql.EuropeanExercise(today + round(365 * t)))
    option.setPricingEngine(ql.AnalyticEuropeanEngine(process))
    return option


def test_price_matches_quantlib() -> None:
    for row in random_contracts():
        spot = row[1]
        assert bsm_price(*row) == pytest.approx(quantlib(*row).NPV(), abs=1e-12 * spot)


def test_greeks_match_quantlib() -> None:
    for right, spot, strike, t, rate, div, iv in random_contracts():
        oracle = quantlib(right, spot, strike, t, rate, div, iv)
        forward, discount = spot * math.exp((rate - div) * t), math.exp(-rate * t)
        delta, gamma, vega, theta = greeks(right, forward, spot, strike, t, discount, iv)
        assert delta == pytest.approx(oracle.delta(), abs=1e-11)
        assert gamma == pytest.approx(oracle.gamma(), rel=1e-9, abs=1e-14)
        assert vega == pytest.approx(oracle.vega(), rel=1e-9, abs=1e-11 * spot)
        assert theta == pytest.approx(oracle.theta(), rel=1e-9, abs=1e-10 * spot)


def test_volatility_matches_quantlib_within_a_millionth() -> None:
    inverted = 0
    for right, spot, strike, t, rate, div, iv in random_contracts():
        price = quantlib(right, spot, strike, t, rate, div, iv).NPV()
        forward, discount = spot * math.exp((rate - div) * t), math.exp(-rate * t)
        implied, reason = implied_volatility(price, right, forward, strike, t, discount, 0.005)
        if reason == IvReason.OK:
            inverted += 1
            assert implied == pytest.approx(iv, abs=1e-6)
        else:
            assert reason == IvReason.TIME_VALUE_TOO_SMALL
    assert inverted > 0.6 * COUNT


@given(
    right=st.sampled_from([1, -1]),
    forward=st.floats(1.0, 10_000.0),
    deviations=st.floats(-6.0, 6.0),
    t=st.floats(1e-4, 5.0),
    rate=st.floats(-0.02, 0.15),
    iv=st.floats(0.03, 3.0),
)
def test_volatility_survives_the_round_trip(
    right: int, forward: float, deviations: float, t: float, rate: float, iv: float
) -> None:
    strike = forward * math.exp(deviations * iv * math.sqrt(t))
    discount = math.exp(-rate * t)
    price = black_price(right, forward, strike, t, discount, iv)
    implied, reason = implied_volatility(price, right, forward, strike, t, discount, 0.005)
    assume(reason != IvReason.TIME_VALUE_TOO_SMALL)
    assert reason == IvReason.OK
    again = black_price(right, forward, strike, t, discount, implied)
    assert again == pytest.approx(price, abs=1e-11 * (forward + strike))


@pytest.mark.parametrize(
    ("price", "right", "strike", "t", "reason"),
    [
        (math.nan, 1, 100.0, 0.1, IvReason.NO_PRICE),
        (math.inf, 1, 100.0, 0.1, IvReason.NO_PRICE),
        (0.0, 1, 100.0, 0.1, IvReason.NO_PRICE),
        (-1.0, 1, 100.0, 0.1, IvReason.NO_PRICE),
        (1.0, 1, math.nan, 0.1, IvReason.NO_PRICE),
        (1.0, 1, 0.0, 0.1, IvReason.NO_PRICE),
        (1.0, 1, 100.0, math.nan, IvReason.NO_PRICE),
        (9.99, 1, 90.0, 0.1, IvReason.BELOW_INTRINSIC),
        (9.99, -1, 110.0, 0.1, IvReason.BELOW_INTRINSIC),
        (100.0, 1, 90.0, 0.1, IvReason.ABOVE_MAXIMUM),
        (110.0, -1, 110.0, 0.1, IvReason.ABOVE_MAXIMUM),
        (1.0, 1, 100.0, 0.0, IvReason.NO_TIME),
        (1.0, 1, 100.0, -1.0, IvReason.NO_TIME),
        (10.0, 1, 90.0, 0.1, IvReason.TIME_VALUE_TOO_SMALL),
        (10.004, 1, 90.0, 0.1, IvReason.TIME_VALUE_TOO_SMALL),
        (0.004, 1, 110.0, 0.1, IvReason.TIME_VALUE_TOO_SMALL),
        (99.9999999999, 1, 100.0, 0.1, IvReason.OK),
        (10.5, 1, 90.0, 0.1, IvReason.OK),
    ],
)
def test_price_without_a_volatility_says_why(
    price: float, right: int, strike: float, t: float, reason: IvReason
) -> None:
    iv, code = implied_volatility(price, right, 100.0, strike, t, 1.0, 0.005)
    assert code == reason
    assert math.isnan(iv) == (reason != IvReason.OK)


def test_put_call_parity_holds_exactly_enough() -> None:
    call = black_price(1, 101.0, 95.0, 0.3, 0.98, 0.4)
    put = black_price(-1, 101.0, 95.0, 0.3, 0.98, 0.4)
    assert call - put == pytest.approx(0.98 * 6.0, abs=1e-12)


@pytest.mark.parametrize(("right", "price", "delta"), [(1, 4.9, 0.98 * 1.01), (-1, 0.0, 0.0)])
def test_expired_option_is_worth_its_intrinsic_value(
    right: int, price: float, delta: float
) -> None:
    assert black_price(right, 101.0, 96.0, 0.0, 0.98, 0.4) == pytest.approx(price)
    assert greeks(right, 101.0, 100.0, 96.0, 0.0, 0.98, 0.4) == pytest.approx((delta, 0, 0, 0))


def test_year_has_365_days() -> None:
    assert YEAR_NS == 365 * 86_400 * 10**9
