"""The account's lease: of all applications that share a state folder, one trades.

The journal's own lock says which process writes the journal. The lease says which application may:
it is held from before the first of the account's files is opened until the last checkpoint is
written, through restarts of the process that writes. Others stand by, and read from the lease's
file who holds it.

It is a file lock (`flock`), which the kernel drops when the holder dies, however it dies. It holds
among processes that share a kernel, so also among pods of one node that mount one volume. Like the
journal, which is SQLite in WAL mode, it is not for a folder that several machines write to.
"""

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from trading.closing import Closing
from trading.errors import AccountLeased, JournalError
from trading.execution.journal.schema import beside, lock_path, real
from trading.files import FileLock, LockHeld, is_locked, write

_POLL_S = 0.25


class LeaseHolder(msgspec.Struct, frozen=True):
    """Who holds a lease."""

    host: str
    pid: int
    """In the process's own PID namespace."""
    cluster: str
    """Ray cluster that it trades on; empty for one of its own."""
    since: str
    """ISO 8601, UTC."""
    key: str
    """Differs from every other holder's."""

    @classmethod
    def this_process(cls) -> "LeaseHolder":
        """Return this process, from now on."""
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            cluster=this_cluster(),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            key=secrets.token_hex(8),
        )

    def __str__(self) -> str:
        cluster = f"Ray cluster {self.cluster}, " if self.cluster else ""
        return f"{cluster}host {self.host}, process {self.pid}, since {self.since}"

    @property
    def is_here(self) -> bool:
        """Whether it runs on this host, as part of this Ray cluster."""
        return (self.host, self.cluster) == (socket.gethostname(), this_cluster())


def this_cluster() -> str:
    """Name of the Ray cluster that this process belongs to, as KubeRay tells its pods."""
    return os.environ.get("RAY_CLUSTER_NAME", "")


class AccountLease(Closing):
    """The right to trade the account of one journal, while this object is open.

    Parameters
    ----------
    journal
        The account's journal; the lease is a file beside it.

    Raises
    ------
    AccountLeased
        Another application holds it, or a process without lease writes the journal. Nothing was
        written.
    JournalError
        The folder cannot be written.
    """

    def __init__(self, journal: Path) -> None:
        self._path = lease_path(journal)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self._path)
        except LockHeld as held:
            # It may only just have taken it, and not said yet who it is.
            raise AccountLeased(journal, str(holder_of(journal) or held.holder)) from None
        except OSError as error:
            raise JournalError(f"cannot create {self._path}: {error}") from error
        if is_locked(lock_path(journal)):
            self._lock.close()
            raise AccountLeased(journal, "a process that writes the journal without the lease")
        self.holder = LeaseHolder.this_process()
        _request_path(self._path).unlink(missing_ok=True)
        self._lock.write(msgspec.json.encode(self.holder))

    def close(self) -> None:
        """Let others have it; twice is allowed."""
        if self._lock.is_open:
            self._lock.write(b"")
            self._lock.close()

    @property
    def is_asked_for(self) -> bool:
        """Whether somebody asked this holder by `ask_to_stop` to end in order."""
        with contextlib.suppress(OSError):
            return _request_path(self._path).read_text() == self.holder.key
        return False

    def answer_requests(self, stop: threading.Event) -> None:
        """Start a thread that sets `stop` when this holder is asked to; it ends with the lease."""

        def watch() -> None:
            while self._lock.is_open and not stop.wait(_POLL_S):
                if self.is_asked_for:
                    stop.set()

        threading.Thread(target=watch, name="lease-requests", daemon=True).start()


def wait_for_lease(
    journal: Path,
    stop: threading.Event,
    timeout_s: float | None,
    tell: Callable[[AccountLeased], None],
) -> AccountLease | None:
    """Return the lease as soon as it is free; None when `stop` was set before.

    Parameters
    ----------
    journal
        The account's journal.
    stop
        Ends the waiting.
    timeout_s
        None waits without limit.
    tell
        Called with the reason that it is not free, and with every other reason that follows.

    Raises
    ------
    AccountLeased
        Time is up.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    told = ""
    while True:
        try:
            return AccountLease(journal)
        except AccountLeased as error:
            if error.holder != told:
                told = error.holder
                tell(error)
            if deadline is not None and time.monotonic() >= deadline:
                raise
        if stop.wait(_POLL_S):
            return None


def wait_for_any(
    journals: Mapping[str, Sequence[Path]], stop: threading.Event, tell: Callable[[int], None]
) -> tuple[str, list[AccountLease]] | None:
    """Return the first leases of several that are free, as soon as they are, and their name.

    Parameters
    ----------
    journals
        What is taken at once, by name, in the order in which it is tried.
    stop
        Ends the waiting; it returns None then.
    tell
        Called with how many are taken, when none is free.
    """
    told = False
    while not stop.is_set():
        for name, of_one in journals.items():
            with contextlib.suppress(AccountLeased), contextlib.ExitStack() as stack:
                leases = [stack.enter_context(AccountLease(each)) for each in of_one]
                stack.pop_all()
                return name, leases
        if not told:
            told = True
            tell(len(journals))
        stop.wait(_POLL_S)
    return None


def lease_path(journal: Path) -> Path:
    """Return the lease's file, one for every name that the journal has by links."""
    return beside(real(journal), ".lease")


def holder_of(journal: Path) -> LeaseHolder | None:
    """Who holds the lease; None when nobody does, or only just."""
    path = lease_path(journal)
    try:
        holder = msgspec.json.decode(path.read_bytes(), type=LeaseHolder)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return holder if is_locked(path) else None


def ask_to_stop(journal: Path, holder: LeaseHolder) -> None:
    """Ask this holder, and no later one, to end in order."""
    write(_request_path(lease_path(journal)), holder.key.encode())


def _request_path(lease: Path) -> Path:
    return beside(lease, ".stop")
