"""The HTTP service: relays what the live market's actor, and its supervisor, say about themselves.

It holds no state, so replicas may come and go; all figures come from the one live actor.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, TypeGuard

import msgspec
import ray
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import RayServeException

from trading.errors import TradingError
from trading.serving.control import add_control
from trading.serving.metrics import supervisor_text
from trading.serving.supervisor import TRADING, Standing

SUPERVISOR = "supervisor"
_PING_TIMEOUT_S = 2.0
_ANSWER_TIMEOUT_S = 5.0
_STALE_S = 30.0


class LiveMarketUnavailable(TradingError):
    """The live market's actor gives no answer; the message says why, in one line."""


class LiveMarket:
    """Calls the live market's actor by its name, and finds its successor after it died.

    Parameters:
        actor_name: name that the actor was created with.
        namespace: Ray namespace of the actor.
    """

    def __init__(self, actor_name: str, namespace: str) -> None:
        self._actor_name = actor_name
        self._namespace = namespace
        self._actor: Any = None

    async def ask(self, method: str, timeout_s: float, *arguments: object) -> Any:
        """The answer of the actor's `method(*arguments)`.

        Raises:
            LiveMarketUnavailable: no such actor, it died, it failed, or it gave no answer in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(method, *arguments)
        except TimeoutError:
            raise LiveMarketUnavailable(f"no answer to {method} within {timeout_s:g} s") from None
        except RayActorError:
            raise LiveMarketUnavailable("the actor is dead or restarting") from None
        except RayError as error:
            cause = getattr(error, "cause", None) or error
            raise LiveMarketUnavailable(f"{method} failed: {type(cause).__name__}") from error

    async def _ask(self, method: str, *arguments: object) -> Any:
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
        try:
            # Looking a name up blocks on the cluster's control store.
            self._actor = await asyncio.to_thread(
                ray.get_actor, self._actor_name, namespace=self._namespace
            )
        except ValueError:
            raise LiveMarketUnavailable(
                f"no actor named {self._actor_name!r} in namespace {self._namespace!r}"
            ) from None
        return self._actor


class Supervised:
    """Asks the supervisor of the same Serve application where that stands.

    The process is the driver's too, and may be busy; so an answer counts for a while.
    """

    def __init__(self) -> None:
        self._standing: Standing | None = None
        self._answered_s = 0.0

    async def standing(self) -> Standing:
        """Where the application stands.

        Raises:
            LiveMarketUnavailable: the supervisor has not answered for longer than a while.
        """
        try:
            async with asyncio.timeout(_PING_TIMEOUT_S):
                self._standing = await serve.get_deployment_handle(SUPERVISOR).standing.remote()
            self._answered_s = time.monotonic()
        except (TimeoutError, RayError, RayServeException) as error:
            if self._standing is None or time.monotonic() - self._answered_s > _STALE_S:
                reason = f"the supervisor gives no answer: {type(error).__name__}"
                raise LiveMarketUnavailable(reason) from None
        return self._standing


def build_api(
    live_actor_name: str, namespace: str, supervisor: Supervised | None = None
) -> FastAPI:
    """The HTTP routes, as an ASGI app that needs no more than a connection to Ray.

    `GET /health` answers 200 while the actor answers at all; `GET /ready` while it can trade, with
    the reasons otherwise; `GET /status` is the actor's own account of itself in JSON, in which a
    number that is not finite is null; `GET /metrics` is Prometheus text; `POST /control/...` are
    the owner's commands, see `control`. All answer 503 with a reason when the actor gives no
    answer.

    With a supervisor, `/health` answers 200 while that or the actor answers, whether or not it
    trades. While it does not, `/ready` answers 503 with the supervisor's reason, and `/status` and
    `/metrics` tell what it knows.
    """
    api = FastAPI(title="trading", docs_url=None, redoc_url=None, openapi_url=None)
    market = LiveMarket(live_actor_name, namespace)

    @api.exception_handler(LiveMarketUnavailable)
    async def unavailable(_: object, error: LiveMarketUnavailable) -> Response:
        return _json({"status": "unavailable", "reason": str(error)}, status_code=503)

    async def standing() -> Standing | None:
        return await supervisor.standing() if supervisor is not None else None

    @api.get("/health")
    async def health() -> Response:
        try:
            at = await standing()
        except LiveMarketUnavailable:
            at = None
        if at is None:
            await market.ask("ping", _PING_TIMEOUT_S)
        return _json({"status": at.phase if _idle(at) else "ok"})

    @api.get("/ready")
    async def ready() -> Response:
        at = await standing()
        if _idle(at):
            is_ready, reasons = False, [at.reason]
        else:
            is_ready, reasons = await market.ask("readiness", _PING_TIMEOUT_S)
        body = {"status": "ready" if is_ready else "not ready", "reasons": list(reasons)}
        return _json(body, status_code=200 if is_ready else 503)

    @api.get("/status")
    async def status() -> Response:
        at = await standing()
        if at is None:
            return _json(await market.ask("status", _ANSWER_TIMEOUT_S))
        answer = {"phase": at.phase} if _idle(at) else await market.ask("status", _ANSWER_TIMEOUT_S)
        return _json({**answer, "supervisor": at._asdict()})

    @api.get("/metrics")
    async def metrics() -> Response:
        at = await standing()
        text = b"" if _idle(at) else await market.ask("metrics", _ANSWER_TIMEOUT_S)
        if at is not None:
            text += supervisor_text(at)
        return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})

    async def command(method: str, timeout_s: float, *arguments: object) -> Any:
        at = await standing()
        if _idle(at):
            raise LiveMarketUnavailable(at.reason)
        return await market.ask(method, timeout_s, *arguments)

    add_control(api, command)
    return api


def build_app(
    live_actor_name: str,
    namespace: str,
    resources: Mapping[str, float] | None = None,
    supervisor: serve.Application | None = None,
) -> serve.Application:
    """The Serve application of `build_api`, for `ray.serve.run`.

    Parameters:
        live_actor_name: name of the live market's actor.
        namespace: Ray namespace of that actor.
        resources: custom resources of the node that its replica runs on; unset: any node.
        supervisor: the bound deployment named `SUPERVISOR`, where there is one.
    """
    deployment = serve.deployment(
        name="api",
        num_replicas=1,
        ray_actor_options={"num_cpus": 0, "resources": dict(resources or {})},
    )
    supervised = supervisor is not None
    ingress = serve.ingress(
        lambda: build_api(live_actor_name, namespace, Supervised() if supervised else None)
    )()
    return deployment(ingress).bind(*([supervisor] if supervised else []))


def _idle(standing: Standing | None) -> TypeGuard[Standing]:
    """Whether there is no live market to ask, by what the supervisor says."""
    return standing is not None and standing.phase != TRADING


def _json(content: object, status_code: int = 200) -> Response:
    """`content` as JSON; unlike the framework's own encoder, NaN becomes null."""
    body = msgspec.json.encode(content, enc_hook=_plain)
    return Response(body, status_code=status_code, media_type="application/json")


def _plain(value: Any) -> object:
    """What msgspec does not know: NumPy's scalars and arrays as Python's, the rest as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
