"""Encodes a step's events for the wire, each once however many connections want it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from trading.data.massive.columns import Quotes, Trades
from trading.data.massive.server.market_state import DayTotals
from trading.data.massive.wire import Aggregate, PriceBand, Quote, Trade
from trading.market.bars import StockBar
from trading.market.rare_events import HaltNews

EXCHANGE_ID: Final = 302
"""The exchange that simulated and recorded quotes are attributed to (Cboe, by the vendor)."""

AUTO_EXECUTION: Final = 209
"""Condition of an ordinary electronic option trade."""

HALT_INDICATOR: Final = 17
"""Of a stock that is halted, in the vendor's words for its `LULD` channel."""

_NS_PER_MS: Final = 1_000_000
_ENCODE: Final = msgspec.json.Encoder().encode


def encode_quotes(quotes: Quotes, rows: NDArray[np.intp], symbols: Sequence[str]) -> list[bytes]:
    """Return the chosen `rows` of `quotes` as `Q` events; `symbols` by position in the listing."""
    columns = zip(
        quotes.contract[rows].tolist(),
        (quotes.ts_ns[rows] // _NS_PER_MS).tolist(),
        quotes.bid[rows].tolist(),
        quotes.ask[rows].tolist(),
        quotes.bid_size[rows].tolist(),
        quotes.ask_size[rows].tolist(),
        quotes.sequence[rows].tolist(),
        strict=True,
    )
    return [
        _ENCODE(Quote(symbols[contract], t, bp, ap, bs, as_, q, EXCHANGE_ID, EXCHANGE_ID))
        for contract, t, bp, ap, bs, as_, q in columns
    ]


def encode_trades(trades: Trades, rows: NDArray[np.intp], symbols: Sequence[str]) -> list[bytes]:
    """Return the chosen `rows` of `trades` as `T` events; `symbols` by position in the listing."""
    columns = zip(
        trades.contract[rows].tolist(),
        (trades.ts_ns[rows] // _NS_PER_MS).tolist(),
        trades.price[rows].tolist(),
        trades.size[rows].tolist(),
        trades.sequence[rows].tolist(),
        strict=True,
    )
    return [
        _ENCODE(Trade(symbols[contract], t, price, size, (AUTO_EXECUTION,), q, EXCHANGE_ID))
        for contract, t, price, size, q in columns
    ]


def encode_bar(bar: StockBar, end_ns: int, totals: DayTotals) -> bytes:
    """Return a minute bar as an `AM` event.

    Volumes are whole numbers on the wire. The average trade size `z` is 0, which stands for
    unknown: a bar does not say how many trades made it.
    """
    return _ENCODE(
        Aggregate(
            sym=bar.symbol,
            s=bar.start_ns // _NS_PER_MS,
            e=end_ns // _NS_PER_MS,
            o=bar.open,
            h=bar.high,
            l=bar.low,
            c=bar.close,
            v=round(bar.volume),
            vw=bar.vwap,
            av=round(totals.volume),
            op=totals.open,
            a=totals.vwap,
            z=0,
        )
    )


def encode_halt(news: HaltNews) -> bytes:
    """Return what is told of a halt as a `LULD` event without limits."""
    indicators = (HALT_INDICATOR,) if news.halted else ()
    return _ENCODE(PriceBand(news.symbol, news.ts_ns // _NS_PER_MS, i=indicators))


def frames(events: Sequence[bytes], max_events: int) -> Iterator[bytes]:
    """Yield encoded events joined to frames, JSON arrays of at most `max_events`."""
    for begin in range(0, len(events), max_events):
        yield b"[" + b",".join(events[begin : begin + max_events]) + b"]"
