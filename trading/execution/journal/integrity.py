"""Whether a journal is whole, and the cut that makes a damaged one whole again.

A damaged tail is cut at the last whole transaction and the damaged file is kept; damage that cannot
be cut without losing later events is refused.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trading.errors import JournalError
from trading.execution.journal.pages import (
    SMALLEST_ROW,
    TAIL_PAGES,
    is_truncated,
    pages_later_than,
    rows_on_pages,
)
from trading.execution.journal.schema import (
    DECODER,
    INSERT,
    SCHEMA_VERSION,
    SELECT,
    UNDECODABLE,
    UNREADABLE,
    Row,
    altered,
    as_text,
    beside,
    count_openings,
    create_schema,
    fault_of,
    is_blank,
    keep_copy,
    keep_ends,
    keep_note,
    lock_path,
    migrate,
    open_reader,
    other_version,
    readable_version,
    real,
    recorded_ends,
    refuse_another_name,
    structural_problem,
)
from trading.execution.journal.snapshots import damaged_snapshot, snapshots
from trading.files import replace, sync

WHOLE_CHECK_BYTES = 16 * 2**20
"""A writer checks a larger file from its newest snapshot on: reading all of it takes too long."""

_SELECT_ONE = "SELECT seq, ts_ns, kind, payload, sum FROM events WHERE seq = ?"


@dataclass(frozen=True)
class Integrity:
    """What a check of a whole journal found.

    Attributes
    ----------
    path : Path
        The journal.
    events : int
        Events that are whole, counted from the first, up to the end of a transaction.
    expected : int
        Events that are known to have been written; `events` when nothing is lost.
    problem : str
        What is wrong with the file; empty when it is whole.
    later : str
        Why the damage cannot be cut off at the end; empty when it can.
    """

    path: Path
    events: int
    expected: int
    problem: str = ""
    later: str = ""

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problem

    def __str__(self) -> str:
        if self.whole:
            return f"journal {self.path} is whole: {self.events} events"
        found = f"journal {self.path} is damaged after event {self.events}: {self.problem}"
        if self.later:
            return (
                f"{found}; {self.later}, so that cutting there would lose whole events: restore "
                f"the file from a copy, or move it away and start another one"
            )
        return (
            f"{found}; the first {self.events} events are whole: the next start for writing goes "
            f"on after them and keeps the damaged file"
        )


@dataclass(frozen=True)
class Repair:
    """A damaged tail that was cut off when a writer opened its journal.

    Attributes
    ----------
    path, kept : Path
        The journal, and the file as it was found; its `-wal` and `-shm` lie beside it.
    events : int
        Events that survived.
    lost : int
        Events after them that are known to have been written.
    problem : str
        What was wrong.
    """

    path: Path
    kept: Path
    events: int
    lost: int
    problem: str

    def __str__(self) -> str:
        return (
            f"journal {self.path} was damaged: {self.problem}; {self.events} events survived, "
            f"{self.lost} later ones were lost; the damaged file is kept as {self.kept}"
        )


def inspect_journal(path: Path, *, after: int = 0) -> Integrity:
    """Check a journal without changing it; another process may be writing it.

    SQLite's own check, the numbers of the rows, their checksums, and that every row reads back as
    its event. With `after`, only the rows behind that event are looked at.

    Raises
    ------
    JournalError
        There is no such file, it is no journal, or it has another schema version.
    """
    path = real(Path(path))
    if not path.is_file():
        raise JournalError(f"no journal at {path}: start trading first or name its file")
    refuse_another_name(path)
    acknowledged = _acknowledged(path)
    if _is_empty(path):
        return Integrity(path, 0, acknowledged, "the file is empty")
    try:
        with contextlib.closing(open_reader(path)) as connection:
            version = readable_version(path, connection)
            if version != SCHEMA_VERSION:
                raise other_version(path, version)
            connection.execute("BEGIN")  # One state of the file, whatever a writer adds meanwhile.
            return _inspect(path, connection, acknowledged, after)
    except UNREADABLE as error:
        raise JournalError(f"cannot open journal {path}: {error}") from error


def make_whole(path: Path) -> Repair | None:
    """Bring a writer's file to a state that can be trusted: see `Journal` for what is refused."""
    rebuilt = beside(path, ".rebuilt")
    if rebuilt.exists():
        _install(rebuilt, path)
    if not path.exists() or (_is_empty(path) and not _acknowledged(path)):
        return None
    if not _is_empty(path):
        with contextlib.closing(open_reader(path)) as connection:
            version = readable_version(path, connection)
            if version > SCHEMA_VERSION:
                raise other_version(path, version)
            problem = structural_problem(connection) if version < SCHEMA_VERSION else ""
        if problem:
            raise JournalError(
                f"journal {path} has schema version {version} and is damaged ({problem}): restore "
                "the file from a copy"
            )
        if version < SCHEMA_VERSION:
            migrate(path, version)
    after = _newest_snapshot(path) if path.stat().st_size > WHOLE_CHECK_BYTES else 0
    integrity = inspect_journal(path, after=after)
    if after and not integrity.whole:
        integrity = inspect_journal(path)
    if integrity.whole:
        return None
    if integrity.later:
        raise JournalError(str(integrity))
    kept = keep_copy(path, "damaged")
    _rebuild(path, integrity.events)
    lost = integrity.expected - integrity.events
    return Repair(path, kept, integrity.events, lost, integrity.problem)


