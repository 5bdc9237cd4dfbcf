"""Who gets the cores first where they are short: trading, then answers, then learning."""

import os
import sys
import threading

ANSWERS = 5
LEARNING = 10
"""Steps of niceness below trading, which has none."""


def give_way(steps: int) -> None:
    """Let this thread, and those that it starts, have the cores only after who has fewer steps.

    On Linux alone, where niceness is a thread's own. A thread that gives way already is left alone:
    nobody but root may take it back.
    """
    if sys.platform != "linux":
        return
    thread = threading.get_native_id()
    if os.getpriority(os.PRIO_PROCESS, thread) < steps:
        os.setpriority(os.PRIO_PROCESS, thread, steps)
