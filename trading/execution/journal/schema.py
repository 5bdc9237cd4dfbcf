"""The journal as a file: its tables, its versions, and where its parts lie."""

import contextlib
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import TypeAlias, get_args

import msgspec

from trading.errors import JournalError, TradingError
from trading.execution.events import Event
from trading.files import sync

SCHEMA_VERSION = 7


def _keep_rows(connection: sqlite3.Connection) -> None:
    """Versions 2, 3, 5 to 7 add kinds of events and fields with defaults; older rows stay as is.

    Each is a version of its own so that an older program refuses the file: to that program the new
    rows would look like damage.
    """


def _sum_rows(connection: sqlite3.Connection) -> None:
    """Version 4 has a checksum in every row, snapshots, and more kinds of events."""
    connection.create_function("row_sum", 4, checksum, deterministic=True)
    connection.create_function("note_sum", 2, _note_sum, deterministic=True)
    for trigger in ("events_are_final_update", "events_are_final_delete"):
        connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
    connection.execute("ALTER TABLE events RENAME TO events_before")
    connection.execute("ALTER TABLE meta RENAME TO meta_before")
    for statement in _statements():
        connection.execute(statement)
    connection.execute(
        "INSERT INTO events SELECT seq, ts_ns, kind, payload, row_sum(seq, ts_ns, kind, payload) "
        "FROM events_before ORDER BY seq"
    )
    connection.execute("INSERT INTO meta SELECT key, value, note_sum(key, value) FROM meta_before")
    connection.execute("DROP TABLE events_before")
    connection.execute("DROP TABLE meta_before")


MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {
    1: _keep_rows,
    2: _keep_rows,
    3: _sum_rows,
    4: _keep_rows,
    5: _keep_rows,
    6: _keep_rows,
}
"""What brings a journal from a version to the next, by the version it starts from.

All steps run in one transaction after the file was copied; a step neither begins nor commits.
"""

