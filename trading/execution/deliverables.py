"""What one unit of a symbol is: the sizes of contracts and shares that a corporate action changed.

A standard contract delivers 100 shares for 100 times its strike, and stock counts in round lots of
as many. An adjusted contract still is priced by the hundredth of a contract and still costs 100
times its strike, but delivers a `Deliverable` (OCC By-Laws Article VI, section 11A). Held against
its underlying it is as `shares / 100` standard contracts with another strike: so the same formulas
of margin and settlement hold, told in shares instead of contracts. Stock that is no whole number of
round lots counts in shares.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from trading.execution.legs import STOCK_RIGHT, LegTerms, is_stock, terms_of
from trading.execution.orders import Leg


class OtherShares(msgspec.Struct, frozen=True):
    """Shares of another company that a contract delivers, and their last known price in USD."""

    symbol: str
    shares: float
    price: float


class Deliverable(msgspec.Struct, frozen=True):
    """What one adjusted contract delivers for 100 times its strike.

    `shares` of `underlying`, `cash` in USD, in lieu of fractions or from a merger, and perhaps
    shares of other companies.
    """

    underlying: str
    shares: float
    cash: float = 0.0
    others: tuple[OtherShares, ...] = ()

    @property
    def fixed(self) -> float:
        """The part that does not move with the underlying, USD a contract."""
        return self.cash + sum(each.shares * each.price for each in self.others)

    def value(self, spot: float) -> float:
        """All of it in USD a contract."""
        return self.shares * spot + self.fixed if self.shares else self.fixed


class AdjustedSymbols(NamedTuple):
    """The symbols of an account that are not standard.

    Parameters
    ----------
    deliverables : mapping of symbol to Deliverable
        Of adjusted contracts.
    lots : mapping of ticker to float
        Shares of one unit of a stock that is not held in round lots.
    """

    deliverables: Mapping[str, Deliverable] = {}
    lots: Mapping[str, float] = {}

    def touches(self, legs: tuple[Leg, ...]) -> bool:
        """Return whether any leg is not standard."""
        if not self.deliverables and not self.lots:
            return False
        return any(leg.symbol in self.deliverables or leg.symbol in self.lots for leg in legs)

    def size(self, symbol: str, multiplier: float) -> float:
        """Return what the price of one unit is multiplied with: USD for each USD a share."""
        return self.lots.get(symbol, multiplier)

    def shares(self, symbol: str, multiplier: float) -> float:
        """Shares of the underlying that one unit is or delivers."""
        if symbol in self.deliverables:
            return self.deliverables[symbol].shares
        return self.size(symbol, multiplier)

    def terms(self, symbol: str, multiplier: float) -> LegTerms:
        """Return the instrument as it is held against shares of its underlying."""
        terms = terms_of(symbol)
        delivered = self.deliverables.get(symbol)
        if delivered is None:
            return terms
        aggregate = terms.strike * multiplier - delivered.fixed
        strike = aggregate / delivered.shares if delivered.shares else float("inf")
        return terms._replace(strike=strike)

    def in_shares(
        self, legs: tuple[Leg, ...], multiplier: float, marks: Mapping[str, float]
    ) -> tuple[tuple[Leg, ...], dict[str, float]]:
        """Legs with ratios in shares, and the value of each in USD a share that it delivers."""
        counted, values = [], {}
        for leg in legs:
            shares = self.shares(leg.symbol, multiplier)
            counted.append(Leg(leg.symbol, round(leg.ratio * shares)))
            if leg.symbol in marks and shares:
                size = self.size(leg.symbol, multiplier)
                values[leg.symbol] = marks[leg.symbol] * size / shares
        return tuple(leg for leg in counted if leg.ratio), values


STANDARD = AdjustedSymbols()
"""No symbol that is not standard."""

__all__ = ["STANDARD", "STOCK_RIGHT", "AdjustedSymbols", "Deliverable", "OtherShares", "is_stock"]
