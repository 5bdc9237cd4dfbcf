"""The page of one account, in a real browser."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.serving.browsing import TOKEN, Called, Server, Watched, trading_in
from tests.waits import WAIT_S
from trading.envs.catalogue import CLOSE, HOLD
from trading.live.actor import LiveMarket as LiveMarketActor
from trading.live.status_updates import StatusUpdate, as_json
from trading.serving.app import SupervisorReader, build_api
from trading.serving.live_market import NamedActor
from trading.serving.supervisor import STANDBY, SupervisorState

pytestmark = pytest.mark.slow


def served(market: NamedActor, supervisor: SupervisorReader | None = None) -> Server:
    """The HTTP service of one account."""
    return Server(lambda: build_api("live-market", "", supervisor, market))


class Told(NamedActor):
    """A live market that tells one thing, again and again."""

    def __init__(self, update: StatusUpdate) -> None:
        super().__init__("live-market", "")
        self.update = update

    async def ask(self, method: str, timeout_s: float, *arguments: object) -> Any:
        await asyncio.sleep(0.1)
        self.update = self.update._replace(number=self.update.number + 1)
        return self.update


class StandsBy(SupervisorReader):
    """A supervisor that waits for the account's lease."""

    def begin(self) -> None:
        """There is no Serve to ask."""

    async def newest(self) -> SupervisorState:
        return SupervisorState(
            STANDBY, "another application holds the lease", leased=False, failures=0
        )


class Scene:
    """A live market that trades, and who serves it."""

    def __init__(self, live: LiveMarketActor) -> None:
        self.live = live
        self.market = Called(live)
        self.server = served(self.market)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with trading_in(tmp_path_factory.mktemp("page")) as live:
        made = Scene(live)
        yield made
        made.server.end()


def test_it_shows_the_account_and_what_every_bar_changes(scene: Scene, watched: Watched) -> None:
    page = watched.page
    page.goto(scene.server.url)
    expect(page.locator("#state")).to_contain_text("ACTIVE")
    expect(page.locator("#connection")).to_contain_text("live")
    expect(page.locator("#equity .uplot")).to_have_count(2)
    account = scene.live.status()["account"]
    expect(page.locator(".figures")).to_contain_text(f"paid in ${account['paid_in']:,.0f}")
    for name in ("delta", "theta", "spread", "fees", "other"):
        row = page.locator("#parts th", has_text=name).first
        expect(row).to_be_visible()
    expect(page.locator("#fills tbody tr").first).to_be_visible()
    expect(page.locator("#limits tbody tr")).to_have_count(len(scene.live.status()["limits"]))
    before = page.locator(".market").inner_text()
    expect(page.locator(".market")).not_to_have_text(before)
    assert watched.errors == []


def test_decisions_show_chances_mask_and_what_became_of_them(
    scene: Scene, watched: Watched
) -> None:
    page = watched.page
    page.goto(scene.server.url)
    row = page.locator("#decisions tbody tr").first
    expect(row).to_contain_text("%")
    actions = len(scene.live._activity.as_values()["actions"])
    expect(row.locator("summary")).to_contain_text(f"of {actions}")
    page.get_by_label("without those that hold").check()
    expect(page.locator("#decisions")).to_contain_text("filled, paper-")
    assert watched.errors == []


def test_the_chain_has_its_smile_and_term_structure(scene: Scene, watched: Watched) -> None:
    page = watched.page
    page.goto(scene.server.url)
    page.locator("#chain summary").click()
    expect(page.locator("#chain .uplot")).to_have_count(2)
    page.locator("#chain select").first.select_option("BBB")
    expect(page.locator("#chain caption")).to_contain_text("Chain of BBB")
    strikes = scene.live._trader.env.market("BBB").chain.columns.strike
    assert float(page.locator("#chain .scroll tbody th").first.inner_text()) in strikes
    assert watched.errors == []


