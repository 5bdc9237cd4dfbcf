"""`trading stop`, and what a second `trading up` says; without Ray, which neither gets to start."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.waits import WAIT_S
from trading.cli.main import app
from trading.execution.lease import AccountLease


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal-paper.sqlite"


def trading(command: str, journal: Path, *options: str) -> Result:
    state = f"paths.state_dir={journal.parent}"
    return CliRunner().invoke(app, [command, "--set", state, *options])


@contextmanager
def holding(journal: Path, heeds: bool = True) -> Iterator[AccountLease]:
    """A holder on a thread, that lets go when it is asked to."""
    held, stop = threading.Event(), threading.Event()
    leases: list[AccountLease] = []

    def hold() -> None:
        with AccountLease(journal) as lease:
            if heeds:
                lease.answer_requests(stop)
            leases.append(lease)
            held.set()
            stop.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(WAIT_S)
        yield leases[0]
    finally:
        stop.set()
        thread.join(WAIT_S)


def test_stop_without_anyone_says_so(journal: Path) -> None:
    result = trading("stop", journal)
    assert (result.exit_code, result.output) == (0, "nobody trades the account paper\n")
    assert not list(journal.parent.iterdir())


def test_stop_waits_until_the_account_is_let_go(journal: Path) -> None:
    with holding(journal) as lease:
        result = trading("stop", journal, "--here")
        assert (result.exit_code, result.output) == (0, f"stopped: {lease.holder}\n")


def test_stop_here_leaves_another_cluster_alone(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holding(journal) as lease:
        monkeypatch.setenv("RAY_CLUSTER_NAME", "another")
        result = trading("stop", journal, "--here")
        assert result.exit_code == 0
        assert result.output == f"the account paper is traded elsewhere: {lease.holder}\n"
        assert not lease.is_asked_for


def test_stop_answers_scripts_with_json(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*options: str) -> dict[str, object]:
        result = trading("stop", journal, "--json", *options)
        assert result.exit_code == 0, result.output
        (account,) = json.loads(result.stdout)["accounts"]
        assert (account["account"], account["strategy"]) == ("paper", None)
        return dict(account)

    assert (told()["outcome"], told()["holder"]) == ("nobody", None)
    with holding(journal) as lease:
        with monkeypatch.context() as patch:
            patch.setenv("RAY_CLUSTER_NAME", "another")
            assert told("--here")["outcome"] == "elsewhere"
        stopped = told()
        assert stopped["outcome"] == "stopped"
        holder = lease.holder
        assert stopped["holder"] == {
            "host": holder.host,
            "pid": holder.pid,
            "cluster": "",
            "since": holder.since,
        }


def test_stop_fails_when_its_time_is_up(journal: Path) -> None:
    with holding(journal, heeds=False):
        result = trading("stop", journal, "--timeout", "0")
        assert result.exit_code == 1
        assert "the account paper was not let go within 0 s" in result.stderr


def test_a_second_up_names_who_trades(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trading.app.up._LEASE_TIMEOUT_S", 0.0)
    with holding(journal) as lease:
        result = trading("up", journal)
        assert result.exit_code == 1
        assert str(lease.holder) in result.stderr and "`trading stop`" in result.stderr
