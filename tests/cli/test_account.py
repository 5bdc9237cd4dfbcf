"""`trading account`: by the journal itself while nobody trades, else by who trades the account."""

import json
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.execution.scene import NOW_NS, close_order, market, new_broker, open_order
from tests.usual import risk_limits
from trading.cli.common import DEBUG_VARIABLE
from trading.cli.main import app
from trading.errors import OwnerRefused
from trading.execution.broker import PaperBroker
from trading.execution.events import OwnerCommand, OwnerCommanded
from trading.execution.fees import NO_FEES
from trading.execution.journal import Journal
from trading.execution.lease import AccountLease
from trading.execution.mailbox import mailbox_path, serve
from trading.execution.owner import Command, execute_command
from trading.execution.states import TradingState

CAPITAL = 100_000.0
WAIT_S = 30.0


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal-paper.sqlite"
    with Journal(path) as made:
        made.open_account("paper", CAPITAL, NOW_NS)
    return path


@contextmanager
def broker_of(path: Path, **limits: float) -> Iterator[PaperBroker]:
    with Journal(path) as journal:
        account = journal.open_account("paper", CAPITAL, NOW_NS)
        yield PaperBroker(journal, account, NO_FEES, risk_limits(**limits))  # type: ignore[arg-type]


def account(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(
        app, ["account", arguments[0], "--set", f"paths.state_dir={path.parent}", *arguments[1:]]
    )


def answer(path: Path, *arguments: str) -> dict[str, Any]:
    result = account(path, *arguments, "--json")
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def test_one_number_that_is_none_stops_no_account_for_good(journal: Path) -> None:
    with broker_of(journal) as broker:
        broker.on_bar({}, NOW_NS + 1, equity=math.nan)
        broker.close_session("2026-01-05", CAPITAL, NOW_NS + 2)
        broker.on_bar({}, NOW_NS + 3, equity=CAPITAL)
        assert broker.account.trading_state is TradingState.HALTED
    assert answer(journal, "status")["trading_state"] == "HALTED"
    told = answer(journal, "resume", "--why", "the feed is mended", "--by", "alice")
    assert (told["done"], told["account"]["trading_state"]) == (True, "ACTIVE")
    with broker_of(journal) as broker:
        broker.on_bar({}, NOW_NS + 4, equity=CAPITAL)
        assert broker.account.trading_state is TradingState.ACTIVE
        (word,) = [each for each in broker.journal.events() if isinstance(each, OwnerCommanded)]
    assert (word.command, word.by, word.why) == ("resume", "alice", "the feed is mended")
    assert word.at.endswith("+00:00")


def test_a_drawdown_that_stands_is_accepted_by_reset_peak(journal: Path) -> None:
    with broker_of(journal, max_daily_loss_pct=90.0) as broker:
        broker.on_bar({}, NOW_NS + 1, equity=70_000.0)
        broker.account.cash = 70_000.0
        assert broker.account.trading_state is TradingState.REDUCING
    # The journal says 100,000 in cash, so nothing stands in the way of the owner any more.
    assert account(journal, "resume").exit_code == 0
    with broker_of(journal, max_daily_loss_pct=90.0) as broker:
        broker.on_bar({}, NOW_NS + 2, equity=70_000.0)
        assert broker.account.state_reason == "max_drawdown"
    assert answer(journal, "reset-peak")["account"]["trading_state"] == "ACTIVE"


def test_what_cannot_be_done_says_why_and_changes_nothing(journal: Path) -> None:
    with Journal(journal, read_only=True) as before:
        digest = before.digest()
    result = account(journal, "withdraw", "100000.01")
    assert result.exit_code == 1
    assert "more than the buying power of 100000.00" in result.stderr
    assert "Traceback" not in result.output
    refused = account(journal, "close", "SPY", "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stdout) == {
        "done": False,
        "said": "nothing is open on SPY: open are nothing",
    }
    with Journal(journal, read_only=True) as after:
        assert after.digest() == digest


@pytest.mark.parametrize("amount", ["nan", "inf", "1e308", "1e307", "0.001", "1000000000000.01"])
def test_an_amount_that_is_none_is_refused(journal: Path, amount: str) -> None:
    for verb in ("deposit", "withdraw"):
        refused = account(journal, verb, amount, "--json")
        assert refused.exit_code == 1
        told = json.loads(refused.stdout)
        assert not told["done"] and "whole cents, from 0.01 to 1000000000000" in told["said"]
    assert answer(journal, "status")["cash"] == CAPITAL


def test_a_symbol_may_be_written_in_small_letters(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, CAPITAL)
    broker.submit(open_order(broker, "long_call"), market(), True, NOW_NS)
    said = execute_command(broker, Command(OwnerCommand.CLOSE, "alice", symbol=" spy"), NOW_NS).said
    assert "long_call on SPY" in said
    assert broker.account.to_close == ["SPY"]
    with pytest.raises(OwnerRefused, match="nothing is open on qqq: open are SPY"):
        execute_command(broker, Command(OwnerCommand.CLOSE, "alice", symbol="qqq"), NOW_NS)
    broker.journal.close()


def test_a_user_without_a_name_commands_too(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a number."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    told = answer(journal, "halt")["account"]["trading_state_reason"]
    assert told == f"halt by user 54321@{socket.gethostname()}"


def test_a_key_makes_a_command_be_done_once(journal: Path) -> None:
    first = answer(journal, "deposit", "500", "--key", "monday")
    again = answer(journal, "deposit", "500", "--key", "monday")
    assert (first["repeated"], again["repeated"]) == (False, True)
    assert first["said"] == again["said"] == "paid in 500.00 USD: cash is 100500.00 USD"
    assert answer(journal, "status")["cash"] == CAPITAL + 500.0


def test_a_symbol_in_small_letters_is_the_same_command_once_it_is_closed(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, CAPITAL)
    broker.submit(open_order(broker, "long_call"), market(), True, NOW_NS)
    command = Command(OwnerCommand.CLOSE, "alice", symbol="spy", key="monday")
    first = execute_command(broker, command, NOW_NS)
    broker.submit(close_order(broker), market(), True, NOW_NS)
    assert not broker.account.strategies
    again = execute_command(broker, command, NOW_NS)
    assert (again.repeated, again.said) == (True, first.said)
    broker.journal.close()


def test_without_a_journal_the_way_out_is_named(tmp_path: Path) -> None:
    result = account(tmp_path / "journal-paper.sqlite", "halt")
    assert result.exit_code == 1
    assert "has not traded yet" in result.stderr
    for verb in ("status", "resume"):
        result = account(tmp_path / "journal-paper.sqlite", verb, "--json")
        told = json.loads(result.stdout)
        assert result.exit_code == 1
        assert not told["done"] and "has not traded yet" in told["said"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("debug", ["", "1"])
def test_a_script_hears_of_a_fault_too(
    journal: Path, monkeypatch: pytest.MonkeyPatch, debug: str
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("an odd number")

    monkeypatch.setattr("trading.cli.account.give", fails)
    monkeypatch.setenv(DEBUG_VARIABLE, debug)
    result = account(journal, "halt", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 1 and not told["done"]
    assert "a fault of the application: ValueError: an odd number" in told["said"]
    assert isinstance(result.exception, ValueError if debug else SystemExit)


def test_status_tells_what_stands_and_the_way_out(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, CAPITAL)
    broker.journal.close()
    path = tmp_path / "journal-paper.sqlite"
    (tmp_path / "journal.db").rename(path)
    (tmp_path / "journal.db.lock").unlink()
    with broker_of(path) as broker:
        broker.submit(open_order(broker, "long_call"), market(), True, NOW_NS)
    account(path, "flatten", "--why", "holiday", "--by", "bob")
    result = account(path, "status")
    assert result.exit_code == 0
    for told in (
        "account paper: REDUCING (flatten by bob: holiday)",
        "`resume`",
        "not known while nothing trades",
        "long_call on SPY (to be closed)",
        "traded by         nobody",
    ):
        assert told in result.stdout


@contextmanager
def trading(
    journal: Path, takes: bool = True, tells: bool = True
) -> Iterator[list[Command | None]]:
    """Who trades the account on a thread, and what it was asked."""
    asked: list[Command | None] = []
    held, stop = threading.Event(), threading.Event()

    def do(command: Command | None) -> dict[str, Any]:
        asked.append(command)
        if command is not None and command.command is OwnerCommand.CLOSE:
            raise OwnerRefused("nothing is open on it")
        if not tells:
            raise OwnerRefused("the account's journal cannot be read")
        state = {"id": "paper", "trading_state": "HALTED", "restrictions": []}
        return {"said": "halted", "number": 1, "repeated": False, "account": state}

    def trade() -> None:
        with AccountLease(journal):
            held.set()
            while not stop.wait(0.02):
                if takes:
                    serve(journal, do)

    thread = threading.Thread(target=trade)
    thread.start()
    try:
        assert held.wait(WAIT_S)
        yield asked
    finally:
        stop.set()
        thread.join(WAIT_S)


def test_who_trades_the_account_is_asked_and_answers(journal: Path) -> None:
    with trading(journal) as asked:
        told = answer(journal, "halt", "--by", "alice", "--key", "k")
        assert (told["done"], told["said"]) == (True, "halted")
        refused = account(journal, "close", "SPY")
        assert refused.exit_code == 1
        assert "nothing is open on it" in refused.stderr
    first = asked[0]
    assert first is not None
    assert (first.command, first.by, first.key, first.symbol) == ("halt", "alice", "k", "")
    assert not list(mailbox_path(journal).iterdir())


def test_why_who_trades_the_account_does_not_tell_of_it_is_said(journal: Path) -> None:
    with trading(journal, tells=False):
        told = account(journal, "status")
        as_json = account(journal, "status", "--json")
    assert told.exit_code == as_json.exit_code == 1
    assert "the account's journal cannot be read" in told.stderr
    assert json.loads(as_json.stdout) == {
        "done": False,
        "said": "the account's journal cannot be read",
    }


def test_a_command_that_nobody_takes_is_withdrawn(journal: Path) -> None:
    with trading(journal, takes=False):
        result = account(journal, "halt", "--timeout", "0.3")
        assert result.exit_code == 1
        assert "did not take the command within 0.3 s" in result.stderr
        assert not list(mailbox_path(journal).iterdir())
    assert answer(journal, "status")["trading_state"] == "ACTIVE"


def test_a_command_goes_on_when_who_trades_lets_go(journal: Path) -> None:
    results: list[Result] = []
    with trading(journal, takes=False):
        giver = threading.Thread(target=lambda: results.append(account(journal, "halt")))
        giver.start()
    giver.join(WAIT_S)
    assert results[0].exit_code == 0, results[0].output
    assert answer(journal, "status")["trading_state"] == "HALTED"


def test_a_request_whose_sender_is_gone_is_void(journal: Path) -> None:
    folder = mailbox_path(journal)
    folder.mkdir()
    old = '{"command":{"command":"halt","by":"alice"},"until":1.0}'
    (folder / "a.request").write_text(old)
    (folder / "b.request").write_text("no JSON")
    done: list[Command | None] = []

    def do(command: Command | None) -> dict[str, Any]:
        done.append(command)
        return {}

    serve(journal, do)
    assert done == []
    assert [each.name for each in folder.iterdir()] == ["b.answer"]


@pytest.mark.parametrize("fault", [OverflowError("too large"), KeyError("x"), RecursionError()])
def test_a_fault_of_one_command_leaves_the_owner_a_hearing(journal: Path, fault: Exception) -> None:
    folder = mailbox_path(journal)
    folder.mkdir()
    word = '{"command":{"command":"halt","by":"alice"},"until":1e12}'
    nested = '{"command":' + "[" * 100_000
    for name, text in (("a", word), ("b", nested), ("c", word)):
        (folder / f"{name}.request").write_text(text)
    done: list[Command | None] = []

    def do(command: Command | None) -> dict[str, Any]:
        done.append(command)
        if len(done) == 1:
            raise fault
        return {}

    serve(journal, do)
    assert len(done) == 2
    told = [json.loads((folder / f"{name}.answer").read_bytes())["refused"] for name in "abc"]
    assert type(fault).__name__ in told[0] and "cannot be read" in told[1] and told[2] == ""
