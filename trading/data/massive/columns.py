"""Quotes and trades of many contracts as columns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Quotes(NamedTuple):
    """Quotes as columns of equal length n, in order of time.

    Attributes
    ----------
    contract: i64[n], position in the listing
    bid, ask: f64[n], USD per share; 0 means that the side is absent
    bid_size, ask_size: i64[n], contracts
    ts_ns: i64[n], UTC
    sequence: i64[n], rising per contract
    """

    contract: NDArray[np.int64]
    bid: NDArray[np.float64]
    ask: NDArray[np.float64]
    bid_size: NDArray[np.int64]
    ask_size: NDArray[np.int64]
    ts_ns: NDArray[np.int64]
    sequence: NDArray[np.int64]

    @classmethod
    def none(cls) -> Quotes:
        """Columns of length 0."""
        empty, prices = np.empty(0, np.int64), np.empty(0, np.float64)
        return cls(empty, prices, prices, empty, empty, empty, empty)


class Trades(NamedTuple):
    """Trades as columns of equal length n, in order of time.

    Attributes
    ----------
    contract: i64[n], position in the listing
    price: f64[n], USD per share
    size: i64[n], contracts
    ts_ns: i64[n], UTC
    sequence: i64[n], rising per contract
    """

    contract: NDArray[np.int64]
    price: NDArray[np.float64]
    size: NDArray[np.int64]
    ts_ns: NDArray[np.int64]
    sequence: NDArray[np.int64]

    @classmethod
    def none(cls) -> Trades:
        """Columns of length 0."""
        empty = np.empty(0, np.int64)
        return cls(empty, np.empty(0, np.float64), empty, empty, empty)
