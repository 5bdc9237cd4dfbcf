"""The HTTP service: relays what the live market's actor, and its supervisor, say about themselves.

No request asks the actor: each replica follows its news, made after every bar, and answers from the
newest. So it answers at once, and as often as it is asked, without disturbing who trades. A replica
holds nothing else and may come and go.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeGuard

import ray
import structlog
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import RayServeException

from trading.errors import TradingError
from trading.live.news import News, as_json
from trading.local_ray import keep_replica_on_loopback
from trading.precedence import ANSWERS, give_way
from trading.serving.control import add_control
from trading.serving.metrics import supervisor_text
from trading.serving.page_routes import add_page
from trading.serving.page_stream import Told
from trading.serving.supervisor import TRADING, Standing

log = structlog.get_logger(__name__)

SUPERVISOR = "supervisor"
REPLICAS = 2
"""So that one answers while the other is started again."""
_FIRST_S = 4.5
"""Longest that a request waits for what there is to know at all."""
_ANSWER_S = 4.0
_NEWS_TIMEOUT_S = 2.0
_SILENCE_S = 15.0
"""News of an actor that has been silent for longer count no more."""
_RETRY_S = 0.25
_STANDING_S = 0.5
_STALE_S = 30.0
Namespace = Callable[[], Awaitable[str]]


class LiveMarketUnavailable(TradingError):
    """The live market's actor gives no answer; the message says why, in one line."""


class LiveMarketGone(LiveMarketUnavailable):
    """There is no such actor, or not any more."""


class LiveMarket:
    """Calls the live market's actor by its name, and finds its successor after it died.

    Parameters:
        actor_name: name that the actor was created with.
        namespace: Ray namespace of the actor, or who tells it.
    """

    def __init__(self, actor_name: str, namespace: str | Namespace) -> None:
        self._actor_name = actor_name
        self._namespace = namespace
        self._actor: Any = None

    async def ask(self, method: str, timeout_s: float, *arguments: object) -> Any:
        """The answer of the actor's `method`.

        Raises:
            LiveMarketUnavailable: no such actor, it died, it failed, or it gave no answer in time.
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

    async def _find(self) -> Any:
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


class _Follower:
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

    async def _first_known(self) -> None:
        """Returns when there is something to tell, or after a while."""
        self.begin()
        if not self._known.is_set():
            try:
                async with asyncio.timeout(_FIRST_S):
                    await self._known.wait()
            except TimeoutError:
                return

    async def _follow(self) -> None:
        raise NotImplementedError


class Newspaper(_Follower):
    """The newest news of the live market, or why there is none.

    Parameters:
        market: whose.
    """

    def __init__(self, market: LiveMarket) -> None:
        super().__init__()
        self._market = market
        self._news: News | None = None
        self._heard_s = 0.0
        self._fault = "it has not answered yet"

    async def newest(self) -> News:
        """The newest edition.

        Raises:
            LiveMarketUnavailable: there is none, or the actor has been silent since too long.
        """
        await self._first_known()
        silent_s = time.monotonic() - self._heard_s
        if self._news is None:
            raise LiveMarketUnavailable(self._fault)
        if silent_s > _SILENCE_S:
            raise LiveMarketUnavailable(f"no news for {silent_s:.0f} s: {self._fault}")
        return self._news

    async def _follow(self) -> None:
        number = 0
        while True:
            try:
                news: News | None = await self._market.ask(
                    "news", _ANSWER_S, number, _NEWS_TIMEOUT_S
                )
            except Exception as error:
                if isinstance(error, LiveMarketGone):
                    self._news, number = None, 0
                elif not isinstance(error, LiveMarketUnavailable):
                    log.exception("the live market's news do not come in")
                told = isinstance(error, LiveMarketUnavailable)
                self._fault = str(error) if told else type(error).__name__
                self._known.set()
                await asyncio.sleep(_RETRY_S)
                continue
            if news is None:
                self._fault = "it answers without news: see its log"
                continue
            self._heard_s, self._fault = time.monotonic(), "it does not answer"
            self._news, number = News(*news), news[0]
            self._known.set()


class Supervised(_Follower):
    """Where the supervisor of the same Serve application stands, asked twice a second.

    The process is the driver's too, and may be busy; so an answer counts for a while.
    """

    def __init__(self) -> None:
        super().__init__()
        self._standing: Standing | None = None
        self._answered_s = 0.0
        self._fault = "it has not answered yet"

    async def standing(self) -> Standing:
        """Where the application stands.

        Raises:
            LiveMarketUnavailable: the supervisor has not answered for longer than a while.
        """
        await self._first_known()
        if self._standing is None or time.monotonic() - self._answered_s > _STALE_S:
            raise LiveMarketUnavailable(f"the supervisor gives no answer: {self._fault}")
        return self._standing

    async def namespace(self) -> str:
        """Ray namespace of the account's live market."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                name: str = await serve.get_deployment_handle(SUPERVISOR).account.remote()
                return name
        except (TimeoutError, RayError, RayServeException) as error:
            raise LiveMarketUnavailable(
                f"the supervisor gives no answer: {type(error).__name__}"
            ) from None

    async def _follow(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    self._standing = await serve.get_deployment_handle(SUPERVISOR).standing.remote()
                self._answered_s = time.monotonic()
            except Exception as error:
                self._fault = type(error).__name__
            self._known.set()
            await asyncio.sleep(_STANDING_S)


def build_api(
    live_actor_name: str,
    namespace: str | None,
    supervisor: Supervised | None = None,
    market: LiveMarket | None = None,
) -> FastAPI:
    """The HTTP routes, as an ASGI app that needs no more than a connection to Ray.

    `GET /` is the page, `GET /events` what it shows as server-sent events, `GET /chain/...` an
    option chain and `GET /journal` a search of the journal, see `page_routes`.
    `GET /health` answers 200 while the actor answers at all; `GET /ready` while it can trade, with
    the reasons otherwise; `GET /status` is the actor's own account of itself in JSON, in which a
    number that is not finite is null; `GET /metrics` is Prometheus text; `POST /control/...` are
    the owner's commands, see `control`. All answer 503 with a reason when there is no news of the
    actor.

    With a supervisor, `/health` answers 200 while that or the actor answers, whether or not it
    trades. While it does not, `/ready` answers 503 with the supervisor's reason, and `/status` and
    `/metrics` tell what it knows. It also tells the namespace, where that is None.

    `market` is who is asked, where it is not the actor of that name.
    """
    where = namespace if namespace is not None or supervisor is None else supervisor.namespace
    market = market if market is not None else LiveMarket(live_actor_name, where or "")
    paper = Newspaper(market)

    @asynccontextmanager
    async def following(_: FastAPI) -> AsyncIterator[None]:
        # So that a replica knows something when it is first asked.
        for each in (supervisor, paper):
            if each is not None:
                each.begin()
        yield

    api = FastAPI(title="trading", docs_url=None, redoc_url=None, lifespan=following)

    @api.exception_handler(LiveMarketUnavailable)
    async def unavailable(_: object, error: LiveMarketUnavailable) -> Response:
        return _json({"status": "unavailable", "reason": str(error)}, status_code=503)

    async def standing() -> Standing | None:
        return await supervisor.standing() if supervisor is not None else None

    @api.get("/health", responses=_ANSWERS)
    async def health() -> Response:
        """Whether anybody answers for the account."""
        try:
            at = await standing()
        except LiveMarketUnavailable:
            at = None
        if at is None:
            await paper.newest()
        return _json({"status": at.phase if _idle(at) else "ok"})

    @api.get("/ready", responses=_ANSWERS)
    async def ready() -> Response:
        """Whether the account can trade, and why not."""
        at = await standing()
        if _idle(at):
            is_ready, reasons = False, [at.reason]
        else:
            news = await paper.newest()
            is_ready, reasons = news.ready, list(news.reasons)
        body = {"status": "ready" if is_ready else "not ready", "reasons": reasons}
        return _json(body, status_code=200 if is_ready else 503)

    @api.get("/status", responses=_ANSWERS)
    async def status() -> Response:
        """Account, positions, market, feed, learner and versions."""
        at = await standing()
        if at is None:
            return _answer((await paper.newest()).status)
        told = as_json({"phase": at.phase}) if _idle(at) else (await paper.newest()).status
        return _answer(_joined(told, as_json({"supervisor": at._asdict()})))

    @api.get("/metrics", responses=_METRICS)
    async def metrics() -> Response:
        """Prometheus text."""
        at = await standing()
        text = b"" if _idle(at) else (await paper.newest()).metrics
        if at is not None:
            text += supervisor_text(at)
        return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})

    async def told() -> Told:
        at = await standing()
        news = None if _idle(at) else await paper.newest()
        return Told(news, at._asdict() if at is not None else None)

    async def command(method: str, timeout_s: float, *arguments: object) -> Any:
        at = await standing()
        if _idle(at):
            raise LiveMarketUnavailable(at.reason)
        return await market.ask(method, timeout_s, *arguments)

    add_control(api, command)
    add_page(api, told, command)
    return api


