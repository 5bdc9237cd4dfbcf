"""One order against the quotes of its legs: what would trade now, and at which prices."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trading.execution.fees import FeeSchedule
from trading.execution.legs import as_arrays
from trading.execution.matching import MatchCode, fill_cash, gross_price, match_legs, net_price
from trading.execution.orders import Fill, LegFill, Order, QuoteView, RejectReason

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
    right: NDArray[np.int8]
    ratio: NDArray[np.int64]
    prices: NDArray[np.float64]
    net: float
    reason: RejectReason | None

    @property
    def gross(self) -> float:
        """Price of one unit, all legs added up, USD a share; without prices, the limit."""
        if math.isnan(self.net):
            return abs(self.order.limit_price or 0.0)
        return float(gross_price(self.ratio, self.prices, len(self.prices)))

    @property
    def marks(self) -> dict[str, float]:
        """Price of each leg by symbol; empty when the quotes allow no price."""
        if math.isnan(self.net):
            return {}
        symbols = (leg.symbol for leg in self.order.legs)
        return dict(zip(symbols, self.prices.tolist(), strict=True))

    def cash(self, schedule: FeeSchedule, units: int, multiplier: float) -> tuple[float, float]:
        """Premium (+ received) and fees of `units` at these prices in USD, see `fill_cash`."""
        legs = len(self.prices)
        premium, fees = fill_cash(
            self.right, self.ratio, self.prices, legs, units, multiplier, schedule
        )
        return float(premium), float(fees)

    def fill(self, schedule: FeeSchedule, remaining: int, multiplier: float, now_ns: int) -> Fill:
        """The trade of `units`, where `remaining` units of the order waited before it."""
        order = self.order
        premium, fees = self.cash(schedule, self.units, multiplier)
        return Fill(
            fill_id=f"{order.order_id}/{order.units - remaining + 1}",
            order_id=order.order_id,
            ts_ns=now_ns,
            underlying=order.underlying,
            units=self.units,
            legs=tuple(
                LegFill(leg.symbol, leg.ratio * self.units, price)
                for leg, price in zip(order.legs, self.prices.tolist(), strict=True)
            ),
            premium=premium,
            fees=fees,
        )


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
    right, _, ratio = as_arrays(order.legs)
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
        reason = _NO_MATCH[MatchCode(code)]
        return Crossing(order, 0, right, ratio, prices, math.nan, reason)
    net = float(net_price(ratio, prices, len(views)))
    if order.limit_price is not None and not net <= order.limit_price + LIMIT_TOLERANCE:
        reason = RejectReason.LIMIT_NOT_MARKETABLE
        return Crossing(order, 0, right, ratio, prices, net, reason)
    return Crossing(order, int(fillable), right, ratio, prices, net, None)


def quoted(order: Order, quotes: Mapping[str, QuoteView]) -> str:
    """The quotes of an order's legs, for people."""
    views = ((leg.symbol, quotes[leg.symbol]) for leg in order.legs)
    return ", ".join(f"{symbol} {view.bid} x {view.ask}" for symbol, view in views)
