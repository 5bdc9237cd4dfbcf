"""American prices agree with QuantLib's high-resolution engines and with what must hold."""

import math
from functools import cache

import numpy as np
import pytest
import QuantLib as ql  # noqa: N813 (the package's own short name)
from numba import njit

from trading.market.american import american_price, american_volatility
from trading.market.pricing import bsm_price

GRID = 100_000
NAMES = ("right", "spot", "strike", "t", "rate", "div", "iv")


@cache
def grid() -> dict[str, np.ndarray]:
    """Columns of 100,000 contracts: an hour to three years, dividend yields up to 30 %.

    Strikes lie up to four standard deviations, and up to a factor of twenty, from the spot.
    """
    rng = np.random.default_rng(20260107)
    right = rng.choice([1, -1], GRID)
    spot = np.exp(rng.uniform(np.log(1.0), np.log(5000.0), GRID))
    t = np.exp(rng.uniform(np.log(1.0 / (365 * 24)), np.log(3.0), GRID))
    rate = rng.uniform(-0.01, 0.10, GRID)
    div = np.where(rng.random(GRID) < 0.3, 0.0, rng.uniform(0.0, 0.3, GRID))
    iv = np.exp(rng.uniform(np.log(0.04), np.log(2.0), GRID))
    strike = spot * np.exp(np.clip(rng.uniform(-4.0, 4.0, GRID) * iv * np.sqrt(t), -3.0, 3.0))
    return dict(zip(NAMES, (right, spot, strike, t, rate, div, iv), strict=True))


@njit
def price_all(right, spot, strike, t, rate, div, iv, out):  # type: ignore[no-untyped-def]
    for i in range(right.size):
        contract = (right[i], spot[i], strike[i], t[i], rate[i], div[i], iv[i])
        out[i, 0] = american_price(*contract)
        out[i, 1] = bsm_price(*contract)


@cache
def american_and_european() -> tuple[np.ndarray, np.ndarray]:
    out = np.empty((GRID, 2))
    price_all(*(grid()[name] for name in NAMES), out)
    return out[:, 0], out[:, 1]


class Oracle:
    """QuantLib on contracts of one year, to which every other time to expiry is scaled.

    A price depends on rate, dividend yield and variance times the time to expiry only, and dates
    would not do for hours.
    """

    def __init__(self) -> None:
        today, days = ql.Date(5, 1, 2026), ql.Actual365Fixed()
        ql.Settings.instance().evaluationDate = today
        self._rate, self._div, self._iv = (ql.SimpleQuote(0.1) for _ in range(3))
        rate = ql.FlatForward(today, ql.QuoteHandle(self._rate), days)
        div = ql.FlatForward(today, ql.QuoteHandle(self._div), days)
        iv = ql.BlackConstantVol(today, ql.NullCalendar(), ql.QuoteHandle(self._iv), days)
        self.process = ql.BlackScholesMertonProcess(
            ql.QuoteHandle(ql.SimpleQuote(1.0)),
            ql.YieldTermStructureHandle(div),
            ql.YieldTermStructureHandle(rate),
            ql.BlackVolTermStructureHandle(iv),
        )
        self._exercise = ql.AmericanExercise(today, today + 365)

    def prices(self, engine: ql.PricingEngine, sample: slice) -> np.ndarray:
        prices = []
        columns = (grid()[name][sample].tolist() for name in NAMES)
        for right, spot, strike, t, rate, div, iv in zip(*columns, strict=True):
            self._rate.setValue(rate * t)
            self._div.setValue(div * t)
            self._iv.setValue(iv * math.sqrt(t))
            kind = ql.Option.Call if right == 1 else ql.Option.Put
            payoff = ql.PlainVanillaPayoff(kind, strike / spot)
            option = ql.VanillaOption(payoff, self._exercise)
            option.setPricingEngine(engine)
            prices.append(spot * option.NPV())
        return np.array(prices)


