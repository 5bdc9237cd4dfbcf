"""Three strategies, one of rules, each as it trades alone; replicas that claim one each."""

import os
import signal
from contextlib import closing
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.application import Application, environment
from tests.sockets import descendants
from trading.errors import JournalError
from trading.execution.events import DecisionMade, Event, SessionClosed
from trading.execution.journal import Journal

pytestmark = [pytest.mark.slow, pytest.mark.long]

RULES = Path(__file__).parents[2] / "examples" / "plugins" / "calm_condor.py"
SETTINGS = f"""
symbols: [SPY]
plugins: [{RULES}]
data:
  bar_seconds: 300
  simulation: {{speed: 0, step_seconds: 60}}
learning: {{pretrain_steps: 0, online: false, lockstep: true}}
strategies:
  plain:
  other:
    symbols: [QQQ]
    seed: 8
    account: {{initial_capital: 50000}}
    policy: {{trader: calm_condor}}
  learns: {{learning: {{online: true, update_frequency: 39, gate: {{sessions: 20}}}}}}
"""
NAMES = ("plain", "other", "learns")


def started(folder: Path, *arguments: str) -> Application:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.yaml"
    path.write_text(SETTINGS)
    return Application.up(folder, "--config", str(path), *arguments)


def first_day(folder: Path, name: str) -> list[Event] | None:
    """All that the journal of a strategy holds of its first session, once that has closed."""
    path = folder / "state" / name / f"journal-{name}.sqlite"
    if not path.exists():
        return None
    try:
        with Journal(path, read_only=True) as journal:
            events = list(journal.events())
    except JournalError:
        # It is made at this moment.
        return None
    open_ones = list(takewhile(lambda each: not isinstance(each, SessionClosed), events))
    return events[: len(open_ones) + 1] if len(open_ones) < len(events) else None


def status_of(application: Application, name: str) -> dict[str, Any]:
    def answered() -> dict[str, Any] | None:
        response = application.get(f"/status/{name}")
        body = response.json() if response is not None and response.is_success else {}
        return body if "account" in body else None

    return application.wait_until(f"the status of {name}", answered)


def trades_on(application: Application, name: str) -> dict[str, Any]:
    """Its status after more decisions."""
    before = status_of(application, name)["account"]["decisions"]

    def later() -> dict[str, Any] | None:
        now = status_of(application, name)
        return now if now["account"]["decisions"] > before else None

    return application.wait_until(f"decisions of {name}", later)


def test_each_strategy_trades_as_it_does_alone_and_the_death_of_one_does_not_touch_the_others(
    tmp_path: Path,
) -> None:
    together = tmp_path / "together"
    with closing(started(together)) as run:
        days = {
            name: run.wait_until(f"a day of {name}", lambda name=name: first_day(together, name))
            for name in NAMES
        }
        before = {name: status_of(run, name) for name in NAMES}
        assert len({each["process"] for each in before.values()}) == 3
        os.kill(before["plain"]["process"], signal.SIGKILL)

        def again() -> bool | None:
            now = status_of(run, "plain")
            return True if now["process"] != before["plain"]["process"] else None

        run.wait_until("a live market that is started again", again)
        trades_on(run, "plain")
        for name in ("other", "learns"):
            now = trades_on(run, name)
            assert (now["process"], now["restarts"], now["supervisor"]["failures"]) == (
                before[name]["process"],
                0,
                0,
            )
        response = run.get("/metrics")
        assert response is not None
        for name in NAMES:
            assert f'trading_bot_portfolio_value{{strategy="{name}"}}' in response.text
        assert run.terminate() == 0, run.output()
    for name in NAMES:
        with Journal(together / "state" / name / f"journal-{name}.sqlite") as journal:
            assert journal.fold().account_id == name
        alone = tmp_path / name
        with closing(started(alone, "--strategy", name)) as run:
            day = run.wait_until("a day", lambda alone=alone, name=name: first_day(alone, name))
        assert day == days[name]
    assert len(days["plain"]) > 78 and days["plain"] != days["learns"]
    by = {
        name: {each.trader for each in day if isinstance(each, DecisionMade)}
        for name, day in days.items()
    }
    assert by == {"plain": {""}, "other": {"calm_condor"}, "learns": {""}}


def test_a_replica_without_a_free_strategy_stands_by_and_takes_over_when_another_dies(
    tmp_path: Path,
) -> None:
    only = ("--claim", "--set", "strategies.one.seed=9")
    path = tmp_path / "settings.yaml"
    path.write_text(SETTINGS.partition("strategies:")[0])
    shared = ("--config", str(path), "--set", f"paths.state_dir={tmp_path / 'state'}", *only)
    env = environment()
    with closing(Application.up(tmp_path / "a", *shared, env=env)) as first:
        first.wait_ready()
        with closing(Application.up(tmp_path / "b", *shared, env=env)) as second:

            def waits() -> str | None:
                response = second.get("/ready")
                # Serve listens before it knows of the application: that is no JSON.
                if response is None or response.status_code != 503:
                    return None
                reasons = response.json().get("reasons")
                return reasons[0] if reasons else None

            assert second.wait_until("why it is not ready", waits) == (
                "no strategy is free: 1 of 1 taken"
            )
            health = second.get("/health")
            assert health is not None and health.status_code == 200
            decided = status_of(first, "one")["account"]["decisions"]
            children = descendants(first.process.pid)
            first.process.kill()
            second.wait_ready()
            assert trades_on(second, "one")["account"]["decisions"] > decided
            assert children.isdisjoint(descendants(second.process.pid))
            assert second.terminate() == 0, second.output()