def test_the_journal_is_searched_by_order_and_symbol(scene: Scene, watched: Watched) -> None:
    page = watched.page
    page.goto(scene.server.url)
    page.get_by_label("Order", exact=True).fill("paper-1")
    page.locator("#journal button[type=submit]").click()
    expect(page.locator("#journal tbody")).to_contain_text("paper-1")
    expect(page.locator("#journal tbody")).not_to_contain_text("paper-2 ")
    page.get_by_label("Order", exact=True).fill("")
    page.get_by_label("Symbol", exact=True).fill("AAA")
    page.get_by_label("Kind").select_option("order_filled")
    page.locator("#journal button[type=submit]").click()
    rows = page.locator("#journal tbody tr")
    expect(rows.first).to_contain_text("order filled")
    assert all("AAA" in text for text in rows.all_inner_texts())
    assert watched.errors == []


def test_sessions_end_when_the_exchange_closed_and_cash_that_is_moved_is_no_gain(
    scene: Scene, watched: Watched
) -> None:
    """A summer's session, a half-day, and as much paid in between as there was."""
    page = watched.page
    page.goto(scene.server.url)
    expect(page.locator("#equity .uplot")).to_have_count(2)
    summer, half, paid = 1_783_454_400, 1_795_802_400, 1_790_000_000
    sessions = {"2026-07-07": [summer, 1_000.0], "2026-11-27": [half, 2_100.0]}
    points = page.evaluate(
        """async ([sessions, moves]) => {
            const chart = await import(`${document.baseURI}page/chart.js`);
            return chart.scaledByMoves(chart.closes(sessions, NaN, 0), moves);
        }""",
        [sessions, {"5": [paid, 1_000.0, 1_000.0]}],
    )
    assert points == [[summer, 2_000.0], [half, 2_100.0]]
    shown = page.evaluate(
        """async (times) => {
            const { moment } = await import(`${document.baseURI}page/format.js`);
            return times.map(moment);
        }""",
        [summer, half],
    )
    assert [each[-8:-3] for each in shown] == ["16:00", "13:00"]
    page.get_by_role("button", name="All sessions").click()
    expect(page.locator("#equity h2")).to_contain_text("at the sessions")
    assert watched.errors == []


@pytest.mark.parametrize(
    ("points", "move", "worst"),
    [
        ([110e3, 85e3, 100e3, 10e3], [3, -90e3, 100e3], 85 / 110),
        ([100e3, 90e3, 100e3, 1e6], [3, 900e3, 100e3], 0.9),
        ([100e3, 90e3, 100e3, 1e6], [3, 900e3, None], 0.9),
        ([100e3, 0.0, 50e3, 50e3], [2, 50e3, 0.0], 1 / 3),
        ([100e3, 90e3, 90e3, 0.0], [3, -90e3, 90e3], 1.0),
    ],
    ids=["taken out", "paid in", "equity not known", "without worth", "all of it"],
)
def test_a_move_of_cash_leaves_the_drawdown_the_percent_that_it_was(
    scene: Scene, watched: Watched, points: list[float], move: list[float], worst: float
) -> None:
    page = watched.page
    page.goto(scene.server.url)
    drawdown = page.evaluate(
        """async ([points, move]) => {
            const { scaledByMoves } = await import(`${document.baseURI}page/chart.js`);
            const { curve } = await import(`${document.baseURI}page/equity.js`);
            return curve(scaledByMoves(points, { 5: move })).drawdown;
        }""",
        [list(enumerate(points, 1)), move],
    )
    assert min(drawdown) == pytest.approx(100 * (worst - 1))