def errors(oracle: np.ndarray, sample: slice) -> np.ndarray:
    """Differences in units of the spot or the strike, whichever is greater."""
    size = np.maximum(grid()["spot"], grid()["strike"])[sample]
    return np.abs(american_and_european()[0][sample] - oracle) / size


@pytest.mark.slow
def test_price_matches_quantlib_fixed_point_engine_on_5_000_of_100_000_contracts() -> None:
    """The engine has 16 nodes and 32 to 64 quadrature points: within 2e-7 of its finest scheme."""
    oracle, sample = Oracle(), slice(0, 5000)
    scheme = ql.QdFpLegendreScheme(32, 8, 16, 64)
    error = errors(oracle.prices(ql.QdFpAmericanEngine(oracle.process, scheme), sample), sample)
    assert np.sqrt(np.mean(error**2)) <= 5e-7
    assert np.quantile(error, 0.99) <= 1e-6
    assert np.max(error) <= 2e-5


@pytest.mark.slow
def test_price_matches_quantlib_finest_scheme_on_400_of_100_000_contracts() -> None:
    oracle, sample = Oracle(), slice(5000, 5400)
    scheme = ql.QdFpAmericanEngine.highPrecisionScheme()
    error = errors(oracle.prices(ql.QdFpAmericanEngine(oracle.process, scheme), sample), sample)
    assert np.quantile(error, 0.99) <= 1e-6
    assert np.max(error) <= 2e-5


@pytest.mark.slow
def test_price_matches_quantlib_finite_differences_on_300_of_100_000_contracts() -> None:
    """An oracle that shares nothing with the method, but is itself good to about 1e-4 only."""
    oracle, sample = Oracle(), slice(6000, 6300)
    engine = ql.FdBlackScholesVanillaEngine(oracle.process, 400, 400)
    assert np.max(errors(oracle.prices(engine, sample), sample)) <= 3e-4


@pytest.mark.slow
def test_price_lies_between_its_bounds_on_100_000_contracts() -> None:
    american, european = american_and_european()
    right, spot, strike = grid()["right"], grid()["spot"], grid()["strike"]
    t, rate, div = grid()["t"], grid()["rate"], grid()["div"]
    rounding = 1e-14 * (spot + strike)
    assert np.all(american >= european - rounding)
    assert np.all(american >= np.maximum(right * (spot - strike), 0.0) - rounding)
    greatest = np.where(right > 0, spot, strike * np.exp(np.maximum(-rate * t, 0.0)))
    assert np.all(american <= greatest + rounding)
    never_exercised = np.where(right > 0, (div <= 0.0) & (rate >= div), (rate <= 0.0) & (div >= 0))
    assert np.array_equal(american[never_exercised], european[never_exercised])


@pytest.mark.parametrize(
    ("right", "spot", "strike", "t", "rate", "div", "iv"),
    [
        (1, 120.0, 100.0, 1.0, 0.02, 0.20, 0.2),
        (-1, 80.0, 100.0, 1.0, 0.05, 0.0, 0.2),
        (-1, 1.0, 100.0, 0.01, 0.05, 0.03, 0.5),
        (1, 180.0, 100.0, 0.5, -0.01, 0.0, 0.2),
    ],
)
def test_deep_in_the_money_option_is_worth_exercising(
    right: int, spot: float, strike: float, t: float, rate: float, div: float, iv: float
) -> None:
    price = american_price(right, spot, strike, t, rate, div, iv)
    assert price >= right * (spot - strike)
    assert price > bsm_price(right, spot, strike, t, rate, div, iv)


@pytest.mark.parametrize(
    ("right", "price"), [(1, 100.0 * math.exp(-0.02) - 95.0 * math.exp(-0.05)), (-1, 0.0)]
)
def test_price_without_volatility_is_that_of_the_best_exercise_time(
    right: int, price: float
) -> None:
    assert american_price(right, 100.0, 95.0, 1.0, 0.05, 0.02, 0.0) == pytest.approx(price)
    assert american_price(right, 100.0, 95.0, 1.0, 0.05, 0.02, 1e-7) == pytest.approx(price)


