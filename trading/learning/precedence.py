"""Who gets the cores first where they are short: trading, then answers, then learning."""

import os
import sys
import threading

ANSWERS = 17
LEARNING = 19
"""Niceness. Ray gives all of its processes, trading among them, 15, and the driver has none."""


def give_way(niceness: int) -> None:
    """Let this thread, and those that it starts, have the cores only after who is less nice.

    Learning also leaves its core at once to whoever wakes up: among threads of like niceness one
    that answers would wait for the end of a time slice, several times a request. On Linux alone,
    where niceness is a thread's own. A thread that gives way already is left alone: nobody but root
    may take it back.
    """
    if sys.platform != "linux":
        return
    thread = threading.get_native_id()
    if os.getpriority(os.PRIO_PROCESS, thread) < niceness:
        os.setpriority(os.PRIO_PROCESS, thread, niceness)
    if niceness == LEARNING:
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
