"""Margin that moves with the market, as events: buying power stays a fold of the journal."""

import math
from collections.abc import Iterable, Mapping

from trading.execution.deliverables import STANDARD, AdjustedSymbols
from trading.execution.events import MarginChanged, Settled
from trading.execution.holdings import StrategyPosition, as_units
from trading.execution.margin.reg_t import defined_risk_margin, reg_t_margin
from trading.execution.portfolio import Account

MATERIAL_CHANGE = 0.01
"""Share of a strategy's margin by which it must move to be written down."""


def maintenance_margin(
    strategy: StrategyPosition,
    multiplier: float,
    spot: float,
    marks: Mapping[str, float],
    adjusted: AdjustedSymbols = STANDARD,
) -> float:
    """Margin of one unit of an open strategy now, USD in whole cents; NaN when not known."""
    return cents_up(reg_t_margin(strategy.legs, multiplier, spot, marks, adjusted))


def cents_up(amount: float) -> float:
    """Return an amount in USD rounded up to the cent; what is not finite passes through."""
    return math.ceil(100.0 * amount - 1e-6) / 100.0 if math.isfinite(amount) else amount


def margin_changes(
    account: Account, marks: Mapping[str, float], spots: Mapping[str, float], now_ns: int
) -> list[MarginChanged]:
    """Return what open strategies hold back now, where that moved materially.

    Material is a change by `MATERIAL_CHANGE`, and any that decides whether buying power is below
    zero. A strategy whose underlying has no price in `spots` keeps its margin; where the margin
    cannot be told from the prices given, the change is to NaN, which no journal takes: the caller
    must suspend that underlying.
    """
    changes: list[MarginChanged] = []
    power = account.buying_power
    for underlying, held in account.strategies.items():
        if not held.margin_moves or underlying not in spots:
            continue
        spot = spots[underlying]
        now = maintenance_margin(held, account.multiplier, spot, marks, account.adjusted)
        if is_material(held.margin_per_unit, now, held.units, power):
            number = account.margin_changes + len(changes) + 1
            changes.append(MarginChanged(now_ns, number, underlying, now))
            power -= (now - held.margin_per_unit) * held.units
    return changes


def is_material(before: float, now: float, units: int, power: float) -> bool:
    """Return whether a margin a unit moved by enough to be written down, or decides a margin call.

    `power` is the buying power before, USD. A margin that is no number is material.
    """
    change = now - before
    decides = (power < 0.0) != (power - change * units < 0.0)
    small = abs(change) <= MATERIAL_CHANGE * before
    return change != 0.0 and (decides or not small)


def margins_after(
    account: Account, settlements: Iterable[Settled], marks: Mapping[str, float], now_ns: int
) -> list[MarginChanged]:
    """Return what strategies hold back once `settlements` are booked, where prices decide it."""
    changes: list[MarginChanged] = []
    ended = list(settlements)
    spots = {account.positions[each.symbol].underlying: each.underlying_price for each in ended}
    for underlying, spot in spots.items():
        held = account.strategies[underlying]
        left = {leg.symbol: leg.ratio * held.units for leg in held.legs}
        left.setdefault(underlying, 0)
        unit = account.size(underlying)
        for each in ended:
            if each.symbol in left and account.positions[each.symbol].underlying == underlying:
                del left[each.symbol]
                lot = each.lot or account.multiplier
                if each.lots and lot < unit:
                    left[underlying], unit = round(left[underlying] * unit / lot), lot
                left[underlying] += round(each.lots * lot / unit)
        left = {symbol: quantity for symbol, quantity in left.items() if quantity}
        if not left:
            continue
        _, legs = as_units(left)
        lots = account.stock_lots | ({underlying: unit} if unit != account.multiplier else {})
        adjusted = AdjustedSymbols(account.deliverables, lots)
        bounded = math.isfinite(defined_risk_margin(legs, account.multiplier, adjusted))
        if not held.margin_moves and bounded:
            continue
        now = cents_up(reg_t_margin(legs, account.multiplier, spot, marks, adjusted))
        if math.isfinite(now):
            number = account.margin_changes + len(changes) + 1
            changes.append(MarginChanged(now_ns, number, underlying, now))
    return changes
