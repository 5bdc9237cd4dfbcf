"""Damaged journals: a tail is cut at a whole transaction, nothing is thrown away, no other cut."""

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.execution.scene import NOW_NS, SECOND_NS
from trading.errors import JournalError
from trading.execution.events import AccountOpened, DecisionMade, Event, PeakReset, StateChanged
from trading.execution.journal import Journal
from trading.execution.journal import schema as journal_schema
from trading.execution.journal.integrity import Repair, inspect_journal
from trading.execution.journal.schema import SCHEMA_VERSION
from trading.execution.portfolio import Account
from trading.execution.states import TradingState

PAGE = 4096


def decision(ts_ns: int, underlying: str = "SPY") -> DecisionMade:
    return DecisionMade(ts_ns, underlying, 0, "hold", 3, 0.25, ts_ns % 7 / 8)


def history(bars: int) -> list[list[Event]]:
    """Transactions of 1, 2 and 3 events; one bar's share its time."""
    transactions: list[list[Event]] = [[AccountOpened(NOW_NS, "paper", 1000.0)]]
    for bar in range(1, bars + 1):
        ts_ns = NOW_NS + bar * 60 * SECOND_NS
        names = ("SPY", "QQQ", "IWM")[: 1 + bar % 3]
        transactions.append([decision(ts_ns, name) for name in names])
        if bar % 2:
            transactions.append([StateChanged(ts_ns, TradingState.ACTIVE, f"bar {bar}")])
    return transactions


SHORT = history(12)
LONG = history(90)


def ends(transactions: list[list[Event]]) -> list[int]:
    return [0, *accumulate(len(each) for each in transactions)]


def fingerprint(transactions: list[list[Event]], events: int) -> str:
    account = Account()
    for event in [event for each in transactions for event in each][:events]:
        account.apply(event)
    return account.fingerprint()


def write(
    path: Path, transactions: list[list[Event]], *, closed: bool = True, checkpoint: int = 1000
) -> Path:
    """A journal that was closed, or whose writer was killed; copied from under the writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    origin = path.with_name("origin.db")
    with Journal(origin) as journal:
        journal._connection.execute("PRAGMA synchronous = OFF")
        journal._connection.execute(f"PRAGMA wal_autocheckpoint = {checkpoint}")
        for transaction in transactions:
            journal.append_many(transaction)
        if not closed:
            copy(origin, path)
    if closed:
        copy(origin, path)
    return path


def copy(origin: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("", "-wal", ".lock"):
        source = beside(origin, suffix)
        if source.exists():
            shutil.copy(source, beside(path, suffix))


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def contents(path: Path) -> dict[str, bytes]:
    """The file and its log; readers leave an empty log, which says nothing."""
    files = {suffix: beside(path, suffix) for suffix in ("", "-wal")}
    found = {suffix: file.read_bytes() for suffix, file in files.items() if file.exists()}
    return {suffix: content for suffix, content in found.items() if content or not suffix}


def opened(path: Path, transactions: list[list[Event]]) -> tuple[int, Repair | None]:
    """Open a file for writing, check everything that must hold, and say how many events it has."""
    before = contents(path)
    with Journal(path) as journal:
        events, repair = journal.last_seq, journal.repair
        assert events in ends(transactions)
        assert journal.fold().fingerprint() == fingerprint(transactions, events)
        if events:
            assert journal.append(decision(NOW_NS + 10**15)) == events + 1
    if repair is None:
        assert events == ends(transactions)[-1]
    else:
        assert repair.events == events
        assert contents(repair.kept) == before
        assert str(repair.kept) in str(repair)
        assert f"{events} events survived" in str(repair)
    if events:
        with Journal(path) as journal:
            assert (journal.repair, journal.last_seq) == (None, events + 1)
    return events, repair


def change(path: Path, *statements: str) -> None:
    """Damage rows behind the journal's back."""
    connection = sqlite3.connect(path, isolation_level=None)
    for name in ("update", "delete"):
        connection.execute(f"DROP TRIGGER IF EXISTS events_are_final_{name}")
    for statement in statements:
        connection.execute(statement)
    connection.close()


