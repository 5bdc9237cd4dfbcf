"""The learner beside the gate: what is promoted, what is given up, what survives."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import ray

from tests.learning.algorithms import NETWORK, Build, config, equal, live
from tests.learning.recall_env import MaskedRecallVectorEnv
from tests.usual import gate_limits
from trading.execution.events import ChallengerRejected, ChampionPromoted, PromotedBy
from trading.learning.champion.gate import (
    KL,
    NOT_FINITE,
    UNPROVEN,
    Gate,
    GateResult,
    HeldOut,
    SessionTrader,
)
from trading.learning.champion.manager import ChampionManager, PromotionDecision
from trading.learning.champion.store import AccountChampion, ChampionStore
from trading.learning.checkpoints import CheckpointStore, verify, write_module_weights
from trading.learning.online import OnlineLearner, OnlineRules
from trading.learning.policy import Policy
from trading.learning.ppo import CLSTMPPO
from trading.learning.replay_mix import ReplayMix, columns_of
from trading.learning.rollout import Rollout

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

MARGIN_PCT = 0.2


def recall(trader: SessionTrader, length: int = 5) -> np.ndarray:
    """Right answers of 64 accounts in 60 steps, a hundredth of the capital each."""
    env = MaskedRecallVectorEnv(num_envs=64, seed=99, length=length)
    seen, _ = env.reset()
    earned, first = np.zeros(64), np.ones(64, np.bool_)
    for _ in range(60):
        seen, rewards, first, _, _ = env.step(trader(seen, first))
        earned += rewards
    return 0.01 * earned


@dataclass
class Course:
    """A learner with all that it needs."""

    algorithm: CLSTMPPO
    store: CheckpointStore
    champions: ChampionStore
    manager: ChampionManager
    gate: Gate
    rules: OnlineRules
    means: dict[int, float] = field(default_factory=dict)

    @property
    def learner(self) -> OnlineLearner:
        return OnlineLearner(self.algorithm, self.store, self.manager, self.gate, self.rules)

    def learn(self, learner: OnlineLearner, rollout: Rollout) -> PromotionDecision | None:
        """One update, of an account that takes up at once what was decided."""
        decision = learner.learn(rollout)
        self.manager.settle()
        return decision

    def clean(self) -> Rollout:
        (rollout,) = self.algorithm.sample()
        assert isinstance(rollout, Rollout)
        return rollout

    def mean(self) -> float:
        """What the champion earns on the held-out sessions, in percent."""
        champion = self.manager.champion
        if champion.number not in self.means:
            result = self.gate.judge(champion.weights, champion.weights)
            self.means[champion.number] = result.compared[0].champion
        return self.means[champion.number]


@pytest.fixture
def course(build: Build, tmp_path: Path) -> Callable[..., Course]:
    def begin(
        updates: int = 1,
        max_kl: float = 9.0,
        patience: int = 9,
        trained: int = 0,
        share: float = 0.0,
        learners: int = 0,
    ) -> Course:
        algorithm = build(config().learners(num_learners=learners, num_cpus_per_learner=0.5))
        for _ in range(trained):
            algorithm.train()
        store = CheckpointStore(tmp_path, keep=3)
        champions = ChampionStore(tmp_path, keep=3)
        manager = ChampionManager(champions)
        version = algorithm.weights_version
        manager.begin(algorithm.save_to_path, version, "the beginning", AccountChampion())
        limits = gate_limits(margin_pct=MARGIN_PCT, max_kl=max_kl)
        old_regime = HeldOut("old regime", lambda trader: recall(trader, length=7))
        gate = Gate(NETWORK, limits, [HeldOut("recall", recall), old_regime])
        rules = OnlineRules(10_000_000, share, updates, patience, max_reward=50.0)
        return Course(algorithm, store, champions, manager, gate, rules)

    return begin


def test_what_learns_is_promoted_and_trades_from_then_on(course: Callable[..., Course]) -> None:
    at = course(updates=3)
    learner, before = at.learner, at.mean()
    decisions = [at.learn(learner, at.clean()) for _ in range(15)]
    assert decisions[0] is None and decisions[1] is None
    promoted = [r for r in decisions if r and isinstance(r, ChampionPromoted)]
    assert promoted
    last = promoted[-1]
    assert last.by is PromotedBy.GATE
    assert {each.held_out for each in last.compared} == {"recall", "old regime"}
    verify(at.champions.path(last.champion))
    assert at.manager.champion.number == last.champion == 1 + len(promoted)
    assert at.mean() > before
    assert learner.report.judgements == 5
    assert learner.report.judgement_seconds > 0.0


def test_a_poisoned_window_never_makes_the_champion_worse(course: Callable[..., Course]) -> None:
    """What is right is punished, window after window; clean fragments are promoted again."""
    at = course(updates=4, trained=40, patience=2)
    learner, start = at.learner, at.mean()
    events = []
    for _ in range(16):
        rollout = at.clean()
        decision = at.learn(learner, replace(rollout, rewards=-20.0 * rollout.rewards))
        events += [decision] if decision else []
        assert at.mean() >= start - MARGIN_PCT
    refused = [each for each in events if isinstance(each, ChallengerRejected)]
    assert any(each.reset for each in refused), "what was poisoned is given up"
    assert [each.number for each in refused] == list(range(1, len(refused) + 1))
    clean = [learner.learn(at.clean()) for _ in range(8)]
    assert any(r and isinstance(r, ChampionPromoted) for r in clean)


@pytest.mark.parametrize("poison", ["rewards", "observations", "nan"])
def test_a_fragment_that_no_market_can_have_made_is_refused(
    course: Callable[..., Course], poison: str
) -> None:
    at = course()
    at.rules = at.rules._replace(max_observation=10.0)
    learner, before = at.learner, at.algorithm.weights()
    clean = at.clean()
    changes = {
        "rewards": {"rewards": np.where(clean.rewards > 0, np.float32(1e30), clean.rewards)},
        "observations": {"observations": clean.observations * np.float32(1e30)},
        "nan": {"rewards": clean.rewards * np.float32(np.nan)},
    }
    assert learner.learn(replace(clean, **changes[poison])) is None
    assert learner.report.refused == 1
    assert equal(at.algorithm.weights(), before)
    assert learner.learn(at.clean()) is not None


def test_a_harmful_challenger_is_reset_with_its_optimizer(course: Callable[..., Course]) -> None:
    at = course(max_kl=1e-9, trained=1)
    learner = at.learner
    champion = at.manager.champion
    rollout = at.clean()
    decision = learner.learn(rollout)
    assert decision is not None and isinstance(decision, ChallengerRejected)
    assert decision.failed == (KL,) and decision.reset
    assert equal(at.algorithm.weights(), champion.weights)
    latest = at.store.latest()
    assert latest is not None
    assert latest[1] == {"step": champion.version, "version": champion.version}
    again = learner.learn(rollout)
    assert again is not None and again.kl == decision.kl, "the same from the beginning"


def test_what_was_given_up_stays_on_disk_and_is_not_resumed(course: Callable[..., Course]) -> None:
    at = course(updates=2, max_kl=1e-9, trained=1)
    learner = at.learner
    learner.learn(at.clean())
    learner.save()
    learner.learn(at.clean())
    assert at.store.steps() == [2, 3]
    latest = at.store.latest()
    assert latest is not None and latest[1] == {"step": 3, "version": 1}
    resumed = at.learner
    resumed.learn(at.clean())
    resumed.save()
    latest = at.store.latest()
    assert latest is not None and latest[1] == {"step": 4, "version": 2}


def test_weights_that_are_no_numbers_are_given_up(course: Callable[..., Course]) -> None:
    at = course()
    learner = at.learner

    def spoil(algorithm: CLSTMPPO) -> None:
        def burst(learner: object) -> None:
            next(learner.network.parameters()).data.fill_(float("nan"))  # type: ignore[attr-defined]

        algorithm.learner_group.foreach_learner(burst)

    at.learn(learner, at.clean())
    judge = at.gate.judge

    def spoiled(champion, challenger):  # type: ignore[no-untyped-def]
        spoil(at.algorithm)
        return judge(champion, at.algorithm.weights())

    at.gate.judge = spoiled  # type: ignore[method-assign]
    decision = learner.learn(at.clean())
    assert decision is not None and isinstance(decision, ChallengerRejected)
    assert decision.failed == (NOT_FINITE,) and decision.reset
    assert equal(at.algorithm.weights(), at.manager.champion.weights)


def test_an_owners_model_trades_and_is_learned_on_from(
    course: Callable[..., Course], tmp_path: Path
) -> None:
    at = course()
    learner = at.learner
    learner.learn(at.clean())
    now = AccountChampion(at.manager.champion.number, 0, at.manager.champion.number)
    assert not learner.follow(now)
    model = Policy(NETWORK, seed=5).weights()
    folder = tmp_path / "model"
    folder.mkdir()
    write_module_weights(folder, model)
    number = at.champions.write_checkpoint(folder, NETWORK, now, own=False).champion
    followed = AccountChampion(number, now.champion, number, changes=1)
    assert learner.follow(followed)
    assert equal(at.manager.champion.weights, model)
    assert equal(at.algorithm.weights(), model)
    assert not learner.follow(followed) and not learner.follow(now)
    assert learner.learn(at.clean()) is not None


def test_learning_goes_back_with_the_account(course: Callable[..., Course]) -> None:
    at = course()
    learner = at.learner
    first = at.manager.champion
    while at.manager.champion.number == 1:
        learner.learn(at.clean())
    fallen = at.manager.champion.number
    assert not learner.follow(AccountChampion(fallen, 1, fallen, changes=1))
    back = AccountChampion(1, 0, fallen, changes=2)
    assert learner.follow(back)
    assert at.manager.champion.number == 1
    assert equal(at.algorithm.weights(), first.weights)
    assert not learner.follow(back)


def test_nothing_is_learned_while_the_accounts_champion_cannot_be_read(
    course: Callable[..., Course],
) -> None:
    at = course(updates=100)
    learner = at.learner
    learner.learn(at.clean())
    assert not learner.follow(AccountChampion(2, 1, 2, changes=1))
    for _ in range(2):
        assert learner.learn(at.clean()) is None
    assert learner.report.live_updates == 1
    assert "champion 2 cannot be read" in learner.report.paused
    learner.follow(AccountChampion(1, 0, 2, changes=2))
    learner.learn(at.clean())
    assert (learner.report.live_updates, learner.report.paused) == (2, "")


def test_a_lost_learner_comes_back_and_the_fragment_is_learned(
    course: Callable[..., Course],
) -> None:
    at = course(learners=1, updates=100)
    learner = at.learner
    learner.learn(at.clean())
    learner.save()
    rollout = at.clean()
    ray.kill(at.algorithm.learner_group._workers[0])
    learner.learn(rollout)
    report = learner.report
    assert (report.restarts, report.lost, report.live_updates) == (1, 0, 2)
    assert report.updates == at.algorithm.weights_version == 2


@pytest.mark.parametrize("failed", [UNPROVEN, NOT_FINITE])
def test_a_learner_that_dies_after_a_judgement_takes_no_decision_with_it(
    course: Callable[..., Course], failed: str
) -> None:
    """The account's journal counts refusals: one that is missing would end trading."""
    at = course(learners=1)
    rules = at.rules._replace(save_frequency=1)
    learner = OnlineLearner(at.algorithm, at.store, at.manager, at.gate, rules)
    fragments = [at.clean() for _ in range(3)]

    class Gallows:
        """Refuses, and the learner dies before what was learned is written."""

        def judge(self, *_: object) -> GateResult:
            ray.kill(at.algorithm.learner_group._workers[0])
            return GateResult((failed,), "refused", 0.0, (), 0.0)

    learner._gate = Gallows()  # type: ignore[assignment]
    decisions = [learner.learn(each) for each in fragments]
    numbers = [each.number for each in decisions if isinstance(each, ChallengerRejected)]
    assert numbers == [1, 2, 3]
    assert learner.report.restarts >= 2