def test_it_is_stopped_and_resumed_with_the_token_and_a_confirmation(
    scene: Scene, watched: Watched
) -> None:
    page = watched.page
    page.goto(scene.server.url)
    page.get_by_role("button", name="Halt…").press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    token = dialog.get_by_label("The owner's token")
    expect(token).to_be_focused()
    token.fill("not the token")
    token.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("the token is not the owner's")
    assert scene.live.status()["account"]["trading_state"] == "ACTIVE"
    token.fill(TOKEN)
    dialog.get_by_label("Why").fill("lunch")
    token.press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.locator("#state")).to_contain_text("HALTED")
    expect(page.locator(".banner")).to_contain_text("halt by page: lunch")
    assert scene.live.status()["account"]["trading_state"] == "HALTED"

    page.get_by_role("button", name="Resume…").click()
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Resume…").click()
    token.fill(TOKEN)
    dialog.get_by_role("button", name="Resume").click()
    expect(page.locator("#state")).to_contain_text("ACTIVE")

    page.get_by_role("button", name="Flatten…").click()
    token.fill(TOKEN)
    dialog.get_by_role("button", name="Flatten").click()
    expect(dialog).to_be_visible()
    dialog.get_by_role("checkbox").check()
    dialog.get_by_role("button", name="Flatten").click()
    expect(page.locator("#positions")).to_contain_text("Nothing is open.")
    page.get_by_role("button", name="Resume…").click()
    token.fill(TOKEN)
    dialog.get_by_role("button", name="Resume").click()
    expect(page.locator("#state")).to_contain_text("ACTIVE")
    # The browser itself notes an answer of 403.
    assert all("403" in each for each in watched.errors)


def test_it_says_when_the_server_or_the_live_market_is_gone_and_goes_on(
    scene: Scene, watched: Watched
) -> None:
    page = watched.page
    page.goto(scene.server.url)
    expect(page.locator("#connection")).to_contain_text("live")
    scene.server.end()
    expect(page.locator("#connection")).to_contain_text("no connection")
    expect(page.locator(".banner")).to_contain_text("no connection to the server")
    expect(page.locator("#state")).to_contain_text("when last heard")
    scene.server.begin()
    expect(page.locator("#connection")).to_contain_text("live")
    expect(page.locator(".banner")).not_to_contain_text("no connection")

    scene.market.live = None
    try:
        expect(page.locator("#connection")).to_contain_text("no live market")
        expect(page.locator(".banner")).to_contain_text("dead or restarting")
    finally:
        scene.market.live = scene.live
    expect(page.locator("#connection")).to_contain_text("live")
    before = page.locator(".market").inner_text()
    expect(page.locator(".market")).not_to_have_text(before)
    # What a browser notes of a connection that is refused.
    assert all("ERR_" in each for each in watched.errors)


def test_closed_suspended_halted_and_standing_by_are_said_in_words(
    scene: Scene, watched: Watched
) -> None:
    update = scene.live.next_update(0, WAIT_S)
    assert update is not None
    status = json.loads(update.status)
    status["market_open"] = False
    status["account"] |= {
        "trading_state": "HALTED",
        "trading_state_reason": "daily loss",
        "suspended": {"AAA": ["<img src=x onerror=alert(1)>"]},
        "restrictions": [{"cause": "daily_loss", "reason": "lost 6 %", "owner": "`resume`"}],
        "equity": None,
    }
    status["limits"]["max_delta_pct"] = {"limit": 200.0, "used": None}
    status["working_orders"] = [
        {
            "order_id": "paper-9",
            "underlying": "AAA",
            "strategy": "bull_call_debit",
            "intent": "open",
            "units": 3,
            "limit": -1.25,
            "step": 2,
            "steps": 4,
            "placed": status["market"]["time"],
            "age_s": 120.0,
            "reserved": 375.0,
            "legs": [{"symbol": "O:AAA260116C00100000", "ratio": -1}],
        }
    ]
    day = json.loads(update.day)
    newest = list(day["decisions"].values())[-1]
    for each in ("late", "masked", "refused", "waits"):
        newest.pop(each, None)
    newest |= {"ordered": 5, "filled": "paper-8"}
    ordered = day["actions"][5].replace("_", " ")
    day["decisions"] |= {"9998": newest | {"action": HOLD}, "9999": newest | {"action": CLOSE}}
    odd = update._replace(
        ready=False,
        reasons=("halted: daily loss",),
        status=as_json(status),
        day=as_json(day),
    )
    server = served(Told(odd))
    page = watched.page
    page.goto(server.url)
    banner = page.locator(".banner")
    for said in (
        "The market is closed",
        "Not ready: halted: daily loss",
        "daily loss: lost 6 %. To end it: `resume`",
        "AAA is suspended: <img src=x",
    ):
        expect(banner).to_contain_text(said)
    expect(page.locator("#state")).to_contain_text("HALTED")
    expect(page.locator(".figure").first).to_contain_text("–")  # noqa: RUF001
    expect(page.locator("#limits")).to_contain_text("not known: counts as used up")
    order = page.locator("#positions").get_by_role("row", name="open bull call debit")
    for said in ("1.25 credit", "2 of 4", "375.00"):
        expect(order).to_contain_text(said)
    outcomes = page.locator("#decisions .outcome")
    expect(outcomes.first).to_have_text(f"too late: {ordered} filled, paper-8")
    expect(outcomes.nth(1)).to_have_text(f"{ordered} filled, paper-8")

    waiting = served(Told(odd), StandsBy())
    page.goto(waiting.url)
    expect(banner).to_contain_text("standby: another application holds the lease")
    expect(page.locator("#main")).to_contain_text("No account is open yet.")
    assert watched.errors == []
    page.goto("about:blank")
    server.end()
    waiting.end()