def overwrite(path: Path, offset: int, garbage: bytes) -> None:
    with path.open("rb+") as file:
        file.seek(offset)
        file.write(garbage)


def event_pages(path: Path) -> list[int]:
    """Numbers of the pages that hold events, from 0, in the order of the events."""
    content = path.read_bytes()
    pages = {}
    for number in range(1, len(content) // PAGE):
        page = content[number * PAGE : (number + 1) * PAGE]
        if page[0] == 0x0D and b'"ts_ns":' in page:
            found = [int(part[:19]) for part in page.split(b'"ts_ns":')[1:]]
            pages[number] = min(found)
    return sorted(pages, key=pages.__getitem__)


def make_old(path: Path) -> Path:
    """As written before transactions and acknowledgements were noted."""
    beside(path, ".lock").unlink()
    change(path, "DELETE FROM meta WHERE key = 'transaction_ends'")
    return path


def test_a_whole_journal_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "journal.db", SHORT)
    assert opened(path, SHORT) == (ends(SHORT)[-1], None)
    names = {each.name.removeprefix("journal.db") for each in tmp_path.glob("journal.db*")}
    assert names == {"", ".lock"}
    assert inspect_journal(path).whole


def test_an_older_journal_keeps_its_digest(tmp_path: Path) -> None:
    path = make_old(write(tmp_path / "journal.db", SHORT))
    with Journal(path, read_only=True) as journal:
        digest = journal.digest()
    with Journal(path) as journal:
        assert journal.repair is None
        assert journal.digest() == digest


def test_a_kill_before_the_first_event_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.touch()
    with Journal(path) as journal:
        assert (journal.repair, journal.last_seq) == (None, 0)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("killed") / "journal.db", LONG, closed=False)


@pytest.fixture(scope="module")
def checkpointed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpointed")
    return write(folder / "journal.db", LONG, closed=False, checkpoint=40)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("closed") / "journal.db", LONG)


RANDOM = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def truncated(origin: Path, folder: Path, suffix: str, share: float) -> Path:
    """A copy whose file with `suffix` keeps its first `share`."""
    shutil.rmtree(folder, ignore_errors=True)
    path = folder / "journal.db"
    copy(origin, path)
    file = beside(path, suffix)
    size = int(file.stat().st_size * share)
    with file.open("rb+") as opened_file:
        opened_file.truncate(size)
    return path


@RANDOM
@given(share=st.floats(0.0, 1.0))
def test_a_truncated_log_leaves_a_prefix_and_is_kept(
    killed: Path, tmp_path: Path, share: float
) -> None:
    events, repair = opened(truncated(killed, tmp_path / "cut", "-wal", share), LONG)
    if repair is not None:
        assert events + repair.lost == ends(LONG)[-1]


@RANDOM
@given(share=st.floats(0.0, 1.0))
def test_a_truncated_file_leaves_a_prefix_and_is_kept(
    closed: Path, tmp_path: Path, share: float
) -> None:
    events, repair = opened(truncated(closed, tmp_path / "cut", "", share), LONG)
    if repair is not None:
        assert events + repair.lost == ends(LONG)[-1]


@RANDOM
@given(share=st.floats(0.0, 1.0), suffix=st.sampled_from(["", "-wal"]))
def test_file_and_log_of_different_age_give_a_prefix_or_a_refusal(
    checkpointed: Path, tmp_path: Path, share: float, suffix: str
) -> None:
    path = truncated(checkpointed, tmp_path / "cut", suffix, share)
    before = contents(path)
    try:
        opened(path, LONG)
    except JournalError as error:
        assert "restore the file from a copy" in str(error)
        assert contents(path) == before


@pytest.mark.parametrize("size", [0, 1, 2, 99, 100, 4095, 4096])
def test_a_file_of_a_few_bytes_beside_a_log_is_kept_with_it(
    checkpointed: Path, tmp_path: Path, size: int
) -> None:
    share = (size + 0.5) / checkpointed.stat().st_size
    path = truncated(checkpointed, tmp_path / "cut", "", share)
    assert path.stat().st_size == size
    before = contents(path)
    try:
        opened(path, LONG)
    except JournalError:
        assert contents(path) == before


