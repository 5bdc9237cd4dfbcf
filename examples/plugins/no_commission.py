"""A fee schedule: a broker that takes no commission, and passes on what others charge.

    trading backtest --simulated 5 --set plugins=examples/plugins/no_commission.py \\
        --set execution.fee_schedule=no_commission
"""

import trading as td


@td.register_fees("no_commission")
def no_commission(configured):
    return configured._replace(commission=0.0, stock_commission=0.0)
