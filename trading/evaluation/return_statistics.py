"""What a series of sessions says about a trader: pure functions of arrays, one entry a session.

Returns are fractions of the initial capital and are summed, never compounded: every episode, of one
session or of several in a row, begins with the initial capital.
"""

from collections.abc import Callable
from math import e, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]

SESSIONS_PER_YEAR = 252
EULER_GAMMA = 0.5772156649015329
FEWEST_RETURNS = 4
"""Fewer have no interval."""


def sharpe(returns: Series, *, sessions_per_year: int = SESSIONS_PER_YEAR) -> float:
    """Annualised mean over standard deviation of session returns; NaN without any deviation.

    Scaled by the root of the sessions in a year, which holds for independent returns
    (Lo 2002, The Statistics of Sharpe Ratios). The deviation is that of a sample (n - 1).
    """
    return sqrt(sessions_per_year) * _session_sharpe(returns)


def sortino(returns: Series, *, sessions_per_year: int = SESSIONS_PER_YEAR) -> float:
    """Annualised mean over the downside deviation from zero, over all sessions.

    NaN without a loss or below two sessions (Sortino & Price 1994).
    """
    if len(returns) < 2:
        return float("nan")
    downside = sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    return sqrt(sessions_per_year) * float(np.mean(returns)) / downside if downside else np.nan


def max_drawdown(returns: Series) -> float:
    """Greatest fall of the summed returns from an earlier peak, the start included; never below 0.

    In fractions of the initial capital.
    """
    equity = np.concatenate(([0.0], np.cumsum(returns)))
    return float(np.max(np.maximum.accumulate(equity) - equity))


def calmar(returns: Series, *, sessions_per_year: int = SESSIONS_PER_YEAR) -> float:
    """Annualised mean return over the greatest drawdown (Young 1991).

    NaN without a drawdown or below two sessions.
    """
    if len(returns) < 2:
        return float("nan")
    drawdown = max_drawdown(returns)
    return sessions_per_year * float(np.mean(returns)) / drawdown if drawdown else np.nan


def win_rate(returns: Series) -> float:
    """Share of sessions that gained, of those that gained or lost; NaN when none did."""
    moved = np.count_nonzero(returns)
    return np.count_nonzero(returns > 0) / moved if moved else np.nan


def profit_factor(returns: Series) -> float:
    """Sum of the gains over the sum of the losses; NaN without a loss."""
    losses = -float(np.sum(returns[returns < 0]))
    return float(np.sum(returns[returns > 0])) / losses if losses else np.nan


def turnover(traded: Series, capital: float) -> float:
    """USD of options and stock that change hands in a session, over the capital of a session."""
    return float(np.mean(traded)) / capital


def fees_share(fees: Series, profit: Series) -> float:
    """Fees over what the sessions gained or lost before fees, both summed in magnitude.

    `fees` are USD >= 0 and `profit` is after fees, [D]. Above 1 the fees are larger than all that
    the positions moved; NaN where nothing moved.
    """
    gross = float(np.sum(np.abs(profit + fees)))
    return float(np.sum(fees)) / gross if gross else np.nan


def time_in_market(position: NDArray[np.int64]) -> float:
    """Share of bars with a position; `position` [D, T] is 0 without one and below 0 for no bar."""
    bars = np.count_nonzero(position >= 0)
    return np.count_nonzero(position > 0) / bars if bars else np.nan


def mean_exposure(delta: Series) -> float:
    """Mean magnitude of delta in USD over equity, of the bars of [D, T] that are numbers."""
    known = np.abs(delta[np.isfinite(delta)])
    return float(np.mean(known)) if len(known) else np.nan


def beta(returns: Series, benchmark: Series) -> float:
    """Slope of the returns over the benchmark's (Sharpe 1964); NaN where that does not move."""
    if len(returns) < 2:
        return float("nan")
    covariance = np.cov(returns, benchmark)
    return float(covariance[0, 1] / covariance[1, 1]) if covariance[1, 1] > 0.0 else np.nan


def correlation(returns: Series, benchmark: Series) -> float:
    """Pearson's correlation with the benchmark; NaN where either does not move."""
    if len(returns) < 2:
        return float("nan")
    covariance = np.cov(returns, benchmark)
    scale = sqrt(float(covariance[0, 0] * covariance[1, 1]))
    return float(covariance[0, 1]) / scale if scale > 0.0 else np.nan


