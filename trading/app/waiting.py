"""Waits that end when the application is told to stop, whatever it is that does not come."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from trading.app import ray_threads
from trading.app.handles import PingedActor, ResultReference
from trading.errors import TradingError
from trading.logs import get_logger

log = get_logger(__name__)

_POLL_S = 0.1

T = TypeVar("T")


class StopRequested(TradingError):
    """What was waited for no longer matters: everything is to end."""

    def __init__(self, awaited: str) -> None:
        super().__init__(f"told to stop while it waited for {awaited}")


class StoppedOr(threading.Event):
    """Set with another event, or while something else is so.

    Parameters
    ----------
    stop
        The other event.
    other
        Whether it is so; asked again and again.
    """

    def __init__(self, stop: threading.Event, other: Callable[[], bool]) -> None:
        super().__init__()
        self._stop, self._is_so = stop, other

    def is_set(self) -> bool:
        """Whether the end has come."""
        return super().is_set() or self._stop.is_set() or self._is_so()

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is set, or time is up."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left_s = _POLL_S if deadline is None else min(_POLL_S, deadline - time.monotonic())
            if left_s <= 0.0:
                return False
            self._stop.wait(left_s)
        return True


@contextmanager
def unless_ending(awaited: str, stopped: Callable[[], bool]) -> Iterator[None]:
    """Take what the block fails of for a stop, where everything is to end anyway.

    What starts beside others that end may fail of that.

    Raises
    ------
    StopRequested
        The block failed, and `stopped` says so.
    """
    try:
        yield
    except StopRequested:
        raise
    except Exception as error:
        if not stopped():
            raise
        log.warning(
            "it failed while it started, and is not needed", part=awaited, reason=str(error)
        )
        raise StopRequested(awaited) from error


def arrived(
    reference: ResultReference[object], awaited: str, stopped: Callable[[], bool], timeout_s: float
) -> bool:
    """Wait for what a remote call returns; whether it is there.

    Raises
    ------
    StopRequested
        `stopped` said so before.
    """
    import ray

    deadline = time.monotonic() + timeout_s
    while not ray.wait([reference], timeout=_POLL_S)[0]:
        if stopped():
            raise StopRequested(awaited)
        if time.monotonic() >= deadline:
            return False
    return True


class Heartbeat:
    """Asks an actor for a sign of life, its `ping`, again and again; never waits for it."""

    def __init__(self) -> None:
        self._asked: ResultReference[object] | None = None
        self._asked_s = 0.0

    def is_lost(self, actor: PingedActor, now_s: float, most_s: float) -> bool:
        """Whether the last question has had no answer for longer than `most_s` seconds.

        After that it begins anew. One that is dead answers: who holds it hears of its death.
        """
        import ray

        if self._asked is None or ray.wait([self._asked], timeout=0)[0]:
            self._asked, self._asked_s = actor.ping.remote(), now_s
        elif now_s - self._asked_s > most_s:
            self._asked = None
            return True
        return False


class Begun(Generic[T]):
    """A call on a thread of its own, begun now and waited for later: it cannot be told to stop.

    Parameters
    ----------
    call
        May take long, or wait for ever.
    awaited
        What it makes, for people.
    undo
        Given what comes of the call where nobody waits for that any more.
    """

    def __init__(self, call: Callable[[], T], awaited: str, undo: Callable[[T], object]) -> None:
        self._outcome: Future[T] = Future()
        self._awaited, self._undo = awaited, undo

        def run() -> None:
            try:
                self._outcome.set_result(call())
            except BaseException as error:
                self._outcome.set_exception(error)

        ray_threads.begin(run, "start")

    def result(self, stopped: Callable[[], bool]) -> T:
        """Return what the call does; `stopped` is asked all the while whether to wait no more.

        Raises
        ------
        StopRequested
            `stopped` said so before it returned, or it failed and `stopped` says so.
        """
        while not wait([self._outcome], timeout=_POLL_S).done:
            if stopped():
                self._outcome.add_done_callback(self._undo_late)
                raise StopRequested(self._awaited)
        with unless_ending(self._awaited, stopped):
            return self._outcome.result()

    def take_back(self, timeout_s: float) -> None:
        """Undo what comes of the call, where it is there in time and else whenever it is."""
        if wait([self._outcome], timeout=timeout_s).done:
            self._undo_late(self._outcome)
        else:
            self._outcome.add_done_callback(self._undo_late)

    def _undo_late(self, late: Future[T]) -> None:
        if late.exception() is None:
            self._undo(late.result())


def unless_stopped(
    call: Callable[[], T], awaited: str, stopped: Callable[[], bool], undo: Callable[[T], object]
) -> T:
    """Make `call` on a thread of its own and return what it does; parameters as of `Begun`.

    Raises
    ------
    StopRequested
        `stopped` said so before it returned.
    """
    return Begun(call, awaited, undo).result(stopped)


def await_room(
    awaited: str,
    bundles: Sequence[Mapping[str, float]],
    later: Sequence[Mapping[str, float]],
    stopped: Callable[[], bool],
) -> None:
    """Wait until the Ray cluster could place actors that ask for these resources.

    A cluster that makes nodes as they are asked for makes them for this wait. An actor that waits
    for its node by itself can neither be told to stop, nor taken back by who does not have it yet.

    Parameters
    ----------
    awaited
        What is to be placed, for people.
    bundles
        What each of the actors asks for.
    later
        What others will ask for that are not waited for: their nodes are made meanwhile.
    stopped
        Asked all the while: whether to wait no more.

    Raises
    ------
    StopRequested
        `stopped` said so before; nothing is asked for any more.
    """
    from ray.util import placement_group, placement_group_table, remove_placement_group

    # All of the one; of the other as many as the cluster may have.
    groups = [list(map(dict, bundles)), *([dict(each)] for each in later)]
    rooms: list[Any] = [placement_group(group) for group in groups]
    try:
        # Not by the group's own `wait`: it takes whole seconds, so it returns at once for less, and
        # what it asks stays on the head until there is room. The table may know nothing of one yet.
        while placement_group_table(rooms[0]).get("state") != "CREATED":
            if stopped():
                raise StopRequested(awaited)
            time.sleep(_POLL_S)
    finally:
        for room in rooms:
            remove_placement_group(room)
