"""What a process that learns or acts does with its memory, so that less time goes there."""

import ctypes
import sys

from torch.utils import deterministic

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`, see mallopt(3)."""
_KEPT_BYTES = 256 * 2**20
_LARGEST_KEPT_BYTES = 32 * 2**20
"""Of one allocation; the most that glibc takes."""


def keep_freed_memory() -> bool:
    """Have the C library keep up to 256 MiB that were freed, for this process and for good.

    Every minibatch of an update frees a few MiB. By default glibc returns them to the system, whose
    zeroed pages then cost the next minibatch a page fault each: a tenth of an update on CPU.

    Returns
    -------
    bool
        Whether this C library can be told so; on others nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    )


def leave_new_memory_as_it_is() -> None:
    """Have PyTorch not fill new tensors with NaN, in this process and for good.

    It does so while its algorithms are to be deterministic, which RLlib asks for with a seed, for
    the sake of programs that read what they have not written. It was a tenth of an update.
    """
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
