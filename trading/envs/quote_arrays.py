"""The quotes of many snapshots side by side, as accounts trade and mark them."""

from typing import NamedTuple

import numpy as np

from trading.market.chain import F64, I8, I64, ChainColumns


class QuoteArrays(NamedTuple):
    """Contracts and their quotes in snapshots 0 to K - 1, one after the other.

    Contract `i` of snapshot `f` is entry `contract_offset[f] + i` of the contracts and entry
    `quote_offset[f] + i` of the quotes.
    """

    contract_offset: I64
    """[K]"""
    quote_offset: I64
    """[K]"""
    strike: F64
    """[contracts], USD, and likewise the next two."""
    expiry_ns: I64
    right: I8
    bid: F64
    """[quotes], as in `ChainColumns`, and likewise the rest."""
    ask: F64
    bid_size: F64
    ask_size: F64
    quote_ns: I64
    mark: F64
    delta: F64
    gamma: F64
    vega: F64
    theta: F64


LISTED = ("strike", "expiry_ns", "right")
QUOTED = (
    "bid",
    "ask",
    "bid_size",
    "ask_size",
    "quote_ns",
    "mark",
    "delta",
    "gamma",
    "vega",
    "theta",
)


def quote_arrays(chains: ChainColumns) -> QuoteArrays:
    """Return views of a batch of B chains of equal size, or of one chain.

    Snapshot b shows chain b.
    """
    count = len(chains.strike) if chains.strike.ndim == 2 else 1
    size = chains.strike.shape[-1]
    at = np.arange(count, dtype=np.int64) * size
    columns = {name: getattr(chains, name).reshape(-1) for name in LISTED + QUOTED}
    return QuoteArrays(at, at, **columns)
