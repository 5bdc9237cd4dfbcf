"""Three strategies, one of rules: in one application, in three that claim them, as three jobs.

Each trades as it does alone.
"""

import os
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest

from tests.asking import client
from tests.e2e.application import ANSWER_S, Application, environment
from tests.e2e.ray_head import BIN, ray_head
from tests.e2e.test_two_accounts import Job, Jobs
from tests.sockets import descendants
from trading.errors import JournalError
from trading.execution.events import (
    ChampionPromoted,
    DecisionMade,
    Event,
    PromotedBy,
    SessionClosed,
)
from trading.execution.journal import Journal
from trading.execution.lease import holder_of

pytestmark = [pytest.mark.slow, pytest.mark.long]

RULES = Path(__file__).parents[2] / "examples" / "plugins" / "calm_condor.py"
SETTINGS = f"""
symbols: [SPY]
plugins: [{RULES}]
env: {{sessions_per_episode: 1}}
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
Days: TypeAlias = dict[str, list[Event]]


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


def days_of(folder: Path, waits: Callable[..., Any], names: Sequence[str] = NAMES) -> Days:
    """The first day of each strategy, as `waits` of an application waits for it."""
    return {
        name: waits(f"a day of {name}", lambda name=name: first_day(folder, name)) for name in names
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Days:
    """The first day of each strategy, traded by itself."""
    days: Days = {}
    for name in NAMES:
        folder = tmp_path_factory.mktemp(name)
        with closing(started(folder, "--strategy", name)) as run:
            days |= days_of(folder, run.wait_until, (name,))
    return days


def test_each_strategy_trades_as_it_does_alone_and_the_death_of_one_does_not_touch_the_others(
    tmp_path: Path, alone: Days
) -> None:
    together = tmp_path / "together"
    with closing(started(together)) as run:
        days = days_of(together, run.wait_until)
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
    assert days == alone
    assert len(days["plain"]) > 78 and days["plain"] != days["learns"]
    by = {
        name: {each.trader for each in day if isinstance(each, DecisionMade)}
        for name, day in days.items()
    }
    assert by == {"plain": {""}, "other": {"calm_condor"}, "learns": {""}}


def test_three_replicas_that_claim_a_strategy_each_trade_what_each_trades_alone(
    tmp_path: Path, alone: Days
) -> None:
    state = ("--claim", "--set", f"paths.state_dir={tmp_path / 'state'}")
    with ExitStack() as stack:
        replicas = [
            stack.enter_context(closing(started(tmp_path / str(number), *state)))
            for number in range(3)
        ]
        assert days_of(tmp_path, replicas[0].wait_until) == alone
        ours = {
            name
            for each in replicas
            for name in NAMES
            if f"claimed the strategy {name}" in each.output()
        }
        assert ours == set(NAMES)
        for each in replicas:
            assert each.terminate() == 0, each.output()


def test_three_jobs_of_one_cluster_trade_what_each_trades_alone_and_one_that_dies_touches_none(
    tmp_path: Path, alone: Days
) -> None:
    env = environment(RAY_USAGE_STATS_ENABLED="0")
    env["PATH"] = f"{BIN}:{env['PATH']}"
    path = tmp_path / "settings.yaml"
    path.write_text(SETTINGS)
    state = ("--set", f"paths.state_dir={tmp_path / 'state'}")
    with ray_head(env, tmp_path / "head.log", cpus=8) as head, closing(Jobs(head, env)) as jobs:
        submitted = {
            name: Job(jobs, "--strategy", name, *state, name=name, config=str(path))
            for name in NAMES
        }
        for name, job in submitted.items():
            assert days_of(tmp_path, job.wait_until, (name,)) == {name: alone[name]}
        os.kill(driver_of(tmp_path, "plain"), signal.SIGKILL)
        submitted["other"].wait_until(
            "the end of the job", lambda: None if submitted["plain"].alive else True
        )
        for name in ("other", "learns"):
            before = decided(tmp_path, name)
            submitted[name].wait_until(
                f"decisions of {name}",
                lambda name=name, before=before: decided(tmp_path, name) > before or None,
            )
        for name in ("other", "learns"):
            stopped = jobs.command("stop", name)
            assert stopped.returncode == 0, stopped.stdout + stopped.stderr


def driver_of(folder: Path, name: str) -> int:
    """Process that holds the lease of a strategy's account, which is its driver."""
    holder = holder_of(folder / "state" / name / f"journal-{name}.sqlite")
    assert holder is not None
    return holder.pid


def decided(folder: Path, name: str) -> int:
    """Decisions in the journal of a strategy."""
    with Journal(folder / "state" / name / f"journal-{name}.sqlite", read_only=True) as journal:
        return journal.fold().decisions


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


SHARED = """
data:
  bar_seconds: 300
  simulation: {speed: 300, step_seconds: 60}
learner: shared
env: {sessions_per_episode: 1}
learning:
  pretrain_steps: 0
  num_envs: 2
  rollout_length: 8
  num_learners: 0
  update_frequency: 8
  save_frequency: 8
  rehearsal_share: 0
  gate: {sessions: 20, max_kl: 1000, margin_pct: 100}
strategies:
  one: {symbols: [SPY]}
  two: {symbols: [QQQ], seed: 9}
"""


