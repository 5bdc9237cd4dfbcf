"""The feed's side of one reader's connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from trading.data.massive.client.subscriptions import check_name
from trading.data.massive.protocol import VENDOR_CHANNELS, FeedProtocol
from trading.data.massive.wire import DISPLACED, SUBSCRIBED, Status, StatusCode, encode
from trading.errors import StreamError
from trading.feed.backlog import Backlog
from trading.feed.splitting import RawEvent

_MOST_STATUSES = 2000
"""Statuses that wait for a reader until nothing more is read of it."""


@dataclass
class ReaderProtocol(FeedProtocol):
    """What a reader asks for; how that is answered depends on the vendor's answer.

    Attributes
    ----------
    needs: what is subscribed to, with what is needed most in front: in the order of asking, but
        a name that is asked for again goes to the front
    unanswered: names in the order of asking, up to the first that waits for an answer
    told: what the reader was told of each name: whether it is subscribed to
    """

    max_names: int = 20_000
    needs: dict[str, None] = field(default_factory=dict)
    unanswered: deque[str] = field(default_factory=deque)
    told: dict[str, bool] = field(default_factory=dict)

    def _subscribe(self, topics: Iterable[tuple[str, str]]) -> list[Status]:
        statuses: list[Status] = []
        again: list[str] = []
        for channel, symbol in topics:
            name = f"{channel}.{symbol}"
            if name in self.needs:
                again.append(name)
            elif channel in VENDOR_CHANNELS[self.asset_class]:
                refusal = self._refusal(channel, symbol)
                if refusal is not None:
                    statuses.append(Status(StatusCode.ERROR, refusal))
                    continue
                self.symbols.setdefault(channel, set()).add(symbol)
                self.needs[name] = None
                self.unanswered.append(name)
                self.revision += 1
        if again:
            front = dict.fromkeys(again)
            self.needs = front | {name: None for name in self.needs if name not in front}
            self.revision += 1
        return statuses

    def _refusal(self, channel: str, symbol: str) -> str | None:
        """Why a name is not even asked of the vendor, who would end the connection for some."""
        try:
            check_name(f"{channel}.{symbol}")
        except StreamError:
            return "not authorized"
        if len(self.needs) >= self.max_names:
            return f"Subscription limit reached for feed: {self.max_names} names"
        return None

    def _unsubscribe(self, topics: Iterable[tuple[str, str]]) -> list[Status]:
        pairs = list(topics)
        statuses = super()._unsubscribe(pairs)
        gone = {name for name in (f"{channel}.{symbol}" for channel, symbol in pairs)}
        for name in gone:
            self.needs.pop(name, None)
            self.told.pop(name, None)
        if not gone.isdisjoint(self.unanswered):
            self.unanswered = deque(name for name in self.unanswered if name not in gone)
        return statuses


class CountedTotals(NamedTuple):
    """What of a reader is in the feed's totals already."""

    sent: int = 0
    replaced: int = 0
    dropped: int = 0


class Reader:
    """One reader: what it wants, what waits for it, and who writes that.

    Parameters
    ----------
    number: tells it from others in what the feed says of itself
    connection, protocol: its connection and its side of the vendor's protocol
    max_events, max_bytes: bounds of what waits for it; the newest quote of each contract has room
    max_frame_events: events in one message
    """

    def __init__(
        self,
        number: int,
        connection: ServerConnection,
        protocol: ReaderProtocol,
        max_events: int,
        max_bytes: int,
        max_frame_events: int,
    ) -> None:
        self.number = number
        self.connection = connection
        self.protocol = protocol
        self.sent = 0
        """Events written to it."""
        self.noted = CountedTotals()
        self._max_events = max_events
        self._max_frame_events = max_frame_events
        self.backlog = Backlog(max_events, max_bytes)
        self._statuses: deque[Status] = deque()
        self._news = asyncio.Event()
        self._read_on = asyncio.Event()
        self._read_on.set()

    def put(self, event: RawEvent) -> None:
        """Let an event wait for it; never waits itself. To be followed by `wake`."""
        self.backlog.put(event)

    def wake(self) -> None:
        """Let what waits be written."""
        self._news.set()

    def say(self, status: Status) -> None:
        """Tell it a status, ahead of the events that wait."""
        self._statuses.append(status)
        if len(self._statuses) >= _MOST_STATUSES:
            self._read_on.clear()
        self._news.set()

    def acknowledge(self, name: str) -> None:
        """Tell that a name is subscribed to, if that is new."""
        if not self.protocol.told.get(name, False):
            self.protocol.told[name] = True
            self.say(Status(StatusCode.SUCCESS, f"{SUBSCRIBED}{name}"))

    def refuse(self, name: str, reason: str) -> None:
        """Tell that a name is not subscribed to, or no more, if that is new."""
        before = self.protocol.told.get(name)
        self.protocol.told[name] = False
        if before is None:
            self.say(Status(StatusCode.ERROR, reason))
        elif before:
            self.say(Status(StatusCode.DISPLACED, f"{DISPLACED}{name}: {reason}"))

    async def may_ask(self) -> None:
        """Wait until it has read enough of what it was told."""
        await self._read_on.wait()

    def subscriptions_changed(self) -> None:
        """Give the newest quote of each contract room."""
        contracts = len(self.protocol.symbols.get("Q", ()))
        self.backlog.max_events = self._max_events + 2 * contracts

    async def write(self) -> None:
        """Write what waits, as fast as it is read, until the connection closes."""
        with suppress(ConnectionClosed):
            while True:
                await self._news.wait()
                self._news.clear()
                while self._statuses or len(self.backlog):
                    await self.connection.send(self._next_frame(), text=True)

    def _next_frame(self) -> bytes:
        most = self._max_frame_events
        if self._statuses:
            statuses = [self._statuses.popleft() for _ in range(min(most, len(self._statuses)))]
            if len(self._statuses) < _MOST_STATUSES:
                self._read_on.set()
            return encode(statuses)
        events = self.backlog.take(most)
        self.sent += len(events)
        return b"[" + b",".join(events) + b"]"
