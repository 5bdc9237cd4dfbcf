"""Memory that a learner frees and needs again a moment later stays with its process."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`, see mallopt(3)."""
_KEPT_BYTES = 256 * 2**20
_LARGEST_KEPT_BYTES = 32 * 2**20
"""Of one allocation; the most that glibc takes."""


def keep_freed_memory() -> bool:
    """Has the C library keep up to 256 MiB that were freed, for this process and for good.

    Every minibatch of an update frees a few MiB. By default glibc returns them to the system, whose
    zeroed pages then cost the next minibatch a page fault each: a tenth of an update on CPU.

    Returns:
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
