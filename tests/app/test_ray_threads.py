"""Threads that ask Ray, which outlive whoever waits for them, and never Ray."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.waits import START_S, WAIT_S
from trading.app import ray_threads

ROOT = Path(__file__).parents[2]
NOT_YET = 0.1

LEAVES = """
import sys, threading
from trading.app import ray_threads

ray_threads.leave(7)
print("nobody asks Ray")
ray_threads.begin(threading.Event().wait, "asks for ever")
print("what was written is kept", end="")
ray_threads.leave(int(sys.argv[1]))
"""

ASKS_FOR_EVER = """
import os, sys, threading
from rich.console import Console
from trading.app import ray_threads
from trading.app.display import Display
from trading.app.up import ray_runtime
from trading.config import load_settings
from tests.sockets import descendants

settings = load_settings(None, ["serving.port=0", "ray.object_store_mb=100"], {})
asks = threading.Event()

def ask():
    import ray

    @ray.remote(num_cpus=0)
    class Part:
        def answer(self):
            return 42

    part, nowhere = Part.remote(), Part.options(resources={"no such node": 1}).remote()
    ray.get(part.answer.remote())
    asks.set()
    ray.get(nowhere.answer.remote())

with ray_runtime(settings, Display(Console(quiet=True))):
    ray_threads.begin(ask, "asks for ever")
    asks.wait()
    started = descendants(os.getpid()) - {os.getpid()}
left = descendants(os.getpid()) & started
print("in order, of", len(started), "processes", len(left), "are left")
ray_threads.leave(0)
print("it ends by itself")
"""


def run(code: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a process that runs this."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**kept, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=START_S,
        check=False,
    )
    return done.returncode, done.stdout


def test_all_that_were_begun_are_waited_for_also_by_one_another() -> None:
    goes_on, inner_goes_on = threading.Event(), threading.Event()

    def outer() -> None:
        assert goes_on.wait(WAIT_S)
        ray_threads.begin(lambda: assert_set(inner_goes_on), "inner")

    def assert_set(event: threading.Event) -> None:
        assert event.wait(WAIT_S)

    assert ray_threads.await_end(WAIT_S), "nobody left one"
    thread = ray_threads.begin(outer, "outer")
    assert thread.name == "outer" and not ray_threads.await_end(NOT_YET)
    goes_on.set()
    thread.join(WAIT_S)
    assert not ray_threads.await_end(NOT_YET)
    inner_goes_on.set()
    assert ray_threads.await_end(WAIT_S)


@pytest.mark.parametrize("code", [0, 3])
def test_a_process_ends_though_one_of_them_runs_and_keeps_what_it_wrote(code: int) -> None:
    assert run(LEAVES, str(code)) == (code, "nobody asks Ray\nwhat was written is kept")


@pytest.mark.slow
def test_a_thread_that_asks_ray_for_ever_ends_no_process_with_ray() -> None:
    code, said = run(ASKS_FOR_EVER)
    assert code == 0, said
    assert "processes 0 are left" in said and "it ends by itself" not in said
