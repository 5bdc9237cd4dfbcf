"""What is borrowed is the same memory, and is counted for nobody."""

import gc
import weakref
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.market.borrowed import borrowed


class Inner(NamedTuple):
    values: NDArray[np.float64]


class Outer(NamedTuple):
    inner: Inner
    rows: NDArray[np.int64]
    number: float


@njit  # type: ignore[untyped-decorator]
def _double(outer: Outer) -> float:
    seen = borrowed(outer)
    for k in range(len(seen.rows)):
        view = seen.inner.values[k]
        view[:] *= seen.number
    return float(seen.inner.values.sum())


def test_what_is_borrowed_is_the_callers_memory_and_goes_when_the_caller_lets_it() -> None:
    values = np.ones((3, 2))
    assert _double(Outer(Inner(values), np.arange(3), 2.0)) == 12.0
    np.testing.assert_array_equal(values, np.full((3, 2), 2.0))
    gone = weakref.ref(values)
    del values
    gc.collect()
    assert gone() is None
