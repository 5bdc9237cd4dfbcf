"""What an account holds: positions, strategies and waiting orders; and the value of a quote."""

import math
from collections.abc import Callable, Mapping

import msgspec

from trading.execution.money import round_usd
from trading.execution.orders import Fill, Leg, Order, QuoteView
from trading.market.chain import mark_value


class Position(msgspec.Struct, frozen=True):
    """Signed contracts or round lots held and their average opening price, USD a share.

    Delivered stock counts as opened at the underlying's price then.
    """

    symbol: str
    underlying: str
    quantity: int
    average_price: float


class StrategyPosition(msgspec.Struct, frozen=True):
    """One open strategy; cash amounts are totals in USD since it was opened.

    `order_id` is that of the order that opened it; shares of a company that was spun off have that
    of the strategy that they came of and the action, as `paper-1/SPY/spin_off/2026-01-06`.
    `legs` are signed as held, a unit, and change when some of them expire or are delivered: always
    `units` times `legs` are the positions. `entry_cash` and `exit_cash` are changes of cash before
    fees (+ received), dividends in the latter; `margin_per_unit` is what each open unit holds back
    from buying power, and `margin_moves` says that this follows the market. `delivered` says that
    there is stock from exercise or assignment, or left by options that ended: it is to be closed.
    """

    underlying: str
    strategy: str
    order_id: str
    legs: tuple[Leg, ...]
    units: int
    opened_ns: int
    entry_cash: float
    exit_cash: float
    fees: float
    margin_per_unit: float
    margin_moves: bool = False
    delivered: bool = False

    @property
    def margin(self) -> float:
        """Buying power held back in USD."""
        return self.margin_per_unit * self.units

    @property
    def net_cash(self) -> float:
        """Change of cash so far in USD, after fees; the profit once the strategy is closed."""
        return float(round_usd(self.entry_cash + self.exit_cash - self.fees))


def profit_of_close(
    held: StrategyPosition,
    positions: Mapping[str, Position],
    fill: Fill,
    size: Callable[[str], float],
) -> float:
    """Return what a fill that closes units of a strategy gained, USD after fees.

    Of the fill that ends the strategy it is what is booked as realised: all cash of the strategy.
    One that leaves some of it open is measured against the average opening prices, less its own
    fees; those of the opening count with the end.

    Parameters
    ----------
    held, positions
        As they were before the fill.
    size
        USD that one unit of a symbol is worth for each USD a share.
    """
    if fill.units == held.units:
        return float(round_usd(held.net_cash + fill.premium - fill.fees))
    gained = sum(
        leg.quantity * (positions[leg.symbol].average_price - leg.price) * size(leg.symbol)
        for leg in fill.legs
    )
    return float(round_usd(gained - fill.fees))


class WorkingOrder(msgspec.Struct, frozen=True):
    """An accepted order with units that still wait.

    `order` has the limit of now, and `step` says how often that has come nearer to the touch.
    """

    order: Order
    remaining: int
    buying_power_per_unit: float
    step: int = 0

    @property
    def buying_power_held(self) -> float:
        """Buying power held back in USD."""
        return self.buying_power_per_unit * self.remaining


def as_units(quantities: Mapping[str, int]) -> tuple[int, tuple[Leg, ...]]:
    """Return holdings as the most units of the same legs, in their order: `(units, legs)`."""
    units = math.gcd(*quantities.values())
    return units, tuple(Leg(symbol, quantity // units) for symbol, quantity in quantities.items())


def marked(quote: QuoteView, last: float) -> float:
    """Value of a holding in USD a share by the rule of `trading.market.chain`; see `mark_value`."""
    return float(mark_value(quote.bid, quote.ask, quote.ts_ns, math.nan, last))
