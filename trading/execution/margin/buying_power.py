"""What an order takes from buying power."""

import math
from collections.abc import Mapping

from trading.execution.fees import FeeSchedule
from trading.execution.holdings import marked
from trading.execution.legs import is_stock
from trading.execution.margin.formulas import buying_power_effect, held_per_unit
from trading.execution.margin.maintenance import cents_up
from trading.execution.margin.reg_t import defined_risk_margin, reg_t_margin
from trading.execution.money import round_usd
from trading.execution.order_matching import MatchResult
from trading.execution.orders import Intent, QuoteView
from trading.execution.portfolio import Account


def underlying_prices(
    quotes: Mapping[str, QuoteView], marks: Mapping[str, float]
) -> dict[str, float]:
    """Prices of underlyings whose stock is quoted on both sides, or else held, USD a share."""
    held = {symbol: mark for symbol, mark in marks.items() if is_stock(symbol)}
    mids = {symbol: marked(view, math.nan) for symbol, view in quotes.items() if is_stock(symbol)}
    return held | {symbol: mid for symbol, mid in mids.items() if not math.isnan(mid)}


def initial_margin(
    matched: MatchResult, account: Account, spot: float | None, *, allow_naked: bool
) -> float:
    """Margin that one unit of an order takes, USD; a closing one frees its own: negative.

    Without a `spot` (USD a share), or without prices, what is uncovered has no margin: inf.
    """
    order = matched.order
    if order.intent is Intent.CLOSE:
        return -account.strategies[order.underlying].margin_per_unit
    greatest_loss = defined_risk_margin(order.legs, account.multiplier, account.adjusted)
    if not allow_naked or spot is None or not matched.marks:
        return greatest_loss
    margin = reg_t_margin(order.legs, account.multiplier, spot, matched.marks, account.adjusted)
    return greatest_loss if margin == greatest_loss else cents_up(margin)


def margin_to_journal(matched: MatchResult, account: Account, margin: float) -> float | None:
    """Margin of one unit to write down with a fill, USD; None when the legs alone say it."""
    order = matched.order
    if order.intent is Intent.CLOSE:
        return None
    loss = defined_risk_margin(order.legs, account.multiplier, account.adjusted)
    return None if margin == loss else margin


def order_buying_power_effect(
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
    return float(round_usd(buying_power_effect(net, margin, units, multiplier, fees)))


def working_order_effect(
    matched: MatchResult, units: int, margin: float, schedule: FeeSchedule, multiplier: float
) -> float:
    """Buying power that each of `units` waiting units holds, USD, rounded up to the cent."""
    limit = matched.order.limit_price
    net = matched.net if limit is None else limit
    total = order_buying_power_effect(matched, units, net, margin, schedule, multiplier)
    return float(held_per_unit(total, units))
