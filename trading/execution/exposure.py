"""What an account's value does when the market moves, and how much more of it a limit allows."""

from typing import NamedTuple

import numpy as np
from numba import njit


class Greeks(NamedTuple):
    """Sensitivities of a position in USD, so that underlyings of any price add up.

    `delta` is the value of the stock it moves like (shares x delta x spot), `gamma` the change of
    `delta` when the spot moves by 1 % (shares x gamma x spot^2 x 0.01), `vega` the change of value
    a volatility point (shares x vega x 0.01). NaN says that one is not known.
    """

    delta: float
    gamma: float
    vega: float


FLAT = Greeks(0.0, 0.0, 0.0)


@njit(cache=True)
def usd_greeks(delta: float, gamma: float, vega: float, spot: float) -> tuple[float, float, float]:
    """Sensitivities in USD of a share's delta, gamma and vega, in the units of `Greeks`.

    `vega` is a unit of volatility's (100 points). What stands for more than a share may come
    multiplied, or multiply what returns.
    """
    return delta * spot, gamma * spot * spot * 0.01, vega * 0.01


@njit(cache=True)
def loss_floor(base: float, fraction: float) -> float:
    """USD below which a loss from `base` is more than a fraction of it, also of a negative base.

    The one rule of the daily loss and of the drawdown, of broker and training alike.
    """
    return base - abs(base) * fraction


@njit(cache=True)
def headroom(limit: float, current: float, unit: float) -> float:
    """Return how many units keep |current + units x unit| at most `limit`; whole units, or inf.

    Beyond the limit only units that lead back count, and only as many as do not pass the limit on
    the other side. 0 when anything is not a number.
    """
    if np.isnan(limit) or limit < 0.0 or not (np.isfinite(current) and np.isfinite(unit)):
        return 0.0
    if unit == 0.0:
        return np.inf if abs(current) <= limit else 0.0
    room = limit - current if unit > 0.0 else limit + current
    return float(max(0.0, np.floor(room / abs(unit))))
