"""The supervisor with applications that are functions: what it does before, after and between."""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.waits import WAIT_S
from trading.errors import LearningError
from trading.execution.lease import AccountLease, ask_to_stop, holder_of
from trading.serving.exposition import supervisor_text
from trading.serving.supervisor import (
    FINISHED,
    RESTARTING,
    STANDBY,
    STARTING,
    STOPPED,
    STOPPING,
    TRADING,
    Application,
    Backoff,
    Supervisor,
    SupervisorDied,
    SupervisorState,
)

NONE = Backoff(first_s=0.01, longest_s=0.01)
T = TypeVar("T")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal-paper.sqlite"


@contextmanager
def supervised(
    journal: Path, application: Application, pauses: Backoff = NONE
) -> Iterator[Supervisor]:
    supervisor = Supervisor(journal, application, pauses)
    try:
        yield supervisor
    finally:
        supervisor.close(WAIT_S)


def until(supervisor: Supervisor, phase: str) -> SupervisorState:
    """Where the supervisor stands once it is in that phase."""
    deadline = time.monotonic() + WAIT_S
    while (state := supervisor.state).phase != phase:
        assert time.monotonic() < deadline, state
        time.sleep(0.005)
    return state


def trade(stop: threading.Event, begin: Callable[[], None]) -> None:
    begin()
    stop.wait()


def test_it_trades_while_it_holds_the_lease_and_stops_in_order(journal: Path) -> None:
    ended = threading.Event()
    goes_on = threading.Event()

    def slow_to_begin_and_to_end(stop: threading.Event, begin: Callable[[], None]) -> None:
        goes_on.wait(WAIT_S)
        begin()
        stop.wait()
        holder = holder_of(journal)
        assert holder is not None and holder.pid == os.getpid()
        ended.set()

    with supervised(journal, slow_to_begin_and_to_end) as supervisor:
        assert until(supervisor, STARTING).leased
        goes_on.set()
        assert until(supervisor, TRADING) == SupervisorState(TRADING, "", leased=True, failures=0)
        supervisor.check()
        supervisor.close(WAIT_S)
        assert ended.is_set()
        state = supervisor.state
        assert (state.phase, state.leased) == (STOPPED, False)
        assert holder_of(journal) is None
        supervisor.check()


def test_it_stands_by_and_writes_nothing_until_the_account_is_free(journal: Path) -> None:
    with AccountLease(journal) as lease, supervised(journal, trade) as supervisor:
        state = until(supervisor, STANDBY)
        deadline = time.monotonic() + WAIT_S
        while "process" not in state.reason:
            assert time.monotonic() < deadline
            state = supervisor.state
        assert state.reason == f"standby: the account is traded by {lease.holder}"
        assert not state.leased
        assert {file.name for file in journal.parent.iterdir()} == {"journal-paper.sqlite.lease"}
        lease.close()
        until(supervisor, TRADING)
    metrics = supervisor_text(SupervisorState(STANDBY, "", leased=False, failures=0)).decode()
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
    }
    assert samples == {
        "trading_bot_lease_held": 0,
        "trading_bot_application_failures_total": 0,
        "trading_bot_ready": 0,
    }


def test_told_to_stop_it_stands_by_no_longer(journal: Path) -> None:
    ran = threading.Event()
    with AccountLease(journal), supervised(journal, lambda *_: ran.set()) as supervisor:
        until(supervisor, STANDBY)
        supervisor.close(WAIT_S)
        assert supervisor.state.phase == STOPPED
    assert not ran.is_set()


def test_trading_stop_ends_it_for_good(journal: Path) -> None:
    with supervised(journal, trade) as supervisor:
        until(supervisor, TRADING)
        holder = holder_of(journal)
        assert holder is not None
        ask_to_stop(journal, holder)
        until(supervisor, STOPPED)
        supervisor.check()


def test_a_failure_is_named_and_the_application_starts_again(journal: Path) -> None:
    lives: queue.SimpleQueue[int] = queue.SimpleQueue()
    left = [LearningError("the learner\nis gone"), KeyError("hunter2")]
    goes_on = threading.Event()

    def fails_twice(stop: threading.Event, begin: Callable[[], None]) -> None:
        lives.put(1)
        if left:
            raise left.pop(0)
        goes_on.wait(WAIT_S)
        trade(stop, begin)

    with supervised(journal, fails_twice, Backoff(first_s=2.0)) as supervisor:
        state = until(supervisor, RESTARTING)
        assert state.reason == "failed 1 times, again in 2 s at most: the learner is gone"
        assert state.leased
        while supervisor.state.failures < 2:
            supervisor.check()
            time.sleep(0.005)
        state = supervisor.state
        assert state.reason == "failed 2 times, again in 4 s at most: KeyError"
        goes_on.set()
        assert until(supervisor, TRADING).failures == 2
    assert lives.qsize() == 3


def test_a_failure_to_take_the_lease_is_one_too(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with supervised(tmp_path / "file" / "journal", trade) as supervisor:
        state = until(supervisor, RESTARTING)
        assert "file" in state.reason and not state.leased
        (tmp_path / "file").unlink()
        until(supervisor, TRADING)


def test_it_does_not_begin_again_when_its_recording_has_ended(journal: Path) -> None:
    with supervised(journal, lambda _, begin: begin()) as supervisor:
        state = until(supervisor, FINISHED)
        assert not state.leased
        supervisor.check()


def test_while_it_stops_it_says_so(journal: Path) -> None:
    goes_on = threading.Event()

    def writes_a_checkpoint(stop: threading.Event, begin: Callable[[], None]) -> None:
        trade(stop, begin)
        goes_on.wait(WAIT_S)

    with supervised(journal, writes_a_checkpoint) as supervisor:
        until(supervisor, TRADING)
        supervisor.close(0.0)
        assert until(supervisor, STOPPING).leased
        goes_on.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_what_a_new_process_mends(journal: Path) -> None:
    def ends_its_thread(*_: object) -> None:
        raise SystemExit

    with supervised(journal, ends_its_thread) as supervisor:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            try:
                supervisor.check()
            except SupervisorDied:
                return
    raise AssertionError("nobody noticed")


def test_pauses_grow_and_a_long_life_forgives() -> None:
    pauses = Backoff(first_s=5.0, longest_s=30.0, steady_s=600.0)
    lengths = [0.0]
    for _ in range(5):
        lengths.append(pauses.after(lengths[-1], lived_s=1.0))
    assert lengths[1:] == [5.0, 10.0, 20.0, 30.0, 30.0]
    assert pauses.after(30.0, lived_s=601.0) == 5.0
