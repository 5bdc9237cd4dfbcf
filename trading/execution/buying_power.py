"""What an order takes from buying power."""

import math
from collections.abc import Mapping

from trading.execution.crossing import Crossing
from trading.execution.fees import FeeSchedule
from trading.execution.holdings import marked
from trading.execution.legs import is_stock
from trading.execution.margin import required_cash
from trading.execution.margin_watch import cents_up
from trading.execution.money import usd
from trading.execution.orders import Intent, QuoteView
from trading.execution.portfolio import Account
from trading.execution.requirement import legs_reserve, market_requirement


def underlying_prices(
    quotes: Mapping[str, QuoteView], marks: Mapping[str, float]
) -> dict[str, float]:
    """Prices of underlyings whose stock is quoted on both sides, or else held, USD a share."""
    held = {symbol: mark for symbol, mark in marks.items() if is_stock(symbol)}
    mids = {symbol: marked(view, math.nan) for symbol, view in quotes.items() if is_stock(symbol)}
    return held | {symbol: mid for symbol, mid in mids.items() if not math.isnan(mid)}


def unit_margin(
    crossing: Crossing, account: Account, spot: float | None, *, allow_naked: bool
) -> float:
    """What one unit of an order adds to the reserve, USD; negative when it closes.

    Without a `spot` (USD a share), or without prices, what is uncovered has no margin: inf.
    """
    order = crossing.order
    if order.intent is Intent.CLOSE:
        return -account.strategies[order.underlying].reserve_per_unit
    greatest_loss = legs_reserve(order.legs, account.multiplier, account.adjusted)
    if not allow_naked or spot is None or not crossing.marks:
        return greatest_loss
    margin = market_requirement(
        order.legs, account.multiplier, spot, crossing.marks, account.adjusted
    )
    return greatest_loss if margin == greatest_loss else cents_up(margin)


def moving_margin(crossing: Crossing, account: Account, margin: float) -> float | None:
    """The margin a unit to write down with a fill; None when the legs alone say it."""
    order = crossing.order
    if order.intent is Intent.CLOSE:
        return None
    loss = legs_reserve(order.legs, account.multiplier, account.adjusted)
    return None if margin == loss else margin


def required(
    crossing: Crossing,
    units: int,
    net: float,
    margin: float,
    schedule: FeeSchedule,
    multiplier: float,
) -> float:
    """Buying power that `units` at a net price (USD a share) take, fees included, USD."""
    if units == 0:
        return 0.0
    _, fees = crossing.cash(schedule, units, multiplier)
    return float(usd(required_cash(net, margin, units, multiplier, fees)))


def reservation(
    crossing: Crossing, units: int, margin: float, schedule: FeeSchedule, multiplier: float
) -> float:
    """Buying power that each of `units` waiting units holds, USD, rounded up to the cent."""
    limit = crossing.order.limit_price
    net = crossing.net if limit is None else limit
    total = required(crossing, units, net, margin, schedule, multiplier)
    return max(0.0, cents_up(total / units)) if math.isfinite(total) else total
