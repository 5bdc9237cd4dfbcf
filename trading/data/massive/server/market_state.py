"""What the market server knows at the current exchange time: the answer to every snapshot."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trading.data.massive.columns import Quotes
from trading.data.massive.server.source import EventSource, Listing, SourceStep
from trading.market.bars import StockBar

_BARS_KEPT: Final = 20_000
"""Minute bars kept per symbol: fifty sessions."""

_QUOTES_KEPT: Final = 1 << 19
"""Quotes kept of a session, the latest: 30 MB."""


@dataclass(slots=True)
class DayTotals:
    """One symbol's session so far; prices in USD per share.

    Parameters
    ----------
    previous_close: last price of the session before, NaN when unknown
    notional: sum of price times volume
    updated_ns: end of the last bar
    """

    open: float
    high: float
    low: float
    close: float
    previous_close: float = float("nan")
    volume: float = 0.0
    notional: float = 0.0
    updated_ns: int = 0

    def add(self, bar: StockBar, end_ns: int) -> None:
        """Add the session's next bar."""
        self.high = max(self.high, bar.high)
        self.low = min(self.low, bar.low)
        self.close = bar.close
        self.volume += bar.volume
        self.notional += bar.vwap * bar.volume
        self.updated_ns = end_ns

    @property
    def vwap(self) -> float:
        """Volume weighted average price; the last price when nothing traded."""
        return self.notional / self.volume if self.volume > 0 else self.close


class MarketState:
    """The last quotes, the bars and the day's totals, at the exchange clock's time.

    Attributes
    ----------
    now_ns: exchange clock
    listing: contracts of the current session, to which the quote columns belong
    bid, ask: f64[n], USD per share; 0 means that the side is absent
    bid_size, ask_size: i64[n], contracts
    quote_ns: i64[n], 0 where no quote came yet
    totals: by symbol, of the current session
    """

    def __init__(self, source: EventSource) -> None:
        self.now_ns = source.start_ns
        self.totals: dict[str, DayTotals] = {}
        self._closes: dict[str, float] = {}
        self._bars: dict[str, deque[StockBar]] = {}
        self._list(source.listing)

    def apply(self, step: SourceStep) -> None:
        """Take the step's events; `now_ns` becomes the step's time."""
        if step.listing is not self.listing:
            self._list(step.listing)
        self.now_ns = step.ts_ns
        quotes = step.quotes
        # Where a contract is quoted twice in a step the later quote wins, as assigned last.
        self.bid[quotes.contract] = quotes.bid
        self.ask[quotes.contract] = quotes.ask
        self.bid_size[quotes.contract] = quotes.bid_size
        self.ask_size[quotes.contract] = quotes.ask_size
        self.quote_ns[quotes.contract] = quotes.ts_ns
        self._keep(quotes)
        for bar in step.bars:
            self._add_bar(bar)

    def bars(self, symbol: str) -> list[StockBar]:
        """Return the minute bars of `symbol` so far, oldest first."""
        return list(self._bars.get(symbol, ()))

    def quotes(self, symbol: str) -> Quotes:
        """Return a contract's quotes of the session, oldest first; none of an unknown one."""
        position = self._positions.get(symbol, -1)
        found = [np.flatnonzero(kept.contract == position) for kept in self._quotes]
        parts = [
            [column[rows] for column in kept]
            for kept, rows in zip(self._quotes, found, strict=True)
            if len(rows)
        ]
        if not parts:
            return Quotes.none()
        return Quotes(*[np.concatenate(column) for column in zip(*parts, strict=True)])

    def last_price(self, symbol: str) -> float | None:
        """Close of the last minute bar, or None before the first."""
        bars = self._bars.get(symbol)
        return bars[-1].close if bars else None

    def _list(self, listing: Listing) -> None:
        self.listing = listing
        count = len(listing.symbols)
        self.bid: NDArray[np.float64] = np.zeros(count)
        self.ask: NDArray[np.float64] = np.zeros(count)
        self.bid_size: NDArray[np.int64] = np.zeros(count, np.int64)
        self.ask_size: NDArray[np.int64] = np.zeros(count, np.int64)
        self.quote_ns: NDArray[np.int64] = np.zeros(count, np.int64)
        self._positions = {symbol: position for position, symbol in enumerate(listing.symbols)}
        self._quotes: deque[Quotes] = deque()
        self._quotes_kept = 0
        self._closes.update((symbol, totals.close) for symbol, totals in self.totals.items())
        listed = set(listing.symbols)
        for symbol in [name for name in self._closes if _gone(name, listed)]:
            del self._closes[symbol]
        for symbol in [name for name in self._bars if _gone(name, listed)]:
            del self._bars[symbol]
        self.totals = {}

    def _keep(self, quotes: Quotes) -> None:
        self._quotes.append(quotes)
        self._quotes_kept += len(quotes.ts_ns)
        while self._quotes_kept > _QUOTES_KEPT:
            self._quotes_kept -= len(self._quotes.popleft().ts_ns)

    def _add_bar(self, bar: StockBar) -> None:
        totals = self.totals.get(bar.symbol)
        if totals is None:
            previous = self._closes.get(bar.symbol, float("nan"))
            totals = DayTotals(bar.open, bar.high, bar.low, bar.close, previous)
            self.totals[bar.symbol] = totals
        totals.add(bar, self.now_ns)
        self._bars.setdefault(bar.symbol, deque(maxlen=_BARS_KEPT)).append(bar)


def _gone(symbol: str, listed: set[str]) -> bool:
    return symbol.startswith("O:") and symbol not in listed
