"""A reward: money, less what the position leans to one side of the market.

    trading train --steps 100000 --set plugins=examples/plugins/small_delta.py \\
        --set env.reward=small_delta
"""

import trading as td

DELTA = td.feature_index("position_delta")  # in 1 % of equity, for a move of 1 %
WEIGHT = 0.001


@td.register_reward("small_delta")
def small_delta(bar):
    return bar.reward - WEIGHT * abs(bar.observation[DELTA])
