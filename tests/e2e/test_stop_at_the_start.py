"""`trading stop` while the application is still starting, and waits for what does not come."""

import threading
from pathlib import Path

import pytest
import ray
from rich.console import Console
from typer.testing import CliRunner

from tests.e2e.application import Application, wait_for
from tests.waits import START_S
from trading.app.display import Display
from trading.app.driver import run_application
from trading.cli.main import app
from trading.config import absolute_paths, load_settings
from trading.execution.lease import holder_of
from trading.live import assembly
from trading.serving.supervisor import STARTING, STOPPED, Backoff, Supervisor

pytestmark = pytest.mark.slow

# A learner whose node nobody brings, as where a cloud has no GPU to give.
NO_NODE = ("learning.num_learners=1", "learning.learner_resource=no-such-node")
WAITS = "learner: 1 actor(s)"


def stopped(state: Path) -> str:
    """What `trading stop` says of the account in that folder."""
    result = CliRunner().invoke(app, ["stop", "--set", f"paths.state_dir={state}"])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.usefixtures("local_ray")
def test_a_supervisor_stops_while_it_starts(tmp_path: Path) -> None:
    overrides = (f"paths.state_dir={tmp_path}", *NO_NODE)
    settings = absolute_paths(load_settings(None, overrides, {}))
    log = tmp_path / "log"

    def trade(stop: threading.Event, _: object) -> None:
        with log.open("w") as output:
            run_application(settings, Display(Console(file=output, width=200)), stop)

    supervisor = Supervisor(assembly.journal_path(settings), trade, Backoff())
    try:
        wait_for(
            "the supervisor waits for its learner's node",
            lambda: (log.exists() and WAITS in log.read_text()) or None,
            START_S,
            lambda: True,
        )
        assert supervisor.state.phase == STARTING
        assert "stopped: " in stopped(tmp_path)
        assert supervisor.state.phase == STOPPED
        assert supervisor.state.failures == 0
        assert holder_of(assembly.journal_path(settings)) is None
    finally:
        supervisor.close(START_S)
    # Nothing is asked of the cluster any more.
    groups = ray.util.placement_group_table().values()
    assert "PENDING" not in {each["state"] for each in groups}


@pytest.mark.long
def test_up_stops_while_it_starts(tmp_path: Path) -> None:
    settings = [word for each in NO_NODE for word in ("--set", each)]
    application = Application.up(tmp_path, *settings)
    try:
        application.wait_until(
            "it waits for its learner's node", lambda: WAITS in application.output() or None
        )
        assert "stopped: " in stopped(tmp_path / "state")
        assert application.wait_exit() == 0
        assert "Summary" in application.output()
    finally:
        application.close()
