"""Shares out the work on a minibatch among threads that meet once, at its end.

PyTorch's own threads meet after every operation. An LSTM is a chain of small ones, so they wait for
each other most of the time, and on a busy machine each wait is as long as the slowest thread.
Sequences do not depend on each other until their gradients are added.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

SMALLEST_SHARE = 8
"""Sequences; matrix products over fewer rows are slower than a second thread makes up for."""


@contextmanager
def single_threaded() -> Iterator[int]:
    """PyTorch uses one thread in the body; gives how many it would have used on CPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def shared_out(work: Callable[[Tensor], Tensor], columns: Tensor, threads: int) -> list[Tensor]:
    """Call `work` on equal shares of `columns`, one a thread; results in the shares' order.

    The first is the calling thread's.

    Parameters
    ----------
    work
        Called with int64 [share]; it runs with one thread of PyTorch's own.
    columns : int64 [V]
        The sequences of a minibatch.
    threads
        The most to use; fewer where a share would be below `SMALLEST_SHARE`.
    """
    count = min(threads, len(columns) // SMALLEST_SHARE)
    if count < 2:
        return [work(columns)]
    own, *others = columns.tensor_split(count)
    with single_threaded():
        futures = [_pool(count - 1).submit(work, share) for share in others]
        return [work(own), *(future.result() for future in futures)]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(
        threads, "sequences", initializer=torch.set_num_threads, initargs=(1,)
    )
