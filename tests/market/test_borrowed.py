"""What is borrowed is the same memory, and views of it are counted for nobody."""

import gc
import weakref
from typing import Any, NamedTuple

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


@njit  # type: ignore[untyped-decorator]
def _double_owned(outer: Outer) -> float:
    """Do what `_double` does, with views of arrays that are owned."""
    seen = outer
    for k in range(len(seen.rows)):
        view = seen.inner.values[k]
        view[:] *= seen.number
    return float(seen.inner.values.sum())


def _counted(kernel: Any) -> int:
    """Return how many places of a compiled function count a reference."""
    return sum(code.count("call void @NRT_incref") for code in kernel.inspect_llvm().values())


def test_what_is_borrowed_is_the_callers_memory_and_goes_when_the_caller_lets_it() -> None:
    values = np.ones((3, 2))
    assert _double(Outer(Inner(values), np.arange(3), 2.0)) == 12.0
    np.testing.assert_array_equal(values, np.full((3, 2), 2.0))
    gone = weakref.ref(values)
    del values
    gc.collect()
    assert gone() is None


def test_a_view_of_what_is_borrowed_counts_no_reference() -> None:
    for kernel in (_double, _double_owned):
        assert kernel(Outer(Inner(np.ones((3, 2))), np.arange(3), 2.0)) == 12.0
    assert _counted(_double) < _counted(_double_owned)
