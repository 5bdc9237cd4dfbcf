"""European option prices, greeks and implied volatility.

Scalar kernels, compiled by numba without fast-math so that batch and live code get the same bits.
Everywhere `right` is +1 for a call and -1 for a put, prices are USD per share, `t` is in years of
365 days, and `discount` is the price today of one dollar at expiry.

Sources: F. Black, "The pricing of commodity contracts", J. Financial Economics 3 (1976), 167-179;
J. Hull, "Options, Futures, and Other Derivatives", chapters 15, 18 and 19.
"""

from enum import IntEnum
from math import erfc, exp, inf, isfinite, log, log1p, nan, pi, sqrt

from numba import njit

YEAR_NS = 365 * 24 * 3600 * 1_000_000_000
"""Nanoseconds in the 365-day year that `t` counts."""

_SQRT_HALF = sqrt(0.5)
_SQRT_2PI = sqrt(2.0 * pi)
_MAX_DEVIATION = 20.0
_MAX_ITERATIONS = 64
_LAST_STEP = 1e-6


class IvReason(IntEnum):
    """Why an implied volatility is, or is not, a number."""

    OK = 0
    NO_PRICE = 1
    """The price is absent, or an input is no positive finite number."""
    BELOW_INTRINSIC = 2
    """The price is below the discounted intrinsic value of the forward."""
    ABOVE_MAXIMUM = 3
    """A call is worth the discounted forward or more, or a put the discounted strike or more."""
    NO_TIME = 4
    """The contract has expired."""
    TIME_VALUE_TOO_SMALL = 5
    """The time value does not exceed the smallest one that still carries information."""
    NOT_CONVERGED = 6
    """The volatility lies outside what double precision can resolve."""


_OK = int(IvReason.OK)
_NO_PRICE = int(IvReason.NO_PRICE)
_BELOW_INTRINSIC = int(IvReason.BELOW_INTRINSIC)
_ABOVE_MAXIMUM = int(IvReason.ABOVE_MAXIMUM)
_NO_TIME = int(IvReason.NO_TIME)
_TIME_VALUE_TOO_SMALL = int(IvReason.TIME_VALUE_TOO_SMALL)
_NOT_CONVERGED = int(IvReason.NOT_CONVERGED)


@njit(cache=True, error_model="numpy")
def _normal_cdf(x: float) -> float:
    # `fair_value.normal_cdf` is a faster one, for simulated quotes alone.
    return 0.5 * erfc(-x * _SQRT_HALF)


@njit(cache=True, error_model="numpy")
def _normal_pdf(x: float) -> float:
    return exp(-0.5 * x * x) / _SQRT_2PI


@njit(cache=True, error_model="numpy")
def black_price(
    right: int, forward: float, strike: float, t: float, discount: float, iv: float
) -> float:
    """Price of a European option on a forward (Black 1976), USD per share.

    Without time or volatility left it is the discounted intrinsic value.
    """
    deviation = iv * sqrt(max(t, 0.0))
    if deviation <= 0.0:
        return discount * max(right * (forward - strike), 0.0)
    d1 = log(forward / strike) / deviation + 0.5 * deviation
    d2 = d1 - deviation
    forward_probability: float = _normal_cdf(right * d1)
    strike_probability: float = _normal_cdf(right * d2)
    return discount * right * (forward * forward_probability - strike * strike_probability)


@njit(cache=True, error_model="numpy")
def bsm_price(
    right: int, spot: float, strike: float, t: float, rate: float, div: float, iv: float
) -> float:
    """Black-Scholes-Merton price, USD per share (Hull, chapter 17).

    `rate` and the dividend yield `div` are per year, continuously compounded.
    """
    forward = spot * exp((rate - div) * t)
    return float(black_price(right, forward, strike, t, exp(-rate * t), iv))


@njit(cache=True, error_model="numpy")
def greeks(
    right: int,
    forward: float,
    spot: float,
    strike: float,
    t: float,
    discount: float,
    iv: float,
) -> tuple[float, float, float, float]:
    """Sensitivities of one European option of one share: (delta, gamma, vega, theta).

    The forward is taken to move in proportion to the spot. Interest and carry rates are those that
    `discount` and `forward / spot` imply. Source: Hull, chapter 19.

    Returns
    -------
    delta : USD per dollar of spot
    gamma : delta per dollar of spot
    vega : USD per 1.00 of volatility (100 volatility points)
    theta : USD per year of 365 days that passes, negative for most long options

    Without time or volatility left, delta is that of the intrinsic value and the rest are zero.
    """
    deviation = iv * sqrt(max(t, 0.0))
    if deviation <= 0.0:
        in_the_money = right * (forward - strike) > 0.0
        return (right * discount * forward / spot if in_the_money else 0.0), 0.0, 0.0, 0.0
    growth = forward / spot
    rate = -log(discount) / t
    carry = log(growth) / t
    d1 = log(forward / strike) / deviation + 0.5 * deviation
    forward_probability = _normal_cdf(right * d1)
    strike_probability = _normal_cdf(right * (d1 - deviation))
    forward_density = discount * forward * _normal_pdf(d1)
    price = discount * right * (forward * forward_probability - strike * strike_probability)
    delta = right * discount * growth * forward_probability
    gamma = forward_density / (spot * spot * deviation)
    vega = forward_density * sqrt(t)
    theta = rate * price - carry * spot * delta - 0.5 * forward_density * deviation / t
    return delta, gamma, vega, theta