def _is_empty(path: Path) -> bool:
    """Return whether SQLite sees no database in a file, and would delete its log when it opens it.

    A file of one byte counts as empty there: see `unixFileSize` in SQLite's `os_unix.c`.
    """
    return path.stat().st_size <= 1


def _newest_snapshot(path: Path) -> int:
    """Return the event that the newest usable snapshot follows; 0 where there is none."""
    with contextlib.closing(open_reader(path)) as connection, contextlib.suppress(*UNREADABLE):
        return next(snapshots(connection), (0, None))[0]
    return 0


def _inspect(
    path: Path, connection: sqlite3.Connection, acknowledged: int, after: int
) -> Integrity:
    problem = "" if after else structural_problem(connection)
    if problem:
        # Else SQLite reads nothing at all of a file that is shorter than its header says.
        connection.execute("PRAGMA writable_schema = ON")
    elif not acknowledged and is_blank(connection):
        return Integrity(path, 0, 0)
    prefix = _Prefix(after)
    fault = prefix.read(connection)
    if problem and prefix.extend(rows_on_pages(path)):
        fault = ""
    read = prefix.seq
    ends = recorded_ends(connection)
    expected = max(acknowledged, ends[-1] if ends else 0, read, _highest(connection))
    torn = bool(fault or problem)
    if read < expected and not fault:
        fault = f"events {read + 1} to {expected} are missing"
    if problem and not fault and read not in {acknowledged, *ends[-1:]}:
        fault = problem  # Nothing confirms that the last row read is the last one written.
    if not fault:
        problem = problem or altered(connection) or damaged_snapshot(connection)
        return Integrity(path, read, read, problem)
    damaged_ns = None if problem else _time_of(connection, read + 1)
    events = _last_whole(prefix, ends, damaged_ns)
    later = _why_not_cut(connection, path, prefix, ends, damaged_ns, events) if torn else ""
    problem = f"{fault} ({problem})" if problem and problem not in fault else fault
    return Integrity(path, events, expected, problem, later)


class _Prefix:
    """How far a journal is whole, counted from its first event.

    `seq` and `ts_ns` are the last whole event's, `earlier` is the last one of an earlier time.
    """

    def __init__(self, after: int) -> None:
        self.seq = self.earlier = after
        self.ts_ns = 0

    def read(self, connection: sqlite3.Connection) -> str:
        """Take what SQLite reads, and say what ended it; empty when the rows just end."""
        try:
            for row in connection.execute(SELECT, (self.seq,)):
                seq, ts_ns = row[:2]
                if seq != self.seq + 1:
                    return f"event {self.seq + 1} is missing"
                if fault := fault_of(row):
                    return f"event {seq} is damaged: {fault}"
                if ts_ns != self.ts_ns:
                    self.earlier = self.seq
                    self.ts_ns = ts_ns
                self.seq = seq
        except UNREADABLE as error:
            return f"what follows event {self.seq} cannot be read: {error}"
        return ""

    def extend(self, rows: dict[int, Row]) -> bool:
        """Go on with rows found elsewhere; whether there were any."""
        before = self.seq
        while (row := rows.get(self.seq + 1)) is not None:
            if row[1] != self.ts_ns:
                self.earlier = self.seq
                self.ts_ns = row[1]
            self.seq += 1
        return self.seq > before


