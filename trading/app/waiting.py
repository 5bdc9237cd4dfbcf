"""Waits that end when the application is told to stop, whatever it is that does not come."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from trading.app.handles import PingedActor, ResultReference
from trading.errors import TradingError

_POLL_S = 0.1

T = TypeVar("T")


class StopRequested(TradingError):
    """What was waited for no longer matters: everything is to end."""

    def __init__(self, awaited: str) -> None:
        super().__init__(f"told to stop while it waited for {awaited}")


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


def unless_stopped(
    call: Callable[[], T], awaited: str, stopped: Callable[[], bool], undo: Callable[[T], object]
) -> T:
    """Make `call` on a thread of its own and return what it does: it cannot be told to stop.

    Parameters
    ----------
    call
        May take long, or wait for ever.
    awaited
        What it makes, for people.
    stopped
        Asked all the while: whether to wait no more.
    undo
        Given what comes of the call after that.

    Raises
    ------
    StopRequested
        `stopped` said so before it returned.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    def undo_late(late: Future[T]) -> None:
        if late.exception() is None:
            undo(late.result())

    threading.Thread(target=run, name="start", daemon=True).start()
    while not wait([outcome], timeout=_POLL_S).done:
        if stopped():
            outcome.add_done_callback(undo_late)
            raise StopRequested(awaited)
    return outcome.result()


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
    from ray.util import placement_group, remove_placement_group

    # All of the one; of the other as many as the cluster may have.
    groups = [list(map(dict, bundles)), *([dict(each)] for each in later)]
    rooms: list[Any] = [placement_group(group) for group in groups]
    try:
        while not rooms[0].wait(_POLL_S):
            if stopped():
                raise StopRequested(awaited)
    finally:
        for room in rooms:
            remove_placement_group(room)
