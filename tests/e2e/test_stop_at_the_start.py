"""`trading stop` while the application is still starting, and waits for what does not come."""

import signal
import threading
from pathlib import Path

import pytest
import ray
from rich.console import Console
from typer.testing import CliRunner

from tests.e2e.application import Application, wait_for
from tests.e2e.healed import await_gone
from tests.sockets import descendants
from tests.waits import START_S, STOP_S
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
NO_PRETRAINING = ("learning.pretrain_steps=0",)


def stopped(state: Path) -> str:
    """What `trading stop` says of the account in that folder."""
    words = ["stop", "--timeout", f"{STOP_S:g}", "--set", f"paths.state_dir={state}"]
    result = CliRunner().invoke(app, words)
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


# As `trading up` tells them, in the order in which they come; and by what it is told to stop.
BEGINS = [
    ("· starting Ray", NO_NODE, "trading stop"),
    (WAITS, NO_NODE, "trading stop"),
    ("· starting the HTTP service", NO_PRETRAINING, "SIGTERM"),
    ("· connecting the feeds", NO_PRETRAINING, "trading stop"),
]


@pytest.mark.long
@pytest.mark.parametrize(("begins", "settings", "by"), BEGINS)
def test_up_stops_in_order_whatever_of_it_is_starting(
    begins: str, settings: tuple[str, ...], by: str, tmp_path: Path
) -> None:
    application = Application.up(tmp_path, *[w for each in settings for w in ("--set", each)])
    try:
        application.wait_until(begins, lambda: begins in application.output() or None, poll_s=0.02)
        started = descendants(application.process.pid)
        if by == "trading stop":
            assert "stopped: " in stopped(tmp_path / "state"), application.output()
        else:
            application.process.send_signal(signal.SIGTERM)
        assert application.wait_exit() == 0, application.output()
        assert "Summary" in application.output()
        assert "Traceback" not in application.output()
        await_gone(started)
    finally:
        application.close()
