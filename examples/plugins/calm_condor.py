"""A rule-based trader: sells an iron condor while the market is calm, and takes what it makes.

trading backtest --simulated 5 --trader calm_condor --set plugins=examples/plugins/calm_condor.py
trading up --set plugins=examples/plugins/calm_condor.py --set policy.trader=calm_condor
"""

import numpy as np

import trading as td


@td.register_trader("calm_condor")
def calm_condor(seed):
    condor = td.action("iron_condor_far_d30_15")

    def act(observation, first):
        allowed = observation["action_mask"]
        calm = np.abs(td.feature(observation, "rsi")) < 0.4
        done = np.abs(td.feature(observation, "position_pnl")) > 0.5  # % of equity
        sells, closes = calm & allowed[:, condor], done & allowed[:, td.CLOSE]
        return np.select([closes, sells], [td.CLOSE, condor], td.HOLD)

    return act