@RANDOM
@given(data=st.data())
def test_flipped_bytes_never_give_anything_but_a_prefix_or_a_refusal(
    closed: Path, tmp_path: Path, data: st.DataObject
) -> None:
    path = truncated(closed, tmp_path / "flipped", "", 1.0)
    # Within a number a flipped digit is a number again: only what no event holds is damage.
    offset = data.draw(st.integers(0, path.stat().st_size - 1))
    overwrite(path, offset, b"\xff" * data.draw(st.integers(8, 64)))
    before = contents(path)
    try:
        opened(path, LONG)
    except JournalError as error:
        assert "journal.db" in str(error)
        assert "restore" in str(error)
        assert contents(path) == before


def test_a_destroyed_last_page_costs_only_its_own_events(closed: Path, tmp_path: Path) -> None:
    path = truncated(closed, tmp_path / "cut", "", 1.0)
    pages = event_pages(path)
    overwrite(path, pages[-1] * PAGE, b"\xa5" * PAGE)
    events, repair = opened(path, LONG)
    assert repair is not None
    assert events > 0.7 * ends(LONG)[-1]
    assert events + repair.lost == ends(LONG)[-1]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_destroyed_page_before_later_events_is_refused(
    closed: Path, tmp_path: Path, number: int
) -> None:
    path = truncated(closed, tmp_path / "cut", "", 1.0)
    overwrite(path, event_pages(path)[number] * PAGE, b"\xa5" * PAGE)
    before = contents(path)
    for _ in range(2):
        with pytest.raises(JournalError, match=r"journal\.db .* restore the file from a copy"):
            Journal(path)
    assert contents(path) == before


@pytest.mark.parametrize("page", [0, 1])
def test_pages_that_only_lead_to_events_cost_none(closed: Path, tmp_path: Path, page: int) -> None:
    path = truncated(closed, tmp_path / "cut", "", 1.0)
    overwrite(path, page * PAGE + 100, b"\xa5" * (PAGE - 100))
    overwrite(path, PAGE, b"\xa5" * PAGE)
    events, repair = opened(path, LONG)
    assert repair is not None
    assert (events, repair.lost) == (ends(LONG)[-1], 0)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_a_deep_file_is_cut_where_it_was_truncated(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    # More leaf pages than one page can lead to: what leads to the newest ones lies behind them.
    folder = tmp_path_factory.mktemp("deep")
    opening: list[Event] = [AccountOpened(1, "paper", 1000.0)]
    transactions = [opening, *history(1500)[1:]]
    events = [event for transaction in transactions for event in transaction]
    with Journal(folder / "origin.db") as journal:
        journal._connection.execute("PRAGMA page_size = 512")
        journal._connection.execute("PRAGMA journal_mode = DELETE")
        journal._connection.execute("VACUUM")
        journal._connection.execute("PRAGMA synchronous = OFF")
        for transaction in transactions:
            journal.append_many(transaction)
    size = (folder / "origin.db").stat().st_size
    path = truncated(folder / "origin.db", folder / "cut", "", share)
    survived, repair = opened(path, transactions)
    assert repair is not None
    assert survived == pytest.approx(share * len(events), abs=60)
    assert size > 512 * 150


GARBAGE = [
    "payload = CAST(replace(payload, 'masked', x'ff') AS TEXT)",
    "payload = '{\"kind\":'",
    "payload = 'no json'",
    "payload = CAST(x'7bff' AS TEXT)",
    "payload = ''",
    "payload = replace(payload, 'decision_made', 'unknown_kind')",
    "ts_ns = ts_ns + 1",
    "kind = 'settled'",
]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("back", [0, 1, 2])
def test_a_damaged_row_of_the_last_transaction_cuts_all_of_it(
    tmp_path: Path, garbage: str, back: int
) -> None:
    transactions = [*SHORT[:-1], [decision(NOW_NS * 2, name) for name in ("SPY", "QQQ", "IWM")]]
    path = write(tmp_path / "journal.db", transactions)
    last = ends(transactions)[-1]
    change(path, f"UPDATE events SET {garbage} WHERE seq = {last - back}")
    events, repair = opened(path, transactions)
    assert events == last - 3
    assert repair is not None
    assert repair.lost == 3


def test_transactions_of_one_time_are_told_apart(tmp_path: Path) -> None:
    transactions: list[list[Event]] = [*SHORT, [decision(NOW_NS * 2)], [decision(NOW_NS * 2, "Q")]]
    path = write(tmp_path / "journal.db", transactions)
    last = ends(transactions)[-1]
    change(path, f"UPDATE events SET payload = '' WHERE seq = {last}")
    assert opened(path, transactions)[0] == last - 1


def test_an_older_journal_is_cut_where_exchange_time_moved(tmp_path: Path) -> None:
    transactions = [*SHORT[:-1], [decision(NOW_NS * 2, name) for name in ("SPY", "QQQ", "IWM")]]
    path = make_old(write(tmp_path / "journal.db", transactions))
    last = ends(transactions)[-1]
    change(path, f"UPDATE events SET payload = '' WHERE seq = {last}")
    events, repair = opened(path, transactions)
    assert events == last - 3
    assert repair is not None
    assert repair.lost == 3


@pytest.mark.parametrize("gone", [1, 2, 5])
def test_rows_missing_at_the_end_are_noticed(tmp_path: Path, gone: int) -> None:
    path = write(tmp_path / "journal.db", SHORT)
    last = ends(SHORT)[-1]
    change(path, f"DELETE FROM events WHERE seq > {last - gone}")
    events, repair = opened(path, SHORT)
    assert repair is not None
    assert events == max(end for end in ends(SHORT) if end <= last - gone)
    assert repair.lost == last - events


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM events WHERE seq = 5", "UPDATE events SET payload = '' WHERE seq = 5"],
)
@pytest.mark.parametrize("prepare", [make_old, lambda path: path])
def test_a_damaged_row_before_whole_ones_is_refused(
    tmp_path: Path, statement: str, prepare: Callable[[Path], Path]
) -> None:
    path = prepare(write(tmp_path / "journal.db", SHORT))
    change(path, statement)
    before = contents(path)
    with pytest.raises(JournalError, match=r"journal\.db .* event 5 .*after it is whole.*restore"):
        Journal(path)
    assert contents(path) == before
    assert not list(tmp_path.glob("*damaged*"))


