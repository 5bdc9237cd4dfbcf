"""The main job from start to clean end, on one machine."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.application import PLANTED, Application, environment, processes_of
from tests.sockets import descendants, is_loopback, listeners
from trading.execution.journal import Journal
from trading.execution.portfolio import Account
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


def test_status_tells_account_market_feed_learner_and_versions(application: Application) -> None:
    status = application.status()
    assert status["phase"] == "trading"
    assert status["account"]["initial_capital"] == 100_000.0
    assert set(status["market"]["underlyings"]) == {"SPY", "QQQ", "IWM"}
    options = status["feed"]["connections"]["options"]
    assert options["state"] == "LIVE"
    assert options["asked"] == options["acknowledged"] > 400
    assert status["versions"]["ray"] == "2.60.0"
    assert {"total", "by_underlying"} <= set(status["greeks"])


def test_metrics_are_prometheus_text_with_the_promised_names(application: Application) -> None:
    response = application.get("/metrics")
    assert response is not None
    samples = {
        sample.name
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert {
        "trading_bot_trades_total",
        "trading_bot_portfolio_value",
        "trading_bot_win_rate",
        "trading_bot_steps_total",
        "trading_bot_reward_total",
        "trading_bot_action_latency_seconds_count",
        "trading_bot_feed_events_total",
        "trading_bot_learner_updates_total",
    } <= samples


def test_the_policy_learns_online_and_is_checkpointed(application: Application) -> None:
    def learnt() -> dict[str, Any] | None:
        status = application.status()
        learner = status["learner"]
        return status if learner.get("live_updates", 0) >= 2 else None

    status = application.wait_until("two learner updates", learnt)
    learner = status["learner"]
    assert learner["live_samples"] >= 24 and learner["rehearsed_samples"] >= 24
    assert learner["judgements"] >= 1
    assert status["versions"]["weights"] == status["champion"]["version"] <= learner["updates"]
    store = CheckpointStore(application.log.parent / "state" / "checkpoints", 5)
    application.wait_until("a checkpoint", store.latest)


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


@pytest.mark.parametrize(
    "part", ["MarketServerHost", "WeightRegistry", "ServeReplica", "ProxyActor"]
)
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
        response = application.get(path)
        assert response is not None
        assert "planted-" not in response.text, path
    (session,) = Path("/tmp/ray").glob(f"session_*_{application.process.pid}")
    files = [
        file
        for folder in (application.log.parent, session)
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink()
    ]
    assert any(file.suffix == ".sqlite" for file in files) and len(files) > 20
    # Each of them has it, the password within an address too.
    assert [str(file) for file in files if b"planted-" in file.read_bytes()] == []


def test_sigterm_ends_it_cleanly(application: Application) -> None:
    process = application.status()["process"]
    assert application.terminate() == 0, application.output()
    assert "Summary" in application.output()
    application_journal = journal_of(application)
    with Journal(application_journal) as journal:
        assert journal.fold().decisions > 0
    store = CheckpointStore(application.log.parent / "state" / "checkpoints", 5)
    assert store.latest() is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_second_start_resumes_account_and_learner(application: Application) -> None:
    folder = application.log.parent
    with Journal(journal_of(application), read_only=True) as journal:
        before = journal.fold()
    store = CheckpointStore(folder / "state" / "checkpoints", 5)
    latest = store.latest()
    assert latest is not None
    with closing(Application.up(folder, *QUICK, "--duration", "5")) as second:
        assert second.wait_exit() == 0, second.output()
        assert f"checkpoint {latest[0].name}" in second.output()
    with Journal(journal_of(application), read_only=True) as journal:
        after = journal.fold()
    assert after.decisions > before.decisions
    assert after.initial_cash == before.initial_cash
