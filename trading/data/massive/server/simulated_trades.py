"""Simulated option trades, and the minute bars that trades make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from trading.data.massive.columns import Quotes, Trades
from trading.market.bars import StockBar

MINUTE_NS: Final = 60_000_000_000


class SimulatedTrades:
    """Trades at the touch, for a market model that only quotes.

    Of the contracts requoted in a step with both sides present, each trades with a fixed
    probability: at its ask or its bid with equal chance, at the time of the quote, for at most
    the displayed size. The outcome depends on the seed, the step's time and its quotes alone,
    so it is the same wherever a simulation is entered.

    Parameters
    ----------
    seed: of the random numbers
    probability: chance that a requoted contract trades
    """

    def __init__(self, seed: int, probability: float = 0.02) -> None:
        self._seed = seed
        self._probability = probability

    def trades(self, ts_ns: int, quotes: Quotes) -> Trades:
        """Return the trades among the `quotes` of the step that ends at `ts_ns`.

        A trade's sequence number follows that of every quote of the step.
        """
        count = len(quotes.ts_ns)
        if count == 0:
            return Trades.none()
        rng = np.random.default_rng([self._seed, ts_ns])
        two_sided = (quotes.bid > 0.0) & (quotes.ask > quotes.bid)
        chosen = np.flatnonzero(two_sided & (rng.random(count) < self._probability))
        buy = rng.random(len(chosen)) < 0.5
        displayed = np.where(buy, quotes.ask_size[chosen], quotes.bid_size[chosen])
        traded = chosen[displayed > 0]
        buy = buy[displayed > 0]
        displayed = displayed[displayed > 0]
        return Trades(
            contract=quotes.contract[traded],
            price=np.where(buy, quotes.ask[traded], quotes.bid[traded]),
            size=np.minimum(rng.geometric(0.3, len(traded)), displayed),
            ts_ns=quotes.ts_ns[traded],
            sequence=quotes.sequence[-1] + 1 + np.arange(len(traded)),
        )


class MinuteBarBuilder:
    """Builds minute bars of option contracts from their trades.

    Parameters
    ----------
    symbols: of the contracts, by position in the listing
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = symbols
        self._open: dict[tuple[int, int], _Window] = {}
        self._closed_until_ns = 0

    def advance(self, ts_ns: int, trades: Trades) -> list[StockBar]:
        """Add `trades` and return the bars of the windows that ended by `ts_ns`.

        A trade that is older than the windows already returned counts in the next one.
        Contracts without a trade in a window have no bar.
        """
        rows = zip(
            trades.ts_ns.tolist(),
            trades.contract.tolist(),
            trades.price.tolist(),
            trades.size.tolist(),
            strict=True,
        )
        for trade_ns, contract, price, size in rows:
            start_ns = max(trade_ns // MINUTE_NS * MINUTE_NS, self._closed_until_ns)
            window = self._open.get((start_ns, contract))
            if window is None:
                window = self._open[start_ns, contract] = _Window(price)
            window.add(price, size)
        self._closed_until_ns = ts_ns // MINUTE_NS * MINUTE_NS
        ended = sorted(key for key in self._open if key[0] < self._closed_until_ns)
        return [self._open.pop(key).bar(self._symbols[key[1]], start_ns=key[0]) for key in ended]


class _Window:
    """One contract's trades of one minute."""

    __slots__ = ("close", "high", "low", "notional", "open", "volume")

    def __init__(self, price: float) -> None:
        self.open = self.high = self.low = self.close = price
        self.volume = 0
        self.notional = 0.0

    def add(self, price: float, size: int) -> None:
        self.high = max(self.high, price)
        self.low = min(self.low, price)
        self.close = price
        self.volume += size
        self.notional += price * size

    def bar(self, symbol: str, start_ns: int) -> StockBar:
        return StockBar(
            symbol,
            start_ns,
            self.open,
            self.high,
            self.low,
            self.close,
            float(self.volume),
            round(self.notional / self.volume, 4),
        )