def test_a_learner_that_stays_dead_ends_neither_learning_nor_the_run(
    course: Callable[..., Course], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = course(learners=1)
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        return False

    learner = OnlineLearner(at.algorithm, at.store, at.manager, at.gate, at.rules, wait=wait)
    rollout = at.clean()
    ray.kill(at.algorithm.learner_group._workers[0])
    with monkeypatch.context() as patched:
        patched.setattr(CLSTMPPO, "revive", lambda *_: 1 / 0)
        assert learner.learn(rollout) is None
        assert learner.save() is None
    assert waited == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert (learner.report.lost, learner.report.restarts) == (1, 0)
    assert learner.learn(rollout) is not None
    assert (learner.report.lost, learner.report.restarts) == (1, 1)


def test_each_update_rehearses_its_share(course: Callable[..., Course]) -> None:
    at = course(share=0.5, updates=100)
    learner = at.learner
    learner.learn(live(1, steps=21, sequences=3))
    report = learner.report
    assert (report.live_samples, report.rehearsed_samples) == (63, 64)
    assert np.isfinite([report.grad_norm, report.clip_fraction, report.entropy]).all()


def test_the_replay_mix_deals_columns_and_samples_again_when_they_are_used_up_or_old() -> None:
    sampled: list[Rollout] = []

    def sample() -> list[Rollout]:
        sampled.append(live(len(sampled), steps=10, sequences=4))
        return [sampled[-1]]

    replay_mix = ReplayMix(sample, share=0.5)
    first = replay_mix.beside(20)
    (dealt,) = first
    dealt.validate()
    np.testing.assert_array_equal(dealt.actions, sampled[0].actions[:, :2])
    np.testing.assert_array_equal(replay_mix.beside(20)[0].actions, sampled[0].actions[:, 2:])
    replay_mix.beside(20)
    assert len(sampled) == 2
    replay_mix.renew()
    replay_mix.beside(10)
    assert len(sampled) == 3
    assert ReplayMix(sample, share=0.0).beside(20) == []
    assert ReplayMix(lambda: [], share=0.5).beside(20) == []
    assert columns_of(sampled[0], slice(0, 4)).shape == sampled[0].shape


def test_a_disk_that_takes_no_checkpoint_pauses_learning_until_it_does(
    course: Callable[..., Course], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = course()
    at.rules = at.rules._replace(save_frequency=1)
    learner = at.learner
    learner.learn(at.clean())
    updates, whole = learner.report.live_updates, at.store.latest()
    assert updates == 1 and whole is not None
    # A file where the checkpoints' folder is: nothing can be written below it, also by root.
    kept = at.store.directory.with_name("kept")
    at.store.directory.rename(kept)
    at.store.directory.write_text("no folder")
    learner.learn(at.clean())
    assert "no checkpoint can be written" in learner.report.paused
    assert str(at.store.directory) in learner.report.paused
    updates = learner.report.live_updates
    assert learner.learn(at.clean()) is None
    assert learner.save() is None
    assert learner.report.live_updates == updates, "nothing is learned that cannot be kept"
    at.store.directory.unlink()
    kept.rename(at.store.directory)
    monkeypatch.setattr("trading.learning.online._PAUSE_S", 0.0)
    learner.learn(at.clean())
    assert learner.report.paused == ""
    assert learner.report.live_updates == updates + 1
