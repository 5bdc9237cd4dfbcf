"""The live market's own side of the owner's commands; its actor runs here without Ray around it."""

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from tests.live import market as market_of_test
from tests.live.market import FirstMinutes, serving, settings_for, write_first_champion
from trading.app.driver import without_secrets
from trading.errors import OwnerRefused
from trading.execution.events import OwnerCommand, TermsAdopted
from trading.execution.journal import Journal
from trading.execution.mailbox import ask, mailbox_path
from trading.execution.owner import Command
from trading.learning.champion.store import AccountChampion, weights_digest
from trading.learning.checkpoints import write_module_weights
from trading.learning.policy import Policy
from trading.live import actor as live_actor
from trading.live import assembly
from trading.live.actor import LiveMarket
from trading.live.changed_settings import trading_settings
from trading.live.endpoint import Endpoint

WAIT_S = 120.0
TOKEN = "token-of-the-test-0123456789"
await_that = partial(market_of_test.await_that, within_s=WAIT_S)


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveMarket]:
    monkeypatch.setenv("CONTROL_TOKEN", TOKEN)
    settings = settings_for(tmp_path, "learning.lockstep=false")
    credentials = settings.credentials.model_copy(update={"control_token": _secret(TOKEN)})
    settings = settings.model_copy(update={"credentials": credentials})
    # Slow enough that the day is not over while it is commanded.
    with serving(FirstMinutes(380), speed=120.0) as (endpoint, begin):
        write_first_champion(settings)
        market = LiveMarket(settings, endpoint, assembly.chosen_plugins(settings))
        await_that("trading", lambda: market.progress().connected)
        begin()
        await_that("a bar", lambda: market.progress().market_time_ns)
        yield market
        market.stop()


def say(live: LiveMarket, command: OwnerCommand, **what: Any) -> dict[str, Any]:
    refused, answer = live.control(Command(command, "alice", **what))
    assert not refused, refused
    return answer


def test_the_actor_obeys_over_http_and_by_the_mailbox(live: LiveMarket, tmp_path: Path) -> None:
    assert live.control_digest() == hashlib.sha256(TOKEN.encode()).digest()
    told = say(live, OwnerCommand.HALT, key="k")
    assert told["account"]["trading_state"] == "HALTED"
    assert live.status()["account"]["trading_state"] == "HALTED"
    assert not live.readiness()[0]
    assert say(live, OwnerCommand.HALT, key="k")["repeated"]

    journal = assembly.journal_path(settings_for(tmp_path))
    reply = ask(journal, Command(OwnerCommand.FLATTEN, "bob"), WAIT_S)
    assert not reply.refused
    standing = ask(journal, None, WAIT_S).answer["account"]
    assert [each["cause"] for each in standing["restrictions"]] == ["owner_flatten"]
    await_that("all is closed", lambda: live.progress().open_positions == 0)
    refused = ask(journal, Command(OwnerCommand.CLOSE, "bob", symbol="SPY"), WAIT_S)
    assert refused.refused == "nothing is open on SPY: open are nothing"

    assert "nothing had changed" in say(live, OwnerCommand.RELOAD)["said"]
    live.stop()
    with Journal(journal, read_only=True) as opened:
        events = list(opened.events())
        assert opened.fold().owner_commands == 3
    assert sum(isinstance(each, TermsAdopted) for each in events) == 1


def test_the_champion_is_chosen_and_limits_are_read_again(live: LiveMarket, tmp_path: Path) -> None:
    refused, _ = live.control(Command(OwnerCommand.ROLLBACK, "alice"))
    assert "no champion before" in refused
    refused, _ = live.control(Command(OwnerCommand.PROMOTE, "alice", which="champion-7"))
    assert "there is no champion" in refused
    trader = live._trader
    assert trader is not None
    first = trader.policy.weights()
    model = Policy(assembly.model_config(live._settings), 7).weights()
    folder = tmp_path / "model"
    folder.mkdir()
    write_module_weights(folder, model)
    said = say(live, OwnerCommand.PROMOTE, which=str(folder))["said"]
    assert said.startswith("champion-2 trades") and said.endswith("the one before it: champion-1")
    assert weights_digest(trader.policy.weights()) == weights_digest(model)
    assert live.account_champion() == AccountChampion(2, 1, 2, 1)
    assert "champion-1 trades" in say(live, OwnerCommand.ROLLBACK)["said"]
    assert weights_digest(trader.policy.weights()) == weights_digest(first)
    settings = live._settings
    live._settings = settings.model_copy(
        update={"risk": settings.risk.model_copy(update={"max_daily_loss_pct": 1.0})}
    )
    said = say(live, OwnerCommand.RELOAD)["said"]
    assert "risk.max_daily_loss_pct: 1.0 -> 5.0" in said
    await_that(
        "the limits of the settings' file",
        lambda: live._trader and live._trader.env.broker.risk.limits.max_daily_loss_pct == 5.0,
    )
    known = live.stop(), live.account_champion()
    # What the trading thread is in the midst of changing, no other thread sees.
    account = trader.env.broker.account
    account.fills, account.champion = 99, 9
    assert (live.progress(), live.account_champion()) == known


