"""The journal: every event of one account, durable before it takes effect.

A SQLite file in WAL mode with `synchronous=FULL`: when `append` returns, the rows survive a kill
or a power cut; when the process dies earlier, none of them exists. One process writes, any number
reads. Rows are numbered 1, 2, 3, ... and never change; each has a checksum of all that it holds.

A writer checks the file before it trusts it: all of it, or, where it is large, what follows its
newest snapshot. A damaged tail is cut at the last whole transaction and the damaged file is kept;
any other damage is refused. Where transactions ended is kept in `meta` for the newest ones, and how
many events were acknowledged in the lock file, so that rows missing at the end are noticed.
"""

import contextlib
import hashlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from trading.closing import Closing
from trading.errors import JournalDiskError, JournalError, JournalLocked, TradingError
from trading.execution.events import AccountOpened, Event
from trading.execution.journal.integrity import Repair, make_whole
from trading.execution.journal.schema import (
    ENDS_KEPT,
    INSERT,
    SCHEMA_VERSION,
    SELECT,
    UNREADABLE,
    check_readable,
    checksum,
    count_openings,
    create_schema,
    keep_ends,
    keep_note,
    lock_path,
    other_version,
    readable_version,
    reading_uri,
    real,
    recorded_ends,
    refuse_another_name,
)
from trading.execution.journal.snapshots import forget_snapshots, keep_snapshot, snapshots
from trading.files import FileLock, LockHeld

# The fold's margin runs on compiled kernels; who only reads events loads no compiler.
if TYPE_CHECKING:
    from trading.execution.portfolio import Account


