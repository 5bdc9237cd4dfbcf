"""The HTTP service of several strategies, by doubles of their actors and the driver's."""

import asyncio
import math
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter, ValidationError

from tests.waits import WAIT_S
from trading.config.fields import StrategyName
from trading.live.metrics import AccountFigures, TradingMetrics
from trading.live.status_updates import StatusUpdate, as_json
from trading.serving import page_stream, strategies
from trading.serving.exposition import merged, supervisor_text
from trading.serving.fleet_editions import FleetEditions, FleetInput
from trading.serving.live_market import LiveMarketGone
from trading.serving.page_stream import PageInput, merge_patch
from trading.serving.strategies import build_strategies_api
from trading.serving.strategy_states import FLEET_STATES, FleetState, FleetStates
from trading.serving.supervisor import RESTARTING, STANDBY, TRADING, SupervisorState

TRADES = SupervisorState(TRADING, "", leased=True, failures=0)
FAILED = SupervisorState(RESTARTING, "failed 2 times: no disk", leased=True, failures=2)
NAMES = {"index": "ns-index", "careful": "ns-careful"}


class Actors:
    """What the actors of a cluster would answer, by their namespace."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.posted: FleetState | None = FleetState(dict.fromkeys(NAMES, TRADES), tuple(NAMES))
        self.reasons: dict[str, tuple[str, ...]] = {}
        self.gone: set[str] = set()
        self.commanded: list[tuple[str, Any]] = []
        monkeypatch.setattr(strategies, "NamedActor", self.market)

    def market(self, actor: str, namespace: str) -> Any:
        actors = self

        class Market:
            async def ask(self, method: str, timeout_s: float, *arguments: Any) -> Any:
                return await actors.ask(actor, namespace, method, arguments)

        return Market()

    async def ask(self, actor: str, namespace: str, method: str, arguments: tuple[Any, ...]) -> Any:
        await asyncio.sleep(0)
        if actor == FLEET_STATES:
            return self.posted
        if namespace in self.gone:
            raise LiveMarketGone(f"no actor in {namespace}")
        if method == "control_digest":
            return None
        assert method == "next_update"
        number = arguments[0]
        if number:
            await asyncio.Event().wait()
        name = namespace.removeprefix("ns-")
        metrics = TradingMetrics(name)
        metrics.update_account(AccountFigures(trades=len(name)))
        reasons = self.reasons.get(name, ())
        status = as_json({"account": {"id": name, "equity": math.nan}})
        return 1, not reasons, reasons, status, metrics.text()

    @property
    def api(self) -> FastAPI:
        return build_strategies_api("live-market", NAMES, "ns-all")


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> Actors:
    return Actors(monkeypatch)


def ask(api: FastAPI, path: str, method: str = "GET") -> httpx.Response:
    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(app=api)
        async with httpx.AsyncClient(transport=transport, base_url="http://trading") as client:
            return await client.request(method, path)

    return asyncio.run(request())


def test_health_tells_what_each_strategy_is_at(actors: Actors) -> None:
    actors.posted = FleetState({"index": TRADES, "careful": FAILED}, tuple(NAMES))
    response = ask(actors.api, "/health")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "strategies": {"index": "trading", "careful": "restarting"},
    }


def test_health_fails_when_the_driver_is_silent(actors: Actors) -> None:
    actors.posted = None
    response = ask(actors.api, "/health")
    assert response.status_code == 503
    assert response.json()["reason"] == "the driver gives no answer: it is silent"


def test_ready_says_which_strategy_is_not(actors: Actors) -> None:
    assert ask(actors.api, "/ready").status_code == 200
    actors.reasons["careful"] = ("warming up",)
    response = ask(actors.api, "/ready")
    assert response.status_code == 503
    assert response.json() == {
        "status": "not ready",
        "reasons": ["careful: warming up"],
        "strategies": {
            "index": {"status": "ready", "reasons": []},
            "careful": {"status": "not ready", "reasons": ["warming up"]},
        },
    }
    assert ask(actors.api, "/ready/index").status_code == 200
    assert ask(actors.api, "/ready/careful").json()["reasons"] == ["warming up"]


def test_a_strategy_that_fails_is_told_and_the_other_answers(actors: Actors) -> None:
    actors.posted = FleetState({"index": TRADES, "careful": FAILED}, tuple(NAMES))
    actors.gone.add("ns-careful")
    assert ask(actors.api, "/ready").json()["reasons"] == [f"careful: {FAILED.reason}"]
    told = ask(actors.api, "/status").json()["strategies"]
    assert told["index"]["account"] == {"id": "index", "equity": None}
    assert told["careful"]["supervisor"]["failures"] == 2
    assert ask(actors.api, "/status/index").json()["account"]["id"] == "index"


def test_a_replica_without_a_strategy_says_so_and_is_not_ready(actors: Actors) -> None:
    taken = SupervisorState(STANDBY, "traded by host a", leased=False, failures=0)
    waiting = "no strategy is free: 2 of 2 taken"
    actors.posted = FleetState(dict.fromkeys(NAMES, taken), (), waiting)
    response = ask(actors.api, "/ready")
    assert (response.status_code, response.json()["reasons"]) == (503, [waiting])
    assert ask(actors.api, "/health").status_code == 200
    assert ask(actors.api, "/metrics").text == ""


def test_a_strategy_that_another_replica_trades_does_not_make_this_one_unready(
    actors: Actors,
) -> None:
    taken = SupervisorState(STANDBY, "traded by host a", leased=False, failures=0)
    actors.posted = FleetState({"index": TRADES, "careful": taken}, ("index",))
    response = ask(actors.api, "/ready")
    assert response.status_code == 200
    assert response.json()["strategies"]["careful"]["reasons"] == ["traded by host a"]
    assert 'strategy="careful"' not in ask(actors.api, "/metrics").text


@pytest.mark.parametrize("path", ["/status/nobody", "/ready/nobody"])
def test_an_unknown_strategy_is_answered_by_those_there_are(actors: Actors, path: str) -> None:
    response = ask(actors.api, path)
    assert response.status_code == 404
    assert response.json()["reason"].endswith("the strategies are index, careful")


def test_every_sample_has_the_label_and_every_family_one_description(actors: Actors) -> None:
    text = ask(actors.api, "/metrics").text
    assert text.count("# TYPE trading_bot_trades_total counter") == 1
    families = {each.name: each for each in text_string_to_metric_families(text)}
    trades = {
        sample.labels["strategy"]: sample.value
        for sample in families["trading_bot_trades"].samples
        if sample.name.endswith("_total")
    }
    assert trades == {"index": 5.0, "careful": 7.0}
    assert all("strategy" in s.labels for each in families.values() for s in each.samples)


def test_where_a_live_market_is_silent_its_strategy_is_not_ready(actors: Actors) -> None:
    actors.gone.add("ns-careful")
    lines = ask(actors.api, "/metrics").text.splitlines()
    assert 'trading_bot_ready{strategy="careful"} 0.0' in lines
    assert 'trading_bot_trades_total{strategy="index"} 5.0' in lines


def test_commands_go_to_the_strategy_in_their_path(actors: Actors) -> None:
    refused = ask(actors.api, "/control/index/halt", "POST")
    assert refused.status_code == 403 and "CONTROL_TOKEN" in refused.json()["said"]
    assert ask(actors.api, "/control/halt", "POST").status_code in (404, 405)
    actors.posted = FleetState({"index": TRADES, "careful": FAILED}, tuple(NAMES))
    idle = ask(actors.api, "/control/careful/halt", "POST")
    assert (idle.status_code, idle.json()["reason"]) == (503, FAILED.reason)


def test_without_a_strategy_the_metrics_are_as_they_were() -> None:
    assert b"strategy=" not in TradingMetrics().text()
    assert b"strategy=" not in supervisor_text(TRADES)
    assert b'trading_bot_lease_held{strategy="a"} 1.0' in supervisor_text(TRADES, "a")


def test_texts_are_merged_by_family() -> None:
    one = b'# HELP a About.\n# TYPE a gauge\na{s="1"} 1\n# HELP b About.\n# TYPE b gauge\nb 2\n'
    two = b'# HELP a About.\n# TYPE a gauge\na{s="2"} 3\n'
    assert merged([one, two]) == (
        b'# HELP a About.\n# TYPE a gauge\na{s="1"} 1\na{s="2"} 3\n'
        b"# HELP b About.\n# TYPE b gauge\nb 2\n"
    )


def test_what_is_posted_too_long_ago_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("trading.serving.strategy_states.time.monotonic", lambda: now[0])
    fleet_states, posted = FleetStates(), FleetState({"index": TRADES}, ("index",))
    assert fleet_states.newest() is None
    fleet_states.post(posted)
    assert fleet_states.newest() == posted
    now[0] += 31.0
    assert fleet_states.newest() is None


def test_each_strategy_has_its_page_and_all_else_of_an_account_below_its_name(
    actors: Actors,
) -> None:
    together = ask(actors.api, "/").text
    assert '<base href="/">' in together and "page/strategies.js" in together
    assert ask(actors.api, "/page/strategies.js").status_code == 200
    page = ask(actors.api, "/index/")
    assert page.status_code == 200 and '<base href="/index/">' in page.text
    assert ask(actors.api, "/careful/status").json()["account"]["id"] == "careful"
    assert ask(actors.api, "/careful/ready").status_code == 200


def update(number: int, **day: Any) -> StatusUpdate:
    account = {"id": "index", "equity": 101.0, "paid_in": 100.0, "trading_state": "ACTIVE"}
    status = {"process": 7, "account": account, "trader": "policy"}
    return StatusUpdate(number, True, (), as_json(status), b"", as_json(day))


def test_side_by_side_only_what_changed_is_told_again() -> None:
    editions = FleetEditions()
    one, two = PageInput(update(1, bars={"1": [60, 100.0]}), TRADES._asdict(), "index"), "no actor"
    first = editions(FleetInput({"index": one, "careful": two}, ("index",), ""))
    again = FleetEditions()(FleetInput({"index": one, "careful": two}, ("index",), ""))
    assert again == first, "another replica names the same update otherwise"
    later = one._replace(update=update(2, bars={"1": [60, 100.0], "2": [120, 101.0]}))
    second = editions(FleetInput({"index": later, "careful": two}, ("index",), ""))
    assert second.id != first.id
    patch = merge_patch(first.content, second.content)
    assert patch == {"strategies": {"index": {"bars": {"2": [120, 101.0]}}}}
    shown = second.content["strategies"]
    assert shown["careful"] == {"gone": "no actor", "ours": False}
    assert shown["index"]["account"]["equity"] == 101.0 and shown["index"]["phase"] == "trading"


def test_side_by_side_a_strategy_that_waits_says_why() -> None:
    waits = PageInput(None, FAILED._asdict(), "index")
    content = FleetEditions()(FleetInput({"index": waits}, (), "none is free")).content
    assert content["waiting"] == "none is free"
    told = content["strategies"]["index"]
    assert (told["phase"], told["reason"]) == ("restarting", FAILED.reason)
    assert "account" not in told


def test_a_name_whose_page_could_not_be_reached_is_refused_by_the_settings(actors: Actors) -> None:
    """And no other of those that the service has an address of."""

    def is_allowed(name: str) -> bool:
        try:
            TypeAdapter(StrategyName).validate_python(name)
        except ValidationError:
            return False
        return True

    def is_reached(name: str) -> bool:
        actors.posted = FleetState({name: TRADES}, (name,))
        api = build_strategies_api("live-market", {name: f"ns-{name}"}, "ns-all")
        asked = [ask(api, f"/{name}/{path}") for path in ("", "health", "page/style.css")]
        return all(answer.status_code == 200 for answer in asked)

    paths = [getattr(route, "path", "") for route in actors.api.routes]
    names = {path.split("/")[1] for path in paths if path.split("/")[1].isalnum()}
    assert {"status", "ready", "page", "health", "metrics", "events"} <= names
    assert {name: is_allowed(name) for name in names} == {name: is_reached(name) for name in names}


def test_who_looks_at_one_page_of_a_replica_counts_at_all_of_them(
    actors: Actors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_stream, "MOST_VIEWERS", 1)
    api = actors.api

    async def look() -> None:
        is_told, leaves = asyncio.Event(), asyncio.Event()

        async def receive() -> Any:
            await leaves.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message.get("body"):
                is_told.set()

        scope = {
            "type": "http",
            "asgi": {"spec_version": "2.1"},
            "method": "GET",
            "path": "/index/events",
            "root_path": "",
            "query_string": b"",
            "headers": [],
        }
        looking = asyncio.create_task(api(scope, receive, send))
        await asyncio.wait_for(is_told.wait(), WAIT_S)
        transport = httpx.ASGITransport(app=api)
        async with httpx.AsyncClient(transport=transport, base_url="http://trading") as client:
            for path in ("/events", "/index/events", "/careful/events"):
                answer = await client.get(path)
                assert answer.status_code == 503 and "look at it" in answer.json()["reason"]
            assert (await client.get("/ready")).status_code == 200
        leaves.set()
        await asyncio.wait_for(looking, WAIT_S)

    asyncio.run(look())
