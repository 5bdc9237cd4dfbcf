import gc
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trading.errors import JournalDiskError, JournalError, JournalLocked
from trading.execution.events import (
    AccountOpened,
    DecisionMade,
    Event,
    SessionClosed,
    StateChanged,
    WeightsAdopted,
)
from trading.execution.journal import Journal
from trading.execution.journal.integrity import inspect_journal
from trading.execution.states import TradingState

OPENED = AccountOpened(1, "paper", 1000.0)


def decision(ts_ns: int, reward: float = 0.5, value: float = 0.25) -> DecisionMade:
    return DecisionMade(ts_ns, "SPY", 0, "hold", 3, value, reward)


def test_events_read_back_as_they_were_written(tmp_path: Path) -> None:
    events: list[Event] = [
        OPENED,
        decision(2),
        WeightsAdopted(3, 4, "abc"),
        StateChanged(4, TradingState.REDUCING, "operator"),
        SessionClosed(5, "2026-01-05", 1000.0),
    ]
    with Journal(tmp_path / "journal.db") as journal:
        assert [journal.append(event) for event in events] == [1, 2, 3, 4, 5]
        assert journal.last_ts_ns == 5
    with Journal(tmp_path / "journal.db", read_only=True) as journal:
        assert list(journal.events()) == events
        assert list(journal.events(after=3)) == events[3:]
        assert (journal.last_seq, journal.last_ts_ns) == (5, 5)


@contextmanager
def as_another_user(user: int = 65534) -> Iterator[None]:
    """Tests may run as root, who may write everywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(user)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_journal_is_read_in_a_folder_that_may_not_be_written() -> None:
    """A copy on another disk, another user's account; it is not damaged for that."""
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "journal.db"
        with Journal(path) as journal:
            journal.append_many([OPENED, decision(2)])
            digest = journal.digest()
        path.chmod(0o444)
        folder.chmod(0o555)
        before = sorted(folder.iterdir())
        try:
            with as_another_user():
                with Journal(path, read_only=True) as journal:
                    assert journal.digest() == digest
                found = inspect_journal(path)
                assert (found.problem, found.events) == ("", 2)
            assert sorted(folder.iterdir()) == before
        finally:
            folder.chmod(0o755)


def test_a_log_that_this_user_cannot_read_is_no_damage(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name, Journal(tmp_path / "journal.db") as journal:
        journal.append(OPENED)
        copy = Path(name) / "journal.db"
        for suffix in ("", "-wal"):
            shutil.copy(f"{journal.path}{suffix}", f"{copy}{suffix}")
        copy.parent.chmod(0o555)
        try:
            with as_another_user():
                for read in (inspect_journal, lambda path: Journal(path, read_only=True)):
                    with pytest.raises(JournalError, match="cannot be read by this user"):
                        read(copy)
        finally:
            copy.parent.chmod(0o755)


def test_equal_histories_have_equal_digests(tmp_path: Path) -> None:
    digests = []
    for name in ("a.db", "b.db"):
        with Journal(tmp_path / name) as journal:
            journal.append(OPENED)
            journal.append_many([decision(ts_ns) for ts_ns in range(2, 50)])
            digests.append(journal.digest())
            journal.append(decision(50))
            assert journal.digest() != digests[-1]
    assert digests[0] == digests[1]


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path) as journal:
        journal.append(OPENED)
        with pytest.raises(JournalLocked, match=r"journal\.db"):
            Journal(path)
        with Journal(path, read_only=True) as reader:
            assert list(reader.events()) == [OPENED]
            journal.append(decision(2))
            assert list(reader.events()) == [OPENED, decision(2)]
            with pytest.raises(JournalError, match="read-only"):
                reader.append(decision(3))
    Journal(path).close()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_cannot_hold_is_refused_with_its_whole_batch(
    tmp_path: Path, bad: float
) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        journal.append(OPENED)
        with pytest.raises(JournalError, match="finite"):
            journal.append_many([decision(2), decision(3, reward=bad)])
        assert list(journal.events()) == [OPENED]
        assert journal.append(decision(2)) == 2


def test_a_full_disk_writes_none_of_a_batch_and_the_journal_goes_on_later(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        journal.append(OPENED)
        journal._connection.execute("PRAGMA max_page_count = 10")
        with pytest.raises(JournalDiskError, match="disk is full"):
            journal.append_many([decision(ts_ns) for ts_ns in range(2, 2000)])
        journal._connection.execute("PRAGMA max_page_count = 1000000")
        assert journal.append(decision(2)) == 2
        assert list(journal.events()) == [OPENED, decision(2)]


def test_rows_cannot_be_changed_or_deleted(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path) as journal:
        journal.append(OPENED)
    with sqlite3.connect(path) as connection:
        for statement in ("DELETE FROM events", "UPDATE events SET ts_ns = 0"):
            with pytest.raises(sqlite3.IntegrityError, match="final"):
                connection.execute(statement)


def test_a_missing_row_is_found(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path) as journal:
        journal.append_many([OPENED, decision(2), decision(3)])
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TRIGGER events_are_final_delete")
        connection.execute("DELETE FROM events WHERE seq = 2")
    reader = Journal(path, read_only=True)
    with reader as journal, pytest.raises(JournalError, match=r"event 2 .* missing"):
        journal.fold()


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path) as journal:
        journal.append(OPENED)
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO events VALUES (2, 2, 'decision_made', '{\"kind\":', 0)")
    reader = Journal(path, read_only=True)
    with reader as journal, pytest.raises(JournalError, match=r"event 2 .* damaged"):
        journal.fold()


def test_another_file_is_refused_and_not_kept_locked(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_text("no database " * 100)
    for _ in range(2):
        with pytest.raises(JournalError, match=r"cannot open journal .*journal\.db"):
            Journal(path)


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '99'")
    with pytest.raises(JournalError, match="schema version 99"):
        Journal(path)


def test_an_absent_journal_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no journal at"):
        Journal(tmp_path / "journal.db", read_only=True)


def test_one_journal_belongs_to_one_account(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        assert journal.open_account("paper", 1000.0, 1).cash == 1000.0
        assert journal.open_account("paper", 5.0, 2).cash == 1000.0
        assert journal.last_seq == 1
        with pytest.raises(JournalError, match="'paper', not 'other'"):
            journal.open_account("other", 1000.0, 3)


APPENDER = """
import sys
from pathlib import Path
from trading.execution.events import DecisionMade
from trading.execution.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.open_account("paper", 1000.0, 1)
while True:
    ts_ns = journal.last_seq + 1
    batch = [DecisionMade(ts_ns, f"S{i}", 0, "hold", 0, 0.0, 0.5) for i in range(3)]
    print(journal.append_many(batch), flush=True)
"""


def test_kill_during_appends_loses_nothing_acknowledged_and_tears_no_batch(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout if line.endswith("\n")]
        process.wait()
        with Journal(path) as journal:
            account = journal.fold()
            assert journal.last_seq >= acknowledged[-1]
            assert account.decisions == journal.last_seq - 1
            assert account.decisions % 3 == 0
            assert account.reward_total == 0.5 * account.decisions


def test_a_journal_that_is_dropped_keeps_no_lock(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.open_account("paper", 1000.0, 1)
    del journal
    gc.collect()
    with Journal(tmp_path / "journal.sqlite") as again:
        assert again.restore().cash == 1000.0