def _last_whole(prefix: _Prefix, ends: list[int], damaged_ns: int | None) -> int:
    """Return the end of the last whole transaction of `prefix`.

    `damaged_ns` is the time of the row after it where that can be read. Where the ends of
    transactions are not known, events of one exchange time count as one transaction.
    """
    known = [end for end in ends if end <= prefix.seq]
    if known and ends[-1] > prefix.seq:
        return known[-1]
    floor = known[-1] if known else 0
    if prefix.seq == floor or damaged_ns not in {None, prefix.ts_ns}:
        return prefix.seq
    return max(floor, prefix.earlier)


def _highest(connection: sqlite3.Connection) -> int:
    """Return the highest number of a row, 0 where that cannot be read."""
    try:
        row = connection.execute("SELECT max(seq) FROM events").fetchone()
    except UNREADABLE:
        return 0
    return row[0] if row and isinstance(row[0], int) else 0


def _time_of(connection: sqlite3.Connection, seq: int) -> int | None:
    """Exchange time of a damaged row, None where nothing says it for sure."""
    try:
        row = connection.execute(_SELECT_ONE, (seq,)).fetchone()
    except UNREADABLE:
        return None
    if row is None or not isinstance(row[1], int):
        return None
    try:
        return row[1] if DECODER.decode(row[3]).ts_ns == row[1] else None
    except UNDECODABLE:
        return row[1]


def _why_not_cut(
    connection: sqlite3.Connection,
    path: Path,
    prefix: _Prefix,
    ends: list[int],
    damaged_ns: int | None,
    events: int,
) -> str:
    """Return what would be lost by cutting after `events`; empty when the damage is at the end."""
    pages = pages_later_than(path, prefix.ts_ns)
    unreachable = f"{pages} pages hold events that SQLite cannot reach any more"
    if is_truncated(path):
        # What is left of the page where the file ends is no whole event.
        return unreachable if pages > TAIL_PAGES else ""
    ended = [end for end in ends if end > prefix.seq]
    first = ended[0] + 1 if ended else prefix.seq + 2
    highest = max(_highest(connection), first, path.stat().st_size // SMALLEST_ROW)
    for seq in range(first, highest + 1):
        try:
            row = connection.execute(_SELECT_ONE, (seq,)).fetchone()
            whole = row is not None and row[0] == seq and DECODER.decode(row[3]).ts_ns == row[1]
        except (*UNREADABLE, *UNDECODABLE):
            continue
        if whole and (ended or row[1] != damaged_ns):
            return f"event {seq} after it is whole"
    return unreachable if pages > (TAIL_PAGES if events else 0) else ""


def _rebuild(path: Path, events: int) -> None:
    """Replace a damaged file by one that holds its first `events` rows, whatever moment it dies."""
    unfinished = beside(path, ".rebuilding")
    unfinished.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(unfinished, isolation_level=None)) as target:
        create_schema(target)
        target.execute("BEGIN")
        if events:
            with contextlib.closing(open_reader(path)) as source:
                source.execute("PRAGMA writable_schema = ON")
                target.executemany(INSERT, _survivors(source, path, events))
                ends = [end for end in recorded_ends(source) if end <= events]
                keep_note(target, "openings", str(count_openings(source)))
                if ends:
                    keep_ends(target, ends)
        target.execute("COMMIT")
    rebuilt = beside(path, ".rebuilt")
    replace(unfinished, rebuilt)
    _install(rebuilt, path)


def _survivors(
    source: sqlite3.Connection, path: Path, events: int
) -> Iterator[tuple[int, int, str, str, int]]:
    """Yield the first `events` rows of a damaged file, read as the check did."""
    seq = 0
    with contextlib.suppress(*UNREADABLE):
        for row in source.execute(SELECT, (0,)):
            if seq == events or row[0] != seq + 1 or fault_of(row):
                break
            seq += 1
            yield seq, row[1], as_text(row[2]), as_text(row[3]), row[4]
    if seq < events:
        rows = rows_on_pages(path)
        for number in range(seq + 1, events + 1):
            _, ts_ns, kind, payload, summed = rows[number]
            yield number, ts_ns, as_text(kind), as_text(payload), summed


def _install(rebuilt: Path, path: Path) -> None:
    """Put a finished file in the journal's place; called again when that was interrupted."""
    # An old log must be gone before the new file appears: SQLite would play it into that file.
    sync(path.parent)
    for suffix in ("-wal", "-shm"):
        beside(path, suffix).unlink(missing_ok=True)
    sync(path.parent)
    replace(rebuilt, path)


def _acknowledged(path: Path) -> int:
    """Events that the last writer is known to have finished; 0 when that is not known."""
    try:
        return int(lock_path(path).read_bytes()[:32])
    except (OSError, ValueError):
        return 0
