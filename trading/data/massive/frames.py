"""The bounded queue between the thread that reads sockets and the thread that decodes."""

import asyncio
from collections import Counter, deque
from threading import Condition
from typing import NamedTuple, Protocol

MAX_BYTES = 256 * 2**20


class TaggedFrame(NamedTuple):
    """One WebSocket message as it arrived, with the asset class of its connection."""

    asset_class: str
    data: bytes


class FrameSink(Protocol):
    """Where a connection puts its frames."""

    @property
    def is_full(self) -> bool:
        """Whether `put` would drop a frame."""

    async def room(self) -> None:
        """Wait until `put` would drop nothing."""

    def put(self, frame: TaggedFrame) -> None:
        """Take a frame over; never waits."""

    def dropped(self, asset_class: str | None = None) -> int:
        """How many frames were dropped, of one asset class or of all."""


class FrameQueue:
    """Holds frames in order of arrival, `max_frames` of `max_bytes` together at most.

    The reading side runs on an event loop and never blocks it; the consuming side is one other
    thread. When the queue is full the reader chooses: `put` drops the oldest frame and counts it,
    while `await room()` before `put` waits, so that TCP slows the sender down. While `lift_bound`
    is in force nothing is dropped and nothing waits.
    """

    def __init__(self, max_frames: int, max_bytes: int = MAX_BYTES) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._bytes = 0
        self._frames: deque[TaggedFrame] = deque()
        self._changed = Condition()
        self._lifted = 0
        self._woken = False
        self._closed = False
        self._room_waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: TaggedFrame) -> None:
        """Append `frame`, dropping the oldest ones while the queue is full."""
        with self._changed:
            self._bytes += len(frame.data)
            while self._frames and self._overflows(1) and not self._lifted:
                oldest = self._frames.popleft()
                self._bytes -= len(oldest.data)
                self._dropped[oldest.asset_class] += 1
            self._frames.append(frame)
            if len(self._frames) == 1:
                self._changed.notify()

    @property
    def is_full(self) -> bool:
        """Whether `put` would drop a frame."""
        return self._overflows(1) and not self._lifted

    def _overflows(self, more: int) -> bool:
        return len(self._frames) + more > self._max_frames or self._bytes > self._max_bytes

    async def room(self) -> None:
        """Wait until `put` would drop nothing."""
        while True:
            loop = asyncio.get_running_loop()
            with self._changed:
                if not self.is_full:
                    return
                waiter: asyncio.Future[None] = loop.create_future()
                self._room_waiters.append((loop, waiter))
            try:
                await waiter
            finally:
                with self._changed:
                    self._room_waiters = [w for w in self._room_waiters if w[1] is not waiter]

    def take_all(self, timeout_s: float) -> list[TaggedFrame]:
        """Return every frame held, waiting up to `timeout_s` for the first.

        The list is empty when the time is over or `wake` was called.
        """
        with self._changed:
            self._changed.wait_for(self._has_news, timeout_s)
            self._woken = False
            frames = list(self._frames)
            self._frames.clear()
            self._bytes = 0
            self._call_room_waiters()
            return frames

    def lift_bound(self) -> None:
        """Take the bound away until `restore_bound`; calls nest."""
        with self._changed:
            self._lifted += 1
            self._call_room_waiters()

    def restore_bound(self) -> None:
        """Undo one `lift_bound`; frames above the bound stay until they are taken."""
        with self._changed:
            self._lifted -= 1

    def wake(self) -> None:
        """Let a consumer return that waits, or else the next one: there is news but no frame."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """Let no consumer wait again; frames held can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def dropped(self, asset_class: str | None = None) -> int:
        """Return how many frames were dropped, of one asset class or of all."""
        with self._changed:
            return self._dropped.total() if asset_class is None else self._dropped[asset_class]

    def _has_news(self) -> bool:
        return bool(self._frames) or self._woken or self._closed

    def _call_room_waiters(self) -> None:
        waiters, self._room_waiters = self._room_waiters, []
        for loop, waiter in waiters:
            loop.call_soon_threadsafe(_resolve, waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
