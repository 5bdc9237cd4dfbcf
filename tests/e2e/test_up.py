"""The main job from start to clean end, on one machine, and its next starts."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.asking import client
from tests.e2e.application import (
    PLANTED,
    ROOT,
    Application,
    environment,
    files_below,
    processes_of,
    write_model,
)
from tests.e2e.healed import await_gone
from tests.sockets import descendants, is_loopback, listeners
from tests.waits import WAIT_S
from trading.execution.events import ChampionPromoted, ChampionRolledBack, PromotedBy, RolledBackBy
from trading.execution.journal import Journal
from trading.execution.portfolio import Account
from trading.learning.champion.store import AccountChampion, ChampionStore
from trading.learning.checkpoints import CheckpointStore

pytestmark = pytest.mark.slow

QUICK = (
    "--set",
    "learning.pretrain_steps=4096",
    "--set",
    "learning.update_frequency=12",
    "--set",
    "learning.save_frequency=24",
    "--set",
    "notify.interval_s=5",
    "--set",
    "learning.gate.sessions=20",
    "--set",
    "env.sessions_per_episode=1",
    # A gate that lets every working policy pass: what follows a promotion is seen too.
    "--set",
    "learning.gate.margin_pct=50",
    "--set",
    "learning.gate.max_kl=10",
)


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    folder = tmp_path_factory.mktemp("up")
    with closing(Application.up(folder, *QUICK, env=environment(**PLANTED))) as running:
        running.wait_ready()
        yield running


def journal_of(application: Application) -> Path:
    return application.log.parent / "state" / "journal-paper.sqlite"


def folded(path: Path, events: int) -> Account:
    """The account after the first `events` events."""
    account = Account()
    with Journal(path, read_only=True) as journal:
        for seq, event in enumerate(journal.events(), 1):
            account.apply(event)
            if seq == events:
                return account
    raise AssertionError(f"{path} holds fewer than {events} events")


def command(state: Path, *arguments: str) -> str:
    result = subprocess.run(
        [
            *(sys.executable, "-m", "trading", "checkpoints", *arguments),
            *("--set", f"paths.state_dir={state}"),
        ],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def state_of(application: Application) -> Path:
    return application.log.parent / "state"


def changes(application: Application) -> list[ChampionPromoted | ChampionRolledBack]:
    path = state_of(application) / "journal-paper.sqlite"
    with Journal(path, read_only=True) as journal:
        kinds = (ChampionPromoted, ChampionRolledBack)
        return [each for each in journal.events() if isinstance(each, kinds)]


def await_champion(application: Application, number: int) -> None:
    def trades() -> bool | None:
        return application.status()["champion"]["number"] == number or None

    application.wait_until(f"champion {number} trades", trades)


def metrics(application: Application) -> dict[str, float]:
    """Value of each metric by its name; of one with labels, any."""

    def answered() -> str | None:
        response = application.get("/metrics")
        return response.text if response is not None and response.is_success else None

    text = application.wait_until("an answer of /metrics", answered)
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_status_tells_account_market_feed_learner_and_versions(application: Application) -> None:
    status = application.status()
    assert status["phase"] == "trading"
    assert status["account"]["initial_capital"] == 100_000.0
    assert set(status["market"]["underlyings"]) == {"SPY", "QQQ", "IWM"}

    def acknowledged() -> bool | None:
        options = application.status()["feed"]["connections"]["options"]
        assert options["state"] == "LIVE"
        return options["asked"] == options["acknowledged"] > 400 or None

    # Contracts that the price has come near are asked for at any time.
    application.wait_until("every subscription is acknowledged", acknowledged)
    assert status["versions"]["ray"] == "2.60.0"
    assert {"total", "by_underlying"} <= set(status["greeks"])


def test_metrics_are_prometheus_text_with_the_promised_names(application: Application) -> None:
    assert {
        "trading_bot_trades_total",
        "trading_bot_portfolio_value",
        "trading_bot_win_rate",
        "trading_bot_steps_total",
        "trading_bot_reward_total",
        "trading_bot_action_latency_seconds_count",
        "trading_bot_feed_events_total",
        "trading_bot_learner_updates_total",
    } <= metrics(application).keys()


def test_the_policy_learns_online_and_is_checkpointed(application: Application) -> None:
    def learnt() -> dict[str, Any] | None:
        status = application.status()
        learner = status["learner"]
        if learner.get("live_updates", 0) < 2:
            return None
        # The first fragments are learned from alone where rehearsal takes longer than they wait.
        return status if learner["rehearsed_samples"] >= 24 else None

    status = application.wait_until("two learner updates, and rehearsal", learnt)
    learner = status["learner"]
    assert learner["live_samples"] >= 24
    assert learner["judgements"] >= 1

    def agree() -> bool | None:
        now = application.status()
        trades = now["champion"]["version"]
        return now["versions"]["weights"] == trades <= now["learner"]["updates"] or None

    application.wait_until("the weights that trade are the champion's", agree)
    store = CheckpointStore(application.log.parent / "state" / "checkpoints", 5)
    application.wait_until("a checkpoint", store.latest)


def test_a_challenger_is_promoted_and_its_numbers_are_journalled(application: Application) -> None:
    def promoted() -> dict[str, object] | None:
        status = application.status()
        return status if status["champion"]["promotions"] >= 1 else None

    status = application.wait_until("a promotion", promoted)
    assert status["champion"]["number"] >= 2
    assert status["learner"]["judgements"] >= 1
    first, second = changes(application)[:2]
    assert isinstance(first, ChampionPromoted) and isinstance(second, ChampionPromoted)
    assert (first.by, second.by) == (PromotedBy.START, PromotedBy.GATE)
    assert second.before == 1 and second.kl is not None
    assert second.compared[0].sessions == 20

    def shown() -> bool | None:
        figures = metrics(application)
        names = ("promotions_total", "champion", "judgement_seconds")
        promotions, champion, judged_s = (figures[f"trading_bot_{name}"] for name in names)
        return (promotions >= 1 and champion >= 2 and judged_s > 0.0) or None

    # Another replica may answer, which has not heard of it yet.
    application.wait_until("the promotion in the metrics", shown)


def test_the_account_survives_the_kill_of_the_live_actor(application: Application) -> None:
    before = application.status()
    os.kill(before["process"], signal.SIGKILL)

    def back() -> dict[str, object] | None:
        response = application.get("/health")
        if response is None or response.status_code != 200:
            return None
        status = application.status()
        return status if status["process"] != before["process"] else None

    application.wait_until("health after the kill", back)

    def trading() -> dict[str, object] | None:
        status = application.status()
        later = status.get("account", {}).get("decisions", 0) > before["account"]["decisions"]
        return status if later else None

    after = application.wait_until("new decisions after the kill", trading)
    assert after["restarts"] == 1
    account = folded(journal_of(application), after["account"]["journal_events"])
    assert account.fingerprint() == after["account"]["fingerprint"]
    earlier = folded(journal_of(application), before["account"]["journal_events"])
    assert earlier.fingerprint() == before["account"]["fingerprint"]
    application.wait_ready()


@pytest.mark.parametrize("part", ["MarketServerHost", "ServeReplica", "ProxyActor"])
def test_a_killed_part_comes_back_and_trading_goes_on(application: Application, part: str) -> None:
    before = application.status()
    there = processes_of(application, part)
    assert there
    for process in there:
        os.kill(process, signal.SIGKILL)

    def another() -> bool | None:
        return len(processes_of(application, part) - there) >= len(there) or None

    def traded() -> dict[str, Any] | None:
        now = application.status()
        return now if now["account"]["decisions"] > before["account"]["decisions"] + 3 else None

    application.wait_until(f"another {part}", another)
    after = application.wait_until("decisions after it", traded)
    assert after["restarts"] == before["restarts"], "the live market never noticed"
    application.wait_ready()


def test_nothing_of_it_is_reached_from_another_machine(application: Application) -> None:
    found = listeners(descendants(application.process.pid))
    assert ("127.0.0.1", application.port) in found
    assert len(found) >= 8
    assert [each for each in found if not is_loopback(each[0])] == []


def test_no_output_holds_a_key(application: Application) -> None:
    for path in ("/status", "/metrics", "/ready", "/health", "/openapi.json"):
        assert "planted-" not in application.answer(path).text, path
    # One for each time that Ray was begun.
    sessions = list(Path("/tmp/ray").glob(f"session_*_{application.process.pid}"))
    assert sessions
    held = {}
    for file in files_below(application.log.parent, *sessions):
        with suppress(FileNotFoundError):
            # Each of them has it, the password within an address too.
            held[file] = b"planted-" in file.read_bytes()
    assert any(file.suffix == ".sqlite" for file in held) and len(held) > 20
    assert [str(file) for file, found in held.items() if found] == []


def test_sigterm_ends_it_cleanly(application: Application) -> None:
    process = application.status()["process"]
    assert application.terminate() == 0, application.output()
    assert "Summary" in application.output() and "promotions" in application.output()
    application_journal = journal_of(application)
    with Journal(application_journal) as journal:
        assert journal.fold().decisions > 0
    store = CheckpointStore(application.log.parent / "state" / "checkpoints", 5)
    assert store.latest() is not None
    await_gone({process})


def test_a_second_start_resumes_account_and_learner(application: Application) -> None:
    folder = application.log.parent
    with Journal(journal_of(application), read_only=True) as journal:
        before = journal.fold()
    store = CheckpointStore(folder / "state" / "checkpoints", 5)
    after, seconds = before, 5
    while after.decisions == before.decisions:
        assert seconds < WAIT_S, "it decides nothing, however long it trades"
        latest = store.latest()
        assert latest is not None
        with closing(Application.up(folder, *QUICK, "--duration", str(seconds))) as second:
            assert second.wait_exit() == 0, second.output()
            assert f"checkpoint {latest[0].name}" in second.output()
        with Journal(journal_of(application), read_only=True) as journal:
            after = journal.fold()
        # A busy machine may need more of them to its first decision.
        seconds *= 6
    assert after.initial_cash == before.initial_cash


@pytest.mark.long
def test_the_champion_is_taken_up_after_a_restart(application: Application) -> None:
    before = changes(application)
    champions = ChampionStore(state_of(application) / "checkpoints", 5)
    with Journal(state_of(application) / "journal-paper.sqlite", read_only=True) as journal:
        news = champions.news_for(AccountChampion.of(journal.fold()))
    champion = before[-1].champion if news is None else news.champion
    folder = application.log.parent
    frozen = ("--set", "learning.online=false")
    with closing(Application.up(folder, *QUICK, *frozen)) as again:
        again.wait_ready()
        await_champion(again, champion)
        # A promotion whose bar never came is journalled now; nothing else is.
        after = changes(again)
        assert after[: len(before)] == before
        assert len(after) == len(before) + (news is not None)
        assert after[-1].champion == champion
        refused_without_a_token(again)
        own_words(again, champion)


def refused_without_a_token(application: Application) -> None:
    """Nobody commands an application that was given no token of its owner's."""

    def answered() -> httpx.Response | None:
        try:
            response = client.post(
                f"http://127.0.0.1:{application.port}/control/halt",
                headers={"Authorization": f"Bearer {PLANTED['CONTROL_TOKEN']}"},
                timeout=WAIT_S,
            )
        except httpx.HTTPError:
            return None
        return None if response.status_code == 503 else response

    response = application.wait_until("an answer of halt", answered)
    assert response.status_code == 403
    assert "set CONTROL_TOKEN" in response.json()["said"]


def own_words(frozen: Application, champion: int) -> None:
    """An owner's commands take effect while it trades, in frozen mode as well."""
    state = state_of(frozen)
    model = write_model(frozen.log.parent / "model")
    assert f"champion-{champion + 1} trades" in command(state, "promote", str(model))
    await_champion(frozen, champion + 1)
    assert f"champion-{champion} trades" in command(state, "rollback")
    await_champion(frozen, champion)
    by_owner = changes(frozen)[-2:]
    assert isinstance(by_owner[0], ChampionPromoted) and by_owner[0].by is PromotedBy.OWNER
    assert isinstance(by_owner[1], ChampionRolledBack)
    assert by_owner[1].by is RolledBackBy.OWNER
    status = frozen.status()
    assert status["learner"] == {} and status["phase"] == "trading"
    listed = command(state, "list")
    assert f"champion-{champion}" in listed and "trades" in listed
    assert frozen.terminate() == 0, frozen.output()
