"""The driver's loop against a live market that is an actor of its own, and that dies."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.learning.experience import SMALL, random_rollout
from tests.waits import WAIT_S
from trading.app import learning_loop
from trading.app.learning_loop import LearningLoop, learner_figures
from trading.execution.events import ChallengerRejected, PromotedBy
from trading.learning.champion.manager import ChampionManager
from trading.learning.champion.store import AccountChampion, ChampionStore, Promotion
from trading.learning.checkpoints import write_module_weights
from trading.learning.online import LearnerReport
from trading.learning.policy import Policy
from trading.live.trader import Fragment, FragmentId, LearnerReply

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


class Live:
    """Gives fragments, keeps what it is told, and counts a refusal from the second answer on."""

    def __init__(self, fragments: int) -> None:
        self.answers: list[LearnerReply] = []
        self._left = fragments

    def next_fragment(self, timeout_s: float) -> Fragment | None:
        if not self._left:
            return None
        self._left -= 1
        return Fragment(FragmentId(1, self._left), random_rollout(), self.account_champion())

    def account_champion(self) -> AccountChampion:
        return AccountChampion(champion=1, newest=1, refusals=int(len(self.answers) >= 2))

    def deliver(self, answer: LearnerReply, figures: Any, status: dict[str, Any]) -> None:
        self.answers.append(answer)

    def told(self) -> list[LearnerReply]:
        return self.answers


class Refuser:
    """A learner whose first challenger is refused; everything else is the manager's."""

    def __init__(self, manager: ChampionManager) -> None:
        self.report = LearnerReport()
        self.follow = manager.follow
        self.learned = 0
        self._manager = manager

    def learn(self, rollout: object) -> None:
        self.learned += 1
        if self.learned == 1:
            self._manager.reject(ChallengerRejected(0, 0, 5, 0, ("kl",), "too far", 1, False))


def manager(folder: Path) -> ChampionManager:
    made = ChampionManager(ChampionStore(folder, 3))
    made.begin(write(1), 1, "the beginning", AccountChampion())
    return made


def write(seed: int) -> Callable[[Path], None]:
    return lambda folder: write_module_weights(folder, Policy(SMALL, seed).weights())


def told(live: Any) -> list[LearnerReply]:
    try:
        answers: list[LearnerReply] = ray.get(live.told.remote())
    except ray.exceptions.RayActorError:
        return []
    return answers


def run_until(
    loop: LearningLoop, stop: threading.Event, live: Any, done: Any
) -> list[LearnerReply]:
    thread = threading.Thread(target=loop.run)
    thread.start()
    deadline, answers = time.monotonic() + WAIT_S, list[LearnerReply]()
    try:
        while time.monotonic() < deadline:
            answers = told(live)
            if done(answers):
                return answers
            assert thread.is_alive()
            thread.join(0.05)
        raise AssertionError(f"not told in time: {answers}")
    finally:
        stop.set()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_a_refusal_is_sent_again_until_the_account_counts_it(tmp_path: Path) -> None:
    live, stop = ray.remote(Live).options(num_cpus=0).remote(4), threading.Event()
    present = manager(tmp_path)
    learner: Any = Refuser(present)
    loop = LearningLoop(live, present, learner, None, lockstep=True, stop=stop)
    answers = run_until(loop, stop, live, lambda told: len(told) == 4)
    assert [len(each.decisions) for each in answers] == [1, 1, 0, 0]
    assert answers[0].decisions == answers[1].decisions
    assert all(each.fragment is not None for each in answers)


class Hangs(Refuser):
    """A learner that is at its first fragment until it is let go."""

    def __init__(self, manager: ChampionManager) -> None:
        super().__init__(manager)
        self.go_on = threading.Event()

    def learn(self, rollout: object) -> None:
        self.go_on.wait(WAIT_S)


def test_how_long_it_has_been_at_a_fragment_is_known_while_the_learner_hangs(
    tmp_path: Path,
) -> None:
    live, stop = ray.remote(Live).options(num_cpus=0).remote(1), threading.Event()
    present = manager(tmp_path)
    learner: Any = Hangs(present)
    loop = LearningLoop(live, present, learner, None, lockstep=True, stop=stop)
    assert loop.busy_s == 0.0

    def hung(_: list[LearnerReply]) -> bool:
        if loop.busy_s > 1.0:
            learner.go_on.set()
        return learner.go_on.is_set() and loop.busy_s == 0.0

    run_until(loop, stop, live, hung)


class Frozen(Live):
    """An account whose owner promoted champion 2."""

    def account_champion(self) -> AccountChampion:
        return AccountChampion(2, 1, 2, 1)


