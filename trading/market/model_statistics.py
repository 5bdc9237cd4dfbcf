"""What a simulated market is, measured: paths over years, and options held to their expiry."""

from collections.abc import Callable
from math import exp, log, sqrt
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.market.factors import CALM, SESSIONS_PER_YEAR, STRESSED, FactorState, advance
from trading.market.model import MarketModel
from trading.market.pricing import black_price
from trading.market.surface import surface_iv

F64 = NDArray[np.float64]

TENORS = (5, 10, 21, 42)
"""Sessions that options are held for: a week, two, a month, two."""
STRIKES = ("25-delta put", "at the money straddle", "25-delta call")
_QUARTER = 0.6744897501960817
"""Standard deviations from the money of a 25-delta option, by the normal law."""
_STEPS = 13
_WARM_SESSIONS = 42
_PATHS_AT_ONCE = 20
"""Between two words on progress."""


class Paths(NamedTuple):
    """P paths over S sessions; `by_day` and `by_night` are log returns, [P, S]."""

    spot: F64
    """[P, S], at the open."""
    by_day: F64
    by_night: F64
    atm_iv: F64
    """[P, S], 30-day implied volatility at the open."""
    skew: F64
    regime: NDArray[np.int8]

    def part(self, paths: slice) -> "Paths":
        """Return some of them, in the same arrays."""
        columns: tuple[NDArray[Any], ...] = self
        return Paths(*(each[paths] for each in columns))


class Estimate(NamedTuple):
    """A figure and half the width of its 95 % interval over independent paths."""

    value: float
    error: float


class ModelStatistics(NamedTuple):
    """The figures of a market."""

    paths: Paths
    figures: dict[str, dict[str, Estimate]]
    """By group and name; percentages are numbers like 12.3."""
    held: dict[tuple[int, str], Estimate]
    """Percent that an option gains that is bought at an open and held for so many sessions."""


@njit(cache=True, error_model="numpy")
def _walk(model: MarketModel, rng: np.random.Generator, start_spot: float, paths: Paths) -> None:
    count, sessions = paths.spot.shape
    night = model.overnight_share / SESSIONS_PER_YEAR
    step = (1.0 - model.overnight_share) / SESSIONS_PER_YEAR / _STEPS
    for p in range(count):
        state = FactorState(start_spot, log(model.calm_vol), model.calm_skew, CALM, 0.0)
        for s in range(-_WARM_SESSIONS, sessions):
            if s == 0:
                state = FactorState(start_spot, state.log_iv, state.skew, state.regime, state.gap)
            opening = state
            for _ in range(_STEPS):
                state, _, _ = advance(model, rng, state, step, 0.0)
            closing = state
            state, _, _ = advance(model, rng, state, night, 0.0, True)
            if s >= 0:
                paths.spot[p, s] = opening.spot
                paths.atm_iv[p, s] = exp(opening.log_iv)
                paths.skew[p, s] = opening.skew
                paths.regime[p, s] = opening.regime
                paths.by_day[p, s] = log(closing.spot / opening.spot)
                paths.by_night[p, s] = log(state.spot / closing.spot)


def simulate_paths(
    model: MarketModel,
    seed: int,
    paths: int = 400,
    sessions: int = 252,
    spot: float = 100.0,
    progress: Callable[[int], None] | None = None,
) -> Paths:
    """Independent paths from the calm level on, after two months that are not shown.

    `progress` is called with how many of them have been simulated.
    """
    shape = (paths, sessions)
    opens, by_day, by_night, atm_iv, skew = np.zeros((5, *shape))
    found = Paths(opens, by_day, by_night, atm_iv, skew, np.zeros(shape, np.int8))
    rng = np.random.default_rng(seed)
    for first in range(0, paths, _PATHS_AT_ONCE):
        some = slice(first, first + _PATHS_AT_ONCE)
        _walk(model, rng, spot, found.part(some))
        if progress is not None:
            progress(min(some.stop, paths))
    return found