@njit(cache=True, error_model="numpy")
def inverse_normal_model(away: float, scale: float) -> float:
    """Total deviation at which the normal (Bachelier) model has a price.

    `away` is the distance from the money in logarithms, and `scale` log(1 + 0.4 away / price). The
    price in units of `away` depends on u = away / s alone. Its inverse is replaced by a polynomial
    fitted to within 0.1% for u up to 10, which is all that a starting point needs.
    """
    w = 1.0 / sqrt(1.0 + scale)
    fit = 16.94719902 + w * (-14.15364091 + w * 4.38902191)
    fit = 1.37244584 + w * (0.52125154 + w * (-8.07863677 + w * fit))
    return away / (scale * w * fit)


@njit(cache=True, error_model="numpy")
def _first_guess(x: float, target: float) -> float:
    """Return where the search for a total deviation begins."""
    if -x <= 1e-9 * target:
        return target * _SQRT_2PI
    return float(inverse_normal_model(-x, log1p(-0.4 * x / target)))


@njit(cache=True, error_model="numpy")
def _total_deviation(x: float, target: float) -> float:
    """Solve for s in exp(x/2) N(x/s + s/2) - exp(-x/2) N(x/s - s/2) = target, x <= 0.

    Halley's method on the logarithm of the price, kept inside a bracket that every evaluation
    narrows; a step that leaves the bracket halves it instead. Convergence is cubic, so a step
    below one millionth is the last. NaN when it does not settle.
    The logarithm is concave in s, where Newton on the price itself overshoots for far strikes
    (P. Jaeckel, "Let's be rational", Wilmott 2015).
    """
    root = exp(0.5 * x)
    low, high = 0.0, _MAX_DEVIATION
    s: float = min(_first_guess(x, target), 0.5 * _MAX_DEVIATION)
    for _ in range(_MAX_ITERATIONS):
        h = x / s
        half = 0.5 * s
        price = root * _normal_cdf(h + half) - _normal_cdf(h - half) / root
        step = inf
        if price > 0.0:
            per_slope = price * _SQRT_2PI * exp(0.5 * (h * h + half * half))
            miss = log(price / target)
            if miss > 0.0:
                high = s
            else:
                low = s
            curvature = (h * h / s - 0.25 * s) * per_slope - 1.0
            step = miss * per_slope / max(1.0 + 0.5 * miss * curvature, 0.5)
        else:
            low = s
        following = s - step
        if not low <= following <= high:
            following = 0.5 * (low + high)
        if abs(following - s) <= _LAST_STEP * s:
            return following
        s = following
    return nan


@njit(cache=True, error_model="numpy")
def refusal(
    price: float,
    right: int,
    forward: float,
    strike: float,
    t: float,
    discount: float,
    min_time_value: float,
) -> int:
    """Return why a price has no volatility, an `IvReason`, or OK; see `implied_volatility`."""
    reason = _OK
    quoted = 0.0 < price < inf and 0.0 < forward < inf and 0.0 < strike < inf
    if not (quoted and 0.0 < discount < inf and isfinite(t)):
        reason = _NO_PRICE
    elif t <= 0.0:
        reason = _NO_TIME
    elif price / discount >= (forward if right > 0 else strike):
        reason = _ABOVE_MAXIMUM
    else:
        time_value = price / discount - max(right * (forward - strike), 0.0)
        if time_value < 0.0:
            reason = _BELOW_INTRINSIC
        elif time_value == 0.0 or time_value * discount <= min_time_value:
            reason = _TIME_VALUE_TOO_SMALL
    return reason


@njit(cache=True, error_model="numpy")
def implied_volatility(
    price: float,
    right: int,
    forward: float,
    strike: float,
    t: float,
    discount: float,
    min_time_value: float,
) -> tuple[float, int]:
    """Return the volatility at which `black_price` gives `price`, and an `IvReason`.

    The out-of-the-money option of the same strike is inverted, which put-call parity prices from
    the time value alone.

    Parameters
    ----------
    price : USD per share
    min_time_value : time values (USD per share) up to this one are not inverted

    Returns
    -------
    iv : per square root of year, NaN unless the reason is OK
    reason : IvReason
    """
    reason = refusal(price, right, forward, strike, t, discount, min_time_value)
    if reason != _OK:
        return nan, reason
    time_value = price / discount - max(right * (forward - strike), 0.0)
    x = -abs(log(forward / strike))
    deviation = _total_deviation(x, time_value / sqrt(forward * strike))
    if not deviation > 0.0:
        return nan, _NOT_CONVERGED
    return deviation / sqrt(t), _OK
