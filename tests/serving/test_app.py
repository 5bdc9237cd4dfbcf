import asyncio
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import ray
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from ray import serve

from tests.ports import free_port
from tests.waits import WAIT_S
from trading.live.metrics import AccountFigures, TradingMetrics
from trading.live.status_updates import INTERVAL_S, StatusPublisher, StatusUpdate
from trading.serving.app import SupervisorReader, build_api, build_app
from trading.serving.live_market import LiveMarketUnavailable, StatusReader
from trading.serving.supervisor import RESTARTING, STANDBY, TRADING, SupervisorState

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

NAMESPACE = "test-serving"
NAME = "live-market"


class LiveMarketDouble:
    """A real actor with the live market's status updates and settable answers."""

    def __init__(self, trades: int = 0, reasons: tuple[str, ...] = ()) -> None:
        self.trades = trades
        self.reasons = reasons
        self.asked = 0
        self.publisher = StatusPublisher(self.edition)

    def next_update(self, after: int, timeout_s: float) -> StatusUpdate | None:
        self.asked += 1
        return self.publisher.after(after, timeout_s)

    def edition(self) -> tuple[bool, list[str], dict[str, Any], bytes]:
        if self.trades < 0:
            raise RuntimeError("the key is hunter2")
        account = {"trades": self.trades, "equity": math.nan}
        status = {"account": account, "symbols": ("SPY",), "process": os.getpid()}
        metrics = TradingMetrics()
        metrics.update_account(AccountFigures(trades=self.trades))
        return not self.reasons, list(self.reasons), status, metrics.text()

    def questions(self) -> int:
        return self.asked

    def trade(self) -> None:
        self.trades += 1
        self.publisher.bar()


class SilentMarket:
    """A live market that never answers."""

    async def next_update(self, after: int, timeout_s: float) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    started: list[Any] = []

    def start_actor(kind: type, *args: object, **options: Any) -> Any:
        named = ray.remote(kind).options(
            name=NAME, namespace=NAMESPACE, num_cpus=0, **{"max_concurrency": 8, **options}
        )
        actor = named.remote(*args)
        started.append(actor)
        ray.get(actor.__ray_ready__.remote())
        return actor

    yield start_actor
    kill(*started)


def kill(*actors: Any) -> None:
    """Kill `actors` for good and wait until their name is free again."""
    for actor in actors:
        ray.kill(actor)
    alive = {"name": NAME, "namespace": NAMESPACE}
    wait_until(lambda: alive not in ray.util.list_named_actors(all_namespaces=True))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"


def app() -> FastAPI:
    return build_api(NAME, NAMESPACE)


async def get(api: FastAPI, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(transport=transport, base_url="http://trading") as client:
        return await client.get(path)


def answer(api: FastAPI, path: str) -> httpx.Response:
    return asyncio.run(get(api, path))


def test_health_is_ok_while_the_actor_answers(start: Callable[..., Any]) -> None:
    start(LiveMarketDouble)
    response = answer(app(), "/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/health", "/ready", "/status", "/metrics"])
def test_without_an_actor_every_route_says_so(path: str) -> None:
    response = answer(app(), path)
    assert response.status_code == 503
    assert response.json() == {
        "status": "unavailable",
        "reason": "no actor named 'live-market' in namespace 'test-serving'",
    }


def test_an_actor_that_does_not_answer_in_time_is_not_healthy(start: Callable[..., Any]) -> None:
    start(SilentMarket)
    response = answer(app(), "/health")
    assert response.status_code == 503
    assert response.json()["reason"] == "no answer to next_update within 4 s"


def test_ready_when_there_is_no_reason_against(start: Callable[..., Any]) -> None:
    start(LiveMarketDouble)
    response = answer(app(), "/ready")
    assert (response.status_code, response.json()) == (200, {"status": "ready", "reasons": []})