def promoted_by_the_gate(folder: Path, name: str) -> int:
    path = folder / "state" / name / f"journal-{name}.sqlite"
    if not path.exists():
        return 0
    try:
        with Journal(path, read_only=True) as journal:
            return sum(
                isinstance(each, ChampionPromoted) and each.by is PromotedBy.GATE
                for each in journal.events()
            )
    except JournalError:
        return 0


def test_strategies_share_a_learner_and_the_death_of_one_or_of_it_leaves_the_others(
    tmp_path: Path,
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(SHARED)
    with closing(Application.up(tmp_path, "--config", str(path))) as run:
        both = ("one", "two")

        def learner_of(name: str) -> dict[str, Any]:
            return status_of(run, name)["learner"]

        def learned() -> bool | None:
            found = learner_of("one").get("fragments", {})
            return True if all(found.get(name, 0) > 0 for name in both) else None

        run.wait_until("fragments of both", learned)
        for name in both:
            run.wait_until(
                f"a promotion in the journal of {name}",
                lambda name=name: promoted_by_the_gate(tmp_path, name) or None,
            )
        (folder,) = tmp_path.rglob("shared-learner")
        assert list(folder.rglob("step-*")), "its checkpoints are in a folder of their own"

        # A strategy's live market dies: the other one goes on, in trading and in learning.
        before = {name: status_of(run, name) for name in both}
        os.kill(before["one"]["process"], signal.SIGKILL)
        fragments = learner_of("two")["fragments"]["two"]
        trades_on(run, "two")
        run.wait_until(
            "more fragments of the other one",
            lambda: learner_of("two")["fragments"]["two"] > fragments or None,
        )
        trades_on(run, "one")
        assert status_of(run, "two")["process"] == before["two"]["process"]

        # The learner dies: both trade on, and it comes back.
        (learner,) = (
            each for each in descendants(run.process.pid) if "SharedLearner" in name_of(each)
        )
        os.kill(learner, signal.SIGKILL)
        for name in both:
            trades_on(run, name)
        run.wait_until(
            "a learner that has learned again",
            lambda: (not learner_of("two")["paused"] and learned()) or None,
        )
        assert status_of(run, "two")["process"] == before["two"]["process"]
        assert run.terminate() == 0, run.output()


def name_of(process: int) -> str:
    """Command line of a process; empty where it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode().replace("\0", " ")
    except OSError:
        return ""


def test_jobs_of_one_cluster_share_a_learner_and_the_end_of_one_leaves_it_to_the_others(
    tmp_path: Path,
) -> None:
    env = environment(RAY_USAGE_STATS_ENABLED="0")
    path = tmp_path / "settings.yaml"
    path.write_text(SHARED + "  three: {symbols: [IWM], seed: 10}\n")
    state = ("--config", str(path), "--set", f"paths.state_dir={tmp_path / 'state'}")
    with ray_head(env, tmp_path / "head.log", cpus=8) as head, ExitStack() as stack:
        joins = ("--address", head.address)
        runs = {
            name: stack.enter_context(
                closing(
                    Application.up(tmp_path / name, *state, *joins, "--strategy", name, env=env)
                )
            )
            for name in ("one", "two", "three")
        }

        def learned(run: Application, *names: str, more_than: int = 0) -> bool | None:
            """Whether the shared learner has fragments of these, as a strategy's log has it."""
            found = fragments(run)
            return True if all(found.get(name, 0) > more_than for name in names) else None

        def fragments(run: Application) -> dict[str, int]:
            if (said := url_of(run)) is None:
                return {}
            try:
                response = client.get(f"{said}/status", timeout=ANSWER_S)
            except httpx.HTTPError:
                return {}  # Whoever answered may have ended with another application.
            body = response.json() if response.is_success else {}
            return dict(body.get("learner", {}).get("fragments", {}))

        two = runs["two"]
        two.wait_until("fragments of all", lambda: learned(two, *runs))
        for name, run in runs.items():
            run.wait_until(
                f"a promotion in the journal of {name}",
                lambda name=name: promoted_by_the_gate(tmp_path, name) or None,
            )
        assert len(list(tmp_path.rglob("shared-learner"))) == 1

        # Whoever made it ends, and another one dies: the last one learns on by the same learner.
        assert runs["one"].terminate() == 0, runs["one"].output()
        runs["three"].process.kill()
        before = fragments(two).get("two", 0)
        two.wait_until("more fragments", lambda: learned(two, "two", more_than=before))
        assert two.terminate() == 0, two.output()


def url_of(run: Application) -> str | None:
    """Where an application of a cluster says that it is served."""
    found = re.search(r"serving: (http://\S+)/status", run.output())
    return found[1] if found else None


def test_a_strategy_that_shares_a_learner_is_not_run_on_a_ray_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(SHARED)
    for alone in (("--strategy", "one"), ("--place", "1")):
        with closing(Application.up(tmp_path, "--config", str(path), *alone)) as run:
            assert run.wait_exit() != 0, run.output()
            said = " ".join(run.output().split())
            assert "run all of them in one application" in said and "KubeRay" in said
