"""The feed: one connection to the vendor, and a server for many that speaks its protocol."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from trading.data.massive import protocol
from trading.data.massive.client.connection import ConnectionState
from trading.data.massive.client.stream_settings import StreamSettings
from trading.data.massive.server import handshake
from trading.data.massive.urls import check_api_key
from trading.data.massive.wire import Status, StatusCode
from trading.errors import StreamError
from trading.feed.feed_metrics import FeedCounts, feed_text
from trading.feed.pass_through import PassThrough
from trading.feed.reader import CountedTotals, Reader, ReaderProtocol
from trading.feed.routes import Routes
from trading.feed.splitting import Splitter
from trading.feed.upstream import Upstream
from trading.logs import get_logger

_POLICY_VIOLATION: Final = 1008
_SERVICE_RESTART: Final = 1012
"""Not 1001, at which the vendor's client ends without a word instead of connecting again."""
_PING_INTERVAL_S: Final = 20.0
_OPEN_TIMEOUT_S: Final = 60.0
"""For a REST answer too, which comes before a handshake would."""
_SEND_BUFFER_BYTES: Final = 256 << 10
"""What the kernel holds for a reader, which is out of reach for newer quotes."""
_FOR_ALL = ("/health", "/metrics", "/status")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """How a feed behaves; every time is in seconds.

    Parameters
    ----------
    websocket_url, rest_url: where the vendor is reached
    keys: the vendor's keys, each for one connection an asset class; REST goes by the first
    reader_keys: what readers authenticate with
    host, port: where to listen; port 0 lets the system choose
    max_quotes: contracts of quotes that one connection to the vendor may subscribe to
    max_readers: connections of readers, of all asset classes together
    max_waiting_events, max_waiting_bytes: what waits for one reader, see `Backlog`
    max_frame_events: events in one message to a reader
    rest_keep_s, rest_live_s, rest_max_bytes: how long and how much is kept, see `PassThrough`
    silence_timeout_s: a connection to the vendor that is silent for so long is replaced
    auth_timeout_s: how long a reader may stay unauthenticated
    answer_timeout_s: how long a subscription may stay unanswered before later ones are answered
    close_timeout_s: how long a reader has to close its side
    """

    websocket_url: str
    rest_url: str
    keys: Sequence[str] = field(repr=False)
    reader_keys: Sequence[str] = field(repr=False)
    host: str
    port: int
    max_quotes: int
    max_readers: int
    max_waiting_events: int
    rest_keep_s: float
    rest_live_s: float
    rest_max_bytes: int
    silence_timeout_s: float | None
    max_waiting_bytes: int = 16 << 20
    max_frame_events: int = 500
    auth_timeout_s: float = 10.0
    answer_timeout_s: float = 15.0
    close_timeout_s: float = 5.0
    backoff_initial_s: float = 0.5
    backoff_max_s: float = 30.0
    cool_down_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.keys or not self.reader_keys:
            raise StreamError("a feed needs the vendor's key and one for its readers")
        for key in (*self.keys, *self.reader_keys):
            check_api_key(key)

    def stream(self) -> StreamSettings:
        """How the vendor's stream is reached."""
        return StreamSettings(
            self.websocket_url,
            self.keys[0],
            silence_timeout_s=self.silence_timeout_s,
            outlasts_refusal=True,
            backoff_initial_s=self.backoff_initial_s,
            backoff_max_s=self.backoff_max_s,
            cool_down_s=self.cool_down_s,
        )


