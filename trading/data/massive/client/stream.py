"""The streaming client: sockets on a thread of their own, frames for the thread that decodes."""

import asyncio
import time
from collections.abc import Callable, Iterable
from threading import Event, Lock, Thread
from typing import Self

import numpy as np

from trading.closing import Closing
from trading.data.massive.client.connection import ConnectionHealth, ConnectionState, MassiveStream
from trading.data.massive.client.stream_settings import StreamSettings
from trading.data.massive.frames import FrameQueue, TaggedFrame
from trading.errors import StreamError, TradingError
from trading.logs import get_logger

__all__ = [
    "ConnectionHealth",
    "ConnectionState",
    "MassiveStream",
    "StreamClient",
    "StreamSettings",
    "TaggedFrame",
]

ASSET_CLASSES = ("options", "stocks", "indices")
_THREAD_TIMEOUT_S = 10.0

log = get_logger(__name__)


class StreamClient(Closing):
    """Receives the vendor's stream, one connection for each asset class subscribed to.

    An I/O thread with its own event loop reads the sockets into one bounded queue and decodes no
    market data; one consumer thread takes frames with `frames` and decodes them. `subscribe` opens
    a connection on first use and may be called from any thread.

    Parameters
    ----------
    settings: how to reach the stream and how to behave on it
    seed: seed or generator of the jitter of the pauses before reconnecting
    clock: wall time in nanoseconds, for `last_frame_ns`

    Examples
    --------
    ::

        settings = StreamSettings("wss://socket.massive.com", key, silence_timeout_s=120.0)
        with StreamClient(settings) as client:
            client.subscribe("stocks", ["AM.SPY"])
            for asset_class, data in client.frames(timeout_s=1.0):
                events = decoder.decode(data)
    """

    def __init__(
        self,
        settings: StreamSettings,
        seed: int | np.random.Generator = 0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._settings = settings
        self._rng = np.random.default_rng(seed)
        self._clock = clock
        self._queue = FrameQueue(settings.max_queue_frames, settings.max_queue_bytes)
        self._connections: dict[str, MassiveStream] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failure: TradingError | None = None
        self._lock = Lock()
        self._started = Event()
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Start the I/O thread; a client starts once.

        Raises
        ------
        StreamError
            The client was started before, or the thread does not come up.
        """
        if self._thread is not None:
            raise StreamError("the stream client was started before: make a new one")
        self._thread = Thread(target=self._run_thread, name="massive-stream", daemon=True)
        self._thread.start()
        if not self._started.wait(_THREAD_TIMEOUT_S):
            raise StreamError(f"the stream's thread did not start in {_THREAD_TIMEOUT_S:g} s")

    def close(self) -> None:
        """Close every connection and end the thread; frames held can still be taken.

        Raises
        ------
        StreamError
            The thread does not end.
        """
        with self._lock:
            loop, self._loop = self._loop, None
            if loop is not None:
                loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join(_THREAD_TIMEOUT_S)
            if self._thread.is_alive():
                raise StreamError(f"the stream's thread did not end in {_THREAD_TIMEOUT_S:g} s")
        self._queue.close()

    def subscribe(self, asset_class: str, names: Iterable[str]) -> None:
        """Ask for `names` (`Q.O:SPY251219C00650000`, `AM.SPY`), now and after every reconnect.

        Returns at once; `health` tells what came of it. Names asked for before change nothing.

        Raises
        ------
        StreamError
            The asset class or a name is unknown or malformed, or the client does not run.
        """
        if asset_class not in ASSET_CLASSES:
            raise StreamError(f"asset class {asset_class!r} is unknown: use one of {ASSET_CLASSES}")
        with self._lock:
            loop = self._running_loop()
            known = self._connections.get(asset_class)
            if known is not None:
                if known.subscriptions.ask(names):
                    loop.call_soon_threadsafe(known.subscriptions_changed)
                return
            connection = MassiveStream(
                asset_class, self._settings, self._queue, self._rng, self._clock
            )
            connection.subscriptions.ask(names)
            self._connections[asset_class] = connection
            loop.call_soon_threadsafe(self._open, connection)

    def unsubscribe(self, asset_class: str, names: Iterable[str]) -> None:
        """Stop asking for `names`; those never asked for change nothing.

        Raises
        ------
        StreamError
            The client does not run.
        """
        with self._lock:
            loop = self._running_loop()
            connection = self._connections.get(asset_class)
            if connection is not None and connection.subscriptions.withdraw(names):
                loop.call_soon_threadsafe(connection.subscriptions_changed)

    def rank(self, asset_class: str, names: Iterable[str]) -> None:
        """Say which of the names asked for are needed most, in order.

        They are asked for in that order after a reconnect, and a feed that many read is told.

        Raises
        ------
        StreamError
            The client does not run.
        """
        with self._lock:
            loop = self._running_loop()
            connection = self._connections.get(asset_class)
            if connection is not None:
                connection.subscriptions.rank(names)
                loop.call_soon_threadsafe(connection.subscriptions_changed)

    def opened(self, session: str) -> None:
        """Tell our own market server that a session (a date) is listed and subscribed to."""
        with self._lock:
            loop = self._running_loop()
            for connection in self._connections.values():
                connection.opened = session
                loop.call_soon_threadsafe(connection.subscriptions_changed)

    def frames(self, timeout_s: float) -> list[TaggedFrame]:
        """Return all frames received since the last call, waiting up to `timeout_s` for the first.

        Frames are in order of arrival, and untouched; those that hold nothing but statuses are left
        out. The list is empty when nothing came in time or the stream has ended.

        Raises
        ------
        AuthenticationFailed
            The vendor refused the key, which is final.
        StreamError
            A connection failed in a way that reconnecting does not mend.
        """
        self._raise_failure()
        frames = self._queue.take_all(0.0 if self._is_over() else timeout_s)
        if not frames:
            self._raise_failure()
        return frames

    def barrier(self, timeout_s: float) -> bool:
        """Return True once every frame that the servers wrote before now can be taken.

        Pings every connection; a server answers after what it wrote before. Meanwhile the queue's
        bound is lifted, since the caller is the one who empties it. Returns False when a connection
        is down or does not answer in time; a connection that ended as a replay does is no obstacle.
        """
        with self._lock:
            loop = self._loop
            connections = list(self._connections.values())
            if loop is None:
                return False
            self._queue.lift_bound()
            answer = asyncio.run_coroutine_threadsafe(_confirm_all(connections, timeout_s), loop)
        try:
            return answer.result(timeout_s + _THREAD_TIMEOUT_S)
        except TimeoutError:
            answer.cancel()
            return False
        finally:
            self._queue.restore_bound()

    def tick(self, asset_class: str, names: Iterable[str]) -> None:
        """Record for `health` that data arrived for `names`; the consumer knows, as it decodes."""
        connection = self._connections.get(asset_class)
        if connection is not None:
            connection.subscriptions.tick(names)

    def expect_data(self, expected: bool) -> None:
        """Say whether silence is a fault, for which the watchdog reconnects; at first it is."""
        with self._lock:
            connections = list(self._connections.values())
        for connection in connections:
            connection.expects_data = expected

    @property
    def oversize(self) -> int:
        """Frames that were left out because they are larger than any that the vendor sends."""
        with self._lock:
            return sum(connection.oversize for connection in self._connections.values())

    def refused(self, asset_class: str) -> list[str]:
        """Return the names that the vendor seems to have refused (see `SubscriptionTracker`)."""
        connection = self._connections.get(asset_class)
        return [] if connection is None else connection.subscriptions.refused

    def silent(self, asset_class: str) -> list[str]:
        """Return the names acknowledged for which `tick` was never told of data."""
        connection = self._connections.get(asset_class)
        return [] if connection is None else connection.subscriptions.silent

    def health(self) -> dict[str, ConnectionHealth]:
        """Return the state and the counts of each connection, by asset class."""
        with self._lock:
            connections = list(self._connections.values())
        return {connection.asset_class: connection.health() for connection in connections}

    @property
    def dropped_frames(self) -> int:
        """How many frames were lost to a full queue."""
        return self._queue.dropped()

    @property
    def finished(self) -> bool:
        """Whether every connection is `CLOSED` and the queue is empty."""
        return self._is_over() and not len(self._queue)

    def _is_over(self) -> bool:
        with self._lock:
            states = [connection.state for connection in self._connections.values()]
        return bool(states) and all(state is ConnectionState.CLOSED for state in states)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise StreamError("the stream client does not run: call start() first")
        return self._loop

    def _run_thread(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._started.set()
        await self._stop.wait()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _open(self, connection: MassiveStream) -> None:
        task = asyncio.get_running_loop().create_task(connection.run())
        self._tasks[connection.asset_class] = task
        task.add_done_callback(self._on_connection_done)

    def _on_connection_done(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, TradingError):
            self._failure = error
        elif error is not None:
            log.error("a stream connection failed", exc_info=error)
            self._failure = StreamError(f"a stream connection failed: {type(error).__name__}")
        self._queue.wake()


async def _confirm_all(connections: list[MassiveStream], timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            answers = await asyncio.gather(*(each.confirm() for each in connections))
    except TimeoutError:
        return False
    return all(answers)