def test_put_without_volatility_is_exercised_when_dividends_exceed_interest() -> None:
    times = np.linspace(0.0, 2.0, 100_001)
    flows = 100.0 * np.exp(-0.03 * times) - 98.0 * np.exp(-0.05 * times)
    wanted = float(np.max(flows))
    assert american_price(-1, 98.0, 100.0, 2.0, 0.03, 0.05, 0.0) == pytest.approx(wanted, abs=1e-9)
    assert american_price(-1, 98.0, 100.0, 2.0, 0.03, 0.05, 1e-4) == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize("right", [1, -1])
@pytest.mark.parametrize("t", [0.0, -1.0])
def test_expired_option_is_worth_its_intrinsic_value(right: int, t: float) -> None:
    assert american_price(right, 103.0, 100.0, t, 0.05, 0.02, 0.3) == max(right * 3.0, 0.0)


@pytest.mark.parametrize(
    ("right", "spot", "strike", "t", "rate", "div", "iv"),
    [
        (1, 0.0, 100.0, 1.0, 0.05, 0.02, 0.3),
        (1, math.nan, 100.0, 1.0, 0.05, 0.02, 0.3),
        (1, 100.0, math.inf, 1.0, 0.05, 0.02, 0.3),
        (1, 100.0, 100.0, math.nan, 0.05, 0.02, 0.3),
        (1, 100.0, 100.0, 1.0, math.nan, 0.02, 0.3),
        (-1, 100.0, 100.0, 1.0, 0.05, math.inf, 0.3),
        (-1, 100.0, 100.0, 1.0, 0.05, 0.02, -0.1),
        (-1, 100.0, 100.0, 1.0, 0.05, 0.02, math.nan),
        (-1, 100.0, 100.0, 1.0, -0.01, -0.02, 0.3),
        (1, 100.0, 100.0, 1.0, -0.02, -0.01, 0.3),
    ],
)
def test_contract_that_has_no_price_gets_nan(
    right: int, spot: float, strike: float, t: float, rate: float, div: float, iv: float
) -> None:
    assert math.isnan(american_price(right, spot, strike, t, rate, div, iv))


def test_price_stays_finite_for_extreme_contracts() -> None:
    for volatility in (1e-5, 1e-2, 1.0, 20.0):
        for t in (1e-6, 1.0, 30.0):
            for rate, div in ((1e-12, 0.5), (0.0, -0.03), (0.5, 1e-12), (0.5, 0.5)):
                for strike in (1e-3, 1.0, 1e3):
                    price = american_price(-1, 1.0, strike, t, rate, div, volatility)
                    assert max(strike - 1.0, 0.0) <= price <= strike


@pytest.mark.parametrize("right", [1, -1])
@pytest.mark.parametrize("iv", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("strike", [85.0, 100.0, 115.0])
def test_a_volatility_is_the_one_that_a_price_was_made_with(
    right: int, iv: float, strike: float
) -> None:
    option = (right, 100.0, strike, 0.25, 0.04, 0.02)
    price = american_price(*option, iv)
    found = american_volatility(price, *option, 0.005)
    if price - max(right * (100.0 - strike), 0.0) > 0.005:
        assert american_price(*option, found) == pytest.approx(price, abs=1e-9)
        assert found == pytest.approx(iv, abs=1e-4)
    else:
        assert math.isnan(found)


@pytest.mark.parametrize("price", [0.0, 15.0, 15.004, 115.0, math.nan])
def test_a_price_that_says_nothing_has_no_volatility(price: float) -> None:
    assert math.isnan(american_volatility(price, -1, 100.0, 115.0, 0.25, 0.04, 0.0, 0.005))
    assert math.isnan(american_volatility(20.0, -1, 100.0, 115.0, 0.0, 0.04, 0.0, 0.005))
