"""The page of several strategies, in a real browser."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.serving.browsing import Called, Server, Watched, trading_in
from trading.serving import strategies
from trading.serving.live_market import NamedActor
from trading.serving.strategies import build_strategies_api
from trading.serving.strategy_states import FLEET_STATES, FleetState
from trading.serving.supervisor import STANDBY, TRADING, SupervisorState

pytestmark = pytest.mark.slow

NAMES = ("index", "careful", "frozen")
TRADES = SupervisorState(TRADING, "", leased=True, failures=0)
WAITS = SupervisorState(STANDBY, "another application trades it", leased=False, failures=0)


class Fleet(NamedActor):
    """What the driver of the strategies posted; None: it is silent."""

    def __init__(self) -> None:
        super().__init__(FLEET_STATES, "")
        states = {"index": TRADES, "careful": TRADES, "frozen": WAITS}
        self.posted: FleetState | None = FleetState(states, NAMES[:2])

    async def ask(self, method: str, timeout_s: float, *arguments: object) -> Any:
        await asyncio.sleep(0)
        return self.posted


class Scene:
    """Two strategies that trade, one that another application trades, and who serves them."""

    def __init__(self, fleet: Fleet, markets: dict[str, Called]) -> None:
        self.fleet, self.markets = fleet, markets
        namespaces = {name: name for name in NAMES}
        self.server = Server(lambda: build_strategies_api("live-market", namespaces, ""))

    def status(self, name: str) -> dict[str, Any]:
        live = self.markets[name].live
        assert live is not None
        return live.status()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        markets = {
            name: Called(
                stack.enter_context(
                    trading_in(tmp_path_factory.mktemp(name), f"account.id={name}", *more)
                )
            )
            for name, *more in [("index",), ("careful", "seed=8", "account.max_positions=1")]
        }
        fleet = Fleet()
        # The third is never shown: its supervisor says that it waits.
        found = {**markets, "frozen": markets["careful"]}

        def actor(name: str, namespace: str) -> NamedActor:
            return fleet if name == FLEET_STATES else found[namespace]

        patch.setattr(strategies, "NamedActor", actor)
        made = Scene(fleet, markets)
        yield made
        made.server.end()


def card(watched: Watched, name: str) -> Any:
    return watched.page.locator(f"#strategy-{name}")


def test_all_strategies_are_seen_side_by_side_and_follow_every_bar(
    scene: Scene, watched: Watched
) -> None:
    page = watched.page
    page.goto(scene.server.url)
    expect(page.locator(".strategy")).to_have_count(len(NAMES))
    for name in NAMES[:2]:
        account = scene.status(name)["account"]
        shown = card(watched, name)
        expect(shown).to_contain_text("ACTIVE")
        expect(shown).to_contain_text(f"paid in ${account['paid_in']:,.0f}")
        for figure in ("Equity", "P&L today", "Drawdown", "Open positions", "Champion", "Learner"):
            expect(shown.locator("dt", has_text=figure).first).to_be_visible()
        expect(page.locator("#lines .u-legend")).to_contain_text(name)
    expect(card(watched, "frozen")).to_contain_text("STANDBY")
    expect(card(watched, "frozen")).to_contain_text("another application trades it")
    expect(page.locator("#lines .u-legend")).not_to_contain_text("frozen")
    # Side by side where there is room.
    tops = [card(watched, name).bounding_box()["y"] for name in NAMES]
    assert max(tops) - min(tops) < 1.0
    market = card(watched, "index").locator(".facts div", has_text="Market")
    before = market.inner_text()
    expect(market).not_to_have_text(before)
    assert watched.errors == []


def test_one_click_leads_to_one_of_them_and_back(scene: Scene, watched: Watched) -> None:
    page = watched.page
    page.goto(scene.server.url)
    card(watched, "careful").get_by_role("link", name="careful").press("Enter")
    expect(page).to_have_url(f"{scene.server.url}careful/")
    expect(page.locator(".brand .account")).to_have_text("careful")
    expect(page.locator("#equity .uplot")).to_have_count(2)
    page.get_by_role("link", name="all strategies").click()
    expect(page).to_have_url(scene.server.url)
    expect(page.locator(".strategy")).to_have_count(len(NAMES))
    assert watched.errors == []


def test_what_befalls_one_strategy_or_the_driver_is_said_in_words(
    scene: Scene, watched: Watched
) -> None:
    page = watched.page
    page.goto(scene.server.url)
    expect(card(watched, "index")).to_contain_text("ACTIVE")
    market, fleet = scene.markets["careful"], scene.fleet
    live, market.live = market.live, None
    try:
        expect(card(watched, "careful")).to_contain_text("NO NEWS")
        expect(card(watched, "careful")).to_contain_text("dead or restarting")
        expect(card(watched, "index")).to_contain_text("ACTIVE")
    finally:
        market.live = live
    expect(card(watched, "careful")).to_contain_text("ACTIVE")
    posted = fleet.posted
    assert posted is not None
    fleet.posted = posted._replace(waiting="no strategy is free: 3 of 3 taken")
    try:
        expect(page.locator(".banner")).to_contain_text("no strategy is free")
    finally:
        fleet.posted = posted
    expect(page.locator(".banner")).not_to_contain_text("no strategy is free")
    scene.server.end()
    expect(page.locator(".banner")).to_contain_text("no connection to the server")
    scene.server.begin()
    expect(page.locator("#connection")).to_contain_text("live")
    # What a browser notes of a connection that is refused.
    assert all("ERR_" in each for each in watched.errors)


def test_one_that_is_not_ready_does_not_look_as_if_it_traded(
    scene: Scene, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = scene.markets["careful"]
    ask = market.ask

    async def unready(method: str, timeout_s: float, *arguments: object) -> Any:
        told = await ask(method, timeout_s, *arguments)
        if method == "next_update" and told is not None:
            told = (told[0], False, ("its feed is silent",), *told[3:])
        return told

    watched.page.goto(scene.server.url)
    pill = card(watched, "careful").locator(".pill")
    expect(pill).to_have_class("pill good")
    monkeypatch.setattr(market, "ask", unready)
    expect(pill).to_have_class("pill warn")
    expect(pill).to_contain_text("not ready")
    expect(card(watched, "careful")).to_contain_text("Not ready: its feed is silent")
    expect(card(watched, "index").locator(".pill")).to_have_class("pill good")


def test_cash_that_is_moved_is_no_gain_and_no_loss_of_a_line(
    scene: Scene, watched: Watched
) -> None:
    """1,000 USD rise by a tenth, then as much as it is worth is paid in, and all stands still."""
    page = watched.page
    page.goto(scene.server.url)
    each = {
        "account": {"equity": 2_200.0, "paid_in": 2_100.0},
        "profit": 100.0,
        "time": "2026-01-06T15:02:00+00:00",
        "moves": {"5": [1_767_711_660, 1_100.0, 1_100.0]},
        "bars": {"0": [1_767_711_600, 1_100.0], "1": [1_767_711_720, 2_200.0]},
        "sessions": {"2026-01-05": [1_767_646_800, 1_100.0]},
    }
    for is_today in (True, False):
        _, worth = page.evaluate(
            """async ([each, isToday]) => {
                const { src } = document.querySelector("script[type=module]");
                return (await import(src)).line(each, isToday);
            }""",
            [each, is_today],
        )
        assert worth == pytest.approx([100 * 100 / 2_100] * 2)


@pytest.mark.parametrize(("theme", "width"), [("light", 1400), ("dark", 360)])
def test_it_is_accessible_in_both_themes_and_on_a_phone(
    scene: Scene, watched: Watched, theme: str, width: int
) -> None:
    page = watched.page
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    page.goto(scene.server.url)
    expect(page.locator("#lines .uplot")).to_have_count(1)
    expect(page.locator("html")).to_have_attribute("data-theme", theme)
    found = Axe().run(page).response["violations"]
    assert found == [], json.dumps(found, indent=1)
    fits = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert fits, "the page itself scrolls sideways"
    # By keyboard alone: past the head, then from one strategy to the next.
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    for _ in range(2):  # The two ranges.
        page.keyboard.press("Tab")
    for name in NAMES:
        page.keyboard.press("Tab")
        expect(card(watched, name).get_by_role("link")).to_be_focused()
    page.get_by_role("button", name="All sessions").click()
    expect(page.locator("#lines h2")).to_contain_text("what was paid in")
    assert watched.errors == []
