"""What an order takes from buying power."""

import math
from collections.abc import Mapping

from trading.execution.fees import FeeSchedule
from trading.execution.holdings import marked
from trading.execution.legs import is_stock
from trading.execution.margin import required_cash
from trading.execution.margin_watch import cents_up
from trading.execution.money import round_usd
from trading.execution.order_matching import MatchResult
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
    matched: MatchResult, account: Account, spot: float | None, *, allow_naked: bool
) -> float:
    """What one unit of an order adds to the reserve, USD; negative when it closes.

    Without a `spot` (USD a share), or without prices, what is uncovered has no margin: inf.
    """
    order = matched.order
    if order.intent is Intent.CLOSE:
        return -account.strategies[order.underlying].reserve_per_unit
    greatest_loss = legs_reserve(order.legs, account.multiplier, account.adjusted)
    if not allow_naked or spot is None or not matched.marks:
        return greatest_loss
    margin = market_requirement(
        order.legs, account.multiplier, spot, matched.marks, account.adjusted
    )
    return greatest_loss if margin == greatest_loss else cents_up(margin)


def moving_margin(matched: MatchResult, account: Account, margin: float) -> float | None:
    """The margin a unit to write down with a fill; None when the legs alone say it."""
    order = matched.order
    if order.intent is Intent.CLOSE:
        return None
    loss = legs_reserve(order.legs, account.multiplier, account.adjusted)
    return None if margin == loss else margin


def required(
    matched: MatchResult,
    units: int,
    net: float,
    margin: float,
    schedule: FeeSchedule,
    multiplier: float,
) -> float:
    """Buying power that `units` at a net price (USD a share) take, fees included, USD."""
    if units == 0:
        return 0.0
    _, fees = matched.cash(schedule, units, multiplier)
    return float(round_usd(required_cash(net, margin, units, multiplier, fees)))


def reservation(
    matched: MatchResult, units: int, margin: float, schedule: FeeSchedule, multiplier: float
) -> float:
    """Buying power that each of `units` waiting units holds, USD, rounded up to the cent."""
    limit = matched.order.limit_price
    net = matched.net if limit is None else limit
    total = required(matched, units, net, margin, schedule, multiplier)
    return max(0.0, cents_up(total / units)) if math.isfinite(total) else total
