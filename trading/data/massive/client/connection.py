"""One connection to one asset class, kept up until it ends for good."""

import asyncio
import logging
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol, TypedDict

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from trading.data.massive.client.stream_settings import StreamSettings
from trading.data.massive.client.subscriptions import SubscriptionTracker
from trading.data.massive.frames import FrameSink, TaggedFrame
from trading.data.massive.urls import is_loopback, redact
from trading.data.massive.wire import (
    DISPLACED,
    SUBSCRIBED,
    Status,
    StatusCode,
    decode,
    encode_action,
)
from trading.errors import AuthenticationFailed
from trading.logs import get_logger

_NORMAL_CLOSES = (1000, 1001)
_POLICY_VIOLATION = 1008
_TOO_BIG = 1009
_READABLE_FRAMES = 8
"""A frame of so many times the largest usable one is still read, so that the connection stands."""

log = get_logger(__name__)

# At debug level the websockets library logs every message, the one with the key among them.
_socket_logger = logging.getLogger(f"{__name__}.socket")
_socket_logger.setLevel(logging.WARNING)


class ConnectionState(StrEnum):
    """Where a connection stands; `LIVE` means that every subscription got its answer."""

    CONNECTING = "CONNECTING"
    AUTHENTICATING = "AUTHENTICATING"
    SUBSCRIBING = "SUBSCRIBING"
    LIVE = "LIVE"
    BACKOFF = "BACKOFF"
    CLOSED = "CLOSED"


class ConnectionHealth(TypedDict):
    """What a connection tells about itself.

    `last_frame_ns` is wall time (0: none yet), `reconnects` counts connections tried after the
    first, `frames` and `bytes` what was received, `dropped` the frames lost to a full queue;
    `asked` to `ticking` are the counts of `subscriptions`. `last_error` is empty when there was
    none.
    """

    state: ConnectionState
    last_frame_ns: int
    reconnects: int
    frames: int
    bytes: int
    dropped: int
    asked: int
    acknowledged: int
    refused: int
    unanswered: int
    ticking: int
    last_error: str


class _ConnectionLost(Exception):
    """Internal: the connection ended and another is to be tried."""

    def __init__(self, reason: str, *, cool_down: bool = False, key_refused: bool = False) -> None:
        super().__init__(reason)
        self.cool_down = cool_down or key_refused
        self.key_refused = key_refused


class StreamListener(Protocol):
    """Who wants to know, on the event loop, what becomes of a connection and of each name."""

    def connected(self) -> None:
        """Note that it is authenticated anew; all in `subscriptions` is about to be asked for."""

    def acknowledged(self, name: str) -> None:
        """Note that the vendor acknowledged a name."""

    def refused(self, name: str, reason: str) -> None:
        """Note that the vendor seems to have refused a name."""

    def lost(self, reason: str, key_refused: bool) -> None:
        """Note that it is down, perhaps as its key is refused for now; another is tried."""


