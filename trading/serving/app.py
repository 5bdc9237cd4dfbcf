"""The HTTP service: relays what the live market's actor, and its supervisor, say about themselves.

No request asks the actor: each replica follows its status updates, made after every bar, and
answers from the newest. So it answers at once, and as often as it is asked, without disturbing who
trades. A replica holds nothing else and may come and go.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from trading.app.local_ray import keep_replica_on_loopback
from trading.learning.precedence import ANSWERS as ANSWERS_LAST
from trading.learning.precedence import give_way
from trading.serving.answers import (
    ANSWERS,
    METRICS,
    AccountAnswers,
    Lifespan,
    answer,
    json_answer,
    metrics_answer,
    new_api,
    readiness_answer,
)
from trading.serving.control import add_control
from trading.serving.live_market import (
    ANSWER_S,
    LiveMarketUnavailable,
    NamedActor,
    Polled,
)
from trading.serving.page_routes import add_page
from trading.serving.page_stream import Viewers
from trading.serving.supervisor import SupervisorState

SUPERVISOR = "supervisor"
REPLICAS = 2
"""So that one answers while the other is started again."""
_STALE_S = 30.0


class SupervisorReader(Polled[SupervisorState]):
    """Where the supervisor of the same Serve application stands.

    The process is the driver's too, and may be busy; so an answer counts for a while.
    """

    def __init__(self) -> None:
        super().__init__("the supervisor", _STALE_S)

    async def _ask(self) -> SupervisorState:
        async with asyncio.timeout(ANSWER_S):
            state: SupervisorState = await serve.get_deployment_handle(SUPERVISOR).state.remote()
            return state

    async def namespace(self) -> str:
        """Ray namespace of the account's live market."""
        try:
            async with asyncio.timeout(ANSWER_S):
                name: str = await serve.get_deployment_handle(SUPERVISOR).account.remote()
                return name
        except (TimeoutError, RayError, RayServeException) as error:
            raise LiveMarketUnavailable(
                f"the supervisor gives no answer: {type(error).__name__}"
            ) from None


def build_api(
    live_actor_name: str,
    namespace: str | None,
    supervisor: SupervisorReader | None = None,
    market: NamedActor | None = None,
) -> FastAPI:
    """Return the HTTP routes, as an ASGI app that needs no more than a connection to Ray.

    `GET /` is the page, `GET /events` what it shows as server-sent events, `GET /chain/...` an
    option chain and `GET /journal` a search of the journal, see `page_routes`.
    `GET /health` answers 200 while the actor answers at all; `GET /ready` while it can trade, with
    the reasons otherwise; `GET /status` is the actor's own account of itself in JSON, in which a
    number that is not finite is null; `GET /metrics` is Prometheus text; `POST /control/...` are
    the owner's commands, see `control`. All answer 503 with a reason when no status update
    came of the actor.

    With a supervisor, `/health` answers 200 while that or the actor answers, whether or not it
    trades. While it does not, `/ready` answers 503 with the supervisor's reason, and `/status` and
    `/metrics` tell what it knows. It also tells the namespace, where that is None.

    `market` is who is asked, where it is not the actor of that name.
    """
    where = namespace if namespace is not None or supervisor is None else supervisor.namespace
    market = market if market is not None else NamedActor(live_actor_name, where or "")
    answers = AccountAnswers(market, supervisor.newest if supervisor is not None else None)

    @asynccontextmanager
    async def following(_: FastAPI) -> AsyncIterator[None]:
        # So that a replica knows something when it is first asked.
        if supervisor is not None:
            supervisor.begin()
        answers.begin()
        yield

    return account_api(answers, Viewers(), following)


def account_api(
    answers: AccountAnswers, viewers: Viewers, lifespan: Lifespan | None = None
) -> FastAPI:
    """Return the HTTP routes of one account, whose page is looked at by some of the viewers."""
    api = new_api(lifespan)

    @api.get("/health", responses=ANSWERS)
    async def health() -> Response:
        """Whether anybody answers for the account."""
        return json_answer({"status": await answers.health()})

    @api.get("/ready", responses=ANSWERS)
    async def ready() -> Response:
        """Whether the account can trade, and why not."""
        return readiness_answer(*await answers.readiness())

    @api.get("/status", responses=ANSWERS)
    async def status() -> Response:
        """Account, positions, market, feed, learner and versions."""
        return answer(await answers.status())

    @api.get("/metrics", responses=METRICS)
    async def metrics() -> Response:
        """Prometheus text."""
        return metrics_answer(await answers.metrics())

    add_control(api, answers.command)
    add_page(api, answers.told, answers.command, viewers)
    return api


def build_app(
    live_actor_name: str,
    namespace: str | None,
    resources: Mapping[str, float] | None = None,
    supervisor: serve.Application | None = None,
) -> serve.Application:
    """Return the Serve application of `build_api`, for `ray.serve.run`.

    Parameters
    ----------
    live_actor_name
        Name of the live market's actor.
    namespace
        Ray namespace of that actor; None: the supervisor tells.
    resources
        Custom resources of the node that its replicas run on; unset: any node.
    supervisor
        The bound deployment named `SUPERVISOR`, where there is one.
    """
    supervised = supervisor is not None

    def build() -> FastAPI:
        return build_api(live_actor_name, namespace, SupervisorReader() if supervised else None)

    return service_of(build, resources, supervisor)


def service_of(
    build: Callable[[], FastAPI],
    resources: Mapping[str, float] | None = None,
    *behind: serve.Application | None,
) -> serve.Application:
    """Return the Serve application of what `build` makes in each replica.

    Parameters
    ----------
    build
        Called in the replica.
    resources
        Custom resources of the node that its replicas run on; unset: any node.
    behind
        Bound deployments that it goes with; None: none.
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

    def built() -> FastAPI:
        """Make the application in the replica, before it listens."""
        give_way(ANSWERS_LAST)
        keep_replica_on_loopback()
        return build()

    ingress = serve.ingress(built)()
    return deployment(ingress).bind(*(each for each in behind if each is not None))