class FeedServer:
    """Shares the vendor's stream and REST service out among readers.

    A reader connects to it as to the vendor: the same paths, messages and answers. What it
    subscribes to is subscribed to upstream while at least one reader wants it. Its events are the
    vendor's, byte for byte, in the vendor's order; one that reads too slowly loses old quotes
    alone (see `Backlog`), and nobody waits for it. When the vendor's connection is lost, readers
    keep theirs and are told by a status; everything is asked for again by the feed.

    Parameters
    ----------
    options: see `FeedOptions`
    expects_data: whether the market is expected to tick at a time (UTC nanoseconds), so that
        silence is a fault
    seed: of the jitter of the pauses between connections
    clock: wall time in nanoseconds
    """

    def __init__(
        self,
        options: FeedOptions,
        expects_data: Callable[[int], bool] = lambda _: True,
        seed: int = 0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._options = options
        self._expects_data = expects_data
        self._clock = clock
        rng = np.random.default_rng(seed)
        self._readers: dict[str, list[Reader]] = {name: [] for name in protocol.ASSET_CLASSES}
        self._routes = {name: Routes(readers) for name, readers in self._readers.items()}
        self._upstreams: dict[str, Upstream] = {
            name: Upstream(
                name, options.stream(), options.keys, options.max_quotes, self._share, self, rng
            )
            for name in protocol.ASSET_CLASSES
        }
        self.rest = PassThrough(
            options.rest_url,
            options.keys[0],
            options.reader_keys,
            keep_s=options.rest_keep_s,
            live_s=options.rest_live_s,
            max_bytes=options.rest_max_bytes,
        )
        self._splitter = Splitter()
        self._figures = FeedCounts()
        self._numbers = 0
        self._changing: dict[str, asyncio.Handle] = {}
        self._connections: set[ServerConnection] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._server: Server | None = None

    async def start(self) -> int:
        """Listen, and return the port; the vendor is connected to when a reader asks for data."""
        options = self._options
        self._server = await serve(
            self._serve,
            options.host,
            options.port,
            process_request=self._process_request,
            compression=None,
            open_timeout=_OPEN_TIMEOUT_S,
            ping_interval=_PING_INTERVAL_S,
            ping_timeout=_PING_INTERVAL_S,
            close_timeout=options.close_timeout_s,
        )
        self._watching = asyncio.get_running_loop().create_task(self._watch_hours())
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    async def stop(self) -> None:
        """Close every connection and the port; readers connect again when a feed is back."""
        if self._watching is not None:
            self._watching.cancel()
        for handle in self._changing.values():
            handle.cancel()
        if self._server is not None:
            self._server.close(close_connections=False)
            limit_s = self._options.close_timeout_s
            await asyncio.gather(
                *(
                    handshake.close(each, _SERVICE_RESTART, "", limit_s)
                    for each in self._connections
                )
            )
            await self._server.wait_closed()
        for upstream in self._upstreams.values():
            await upstream.stop()
        if self._closing:
            await asyncio.wait(self._closing)
        self.rest.close()

    def subscriptions(self, asset_class: str) -> set[str]:
        """Return the names that are asked of the vendor now."""
        return self._upstreams[asset_class].subscriptions()

    def figures(self) -> FeedCounts:
        """Return what the feed counts, now."""
        figures = self._figures
        readers = [reader for each in self._readers.values() for reader in each]
        figures.readers = {name: len(each) for name, each in self._readers.items()}
        figures.waiting = sum(len(reader.backlog) for reader in readers)
        figures.malformed = self._splitter.malformed
        figures.connections = {
            (name, number): health
            for name, upstream in self._upstreams.items()
            for number, health in enumerate(upstream.health(), start=1)
        }
        figures.wanted = {name: each.wanted for name, each in self._upstreams.items()}
        figures.left_out = {name: each.left_out for name, each in self._upstreams.items()}
        figures.rest = dict(self.rest.counts)
        figures.rest_kept_bytes = self.rest.kept_bytes
        figures.now_ns = self._clock()
        figures.market_open = self._expects_data(figures.now_ns)
        for reader in readers:
            self._note_losses(reader)
        return figures

    def status(self) -> dict[str, Any]:
        """Return what the feed says of itself and of each reader, without any key."""
        return {
            "connections": [
                {"asset_class": name, "number": number, **health}
                for name, upstream in self._upstreams.items()
                for number, health in enumerate(upstream.health(), start=1)
            ],
            "readers": [
                {
                    "number": reader.number,
                    "address": str(reader.connection.remote_address),
                    "asset_class": name,
                    "subscriptions": len(reader.protocol.needs),
                    "sent": reader.sent,
                    "waiting": len(reader.backlog),
                    "replaced_quotes": reader.backlog.replaced,
                    "dropped_events": reader.backlog.dropped,
                }
                for name, readers in self._readers.items()
                for reader in readers
            ],
            "left_out": {name: each.left_out for name, each in self._upstreams.items()},
            "rest": dict(self.rest.counts),
        }

    # From the vendor

    def _share(self, asset_class: str, frame: bytes) -> None:
        """Give each event of a frame to those who want it."""
        readers_of = self._routes[asset_class].readers_of
        touched: set[Reader] = set()
        events = self._splitter.split(frame)
        for event in events:
            for reader in readers_of(event.channel, event.symbol):
                reader.put(event)
                touched.add(reader)
        self._figures.events += len(events)
        for reader in touched:
            reader.wake()

    def answered(self, asset_class: str, names: Sequence[str]) -> None:
        """There is news about names; tell those who want them."""
        readers_of = self._routes[asset_class].readers_of
        for name in names:
            channel, _, symbol = name.partition(".")
            for reader in readers_of(channel, symbol):
                if name in reader.protocol.needs and name not in reader.protocol.unanswered:
                    self._tell(reader, name)
        for reader in self._readers[asset_class]:
            self._settle(reader)

    def lost(self, asset_class: str, reason: str) -> None:
        """Tell the readers that the vendor's connection is down."""
        for reader in self._readers[asset_class]:
            reader.say(Status("upstream_lost", f"the feed has lost the vendor: {reason}"))

    def back(self, asset_class: str) -> None:
        """Tell the readers that the vendor is connected again."""
        for reader in self._readers[asset_class]:
            reader.say(Status("upstream_back", "the feed is connected to the vendor again"))

    def closed(self, asset_class: str, error: BaseException) -> None:
        """No key was accepted: say so to the readers as the vendor would, and send them away."""
        for reader in list(self._readers[asset_class]):
            task = asyncio.get_running_loop().create_task(self._send_away(reader, str(error)))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    # To the readers

    async def _serve(self, connection: ServerConnection) -> None:
        """One connection's life."""
        self._connections.add(connection)
        try:
            with suppress(ConnectionClosed):
                await handshake.send_statuses(connection, [protocol.connected()])
                reader = await self._admit(connection)
                if reader is not None:
                    await self._converse(reader)
        finally:
            self._connections.discard(connection)

    async def _admit(self, connection: ServerConnection) -> Reader | None:
        """Return the reader, or None after the connection was refused and closed."""
        options = self._options
        asset_class = handshake.asset_class_of(connection)
        asked = ReaderProtocol(asset_class, frozenset(options.reader_keys), options.max_quotes)
        if not await handshake.authenticate(
            connection, asked, options.auth_timeout_s, options.close_timeout_s
        ):
            self._figures.refused_readers += 1
            return None
        if sum(map(len, self._readers.values())) >= options.max_readers:
            self._figures.refused_readers += 1
            log.warning(
                "a reader is refused: as many as may are connected", max_readers=options.max_readers
            )
            await handshake.send_statuses(connection, [protocol.max_connections()])
            await handshake.refuse(connection, options.close_timeout_s)
            return None
        refusal = self._upstreams[asset_class].refusal
        if refusal is not None:
            await handshake.send_statuses(connection, [_auth_failed(str(refusal))])
            await handshake.refuse(connection, options.close_timeout_s)
            return None
        self._numbers += 1
        return Reader(
            self._numbers,
            connection,
            asked,
            options.max_waiting_events,
            options.max_waiting_bytes,
            options.max_frame_events,
        )

    async def _converse(self, reader: Reader) -> None:
        """Answer a reader until its connection closes."""
        asset_class = reader.protocol.asset_class
        _limit_send_buffer(reader.connection)
        self._readers[asset_class].append(reader)
        writing = asyncio.get_running_loop().create_task(reader.write())
        try:
            async for message in reader.connection:
                revision = reader.protocol.revision
                reply = reader.protocol.receive(message)
                for status in reply.statuses:
                    reader.say(status)
                if reader.protocol.tells_time:
                    reader.say(Status(StatusCode.ERROR, "a feed does not tell the time"))
                    reader.protocol.tells_time = False
                if reply.refused:
                    await handshake.refuse(reader.connection, self._options.close_timeout_s)
                if reader.protocol.revision != revision:
                    self._subscriptions_changed(reader)
                await reader.may_ask()
        finally:
            writing.cancel()
            self._readers[asset_class].remove(reader)
            self._note_losses(reader)
            self._routes[asset_class].changed()
            self._want_soon(asset_class)

    def _subscriptions_changed(self, reader: Reader) -> None:
        asset_class = reader.protocol.asset_class
        reader.subscriptions_changed()
        self._routes[asset_class].changed()
        self._want_soon(asset_class)
        waiting = list(reader.protocol.unanswered)
        if waiting:
            asyncio.get_running_loop().call_later(
                self._options.answer_timeout_s, self._pass_over, reader, waiting
            )

    def _want_soon(self, asset_class: str) -> None:
        """Ask the vendor for the union, once for all that changes before the loop comes round."""
        if asset_class not in self._changing:
            self._changing[asset_class] = asyncio.get_running_loop().call_soon(
                self._want, asset_class
            )

    def _want(self, asset_class: str) -> None:
        del self._changing[asset_class]
        needs = needs_of([reader.protocol for reader in self._readers[asset_class]])
        self._upstreams[asset_class].want(needs)
        for reader in self._readers[asset_class]:
            self._settle(reader)

    def _settle(self, reader: Reader) -> None:
        """Answer in the order of asking: clients charge a refusal to the oldest that waits."""
        upstream = self._upstreams[reader.protocol.asset_class]
        waiting = reader.protocol.unanswered
        while waiting and upstream.answer(waiting[0]) is not None:
            self._tell(reader, waiting.popleft())

    def _tell(self, reader: Reader, name: str) -> None:
        answer = self._upstreams[reader.protocol.asset_class].answer(name)
        if answer is None:
            return
        if answer:
            reader.refuse(name, answer)
        else:
            reader.acknowledge(name)

    def _pass_over(self, reader: Reader, names: Sequence[str]) -> None:
        """Let names that the vendor does not answer hold up the others no longer."""
        waiting = reader.protocol.unanswered
        silent = set(names).intersection(waiting)
        if silent:
            reader.protocol.unanswered = type(waiting)(
                name for name in waiting if name not in silent
            )
            for name in silent:
                self._tell(reader, name)
            self._settle(reader)

    async def _send_away(self, reader: Reader, reason: str) -> None:
        with suppress(ConnectionClosed):
            await handshake.send_statuses(reader.connection, [_auth_failed(reason)])
        await handshake.close(
            reader.connection, _POLICY_VIOLATION, "", self._options.close_timeout_s
        )

    def _note_losses(self, reader: Reader) -> None:
        """Move what a reader lost, and what it was sent, into the totals."""
        figures, backlog = self._figures, reader.backlog
        figures.sent += reader.sent - reader.noted.sent
        figures.replaced += backlog.replaced - reader.noted.replaced
        figures.dropped += backlog.dropped - reader.noted.dropped
        reader.noted = CountedTotals(reader.sent, backlog.replaced, backlog.dropped)

    # Beside the streams

    async def _watch_hours(self) -> None:
        """Keep in mind whether silence is a fault."""
        while True:
            expected = self._expects_data(self._clock())
            for upstream in self._upstreams.values():
                upstream.expect_data(expected)
            await asyncio.sleep(10.0)

    async def _process_request(
        self, connection: ServerConnection, request: Request
    ) -> Response | None:
        """Answer REST and what the feed says of itself; None lets a handshake go on."""
        if handshake.is_stream(request):
            return None
        path = urlsplit(request.path).path
        if path in _FOR_ALL:
            return self._own(path)
        answer = await self.rest.get(request.path, request.headers)
        return handshake.response(answer.status, answer.body, answer.headers)

    def _own(self, path: str) -> Response:
        if path == "/metrics":
            kind = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
            return handshake.response(200, feed_text(self.figures()), kind)
        if path == "/status":
            return handshake.response(200, msgspec.json.encode(self.status()))
        failed = [name for name, each in self._upstreams.items() if each.failure is not None]
        down = [
            name
            for name, upstream in self._upstreams.items()
            for health in upstream.health()
            if health["state"] is not ConnectionState.LIVE
        ]
        body = {"status": "degraded" if failed or down else "ok", "refused": failed, "down": down}
        return handshake.response(503 if failed else 200, msgspec.json.encode(body))


def needs_of(protocols: Sequence[ReaderProtocol]) -> dict[str, tuple[int, ...]]:
    """How much each name is needed, by all readers together; the lowest are needed most.

    First what is in front of some reader's list, whoever's: so readers share what room there is.
    Of equals, what more readers want.
    """
    best: dict[str, int] = {}
    wanted_by: dict[str, int] = {}
    for each in protocols:
        for place, name in enumerate(each.needs):
            best[name] = min(best.get(name, place), place)
            wanted_by[name] = wanted_by.get(name, 0) + 1
    return {name: (place, -wanted_by[name]) for name, place in best.items()}


def _auth_failed(reason: str) -> Status:
    return Status(StatusCode.AUTH_FAILED, reason)


def _limit_send_buffer(connection: ServerConnection) -> None:
    plain = connection.transport.get_extra_info("socket")
    if plain is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