def measure_model(
    model: MarketModel,
    seed: int,
    paths: int = 400,
    sessions: int = 252,
    progress: Callable[[int], None] | None = None,
) -> ModelStatistics:
    """Measure a market; equal seeds give equal figures; `progress` as of `simulate_paths`."""
    walk = simulate_paths(model, seed, paths, sessions, progress=progress)
    returns = walk.by_day + walk.by_night
    figures = {
        "price": _price(walk, returns),
        "volatility": _volatility(walk, returns),
        "implied over realised volatility, minus one, %": _premiums(model, walk),
    }
    held = {
        (tenor, strike): value
        for tenor in TENORS
        for strike, value in zip(STRIKES, _held(model, walk, tenor), strict=True)
    }
    return ModelStatistics(walk, figures, held)


def variance_ratio(returns: F64, sessions: int) -> float:
    """Variance of sums of so many returns over that of independent ones: above 1, trends go on."""
    whole = returns.shape[1] // sessions * sessions
    sums = returns[:, :whole].reshape(len(returns), -1, sessions).sum(axis=2)
    single: float = float(returns.var())
    return float(sums.var()) / (sessions * single)


def _price(walk: Paths, returns: F64) -> dict[str, Estimate]:
    stressed = walk.regime == STRESSED
    centred = returns - returns.mean()
    deviation = float(centred.std())
    return {
        "log return, % a year": _mean(100.0 * SESSIONS_PER_YEAR * returns.mean(axis=1)),
        "realised volatility, % a year": _vol(returns, np.ones_like(stressed)),
        "realised volatility in calm, % a year": _vol(returns, ~stressed),
        "realised volatility in stress, % a year": _vol(returns, stressed),
        "sessions in stress, %": _mean(100.0 * stressed.mean(axis=1)),
        "share of the night in the variance, %": _mean(
            100.0 * (walk.by_night**2).sum(axis=1) / (returns**2).sum(axis=1)
        ),
        "autocorrelation of sessions' returns": _mean(_autocorrelation(returns)),
        "variance ratio over 5 sessions": _single(variance_ratio(returns, 5)),
        "skewness of sessions' returns": _single(float((centred**3).mean()) / deviation**3),
        "kurtosis of sessions' returns": _single(float((centred**4).mean()) / deviation**4),
        "worst session of a year, %": _mean(100.0 * returns.min(axis=1)),
    }


def _volatility(walk: Paths, returns: F64) -> dict[str, Estimate]:
    stressed, log_iv = walk.regime == STRESSED, np.log(walk.atm_iv)
    changes = np.diff(log_iv, axis=1)
    rows = zip(returns[:, :-1], changes, strict=True)
    correlation = np.array([np.corrcoef(x, y)[0, 1] for x, y in rows])
    memory = min(max(float(_autocorrelation(log_iv).mean()), 1e-6), 1.0 - 1e-9)
    return {
        "30-day implied volatility in calm, %": _where(100.0 * walk.atm_iv, ~stressed),
        "30-day implied volatility in stress, %": _where(100.0 * walk.atm_iv, stressed),
        "volatility of it, % a year": _mean(100.0 * changes.std(axis=1) * sqrt(SESSIONS_PER_YEAR)),
        "correlation with returns": _mean(correlation),
        "sessions until half of a move is undone": _single(-log(2.0) / log(memory)),
    }


def _premiums(model: MarketModel, walk: Paths) -> dict[str, Estimate]:
    stressed, share = walk.regime == STRESSED, model.overnight_share
    implied = walk.atm_iv**2 / SESSIONS_PER_YEAR
    all_day, night = walk.by_day**2, walk.by_night**2
    total = (walk.by_day + walk.by_night) ** 2
    every = np.ones_like(stressed)
    return {
        "all": _over(implied, total, every),
        "in calm": _over(implied, total, ~stressed),
        "in stress": _over(implied, total, stressed),
        "by day": _over((1.0 - share) * implied, all_day, every),
        "by night": _over(share * implied, night, every),
    }


