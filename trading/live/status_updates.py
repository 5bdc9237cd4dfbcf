"""What the live market says of itself to those who answer for it: made once, read by many."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from trading.logs import get_logger

log = get_logger(__name__)

INTERVAL_S = 0.5
"""Between two updates without a bar."""


class StatusUpdate(NamedTuple):
    """One update: answers as they go out."""

    number: int
    """Counted from 1."""
    ready: bool
    reasons: tuple[str, ...]
    """Why it is not ready."""
    status: bytes
    """JSON object, in which a number that is not finite is null."""
    metrics: bytes
    """Prometheus text."""
    day: bytes = b"{}"
    """JSON object: the session bar by bar, see `trading.live.recent_activity`."""
    journal: str = ""
    """Path of the account's journal, on the live market's node."""


class StatusPublisher:
    """Makes a status update after every bar, and every half second; keeps the newest.

    Readers wait for the next one instead of asking the trading thread, which only says that there
    was a bar: the updates are made on a thread of their own.

    Parameters
    ----------
    write
        Makes ready, reasons, status and metrics of an update.
    tell_day
        Makes its day.
    journal
        Path of the account's journal.
    """

    def __init__(
        self,
        write: Callable[[], tuple[bool, list[str], dict[str, object], bytes]],
        tell_day: Callable[[], dict[str, object]] = dict,
        journal: str = "",
    ) -> None:
        self._write, self._tell_day, self._journal = write, tell_day, journal
        self._newest: StatusUpdate | None = None
        self._changed = threading.Condition()
        self._due = threading.Event()
        threading.Thread(target=self._publish, name="publisher", daemon=True).start()

    def bar(self) -> None:
        """Make the next update now: there was a bar."""
        self._due.set()

    def after(self, number: int, timeout_s: float) -> StatusUpdate | None:
        """Return the newest update as soon as it is another than that; None where time is up."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._newest is None or self._newest.number == number:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return None
            return self._newest

    def _publish(self) -> None:
        number = 0
        while True:
            try:
                ready, reasons, status, metrics = self._write()
                day = as_json(self._tell_day())
            except Exception:
                # A trader in the midst of a change; the next update is half a second away.
                log.exception("no status update")
            else:
                number += 1
                told = (ready, tuple(reasons), as_json(status), metrics)
                update = StatusUpdate(number, *told, day, self._journal)
                with self._changed:
                    self._newest = update
                    self._changed.notify_all()
            self._due.wait(INTERVAL_S)
            self._due.clear()


def as_json(content: object) -> bytes:
    """`content` as JSON; NaN becomes null, NumPy's scalars and arrays become Python's."""
    return msgspec.json.encode(content, enc_hook=_plain)


def _plain(value: object) -> object:
    tolist = getattr(value, "tolist", None)
    return tolist() if tolist is not None else str(value)
