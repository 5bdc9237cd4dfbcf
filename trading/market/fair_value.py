"""What simulated contracts are worth, at a fraction of the usual cost.

The live market prices with `trading.market.pricing`; the simulator's fair values are only seen
through quotes that are rounded to ticks, so here a table stands in for the error function. The
loops are short, write one column each and have no branches, so that the compiler turns them into
vector instructions; calls and puts of one strike share its volatility and its probabilities.
"""

from math import erfc, exp, log, pi, sqrt

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.market.model import MarketModel
from trading.market.pricing import YEAR_NS
from trading.market.surface import event_iv, smile_iv, term_iv, variance_years

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I8 = NDArray[np.int8]

_REACH = 8.0
_POINTS_PER_UNIT = 32.0
_POINTS = (np.arange(int(_REACH * _POINTS_PER_UNIT) + 1) / _POINTS_PER_UNIT).tolist()
_UPPER_TAIL = np.array([0.5 * erfc(x * sqrt(0.5)) for x in _POINTS])
_DENSITY = np.array([exp(-0.5 * x * x) / sqrt(2.0 * pi) for x in _POINTS])
_MIN_DEVIATION = 1e-9
_MANTISSA_BITS = 52
_ROOT_HALF_BITS = int(np.float64(sqrt(0.5)).view(np.int64))
_LOG_2 = log(2.0)
_PER_LOG_2 = 1.0 / log(2.0)
_LOG_2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
_LOG_2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_TO_WHOLE = 1.5 * 2.0**52
"""Added to a number, it leaves the nearest whole one in the lowest bits."""
_EXPONENT_BIAS = 1023
_LEAST_EXPONENT, _MOST_EXPONENT = -708.0, 708.0
_SIXTH = 1.0 / 6.0
_LANES = 4


@njit(cache=True, error_model="numpy")
def normal_cdf(x: float) -> float:
    """Return standard normal distribution function, to within 1e-10.

    `trading.market.pricing` has the exact one; `tests/market/test_fair_value.py` ties the two.
    Four terms of the Taylor series around the nearest of 513 tabulated points.
    """
    size = min(abs(x), _REACH)
    point = np.int64(size * _POINTS_PER_UNIT + 0.5)
    c = point / _POINTS_PER_UNIT
    d = size - c
    curve = c * c - 1.0 + 0.25 * d * c * (3.0 - c * c)
    series = d * (1.0 + d * (-0.5 * c + d * (_SIXTH * curve)))
    tail = _UPPER_TAIL[point] - _DENSITY[point] * series
    return float(1.0 - tail if x > 0.0 else tail)


@njit(cache=True, error_model="numpy")
def fast_log(x: float) -> float:
    """Natural logarithm of a positive normal number, to within 1e-11.

    The exponent's share, and the inverse hyperbolic tangent's series for the mantissa.
    """
    bits = np.float64(x).view(np.int64)
    exponent = (bits - _ROOT_HALF_BITS) >> _MANTISSA_BITS
    mantissa = np.int64(bits - (exponent << _MANTISSA_BITS)).view(np.float64)
    y = (mantissa - 1.0) / (mantissa + 1.0)
    z = y * y
    series = 1.0 / 7.0 + z * (1.0 / 9.0 + z * (1.0 / 11.0 + z * (1.0 / 13.0)))
    series = 1.0 + z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * series))
    return float(exponent * _LOG_2 + 2.0 * y * series)


@njit(cache=True, error_model="numpy")
def fast_exp(x: float) -> float:
    """Exponential of x from -708 to 708, and that of the nearer end beyond, to 1e-12 of itself.

    The whole powers of two, and ten terms of the series for what is left.
    """
    x = min(max(x, _LEAST_EXPONENT), _MOST_EXPONENT)
    shifted = x * _PER_LOG_2 + _TO_WHOLE
    whole = shifted - _TO_WHOLE
    r = (x - whole * _LOG_2_HIGH) - whole * _LOG_2_LOW
    series = 1.0 / 40320.0 + r * (1.0 / 362880.0 + r * (1.0 / 3628800.0))
    series = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0 + r * series))
    series = 1.0 + r * (1.0 + r * (0.5 + r * (_SIXTH + r * (1.0 / 24.0 + r * series))))
    bits = np.float64(shifted).view(np.int64) + _EXPONENT_BIAS
    return float(series * np.int64(bits << _MANTISSA_BITS).view(np.float64))


