"""One of the applications that share an account's folder trades."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.waits import WAIT_S
from trading.errors import AccountLeased, JournalError
from trading.execution.journal import Journal
from trading.execution.lease import (
    AccountLease,
    LeaseHolder,
    ask_to_stop,
    holder_of,
    lease_path,
    wait_for_any,
    wait_for_lease,
)

HOLD = """
import sys, threading
from pathlib import Path
from trading.execution.lease import AccountLease
stop = threading.Event()
with AccountLease(Path(sys.argv[1])) as lease:
    lease.answer_requests(stop)
    print("held", flush=True)
    stop.wait()
"""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal-paper.sqlite"


@contextmanager
def another_process(journal: Path, cluster: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease until it is asked to stop, or killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(journal)],
        env={**os.environ, "RAY_CLUSTER_NAME": cluster},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait(WAIT_S)


def content(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_second_application_is_refused_and_told_who_trades(journal: Path) -> None:
    with another_process(journal, cluster="trading-x7k2p") as process:
        before = content(journal.parent)
        with pytest.raises(AccountLeased, match=r"trading-x7k2p.*trading stop") as refused:
            AccountLease(journal)
        assert f"process {process.pid}," in refused.value.holder
        assert content(journal.parent) == before
        holder = holder_of(journal)
        assert holder is not None and holder.pid == process.pid and not holder.is_here


def test_a_killed_holder_holds_nothing(journal: Path) -> None:
    with another_process(journal) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(WAIT_S)
        assert holder_of(journal) is None
        with AccountLease(journal) as lease:
            assert lease.holder == holder_of(journal)
            assert lease.holder.pid == os.getpid() and lease.holder.is_here
        assert holder_of(journal) is None


def test_who_waits_gets_it_when_it_is_let_go(journal: Path) -> None:
    told: list[AccountLeased] = []
    with another_process(journal):
        holder = holder_of(journal)
        assert holder is not None

        def ask(error: AccountLeased) -> None:
            told.append(error)
            ask_to_stop(journal, holder)

        lease = wait_for_lease(journal, threading.Event(), WAIT_S, ask)
    assert lease is not None
    assert [error.holder for error in told] == [str(holder)]
    assert not lease.is_asked_for  # the request was for the one before
    lease.close()
    lease.close()


def test_waiting_ends_with_its_time_and_when_told(journal: Path) -> None:
    stop = threading.Event()
    with AccountLease(journal):
        with pytest.raises(AccountLeased):
            wait_for_lease(journal, stop, 0.0, lambda _: None)
        stop.set()
        assert wait_for_lease(journal, stop, None, lambda _: None) is None


def test_a_request_is_for_one_holder_only(journal: Path) -> None:
    stop = threading.Event()
    with AccountLease(journal) as first:
        other = LeaseHolder.this_process()
        ask_to_stop(journal, other)
        assert not first.is_asked_for
        ask_to_stop(journal, first.holder)
        assert first.is_asked_for
        first.answer_requests(stop)
        assert stop.wait(WAIT_S)
    with AccountLease(journal) as second:
        assert not second.is_asked_for


def test_a_process_that_writes_the_journal_without_a_lease_is_waited_for(journal: Path) -> None:
    """As the live market of a driver that was killed, until Ray has ended it too."""
    with Journal(journal), pytest.raises(AccountLeased, match="writes the journal"):
        AccountLease(journal)
    with AccountLease(journal), Journal(journal):
        pass


def test_what_the_file_held_before_does_not_matter(journal: Path) -> None:
    journal.parent.mkdir()
    for content in (b'{"host":"\xff","pid":1,"cluster":"","since":"","key":""}', b"no json" * 100):
        lease_path(journal).write_bytes(content)
        assert holder_of(journal) is None
    with AccountLease(journal) as lease:
        assert holder_of(journal) == lease.holder


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match=r"file/journal\.sqlite\.lease"):
        AccountLease(tmp_path / "file" / "journal.sqlite")


def test_of_several_accounts_the_first_that_is_free_is_taken(tmp_path: Path) -> None:
    journals = {name: tmp_path / name / "journal.sqlite" for name in ("a", "b", "c")}
    told: list[int] = []
    with AccountLease(journals["a"]), ExitStack() as stack:
        for name in ("b", "c"):
            claimed = wait_for_any(
                {name: [each] for name, each in journals.items()}, threading.Event(), told.append
            )
            assert claimed is not None and claimed[0] == name
            stack.enter_context(claimed[1][0])
        assert told == []


def test_who_finds_no_free_account_is_told_and_takes_over_the_first_that_is_let_go(
    tmp_path: Path,
) -> None:
    journals = {name: tmp_path / name / "journal.sqlite" for name in ("a", "b")}
    told: list[int] = []
    held = {name: AccountLease(journal) for name, journal in journals.items()}
    with held["a"]:

        def tell(taken: int) -> None:
            told.append(taken)
            held["b"].close()

        claimed = wait_for_any(
            {name: [each] for name, each in journals.items()}, threading.Event(), tell
        )
        assert claimed is not None
        claimed[1][0].close()
    assert (claimed[0], told) == ("b", [2])


def test_who_is_told_to_stop_waits_no_longer_for_an_account(tmp_path: Path) -> None:
    stop = threading.Event()
    with AccountLease(tmp_path / "journal.sqlite"):
        found = wait_for_any({"a": [tmp_path / "journal.sqlite"]}, stop, lambda _: stop.set())
    assert found is None


def test_what_is_taken_at_once_is_taken_whole_or_left(tmp_path: Path) -> None:
    both, other = [tmp_path / "unit", tmp_path / "a.sqlite"], tmp_path / "b.sqlite"
    journals = {"unit": both, "b": [other]}
    with AccountLease(both[1]):
        claimed = wait_for_any(journals, threading.Event(), lambda _: None)
        assert claimed is not None and claimed[0] == "b"
        assert holder_of(both[0]) is None, "it was let go of again"
    claimed[1][0].close()
    claimed = wait_for_any(journals, threading.Event(), lambda _: None)
    assert claimed is not None and claimed[0] == "unit" and len(claimed[1]) == 2
    for lease in claimed[1]:
        lease.close()
