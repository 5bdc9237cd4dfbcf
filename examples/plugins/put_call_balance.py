"""A feature: what is bid for puts against calls, as far as the displayed sizes go.

    trading train --steps 100000 --set plugins=examples/plugins/put_call_balance.py \\
        --set env.features=put_call_balance
"""

import numpy as np

import trading as td


@td.register_feature("put_call_balance")
def put_call_balance(market):
    """Contracts bid for puts less those bid for calls, over both; from -1 to 1."""
    puts = calls = 0.0
    for i in range(len(market.strike)):
        if market.bid[i] > 0.0 and market.now_ns - market.quote_ns[i] <= market.max_age_ns:
            puts += market.bid_size[i] if market.right[i] < 0 else 0.0
            calls += market.bid_size[i] if market.right[i] > 0 else 0.0
    return (puts - calls) / (puts + calls) if puts + calls > 0.0 else np.nan
