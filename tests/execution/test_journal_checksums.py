"""Flipped bits, snapshots, and the names that one journal has."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.execution.scene import NOW_NS, SECOND_NS, market, open_order
from tests.usual import fee_schedule, risk_limits
from trading.cli.journal import journal_app
from trading.errors import AccountLeased, JournalError, JournalLocked
from trading.execution.broker import PaperBroker
from trading.execution.events import AccountOpened, DecisionMade, Event, SessionClosed
from trading.execution.journal import Journal
from trading.execution.journal import integrity as journal_integrity
from trading.execution.journal import snapshots as journal_snapshots
from trading.execution.journal.integrity import inspect_journal
from trading.execution.journal.snapshots import SNAPSHOTS_KEPT, snapshots
from trading.execution.lease import AccountLease

DAY_NS = 86_400 * SECOND_NS
STRIDE_BITS = 997


def traded(path: Path, sessions: int = 4, bars: int = 6) -> Path:
    """An account that trades for some sessions and still holds something."""
    with Journal(path) as journal:
        journal._connection.execute("PRAGMA synchronous = OFF")
        account = journal.open_account("paper", 30_000.0, NOW_NS)
        broker = PaperBroker(journal, account, fee_schedule(), risk_limits())
        for session in range(sessions):
            start_ns = NOW_NS + session * DAY_NS
            for bar in range(bars):
                ts_ns = start_ns + bar * 60 * SECOND_NS
                broker.record(
                    [DecisionMade(ts_ns, "SPY", bar, "hold", 1, 0.25, bar / 8, profit=bar / 4)]
                )
                if bar == 1 and not account.strategies:
                    order = open_order(broker, "bull_put_credit", 1, ts_ns=ts_ns)
                    broker.submit(order, market(ts_ns), True, ts_ns)
            end_ns = start_ns + bars * 60 * SECOND_NS
            broker.close_session(f"2026-01-{5 + session:02d}", broker.equity(), end_ns)
        broker.record([DecisionMade(end_ns + DAY_NS, "SPY", 0, "hold", 1, 0.25, 0.5)])
        assert account.strategies and account.fills
    return path


def flip(path: Path, bit: int) -> None:
    with path.open("rb+") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def read_back(path: Path) -> tuple[str, str]:
    with Journal(path, read_only=True) as journal:
        return journal.digest(), journal.fold().fingerprint()


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path: Path) -> None:
    origin = traded(tmp_path / "journal.db")
    before = read_back(origin)
    bits = 8 * origin.stat().st_size
    found = 0
    for bit in range(0, bits, STRIDE_BITS):
        path = tmp_path / f"flipped-{bit}.db"
        shutil.copy(origin, path)
        shutil.copy(origin.with_name("journal.db.lock"), path.with_name(path.name + ".lock"))
        flip(path, bit)
        try:
            whole = inspect_journal(path).whole
        except JournalError:
            whole = False
        if whole:
            assert read_back(path) == before, bit
        found += not whole
        for each in tmp_path.glob("flipped*"):
            each.unlink()
    assert found > bits // STRIDE_BITS // 4


def test_a_flipped_bit_anywhere_in_a_row_or_a_snapshot_is_found(tmp_path: Path) -> None:
    origin = traded(tmp_path / "journal.db", sessions=2, bars=3)
    content = origin.read_bytes()
    connection = sqlite3.connect(origin)
    texts = [row[0] for row in connection.execute("SELECT payload FROM events")]
    texts += [row[0] for row in connection.execute("SELECT state FROM snapshots")]
    texts = [text[:1000] for text in texts]  # What follows lies on overflow pages.
    connection.close()
    for number, text in enumerate(texts):
        at = content.index(text[:600].encode())
        for place in range(at, at + min(len(text), 600), 13):
            path = tmp_path / "flipped.db"
            shutil.copy(origin, path)
            flip(path, 8 * place + (number + place) % 8)
            assert not inspect_journal(path).whole, (number, place)


def test_a_changed_amount_is_found_by_every_reader(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path) as journal:
        journal.append(AccountOpened(1, "paper", 1000.0))
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"cash":1000.0', b'"cash":5000.0'))
    with Journal(path, read_only=True) as journal, pytest.raises(JournalError, match="event 1"):
        journal.fold()
    found = inspect_journal(path)
    assert (found.whole, found.events) == (False, 0)
    assert "checksum" in str(found)


@pytest.mark.parametrize("note", ["openings", "transaction_ends"])
def test_a_changed_note_is_found_and_costs_no_event(tmp_path: Path, note: str) -> None:
    path = traded(tmp_path / "journal.db")
    before = read_back(path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE meta SET value = replace(value, '1', '3') WHERE key = ?", (note,))
    connection.close()
    assert note in inspect_journal(path).problem
    with Journal(path) as journal:
        assert journal.repair is not None and journal.repair.lost == 0
    assert read_back(path) == before
    assert inspect_journal(path).whole


def test_a_start_folds_what_follows_the_newest_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = traded(tmp_path / "journal.db", sessions=6)
    starts: list[int] = []
    events = Journal.events

    def watched(journal: Journal, after: int = 0) -> object:
        starts.append(after)
        return events(journal, after)

    monkeypatch.setattr(Journal, "events", watched)
    with Journal(path) as journal:
        restored = journal.open_account("paper", 0.0, 0)
        last = journal.last_seq
        assert starts == [last - 1]
        folded = journal.fold()
        kept = [seq for seq, _ in snapshots(journal._connection)]
    assert vars(restored) == vars(folded)
    assert restored.fingerprint() == folded.fingerprint()
    assert len(kept) == SNAPSHOTS_KEPT and kept[0] == last - 1


def test_a_restored_account_goes_on_like_the_folded_one(tmp_path: Path) -> None:
    path = traded(tmp_path / "journal.db")
    with Journal(path) as journal:
        account = journal.restore()
        broker = PaperBroker(journal, account, fee_schedule(), risk_limits())
        now_ns = account.last_ts_ns + SECOND_NS
        fill = broker.submit(broker.liquidation("SPY", now_ns), market(now_ns), True, now_ns)
        assert fill is not None and not account.positions
        assert journal.fold().fingerprint() == account.fingerprint()


def test_a_damaged_snapshot_is_found_removed_and_not_believed(tmp_path: Path) -> None:
    path = traded(tmp_path / "journal.db")
    before = read_back(path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE snapshots SET state = replace(state, '30000.0', '90000.0')")
    connection.close()
    with Journal(path, read_only=True) as journal:
        assert journal.restore().fingerprint() == before[1]
    assert "snapshot" in inspect_journal(path).problem
    with Journal(path) as journal:
        assert journal.repair is not None and journal.repair.lost == 0
        assert journal.restore().fingerprint() == before[1]
    assert inspect_journal(path).whole


def test_a_snapshot_of_another_fold_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = traded(tmp_path / "journal.db")
    monkeypatch.setattr(journal_snapshots, "fold_digest", lambda: "another program's")
    with Journal(path, read_only=True) as journal:
        assert list(snapshots(journal._connection)) == []
        assert journal.restore().fingerprint() == journal.fold().fingerprint()
    assert inspect_journal(path).whole


def test_verify_holds_the_snapshots_against_the_fold(tmp_path: Path) -> None:
    path = traded(tmp_path / "journal.db")
    runner = CliRunner()
    good = runner.invoke(journal_app, ["verify", str(path)])
    assert good.exit_code == 0 and f"snapshots   {SNAPSHOTS_KEPT} equal the fold" in good.output
    with Journal(path) as journal:
        wrong = journal.fold()
        wrong.cash += 1.0
        journal.keep_snapshot(wrong)
    bad = runner.invoke(journal_app, ["verify", str(path)])
    assert bad.exit_code == 1 and "--forget-snapshots" in bad.output
    mended = runner.invoke(journal_app, ["verify", str(path), "--forget-snapshots"])
    assert mended.exit_code == 0 and "snapshots   0 equal" in mended.output


def test_a_large_journal_is_checked_from_its_newest_snapshot_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = traded(tmp_path / "journal.db")
    monkeypatch.setattr(journal_integrity, "WHOLE_CHECK_BYTES", 0)
    asked: list[int] = []
    inspect = inspect_journal

    def watched(path: Path, *, after: int = 0) -> journal_integrity.Integrity:
        asked.append(after)
        return inspect(path, after=after)

    monkeypatch.setattr(journal_integrity, "inspect_journal", watched)
    with Journal(path) as journal:
        assert asked == [journal.last_seq - 1]
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DROP TRIGGER events_are_final_update")
    connection.execute("UPDATE events SET payload = '' WHERE seq = (SELECT max(seq) FROM events)")
    connection.close()
    with Journal(path) as journal:
        assert journal.repair is not None and journal.repair.lost == 1
    assert asked[1:] == [asked[0], 0]


OPEN_IN_ANOTHER = """
import sys
from pathlib import Path
from trading.errors import JournalLocked
from trading.execution.journal import Journal
try:
    Journal(Path(sys.argv[1]))
