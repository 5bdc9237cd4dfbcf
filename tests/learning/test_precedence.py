"""Who gets the cores first: a thread gives way for itself, and for those that it starts."""

import os
import sys
import threading

import pytest

from trading.learning.precedence import ANSWERS, LEARNING, give_way

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="niceness is a thread's on Linux")


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_a_thread_gives_way_and_its_process_does_not() -> None:
    found: list[int] = []
    policies: list[int] = []

    def learn() -> None:
        give_way(LEARNING)
        found.append(niceness())
        policies.append(os.sched_getscheduler(threading.get_native_id()))
        child = threading.Thread(target=lambda: found.append(niceness()))
        child.start()
        child.join()
        give_way(ANSWERS)
        found.append(niceness())

    before = niceness(), os.sched_getscheduler(0)
    thread = threading.Thread(target=learn)
    thread.start()
    thread.join()
    assert found == [LEARNING] * 3, "its own threads too, and nothing is taken back"
    assert policies == [os.SCHED_IDLE], "it leaves its core at once to whoever wakes up"
    assert (niceness(), os.sched_getscheduler(0)) == before
    assert ANSWERS < LEARNING
