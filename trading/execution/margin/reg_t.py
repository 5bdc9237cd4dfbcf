"""Reg-T margin of a whole strategy, by its kind.

Cboe Rule 10.3 and FINRA Rule 4210(f)(2). Per unit of a strategy, in USD that cash holds back:

| kind | held back |
|---|---|
| bought options, bought stock | nothing: paid in full, there is no margin loan |
| verticals, condors, butterflies | the greatest loss at expiry, condors by their larger side |
| sold put alone | its strike, secured by cash |
| sold call with bought stock | nothing beyond the stock |
| calendars, diagonals | as verticals, when the bought leg expires with or after the sold one |
| sold call or put uncovered | its value, and 20 % of the spot less what it is out of the money, \
at least 10 % of the spot (call) or of the strike (put); 15 % for broad indices |
| short straddle, short strangle | the larger side, and the value of the other side |
| short stock | 150 % of its value, of which its sale brought 100 % |

The last three move with the market, need a price of the underlying, and open only where uncovered
sales are allowed.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TypeAlias

from trading.execution.deliverables import STANDARD, AdjustedSymbols
from trading.execution.legs import STOCK_RIGHT, LegTerms, arrays_of, terms_of
from trading.execution.margin.formulas import payoff_margin, uncovered_margin
from trading.execution.orders import Leg
from trading.market.products import product_of

SHORT_STOCK_RATE = 1.5
"""Regulation T, 12 CFR 220.12(c): 150 % of the market value, proceeds included."""


def defined_risk_margin(
    legs: tuple[Leg, ...], multiplier: float, adjusted: AdjustedSymbols = STANDARD
) -> float:
    """Greatest loss of one unit of `legs` in USD, whatever was paid; inf when there is none.

    A bought option that expires after the sold ones covers them until then (its value is at least
    intrinsic); one that expires before covers nothing. Sold options of several expiries each need
    cover of their own expiry. Where `adjusted` says that a leg is not standard, all are held
    against each other share by share.

    Raises
    ------
    ContractError
        A symbol is malformed.
    """
    legs, terms, multiplier, _ = _counted(legs, multiplier, {}, adjusted)
    return _greatest_loss(legs, terms, multiplier)


def reg_t_margin(
    legs: tuple[Leg, ...],
    multiplier: float,
    spot: float,
    marks: Mapping[str, float],
    adjusted: AdjustedSymbols = STANDARD,
) -> float:
    """Margin of one unit of `legs` where uncovered sales are allowed, USD.

    The lesser of the greatest loss and of the margin of what is uncovered, as the rule has it.

    Parameters
    ----------
    spot : float
        Price of the underlying, USD a share; what is no positive number gives NaN, or the greatest
        loss where there is one.
    marks : mapping of symbol to float
        Value of each sold option, USD a share; a missing one counts as NaN.
    adjusted : AdjustedSymbols
        Which legs are not standard.
    """
    legs, terms, multiplier, marks = _counted(legs, multiplier, marks, adjusted)
    bounded = _greatest_loss(legs, terms, multiplier)
    if not 0.0 < spot < math.inf:
        spot = math.nan
    paired, widths, uncovered = _split(legs, terms, spot, marks)
    moving = _uncovered(uncovered, terms, multiplier, spot, marks)
    if math.isnan(moving):
        return bounded if math.isfinite(bounded) else math.nan
    secured = _greatest_loss(paired, terms, multiplier)
    return min(bounded, min(secured, widths * multiplier) + moving)


def sells_short(legs: tuple[Leg, ...]) -> bool:
    """Return whether opening `legs` needs a margin account.

    FINRA Rule 4210(b) then asks for equity.

    Calls covered by stock and puts secured by cash do not, nor does anything bought.
    """
    return shape_sells_short([(terms_of(leg.symbol).right, leg.ratio) for leg in legs])


def shape_sells_short(shape: Sequence[tuple[int, int]]) -> bool:
    """Return `sells_short` of legs of which only rights and signed ratios are known."""
    if all(ratio > 0 for _, ratio in shape):
        return False
    lots = sum(ratio for right, ratio in shape if right == STOCK_RIGHT)
    calls = -sum(ratio for right, ratio in shape if right > 0)
    alone = all(ratio < 0 or right == STOCK_RIGHT for right, ratio in shape)
    return not (alone and lots >= 0 and calls <= lots)


_Terms: TypeAlias = Mapping[str, LegTerms]


def _counted(
    legs: tuple[Leg, ...], multiplier: float, marks: Mapping[str, float], adjusted: AdjustedSymbols
) -> tuple[tuple[Leg, ...], _Terms, float, Mapping[str, float]]:
    """Legs that can be held against each other, their terms, the shares of one, and their marks."""
    if not adjusted.touches(legs):
        return legs, {leg.symbol: terms_of(leg.symbol) for leg in legs}, multiplier, marks
    terms = {leg.symbol: adjusted.terms(leg.symbol, multiplier) for leg in legs}
    legs, marks = adjusted.in_shares(legs, multiplier, marks)
    return legs, terms, 1.0, marks


def _greatest_loss(legs: tuple[Leg, ...], terms: _Terms, multiplier: float) -> float:
    sold = sorted({terms[leg.symbol].expiry for leg in legs if _is_sold_option(terms, leg)})
    if len(sold) <= 1:
        first = sold[0] if sold else date.min
        counted = tuple(leg for leg in legs if terms[leg.symbol].expiry >= first)
        return _worst(counted, terms, multiplier)
    total = 0.0
    for expiry in sold:
        cover = {expiry, date.max} if expiry == sold[-1] else {expiry}
        counted = tuple(leg for leg in legs if terms[leg.symbol].expiry in cover)
        total += _worst(counted, terms, multiplier)
    return total


def _is_sold_option(terms: _Terms, leg: Leg) -> bool:
    return leg.ratio < 0 and terms[leg.symbol].right != STOCK_RIGHT


def _worst(legs: tuple[Leg, ...], terms: _Terms, multiplier: float) -> float:
    if not legs:
        return 0.0
    arrays = arrays_of(legs, [terms[leg.symbol] for leg in legs])
    return float(payoff_margin(*arrays, len(legs), multiplier))


def _split(
    legs: tuple[Leg, ...], terms: _Terms, spot: float, marks: Mapping[str, float]
) -> tuple[tuple[Leg, ...], float, tuple[Leg, ...]]:
    """Pairs of one unit, their widths added up in USD a share, and what is sold without cover.

    Stock covers the calls with the lowest strikes, which then need nothing. Each other sold option
    is paired with the best bought one that lasts as long, unless the width between them is more
    than its margin without cover.
    """
    free = {leg.symbol: leg.ratio for leg in legs}
    paired: dict[str, int] = {}
    widths = 0.0

    def ranked(right: int) -> list[str]:
        of_right = [symbol for symbol in free if terms[symbol].right == right]
        return sorted(of_right, key=lambda symbol: terms[symbol].strike * right)

    for right in (1, -1):
        for sold in ranked(right):
            _, strike, expiry, root = terms[sold]
            broad = product_of(root).cash_settled
            alone = uncovered_margin(right, strike, spot, marks.get(sold, math.nan), broad)
            for by in [*(ranked(STOCK_RIGHT) if right > 0 else []), *ranked(right)]:
                units = min(-free[sold], free[by])
                if units <= 0 or terms[by].expiry < expiry:
                    continue
                if terms[by].right != STOCK_RIGHT:
                    width = max(right * (terms[by].strike - strike), 0.0)
                    if alone < width:
                        continue
                    widths += units * width
                    paired[sold] = paired.get(sold, 0) - units
                    paired[by] = paired.get(by, 0) + units
                free[sold] += units
                free[by] -= units
    uncovered = tuple(Leg(symbol, ratio) for symbol, ratio in free.items() if ratio < 0)
    return tuple(Leg(symbol, ratio) for symbol, ratio in paired.items()), widths, uncovered


def _uncovered(
    legs: tuple[Leg, ...],
    terms: _Terms,
    multiplier: float,
    spot: float,
    marks: Mapping[str, float],
) -> float:
    """Margin of sold legs without cover, USD."""
    uncovered_by_right = {1: 0.0, -1: 0.0}
    value = {1: 0.0, -1: 0.0}
    short_lots = -sum(leg.ratio for leg in legs if terms[leg.symbol].right == STOCK_RIGHT)
    stock = SHORT_STOCK_RATE * spot * short_lots if short_lots else 0.0
    for leg in legs:
        right, strike, _, root = terms[leg.symbol]
        if right == STOCK_RIGHT:
            continue
        sold = -leg.ratio
        if right < 0 and short_lots:
            # Short stock covers as many puts; of them counts what they are in the money.
            secured = min(sold, short_lots)
            short_lots -= secured
            sold -= secured
            stock += secured * max(strike - spot, 0.0)
        mark = marks.get(leg.symbol, math.nan) if sold else 0.0
        value[right] += sold * mark
        broad = product_of(root).cash_settled
        if sold:
            uncovered_by_right[right] += sold * uncovered_margin(right, strike, spot, mark, broad)
    larger, other = (1, -1) if uncovered_by_right[1] >= uncovered_by_right[-1] else (-1, 1)
    total = uncovered_by_right[larger] + value[other] + stock
    return total * multiplier if math.isfinite(sum(uncovered_by_right.values())) else math.nan
