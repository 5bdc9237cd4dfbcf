"""How long tests wait for what must come: far longer than it takes, on a busy and slow machine too.

These are bounds of despair, reached where something is broken. No test is about them.
"""

import time
from collections.abc import Callable
from typing import Any

WAIT_S = 300.0
"""For an answer, a thread, or a process that is there already."""
START_S = 900.0
"""For the application, a cluster, or a part of them to come up: on one core beside busy neighbours
Ray alone takes minutes, and kernels may have to be compiled."""
STOP_S = 300.0
"""For it to end in order."""


def until(condition: Callable[[], Any], within_s: float = WAIT_S, poll_s: float = 0.01) -> Any:
    """What the condition comes to, once it is true."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(poll_s)
    return found