def _held(model: MarketModel, walk: Paths, tenor: int) -> list[Estimate]:
    """Percent gained on put, straddle and call that are bought at an open and held so long."""
    cost, paid = np.zeros((3, len(walk.spot))), np.zeros((3, len(walk.spot)))
    _hold(model, walk, tenor, cost, paid)
    return [_mean(100.0 * (paid[k] - cost[k]) / cost[k].mean()) for k in range(3)]


@njit(cache=True, error_model="numpy")
def _hold(model: MarketModel, walk: Paths, tenor: int, cost: F64, paid: F64) -> None:
    """Add up, for every path, what options cost and came to, in shares of the spot."""
    # With its holidays a year of 261 weekdays has 252 sessions: both clocks say this.
    t = tenor / SESSIONS_PER_YEAR
    discount = exp(-model.rate * t)
    for p in range(len(walk.spot)):
        for s in range(0, walk.spot.shape[1] - tenor, 5):
            spot, iv, skew = walk.spot[p, s], walk.atm_iv[p, s], walk.skew[p, s]
            forward, end = spot / discount, walk.spot[p, s + tenor]
            deviation = surface_iv(model, 0.0, t, iv, skew) * sqrt(t)
            for k in range(3):
                log_moneyness = (k - 1) * _QUARTER * deviation
                strike = forward * exp(log_moneyness)
                vol = surface_iv(model, log_moneyness, t, iv, skew)
                call = black_price(1, forward, strike, t, discount, vol)
                put = call - discount * (forward - strike)
                worth, fell, rose = 0.0, max(strike - end, 0.0), max(end - strike, 0.0)
                if k <= 1:
                    cost[k, p] += put / spot
                    worth += fell
                if k >= 1:
                    cost[k, p] += call / spot
                    worth += rose
                paid[k, p] += discount * worth / spot


def _mean(values: F64) -> Estimate:
    known = values[np.isfinite(values)]
    if len(known) < 2:
        return Estimate(float("nan"), float("nan"))
    return Estimate(float(known.mean()), 1.96 * float(known.std(ddof=1)) / sqrt(len(known)))


def _single(value: float) -> Estimate:
    """Return a figure of all paths together, whose error is not known."""
    return Estimate(value, float("nan"))


def _vol(returns: F64, chosen: NDArray[np.bool_]) -> Estimate:
    """Annualised root of the mean square where chosen, with its error over paths."""
    square = _where(returns**2, chosen)
    value = 100.0 * sqrt(SESSIONS_PER_YEAR * square.value) if square.value > 0.0 else float("nan")
    return Estimate(value, 0.5 * value * square.error / square.value)


def _where(values: F64, chosen: NDArray[np.bool_]) -> Estimate:
    """Mean over what is chosen; the error treats paths as independent, not sessions."""
    counts = chosen.sum(axis=1)
    if not counts.sum():
        return Estimate(float("nan"), float("nan"))
    sums = np.where(chosen, values, 0.0).sum(axis=1)
    mean = float(sums.sum() / counts.sum())
    spread = (sums - mean * counts) / counts.mean()
    return Estimate(mean, 1.96 * float(spread.std()) / sqrt(len(values)))


def _over(implied: F64, realised: F64, chosen: NDArray[np.bool_]) -> Estimate:
    """Percent that implied volatility lies above the root of what was realised."""
    asked, came = _where(implied, chosen), _where(realised, chosen)
    if not came.value > 0.0:
        return Estimate(float("nan"), float("nan"))
    ratio = sqrt(asked.value / came.value)
    return Estimate(100.0 * (ratio - 1.0), 100.0 * 0.5 * ratio * came.error / came.value)


def _autocorrelation(values: F64) -> F64:
    """Of each row, at a lag of one."""
    away = values - values.mean()
    found: F64 = (away[:, 1:] * away[:, :-1]).mean(axis=1) / (away**2).mean()
    return found