def test_faults_of_disks_and_a_busy_trader_leave_the_owner_a_hearing(
    live: LiveMarket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = live._settings
    journal, checkpoints = assembly.journal_path(settings), settings.paths.checkpoints
    aside = tmp_path / "aside"
    checkpoints.rename(aside)
    checkpoints.write_text("no folder")  # as where a disk is gone, no folder can be made here
    promote = Command(OwnerCommand.PROMOTE, "alice", which="champion-1")
    assert "Not a directory" in ask(journal, promote, WAIT_S).refused
    assert "Not a directory" in live.control(promote)[0]
    checkpoints.unlink()
    aside.rename(checkpoints)

    box = mailbox_path(journal)
    box.rename(aside)
    box.write_text("no folder")
    told = "the folder of the owner's commands cannot be used"
    await_that("the fault in the log", lambda: told in caplog.text)
    box.unlink()
    aside.rename(box)

    trader = live._trader
    assert trader is not None
    with monkeypatch.context() as patch:
        busy: Future[Any] = Future()
        busy.set_running_or_notify_cancel()
        patch.setattr(live_actor, "_COMMAND_TIMEOUT_S", 0.05)
        patch.setattr(trader, "command", lambda *_: busy)
        told = "has not answered within 0.1 s"
        assert told in ask(journal, Command(OwnerCommand.HALT, "alice"), WAIT_S).refused
        # A reload that still waits is not cancelled: its limits are taken up.
        waiting: Future[Any] = Future()
        patch.setattr(trader, "command", lambda *_: waiting)
        assert told in live.control(Command(OwnerCommand.RELOAD, "alice"))[0]
        assert not waiting.cancelled()
    assert not ask(journal, Command(OwnerCommand.HALT, "alice"), WAIT_S).refused
    assert live.status()["account"]["trading_state"] == "HALTED"


def test_who_asks_the_vendor_again_does_not_hang(
    live: LiveMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session of many symbols may wait so for longer than `safety.hang_s`."""
    silent_s: list[float] = []

    def busy(*_: object) -> None:
        time.sleep(0.5)
        silent_s.append(live._silent_s())
        assert live._rest is not None
        elsewhere = threading.Thread(target=live._rest._transport._pause, args=(0.01,))
        elsewhere.start()
        elsewhere.join()
        silent_s.append(live._silent_s())
        live._rest._transport._pause(0.01)
        silent_s.append(live._silent_s())
        raise OwnerRefused("waited")

    monkeypatch.setattr(assembly, "champion_change", lambda *_: busy)
    assert "waited" in live.control(Command(OwnerCommand.ROLLBACK, "alice"))[0]
    busy_s, beside_s, waited_s = silent_s
    assert waited_s < 0.5 <= busy_s < beside_s


def test_without_its_secrets_it_waits_and_holds_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(tmp_path, "learning.lockstep=false")
    secrets = settings.credentials.model_copy(update={"control_token": _secret(TOKEN)})
    told = without_secrets(settings.model_copy(update={"credentials": secrets}))
    assert TOKEN.encode() not in cloudpickle.dumps(told)
    with serving(FirstMinutes(380), speed=120.0) as (endpoint, begin):
        key = endpoint.api_key
        write_first_champion(settings)
        market = LiveMarket(told, replace(endpoint, api_key=""), assembly.chosen_plugins(settings))
        assert market.progress().locked
        assert market.progress().phase == "starting"
        with monkeypatch.context() as patch:
            patch.setattr(live_actor, "_UNLOCK_TIMEOUT_S", 0.01)
            with pytest.raises(OwnerRefused, match="the live market is starting"):
                market.control_digest()
        market.unlock(secrets, key)
        assert market.control_digest() == hashlib.sha256(TOKEN.encode()).digest()
        await_that("trading", lambda: market.progress().connected)
        assert not market.progress().locked
        begin()
        await_that("a bar", lambda: market.progress().market_time_ns)
        market.unlock(secrets, "another key, too late")
        market.stop()


def test_one_that_is_stopped_before_it_has_its_secrets_ends(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    market = LiveMarket(settings, Endpoint("ws://nowhere", "http://nowhere", ""), {})
    assert market.stop().phase == "stopped"


def test_a_full_journal_halts_and_goes_on_when_there_is_room(live: LiveMarket) -> None:
    """SQLite is told that the disk has no page more, and then that it has."""
    trader = live._trader
    assert trader is not None
    process = live.progress().process
    trader.env.broker.journal._connection.execute("PRAGMA max_page_count = 1")
    await_that("the halt", lambda: live.status()["account"]["trading_state"] == "HALTED")
    told = live.status()["account"]["trading_state_reason"]
    assert "cannot write journal" in told and "disk is full" in told
    assert any("halted: cannot write journal" in each for each in live.readiness()[1])
    # The probe of the disk succeeds here: a new connection has no such limit.
    await_that("trading again", lambda: live.progress().phase == "trading" and live._trader)
    assert live._trader is not trader and live.progress().process == process
    bar = live.progress().market_time_ns
    await_that("a bar", lambda: live.progress().market_time_ns > bar)
    assert live.status()["account"]["trading_state"] == "ACTIVE"
    say(live, OwnerCommand.HALT, key="after")


def test_terms_are_written_once_and_again_when_they_change(tmp_path: Path) -> None:
    before = trading_settings(settings_for(tmp_path))
    after = trading_settings(settings_for(tmp_path, "data.bar_seconds=30"))
    assert {key for key in before if before[key] != after[key]} == {"data.bar_seconds"}


def _secret(text: str) -> Any:
    from pydantic import SecretStr

    return SecretStr(text)