@pytest.mark.parametrize(("theme", "width"), [("light", 1400), ("dark", 360)])
def test_it_is_accessible_in_both_themes_and_on_a_phone(
    scene: Scene, watched: Watched, theme: str, width: int
) -> None:
    page = watched.page
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    page.goto(scene.server.url)
    page.locator("#chain summary").click()
    expect(page.locator("#chain .uplot")).to_have_count(2)
    expect(page.locator("html")).to_have_attribute("data-theme", theme)
    found = Axe().run(page).response["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert serious == [], json.dumps(serious, indent=1)
    fits = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert fits, "the page itself scrolls sideways"
    page.get_by_role("button", name="theme").click()
    other = "dark" if theme == "light" else "light"
    expect(page.locator("html")).to_have_attribute("data-theme", other)
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", other)
    assert watched.errors == []


def test_nobody_who_looks_asks_the_live_market(scene: Scene) -> None:
    """Editions are asked for by the replica alone, and a chain once a bar."""
    with httpx.Client(base_url=scene.server.url, timeout=WAIT_S) as client:
        scene.market.asked.clear()
        for _ in range(100):
            assert client.get("/").is_success
            assert client.get("/journal?limit=1").is_success
        for _ in range(3):
            with client.stream("GET", "/events") as events:
                assert next(events.iter_bytes())
        assert set(scene.market.asked) <= {"next_update"}
        answers = [client.get("/chain/AAA").json()["t"] for _ in range(50)]
        # One question more where a bar was closed between the edition and the chains.
        assert scene.market.asked.count("chains") <= 2 * len(set(answers))


def test_the_page_comes_from_here_alone(scene: Scene) -> None:
    with httpx.Client(base_url=scene.server.url, timeout=WAIT_S) as client:
        page = client.get("/")
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert "//" not in page.text.replace("http://www.w3.org", "")
        assert client.get("/", headers={"if-none-match": page.headers["etag"]}).status_code == 304
        preloaded = set(re.findall(r'modulepreload" href="page/([^"]+)"', page.text))
        sources = {name: client.get(f"/page/{name}").text for name in {*preloaded, "app.js"}}
        asked = {
            name for text in sources.values() for name in re.findall(r'"\./([^"]+\.js)"', text)
        }
        assert asked == preloaded and len(preloaded) > 10
        assert client.get("/page/app.js").headers["content-type"].startswith("text/javascript")
        for wrong in ("/page/nothing.js", "/page/../app.py", "/page/%2e%2e/app.py"):
            assert client.get(wrong).status_code == 404
        assert client.get("/journal?from=yesterday").status_code == 422
        assert client.get("/chain/NONE").status_code == 404
