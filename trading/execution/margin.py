"""Margin of defined-risk option positions whose legs share one expiry.

A position is charged its greatest loss at expiry (Cboe Rule 10.3(c)(5): spreads, condors and
butterflies at their maximum loss, long options in full, puts secured by cash). Sold calls that no
bought calls cover have no greatest loss and are refused.

Cash holds the premium, and the *reserve* of a position is what its legs may still cost at expiry:
buying power = cash - reserves. So a debit spread reserves nothing beyond the premium it paid, and
a credit spread reserves its width because the credit is already in the cash.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I8 = NDArray[np.int8]


@njit(cache=True)
def _payoff(right: I8, strike: F64, ratio: I64, n_legs: int, spot: float) -> float:
    value = 0.0
    for leg in range(n_legs):
        if right[leg] == 0:
            value += ratio[leg] * spot
        else:
            value += ratio[leg] * max(right[leg] * (spot - strike[leg]), 0.0)
    return value


@njit(cache=True)
def payoff_range(right: I8, strike: F64, ratio: I64, n_legs: int) -> tuple[float, float]:
    """Least and greatest value of one unit at expiry, USD a share, over every underlying price.

    The payoff is piecewise linear, so its extremes lie at a price of zero, at a strike, or, where
    calls and stock do not add up to nothing, at infinity: (-inf, ...) or (..., inf). The least is
    -inf also when a strike is not a positive finite number, so that a bad input never looks safe.
    """
    slope = 0
    for leg in range(n_legs):
        if right[leg] != 0 and not (np.isfinite(strike[leg]) and strike[leg] > 0.0):
            return -np.inf, np.inf
        if right[leg] >= 0:
            slope += ratio[leg]
    worst = best = float(_payoff(right, strike, ratio, n_legs, 0.0))
    for leg in range(n_legs):
        value = _payoff(right, strike, ratio, n_legs, strike[leg])
        worst = min(worst, value)
        best = max(best, value)
    return (-np.inf if slope < 0 else worst), (np.inf if slope > 0 else best)


@njit(cache=True)
def worst_payoff(right: I8, strike: F64, ratio: I64, n_legs: int) -> float:
    """Least value of one unit at expiry in USD a share, see `payoff_range`."""
    return float(payoff_range(right, strike, ratio, n_legs)[0])


@njit(cache=True)
def reserve_per_unit(right: I8, strike: F64, ratio: I64, n_legs: int, multiplier: float) -> float:
    """Cash that one open unit keeps reserved until it is closed, USD >= 0; inf when undefined."""
    return float(max(0.0, -worst_payoff(right, strike, ratio, n_legs)) * multiplier)


@njit(cache=True)
def max_loss_per_unit(
    right: I8,
    strike: F64,
    ratio: I64,
    n_legs: int,
    net_debit_per_share: float,
    multiplier: float,
) -> float:
    """Greatest loss of one unit at expiry before fees, USD >= 0; inf when undefined.

    Parameters
    ----------
    right, strike, ratio : i8[L], f64[L], i64[L]
        +1 call or -1 put; USD; signed contracts a unit. The first `n_legs` count.
    net_debit_per_share : float
        Net premium paid (a credit is negative), USD a share; NaN gives inf.
    multiplier : float
        Shares a contract delivers.
    """
    if np.isnan(net_debit_per_share):
        return np.inf
    loss = net_debit_per_share - worst_payoff(right, strike, ratio, n_legs)
    return float(max(0.0, loss) * multiplier)


@njit(cache=True)
def required_cash(
    net_debit_per_share: float,
    reserve_change_usd: float,
    units: int,
    multiplier: float,
    fees: float,
) -> float:
    """Buying power that a trade consumes in USD; negative when it frees buying power.

    `reserve_change_usd` is the change of the reserve a unit: `reserve_per_unit` when opening, its
    negative when closing. A trade is affordable when this is at most cash - reserves.
    """
    return (net_debit_per_share * multiplier + reserve_change_usd) * units + fees
