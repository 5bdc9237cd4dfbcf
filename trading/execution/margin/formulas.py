"""Margin of defined-risk positions whose legs share one expiry: what they can lose at most.

A position is charged its greatest loss at expiry (Cboe Rule 10.3(c)(5): spreads, condors and
butterflies at their maximum loss, long options and long stock in full, puts secured by cash, calls
covered by stock). Sold calls that neither bought calls nor stock cover have no greatest loss; what
they are charged is `uncovered_margin`; `trading.execution.margin.reg_t` says which applies.

A leg is a call (`right` +1), a put (-1) or stock (0, its strike is not read), which pays the spot
a share and counts in round lots of `multiplier` shares.

Cash holds the premium, and the *margin* of a position is what its legs may still cost at expiry:
buying power = cash - margin. So a debit spread takes no margin beyond the premium it paid, and the
margin of a credit spread is its width because the credit is already in the cash.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

UNCOVERED_RATE = 0.20
BROAD_INDEX_RATE = 0.15
UNCOVERED_FLOOR = 0.10

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I8 = NDArray[np.int8]


@njit(cache=True)
def _payoff(right: I8, strike: F64, ratio: I64, n_legs: int, spot: float) -> float:
    value = 0.0
    for leg in range(n_legs):
        paid = max(right[leg] * (spot - strike[leg]), 0.0)
        value += ratio[leg] * (spot if right[leg] == 0 else paid)
    return value


@njit(cache=True)
def payoff_range(right: I8, strike: F64, ratio: I64, n_legs: int) -> tuple[float, float]:
    """Least and greatest value of one unit at expiry, USD a share, over every underlying price.

    The payoff is piecewise linear, so its extremes lie at a price of zero, at a strike, or, where
    calls and stock do not add up to nothing, at infinity: -inf or inf. A strike that is not a
    positive finite number gives both, so that a bad input never looks safe.
    """
    slope = 0
    for leg in range(n_legs):
        if right[leg] != 0 and not (np.isfinite(strike[leg]) and strike[leg] > 0.0):
            return -np.inf, np.inf
        if right[leg] >= 0:
            slope += ratio[leg]
    worst = best = float(_payoff(right, strike, ratio, n_legs, 0.0))
    for leg in range(n_legs):
        if right[leg] != 0:
            value = _payoff(right, strike, ratio, n_legs, strike[leg])
            worst = min(worst, value)
            best = max(best, value)
    return (-np.inf if slope < 0 else worst), (np.inf if slope > 0 else best)


@njit(cache=True)
def worst_payoff(right: I8, strike: F64, ratio: I64, n_legs: int) -> float:
    """Least value of one unit at expiry in USD a share, see `payoff_range`."""
    return float(payoff_range(right, strike, ratio, n_legs)[0])


@njit(cache=True)
def payoff_margin(right: I8, strike: F64, ratio: I64, n_legs: int, multiplier: float) -> float:
    """Margin of one unit by its worst payoff, USD >= 0; inf when there is none."""
    return float(max(0.0, -worst_payoff(right, strike, ratio, n_legs)) * multiplier)


@njit(cache=True)
def buying_power_effect(
    net_debit_per_share: float,
    margin_change_usd: float,
    units: int,
    multiplier: float,
    fees: float,
) -> float:
    """Buying power that a trade consumes in USD; negative when it frees buying power.

    `margin_change_usd` is the change of the margin a unit: `payoff_margin` when opening, its
    negative when closing. A trade is affordable when this is at most cash - margin.
    """
    return (net_debit_per_share * multiplier + margin_change_usd) * units + fees


@njit(cache=True)
def held_per_unit(effect: float, units: int) -> float:
    """Buying power that each of `units` waiting units holds, USD, rounded up to the cent.

    `effect` is what all of them take, see `buying_power_effect`; what frees some holds nothing.
    What is not finite passes through.
    """
    each = effect / units
    if not np.isfinite(each):
        return each
    return float(max(0.0, np.ceil(100.0 * each - 1e-6) / 100.0))


@njit(cache=True)
def uncovered_margin(right: int, strike: float, spot: float, mark: float, broad: bool) -> float:
    """Margin of one sold option without cover in USD a share, its value included; NaN in, NaN out.

    Cboe Rule 10.3(c)(5)(A), FINRA Rule 4210(f)(2)(D): the option's value and 20 % of the spot (15 %
    for a broad index) less the amount out of the money, at least 10 % of the spot for a call or of
    the strike for a put.

    Parameters
    ----------
    right : int
        +1 call, -1 put.
    mark : float
        Value of the option, USD a share.
    broad : bool
        Whether the underlying is a broad index.
    """
    if not (np.isfinite(strike) and np.isfinite(spot) and np.isfinite(mark)):
        return np.nan
    out_of_the_money = max(right * (strike - spot), 0.0)
    rate = BROAD_INDEX_RATE if broad else UNCOVERED_RATE
    floor = UNCOVERED_FLOOR * (spot if right > 0 else strike)
    return float(mark + max(rate * spot - out_of_the_money, floor))