def test_not_ready_names_the_reasons(start: Callable[..., Any]) -> None:
    start(LiveMarketDouble, 0, ("feed is not connected",))
    response = answer(app(), "/ready")
    assert response.status_code == 503
    assert response.json() == {"status": "not ready", "reasons": ["feed is not connected"]}


def test_status_is_the_actors_own_with_null_for_nan(start: Callable[..., Any]) -> None:
    start(LiveMarketDouble, 3)
    response = answer(app(), "/status")
    assert response.status_code == 200
    body = response.json()
    assert body["account"] == {"trades": 3, "equity": None}
    assert body["symbols"] == ["SPY"]


def test_an_actor_that_cannot_describe_itself_is_not_healthy(start: Callable[..., Any]) -> None:
    start(LiveMarketDouble, -1)
    response = answer(app(), "/status")
    assert response.status_code == 503
    assert response.json()["reason"] == "it answers without a status update: see its log"
    assert "hunter2" not in response.text


async def ask_many(api: FastAPI, times: int) -> list[int]:
    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(transport=transport, base_url="http://trading") as client:
        paths = ("/health", "/ready", "/status", "/metrics")
        return [(await client.get(paths[i % 4])).status_code for i in range(times)]


def test_no_request_asks_the_actor(start: Callable[..., Any]) -> None:
    actor = start(LiveMarketDouble, 1)
    began = time.monotonic()
    assert set(asyncio.run(ask_many(app(), 400))) == {200}
    editions = (time.monotonic() - began) / INTERVAL_S
    # One question for each edition, whatever is asked for.
    assert ray.get(actor.questions.remote()) <= editions + 3


def test_what_a_bar_changed_is_told_without_being_asked(start: Callable[..., Any]) -> None:
    actor = start(LiveMarketDouble, 1)
    api = app()

    async def until_two() -> None:
        assert (await get(api, "/status")).json()["account"]["trades"] == 1
        await actor.trade.remote()
        while (await get(api, "/status")).json()["account"]["trades"] != 2:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(until_two(), WAIT_S))


def test_an_openapi_document_is_served(start: Callable[..., Any]) -> None:
    start(LiveMarketDouble)
    document = answer(app(), "/openapi.json").json()
    assert set(document["paths"]) >= {"/health", "/ready", "/status", "/metrics"}


