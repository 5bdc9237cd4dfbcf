"""Implied volatility of many quotes at once, in loops that compile to vector instructions.

The same equation as in `trading.market.pricing`, with the same first guess and steps, but a fixed
number of them for all. What has not settled by then is left to `implied_volatility`, so the answers
are its answers, to about 1e-10: `tests/market/test_chain_refresh.py` ties the two.
"""

from math import erfc, exp, pi, sqrt

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.market.fair_value import fast_log
from trading.market.pricing import inverse_normal_model

F64 = NDArray[np.float64]

_STEPS = 3
_SETTLED = 1e-5
_DENSITY_AT_0 = 1.0 / sqrt(2.0 * pi)
_SQRT_2PI = sqrt(2.0 * pi)
_POINTS_PER_UNIT = 32.0
_LOWEST, _HIGHEST = -6.0, 10.0
_MILLS = np.array(
    [
        0.5 * erfc(y * sqrt(0.5)) * exp(0.5 * y * y)
        for y in np.arange(_LOWEST, _HIGHEST + 1.0 / 64.0, 1.0 / _POINTS_PER_UNIT).tolist()
    ]
)


@njit(cache=True, error_model="numpy")
def _mills(y: float) -> float:
    """Upper normal tail over exp(-y^2 / 2), to 1e-12 of itself; constant outside of -6 to 10.

    Five terms of the Taylor series around the nearest tabulated point; the derivatives follow from
    R' = y R - 1 / sqrt(2 pi).
    """
    y = min(max(y, _LOWEST), _HIGHEST)
    point = np.int64((y - _LOWEST) * _POINTS_PER_UNIT + 0.5)
    c = point / _POINTS_PER_UNIT + _LOWEST
    d = y - c
    r0 = _MILLS[point]
    r1 = c * r0 - _DENSITY_AT_0
    r2 = r0 + c * r1
    r3 = 2.0 * r1 + c * r2
    r4 = 3.0 * r2 + c * r3
    r5 = 4.0 * r3 + c * r4
    series = r3 / 6.0 + d * (r4 / 24.0 + d * (r5 / 120.0))
    return float(r0 + d * (r1 + d * (0.5 * r2 + d * series)))


@njit(cache=True, error_model="numpy")
def _guess(x: F64, target: F64, s: F64) -> None:
    """First guesses, as `pricing` makes them."""
    for j in range(len(x)):
        away = max(-x[j], 1e-7 * target[j])
        s[j] = inverse_normal_model(away, fast_log(1.0 + 0.4 * away / target[j]))


@njit(cache=True, error_model="numpy")
def _improve(x: F64, log_target: F64, s: F64, step: F64) -> None:
    """One step of Halley's method on the logarithm of the price.

    With h = x / s and m = s / 2 the price is exp(-(h^2 + m^2) / 2) times a difference of Mills
    ratios, whose logarithm needs no exponential and loses nothing in the tails.
    """
    for j in range(len(x)):
        h = x[j] / s[j]
        m = 0.5 * s[j]
        ratio = _mills(-h - m) - _mills(-h + m)
        per_slope = _SQRT_2PI * ratio
        miss = fast_log(max(ratio, 1e-300)) - 0.5 * (h * h + m * m) - log_target[j]
        curvature = (h * h / s[j] - 0.25 * s[j]) * per_slope - 1.0
        step[j] = miss * per_slope / max(1.0 + 0.5 * miss * curvature, 0.5)
        s[j] = max(s[j] - step[j], 0.2 * s[j])


@njit(cache=True, error_model="numpy")
def total_deviations(x: F64, target: F64, s: F64) -> None:
    """Solve exp(x/2) N(x/s + s/2) - exp(-x/2) N(x/s - s/2) = target for s; NaN if not settled.

    Parameters
    ----------
    x : [n], minus the distance of forward and strike in logarithms, <= 0
    target : [n], time value over the root of forward times strike, > 0
    s : [n], overwritten with the volatility times the root of time
    """
    work = np.empty((2, len(x)))
    log_target, step = work[0], work[1]
    for j in range(len(x)):
        log_target[j] = fast_log(target[j])
    _guess(x, target, s)
    for _ in range(_STEPS):
        _improve(x, log_target, s, step)
    for j in range(len(x)):
        inside = -x[j] / s[j] + 0.5 * s[j] < _HIGHEST and -x[j] / s[j] - 0.5 * s[j] > _LOWEST
        if not (abs(step[j]) <= _SETTLED * s[j] and inside):
            s[j] = np.nan
