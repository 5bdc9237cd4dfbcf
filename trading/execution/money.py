"""Amounts of money as floats that are whole micro-dollars."""

import numpy as np
from numba import njit


@njit(cache=True)
def usd(amount: float) -> float:
    """Nearest float to a whole micro-dollar, so that sums never drift from their decimals."""
    return float(np.rint(amount * 1e6) / 1e6)
