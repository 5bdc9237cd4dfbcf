"""One order against the quotes of its legs: what would trade now, and at which prices."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trading.errors import ContractError
from trading.execution.fees import FeeSchedule, order_fees
from trading.execution.matching import MatchCode, gross_price, match_legs, net_price, sale_price
from trading.execution.orders import Order, QuoteView, RejectReason
from trading.market.contracts import parse_symbol

LIMIT_TOLERANCE = 1e-9
"""USD a share; in binary, 1.10 - 1.00 lies above a limit of 0.10."""

_NO_MATCH = {
    MatchCode.NOT_A_NUMBER: RejectReason.NOT_A_NUMBER,
    MatchCode.ONE_SIDED: RejectReason.ONE_SIDED,
    MatchCode.CROSSED: RejectReason.CROSSED,
    MatchCode.STALE: RejectReason.STALE_QUOTE,
    MatchCode.NO_SIZE: RejectReason.NO_SIZE,
}


class Crossing(NamedTuple):
    """What of an order trades now.

    `units` is 0 when `reason` says why nothing does. `prices` f64[legs] are USD a share, `net` is
    their sum a unit (a debit positive), NaN when the quotes allow no price.
    """

    order: Order
    units: int
    prices: NDArray[np.float64]
    net: float
    reason: RejectReason | None

    @property
    def gross(self) -> float:
        """Premium of one unit, all legs added up, USD a share; without prices, the limit."""
        if math.isnan(self.net):
            return abs(self.order.limit_price or 0.0)
        return float(gross_price(_ratios(self.order), self.prices, len(self.prices)))

    def fees(self, schedule: FeeSchedule, units: int, multiplier: float) -> float:
        """Fees of `units` at these prices in USD."""
        bought = sum(max(leg.ratio, 0) for leg in self.order.legs) * units
        sold = sum(max(-leg.ratio, 0) for leg in self.order.legs) * units
        sale = float(sale_price(_ratios(self.order), self.prices, len(self.prices)))
        return float(order_fees(schedule, bought, sold, sale * multiplier * units))


def cross(
    order: Order,
    units: int,
    quotes: Mapping[str, QuoteView],
    now_ns: int,
    max_quote_age_ns: int,
    slippage: float,
) -> Crossing:
    """Match `units` of an order against `quotes`, which hold every leg; see `match_legs`."""
    views = [quotes[leg.symbol] for leg in order.legs]
    bid, ask, bid_size, ask_size = np.array([v[:4] for v in views], dtype=np.float64).T.copy()
    quote_ns = np.array([view.ts_ns for view in views], dtype=np.int64)
    ratio = _ratios(order)
    prices = np.zeros(len(views), dtype=np.float64)
    code, fillable = match_legs(
        ratio,
        bid,
        ask,
        bid_size,
        ask_size,
        quote_ns,
        len(views),
        now_ns,
        units,
        max_quote_age_ns,
        slippage,
        prices,
    )
    if code != MatchCode.OK:
        return Crossing(order, 0, prices, math.nan, _NO_MATCH[MatchCode(code)])
    net = float(net_price(ratio, prices, len(views)))
    if order.limit_price is not None and not net <= order.limit_price + LIMIT_TOLERANCE:
        return Crossing(order, 0, prices, net, RejectReason.LIMIT_NOT_MARKETABLE)
    return Crossing(order, int(fillable), prices, net, None)


def contract_fault(symbol: str, quotes: Mapping[str, QuoteView]) -> str:
    """Why a contract cannot be ordered; empty when it can."""
    try:
        contract = parse_symbol(symbol)
    except ContractError as error:
        return str(error)
    if contract.is_adjusted:
        return f"{symbol} delivers an adjusted number of shares and is not traded"
    if symbol not in quotes:
        return f"{symbol} has no quote"
    return ""


def _ratios(order: Order) -> NDArray[np.int64]:
    return np.array([leg.ratio for leg in order.legs], dtype=np.int64)