def test_an_emptied_file_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    path = write(tmp_path / "journal.db", SHORT)
    path.write_bytes(b"")
    events, repair = opened(path, SHORT)
    assert (events, repair is not None and repair.lost) == (0, ends(SHORT)[-1])


def test_a_removed_file_begins_a_new_account(tmp_path: Path) -> None:
    path = write(tmp_path / "journal.db", SHORT)
    path.unlink()
    for _ in range(2):
        with Journal(path) as journal:
            assert (journal.repair, journal.last_seq) == (None, 0)


def test_every_damaged_file_gets_a_number_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "journal.db", SHORT)
    for number in (1, 2, 3):
        change(path, "UPDATE events SET payload = '' WHERE seq = (SELECT max(seq) FROM events)")
        with Journal(path) as journal:
            assert journal.repair is not None
            assert journal.repair.kept == tmp_path / f"journal.db.damaged-{number}"


def test_openings_are_counted_on_after_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    for opening in (1, 2, 3):
        with Journal(path) as journal:
            journal.open_account("paper", 1000.0, 1)
            assert journal.openings == opening
            journal.append(decision(1 + opening))
            last = journal.last_seq
        change(path, f"UPDATE events SET payload = '' WHERE seq = {last}")


def test_a_repair_that_was_interrupted_is_finished(tmp_path: Path) -> None:
    path = write(tmp_path / "journal.db", SHORT, closed=False)
    # As it is when the process died between removing the log and renaming the new file.
    whole = write(tmp_path / "other" / "journal.db", SHORT)
    shutil.copy(whole, beside(path, ".rebuilt"))
    overwrite(path, 0, b"\xa5" * PAGE)
    assert opened(path, SHORT) == (ends(SHORT)[-1], None)
    assert not beside(path, ".rebuilt").exists()