def bootstrap_interval(
    returns: Series,
    statistic: Callable[[Series], float],
    *,
    generator: np.random.Generator,
    confidence: float = 0.95,
    mean_block: float | None = None,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Studentised interval of a statistic by the stationary bootstrap (Politis & Romano 1994).

    Blocks of sessions begin anywhere, wrap around the end, and have geometric lengths of mean
    `mean_block`, n^(1/3) / 2 of n sessions where none is given. Each resample's distance from the
    statistic is measured in its own standard error, from the sums of its blocks (Götze & Künsch
    1996), so that the interval is as wide as few sessions make it; percentiles of the resamples
    would cover 75 to 90 % at 95. Standard errors are by the statistic's jackknife values.

    (NaN, NaN) where the statistic has no value or no deviation, or there are fewer than four
    sessions.
    """
    n = len(returns)
    estimate = statistic(returns) if n >= FEWEST_RETURNS else np.nan
    if not np.isfinite(estimate):
        return float("nan"), float("nan")
    block = max(1.0, mean_block if mean_block is not None else n ** (1.0 / 3.0) / 2.0)
    influence = _jackknife_influence(returns, statistic)
    error = np.sqrt(_variance_of_mean(influence, 1.0 / block))
    if not (np.isfinite(error) and error > 1e-12 * abs(estimate)):
        return float("nan"), float("nan")
    begins = generator.random((resamples, n)) < 1.0 / block
    begins[:, 0] = True
    place = np.arange(n)
    since = place - np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    first = np.maximum.accumulate(np.where(begins, np.arange(resamples * n).reshape(-1, n), 0), 1)
    drawn = generator.integers(0, n, resamples * n)
    index = (drawn[first] + since) % n
    errors = _errors_by_blocks(influence[index], begins)
    values = np.array([statistic(returns[row]) for row in index])
    # A resample of equal sessions, but for rounding, or of one block has no error to measure by.
    measured = np.isfinite(values) & np.isfinite(errors) & (errors > _LEAST_ERROR * error)
    distance = (values[measured] - estimate) / errors[measured]
    if len(distance) < resamples // 2:
        return float("nan"), float("nan")
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(distance, (1.0 - tail, tail))
    return float(estimate - low * error), float(estimate - high * error)


_LEAST_ERROR = 1e-6
"""Standard error of a resample, over that of all sessions, below which it is rounding."""


def _jackknife_influence(returns: Series, statistic: Callable[[Series], float]) -> Series:
    """Return how much each session moves the statistic, [n], with mean 0."""
    n = len(returns)
    without = np.array([statistic(np.delete(returns, i)) for i in range(n)])
    influence: Series = (n - 1) * (without.mean() - without)
    influence -= influence.mean()
    return influence


def _variance_of_mean(influence: Series, end: float) -> float:
    """Variance of the mean of dependent values, as the stationary bootstrap has it.

    `end` is the probability that a block ends (Politis & Romano 1994, eq. 5), at most 1.
    """
    n = len(influence)
    lags = np.arange(1, n)
    autocovariance = np.correlate(influence, influence, "full")[n - 1 :] / n
    weight = (1.0 - lags / n) * (1.0 - end) ** lags + (lags / n) * (1.0 - end) ** (n - lags)
    total = autocovariance[0] + 2.0 * float(weight @ autocovariance[1:])
    return max(float(total), 0.0) / (n - 1)


def _errors_by_blocks(influence: NDArray[np.float64], begins: NDArray[np.bool_]) -> Series:
    """Return standard error of each resample's mean, [R], from the sums of its blocks."""
    rows, n = influence.shape
    centred = influence - influence.mean(axis=1, keepdims=True)
    sums = np.add.reduceat(centred.ravel(), np.flatnonzero(begins.ravel()))
    blocks = begins.sum(axis=1)
    row = np.repeat(np.arange(rows), blocks)
    total = np.bincount(row, weights=sums**2, minlength=rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors: Series = np.sqrt(total / n**2 * blocks / (blocks - 1))
    return errors


def probabilistic_sharpe(returns: Series, *, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio of a session exceeds `benchmark` (not annualised).

    Allows for skewness and kurtosis (Bailey & López de Prado 2012). NaN below three sessions or
    without deviation.
    """
    n = len(returns)
    ratio = _session_sharpe(returns)
    if n < 3 or not np.isfinite(ratio):
        return float("nan")
    z = (returns - np.mean(returns)) / np.std(returns)
    skewness, kurtosis = float(np.mean(z**3)), float(np.mean(z**4))
    variance = 1.0 - skewness * ratio + (kurtosis - 1.0) / 4.0 * ratio**2
    if variance <= 0.0:
        return float("nan")
    return NormalDist().cdf((ratio - benchmark) * sqrt(n - 1) / sqrt(variance))


def deflated_sharpe(returns: Series, *, trials: int, trial_variance: float) -> float:
    """Probability that the Sharpe ratio is above what the best of `trials` lucky ones would show.

    `trial_variance` is the variance of the trials' Sharpe ratios, per session, not annualised
    (Bailey & López de Prado 2014, The Deflated Sharpe Ratio).
    """
    if trials < 2:
        return probabilistic_sharpe(returns)
    normal = NormalDist()
    luck = (1.0 - EULER_GAMMA) * normal.inv_cdf(1.0 - 1.0 / trials)
    luck += EULER_GAMMA * normal.inv_cdf(1.0 - 1.0 / (trials * e))
    return probabilistic_sharpe(returns, benchmark=sqrt(trial_variance) * luck)


def chance_variance(sessions: int) -> float:
    """Variance that the Sharpe ratio of a trader without skill shows over so many sessions.

    Per session, of independent normal returns (Lo 2002); NaN below two sessions.
    """
    return 1.0 / (sessions - 1) if sessions > 1 else float("nan")


def _session_sharpe(returns: Series) -> float:
    if len(returns) < 2:
        return float("nan")
    deviation = float(np.std(returns, ddof=1))
    # Equal returns leave a deviation of rounding, which is no deviation.
    if deviation <= 1e-12 * float(np.max(np.abs(returns))):
        return float("nan")
    return float(np.mean(returns)) / deviation
