"""One order against the quotes of its legs: what would trade now, and at which prices."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trading.execution.deliverables import STANDARD, AdjustedSymbols
from trading.execution.fees import FeeSchedule, order_fees
from trading.execution.legs import as_arrays
from trading.execution.matching import (
    LIMIT_TOLERANCE,
    FillStyle,
    MatchCode,
    fill_cash,
    gross_price,
    match_legs,
    net_price,
)
from trading.execution.money import round_usd
from trading.execution.orders import Fill, LegFill, Order, QuoteView, RejectReason

_NO_MATCH = {
    MatchCode.NOT_A_NUMBER: RejectReason.NOT_A_NUMBER,
    MatchCode.ONE_SIDED: RejectReason.ONE_SIDED,
    MatchCode.CROSSED: RejectReason.CROSSED,
    MatchCode.STALE: RejectReason.STALE_QUOTE,
    MatchCode.NO_SIZE: RejectReason.NO_SIZE,
}


class MatchResult(NamedTuple):
    """What of an order trades now.

    `units` is 0 when `reason` says why nothing does. `prices` f64[legs] are USD a share, `net` is
    their sum a unit (a debit positive), NaN when the quotes allow no price. `weight` f64[legs] is
    there where stock is held in shares: what part of a round lot one of each leg is.
    """

    order: Order
    units: int
    right: NDArray[np.int8]
    ratio: NDArray[np.int64]
    prices: NDArray[np.float64]
    net: float
    reason: RejectReason | None
    weight: NDArray[np.float64] | None = None

    @property
    def gross(self) -> float:
        """Price of one unit, all legs added up, USD a share; without prices, the limit."""
        if math.isnan(self.net):
            return abs(self.order.limit_price or 0.0)
        if self.weight is not None:
            return float(np.abs(self.ratio * self.weight * self.prices).sum())
        return float(gross_price(self.ratio, self.prices, len(self.prices)))

    @property
    def marks(self) -> dict[str, float]:
        """Price of each leg by symbol; empty when the quotes allow no price."""
        if math.isnan(self.net):
            return {}
        symbols = (leg.symbol for leg in self.order.legs)
        return dict(zip(symbols, self.prices.tolist(), strict=True))

    def at_limits(self, order: Order) -> "MatchResult":
        """Return the same units at the limits of a working order."""
        limits = np.array(order.leg_limits)
        net = float(net_price(self.ratio, limits, len(limits)))
        return self._replace(order=order, prices=limits, net=net)

    def cash(self, schedule: FeeSchedule, units: int, multiplier: float) -> tuple[float, float]:
        """Premium (+ received) and fees of `units` at these prices in USD, see `fill_cash`."""
        legs = len(self.prices)
        if self.weight is not None:
            return self._cash_in_shares(schedule, units, multiplier)
        premium, fees = fill_cash(
            self.right, self.ratio, self.prices, legs, units, multiplier, schedule
        )
        return float(premium), float(fees)

    def _cash_in_shares(
        self, schedule: FeeSchedule, units: int, multiplier: float
    ) -> tuple[float, float]:
        quantity = self.ratio * units
        size = (1.0 if self.weight is None else self.weight) * multiplier
        value = quantity * size * self.prices
        option, sold = self.right != 0, quantity < 0
        fees = order_fees(
            schedule,
            int(quantity[option & ~sold].sum()),
            int(-quantity[option & sold].sum()),
            float(-value[option & sold].sum()),
            float((quantity * size)[~option & ~sold].sum()),
            float(-(quantity * size)[~option & sold].sum()),
            float(-value[~option & sold].sum()),
        )
        return float(round_usd(-float(value.sum()))) + 0.0, float(fees)

    def fill(self, schedule: FeeSchedule, remaining: int, multiplier: float, now_ns: int) -> Fill:
        """Return the trade of `units`, where `remaining` units of the order waited before it."""
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


def match_order(
    order: Order,
    units: int,
    quotes: Mapping[str, QuoteView],
    now_ns: int,
    max_quote_age_ns: int,
    slippage: float,
    adjusted: AdjustedSymbols = STANDARD,
    multiplier: float = 100.0,
    style: FillStyle = FillStyle.TOUCH,
) -> MatchResult:
    """Match `units` of an order against `quotes`, which hold every leg; see `match_legs`.

    `adjusted` says which stock counts in other units than round lots of `multiplier` shares.
    """
    views = [quotes[leg.symbol] for leg in order.legs]
    bid, ask, bid_size, ask_size = np.array([v[:4] for v in views], dtype=np.float64).T.copy()
    quote_ns = np.array([view.ts_ns for view in views], dtype=np.int64)
    right, _, ratio = as_arrays(order.legs)
    prices = np.zeros(len(views), dtype=np.float64)
    weight = None
    if any(leg.symbol in adjusted.lots for leg in order.legs):
        sizes = [adjusted.size(leg.symbol, multiplier) for leg in order.legs]
        weight = np.array(sizes) / multiplier
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
        int(style),
        len(views) == 1 and int(right[0]) == 0,
    )
    if code != MatchCode.OK:
        reason = _NO_MATCH[MatchCode(code)]
        return MatchResult(order, 0, right, ratio, prices, math.nan, reason, weight)
    net = float(net_price(ratio, prices, len(views)))
    if weight is not None:
        net = float((ratio * weight * prices).sum())
    if order.limit_price is not None and not net <= order.limit_price + LIMIT_TOLERANCE:
        reason = RejectReason.LIMIT_NOT_MARKETABLE
        return MatchResult(order, 0, right, ratio, prices, net, reason, weight)
    return MatchResult(order, int(fillable), right, ratio, prices, net, None, weight)


def quoted(order: Order, quotes: Mapping[str, QuoteView]) -> str:
    """Return the quotes of an order's legs, for people."""
    views = ((leg.symbol, quotes[leg.symbol]) for leg in order.legs)
    return ", ".join(f"{symbol} {view.bid} x {view.ask}" for symbol, view in views)
