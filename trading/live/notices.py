"""Messages to the owner by mail, Slack, Telegram, webhooks, ...: whatever Apprise can reach.

What is told is collected, and goes out as one digest at most once in an interval, so that a storm
is one message. Sending has a thread of its own and never holds trading up; what cannot be sent is
tried again with the next digest. Addresses are secrets, and appear in no log.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from trading.execution.events import (
    ChampionPromoted,
    ChampionRolledBack,
    Event,
    OrderFilled,
    OrderRejected,
    OwnerCommanded,
    PromotedBy,
    StateChanged,
    UnderlyingReinstated,
    UnderlyingSuspended,
)
from trading.logs import get_logger

log = get_logger(__name__)

_MOST_LINES = 20
"""Of one digest; of more, the newest and how many there were."""
_MOST_KEPT = 1000
_CLOSE_TIMEOUT_S = 5.0


class Notices:
    """Collects lines and sends them as digests, on a thread of its own.

    Parameters
    ----------
    send
        `send(title, body)` says whether the message went out.
    name
        Of the account, for titles.
    interval_s
        Least seconds between two messages.
    """

    def __init__(self, send: Callable[[str, str], bool], name: str, interval_s: float) -> None:
        self._send, self._name, self._interval_s = send, name, interval_s
        self._lines: deque[str] = deque(maxlen=_MOST_KEPT)
        self._told = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._main, name="notices", daemon=True)
        self._thread.start()

    def tell(self, line: str) -> None:
        """Put a line into the next digest; safe on any thread, and at once."""
        with self._changed:
            self._lines.append(" ".join(line.split()))
            self._told += 1
            self._changed.notify()

    def close(self) -> None:
        """Send what is left, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _main(self) -> None:
        sent_s = -self._interval_s
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._stopping)
                rest_s = sent_s + self._interval_s - time.monotonic()
                if rest_s > 0.0 and not self._stopping:
                    self._changed.wait_for(lambda: self._stopping, rest_s)
                lines, count = list(self._lines), self._told
                self._lines.clear()
                self._told, stopping = 0, self._stopping
            sent_s = time.monotonic()
            if lines and not self._deliver(lines, count) and not stopping:
                with self._changed:
                    self._lines.extendleft(reversed(lines[-_MOST_LINES:]))
                    self._told += count
            if stopping:
                return

    def _deliver(self, lines: Sequence[str], count: int) -> bool:
        shown = lines[-_MOST_LINES:]
        title = f"trading, account {self._name}: "
        title += shown[0] if count == 1 else f"{count} messages"
        more = [f"({count - len(shown)} earlier ones are in the log and the journal)"]
        body = "\n".join((more if count > len(shown) else []) + list(shown))
        try:
            sent = self._send(title[:200], body)
        except Exception as error:
            # Its text may hold an address.
            log.warning("a message to the owner failed", kind=type(error).__name__)
            return False
        if not sent:
            log.warning("a message to the owner did not go out", lines=count)
        return sent


def by_apprise(addresses: Sequence[str]) -> Callable[[str, str], bool]:
    """Return what sends to these addresses of Apprise.

    One that is none is told by its place, once.
    """
    import apprise

    # Its log holds addresses.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    reached = apprise.Apprise()
    for number, address in enumerate(addresses, 1):
        if not reached.add(address):
            log.error("NOTIFY_URLS holds no address of Apprise", number=number)

    def send(title: str, body: str) -> bool:
        return bool(reached.notify(title=title, body=body))

    return send


class JournalNotices:
    """Says which events of the journal are worth a message, and how.

    Parameters
    ----------
    tell
        Takes a line.
    rejections_in_a_row
        So many without a fill between them are worth one.
    """

    def __init__(self, tell: Callable[[str], None], rejections_in_a_row: int) -> None:
        self._tell = tell
        self._limit = rejections_in_a_row
        self._rejected = 0

    def follow(self, events: Sequence[Event]) -> None:
        """Tell of what was journalled."""
        for event in events:
            if isinstance(event, OrderRejected):
                self._rejected += 1
                if self._rejected == self._limit:
                    self._tell(
                        f"{self._limit} orders were rejected in a row, the last one for "
                        f"{event.rejection.reason}: {event.rejection.detail}"
                    )
            elif isinstance(event, OrderFilled):
                self._rejected = 0
            elif line := line_of(event):
                self._tell(line)


def line_of(event: Event) -> str:
    """Return an event in words; empty where it is worth no message."""
    told = _TOLD.get(type(event))
    return told(event) if told else ""


def _state(event: StateChanged) -> str:
    what = f"{event.cause} ended" if event.cause and event.restricts == "active" else "now"
    return f"{event.trading_state.upper()}: {what}, {event.reason}"


def _promoted(event: ChampionPromoted) -> str:
    if event.by is PromotedBy.START:
        return ""
    return f"champion {event.champion} trades, by {event.by}: {event.reason}"


_TOLD: dict[type[Any], Callable[[Any], str]] = {
    StateChanged: _state,
    UnderlyingSuspended: lambda event: f"{event.underlying} is suspended: {event.reason}",
    UnderlyingReinstated: lambda event: f"{event.underlying} trades again: {event.reason}",
    ChampionPromoted: _promoted,
    ChampionRolledBack: lambda event: (
        f"champion {event.champion} trades again, by {event.by}: {event.reason}"
    ),
    OwnerCommanded: lambda event: f"{event.command} by {event.by}: {event.answer}",
}
