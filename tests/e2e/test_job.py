"""`ray job submit` against a Ray that `ray start --head` began, with token authentication."""

import subprocess
from pathlib import Path

import pytest

from tests.e2e.application import environment, wait_for
from tests.e2e.ray_head import BIN, ray_head
from tests.ports import free_port
from tests.waits import START_S, WAIT_S
from trading.execution.journal import Journal
from trading.learning.checkpoints import CheckpointStore

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_a_submitted_job_runs_the_application_on_its_cluster(tmp_path: Path) -> None:
    env = environment(RAY_USAGE_STATS_ENABLED="0")
    env["PATH"] = f"{BIN}:{env['PATH']}"
    state = tmp_path / "state"
    with ray_head(env, tmp_path / "head.log") as head:
        submit = [BIN / "ray", "job", "submit", "--address", head.dashboard, "--"]
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
