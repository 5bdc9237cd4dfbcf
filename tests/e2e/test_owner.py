"""The owner's commands to a running application: by HTTP, by the command line, over restarts.

And that the whole HTTP service does what its OpenAPI document says.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from schemathesis.schemas import BaseSchema

from tests.asking import client
from tests.e2e.application import ROOT, Application, environment, write_model
from tests.serving.described import ask_all
from tests.waits import WAIT_S
from trading.execution.events import OwnerCommanded
from trading.execution.journal import Journal
from trading.serving.control import COMMANDS

pytestmark = pytest.mark.slow

TOKEN = "token-of-the-test-0123456789abcdef"
EXAMPLES = 4


class Starts:
    """One account's application, started again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._settings = (
            *("--symbols", "SPY,QQQ"),
            *("--set", "learning.online=false"),
            *("--set", "learning.pretrain_steps=0"),
            *("--set", f"paths.model_path={write_model(folder / 'model')}"),
        )
        self.running = self._up()

    def _up(self) -> Application:
        env = environment(CONTROL_TOKEN=TOKEN)
        return Application.up(self.folder, *self._settings, env=env)

    def again(self) -> Application:
        self.running = self._up()
        self.running.wait_ready()
        return self.running


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starts]:
    starts = Starts(tmp_path_factory.mktemp("owner"))
    try:
        starts.running.wait_ready()
        yield starts
    finally:
        starts.running.close()


def schema(application: Application) -> BaseSchema:
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{application.port}/openapi.json")


def account(folder: Path, *arguments: str) -> dict[str, Any]:
    """The answer of `trading account ... --json`, in a process of its own."""
    state = f"paths.state_dir={folder / 'state'}"
    done = subprocess.run(
        [sys.executable, "-m", "trading", "account", *arguments, "--json", "--set", state],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
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
                timeout=WAIT_S,
            )
        except httpx.HTTPError:
            return None
        # A busy actor may miss its deadline, and the same key is the same command. Where strangers
        # have knocked too often, they are let in slowly.
        busy = response.status_code in (503, 409) and "busy" in response.text
        return None if busy or response.status_code == 429 else response

    return application.wait_until(f"an answer of {name}", answered)


def state(application: Application) -> str:
    return str(application.status()["account"]["trading_state"])


def test_the_document_describes_every_route(starts: Starts) -> None:
    paths = {found.ok().path for found in schema(starts.running).get_all_operations()}
    reading = {"/health", "/ready", "/status", "/metrics", "/journal", "/chain/{underlying}"}
    assert paths == reading | {f"/control/{name}" for name in COMMANDS}


@pytest.mark.long
@pytest.mark.parametrize("authorization", [None, "Bearer wrong"])
def test_strangers_read_and_command_nothing(starts: Starts, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    statuses = ask_all(schema(starts.running), headers, EXAMPLES)
    assert set(statuses) <= {200, 400, 401, 403, 404, 422, 429, 503}
    assert state(starts.running) == "ACTIVE"


def test_the_owner_commands_a_running_account_and_a_stopped_one(starts: Starts) -> None:
    running, folder = starts.running, starts.folder
    assert control(running, "halt", token="x" * 32).status_code == 403

    told = control(running, "halt", by="alice", why="news", key="h-1").json()
    assert (told["done"], told["account"]["trading_state"]) == (True, "HALTED")
    assert control(running, "halt", by="alice", why="news", key="h-1").json()["repeated"]
    running.wait_until("the halt in /status", lambda: state(running) == "HALTED" or None)
    assert running.answer("/ready").status_code == 503

    # The command line reaches the same account without Ray, and tells the same.
    assert account(folder, "status")["trading_state"] == "HALTED"
    assert account(folder, "flatten", "--why", "holiday")["done"]
    running.wait_until("everything is closed", lambda: running.status()["positions"] == [] or None)
    assert account(folder, "deposit", "1000")["done"]
    assert not account(folder, "withdraw", "10000000")["done"]
    said = control(running, "reload").json()
    assert said["done"] and "nothing had changed" in said["said"]
    refused = control(running, "rollback")
    assert refused.status_code == 409
    assert "no champion before" in refused.json()["said"]

    assert running.terminate() == 0, running.output()
    assert TOKEN not in running.output()
    with Journal(folder / "state" / "journal-paper.sqlite", read_only=True) as journal:
        folded = journal.fold()
        words = [each for each in journal.events() if isinstance(each, OwnerCommanded)]
    assert list(folded.restrictions) == ["owner_flatten"]
    assert (words[0].by, words[0].why, words[0].key) == ("alice", "news", "h-1")
    assert [str(each.command) for each in words] == ["halt", "flatten", "deposit", "reload"]
    assert folded.paid_in == folded.initial_cash + 1000.0

    # Nobody trades now: the command line obeys by itself, and the next start follows.
    told = account(folder, "resume")
    assert (told["done"], told["account"]["trading_state"]) == (True, "ACTIVE")
    again = starts.again()
    assert state(again) == "ACTIVE"
    again.wait_until("something is open again", lambda: again.status()["positions"] or None)


@pytest.mark.long
def test_the_owner_is_answered_as_described(starts: Starts) -> None:
    application = starts.running
    owner = {"Authorization": f"Bearer {TOKEN}"}
    statuses = ask_all(schema(application), owner, EXAMPLES, probes=False)
    assert statuses[200]
    assert 500 not in statuses
    assert application.terminate() == 0, application.output()
    assert application.output().count("Traceback") == 0
