"""The live market's actor as the HTTP service knows it: by its name, and its status updates."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError

from trading.errors import OwnerRefused, TradingError
from trading.live.status_updates import StatusUpdate
from trading.logs import get_logger

log = get_logger(__name__)

ANSWER_S = 4.0
_FIRST_S = 4.5
"""Longest that a request waits for what there is to know at all."""
_UPDATE_TIMEOUT_S = 2.0
_SILENCE_S = 15.0
"""Status updates of an actor that has been silent for longer count no more."""
_RETRY_S = 0.25
_LOOK_S = 0.5
Namespace = Callable[[], Awaitable[str]]
_T = TypeVar("_T")


class LiveMarketUnavailable(TradingError):
    """The live market's actor gives no answer; the message says why, in one line."""


class LiveMarketGone(LiveMarketUnavailable):
    """There is no such actor, or not any more."""


class NamedActor:
    """Calls the live market's actor by its name, and finds its successor after it died.

    Parameters
    ----------
    actor_name
        Name that the actor was created with.
    namespace
        Ray namespace of the actor, or who tells it.
    """

    def __init__(self, actor_name: str, namespace: str | Namespace) -> None:
        self._actor_name = actor_name
        self._namespace = namespace
        self._actor: ActorHandle[Any] | None = None

    async def ask(self, method: str, timeout_s: float, *arguments: object) -> Any:
        """Return the answer of the actor's `method`.

        Raises
        ------
        LiveMarketUnavailable
            No such actor, it died, it failed, or it gave no answer in time.
        OwnerRefused
            The actor refuses its owner, and says why.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(method, arguments)
        except TimeoutError:
            raise LiveMarketUnavailable(f"no answer to {method} within {timeout_s:g} s") from None
        except RayActorError:
            raise LiveMarketGone("the actor is dead or restarting") from None
        except RayError as error:
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, OwnerRefused):
                raise OwnerRefused(str(cause)) from None
            raise LiveMarketUnavailable(f"{method} failed: {type(cause).__name__}") from error

    async def _ask(self, method: str, arguments: tuple[object, ...]) -> Any:
        held = self._actor
        actor = held if held is not None else await self._find()
        try:
            return await getattr(actor, method).remote(*arguments)
        except RayActorError:
            self._actor = None
            if held is None:
                raise
        # The handle was from before; its actor may have a successor under the same name.
        return await getattr(await self._find(), method).remote(*arguments)

    async def _find(self) -> ActorHandle[Any]:
        where = self._namespace
        namespace = where if isinstance(where, str) else await where()
        try:
            # Looking a name up blocks on the cluster's control store.
            self._actor = await asyncio.to_thread(
                ray.get_actor, self._actor_name, namespace=namespace
            )
        except ValueError:
            raise LiveMarketGone(
                f"no actor named {self._actor_name!r} in namespace {namespace!r}"
            ) from None
        return self._actor


class Follower:
    """A task that runs in the loop that serves requests, from its start or the first one on."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._known = asyncio.Event()

    def begin(self) -> None:
        """Follow, unless it does already."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._task is None or self._task.done():
            self._loop, self._known = loop, asyncio.Event()
            self._task = loop.create_task(self._follow())

    def known(self) -> None:
        """There is something to tell."""
        self._known.set()

    async def first_known(self) -> None:
        """Wait until there is something to tell, or for a while."""
        self.begin()
        if not self._known.is_set():
            try:
                async with asyncio.timeout(_FIRST_S):
                    await self._known.wait()
            except TimeoutError:
                return

    async def _follow(self) -> None:
        raise NotImplementedError


class Polled(Follower, Generic[_T]):
    """What another actor says of itself, asked twice a second; an answer counts for a while.

    Parameters
    ----------
    who
        Whose answer it is, for people.
    counts_s
        How long an answer counts.
    """

    def __init__(self, who: str, counts_s: float) -> None:
        super().__init__()
        self._who, self._counts_s = who, counts_s
        self._answer: _T | None = None
        self._answered_s = 0.0
        self._fault = "it has not answered yet"

    async def newest(self) -> _T:
        """Return the newest answer.

        Raises
        ------
        LiveMarketUnavailable
            There was none for longer than one counts.
        """
        await self.first_known()
        if self._answer is None or time.monotonic() - self._answered_s > self._counts_s:
            raise LiveMarketUnavailable(f"{self._who} gives no answer: {self._fault}")
        return self._answer

    async def _ask(self) -> _T:
        raise NotImplementedError

    async def _follow(self) -> None:
        while True:
            try:
                self._answer, self._answered_s = await self._ask(), time.monotonic()
            except LiveMarketUnavailable as error:
                self._fault = str(error)
            except Exception as error:
                self._fault = type(error).__name__
            self.known()
            await asyncio.sleep(_LOOK_S)


class StatusReader(Follower):
    """The newest status update of the live market, or why there is none.

    Parameters
    ----------
    market
        Whose.
    """

    def __init__(self, market: NamedActor) -> None:
        super().__init__()
        self._market = market
        self._update: StatusUpdate | None = None
        self._heard_s = 0.0
        self._fault = "it has not answered yet"

    async def newest(self) -> StatusUpdate:
        """Return the newest status update.

        Raises
        ------
        LiveMarketUnavailable
            There is none, or the actor has been silent since too long.
        """
        await self.first_known()
        silent_s = time.monotonic() - self._heard_s
        if self._update is None:
            raise LiveMarketUnavailable(self._fault)
        if silent_s > _SILENCE_S:
            raise LiveMarketUnavailable(f"no status update for {silent_s:.0f} s: {self._fault}")
        return self._update

    async def _follow(self) -> None:
        number = 0
        while True:
            try:
                update: StatusUpdate | None = await self._market.ask(
                    "next_update", ANSWER_S, number, _UPDATE_TIMEOUT_S
                )
            except Exception as error:
                if isinstance(error, LiveMarketGone):
                    self._update, number = None, 0
                elif not isinstance(error, LiveMarketUnavailable):
                    log.exception("the live market's status updates do not come in")
                told = isinstance(error, LiveMarketUnavailable)
                self._fault = str(error) if told else type(error).__name__
                self._known.set()
                await asyncio.sleep(_RETRY_S)
                continue
            if update is None:
                self._fault = "it answers without a status update: see its log"
                continue
            self._heard_s, self._fault = time.monotonic(), "it does not answer"
            self._update, number = StatusUpdate(*update), update[0]
            self._known.set()