def test_a_check_reads_a_live_journal_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path) as journal:
        for transaction in SHORT:
            journal.append_many(transaction)
            assert inspect_journal(path).events == journal.last_seq
    change(path, "UPDATE events SET payload = '' WHERE seq = (SELECT max(seq) FROM events)")
    before = contents(path)
    found = inspect_journal(path)
    assert not found.whole
    assert found.events == ends(SHORT)[-2]
    assert "keeps the damaged file" in str(found)
    assert contents(path) == before


APPENDER = """
import sys
from pathlib import Path
from trading.execution.events import DecisionMade
from trading.execution.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.open_account("paper", 1000.0, 1)
while True:
    ts_ns = journal.last_seq + 1
    journal.append_many([DecisionMade(ts_ns, f"S{i}", 0, "hold", 0, 0.0, 0.5) for i in range(3)])
    print(journal.last_seq, flush=True)
"""


def test_a_check_beside_a_busy_writer_finds_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    process = subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(30):
        acknowledged = int(process.stdout.readline())
        found = inspect_journal(path)
        assert found.whole, str(found)
        assert found.events >= acknowledged
    process.kill()
    process.communicate()
    with Journal(path) as journal:
        assert journal.repair is None


WITHOUT_CHECKSUMS = (
    "ALTER TABLE events DROP COLUMN sum",
    "ALTER TABLE meta DROP COLUMN sum",
    "DROP TABLE snapshots",
)
"""Back to the tables of version 3."""


def make_version_0(path: Path) -> Path:
    """A journal of a made-up earlier version that called the time `time_ms`."""
    write(path, SHORT)
    change(
        path,
        *WITHOUT_CHECKSUMS,
        "ALTER TABLE events RENAME COLUMN ts_ns TO time_ms",
        "UPDATE events SET time_ms = time_ms / 1000000",
        "UPDATE meta SET value = '0' WHERE key = 'schema_version'",
    )
    return path


def from_version_0(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE events SET time_ms = time_ms * 1000000")
    connection.execute("ALTER TABLE events RENAME COLUMN time_ms TO ts_ns")


def test_an_older_version_is_migrated_and_the_old_file_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(journal_schema.MIGRATIONS, 0, from_version_0)
    with Journal(write(tmp_path / "same.db", SHORT)) as journal:
        digest = journal.digest()
    path = make_version_0(tmp_path / "old" / "journal.db")
    before = contents(path)
    with pytest.raises(JournalError, match=r"schema version 0.*open it for writing once"):
        Journal(path, read_only=True)
    assert contents(path) == before
    with Journal(path) as journal:
        assert (journal.digest(), journal.repair) == (digest, None)
    assert contents(path.with_name("journal.db.version-0-1")) == before
    with Journal(path, read_only=True) as journal:
        assert journal.fold().fingerprint() == fingerprint(SHORT, ends(SHORT)[-1])
    assert not list(path.parent.glob("*.version-0-2"))


VERSION_1 = """
{"kind":"account_opened","ts_ns":1,"account_id":"paper","cash":10000.0,"multiplier":100.0}
{"kind":"order_accepted","ts_ns":2,"order":{"order_id":"paper-1","ts_ns":2,"underlying":"SPY",\
"strategy":"bear_call_credit","intent":"open","legs":[{"symbol":"O:SPY260116C00100000","ratio":-1},\
{"symbol":"O:SPY260116C00105000","ratio":1}],"units":2,"order_type":"market",\
"time_in_force":"ioc","limit_price":null},"reserved_per_unit":0.0}
{"kind":"order_filled","ts_ns":2,"fill":{"fill_id":"paper-1/1","order_id":"paper-1","ts_ns":2,\
"underlying":"SPY","units":2,"legs":[{"symbol":"O:SPY260116C00100000","quantity":-2,"price":3.0},\
{"symbol":"O:SPY260116C00105000","quantity":2,"price":1.1}],"premium":380.0,"fees":3.0}}
{"kind":"state_changed","ts_ns":3,"trading_state":"reducing","reason":"operator"}
{"kind":"settled","ts_ns":4,"symbol":"O:SPY260116C00100000","quantity":-2,"price":4.0,\
"cash":-800.0,"underlying_price":104.0}
{"kind":"settled","ts_ns":4,"symbol":"O:SPY260116C00105000","quantity":2,"price":0.0,"cash":0.0,\
"underlying_price":104.0}
{"kind":"session_closed","ts_ns":5,"date":"2026-01-16","equity":9577.0,"reward":0.0}
""".strip().replace("\\\n", "")


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_journal_of_an_earlier_version_opens_and_goes_on(tmp_path: Path, version: int) -> None:
    """As written before stock was delivered: its settlements stay the cash they were."""
    path = write(tmp_path / "journal.db", [])
    rows = [
        (number, json.loads(line)["ts_ns"], json.loads(line)["kind"], line)
        for number, line in enumerate(VERSION_1.splitlines(), 1)
    ]
    change(path, *WITHOUT_CHECKSUMS)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(version),))
    connection.close()
    with pytest.raises(JournalError, match=f"schema version {version}"):
        Journal(path, read_only=True)
    with Journal(path) as journal:
        assert journal.repair is None
        account = journal.open_account("paper", 0.0, 9)
        assert account.cash == 10_000.0 + 380.0 - 3.0 - 800.0
        assert (account.closed_trades, account.peak_equity) == (1, 10_000.0)
        assert not account.strategies
        journal.append(PeakReset(10, 1, 9_577.0))
    assert inspect_journal(path).whole
    with Journal(path, read_only=True) as journal:
        assert journal.fold().peak_equity == 9_577.0