def test_without_a_learner_the_account_is_followed_too(tmp_path: Path) -> None:
    live, stop = ray.remote(Frozen).options(num_cpus=0).remote(0), threading.Event()
    present = manager(tmp_path)
    account = AccountChampion(1, 0, 1)
    ChampionStore(tmp_path, 3).write(write(2), Promotion(2, PromotedBy.OWNER, "by hand"), account)
    loop = LearningLoop(live, present, None, None, lockstep=False, stop=stop)
    assert run_until(loop, stop, live, lambda _: present.champion.number == 2) == []


class Promoter(Refuser):
    """A learner whose first challenger is promoted."""

    def learn(self, rollout: object) -> None:
        self.learned += 1
        if self.learned == 1:
            self._manager.promote(write(2), Promotion(2, PromotedBy.GATE, "not worse"))


class Takes(Live):
    """Takes up a promotion that it is told the second time."""

    def account_champion(self) -> AccountChampion:
        took = len(self.answers) >= 2
        return AccountChampion(2, 1, 2, 1) if took else AccountChampion(1, 0, 1)


def test_a_promotion_is_sent_again_until_the_account_has_it(tmp_path: Path) -> None:
    live, stop = ray.remote(Takes).options(num_cpus=0).remote(4), threading.Event()
    present = manager(tmp_path)
    learner: Any = Promoter(present)
    loop = LearningLoop(live, present, learner, None, lockstep=True, stop=stop)
    answers = run_until(loop, stop, live, lambda told: len(told) == 4)
    numbers = [[each.champion for each in answer.decisions] for answer in answers]
    assert numbers == [[2], [2], [], []]
    assert present.champion.number == 2


def test_a_promotion_does_not_wait_for_the_accounts_next_fragment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_loop, "_AGAIN_S", 0.1)
    live, stop = ray.remote(Takes).options(num_cpus=0).remote(0), threading.Event()
    present = manager(tmp_path)
    present.promote(write(2), Promotion(2, PromotedBy.GATE, "not worse"))
    learner: Any = Refuser(present)
    loop = LearningLoop(live, present, learner, None, lockstep=False, stop=stop)
    answers = run_until(loop, stop, live, lambda told: len(told) == 2 and not present.waiting)
    assert [each.fragment for each in answers] == [None, None], "sent again, until it has it"
    numbers = [[each.champion for each in answer.decisions] for answer in answers]
    assert numbers == [[2], [2]]


class DiesOnce(Live):
    """Dies of the first answer that it is given, and lives again."""

    def __init__(self, marker: Path) -> None:
        super().__init__(10)
        self._marker = marker

    def deliver(self, answer: LearnerReply, figures: Any, status: dict[str, Any]) -> None:
        if not self._marker.exists():
            self._marker.touch()
            os._exit(1)
        super().deliver(answer, figures, status)


def test_a_promotion_that_could_not_be_handed_over_is_sent_again(tmp_path: Path) -> None:
    actor = ray.remote(DiesOnce).options(num_cpus=0, max_restarts=-1, max_task_retries=0)
    live, stop = actor.remote(tmp_path / "died"), threading.Event()
    present = manager(tmp_path / "checkpoints")
    learner: Any = Promoter(present)
    loop = LearningLoop(live, present, learner, None, lockstep=True, stop=stop)
    answer, *_ = run_until(loop, stop, live, lambda told: len(told) >= 1)
    assert (tmp_path / "died").exists()
    (decision,) = answer.decisions
    assert decision.champion == 2


def test_the_loop_outlives_the_live_market(tmp_path: Path) -> None:
    actor = ray.remote(Live).options(num_cpus=0, max_restarts=-1, max_task_retries=0)
    live, stop = actor.remote(10_000), threading.Event()
    present = manager(tmp_path)
    learner: Any = Refuser(present)
    loop = LearningLoop(live, present, learner, None, lockstep=False, stop=stop)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        ray.get(live.told.remote())
        ray.kill(live, no_restart=False)
        before = learner.learned
        for _ in range(1200):
            if learner.learned > before + 1:
                break
            thread.join(0.05)
        assert learner.learned > before + 1
    finally:
        stop.set()
        thread.join(30.0)
    assert not thread.is_alive()


def test_figures_are_the_reports() -> None:
    report = LearnerReport(updates=7, live_updates=5, refused=2, restarts=1, grad_norm=0.25)
    figures = learner_figures(report)
    assert (figures.challenger_version, figures.updates) == (7, 5)
    assert (figures.refused_fragments, figures.restarts, figures.grad_norm) == (2, 1, 0.25)