def build_app(
    live_actor_name: str,
    namespace: str | None,
    resources: Mapping[str, float] | None = None,
    supervisor: serve.Application | None = None,
) -> serve.Application:
    """The Serve application of `build_api`, for `ray.serve.run`.

    Parameters:
        live_actor_name: name of the live market's actor.
        namespace: Ray namespace of that actor; None: the supervisor tells.
        resources: custom resources of the node that its replicas run on; unset: any node.
        supervisor: the bound deployment named `SUPERVISOR`, where there is one.
    """
    deployment = serve.deployment(
        name="api",
        num_replicas=REPLICAS,
        max_ongoing_requests=200,
        health_check_period_s=5.0,
        # One that was killed is found without it; a busy machine may keep one waiting.
        health_check_timeout_s=60.0,
        graceful_shutdown_timeout_s=2.0,
        graceful_shutdown_wait_loop_s=0.2,
        ray_actor_options={"num_cpus": 0, "resources": dict(resources or {})},
    )
    supervised = supervisor is not None

    def built() -> FastAPI:
        """Called in the replica, before it listens."""
        give_way(ANSWERS)
        keep_replica_on_loopback()
        return build_api(live_actor_name, namespace, Supervised() if supervised else None)

    ingress = serve.ingress(built)()
    return deployment(ingress).bind(*([supervisor] if supervised else []))


_OBJECT = {"application/json": {"schema": {"type": "object"}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": _OBJECT},
    503: {"description": "Why it is not so", "content": _OBJECT},
}
_METRICS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
    503: _ANSWERS[503],
}


def _idle(standing: Standing | None) -> TypeGuard[Standing]:
    """Whether there is no live market to ask, by what the supervisor says."""
    return standing is not None and standing.phase != TRADING


def _joined(one: bytes, other: bytes) -> bytes:
    """Two JSON objects, none of them empty, as one."""
    return one[:-1] + b"," + other[1:]


def _json(content: object, status_code: int = 200) -> Response:
    return _answer(as_json(content), status_code)


def _answer(body: bytes, status_code: int = 200) -> Response:
    return Response(body, status_code=status_code, media_type="application/json")
