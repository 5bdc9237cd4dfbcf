"""Two accounts on one Ray cluster, of which one is a job: what it does the other never notices.

The cluster is one that `ray start --head` began, with token authentication.
"""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from tests.asking import client
from tests.e2e.application import ROOT, Application, environment, wait_for
from tests.e2e.ray_head import BIN, Head, ray_head
from tests.ports import free_port
from tests.waits import START_S, WAIT_S
from trading.execution.journal import Journal
from trading.learning.checkpoints import CheckpointStore

pytestmark = [pytest.mark.slow, pytest.mark.long]

T = TypeVar("T")
_NOT_YET = ("No available agent", "Remote end closed connection", "Failed to connect to Ray")
_NEVER_S = "1000000"
"""After which Ray would kill a driver that was told to stop."""
QUICK = (
    *("--symbols", "SPY"),
    *("--set", "learning.pretrain_steps=4096"),
    *("--set", "learning.update_frequency=12"),
    *("--set", "learning.gate.sessions=20"),
    *("--set", "env.sessions_per_episode=1"),
)


class Jobs:
    """`ray job` against the head's dashboard."""

    def __init__(self, head: Head, env: dict[str, str]) -> None:
        self._address = ("--address", head.dashboard)
        self._env = env
        self._client = httpx.Client(
            base_url=head.dashboard,
            headers={"Authorization": f"Bearer {env['RAY_AUTH_TOKEN']}"},
            timeout=20.0,
        )

    def close(self) -> None:
        self._client.close()

    def command(
        self, verb: str, *words: str, token: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`ray job VERB`, by another token than the cluster's if one is given."""
        return subprocess.run(
            [BIN / "ray", "job", verb, *self._address, *words],
            env=self._env if token is None else {**self._env, "RAY_AUTH_TOKEN": token},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )

    def submit(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What `ray job submit` said, once the head's agent is there: after the dashboard."""

        def answer() -> subprocess.CompletedProcess[str] | None:
            result = self.command("submit", *words)
            return None if any(each in result.stderr for each in _NOT_YET) else result

        return wait_for("the agent that takes jobs", answer, START_S, lambda: True)

    def told(self, path: str) -> dict[str, Any]:
        """What the dashboard says of a job; empty when it does not answer."""
        try:
            response = self._client.get(f"/api/jobs/{path}")
            return dict(response.json()) if response.is_success else {}
        except (httpx.HTTPError, ValueError):
            return {}


class Job:
    """The application as a job, as `manage_k8s.sh --kuberay` starts it."""

    NAME = "bot"

    def __init__(
        self, jobs: Jobs, *arguments: str, name: str = NAME, config: str = "configs/local.yaml"
    ) -> None:
        self.jobs = jobs
        self.name = name
        self.port = free_port()
        words = ("exec", "python", "-m", "trading", "up", "--config", config)
        begun = jobs.submit(
            *("--submission-id", name, "--no-wait", "--", *words),
            *("--port", str(self.port), *arguments),
        )
        said = begun.stdout + begun.stderr
        # Where the connection was closed after it had been taken, it is there.
        assert begun.returncode == 0 or "already exists" in said, said

    @property
    def alive(self) -> bool:
        """Unless it is known to have ended."""
        return self.jobs.told(self.name).get("status") not in ("STOPPED", "SUCCEEDED", "FAILED")

    def output(self) -> str:
        return str(self.jobs.told(f"{self.name}/logs").get("logs", ""))

    def wait_until(self, what: str, probe: Callable[[], T | None]) -> T:
        try:
            return wait_for(what, probe, START_S, lambda: self.alive, poll_s=0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output()[-6000:]}") from None


class Accounts:
    """Two applications, each with an account of its own, on one cluster."""

    def __init__(self, folder: Path, head: Head, jobs: Jobs, env: dict[str, str]) -> None:
        self.jobs = jobs
        self.state = folder / "second" / "state"
        self.first = Application.up(
            folder / "first",
            *QUICK,
            *("--address", head.address, "--set", "account.id=first"),
            env=env,
        )
        state = ("--set", f"paths.state_dir={self.state}")
        self.second = Job(jobs, *QUICK, "--set", "account.id=second", *state)


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    folder = tmp_path_factory.mktemp("accounts")
    env = environment(RAY_USAGE_STATS_ENABLED="0", RAY_JOB_STOP_WAIT_TIME_S=_NEVER_S)
    env["PATH"] = f"{BIN}:{env['PATH']}"
    with ray_head(env, folder / "head.log") as head, ExitStack() as stack:
        jobs = stack.enter_context(closing(Jobs(head, env)))
        both = Accounts(folder, head, jobs, env)
        stack.callback(both.first.close)
        for each in (both.first, both.second):
            url(each)
        yield both


def url(application: Application | Job) -> str:
    """Where the application says that it is served."""

    def said() -> str | None:
        found = re.search(r"serving: (http://\S+)/status", application.output())
        return found[1] if found else None

    return application.wait_until("the address of the HTTP service", said)


def status(application: Application | Job) -> dict[str, Any]:
    def answered() -> dict[str, Any] | None:
        try:
            response = client.get(f"{url(application)}/status", timeout=20.0)
        except httpx.HTTPError:
            return None
        body: dict[str, Any] = response.json() if response.is_success else {}
        return body if "account" in body else None

    return application.wait_until("an answer of /status", answered)


def decides(application: Application | Job, more: int = 3) -> dict[str, Any]:
    """Its status after so many more decisions."""
    before = status(application)["account"]["decisions"]

    def later() -> dict[str, Any] | None:
        now = status(application)
        return now if now["account"]["decisions"] >= before + more else None

    return application.wait_until("more decisions", later)


def test_each_account_is_served_where_its_application_says(accounts: Accounts) -> None:
    urls = [url(accounts.first), url(accounts.second)]
    assert urls[0] != urls[1]
    for each, name in ((accounts.first, "first"), (accounts.second, "second")):
        assert status(each)["account"]["id"] == name
    # One port listens: that of whoever came first. The other says so.
    ports = {str(each.port) for each in (accounts.first, accounts.second)}
    listening = {httpx.URL(each).port for each in urls}
    assert len(listening) == 1 and {str(each) for each in listening} < ports
    other = next(each for each in (accounts.first, accounts.second) if each.port not in listening)
    assert f":{other.port} have no effect" in other.output()
    paths = {"first": httpx.URL(urls[0]).path, "second": httpx.URL(urls[1]).path}
    assert "/" in paths.values()
    assert all(path in ("/", f"/{name}") for name, path in paths.items())


def test_a_job_without_the_clusters_token_is_refused(accounts: Accounts) -> None:
    refused = accounts.jobs.command("submit", "--", "true", token="0" * 64)
    assert refused.returncode != 0
    assert "token" in refused.stdout + refused.stderr


def test_a_submitted_job_that_is_waited_for_tells_how_it_ended(
    accounts: Accounts, tmp_path: Path
) -> None:
    state = f"paths.state_dir={tmp_path / 'state'}"
    command = ("python", "-m", "trading", "train", "--steps", "4096", "--set", state)
    result = accounts.jobs.submit("--", *command)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert "joining Ray" in output
    assert "learned 4,096 of 4,096 decisions" in output
    assert CheckpointStore(tmp_path / "state" / "checkpoints", 5).latest() is not None


def stop_the_job(accounts: Accounts) -> None:
    """It returns when the driver has ended, not at Ray's kill limit."""
    decides(accounts.second)
    script = (ROOT / "scripts" / "manage_k8s.sh").read_text()
    assert 'exec "${application[@]}" up' in script
    stopped = accounts.jobs.command("stop", Job.NAME)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    said = accounts.jobs.command("status", Job.NAME)
    assert f"Job '{Job.NAME}' was stopped" in said.stdout + said.stderr
    output = accounts.second.output()
    assert "joining Ray" in output and "Summary" in output
    with Journal(accounts.state / "journal-second.sqlite", read_only=True) as journal:
        assert journal.fold().decisions > 0
    assert CheckpointStore(accounts.state / "checkpoints", 5).latest() is not None


def test_one_that_ends_leaves_the_other_trading_and_able_to_start_again(
    accounts: Accounts,
) -> None:
    before = decides(accounts.first)
    gone = url(accounts.second)
    stop_the_job(accounts)
    after = decides(accounts.first)
    assert (after["process"], after["restarts"]) == (before["process"], before["restarts"])
    if httpx.URL(gone).path != "/":
        assert "second" not in client.get(f"{gone}/status", timeout=WAIT_S).text
    os.kill(after["process"], signal.SIGKILL)

    def again() -> dict[str, Any] | None:
        now = status(accounts.first)
        return now if now["process"] != after["process"] else None

    accounts.first.wait_until("a live market that Ray has started again", again)
    assert decides(accounts.first)["account"]["id"] == "first"
    assert accounts.first.terminate() == 0, accounts.first.output()
