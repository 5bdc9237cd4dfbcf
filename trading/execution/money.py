"""Amounts of money in whole micro-dollars."""

import numpy as np
from numba import njit


@njit(cache=True)
def round_usd(amount: float) -> float:
    """Nearest float to a whole number of micro-dollars, so that sums never drift.

    One kernel for the account, the broker and batched training: all of them book the same bits.
    NaN and infinity pass through.
    """
    return float(np.rint(amount * 1e6) / 1e6)
