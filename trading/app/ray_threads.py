"""The driver's threads that ask Ray, which nobody may wait for any more: they end before Ray does.

Ray ends the process of who asks it after its end, at once and with exit code 1, whatever that
process still had to do (`GetCoreWorker` in its `core_worker_process.cc`); and some of its functions
would start another Ray.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_begun: set[threading.Thread] = set()
_mutex = threading.Lock()


def begin(call: Callable[[], None], name: str) -> threading.Thread:
    """Start a thread that asks Ray until `call` returns.

    Parameters
    ----------
    call
        May take long, or wait for ever.
    name
        The thread's.
    """
    thread = threading.Thread(target=call, name=name, daemon=True)
    with _mutex:
        thread.start()
        _begun.add(thread)
    return thread


def await_end(timeout_s: float) -> bool:
    """Wait until none of them runs, `timeout_s` seconds at most; whether that is so."""
    deadline = time.monotonic() + timeout_s
    while running := _running():
        left_s = deadline - time.monotonic()
        if left_s <= 0.0:
            return False
        running.pop().join(left_s)
    return True


def leave(code: int) -> None:
    """End this process where one of them still runs, which would not let it end in order.

    To be called when nothing is left to be done. Returns where none of them runs.
    """
    if await_end(0.0):
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _running() -> set[threading.Thread]:
    with _mutex:
        _begun.difference_update([each for each in _begun if not each.is_alive()])
        return set(_begun)