class MassiveStream:
    """Keeps one asset class connected, authenticated and subscribed.

    Its coroutines run on one event loop. It moves data frames to the queue untouched and reads only
    statuses. Losing the connection, at whatever step, leads to `BACKOFF` and then to a new one, on
    which everything in `subscriptions` is asked for again. `CLOSED` is final: after `auth_failed`
    (see `outlasts_refusal`), after the end of a replay, or when the task was cancelled.

    Parameters
    ----------
    asset_class: `options`, `stocks` or `indices`; the path of the connection
    queue: takes the frames
    rng: draws the jitter of the pauses
    clock: wall time in nanoseconds
    listener: hears what becomes of the connection
    """

    def __init__(
        self,
        asset_class: str,
        settings: StreamSettings,
        queue: FrameSink,
        rng: np.random.Generator,
        clock: Callable[[], int] = time.time_ns,
        listener: StreamListener | None = None,
    ) -> None:
        self.asset_class = asset_class
        self.expects_data = True
        """Whether silence is a fault; not so while the market is closed."""
        self.subscriptions = SubscriptionTracker()
        self.state = ConnectionState.CONNECTING
        self.opened = ""
        """The session (a date) that is listed and subscribed to, for our own market server."""
        self.oversize = 0
        """Frames left out for their size."""
        self._settings = settings
        self._queue = queue
        self._rng = rng
        self._clock = clock
        self._listener = listener
        self._socket: ClientConnection | None = None
        self._subscriptions_changed = asyncio.Event()
        self._over = asyncio.Event()
        self._ended = False
        self._accepted = False
        """Whether the vendor has accepted the key before."""
        self._losses = 0
        self._heard = 0.0
        self._waits_for_room = False
        self._last_frame_ns = 0
        self._reconnects = 0
        self._frames = 0
        self._bytes = 0
        self._last_error = ""

    async def run(self) -> None:
        """Keep the connection up; returns at the end of a replay.

        Raises
        ------
        AuthenticationFailed
            The vendor refused the key.
        """
        try:
            while True:
                try:
                    await self._connect_once()
                    self._ended = True
                    return
                except _ConnectionLost as lost:
                    await self._back_off(lost)
                    self._reconnects += 1
        finally:
            self.state = ConnectionState.CLOSED
            self._over.set()

    def subscriptions_changed(self) -> None:
        """Send what is new in `subscriptions`; to be called on the event loop."""
        self._subscriptions_changed.set()

    async def confirm(self) -> bool:
        """Ping, and return True once all that was written before the answer is in the queue.

        False when the connection is down, True when it has ended for good with all its frames in
        the queue. The queue's bound must be lifted meanwhile.
        """
        if self._over.is_set():
            return self._ended
        socket = self._socket
        if socket is None:
            return False
        try:
            await (await socket.ping())
        except ConnectionClosed as closed:
            if not self._is_end(closed):
                return False
            await self._over.wait()
            return self._ended
        # Frames that came before the pong woke the reader before the pong woke this coroutine, the
        # event loop runs callbacks in that order, and the reader, once awake, takes every frame
        # that has arrived before it waits again.
        return self._socket is socket or self._ended

    def health(self) -> ConnectionHealth:
        """Return the present state and counts; safe from any thread."""
        counts = self.subscriptions.counts()
        return ConnectionHealth(
            state=self.state,
            last_frame_ns=self._last_frame_ns,
            reconnects=self._reconnects,
            frames=self._frames,
            bytes=self._bytes,
            dropped=self._queue.dropped(self.asset_class),
            asked=counts.asked,
            acknowledged=counts.acknowledged,
            refused=counts.refused,
            unanswered=counts.unanswered,
            ticking=counts.ticking,
            last_error=self._last_error,
        )

    async def _connect_once(self) -> None:
        settings = self._settings
        self.state = ConnectionState.CONNECTING
        ping_interval_s = None if settings.block_when_full else settings.ping_interval_s
        try:
            socket = await connect(
                f"{settings.url}/{self.asset_class}",
                open_timeout=settings.connect_timeout_s,
                close_timeout=settings.close_timeout_s,
                ping_interval=ping_interval_s,
                ping_timeout=ping_interval_s,
                compression=None,
                max_size=_READABLE_FRAMES * settings.max_frame_bytes,
                proxy=None if is_loopback(settings.url) else True,
                logger=_socket_logger,
            )
        except (OSError, WebSocketException) as error:
            raise _ConnectionLost(f"cannot connect: {error or type(error).__name__}") from error
        try:
            await self._authenticate(socket)
            await self._stream(socket)
        except ConnectionClosed as closed:
            if not self._is_end(closed):
                raise self._loss_of(closed) from closed
        finally:
            await self._close(socket)

    async def _close(self, socket: ClientConnection) -> None:
        try:
            async with asyncio.timeout(2 * self._settings.close_timeout_s):
                await socket.close()
        except TimeoutError:
            socket.transport.abort()

    async def _authenticate(self, socket: ClientConnection) -> None:
        self.state = ConnectionState.AUTHENTICATING
        try:
            async with asyncio.timeout(self._settings.auth_timeout_s):
                await self._wait_for(socket, StatusCode.CONNECTED)
                await socket.send(encode_action("auth", self._settings.api_key))
                await self._wait_for(socket, StatusCode.AUTH_SUCCESS)
                if self._settings.asks_time:
                    await socket.send(encode_action("clock", ""))
        except TimeoutError:
            raise _ConnectionLost(
                f"not authenticated within {self._settings.auth_timeout_s:g} s"
            ) from None

    async def _wait_for(self, socket: ClientConnection, code: StatusCode) -> None:
        found = False
        while not found:
            for event in decode(await socket.recv(decode=False)):
                if isinstance(event, Status):
                    self._on_status(event)
                    found = found or event.status == code
                    self._accepted = self._accepted or event.status == StatusCode.AUTH_SUCCESS

    async def _stream(self, socket: ClientConnection) -> None:
        settings = self._settings
        loop = asyncio.get_running_loop()
        self.subscriptions.reconnected()
        self.state = ConnectionState.SUBSCRIBING
        self._socket = socket
        self._heard = loop.time()
        if self._listener is not None:
            self._listener.connected()
        writer = loop.create_task(self._write_subscriptions(socket))
        settled = loop.call_later(settings.subscribe_timeout_s, self._count_as_live)
        stable = loop.call_later(settings.stable_s, self._forget_losses)
        try:
            async with asyncio.timeout(None) as patience:
                watchdog = _Watchdog(settings.silence_timeout_s, patience, self._idle_s)
                try:
                    await self._read(socket)
                finally:
                    watchdog.cancel()
        except TimeoutError:
            raise _ConnectionLost(f"nothing arrived for {settings.silence_timeout_s:g} s") from None
        finally:
            self._socket = None
            settled.cancel()
            stable.cancel()
            writer.cancel()
            await asyncio.wait([writer])
            if not writer.cancelled():
                writer.result()

    async def _read(self, socket: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        queue = self._queue
        while True:
            data = await socket.recv(decode=False)
            self._heard = loop.time()
            self._last_frame_ns = self._clock()
            self._frames += 1
            self._bytes += len(data)
            if len(data) > self._settings.max_frame_bytes:
                self.oversize += 1
                continue
            if b'"status"' in data and self._take_statuses(data):
                continue
            self._losses = 0
            if self._settings.block_when_full and queue.is_full:
                self._waits_for_room = True
                await queue.room()
                self._waits_for_room = False
                self._heard = loop.time()
            queue.put(TaggedFrame(self.asset_class, data))

    async def _write_subscriptions(self, socket: ClientConnection) -> None:
        chunk = self._settings.subscribe_chunk
        told = ""
        try:
            while True:
                self._subscriptions_changed.clear()
                # What is subscribed to when this is said is sent before it.
                opened = self.opened
                while names := self.subscriptions.take_withdrawn(chunk):
                    await socket.send(encode_action("unsubscribe", ",".join(names)))
                while names := self.subscriptions.take_unsent(chunk):
                    await socket.send(encode_action("subscribe", ",".join(names)))
                while self._settings.tells_need and (
                    names := self.subscriptions.take_ranked(chunk)
                ):
                    await socket.send(encode_action("subscribe", ",".join(names)))
                if self._settings.asks_time and opened != told:
                    await socket.send(encode_action("clock", opened))
                    told = opened
                self._settle()
                await self._subscriptions_changed.wait()
        except ConnectionClosed:
            return  # the reader, which runs beside, reports it

    def _take_statuses(self, data: bytes) -> bool:
        """Handle the statuses of a frame; True when it held nothing else."""
        events = decode(data)
        statuses = [event for event in events if isinstance(event, Status)]
        for status in statuses:
            self._on_status(status)
        self._settle()
        return bool(statuses) and len(statuses) == len(events)

    def _on_status(self, status: Status) -> None:
        message = redact(status.message, self._settings.api_key)
        match status.status:
            case StatusCode.CONNECTED | StatusCode.AUTH_SUCCESS:
                pass
            case StatusCode.SUCCESS:
                if status.message.startswith(SUBSCRIBED):
                    for name in status.message.removeprefix(SUBSCRIBED).split(","):
                        self.subscriptions.acknowledge(name.strip())
                        if self._listener is not None:
                            self._listener.acknowledged(name.strip())
            case StatusCode.AUTH_FAILED:
                self._last_error = f"auth_failed: {message}"
                raise self._refusal(message)
            case StatusCode.MAX_CONNECTIONS:
                raise _ConnectionLost(f"max_connections: {message}", cool_down=True)
            case StatusCode.AUTH_TIMEOUT:
                raise _ConnectionLost(f"auth_timeout: {message}")
            case StatusCode.ERROR:
                charged = self.subscriptions.refuse()
                self._last_error = f"refused ({charged or 'no subscription waits'}): {message}"
                log.warning("stream", asset_class=self.asset_class, status=self._last_error)
                if charged is not None and self._listener is not None:
                    self._listener.refused(charged, message)
            case StatusCode.DISPLACED:
                name, _, reason = status.message.removeprefix(DISPLACED).partition(": ")
                self.subscriptions.displace(name)
                self._last_error = redact(f"displaced ({name}): {reason}", self._settings.api_key)
                log.info("stream", asset_class=self.asset_class, status=self._last_error)
            case _:
                self._last_error = redact(
                    f"{status.status}: {status.message}", self._settings.api_key
                )
                log.warning("stream", asset_class=self.asset_class, status=self._last_error)

    def _refusal(self, message: str) -> Exception:
        """Return what a refused key leads to: the end, or another try."""
        if self._accepted and self._settings.outlasts_refusal:
            return _ConnectionLost(f"auth_failed: {message}", key_refused=True)
        return AuthenticationFailed(
            f"the vendor refused the API key on the {self.asset_class} stream ({message}): check "
            "MASSIVE_API_KEY"
        )

    def _settle(self) -> None:
        if self.state is ConnectionState.SUBSCRIBING and self.subscriptions.is_answered:
            self._count_as_live()

    def _count_as_live(self) -> None:
        self.state = ConnectionState.LIVE

    def _forget_losses(self) -> None:
        self._losses = 0

    def _idle_s(self) -> float:
        """For how long this side waited for data that it asked for."""
        now = asyncio.get_running_loop().time()
        if self._waits_for_room or not self.expects_data or self.subscriptions.expects_nothing:
            self._heard = now
        return now - self._heard

    async def _back_off(self, lost: _ConnectionLost) -> None:
        settings = self._settings
        self.state = ConnectionState.BACKOFF
        self._last_error = redact(str(lost), settings.api_key)
        pause_s = min(settings.backoff_max_s, settings.backoff_initial_s * 2.0**self._losses)
        pause_s *= self._rng.uniform(0.5, 1.0)
        if lost.cool_down:
            pause_s = settings.cool_down_s * self._rng.uniform(1.0, 1.25)
        self._losses = min(self._losses + 1, 30)
        if self._listener is not None:
            self._listener.lost(self._last_error, lost.key_refused)
        log.warning(
            "stream lost",
            asset_class=self.asset_class,
            reason=self._last_error,
            next_attempt_s=pause_s,
        )
        await asyncio.sleep(pause_s)

    def _loss_of(self, closed: ConnectionClosed) -> _ConnectionLost:
        if closed.sent is not None and closed.sent.code == _TOO_BIG:
            self.oversize += 1
            most = _READABLE_FRAMES * self._settings.max_frame_bytes
            return _ConnectionLost(f"a frame of more than {most} bytes came, which cannot be read")
        if closed.rcvd is None:
            return _ConnectionLost("the connection broke off")
        reason = f": {closed.rcvd.reason}" if closed.rcvd.reason else ""
        return _ConnectionLost(
            f"the server closed with code {closed.rcvd.code}{reason}",
            cool_down=closed.rcvd.code == _POLICY_VIOLATION,
        )

    def _is_end(self, closed: ConnectionClosed) -> bool:
        code = None if closed.rcvd is None else closed.rcvd.code
        return self._settings.stop_on_close and code in _NORMAL_CLOSES


class _Watchdog:
    """Ends a read that heard nothing for `limit_s`, without work for each frame."""

    def __init__(
        self, limit_s: float | None, patience: asyncio.Timeout, idle_s: Callable[[], float]
    ) -> None:
        self._limit_s = limit_s
        self._patience = patience
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        if limit_s is not None:
            self._timer = self._loop.call_later(limit_s, self._look)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        assert self._limit_s is not None
        remaining_s = self._limit_s - self._idle_s()
        if remaining_s <= 0:
            self._patience.reschedule(self._loop.time())
        else:
            self._timer = self._loop.call_later(remaining_s, self._look)