except JournalLocked:
    print("refused")
"""


def opened_elsewhere(path: Path) -> str:
    command = [sys.executable, "-c", OPEN_IN_ANOTHER, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_one_file_has_one_writer_by_whatever_name(tmp_path: Path, elsewhere: bool) -> None:
    path = tmp_path / "journal.db"
    (tmp_path / "other").mkdir()
    with Journal(path) as journal:
        journal.append(AccountOpened(1, "paper", 1000.0))
        names = [tmp_path / "other" / name for name in ("link.db", "chain.db", "hard.db")]
        names[0].symlink_to(path)
        names[1].symlink_to(names[0])
        names[2].hardlink_to(path)
        (tmp_path / "folder").symlink_to(tmp_path)
        for name in (*names, tmp_path / "folder" / "journal.db", path):
            if elsewhere:
                assert opened_elsewhere(name) == "refused", name
            else:
                with pytest.raises(JournalLocked):
                    Journal(name)
        journal.append(DecisionMade(2, "SPY", 0, "hold", 0, 0.0, 0.0))
    with Journal(names[0]) as journal:
        assert journal.last_seq == 2


KILLED = """
import os, signal, sys
from pathlib import Path
from trading.execution.events import AccountOpened, DecisionMade
from trading.execution.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.append(AccountOpened(1, "paper", 1000.0))
journal.append(DecisionMade(2, "SPY", 0, "hold", 0, 0.0, 0.0))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_hard_link_to_the_journal_of_a_killed_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert path.with_name("journal.db-wal").stat().st_size > 0
    (tmp_path / "other").mkdir()
    hard, soft = tmp_path / "other" / "hard.db", tmp_path / "other" / "soft.db"
    hard.hardlink_to(path)
    soft.symlink_to(path)
    # Its newest rows lie beside the other name: nothing may be written or read without them.
    for read_only in (False, True):
        with pytest.raises(JournalError, match=r"hard.db is a hard link .* open it by that one"):
            Journal(hard, read_only=read_only)
    with pytest.raises(JournalError, match="is a hard link"):
        inspect_journal(hard)
    assert [each.name for each in hard.parent.iterdir() if "hard" in each.name] == ["hard.db"]
    with Journal(soft) as journal:
        assert journal.last_seq == 2
        journal.append(DecisionMade(3, "SPY", 0, "hold", 0, 0.0, 0.0))
    path.unlink()
    with Journal(hard, read_only=True) as journal:  # The name that is left is the file's only one.
        assert journal.last_seq == 3


