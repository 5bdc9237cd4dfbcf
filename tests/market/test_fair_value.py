"""The simulator's quick prices are Black's prices."""

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray
from scipy.special import ndtr

from trading.market.fair_value import fair_values, fast_exp, fast_log, normal_cdf
from trading.market.model import DEFAULT_MODEL
from trading.market.pricing import YEAR_NS, black_price
from trading.market.surface import surface_iv, variance_years

NOW_NS = 1_767_627_000_000_000_000
"""2026-01-05 15:30 UTC, an hour into a Monday's session."""
DAY_NS = 86_400 * 10**9
SPOT = 612.3
F64 = NDArray[np.float64]


@njit  # type: ignore[untyped-decorator]
def _each(function: object, x: F64) -> F64:
    y = np.empty_like(x)
    for i in range(len(x)):
        y[i] = function(x[i])
    return y


def fair(
    strike: F64, expiry_ns: NDArray[np.int64], right: NDArray[np.int8]
) -> tuple[list[float], list[float]]:
    prices, distance = np.full((2, len(strike)), np.nan)
    fair_values(DEFAULT_MODEL, SPOT, 0.2, -0.2, NOW_NS, strike, expiry_ns, right, prices, distance)
    return prices.tolist(), distance.tolist()


def black(strike: float, expiry_ns: int, right: int) -> tuple[float, float]:
    """Price and distance by the kernels of the live side."""
    discount = np.exp(-DEFAULT_MODEL.rate * (expiry_ns - NOW_NS) / YEAR_NS)
    forward = SPOT / discount
    t = variance_years(DEFAULT_MODEL, NOW_NS, expiry_ns)
    log_moneyness = np.log(strike / forward)
    iv = surface_iv(DEFAULT_MODEL, log_moneyness, t, 0.2, -0.2)
    price = black_price(right, forward, strike, t, discount, iv)
    return price, log_moneyness / max(iv * np.sqrt(t), 1e-9)


def test_normal_distribution_function_is_right_to_ten_digits() -> None:
    x = np.linspace(-12.0, 12.0, 100_001)
    assert np.abs(_each(normal_cdf, x) - ndtr(x)).max() < 1e-10


def test_logarithm_is_right_to_eleven_digits() -> None:
    x = np.exp(np.linspace(-30.0, 30.0, 100_001))
    assert np.abs(_each(fast_log, x) - np.log(x)).max() < 1e-11


def test_exponential_is_right_to_twelve_digits() -> None:
    x = np.linspace(-700.0, 700.0, 100_001)
    assert np.abs(_each(fast_exp, x) / np.exp(x) - 1.0).max() < 1e-12
    assert _each(fast_exp, np.array([-np.inf])).item() < 1e-300


@pytest.mark.parametrize("days", [0, 1, 7, 29, 757])
@pytest.mark.parametrize("in_pairs", [True, False])
def test_prices_are_those_of_the_live_side(days: int, in_pairs: bool) -> None:
    strikes = np.round(SPOT * np.exp(np.linspace(-1.5, 1.5, 61)))
    order = np.argsort(np.tile(strikes, 2), kind="stable") if in_pairs else np.arange(122)
    strike = np.tile(strikes, 2)[order]
    right = np.repeat(np.array([1, -1], dtype=np.int8), 61)[order]
    expiry_ns = np.full(122, NOW_NS + 5 * 3600 * 10**9 + days * DAY_NS)
    prices, distances = fair(strike, expiry_ns, right)
    for i, price in enumerate(prices):
        exact, away = black(float(strike[i]), int(expiry_ns[i]), int(right[i]))
        assert price == pytest.approx(exact, abs=1e-6)
        assert distances[i] == pytest.approx(away, rel=1e-8, abs=1e-8)


def test_order_of_the_contracts_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    strike = np.repeat(np.arange(550.0, 680.0, 10.0), 4)
    right = np.tile(np.array([1, -1], dtype=np.int8), 26)
    expiry_ns = NOW_NS + np.tile(np.array([3, 3, 30, 30]), 13) * DAY_NS
    prices, _ = fair(strike, expiry_ns, right)
    shuffled = rng.permutation(52)
    again, _ = fair(strike[shuffled], expiry_ns[shuffled], right[shuffled])
    assert again == pytest.approx([prices[i] for i in shuffled], abs=1e-9)


def test_value_at_expiry_is_intrinsic() -> None:
    strike = np.array([600.0, 600.0, SPOT, 620.0])
    right = np.array([1, -1, 1, -1], dtype=np.int8)
    prices, _ = fair(strike, np.full(4, NOW_NS), right)
    assert prices == pytest.approx([12.3, 0.0, 0.0, 7.7], abs=1e-6)
