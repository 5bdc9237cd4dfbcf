"""What a bar earns: the change of profit, less what its risk weighs.

With R the change of an underlying's profit since the last mark over the initial capital,

    reward = reward_scale * (R - risk_aversion * risk(R))
    risk(R) = R^2 / 2           for the variance
    risk(R) = min(R, 0)^2       for the downside
    risk(R) = max(0, max(D, 0) - max(D + R, 0))     for the drawdown

Summed over the bars of a stretch of time, the first is half of its realised variance, so that
`risk_aversion` is the coefficient of mean-variance utility (Markowitz 1952; 1 is about that of the
logarithm of wealth, Kelly 1956) whatever the bar. The second is the semivariance below zero, the
same on average where gains and losses are symmetric.

For the third, D is how far the account's equity lies below its peak at the bar's close, over the
initial capital, and so D + R how far it would without what the bar brought: the risk is by how much
the bar deepened the drawdown. The peak is the one that the limit on drawdowns counts from, the
highest of the initial cash and the equities at the sessions' closes since the last reset. It is in
the journal, so that a live account knows D at any bar, after a restart too.

A rule of a user's own, see `trading.plugins`, makes something else of that.
"""

from enum import IntEnum
from typing import NamedTuple, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.market.chain import F64, I64


class BarEarnings(NamedTuple):
    """What one bar brought one account in one underlying, for a reward of one's own."""

    change: float
    """Change of the underlying's profit since its last reward, marked to mid, with spread and fees
    paid: a fraction of the initial capital."""
    reward: float
    """What the reward of the settings makes of it: scale and aversion to risk applied."""
    equity: float
    """Of the whole account at the bar's close, USD."""
    capital: float
    """What the account began with, and what was paid in since, USD."""
    observation: NDArray[np.float32]
    """[F]: what is seen at the bar's close, after the action of its beginning."""


class RewardRule(Protocol):
    """A reward of a user's own, the same one live and in training."""

    def pay(
        self,
        changes: F64,
        equity: F64,
        capital: float,
        observations: NDArray[np.float32],
        which: I64,
        limit: float,
        rewards: F64,
    ) -> None:
        """Turn `rewards` [B] of accounts `which` into its own, no larger than `limit`.

        The others are as in `BarEarnings`, [B] each.
        """
        ...


class RiskMeasure(IntEnum):
    """What of a bar's change counts as risk."""

    VARIANCE = 0
    DOWNSIDE = 1
    DRAWDOWN = 2


_DOWNSIDE = int(RiskMeasure.DOWNSIDE)
_DRAWDOWN = int(RiskMeasure.DRAWDOWN)


@njit(cache=True, error_model="numpy")
def reward_of(change: float, below: float, scale: float, aversion: float, measure: int) -> float:
    """Reward of a change of profit over the initial capital; one rule for live and training.

    `below` is what the account's equity then lacks to its peak, over the initial capital too; NaN,
    where it is not known, adds no risk.
    """
    if aversion > 0.0:
        risk = 0.5 * change * change
        if measure == _DOWNSIDE:
            risk = min(change, 0.0) * min(change, 0.0)
        elif measure == _DRAWDOWN:
            risk = max(0.0, below - max(0.0, below + change)) if below > 0.0 else 0.0
        change -= aversion * risk
    return change * scale


def largest_reward(scale: float, aversion: float) -> float:
    """Bound on the size of a reward: no bar gains or loses more than the initial capital."""
    return scale * (1.0 + aversion)
