"""A WebSocket server on the loopback that plays a given script to each connection in turn."""

import asyncio
import http
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence

import msgspec
import pytest
from websockets.asyncio.server import Request, Response, ServerConnection, serve

from tests.waits import WAIT_S
from trading.data.massive.wire import FeedEvent, Status, encode

_silent = logging.getLogger("scripted_server")
_silent.setLevel(logging.CRITICAL)


class Peer:
    """The server's end of one connection."""

    def __init__(self, connection: ServerConnection, server: "ScriptedServer") -> None:
        self.connection = connection
        self.server = server
        self.path = "" if connection.request is None else connection.request.path
        self.messages: list[dict[str, str]] = []

    async def receive(self) -> dict[str, str]:
        """Read one action of the client."""
        message = msgspec.json.decode(await self.connection.recv(), type=dict[str, str])
        self.messages.append(message)
        return message

    async def send(self, *events: FeedEvent) -> None:
        await self.send_raw(encode(events))

    async def send_raw(self, frame: bytes) -> None:
        await self.connection.send(frame, text=True)
        self.server.written += 1

    async def status(self, status: str, message: str = "") -> None:
        await self.connection.send(encode([Status(status, message)]), text=True)

    async def authenticate(self) -> None:
        """Play the opening up to `auth_success`."""
        await self.status("connected", "Connected Successfully")
        assert (await self.receive())["action"] == "auth"
        await self.status("auth_success", "authenticated")

    async def acknowledge(self, count: int) -> list[str]:
        """Read subscriptions until `count` names were asked for, acknowledging each."""
        names: list[str] = []
        while len(names) < count:
            message = await self.receive()
            assert message["action"] == "subscribe"
            asked = message["params"].split(",")
            for name in asked:
                await self.status("success", f"subscribed to: {name}")
            names += asked
        return names

    def drop(self) -> None:
        """Cut the TCP connection without a closing handshake."""
        self.connection.transport.abort()

    async def hold(self) -> None:
        """Keep the connection until the client or the end of the test closes it."""
        await self.connection.wait_closed()


Script = Callable[[Peer], Awaitable[None]]


class ScriptedServer:
    """Plays `scripts[n]` to the n-th connection, and the last one to all that follow.

    `None` in place of a script refuses the opening handshake with HTTP 503.
    """

    def __init__(self, scripts: Sequence[Script | None]) -> None:
        self.scripts = scripts
        self.peers: list[Peer] = []
        self.attempts = 0
        self.written = 0
        self.port = 0
        self.failures: list[BaseException] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(WAIT_S)

    def stop(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await serve(
            self._play,
            "127.0.0.1",
            0,
            process_request=self._admit,
            compression=None,
            ping_interval=None,
            close_timeout=0.5,
            logger=_silent,
        )
        async with server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            self._ready.set()
            await self._stop.wait()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        script = self._script()
        self.attempts += 1
        if script is None:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "not now\n")
        return None

    def _script(self, attempt: int | None = None) -> Script | None:
        index = self.attempts if attempt is None else attempt
        return self.scripts[min(index, len(self.scripts) - 1)]

    async def _play(self, connection: ServerConnection) -> None:
        script = self._script(self.attempts - 1)
        assert script is not None
        peer = Peer(connection, self)
        self.peers.append(peer)
        try:
            await script(peer)
        except AssertionError as failure:
            self.failures.append(failure)


@pytest.fixture
def start() -> Iterator[Callable[..., ScriptedServer]]:
    """Start a server that plays one script to each connection."""
    servers: list[ScriptedServer] = []

    def begin(*scripts: Script | None) -> ScriptedServer:
        server = ScriptedServer(scripts)
        servers.append(server)
        server.start()
        return server

    yield begin
    for server in servers:
        server.stop()
        assert server.failures == []