_SCHEMA = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    ts_ns INTEGER NOT NULL,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    sum INTEGER NOT NULL
) STRICT;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, sum INTEGER NOT NULL) STRICT;
CREATE TABLE snapshots (
    seq INTEGER PRIMARY KEY,
    fold TEXT NOT NULL,
    state TEXT NOT NULL,
    sum INTEGER NOT NULL
) STRICT;
CREATE TRIGGER events_are_final_update BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are final'); END;
CREATE TRIGGER events_are_final_delete BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are final'); END;
"""

INSERT = "INSERT INTO events (seq, ts_ns, kind, payload, sum) VALUES (?, ?, ?, ?, ?)"
SELECT = "SELECT seq, ts_ns, kind, payload, sum FROM events WHERE seq > ? ORDER BY seq"
_KEEP_NOTE = """
INSERT INTO meta VALUES (?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, sum = excluded.sum
"""

ENDS_KEPT = 64
_MAGIC = b"SQLite format 3\0"
_KINDS = {each: str(each.__struct_config__.tag).encode() for each in get_args(Event)}

DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)

# What decoding raises: for JSON, for values that make no event, and for bytes that are no UTF-8.
UNDECODABLE = (msgspec.MsgspecError, TradingError, TypeError, ValueError)

# What sqlite3 raises; of a damaged file also for names in its messages and for absurd lengths.
UNREADABLE = (sqlite3.Error, UnicodeDecodeError, MemoryError)

Row: TypeAlias = tuple[int, int, bytes, bytes, int]


def checksum(seq: int, number: int, name: str | bytes, content: str | bytes) -> int:
    """64 bits (BLAKE2b, RFC 7693) over what a row holds, as SQLite's signed integer."""
    name = name.encode() if isinstance(name, str) else name
    content = content.encode() if isinstance(content, str) else content
    digest = blake2b(b"%d\t%d\t%b\t%b" % (seq, number, name, content), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _note_sum(key: str | bytes, value: str | bytes) -> int:
    return checksum(0, 0, key, value)


def fault_of(row: Row) -> str:
    """Return why a row is not the event that was written; empty when it is."""
    seq, ts_ns, kind, payload, summed = row
    try:
        event = DECODER.decode(payload)
        if not payload.isascii():
            payload.decode()  # The decoder does not look into fields that it does not know.
    except UNDECODABLE as error:
        return str(error)
    if event.ts_ns != ts_ns or _KINDS[type(event)] != kind:
        return "its columns contradict it"
    if checksum(seq, ts_ns, kind, payload) != summed:
        return "its checksum contradicts it"
    return ""


def structural_problem(connection: sqlite3.Connection) -> str:
    """Return what SQLite's own check says; empty when it finds nothing."""
    try:
        found = str(as_text(connection.execute("PRAGMA quick_check(1)").fetchone()[0]))
    except UNREADABLE as error:
        return str(error)
    return "" if found == "ok" else " ".join(found.replace("*** in database main ***", "").split())


def is_blank(connection: sqlite3.Connection) -> bool:
    """Return whether a writer died before it had created the tables."""
    return bool(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0)


def has_tables(path: Path) -> bool:
    """Return whether a journal's writer has created its tables.

    Raises
    ------
    JournalError
        The file cannot be read.
    """
    try:
        with contextlib.closing(open_reader(path)) as connection:
            return not is_blank(connection)
    except UNREADABLE as error:
        raise JournalError(f"cannot open journal {path}: {error}") from error


def readable_version(path: Path, connection: sqlite3.Connection) -> int:
    """Return the schema version; this program's when damage hides it.

    Raises
    ------
    JournalError
        The file is no journal.
    """
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if not _MAGIC.startswith(start):
        raise JournalError(
            f"cannot open journal {path}: it is no SQLite file; name another one, or restore it "
            "from a copy"
        )
    try:
        text = _schema_version(connection)
    except UNREADABLE as error:
        if "no such table" in str(error) and not is_blank(connection):
            raise JournalError(
                f"cannot open journal {path}: it is an SQLite file that holds no journal; name "
                "another one, or restore it from a copy"
            ) from error
        return SCHEMA_VERSION
    if text.isdecimal():
        return int(text)
    if structural_problem(connection):
        return SCHEMA_VERSION
    raise JournalError(
        f"journal {path} has schema version {text}, which no program writes: restore the file "
        "from a copy, or name another one"
    )


def _schema_version(connection: sqlite3.Connection) -> str:
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    return as_text(row[0]) if row else "none"


def other_version(path: Path, version: int) -> JournalError:
    """Return why a journal of this version cannot be read."""
    if version > SCHEMA_VERSION:
        return JournalError(
            f"journal {path} has schema version {version}, written by a newer program; this one "
            f"knows versions up to {SCHEMA_VERSION}: use the newer program, or another file"
        )
    return JournalError(
        f"journal {path} has schema version {version}, this program reads {SCHEMA_VERSION}: open "
        "it for writing once, by `trading up` or a command as `trading account resume`, which "
        "brings it up to date and keeps the file as it was beside it"
    )


def migrate(path: Path, version: int) -> None:
    """Bring an older journal to this version; the file as it was is kept beside it."""
    missing = [step for step in range(version, SCHEMA_VERSION) if step not in MIGRATIONS]
    if missing:
        raise JournalError(
            f"journal {path} has schema version {version}, and nothing leads from version "
            f"{missing[0]} to the next: use the program that wrote it, or another file"
        )
    kept = keep_copy(path, f"version-{version}")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            for step in range(version, SCHEMA_VERSION):
                MIGRATIONS[step](connection)
            keep_note(connection, "schema_version", str(SCHEMA_VERSION))
            connection.execute("COMMIT")
        except Exception as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise JournalError(
                f"journal {path} stays at schema version {version}, its migration failed "
                f"({error}): use the program that wrote it; a copy is {kept}"
            ) from error


def create_schema(connection: sqlite3.Connection) -> None:
    """Make the tables of the newest version in an empty file, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in _statements():
        connection.execute(statement)
    keep_note(connection, "schema_version", str(SCHEMA_VERSION))
    connection.execute("COMMIT")


def _statements() -> Iterator[str]:
    """Yield what creates the tables, one statement each."""
    rest = _SCHEMA
    while rest.strip():
        end = rest.index(";") + 1
        while not sqlite3.complete_statement(rest[:end]):
            end = rest.index(";", end) + 1
        yield rest[:end].strip().rstrip(";")
        rest = rest[end:]


def altered(connection: sqlite3.Connection) -> str:
    """Return what of the tables' definitions, or the notes beside events, is not as written."""
    try:
        found = {
            _plain(as_text(row[0]))
            for row in connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
        }
        written = {_plain(statement) for statement in _statements()}
        # Triggers only guard against other programs: without them nothing is wrong.
        if not {each for each in written if each.startswith("CREATE TABLE")} <= found <= written:
            return "the definition of its tables is not what a program writes"
        for key, value, summed in connection.execute("SELECT key, value, sum FROM meta"):
            if _note_sum(key, value) != summed:
                return f"the note {as_text(key)!r} beside the events is damaged"
    except UNREADABLE as error:
        return f"the notes beside the events cannot be read: {error}"
    return ""


def _plain(sql: str) -> str:
    return re.sub(r"\s+", " ", sql.replace('"', "")).strip()


def keep_note(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Write a note about the journal, in place of an earlier one of this key."""
    connection.execute(_KEEP_NOTE, (key, value, _note_sum(key, value)))


def keep_ends(connection: sqlite3.Connection, ends: list[int]) -> None:
    """Note where the newest transactions ended."""
    keep_note(connection, "transaction_ends", ",".join(map(str, ends)))


def recorded_ends(connection: sqlite3.Connection) -> list[int]:
    """Numbers of the last events of the newest transactions, rising; empty when not known."""
    try:
        value = _note(connection, "transaction_ends")
        return [int(part) for part in value.split(",")] if value else []
    except (sqlite3.Error, ValueError):
        return []


def count_openings(connection: sqlite3.Connection) -> int:
    """Return how often the account was opened; 0 where that is not known."""
    try:
        return int(_note(connection, "openings") or 0)
    except (sqlite3.Error, ValueError):
        return 0


def _note(connection: sqlite3.Connection, key: str) -> str:
    """Return a note; empty where there is none, or a damaged one."""
    row = connection.execute("SELECT value, sum FROM meta WHERE key = ?", (key,)).fetchone()
    return as_text(row[0]) if row and _note_sum(key, row[0]) == row[1] else ""


def keep_copy(path: Path, label: str) -> Path:
    """Copy a journal with its log to the first free `NAME.LABEL-1`, `-2`, ..."""
    number = 1
    while (kept := beside(path, f".{label}-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm", ""):
        if (source := beside(path, suffix)).exists():
            copy = beside(kept, suffix)
            shutil.copy2(source, copy)
            sync(copy)
    sync(path.parent)
    return kept


def open_reader(path: Path) -> sqlite3.Connection:
    """Return a connection that changes neither the file nor its log, and gives text as bytes.

    Raises
    ------
    JournalError
        This user cannot read it, see `check_readable`.
    """
    connection = sqlite3.connect(reading_uri(path), uri=True, isolation_level=None)
    check_readable(path, connection)
    connection.text_factory = bytes
    return connection


def check_readable(path: Path, connection: sqlite3.Connection) -> None:
    """Tell a journal that may not be read here from one that is damaged; else close and raise.

    Raises
    ------
    JournalError
        It has a log, and this user may not write beside it.
    """
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            connection.close()
            raise JournalError(
                f"journal {path} cannot be read by this user ({error}): its newest rows lie in its "
                "log, and who reads that writes beside it; read it as its owner, or copy it with "
                f"{path.name}-wal to a folder of your own"
            ) from error
    except UNREADABLE:
        pass  # What is damaged says so when it is read.


def reading_uri(path: Path) -> str:
    """Return how SQLite is to open a file to read it.

    It keeps an index beside a file that has a log. In a folder that this user may not write it
    would refuse a journal without one too, which nobody writes then: that is read as it lies.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro"
    may_write = os.access(path.parent, os.W_OK, effective_ids=True)
    return uri if may_write or beside(path, "-wal").exists() else f"{uri}&immutable=1"


def lock_path(path: Path) -> Path:
    """Return where writers exclude each other.

    One file for every name that a journal has by links.
    """
    return beside(real(path), ".lock")


def real(path: Path) -> Path:
    """Return the file that a name leads to, through symbolic links."""
    return Path(os.path.realpath(path))


def refuse_another_name(path: Path) -> None:
    """Refuse a hard link to a journal that is written under another name.

    SQLite keeps the newest rows beside the name that a file was opened by, and after a kill only
    there: by another name they are missing, and what is written then damages the file. The name
    that it is written under is the one with the lock file or the log. Where all names lie in one
    folder and none has either, nothing lies beside any, and each will do.

    Raises
    ------
    JournalError
        It is such a link.
    """
    own = real(path)
    # The links of a folder are its subfolders.
    if not own.is_file() or own.stat().st_nlink == 1 or _is_written_by(own):
        return
    names = [each for each in own.parent.iterdir() if each.is_file() and each.samefile(own)]
    real_names = [each for each in names if not each.is_symlink()]
    is_elsewhere = len(real_names) < own.stat().st_nlink
    if is_elsewhere or any(_is_written_by(each) for each in real_names):
        raise JournalError(
            f"journal {path} is a hard link to a journal that has another name, and its newest "
            "rows may lie beside that name: open it by that one, make a symbolic link instead, or "
            "copy it once its writer has ended"
        )


def _is_written_by(name: Path) -> bool:
    return any(beside(name, suffix).exists() for suffix in (".lock", "-wal"))


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a file beside this one, as in `NAME-wal`."""
    return path.with_name(path.name + suffix)


def as_text(value: object) -> str:
    """Return a column's value as text, whatever bytes a damaged one holds."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