class Journal(Closing):
    """Append-only store of an account's events.

    Parameters
    ----------
    path : Path
        The SQLite file; created with its folder when absent, unless `read_only`.
    read_only : bool
        Read while another process writes; appending raises.

    Raises
    ------
    JournalLocked
        Another journal object, in this process or another, has the file open for writing.
    JournalError
        The file is absent (`read_only`), no journal, of a newer version or one that cannot be
        migrated; or it is damaged elsewhere than at its end (writers check that); or it is a hard
        link to a journal with another name, see `refuse_another_name`.

    Attributes
    ----------
    repair : Repair or None
        What was cut off a damaged file when this writer opened it; for its owner to log.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self._mutex = threading.Lock()
        self._closed = False
        self._encoder = msgspec.json.Encoder(order="deterministic")
        self._decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
        self.repair: Repair | None = None
        self._file_lock: FileLock | None = None
        self._name_lock: FileLock | None = None
        self._know_by_its_name()
        if not read_only:
            self._lock_name()
        try:
            if not read_only:
                self._lock_file()
                self.repair = make_whole(real(self.path))
            self._connection = self._connect()
            if not read_only:
                self._lock_file()
            row = self._connection.execute(
                "SELECT seq, ts_ns FROM events ORDER BY seq DESC LIMIT 1"
            ).fetchone()
            ends = recorded_ends(self._connection)
        except (*UNREADABLE, OSError) as error:
            self._unlock()
            raise _refused(f"cannot open journal {self.path}", error) from error
        except JournalError:
            self._unlock()
            raise
        self._last_seq: int = row[0] if row else 0
        self._last_ts_ns: int = row[1] if row else 0
        self._ends = ends if ends and ends[-1] == self._last_seq else [self._last_seq]
        self._acknowledge()

    @property
    def last_seq(self) -> int:
        """Number of events."""
        return self._last_seq

    @property
    def last_ts_ns(self) -> int:
        """Exchange time of the last event, 0 when there is none."""
        return self._last_ts_ns

    def append(self, event: Event) -> int:
        """Write one event durably and return its number, counted from 1."""
        return self.append_many((event,))

    def append_many(self, events: Sequence[Event]) -> int:
        """Write events in one transaction, all or none, and return the last one's number.

        Raises
        ------
        JournalError
            An event holds a value that would not read back (NaN, infinity), or the journal is read
            only. Nothing is written then.
        JournalDiskError
            The disk refuses. Nothing is written then.
        """
        if self.read_only:
            raise JournalError(f"journal {self.path} is open read-only: the owner writes it")
        with self._mutex:
            if self._closed:
                raise JournalError(f"cannot write journal {self.path}: it is closed")
            rows = [self._row(seq, event) for seq, event in enumerate(events, self._last_seq + 1)]
            if not rows:
                return self._last_seq
            ends = [*self._ends[1 - ENDS_KEPT :], rows[-1][0]]
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(INSERT, rows)
                keep_ends(self._connection, ends)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise _refused(f"cannot write journal {self.path}", error) from error
            self._last_seq, self._last_ts_ns = rows[-1][0], rows[-1][1]
            self._ends = ends
            self._acknowledge()
            return self._last_seq

    def events(self, after: int = 0) -> Iterator[Event]:
        """Events numbered above `after`, in order; raises JournalError on a damaged row."""
        for seq, ts_ns, kind, payload, summed in self._rows(after):
            if checksum(seq, ts_ns, kind, payload) != summed:
                raise JournalError(
                    f"event {seq} of {self.path} is damaged: its checksum contradicts it; "
                    "`trading journal verify` says what can be saved"
                )
            try:
                yield self._decoder.decode(payload)
            except (msgspec.DecodeError, TradingError) as error:
                raise JournalError(f"event {seq} of {self.path} is damaged: {error}") from error

    def fold(self) -> "Account":
        """Return the account that the events describe, from the first one on."""
        from trading.execution.portfolio import Account

        return self._fold(Account(), 0)

    def restore(self) -> "Account":
        """Return the same account, from the newest snapshot on."""
        from trading.execution.portfolio import Account

        seq, account = next(snapshots(self._connection), (0, Account()))
        return self._fold(account, seq)

    def checked_fold(self) -> "tuple[Account, int]":
        """Return the fold from the first event on, and the number of snapshots, which all equal it.

        Raises
        ------
        JournalError
            One differs.
        """
        from trading.execution.portfolio import Account

        expected = {seq: account.fingerprint() for seq, account in snapshots(self._connection)}
        account = Account()
        for seq, event in enumerate(self.events(), 1):
            account.apply(event)
            if seq in expected and account.fingerprint() != expected[seq]:
                raise JournalError(
                    f"the snapshot after event {seq} of {self.path} differs from the fold of the "
                    "events before it: stop trading and remove it with `trading journal verify "
                    "--forget-snapshots`; the events are whole"
                )
        return account, len(expected)

    def keep_snapshot(self, account: "Account") -> None:
        """Keep the account as it stands after the last event, for the next start.

        Raises
        ------
        JournalDiskError
            The disk refuses; the events are safe.
        """
        with self._mutex:
            try:
                keep_snapshot(self._connection, self._last_seq, account)
            except sqlite3.Error as error:
                raise _refused(f"cannot write journal {self.path}", error) from error

    def forget_snapshots(self) -> None:
        """Remove every snapshot; the next start folds all events."""
        with self._mutex:
            forget_snapshots(self._connection)

    def _fold(self, account: "Account", after: int) -> "Account":
        for event in self.events(after):
            account.apply(event)
        return account

    def open_account(
        self, account_id: str, cash: float, ts_ns: int, multiplier: float = 100.0
    ) -> "Account":
        """Restore the account, opening it first when the journal is empty.

        Raises
        ------
        JournalError
            The journal belongs to another account.
        JournalDiskError
            The disk refuses.
        """
        if self._last_seq == 0:
            self.append(AccountOpened(ts_ns, account_id, cash, multiplier))
        try:
            keep_note(self._connection, "openings", str(self.openings + 1))
        except sqlite3.Error as error:
            raise _refused(f"cannot write journal {self.path}", error) from error
        account = self.restore()
        if account.account_id != account_id:
            raise JournalError(
                f"journal {self.path} belongs to account {account.account_id!r}, not "
                f"{account_id!r}: use another file for another account"
            )
        return account

    @property
    def openings(self) -> int:
        """How often the account was opened for trading, restarts included."""
        return count_openings(self._connection)

    def digest(self) -> str:
        """SHA-256 over every row: equal exactly for equal histories."""
        sha = hashlib.sha256()
        for seq, ts_ns, kind, payload, _ in self._rows(0):
            sha.update(f"{seq}\t{ts_ns}\t{kind}\t{payload}\n".encode())
        return sha.hexdigest()

    def close(self) -> None:
        """Release the file; closing twice is allowed."""
        with self._mutex:
            self._closed = True
            self._connection.close()
            self._unlock()

    def _row(self, seq: int, event: Event) -> tuple[int, int, str, str, int]:
        payload = self._encoder.encode(event)
        try:
            readable = self._decoder.decode(payload) == event
        except (msgspec.DecodeError, TradingError):
            readable = False
        if not readable:
            raise JournalError(
                f"event {event} would not read back from journal {self.path}: "
                "every number must be finite and every field of its declared type"
            )
        kind = str(event.__struct_config__.tag)
        return seq, event.ts_ns, kind, payload.decode(), checksum(seq, event.ts_ns, kind, payload)

    def _rows(self, after: int) -> Iterator[tuple[int, int, str, str, int]]:
        cursor = self._connection.execute(SELECT, (after,))
        expected = after
        try:
            for row in cursor:
                expected += 1
                if row[0] != expected:
                    raise JournalError(
                        f"event {expected} of {self.path} is missing: restore the file from a copy"
                    )
                yield row
        except sqlite3.Error as error:
            raise JournalError(f"cannot read journal {self.path}: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        if self.read_only and not self.path.is_file():
            raise JournalError(f"no journal at {self.path}: start trading first or name its file")
        path = real(self.path)
        uri = reading_uri(path) if self.read_only else f"{path.as_uri()}?mode=rwc"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        if self.read_only:
            check_readable(path, connection)
        else:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
                create_schema(connection)
        version = readable_version(self.path, connection)
        if version != SCHEMA_VERSION:
            connection.close()
            raise other_version(self.path, version)
        return connection

    def _acknowledge(self) -> None:
        """Note how many events are durable, for the check of the next writer."""
        if self._name_lock is not None:
            # Only a help to notice a loss: where it cannot be written the events are still safe.
            with contextlib.suppress(OSError):
                self._name_lock.write(b"%20d\n" % self._last_seq)

    def _lock_name(self) -> None:
        """Lock the file beside it that all its names by symbolic links share."""
        path = lock_path(self.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._name_lock = FileLock(path)
        except LockHeld as held:
            raise self._locked(held) from held
        except OSError as error:
            raise _refused(f"cannot create journal {self.path}", error) from error

    def _know_by_its_name(self) -> None:
        try:
            refuse_another_name(self.path)
        except JournalError:
            try:
                if not self.read_only:
                    self._lock_file()  # Where it is being written, that is what it says.
            finally:
                self._unlock()
            raise

    def _lock_file(self) -> None:
        """Lock the file itself: by a hard link or another mount its lock file has other names."""
        path = real(self.path)
        if not path.exists():
            return
        if self._file_lock is not None:
            if self._file_lock.is_of_its_path:
                return
            self._file_lock.close()
        try:
            self._file_lock = FileLock(path, make=False)
        except LockHeld as held:
            raise self._locked(held) from held

    def _locked(self, held: LockHeld) -> JournalLocked:
        return JournalLocked(
            f"journal {self.path} is being written by another owner, {held.holder}: stop it, or "
            "open the journal read-only"
        )

    def _unlock(self) -> None:
        for lock in (self._file_lock, self._name_lock):
            if lock is not None:
                lock.close()
        self._file_lock = self._name_lock = None


_DISK_SAYS_NO = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
}


def _refused(what: str, error: BaseException) -> JournalError:
    """Return the error of a file that could not be written or opened.

    Whether it was the disk's fault.
    """
    code = getattr(error, "sqlite_errorcode", None)
    # The lowest byte is the kind; the rest says more of it.
    is_disk = isinstance(error, OSError) or (code is not None and code & 0xFF in _DISK_SAYS_NO)
    return (JournalDiskError if is_disk else JournalError)(f"{what}: {error}")