@njit(cache=True, error_model="numpy")
def _in_pairs(strike: F64) -> bool:
    """Return whether contracts 0 and 1, 2 and 3, and so on share their strikes."""
    odd = len(strike) % 2
    for j in range(len(strike) // 2):
        odd += strike[2 * j] != strike[2 * j + 1]
    return odd == 0


@njit(cache=True, error_model="numpy")
def _time_values(
    model: MarketModel,
    forward: float,
    t: float,
    term: float,
    skew: float,
    strike: F64,
    value: F64,
    distance: F64,
) -> None:
    """Undiscounted price of the out-of-the-money option at each strike."""
    per_forward = 1.0 / forward
    for j in range(len(strike)):
        level = strike[j]
        log_moneyness = fast_log(level * per_forward)
        deviation = max(smile_iv(model, log_moneyness, t, term, skew) * sqrt(t), _MIN_DEVIATION)
        away = log_moneyness / deviation
        side = 1.0 if level >= forward else -1.0
        d1 = side * (0.5 * deviation - away)
        d2 = d1 - side * deviation
        payoff = side * (forward * normal_cdf(d1) - level * normal_cdf(d2))
        value[j] = max(payoff, 0.0)
        distance[j] = away


@njit(cache=True, error_model="numpy")
def _double(values: F64, doubled: F64) -> None:
    """Give each of the first values to two neighbours."""
    for j in range(len(doubled) // 2):
        doubled[2 * j] = values[j]
        doubled[2 * j + 1] = values[j]


@njit(cache=True, error_model="numpy")
def _price_expiry(
    model: MarketModel,
    forward: float,
    discount: float,
    t: float,
    term: float,
    skew: float,
    strike: F64,
    right: I8,
    fair: F64,
    distance: F64,
) -> None:
    """Price the contracts of one expiry: what is in the money by put-call parity."""
    n = len(strike)
    if _in_pairs(strike):
        # Odd ends are slow: the last strike is repeated until the levels fill whole vectors.
        m = -(-n // (2 * _LANES)) * _LANES
        work = np.empty((3, m))
        level, value, away = work[0], work[1], work[2]
        for j in range(n // 2):
            level[j] = strike[2 * j]
        level[n // 2 :] = strike[n - 1]
        _time_values(model, forward, t, term, skew, level, value, away)
        _double(value, fair)
        _double(away, distance)
    else:
        _time_values(model, forward, t, term, skew, strike, fair, distance)
    for i in range(n):
        intrinsic = max(right[i] * (forward - strike[i]), 0.0)
        fair[i] = discount * (fair[i] + intrinsic)


@njit(cache=True, error_model="numpy")
def fair_values(
    model: MarketModel,
    spot: float,
    atm_iv: float,
    skew: float,
    now_ns: int,
    strike: F64,
    expiry_ns: I64,
    right: I8,
    fair: F64,
    distance: F64,
) -> None:
    """Black prices on the surface in variance time, USD per share, within 1e-9 of the forward.

    Parameters
    ----------
    strike, expiry_ns, right : [N], the contracts; fastest when those of an expiry lie together,
        and in pairs of one strike
    fair : [N], overwritten; after an expiry the intrinsic value
    distance : [N], overwritten; log of strike over forward in standard deviations of the log price
        at expiry
    """
    n = len(strike)
    first = 0
    while first < n:
        expiry = expiry_ns[first]
        last = first + 1
        while last < n and expiry_ns[last] == expiry:
            last += 1
        discount = exp(-model.rate * max(expiry - now_ns, 0) / YEAR_NS)
        t = variance_years(model, now_ns, expiry)
        term = event_iv(model, now_ns, expiry, t, term_iv(model, t, atm_iv))
        _price_expiry(
            model, spot / discount, discount, t, term, skew, strike[first:last],
            right[first:last], fair[first:last], distance[first:last],
        )  # fmt: skip
        first = last
