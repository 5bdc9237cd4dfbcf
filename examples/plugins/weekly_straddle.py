"""A baseline: buys a straddle of the near expiry once a session, and keeps it to the close.

trading backtest --simulated 5 --set plugins=examples/plugins/weekly_straddle.py
"""

import numpy as np

import trading as td


@td.register_baseline("weekly_straddle")
def weekly_straddle(seed):
    straddle = td.action("long_straddle_near_d50")
    bought = np.zeros(0, bool)

    def act(observation, first):
        nonlocal bought
        bought = np.zeros(len(first), bool) if len(bought) != len(first) else bought & ~first
        now = observation["action_mask"][:, straddle] & ~bought
        bought |= now
        return np.where(now, straddle, td.HOLD)

    return act