@pytest.mark.parametrize("version", range(4, SCHEMA_VERSION))
def test_a_journal_with_checksums_of_an_earlier_version_opens_as_it_is(
    tmp_path: Path, version: int
) -> None:
    path = write(tmp_path / "journal.db", SHORT)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        journal_schema.keep_note(connection, "schema_version", str(version))
    with pytest.raises(JournalError, match=f"schema version {version}.*open it for writing once"):
        Journal(path, read_only=True)
    with Journal(path) as journal:
        assert journal.fold().fingerprint() == fingerprint(SHORT, ends(SHORT)[-1])
    assert inspect_journal(path).whole
    assert path.with_name(f"journal.db.version-{version}-1").is_file()


def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(connection: sqlite3.Connection) -> None:
        from_version_0(connection)
        connection.execute("UPDATE songs SET title = 1")

    path = make_version_0(tmp_path / "journal.db")
    before = contents(path)
    monkeypatch.setitem(journal_schema.MIGRATIONS, 0, fails)
    with pytest.raises(JournalError, match=r"stays at schema version 0.*no such table"):
        Journal(path)
    assert contents(path) == before
    monkeypatch.setitem(journal_schema.MIGRATIONS, 0, from_version_0)
    with Journal(path) as journal:
        assert journal.last_seq == ends(SHORT)[-1]


def test_a_damaged_tail_of_an_older_version_is_cut_after_its_migration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(journal_schema.MIGRATIONS, 0, from_version_0)
    path = make_version_0(tmp_path / "journal.db")
    change(path, "UPDATE events SET payload = '' WHERE seq = (SELECT max(seq) FROM events)")
    with Journal(path) as journal:
        assert journal.last_seq == ends(SHORT)[-2]
        assert journal.repair is not None


def test_versions_without_a_way_are_refused_in_words(tmp_path: Path) -> None:
    path = make_version_0(tmp_path / "journal.db")
    before = contents(path)
    with pytest.raises(JournalError, match="nothing leads from version 0"):
        Journal(path)
    newer = SCHEMA_VERSION + 1
    change(path, f"UPDATE meta SET value = '{newer}' WHERE key = 'schema_version'")
    for read_only in (True, False):
        with pytest.raises(JournalError, match=f"version {newer}, written by a newer program"):
            Journal(path, read_only=read_only)
    change(path, "UPDATE meta SET value = '0' WHERE key = 'schema_version'")
    assert len(contents(path)[""]) == len(before[""])


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    change(path, "CREATE TABLE songs (title TEXT)")
    before = contents(path)
    with pytest.raises(JournalError, match="holds no journal"):
        Journal(path)
    assert contents(path) == before
