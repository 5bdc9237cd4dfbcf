"""`ray job submit` against a Ray that `ray start --head` began, with token authentication."""

import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.application import ROOT, environment, wait_for
from tests.e2e.ray_head import BIN, ray_head
from tests.ports import free_port
from tests.waits import START_S, STOP_S, WAIT_S
from trading.execution.journal import Journal
from trading.learning.checkpoints import CheckpointStore

pytestmark = [pytest.mark.slow, pytest.mark.long]

_NEVER_S = "1000000"


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

        result = submitted([*submit, *job], env)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert "joining Ray" in output
    assert "Summary" in output
    with Journal(state / "journal-paper.sqlite", read_only=True) as journal:
        assert journal.fold().decisions > 0
    assert CheckpointStore(state / "checkpoints", 5).latest() is not None


def test_a_stop_returns_when_the_driver_has_ended_not_at_rays_kill_limit(tmp_path: Path) -> None:
    """As `manage_k8s.sh --kuberay` starts it and stops it."""
    env = environment(RAY_USAGE_STATS_ENABLED="0", RAY_JOB_STOP_WAIT_TIME_S=_NEVER_S)
    env["PATH"] = f"{BIN}:{env['PATH']}"
    state = tmp_path / "state"
    script = (ROOT / "scripts" / "manage_k8s.sh").read_text()
    assert 'exec "${application[@]}" up' in script
    with ray_head(env, tmp_path / "head.log") as head:
        ray = [str(BIN / "ray"), "job"]
        named = ["--address", head.dashboard]
        port = free_port()
        job = [
            *("exec", "python", "-m", "trading", "up", "--config", "configs/local.yaml"),
            *("--port", str(port), "--set", f"paths.state_dir={state}"),
            *("--set", "learning.pretrain_steps=0"),
        ]
        begun = submitted(
            [*ray, "submit", *named, "--submission-id", "bot", "--no-wait", "--", *job], env
        )
        assert begun.returncode == 0, begun.stderr

        def asked(*words: str) -> str:
            done = subprocess.run(
                [*ray, *words],
                env=env,
                capture_output=True,
                text=True,
                timeout=STOP_S,
                check=False,
            )
            return done.stdout + done.stderr

        def answers() -> bool | None:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/health", timeout=10.0).is_success or None
            except httpx.HTTPError:
                return None

        wait_for("the application answers", answers, START_S, lambda: True, poll_s=1.0)
        asked("stop", *named, "bot")
        assert "Job 'bot' was stopped" in asked("status", *named, "bot")
        assert "Summary" in asked("logs", *named, "bot")
    assert CheckpointStore(state / "checkpoints", 5).latest() is not None


def submitted(command: list[str | Path], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What `ray job submit` said once the head's agent is there, seconds after the dashboard."""

    def answer() -> subprocess.CompletedProcess[str] | None:
        result = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=WAIT_S, check=False
        )
        return None if "No available agent" in result.stderr else result

    return wait_for("the agent that takes jobs", answer, START_S, lambda: True)
