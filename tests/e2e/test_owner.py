"""The owner's commands to a running application: by HTTP, by the command line, over restarts."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.asking import client
from tests.e2e.application import ROOT, Application, environment, write_model
from trading.execution.events import OwnerCommanded
from trading.execution.journal import Journal

pytestmark = pytest.mark.slow

TOKEN = "token-of-the-test-0123456789abcdef"
COMMAND_S = 120.0


@pytest.fixture
def settings(tmp_path: Path) -> list[str]:
    model = write_model(tmp_path / "model")
    return [
        *("--symbols", "SPY,QQQ"),
        *("--set", "learning.online=false"),
        *("--set", "learning.pretrain_steps=0"),
        *("--set", f"paths.model_path={model}"),
    ]


@pytest.fixture
def running(tmp_path: Path, settings: list[str]) -> Iterator[Application]:
    application = Application.up(tmp_path, *settings, env=environment(CONTROL_TOKEN=TOKEN))
    yield application
    application.close()


def account(folder: Path, *arguments: str) -> dict[str, Any]:
    """The answer of `trading account ... --json`, in a process of its own."""
    state = f"paths.state_dir={folder / 'state'}"
    done = subprocess.run(
        [sys.executable, "-m", "trading", "account", *arguments, "--json", "--set", state],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    assert done.stdout, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def control(application: Application, name: str, token: str = TOKEN, **body: str) -> httpx.Response:
    def answered() -> httpx.Response | None:
        try:
            response = client.post(
                f"http://127.0.0.1:{application.port}/control/{name}",
                headers={"Authorization": f"Bearer {token}"},
                json=body,
                timeout=COMMAND_S,
            )
        except httpx.HTTPError:
            return None
        # A busy actor may miss its deadline, and the same key is the same command.
        return None if response.status_code in (503, 409) and "busy" in response.text else response

    return application.wait_until(f"an answer of {name}", answered)


def state(application: Application) -> str:
    return str(application.status()["account"]["trading_state"])


def test_the_owner_commands_a_running_account_and_a_stopped_one(
    tmp_path: Path, settings: list[str], running: Application
) -> None:
    running.wait_ready()
    assert control(running, "halt", token="x" * 32).status_code == 403

    told = control(running, "halt", by="alice", why="news", key="h-1").json()
    assert (told["done"], told["account"]["trading_state"]) == (True, "HALTED")
    assert control(running, "halt", by="alice", why="news", key="h-1").json()["repeated"]
    running.wait_until("the halt in /status", lambda: state(running) == "HALTED" or None)
    assert running.get("/ready").status_code == 503  # type: ignore[union-attr]

    # The command line reaches the same account without Ray, and tells the same.
    assert account(tmp_path, "status")["trading_state"] == "HALTED"
    assert account(tmp_path, "flatten", "--why", "holiday")["done"]
    running.wait_until("everything is closed", lambda: running.status()["positions"] == [] or None)
    assert account(tmp_path, "deposit", "1000")["done"]
    assert not account(tmp_path, "withdraw", "10000000")["done"]
    said = control(running, "reload").json()
    assert said["done"] and "nothing had changed" in said["said"]
    refused = control(running, "rollback")
    assert refused.status_code == 409
    assert "no champion before" in refused.json()["said"]

    assert running.terminate() == 0
    assert TOKEN not in running.output()
    with Journal(tmp_path / "state" / "journal-paper.sqlite", read_only=True) as journal:
        folded = journal.fold()
        words = [each for each in journal.events() if isinstance(each, OwnerCommanded)]
    assert list(folded.restrictions) == ["owner_flatten"]
    assert (words[0].by, words[0].why, words[0].key) == ("alice", "news", "h-1")
    assert [str(each.command) for each in words] == ["halt", "flatten", "deposit", "reload"]
    assert folded.paid_in == folded.initial_cash + 1000.0

    # Nobody trades now: the command line obeys by itself, and the next start follows.
    told = account(tmp_path, "resume")
    assert (told["done"], told["account"]["trading_state"]) == (True, "ACTIVE")
    again = Application.up(tmp_path, *settings)
    try:
        again.wait_ready()
        assert state(again) == "ACTIVE"
        response = control(again, "halt")
        assert response.status_code == 403
        assert "set CONTROL_TOKEN" in response.json()["said"]
        again.wait_until("something is open again", lambda: again.status()["positions"] or None)
    finally:
        again.close()
