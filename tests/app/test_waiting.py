"""Waits that a stop ends, whatever does not come."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import ray

from tests.waits import WAIT_S
from trading.app.waiting import (
    Begun,
    Heartbeat,
    StopRequested,
    arrived,
    await_room,
    unless_ending,
    unless_stopped,
)

NOTHING_LEFT = 0.0


@contextmanager
def stopped_soon() -> Iterator[threading.Event]:
    """A stop that is set while somebody waits."""
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    try:
        yield stop
    finally:
        timer.cancel()
        timer.join()


def test_a_call_that_is_done_counts_also_when_told_to_stop() -> None:
    assert unless_stopped(lambda: 7, "it", lambda: False, lambda _: None) == 7
    with pytest.raises(ZeroDivisionError):
        unless_stopped(lambda: 1 // 0, "it", lambda: False, lambda _: None)


def test_what_fails_while_it_starts_fails_nothing_where_all_is_to_end() -> None:
    stop = threading.Event()
    with pytest.raises(ZeroDivisionError), unless_ending("the part", stop.is_set):
        raise ZeroDivisionError
    stop.set()
    with (
        pytest.raises(StopRequested, match="the part") as told,
        unless_ending("the part", stop.is_set),
    ):
        raise ZeroDivisionError
    assert isinstance(told.value.__cause__, ZeroDivisionError)
    with unless_ending("the part", stop.is_set):
        pass
    fails = Begun(lambda: 1 // 0, "the part", lambda _: None)
    fails.take_back(WAIT_S)
    with pytest.raises(StopRequested, match="the part"):
        fails.result(stop.is_set)


def test_a_stop_ends_the_wait_for_a_call_and_what_comes_of_it_is_undone() -> None:
    goes_on, undone = threading.Event(), threading.Event()
    results: list[str] = []

    def call() -> str:
        assert goes_on.wait(WAIT_S)
        return "late"

    def undo(result: str) -> None:
        results.append(result)
        undone.set()

    with stopped_soon() as stop, pytest.raises(StopRequested, match="while it waited for the part"):
        unless_stopped(call, "the part", stop.is_set, undo)
    assert not results
    goes_on.set()
    assert undone.wait(WAIT_S)
    assert results == ["late"]


def test_what_was_begun_goes_on_beside_others_and_is_undone_where_nobody_waits_for_it() -> None:
    goes_on, undone = threading.Event(), threading.Event()
    results: list[str] = []

    def call() -> str:
        assert goes_on.wait(WAIT_S)
        return "made"

    def undo(result: str) -> None:
        results.append(result)
        undone.set()

    begun = Begun(call, "the part", undo)
    begun.take_back(NOTHING_LEFT)
    assert not results, "it is not there yet"
    goes_on.set()
    assert undone.wait(WAIT_S)
    assert results == ["made"]
    there = Begun(call, "the part", undo)
    assert there.result(lambda: False) == "made"
    there.take_back(WAIT_S)
    assert results == ["made", "made"]
    fails = Begun(lambda: 1 // 0, "the part", results.append)
    fails.take_back(WAIT_S)
    with pytest.raises(ZeroDivisionError):
        fails.result(lambda: False)
    assert results == ["made", "made"]


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_stop_ends_the_wait_for_a_part_that_starts() -> None:
    @ray.remote(num_cpus=0)
    class Part:
        def start(self) -> str:
            return "started"

    placed = Part.remote()
    assert arrived(placed.start.remote(), "the part", lambda: False, WAIT_S)
    nowhere = Part.options(resources={"no such node": 1}).remote()
    begun = nowhere.start.remote()
    assert not arrived(begun, "the part", lambda: False, NOTHING_LEFT)
    with stopped_soon() as stop, pytest.raises(StopRequested, match="the part"):
        arrived(begun, "the part", stop.is_set, WAIT_S)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_stop_ends_the_wait_for_nodes_and_takes_back_what_was_asked_for() -> None:
    await_room("nodes", [{"learner": 1.0}], [{"CPU": 1.0}], lambda: False)
    with stopped_soon() as stop, pytest.raises(StopRequested, match="nodes"):
        await_room("nodes", [{"no such node": 1.0}], [{"CPU": 99.0}], stop.is_set)
    table = ray.util.placement_group_table()
    assert "PENDING" not in {each["state"] for each in table.values()}


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_the_wait_for_nodes_asks_the_cluster_some_times_a_second() -> None:
    asked, until_s = 0, time.monotonic() + 1.0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return time.monotonic() > until_s

    with pytest.raises(StopRequested):
        await_room("nodes", [{"no such node": 1.0}], [], stopped)
    assert asked < 15


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_an_actor_that_hangs_is_found_and_the_one_in_its_place_is_not() -> None:
    @ray.remote(num_cpus=0, max_restarts=1, max_task_retries=-1)
    class Part:
        def ping(self) -> int:
            return os.getpid()

    part, heartbeat = Part.remote(), Heartbeat()
    process = ray.get(part.ping.remote())
    assert not heartbeat.is_lost(part, time.monotonic(), 1.0)
    ray.get(part.ping.remote())
    os.kill(process, signal.SIGSTOP)
    deadline = time.monotonic() + WAIT_S
    while not heartbeat.is_lost(part, time.monotonic(), 1.0):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ray.kill(part, no_restart=False)
    assert ray.get(part.ping.remote()) != process
    assert not Heartbeat().is_lost(part, time.monotonic(), 1.0)
