"""Bars of a stock or ETF."""

from typing import NamedTuple


class StockBar(NamedTuple):
    """One aggregate bar of an underlying; prices in USD per share, `volume` in shares.

    The window is half open: a minute bar covers `[start_ns, start_ns + 60 s)` and is known only
    once the window has ended.
    """

    symbol: str
    start_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    vwap: float

    def times(self, factor: float) -> "StockBar":
        """Return the same bar in shares of which one costs `factor` as much, as after a split."""
        prices = (self.open * factor, self.high * factor, self.low * factor, self.close * factor)
        volume = self.volume / factor
        return StockBar(self.symbol, self.start_ns, *prices, volume, self.vwap * factor)
