"""The HTTP service of several strategies: one address, each of them by its name.

What a single account is asked at `/status`, `/ready` and `/control/...` a strategy is asked at
`/status/NAME`, `/ready/NAME` and `/control/NAME/...`. Without a name all of them are told, and
`/metrics` has the label `strategy`.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Response
from ray import serve

from trading.live.status_updates import as_json
from trading.serving.answers import (
    ANSWERS,
    METRICS,
    AccountAnswers,
    answer,
    json_answer,
    metrics_answer,
    new_api,
    readiness_answer,
)
from trading.serving.app import account_api, service_of
from trading.serving.control import add_control
from trading.serving.exposition import merged, supervisor_text
from trading.serving.fleet_editions import FleetEditions, FleetInput, input_or_reason
from trading.serving.live_market import (
    ANSWER_S,
    LiveMarketUnavailable,
    NamedActor,
    Polled,
)
from trading.serving.page_routes import STRATEGIES, add_document
from trading.serving.page_stream import PageStream, Viewers
from trading.serving.strategy_states import FLEET_STATES, STALE_S, FleetState
from trading.serving.supervisor import RESTARTING, SupervisorState


class FleetStatesReader(Polled[FleetState]):
    """The states of all strategies, as the driver posts them.

    Parameters
    ----------
    fleet_states
        The actor that has them, see `FleetStates`.
    """

    def __init__(self, fleet_states: NamedActor) -> None:
        super().__init__("the driver", STALE_S)
        self._fleet_states = fleet_states

    async def state(self, name: str) -> SupervisorState:
        """Return where one strategy stands."""
        return (await self.newest()).states[name]

    async def _ask(self) -> FleetState:
        posted = await self._fleet_states.ask("newest", ANSWER_S)
        if posted is None:
            raise LiveMarketUnavailable("it is silent")
        return FleetState(*posted)


class StrategiesAnswers:
    """The answers for all strategies of one application, made of those for each.

    Parameters
    ----------
    live_actor_name, namespaces, driver_namespace
        As of `build_strategies_api`.
    """

    def __init__(
        self, live_actor_name: str, namespaces: Mapping[str, str], driver_namespace: str
    ) -> None:
        self._reader = FleetStatesReader(NamedActor(FLEET_STATES, driver_namespace))
        self.each = {
            name: AccountAnswers(
                NamedActor(live_actor_name, namespace), partial(self._reader.state, name), name
            )
            for name, namespace in namespaces.items()
        }
        """Of each strategy, by its name."""

    def begin(self) -> None:
        """Follow the status updates of all from now on."""
        self._reader.begin()
        for answers in self.each.values():
            answers.begin()

    async def health(self) -> Response:
        """Say whether anybody drives the strategies, and what each is at."""
        posted = await self._reader.newest()
        phases = {name: state.phase for name, state in posted.states.items()}
        return json_answer({"status": "ok", "strategies": phases})

    async def readiness(self) -> Response:
        """Say whether each strategy that this application trades can trade, and why not."""
        posted = await self._reader.newest()
        reasons = [posted.waiting] if posted.waiting else []
        told = {}
        for name, answers in self.each.items():
            is_ready, why = await _readiness(answers)
            told[name] = {"status": "ready" if is_ready else "not ready", "reasons": why}
            if name in posted.ours:
                reasons += [f"{name}: {reason}" for reason in why]
        return readiness_answer(not reasons, reasons, strategies=told)

    async def status(self) -> Response:
        """Return the status of each strategy, by its name."""
        told = [as_json(name) + b":" + await _status(each) for name, each in self.each.items()]
        return answer(b'{"strategies":{' + b",".join(told) + b"}}")

    async def metrics(self) -> Response:
        """Prometheus text of the strategies that this application trades."""
        posted = await self._reader.newest()
        texts = []
        for name in posted.ours:
            try:
                texts.append(await self.each[name].metrics())
            except LiveMarketUnavailable:
                # Those of the others are told, and that it is not ready.
                silent = posted.states[name]._replace(phase=RESTARTING)
                texts.append(supervisor_text(silent, name))
        return metrics_answer(merged(texts))

    async def told(self) -> FleetInput:
        """Return what the page of all shows."""
        posted = await self._reader.newest()
        return FleetInput(
            {name: await input_or_reason(answers) for name, answers in self.each.items()},
            posted.ours,
            posted.waiting,
        )


def build_strategies_api(
    live_actor_name: str, namespaces: Mapping[str, str], driver_namespace: str
) -> FastAPI:
    """Return the HTTP routes of strategies as an ASGI app, which needs a connection to Ray alone.

    Parameters
    ----------
    live_actor_name
        Name of each live market's actor.
    namespaces
        Ray namespace of each strategy's actors, by its name.
    driver_namespace
        Of the driver's own actors, `FleetStates` among them.
    """
    all_of_them = StrategiesAnswers(live_actor_name, namespaces, driver_namespace)
    each = all_of_them.each

    @asynccontextmanager
    async def following(_: FastAPI) -> AsyncIterator[None]:
        all_of_them.begin()
        yield

    api = new_api(following)

    def unknown(name: str) -> Response:
        reason = f"there is no strategy {name}: the strategies are {', '.join(each)}"
        return json_answer({"status": "unknown", "reason": reason}, status_code=404)

    @api.get("/health", responses=ANSWERS)
    async def health() -> Response:
        """Whether anybody drives the strategies, and what each is at."""
        return await all_of_them.health()

    @api.get("/ready", responses=ANSWERS)
    async def ready() -> Response:
        """Whether each strategy that this application trades can trade, and why not."""
        return await all_of_them.readiness()

    @api.get("/ready/{strategy}", responses=_NAMED)
    async def ready_one(strategy: str) -> Response:
        """Whether one strategy can trade, and why not."""
        if strategy not in each:
            return unknown(strategy)
        return readiness_answer(*await each[strategy].readiness())

    @api.get("/status", responses=ANSWERS)
    async def status() -> Response:
        """Return the status of each strategy, by its name."""
        return await all_of_them.status()

    @api.get("/status/{strategy}", responses=_NAMED)
    async def status_one(strategy: str) -> Response:
        """Account, positions, market, feed, learner and versions of one strategy."""
        return answer(await each[strategy].status()) if strategy in each else unknown(strategy)

    @api.get("/metrics", responses=METRICS)
    async def metrics() -> Response:
        """Prometheus text of the strategies that this application trades."""
        return await all_of_them.metrics()

    # All of them side by side.
    viewers = Viewers()
    add_document(api, STRATEGIES, PageStream(all_of_them.told, FleetEditions(), viewers))

    for name, answers in each.items():
        add_control(api, answers.command, name)
        # The page of each, and all that a single account has, below its name.
        api.mount(f"/{name}", account_api(answers, viewers))
    return api


def build_strategies_app(
    live_actor_name: str,
    namespaces: Mapping[str, str],
    driver_namespace: str,
    resources: Mapping[str, float] | None = None,
) -> serve.Application:
    """Return the Serve application of `build_strategies_api`, for `ray.serve.run`."""

    def build() -> FastAPI:
        return build_strategies_api(live_actor_name, namespaces, driver_namespace)

    return service_of(build, resources)


_NAMED = {**ANSWERS, 404: {**ANSWERS[503], "description": "There is no such strategy"}}


async def _readiness(answers: AccountAnswers) -> tuple[bool, list[str]]:
    """As it answers; that nobody does is a reason."""
    try:
        return await answers.readiness()
    except LiveMarketUnavailable as error:
        return False, [str(error)]


async def _status(answers: AccountAnswers) -> bytes:
    try:
        return await answers.status()
    except LiveMarketUnavailable as error:
        return as_json({"phase": "unavailable", "reason": str(error)})
