"""Figures of an account's days in a row: pure functions of arrays, one entry a session.

Unlike the sessions of a backtest, each day goes on from the one before: returns are fractions of
the equity that the day began with, and are compounded.
"""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np

from trading.evaluation.return_statistics import SESSIONS_PER_YEAR, Series, sharpe

WINDOW = 21
"""Sessions of a rolling figure: about a month."""
FEWEST = 5
"""Sessions below which an annualised figure would say nothing."""
TAIL = 0.05
"""Share of the worst sessions that value at risk and expected shortfall look at."""


class Drawdown(NamedTuple):
    """A fall from a peak of the compounded returns; places are indices of sessions."""

    begins: int
    """The first session below the peak."""
    lowest: int
    recovers: int | None
    """The session that is back at the peak; None: not yet."""
    depth: float
    """Fraction of the peak, >= 0."""


def compounded(returns: Series) -> Series:
    """Growth of one dollar after each session."""
    return np.cumprod(1.0 + returns).astype(np.float64)


def volatility(returns: Series) -> float:
    """Annualised standard deviation (of a sample); NaN below two sessions."""
    if len(returns) < 2:
        return float("nan")
    return sqrt(SESSIONS_PER_YEAR) * float(np.std(returns, ddof=1))


def value_at_risk(returns: Series, tail: float = TAIL) -> float:
    """Loss that a share `tail` of the sessions reached or passed, as a fraction; historical.

    NaN below 1 / `tail` sessions, which say nothing of such a tail.
    """
    if len(returns) * tail < 1.0:
        return float("nan")
    return float(-np.quantile(returns, tail, method="lower"))


def expected_shortfall(returns: Series, tail: float = TAIL) -> float:
    """Mean loss of the sessions at or beyond the value at risk (CVaR), as a fraction."""
    at_risk = value_at_risk(returns, tail)
    return float(-np.mean(returns[returns <= -at_risk])) if np.isfinite(at_risk) else at_risk


def drawdown_curve(returns: Series) -> Series:
    """Fraction below the highest so far after each session, <= 0."""
    growth = compounded(returns)
    return growth / np.maximum.accumulate(np.maximum(growth, 1.0)) - 1.0


def drawdowns(returns: Series, most: int = 5) -> list[Drawdown]:
    """Return the worst drawdowns, the deepest first."""
    below = drawdown_curve(returns)
    found, begins = [], None
    for place, fall in enumerate([*below, 0.0]):
        if fall < 0.0 and begins is None:
            begins = place
        elif fall >= 0.0 and begins is not None:
            lowest = begins + int(np.argmin(below[begins:place]))
            recovers = place if place < len(below) else None
            found.append(Drawdown(begins, lowest, recovers, float(-below[lowest])))
            begins = None
    return sorted(found, key=lambda each: -each.depth)[:most]


def rolling(returns: Series, window: int = WINDOW) -> tuple[Series, Series]:
    """Annualised Sharpe ratio and volatility of the last `window` sessions; NaN before them."""
    ratio, spread = np.full(len(returns), np.nan), np.full(len(returns), np.nan)
    for end in range(window, len(returns) + 1):
        seen = returns[end - window : end]
        ratio[end - 1], spread[end - 1] = sharpe(seen), volatility(seen)
    return ratio, spread


def by_month(dates: Sequence[str], returns: Series) -> dict[int, dict[int, float]]:
    """Compounded return of each month, by year and month; dates are YYYY-MM-DD."""
    months: dict[int, dict[int, float]] = {}
    for day, gain in zip(dates, returns, strict=True):
        year, month = int(day[:4]), int(day[5:7])
        known = months.setdefault(year, {}).get(month, 0.0)
        months[year][month] = (1.0 + known) * (1.0 + float(gain)) - 1.0
    return months
