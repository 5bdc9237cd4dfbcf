"""A baseline: sells a put that cash secures, a month out, and another one when it has expired.

trading backtest --simulated 20 --set plugins=examples/plugins/secured_put.py
"""

import numpy as np

import trading as td


@td.register_baseline("secured_put")
def secured_put(seed):
    put = td.action("cash_secured_put_far_d30")

    def act(observation, first):
        return np.where(observation["action_mask"][:, put], put, td.HOLD)

    return act
