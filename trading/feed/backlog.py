"""What waits for one reader: bounded, with old quotes giving way to new ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from trading.feed.splitting import RawEvent

_QUOTES = "Q"
_LEFT_OUT_FIRST = ("T", "A")
"""Trades and bars of a second: many, and of little use when they are late."""


_Test: TypeAlias = Callable[[RawEvent], bool]
_Shed: TypeAlias = tuple[list[RawEvent], int]


class Backlog:
    """Events in order of arrival, for a reader that takes them as fast as it can.

    Nothing is left out while fewer than `max_events` wait. Above that, quotes are left out for
    which a newer one of the same contract waits; where that is not enough, the oldest trades and
    bars of a second, then the oldest of what else there is, quotes last.

    Parameters
    ----------
    max_events: events that wait at most; may be changed
    max_bytes: bytes of these together

    Attributes
    ----------
    replaced: quotes left out for a newer one
    dropped: other events left out
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.max_events = max_events
        self._max_bytes = max_bytes
        self._events: deque[RawEvent] = deque()
        self._bytes = 0
        self.replaced = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: RawEvent) -> None:
        """Append an event."""
        self._events.append(event)
        self._bytes += len(event.data)
        if len(self._events) > self.max_events or self._bytes > self._max_bytes:
            self._shed()

    def take(self, max_events: int) -> list[bytes]:
        """Remove and return the oldest events, `max_events` at most."""
        count = min(max_events, len(self._events))
        taken = [self._events.popleft().data for _ in range(count)]
        self._bytes -= sum(map(len, taken))
        return taken

    def _shed(self) -> None:
        """Bring the backlog down to three quarters of its bounds, so that this happens rarely."""
        quoted: set[str] = set()
        kept: list[RawEvent] = []
        for event in reversed(self._events):
            if event.channel == _QUOTES:
                if event.symbol in quoted:
                    continue
                quoted.add(event.symbol)
            kept.append(event)
        kept.reverse()
        self.replaced += len(self._events) - len(kept)
        size = sum(len(event.data) for event in kept)
        for is_one in (_is_of_little_use, _is_no_quote, _is_any):
            kept, size = self._without_oldest(kept, size, is_one)
        self._events = deque(kept)
        self._bytes = size

    def _without_oldest(self, events: list[RawEvent], size: int, is_one: _Test) -> _Shed:
        most, most_bytes = max(1, self.max_events * 3 // 4), self._max_bytes * 3 // 4
        excess = len(events) - most
        if excess <= 0 and size <= most_bytes:
            return events, size
        kept = []
        for event in events:
            if (excess > 0 or size > most_bytes) and is_one(event):
                excess -= 1
                size -= len(event.data)
                self.dropped += 1
            else:
                kept.append(event)
        return kept, size


def _is_of_little_use(event: RawEvent) -> bool:
    return event.channel in _LEFT_OUT_FIRST


def _is_no_quote(event: RawEvent) -> bool:
    return event.channel != _QUOTES


def _is_any(_event: RawEvent) -> bool:
    return True
