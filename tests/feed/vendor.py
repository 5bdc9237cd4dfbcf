"""A stand-in for the vendor on the loopback: a test drives what it sends and when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.usual import feed_options
from tests.waits import WAIT_S
from trading.data.massive import protocol
from trading.data.massive.protocol import FeedProtocol
from trading.data.massive.server import handshake
from trading.data.massive.wire import FeedEvent, Status, decode, encode, encode_action
from trading.feed.feed_server import FeedServer

KEYS = ("vendor-key-1", "vendor-key-2")
READER_KEY = "reader-key"


class Vendor:
    """Speaks the vendor's protocol, one connection for each key and asset class."""

    def __init__(self, keys: Sequence[str] = KEYS, max_quotes: int = 1000) -> None:
        self.keys = set(keys)
        self.max_quotes = max_quotes
        self.port = 0
        self.connections: list[tuple[ServerConnection, FeedProtocol]] = []
        self.attempts = 0
        self.asked: list[tuple[str, str]] = []
        """Actions and their parameters in order, of all connections."""
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await serve(self._serve, "127.0.0.1", self.port, compression=None)
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def subscribed(self, asset_class: str = "options") -> set[str]:
        """What open connections are subscribed to."""
        return {name for each in self.shares(asset_class) for name in each}

    def shares(self, asset_class: str = "options") -> list[set[str]]:
        """What each open connection is subscribed to."""
        return [
            {
                f"{channel}.{symbol}"
                for channel, symbols in feed.symbols.items()
                for symbol in symbols
            }
            for _, feed in self.connections
            if feed.asset_class == asset_class
        ]

    async def send(self, *events: FeedEvent, asset_class: str = "options") -> None:
        """Send each event in a message of its own to those who subscribed to it."""
        for event in events:
            await self.send_raw(encode([event]), asset_class)

    async def send_raw(self, frame: bytes, asset_class: str = "options") -> None:
        """Send a message as it is to every connection that wants one of its events."""
        for connection, feed in list(self.connections):
            names = [
                (each.__struct_config__.tag, getattr(each, "sym", "")) for each in decode(frame)
            ]
            if feed.asset_class == asset_class and any(feed.wants(*name) for name in names):
                with suppress(ConnectionClosed):
                    await connection.send(frame, text=True)

    def drop(self) -> None:
        """Cut every connection without a closing handshake."""
        for connection, _ in self.connections:
            connection.transport.abort()

    async def _serve(self, connection: ServerConnection) -> None:
        self.attempts += 1
        feed = FeedProtocol(handshake.asset_class_of(connection), self.keys, self.max_quotes)
        with suppress(ConnectionClosed):
            await handshake.send_statuses(connection, [protocol.connected()])
            if not await handshake.authenticate(connection, feed, WAIT_S, WAIT_S):
                return
            if any(
                (each.key, each.asset_class) == (feed.key, feed.asset_class)
                for _, each in self.connections
            ):
                await handshake.send_statuses(connection, [protocol.max_connections()])
                await handshake.refuse(connection, WAIT_S)
                return
            self.connections.append((connection, feed))
            try:
                async for message in connection:
                    assert isinstance(message, str)
                    action = protocol.decode_action(message)
                    self.asked.append((action.action, action.params))
                    await handshake.send_statuses(connection, feed.receive(message).statuses)
            finally:
                self.connections.remove((connection, feed))


class Reader:
    """A reader that sees every message, and reads only when it is told to."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.statuses: list[tuple[str, str]] = []
        self.events: list[FeedEvent] = []
        self.frames: list[bytes] = []

    async def act(self, action: str, params: str) -> None:
        await self.connection.send(encode_action(action, params))

    async def subscribe(self, *names: str) -> None:
        """Subscribe, and read until each name is acknowledged."""
        await self.act("subscribe", ",".join(names))
        await self.until(lambda: self.acknowledged.issuperset(names))

    @property
    def acknowledged(self) -> set[str]:
        return {
            text.removeprefix("subscribed to: ")
            for _, text in self.statuses
            if text.startswith("subscribed to: ")
        }

    async def until(self, condition: Callable[[], bool]) -> None:
        """Read until `condition` holds."""
        while not condition():
            await self.read()

    async def read(self) -> None:
        """Read one message."""
        frame = await self.connection.recv(decode=False)
        self.frames.append(frame)
        for event in decode(frame):
            if isinstance(event, Status):
                self.statuses.append((event.status, event.message))
            else:
                self.events.append(event)


@asynccontextmanager
async def running(vendor: Vendor, **options: Any) -> AsyncIterator[tuple[FeedServer, int]]:
    """A feed of `vendor`, which it starts, and its port; all stopped at the end."""
    if not vendor.port:
        await vendor.start()
    quick = {"backoff_initial_s": 0.01, "backoff_max_s": 0.05, "cool_down_s": 0.05}
    known = {"keys": KEYS[:1], "reader_keys": (READER_KEY,), "rest_url": "http://127.0.0.1:1"}
    feed = FeedServer(feed_options(vendor.url, **(known | quick | options)))
    port = await feed.start()
    try:
        async with asyncio.timeout(WAIT_S):
            yield feed, port
    finally:
        await asyncio.wait_for(feed.stop(), WAIT_S)
        await asyncio.wait_for(vendor.stop(), WAIT_S)


@asynccontextmanager
async def reading(
    port: int, *names: str, path: str = "options", key: str = READER_KEY, **options: Any
) -> AsyncIterator[Reader]:
    """An authenticated reader that is subscribed to `names`."""
    address = f"ws://127.0.0.1:{port}/{path}"
    async with connect(address, compression=None, max_size=None, **options) as connection:
        reader = Reader(connection)
        await reader.act("auth", key)
        await reader.until(lambda: len(reader.statuses) >= 2)
        assert [status for status, _ in reader.statuses[:2]] == ["connected", "auth_success"]
        if names:
            await reader.subscribe(*names)
        yield reader


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.002)


def play(test: Callable[[], Any]) -> None:
    """Run an async test body."""
    asyncio.run(asyncio.wait_for(test(), 2 * WAIT_S))
