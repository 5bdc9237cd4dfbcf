"""What a bar earns: the change of profit, less what its risk weighs.

With R the change of an underlying's profit since the last mark over the initial capital,

    reward = reward_scale * (R - risk_aversion * risk(R))
    risk(R) = R^2 / 2           for the variance
    risk(R) = min(R, 0)^2       for the downside

Summed over the bars of a stretch of time, the first is half of its realised variance, so that
`risk_aversion` is the coefficient of mean-variance utility (Markowitz 1952; 1 is about that of the
logarithm of wealth, Kelly 1956) whatever the bar. The second is the semivariance below zero, the
same on average where gains and losses are symmetric.
"""

from enum import IntEnum

from numba import njit


class RiskMeasure(IntEnum):
    """What of a bar's change counts as risk."""

    VARIANCE = 0
    DOWNSIDE = 1


_DOWNSIDE = int(RiskMeasure.DOWNSIDE)


@njit(cache=True, error_model="numpy")
def reward_of(change: float, scale: float, aversion: float, measure: int) -> float:
    """Reward of a change of profit over the initial capital; one rule for live and training."""
    if aversion > 0.0:
        risk = 0.5 * change * change
        if measure == _DOWNSIDE:
            risk = min(change, 0.0) * min(change, 0.0)
        change -= aversion * risk
    return change * scale


def largest_reward(scale: float, aversion: float) -> float:
    """Bound on the size of a reward: no bar gains or loses more than the initial capital."""
    return scale * (1.0 + aversion)
