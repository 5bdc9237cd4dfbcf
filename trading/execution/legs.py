"""What the symbol of a leg stands for: an option, or round lots of a stock."""

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trading.execution.orders import Leg
from trading.market.contracts import parse_symbol

STOCK_RIGHT = 0
"""The `right` of a stock leg; +1 is a call, -1 a put."""


class LegTerms(NamedTuple):
    """One leg's instrument. Stock has right 0, strike 0 and never expires."""

    right: int
    strike: float
    expiry: date
    root: str


def is_stock(symbol: str) -> bool:
    """Return whether a symbol is a plain ticker, as in `GOOG`; options are written `O:GOOG...`."""
    return not symbol.startswith("O:")


def terms_of(symbol: str) -> LegTerms:
    """Return the instrument behind a symbol; raises ContractError on a malformed option symbol."""
    if is_stock(symbol):
        return LegTerms(STOCK_RIGHT, 0.0, date.max, symbol)
    contract = parse_symbol(symbol)
    return LegTerms(int(contract.right), contract.strike, contract.expiry, contract.root)


def as_arrays(
    legs: tuple[Leg, ...],
) -> tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.int64]]:
    """Rights i8[L], strikes f64[L] and ratios i64[L], as kernels take them."""
    return arrays_of(legs, [terms_of(leg.symbol) for leg in legs])


def arrays_of(
    legs: Sequence[Leg], terms: Sequence[LegTerms]
) -> tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.int64]]:
    """Return the same where the terms of each leg are known."""
    return (
        np.array([each.right for each in terms], dtype=np.int8),
        np.array([each.strike for each in terms], dtype=np.float64),
        np.array([leg.ratio for leg in legs], dtype=np.int64),
    )
