"""`ray job submit` against a Ray that `ray start --head` began, with token authentication."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.application import ROOT, environment, wait_for
from tests.ports import free_port
from tests.waits import START_S, STOP_S, WAIT_S
from trading.execution.journal import Journal
from trading.learning.checkpoints import CheckpointStore

pytestmark = [pytest.mark.slow, pytest.mark.long]

BIN = Path(sys.executable).parent


@contextmanager
def ray_head(env: dict[str, str], log: Path) -> Iterator[str]:
    """The dashboard's address of a head started from the repository's root."""
    dashboard = free_port()
    # Ray's sockets lie below this folder, and their paths have a length limit.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, log.open("wb") as output:
        head = subprocess.Popen(
            [
                BIN / "ray",
                "start",
                "--head",
                "--block",
                "--node-ip-address=127.0.0.1",
                f"--port={free_port()}",
                f"--ray-client-server-port={free_port()}",
                "--dashboard-host=127.0.0.1",
                f"--dashboard-port={dashboard}",
                f"--dashboard-agent-listen-port={free_port()}",
                "--num-cpus=2",
                "--object-store-memory=200000000",
                f"--temp-dir={folder}",
            ],
            cwd=ROOT,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        address = f"http://127.0.0.1:{dashboard}"

        def answers() -> bool | None:
            try:
                return httpx.get(f"{address}/api/version").status_code in (200, 401) or None
            except httpx.HTTPError:
                return None

        try:
            wait_for("the dashboard", answers, START_S, lambda: head.poll() is None)
            yield address
        finally:
            head.terminate()
            try:
                head.wait(STOP_S)
            except subprocess.TimeoutExpired:
                head.kill()
                head.wait(STOP_S)


def test_a_submitted_job_runs_the_application_on_its_cluster(tmp_path: Path) -> None:
    env = environment(RAY_USAGE_STATS_ENABLED="0")
    env["PATH"] = f"{BIN}:{env['PATH']}"
    state = tmp_path / "state"
    with ray_head(env, tmp_path / "head.log") as address:
        submit = [BIN / "ray", "job", "submit", "--address", address, "--"]
        job = [
            *("python", "-m", "trading", "up", "--config", "configs/local.yaml"),
            *("--duration", "10", "--port", str(free_port())),
            *("--set", f"paths.state_dir={state}", "--set", "learning.pretrain_steps=4096"),
        ]
        unauthorised = subprocess.run(
            [*submit, "true"],
            env={**env, "RAY_AUTH_TOKEN": "0" * 64},
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        assert unauthorised.returncode != 0

        def submitted() -> subprocess.CompletedProcess[str] | None:
            result = subprocess.run(
                [*submit, *job],
                env=env,
                capture_output=True,
                text=True,
                timeout=WAIT_S,
                check=False,
            )
            # The head's agent comes up some seconds after the dashboard.
            return None if "No available agent" in result.stderr else result

        result = wait_for("the agent that takes jobs", submitted, START_S, lambda: True)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert "joining Ray" in output
    assert "Summary" in output
    with Journal(state / "journal-paper.sqlite", read_only=True) as journal:
        assert journal.fold().decisions > 0
    assert CheckpointStore(state / "checkpoints", 5).latest() is not None
