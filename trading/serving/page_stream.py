"""`GET /events`: what the page shows, as server-sent events.

A viewer is told the whole once, and then what changed: a JSON merge patch (RFC 7396) for each
edition of what is shown, made once a replica for all who look. The events are `whole`, `change`,
`gone` (there is no status update, and why) and `beat`. An answer ends before Serve's time for
requests is over; the browser asks again by itself, and goes on from the last edition that it has.
"""

import asyncio
import time
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from trading.errors import TradingError
from trading.live.status_updates import StatusUpdate, as_json

MOST_VIEWERS = 60
"""Of one replica, of all its pages together, so that questions of probes never wait for them."""
STREAM_S = 25.0
"""Longest answer; Serve ends those of `trading.serving.service.REQUEST_TIMEOUT_S`."""
PAUSE_S = 0.5
BEAT_S = 5.0
"""Longest silence."""
FEED_S = 10.0
"""Least time between two events in which only counters of the feed changed."""
_RETRY_MS = 500
_KEPT = 16
"""Editions that a viewer can go on from."""
_RESTLESS = {"feed"}


class PageInput(NamedTuple):
    """What there is to show: the newest status update, and the supervisor's word if any."""

    update: StatusUpdate | None
    """None: nobody trades, by the supervisor's word."""
    supervisor: dict[str, Any] | None = None
    strategy: str = ""
    """Which of several strategies it is; empty where an account is alone."""


class PageEdition(NamedTuple):
    """What the page shows, at one time."""

    id: str
    content: dict[str, Any]


_T = TypeVar("_T")


class Viewers:
    """How many look at the pages of one replica."""

    def __init__(self) -> None:
        self.count = 0

    @property
    def is_full(self) -> bool:
        """Whether no more are let in."""
        return self.count >= MOST_VIEWERS


class PageStream(Generic[_T]):
    """Editions of a page, and who looks at them.

    Parameters
    ----------
    tell
        The newest that is known; raises TradingError with the reason where nothing is.
    make
        Makes an edition of it, where it is not equal to what was told before. One of the same
        update has the same name whichever replica tells of it.
    viewers
        Of all streams of the replica.
    """

    def __init__(
        self,
        tell: Callable[[], Awaitable[_T]],
        make: Callable[[_T], PageEdition],
        viewers: Viewers,
    ) -> None:
        self._tell, self._make = tell, make
        self._last: tuple[_T, PageEdition] | None = None
        self._kept: OrderedDict[str, PageEdition] = OrderedDict()
        self._changes: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self.viewers = viewers

    async def newest(self) -> PageEdition:
        """Return the newest edition.

        Raises
        ------
        TradingError
            Nothing is known, and why.
        """
        told = await self._tell()
        last = self._last
        if last is None or last[0] != told:
            edition = self._make(told)
            self._last = last = told, edition
            self._kept[edition.id] = edition
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return last[1]

    async def events(self, last_id: str) -> AsyncIterator[bytes]:
        """Server-sent events for one viewer, who knows the edition `last_id` (or none)."""
        self.viewers.count += 1
        try:
            async for event in self._events(last_id):
                yield event
        finally:
            self.viewers.count -= 1

    async def _events(self, last_id: str) -> AsyncIterator[bytes]:
        yield f"retry: {_RETRY_MS}\n\n".encode()
        ends_s = time.monotonic() + STREAM_S
        known = self._kept.get(last_id)
        gone, said_s, told_s = "", 0.0, 0.0
        while time.monotonic() < ends_s:
            event = b""
            try:
                edition = await self.newest()
            except TradingError as error:
                if str(error) != gone:
                    gone, event = str(error), _event("gone", {"reason": str(error)})
            else:
                is_back, gone = bool(gone), ""
                if known is None:
                    event = _event("whole", edition.content, edition.id)
                else:
                    patch = self._changed(known, edition)
                    is_due = not _is_restless(patch) or time.monotonic() - told_s >= FEED_S
                    event = _event("change", patch, edition.id) if is_due or is_back else b""
                known, told_s = (edition, time.monotonic()) if event else (known, told_s)
            if not event and time.monotonic() - said_s >= BEAT_S:
                event = _event("beat", {})
            if event:
                said_s = time.monotonic()
                yield event
            await asyncio.sleep(PAUSE_S)

    def _changed(self, before: PageEdition, after: PageEdition) -> Any:
        key = before.id, after.id
        if key not in self._changes:
            self._changes[key] = merge_patch(before.content, after.content)
            while len(self._changes) > _KEPT:
                self._changes.popitem(last=False)
        return self._changes[key]


async def compressed(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the same in gzip, each event as soon as it is there: what repeats costs little."""
    gzip = zlib.compressobj(wbits=31)
    async for event in events:
        yield gzip.compress(event) + gzip.flush(zlib.Z_SYNC_FLUSH)
    yield gzip.flush()


def merge_patch(before: Any, after: Any) -> Any:
    """Return the JSON merge patch (RFC 7396) that leads from one object to another.

    What is null counts as absent, as it does for who applies it.
    """
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    patch = {name: None for name in before if after.get(name) is None and before[name] is not None}
    for name, value in after.items():
        if value is None:
            continue
        old = before.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            if inner := merge_patch(old, value):
                patch[name] = inner
        elif old != value:
            patch[name] = value
    return patch


def _is_restless(patch: dict[str, Any]) -> bool:
    """Whether nothing changed but counters that always do."""
    return patch.keys() <= {"status"} and patch.get("status", {}).keys() <= _RESTLESS


def account_edition(told: PageInput) -> PageEdition:
    """Return what the page of one account shows."""
    supervisor: dict[str, Any] = {"strategy": told.strategy} if told.strategy else {}
    if told.supervisor is not None:
        supervisor["supervisor"] = told.supervisor
    said = zlib.crc32(as_json(supervisor))
    if told.update is None:
        nothing: dict[str, Any] = {"ready": False, "reasons": [], "status": {}, "day": {}}
        return PageEdition(f"none-{said:x}", nothing | supervisor)
    update = told.update
    status = msgspec.json.decode(update.status)
    content = {
        "ready": update.ready,
        "reasons": list(update.reasons),
        "status": status,
        "day": msgspec.json.decode(update.day),
        **supervisor,
    }
    return PageEdition(f"{status.get('process', 0)}-{update.number}-{said:x}", content)


def _event(kind: str, content: object, number: str = "") -> bytes:
    head = f"id: {number}\n" if number else ""
    return f"event: {kind}\n{head}data: ".encode() + as_json(content) + b"\n\n"