def test_a_name_is_refused_only_where_rows_may_lie_beside_another(tmp_path: Path) -> None:
    path, hard = tmp_path / "journal.db", tmp_path / "hard.db"
    with Journal(path) as journal:
        journal.append(AccountOpened(1, "paper", 1000.0))
    hard.hardlink_to(path)
    with pytest.raises(JournalError, match="is a hard link"):
        Journal(hard)
    path.with_name("journal.db.lock").unlink()  # A cleaner's work: neither name has anything.
    with Journal(path) as journal:
        assert journal.last_seq == 1
    with pytest.raises(JournalError, match="is a hard link"):
        Journal(hard)


def test_a_lock_file_that_somebody_removes_lets_no_second_writer_in(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path) as journal:
        journal.append(AccountOpened(1, "paper", 1000.0))
        path.with_name("journal.db.lock").unlink()
        with pytest.raises(JournalLocked):
            Journal(path)
        assert opened_elsewhere(path) == "refused"
    with Journal(path) as journal:
        assert journal.last_seq == 1


def test_after_a_repair_the_new_file_has_one_writer_too(tmp_path: Path) -> None:
    path = traded(tmp_path / "journal.db")
    with path.open("rb+") as file:
        file.seek(100)
        file.write(b"\xff" * 40)
    with contextlib.suppress(JournalError), Journal(path):
        assert opened_elsewhere(path) == "refused"


def test_the_lease_is_one_for_every_name(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal(path).close()
    (tmp_path / "link.db").symlink_to(path)
    with AccountLease(path), pytest.raises(AccountLeased):
        AccountLease(tmp_path / "link.db")


def test_every_kind_of_event_leaves_an_account_that_a_snapshot_holds(tmp_path: Path) -> None:
    events: list[Event] = [
        AccountOpened(1, "paper", 1000.0),
        DecisionMade(2, "SPY", 0, "hold", 0, 0.0, 0.5, profit=1.0),
        SessionClosed(3, "2026-01-05", 1001.0, 0.5, {"SPY": 0.5}, {"SPY": 2.0}),
    ]
    with Journal(tmp_path / "journal.db") as journal:
        journal.append_many(events)
        folded = journal.fold()
        folded.dividends_paid["A|2026-01-05"] = (1, 0.0, 2.0, 3)
        journal.keep_snapshot(folded)
        assert vars(journal.restore()) == vars(folded)
