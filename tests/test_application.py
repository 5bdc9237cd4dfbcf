"""What the start of the application waits for, on a Ray of its own."""

import threading
import time

import pytest
import ray

from tests.learning.conftest import local_ray  # noqa: F401
from trading.application import ApplicationFailed, started_or_stopped

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


@ray.remote(num_cpus=0)
def starts(gate: list[ray.ObjectRef]) -> str:
    """A part that has started once what its list holds is there."""
    return str(ray.get(gate[0]))


@ray.remote(num_cpus=0)
class Gate:
    """Opens when it is told to."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    def wait(self) -> str:
        self._open.wait()
        return "started"


def test_a_stop_ends_the_wait_for_a_part_that_is_still_starting() -> None:
    gate = Gate.options(max_concurrency=2).remote()
    part = starts.remote([gate.wait.remote()])
    stop = threading.Event()
    began = time.monotonic()
    timer = threading.Timer(0.2, stop.set)
    timer.start()
    assert not started_or_stopped(part, "the part", stop, timeout_s=600.0)
    assert time.monotonic() - began < 600.0
    with pytest.raises(ApplicationFailed, match="the part did not start within 0 s"):
        started_or_stopped(part, "the part", threading.Event(), timeout_s=0.0)
    ray.get(gate.open.remote())
    assert started_or_stopped(part, "the part", threading.Event(), timeout_s=600.0)
    assert ray.get(part) == "started"
