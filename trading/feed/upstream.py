"""The vendor's side of the feed: the connections of one asset class, one for each key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from trading.data.massive.client.connection import ConnectionHealth, MassiveStream
from trading.data.massive.client.stream_settings import StreamSettings
from trading.data.massive.frames import TaggedFrame
from trading.errors import AuthenticationFailed
from trading.feed.allotment import Allotment
from trading.logs import get_logger

_WILDCARD = "*"

log = get_logger(__name__)


class UpstreamListener(Protocol):
    """Who wants to know what the vendor answers."""

    def answered(self, asset_class: str, names: Sequence[str]) -> None:
        """There is news about these names, see `Upstream.answer`."""

    def lost(self, asset_class: str, reason: str) -> None:
        """Note that a connection is down and another is tried; told once."""

    def back(self, asset_class: str) -> None:
        """Note that a connection that was down is up again."""

    def closed(self, asset_class: str, error: BaseException) -> None:
        """Note that the last connection has ended: no key was accepted."""


class Upstream:
    """Keeps the union of what readers want subscribed to, over one connection for each key.

    Its methods run on the event loop that its connections run on. A connection is opened when the
    first name is placed on it. While a key that was accepted before is refused, the others carry
    what it carried. One that was never accepted is given up; when all are, the vendor is asked
    again after `cool_down_s`, as its logins may have failed for a while.

    Parameters
    ----------
    asset_class: `options`, `stocks` or `indices`
    settings: how to reach the vendor; `api_key` is replaced by each of `keys`
    keys: the vendor's keys
    max_quotes: contracts of quotes that one connection may subscribe to
    take: takes each frame over, and never waits
    listener: hears what the vendor answers
    rng: draws the jitter of the pauses
    """

    def __init__(
        self,
        asset_class: str,
        settings: StreamSettings,
        keys: Sequence[str],
        max_quotes: int,
        take: Callable[[str, bytes], None],
        listener: UpstreamListener,
        rng: np.random.Generator,
    ) -> None:
        self.asset_class = asset_class
        self.expects_data = True
        """Whether silence is a fault."""
        self.failure: BaseException | None = None
        """Why the last connection ended; until a key is accepted."""
        self._listener = listener
        self._lines = {
            number: _Line(self, number, replace(settings, api_key=key), take, rng)
            for number, key in enumerate(keys)
        }
        self._usable = list(self._lines)
        self._shut: set[int] = set()
        """Lines whose key was accepted before, and is refused for now."""
        self._cool_down_s = settings.cool_down_s
        self._resting: asyncio.Handle | None = None
        self._allotment = Allotment(max_quotes)
        self._needs: Mapping[str, tuple[int, ...]] = {}
        self._covered: frozenset[str] = frozenset()
        self._acknowledged: set[str] = set()
        self._refused: dict[str, str] = {}
        self._max_quotes = max_quotes
        self._down: set[int] = set()
        self._again: asyncio.Handle | None = None

    def want(self, needs: Mapping[str, tuple[int, ...]]) -> None:
        """Bring the subscriptions in step with what is needed; low values are needed most."""
        self._needs = needs
        self._share_out()

    def answer(self, name: str) -> str | None:
        """Empty when a name is subscribed to, else why it is not; None while nothing is known."""
        if name in self._covered or name in self._acknowledged:
            return ""
        if name in self._allotment.left_out:
            room = self._max_quotes * len(self._carrying)
            return f"Subscription limit reached for feed: {room} contracts"
        return self._refused.get(name)

    def expect_data(self, expected: bool) -> None:
        """Say whether silence is a fault, for which a connection is replaced."""
        self.expects_data = expected
        for line in self._lines.values():
            line.stream.expects_data = expected

    @property
    def refusal(self) -> BaseException | None:
        """Why no reader is served for now; None while the vendor is asked, or may be."""
        return None if self._usable else self.failure

    @property
    def _carrying(self) -> list[int]:
        """Lines to place names on: those whose key is refused for now only where all are."""
        return [number for number in self._usable if number not in self._shut] or self._usable

    @property
    def wanted(self) -> int:
        """Names that at least one reader wants."""
        return len(self._needs)

    @property
    def left_out(self) -> int:
        """Contracts whose quotes there is no room for."""
        return len(self._allotment.left_out)

    def subscriptions(self) -> set[str]:
        """Return the names that are asked of the vendor now."""
        return set(self._allotment.placed)

    def health(self) -> list[ConnectionHealth]:
        """Return the state of each connection that was opened."""
        return [line.stream.health() for line in self._lines.values() if line.task is not None]

    async def stop(self) -> None:
        """Close the connections."""
        for handle in (self._again, self._resting):
            if handle is not None:
                handle.cancel()
        tasks = [line.task for line in self._lines.values() if line.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _share_out(self) -> None:
        self._again = None
        before = dict(self._allotment.placed)
        left_out_before = self._allotment.left_out
        self._covered = frozenset(name for name in self._needs if self._is_covered(name))
        asked = {name: need for name, need in self._needs.items() if name not in self._covered}
        self._allotment.share_out(asked, self._carrying)
        after = self._allotment.placed
        for name, number in before.items():
            if after.get(name) != number:
                self._forget(name)
        for number, line in self._lines.items():
            gone = [name for name, at in before.items() if at == number != after.get(name)]
            new = [name for name, at in after.items() if at == number != before.get(name)]
            line.change(gone, new)
        moved = self._allotment.left_out ^ left_out_before
        news = [*(name for name in moved if name in self._needs), *self._covered]
        if news:
            self._listener.answered(self.asset_class, news)

    def _is_covered(self, name: str) -> bool:
        """Whether a wildcard that is subscribed to tells it already."""
        channel, _, symbol = name.partition(".")
        wildcard = f"{channel}.{_WILDCARD}"
        return symbol != _WILDCARD and wildcard in self._needs and wildcard in self._acknowledged

    def _forget(self, name: str) -> None:
        self._acknowledged.discard(name)
        self._refused.pop(name, None)

    def share_out_soon(self) -> None:
        """Share out anew, once for all that changes before the event loop comes round."""
        if self._again is None:
            self._again = asyncio.get_running_loop().call_soon(self._share_out)

    # What a line hears

    def connected(self, number: int) -> None:
        """Note that a line is up again: what it carries is asked for anew."""
        self.failure = None
        if number in self._shut:
            self._shut.remove(number)
            self.share_out_soon()
        for name, at in self._allotment.placed.items():
            if at == number:
                self._forget(name)
        if number in self._down:
            self._down.remove(number)
            self._listener.back(self.asset_class)

    def acknowledged(self, name: str) -> None:
        """Note that the vendor acknowledged a name."""
        if name in self._allotment.placed:
            self._acknowledged.add(name)
            self._refused.pop(name, None)
            self._listener.answered(self.asset_class, [name])
            if name.endswith(f".{_WILDCARD}"):
                self.share_out_soon()

    def refused(self, name: str, reason: str) -> None:
        """Note that the vendor refused a name."""
        if name in self._allotment.placed:
            self._acknowledged.discard(name)
            self._refused[name] = reason
            self._listener.answered(self.asset_class, [name])
            if name.endswith(f".{_WILDCARD}"):
                self.share_out_soon()

    def lost(self, number: int, reason: str, key_refused: bool) -> None:
        """Note that a line is down, and another connection is tried.

        Others take over what it carried while its key is refused.
        """
        if key_refused and number not in self._shut:
            self._shut.add(number)
            self._share_out()
        if number not in self._down:
            self._down.add(number)
            self._listener.lost(self.asset_class, reason)

    def ended(self, number: int, error: BaseException) -> None:
        """Note that a line has ended, its key never accepted: others take over what it carried."""
        self._usable.remove(number)
        log.error(
            "a connection has ended",
            asset_class=self.asset_class,
            number=number + 1,
            reason=str(error),
        )
        if self._usable:
            self._share_out()
        else:
            self.failure = error
            self._resting = asyncio.get_running_loop().call_later(
                self._cool_down_s, self._usable_again
            )
            self._listener.closed(self.asset_class, error)

    def _usable_again(self) -> None:
        """Let the next name open a connection: the vendor may accept a key by now."""
        for name, number in self._allotment.placed.items():
            self._lines[number].stream.subscriptions.withdraw([name])
            self._forget(name)
        self._allotment = Allotment(self._max_quotes)
        self._usable = list(self._lines)
        self._share_out()


class _Line:
    """One connection with one key."""

    def __init__(
        self,
        upstream: Upstream,
        number: int,
        settings: StreamSettings,
        take: Callable[[str, bytes], None],
        rng: np.random.Generator,
    ) -> None:
        self._upstream = upstream
        self._number = number
        self._take = take
        self.task: asyncio.Task[None] | None = None
        self.stream = MassiveStream(upstream.asset_class, settings, self, rng, listener=self)

    def change(self, gone: Sequence[str], new: Sequence[str]) -> None:
        """Withdraw some names and ask for others, opening the connection for the first."""
        if self.stream.subscriptions.withdraw(gone) + self.stream.subscriptions.ask(new) == 0:
            return
        if new and (self.task is None or self.task.done()):
            self.stream.expects_data = self._upstream.expects_data
            self.task = asyncio.get_running_loop().create_task(self.stream.run())
            self.task.add_done_callback(self._on_done)
        self.stream.subscriptions_changed()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception() or AuthenticationFailed("the connection ended")
        self._upstream.ended(self._number, error)

    # A stream's listener

    def connected(self) -> None:
        self._upstream.connected(self._number)

    def acknowledged(self, name: str) -> None:
        self._upstream.acknowledged(name)

    def refused(self, name: str, reason: str) -> None:
        self._upstream.refused(name, reason)

    def lost(self, reason: str, key_refused: bool) -> None:
        self._upstream.lost(self._number, reason, key_refused)

    # A stream's queue: frames are shared out at once, and wait with each reader

    @property
    def is_full(self) -> bool:
        return False

    async def room(self) -> None:
        return

    def put(self, frame: TaggedFrame) -> None:
        self._take(frame.asset_class, frame.data)

    def dropped(self, asset_class: str | None = None) -> int:
        return 0