def test_metrics_are_prometheus_text(start: Callable[..., Any]) -> None:
    start(LiveMarketDouble, 5)
    response = answer(app(), "/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = {f.name: f for f in text_string_to_metric_families(response.text)}
    assert families["trading_bot_trades"].samples[0].value == 5


def test_a_killed_actor_is_unavailable_until_it_has_a_successor(
    start: Callable[..., Any],
) -> None:
    api = app()
    first = start(LiveMarketDouble, 1)
    assert answer(api, "/status").json()["account"]["trades"] == 1
    kill(first)
    assert answer(api, "/health").status_code == 503
    start(LiveMarketDouble, 2)
    assert answer(api, "/status").json()["account"]["trades"] == 2


def test_a_successor_that_is_there_already_answers_at_once(start: Callable[..., Any]) -> None:
    api = app()
    first = start(LiveMarketDouble, 1)
    answer(api, "/health")
    kill(first)
    start(LiveMarketDouble, 2)
    assert answer(api, "/status").json()["account"]["trades"] == 2


def test_an_actor_that_ray_restarts_is_answered_by_again(start: Callable[..., Any]) -> None:
    api = app()
    actor = start(LiveMarketDouble, 1, max_restarts=-1)
    before = answer(api, "/status").json()["process"]
    ray.kill(actor, no_restart=False)
    # The killed process may still answer a question or two.
    wait_until(lambda: answer(api, "/status").json().get("process", before) != before)
    assert answer(api, "/health").status_code == 200
    assert answer(api, "/status").json()["account"]["trades"] == 1


class SupervisorDouble(SupervisorReader):
    """A supervisor with a settable answer; None: it has not answered for a while."""

    def __init__(self, state: SupervisorState | None) -> None:
        super().__init__()
        self.says = state

    async def newest(self) -> SupervisorState:
        if self.says is None:
            raise LiveMarketUnavailable("the supervisor gives no answer")
        return self.says


def supervised(state: SupervisorState | None) -> FastAPI:
    return build_api(NAME, NAMESPACE, SupervisorDouble(state))


@pytest.mark.parametrize("phase", [STANDBY, RESTARTING])
def test_without_a_live_market_the_supervisor_answers(phase: str) -> None:
    api = supervised(SupervisorState(phase, "because", leased=False, failures=2))
    health, ready, status = (answer(api, path) for path in ("/health", "/ready", "/status"))
    assert (health.status_code, health.json()) == (200, {"status": phase})
    assert ready.status_code == 503
    assert ready.json() == {"status": "not ready", "reasons": ["because"]}
    assert (status.status_code, status.json()["phase"]) == (200, phase)
    assert status.json()["supervisor"]["failures"] == 2
    metrics = answer(api, "/metrics")
    assert metrics.status_code == 200
    assert "trading_bot_ready 0.0" in metrics.text
    assert "trading_bot_application_failures_total 2.0" in metrics.text


def test_while_it_trades_the_live_market_answers(start: Callable[..., Any]) -> None:
    start(LiveMarketDouble, 3)
    api = supervised(SupervisorState(TRADING, "", leased=True, failures=1))
    assert answer(api, "/health").json() == {"status": "ok"}
    assert answer(api, "/ready").status_code == 200
    status = answer(api, "/status").json()
    assert status["account"]["trades"] == 3
    assert status["supervisor"] == {"phase": TRADING, "reason": "", "leased": True, "failures": 1}
    families = {
        f.name: f.samples[0].value
        for f in text_string_to_metric_families(answer(api, "/metrics").text)
        if f.samples
    }
    assert families["trading_bot_trades"] == 3
    assert families["trading_bot_lease_held"] == 1
    assert families["trading_bot_application_failures"] == 1


def test_either_keeps_the_service_healthy(start: Callable[..., Any]) -> None:
    trades = SupervisorState(TRADING, "", leased=True, failures=0)
    assert answer(supervised(None), "/health").status_code == 503
    assert answer(supervised(trades), "/health").status_code == 200
    assert answer(supervised(trades), "/ready").status_code == 503
    start(LiveMarketDouble)
    assert answer(supervised(None), "/health").status_code == 200
    assert answer(supervised(None), "/ready").status_code == 503


def test_an_app_follows_the_status_updates_before_anybody_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    followed = []

    async def follow(paper: StatusReader) -> None:
        followed.append(paper)

    monkeypatch.setattr(StatusReader, "_follow", follow)

    async def begin() -> None:
        api = app()
        async with api.router.lifespan_context(api):
            await asyncio.sleep(0)

    asyncio.run(begin())
    assert len(followed) == 1


def test_served_by_ray_serve_it_answers_over_http(start: Callable[..., Any]) -> None:
    start(LiveMarketDouble, 4)
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(build_app(NAME, NAMESPACE), name="trading", route_prefix="/")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S) as client:
            # Two replicas answer by turns, and each hears of the actor for itself; a busy machine
            # may pass one over for a while.
            for path in ("/ready", "/status", "/metrics"):
                wait_until(lambda path=path: all(client.get(path).is_success for _ in range(50)))
            assert client.get("/health").json() == {"status": "ok"}
            assert client.get("/status").json()["account"]["trades"] == 4
            metrics = client.get("/metrics")
            assert "trading_bot_trades_total 4.0" in metrics.text
            assert metrics.headers["content-type"].startswith("text/plain; version=")
            assert client.get("/nowhere").status_code == 404
    finally:
        serve.shutdown()
