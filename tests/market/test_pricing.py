"""Prices, greeks and volatilities agree with QuantLib and with each other."""

import math
from functools import cache

import numpy as np
import pytest
import QuantLib as ql  # noqa: N813 (the package's own short name)
from hypothesis import assume, given
from hypothesis import strategies as st
from numba import njit

from trading.market.pricing import (
    YEAR_NS,
    IvReason,
    black_price,
    bsm_price,
    greeks,
    implied_volatility,
)

COUNT = 3000
GRID = 100_000


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


@cache
def grid() -> dict[str, np.ndarray]:
    """Columns of 100,000 contracts: an hour to three years, dividend yields up to 30 %.

    Strikes lie up to six standard deviations, and up to a factor of twenty, from the forward.
    """
    rng = np.random.default_rng(20260106)
    right = rng.choice([1, -1], GRID)
    spot = np.exp(rng.uniform(np.log(1.0), np.log(5000.0), GRID))
    t = np.exp(rng.uniform(np.log(1.0 / (365 * 24)), np.log(3.0), GRID))
    rate = rng.uniform(-0.01, 0.10, GRID)
    div = np.where(rng.random(GRID) < 0.3, 0.0, rng.uniform(0.0, 0.3, GRID))
    iv = np.exp(rng.uniform(np.log(0.04), np.log(2.0), GRID))
    forward, discount = spot * np.exp((rate - div) * t), np.exp(-rate * t)
    distance = np.clip(rng.uniform(-6.0, 6.0, GRID) * iv * np.sqrt(t), -3.0, 3.0)
    strike = forward * np.exp(distance)
    columns = (right, forward, spot, strike, t, discount, iv, rate, div)
    names = ("right", "forward", "spot", "strike", "t", "discount", "iv", "rate", "div")
    return dict(zip(names, columns, strict=True))


@cache
def quantlib_grid() -> np.ndarray:
    """Rows (price, delta, gamma, vega, theta) by QuantLib's BlackCalculator.

    It is what AnalyticEuropeanEngine computes with, and takes any time to expiry, not days alone.
    """
    rows = np.empty((GRID, 5))
    columns = [column.tolist() for column in grid().values()]
    contracts = zip(*columns[:7], strict=True)
    for i, (right, forward, spot, strike, t, discount, iv) in enumerate(contracts):
        kind = ql.Option.Call if right == 1 else ql.Option.Put
        payoff = ql.PlainVanillaPayoff(kind, strike)
        oracle = ql.BlackCalculator(payoff, forward, iv * math.sqrt(t), discount)
        rows[i, 0] = oracle.value()
        rows[i, 1] = oracle.delta(spot)
        rows[i, 2] = oracle.gamma(spot)
        rows[i, 3] = oracle.vega(t)
        rows[i, 4] = oracle.theta(spot, t)
    return rows


@njit
def price_grid(right, spot, strike, t, rate, div, iv, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = bsm_price(right[i], spot[i], strike[i], t[i], rate[i], div[i], iv[i])


@njit
def greeks_grid(right, forward, spot, strike, t, discount, iv, out):  # type: ignore[no-untyped-def]
    for i in range(right.size):
        contract = (right[i], forward[i], spot[i], strike[i], t[i], discount[i], iv[i])
        out[i] = greeks(*contract)


@njit
def invert_grid(price, right, forward, strike, t, discount, iv, reason):  # type: ignore[no-untyped-def]
    for i in range(price.size):
        iv[i], reason[i] = implied_volatility(
            price[i], right[i], forward[i], strike[i], t[i], discount[i], 0.0
        )


def implied_volatilities(price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    names = ("right", "forward", "strike", "t", "discount")
    iv, reason = np.empty(GRID), np.empty(GRID, np.int64)
    invert_grid(price, *(grid()[name] for name in names), iv, reason)
    return iv, reason


@pytest.mark.slow
def test_prices_match_quantlib_on_100_000_contracts() -> None:
    names = ("right", "spot", "strike", "t", "rate", "div", "iv")
    price = np.empty(GRID)
    price_grid(*(grid()[name] for name in names), price)
    error = np.abs(price - quantlib_grid()[:, 0])
    assert np.all(error <= 1e-13 * (grid()["spot"] + grid()["strike"]))


@pytest.mark.slow
def test_greeks_match_quantlib_on_100_000_contracts() -> None:
    names = ("right", "forward", "spot", "strike", "t", "discount", "iv")
    found = np.empty((GRID, 4))
    greeks_grid(*(grid()[name] for name in names), found)
    size = grid()["spot"] + grid()["strike"]
    time = grid()["t"]
    units = {
        "delta": np.ones(GRID),
        "gamma": 1.0 / grid()["spot"],
        "vega": size,
        "theta": size / time,
    }
    for i, (name, unit) in enumerate(units.items()):
        wanted = quantlib_grid()[:, 1 + i]
        error = np.abs(found[:, i] - wanted)
        assert np.all(error <= 1e-9 * np.abs(wanted) + 1e-12 * unit), name


@pytest.mark.slow
def test_volatility_round_trip_is_within_a_millionth_on_100_000_contracts() -> None:
    """Vega is meaningful where a volatility point is worth 1e-8 of spot and strike or more."""
    iv, reason = implied_volatilities(quantlib_grid()[:, 0])
    assert np.array_equal(np.isnan(iv), reason != IvReason.OK)
    meaningful = quantlib_grid()[:, 3] >= 1e-6 * (grid()["spot"] + grid()["strike"])
    assert np.mean(meaningful) > 0.7
    assert np.all(reason[meaningful] == IvReason.OK)
    assert np.max(np.abs(iv - grid()["iv"])[meaningful]) <= 1e-6


@pytest.mark.slow
def test_price_outside_the_bounds_is_refused_on_100_000_contracts() -> None:
    right, forward, strike = grid()["right"], grid()["forward"], grid()["strike"]
    discount = grid()["discount"]
    intrinsic = discount * np.maximum(right * (forward - strike), 0.0)
    upper = discount * np.where(right > 0, forward, strike)

    iv, reason = implied_volatilities(intrinsic * (1.0 - 1e-9))
    assert np.all(np.isnan(iv))
    assert np.all(reason[intrinsic > 0.0] == IvReason.BELOW_INTRINSIC)
    assert np.all(reason[intrinsic == 0.0] == IvReason.NO_PRICE)

    iv, reason = implied_volatilities(upper * (1.0 + 1e-9))
    assert np.all(np.isnan(iv))
    assert np.all(reason == IvReason.ABOVE_MAXIMUM)
