"""What a series of sessions says about a trader: pure functions of arrays, one entry a session.

Returns are fractions of the initial capital and are summed, never compounded: every session is an
episode of its own that begins with the initial capital.
"""

from collections.abc import Callable
from math import e, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]

SESSIONS_PER_YEAR = 252
EULER_GAMMA = 0.5772156649015329


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


def bootstrap_interval(
    returns: Series,
    statistic: Callable[[Series], float],
    *,
    generator: np.random.Generator,
    confidence: float = 0.95,
    mean_block: float = 5.0,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Percentile interval of a statistic by the stationary bootstrap (Politis & Romano 1994).

    Blocks of sessions begin anywhere, wrap around the end, and have geometric lengths of mean
    `mean_block`. Resamples without a value are left out; (NaN, NaN) when none has one or there
    are fewer than two sessions.
    """
    n = len(returns)
    if n < 2:
        return float("nan"), float("nan")
    values = np.empty(resamples)
    for i in range(resamples):
        begins = generator.random(n) < 1.0 / mean_block
        begins[0] = True
        starts = np.flatnonzero(begins)
        block = np.cumsum(begins) - 1
        first = generator.integers(0, n, len(starts))
        values[i] = statistic(returns[(first[block] + np.arange(n) - starts[block]) % n])
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(values, (tail, 1.0 - tail))
    return float(low), float(high)


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
