"""Orders that work: a net limit at mid, for the day, that goes to the touch step by step.

Until it trades its limit is read anew at every step from the quotes of then. It trades when the
touches of all its legs together have come to the limit, at the limit: the price at which it lay
when the market came to it.
"""

from collections.abc import Mapping

import msgspec
import numpy as np

from trading.execution.legs import as_arrays
from trading.execution.matching import net_price, price_at_share
from trading.execution.orders import Order, OrderType, QuoteView, TimeInForce


def with_limits(
    order: Order, quotes: Mapping[str, QuoteView], slippage: float, share: float
) -> Order:
    """Return an order as a limit for the day at which each leg pays a share of its spread.

    Parameters
    ----------
    quotes : mapping of symbol to QuoteView
        Tradable ones of every leg.
    slippage : float
        USD a share and leg beyond that.
    share : float
        See `trading.execution.matching.working_share`.
    """
    right, _, ratio = as_arrays(order.legs)
    n_legs = len(order.legs)
    is_stock = n_legs == 1 and int(right[0]) == 0
    limits = np.zeros(n_legs)
    for leg, each in enumerate(order.legs):
        view = quotes[each.symbol]
        limits[leg] = price_at_share(
            view.bid, view.ask, each.ratio > 0, slippage, share, n_legs, is_stock
        )
    return msgspec.structs.replace(
        order,
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.DAY,
        limit_price=float(net_price(ratio, limits, n_legs)),
        leg_limits=tuple(limits.tolist()),
    )
