"""One learner for two strategies: an actor of its own, and what each account makes of its news."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
import ray

from tests.app.learner_actor import process_of, until
from tests.app.test_learning_loop import Live, run_until
from tests.learning.experience import random_rollout
from tests.waits import START_S, WAIT_S
from trading.app.learning_loop import LearningLoop
from trading.app.shared_address import (
    SharedLearnerAddress,
    learner_terms,
    shared_settings,
    terms_digest,
)
from trading.app.shared_learner import Rejections, SharedChampion, SharedLearner
from trading.app.shared_learning import SharedLearning, write_shared
from trading.config import Settings, load_settings
from trading.execution.events import ChallengerRejected, ChampionPromoted, PromotedBy
from trading.learning.champion.manager import ChampionManager
from trading.learning.champion.store import AccountChampion, ChampionStore, Promotion
from trading.learning.rollout import Rollout
from trading.live import assembly

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

LENIENT = ("learning.gate.max_kl=1000", "learning.gate.margin_pct=100")
SMALL = (
    "symbols=[SPY]",
    "data.bar_seconds=300",
    "learning.pretrain_steps=0",
    "learning.num_envs=2",
    "learning.rollout_length=8",
    "learning.save_frequency=6",
    "learning.rehearsal_share=0",
    "learning.num_learners=0",
    "learning.gate.sessions=20",
    "env.sessions_per_episode=1",
    "learner=shared",
)
REJECTED = ChallengerRejected(0, 1, 5, 1, ("kl",), "too far", 1, False)
WHY = Promotion(7, PromotedBy.START, "new weights")
YAML = "strategies: {a: {symbols: [SPY]}, b: {symbols: [QQQ], seed: 9}}\n"


class Account(NamedTuple):
    """A strategy without its live market."""

    learning: SharedLearning
    manager: ChampionManager
    champions: ChampionStore

    @property
    def champion(self) -> int:
        return self.manager.champion.number

    def hear(self) -> ChampionPromoted | None:
        """Say that the account is as it was; the promotion that it is offered then, if any."""
        self.learning.follow(self.reported)
        return self.offered

    def learn(self, rollout: Rollout) -> ChampionPromoted | None:
        self.learning.follow(self.reported)
        self.learning.learn(rollout)
        return self.offered

    @property
    def offered(self) -> ChampionPromoted | None:
        waiting = self.manager.waiting
        return next((each for each in waiting if isinstance(each, ChampionPromoted)), None)

    @property
    def reported(self) -> AccountChampion:
        """What an account tells that has taken up all that it was offered, and fell back never."""
        number = self.champion
        return AccountChampion(champion=number, before=number - 1, newest=number)


def settings_of(folder: Path, *overrides: str) -> dict[str, Settings]:
    path = folder / "s.yaml"
    path.write_text(YAML)
    common = (*SMALL, *overrides, f"paths.state_dir={folder}")
    return {name: load_settings(path, [*common, f"strategy={name}"], {}) for name in ("a", "b")}


@pytest.fixture
def address(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SharedLearnerAddress]:
    strategies = settings_of(tmp_path, *getattr(request, "param", LENIENT))
    common = Settings().model_copy(update={"paths": Settings().paths})
    common = common.model_copy(
        update={"paths": common.paths.model_copy(update={"state_dir": tmp_path})}
    )
    terms = terms_digest(learner_terms(strategies["a"]))
    made = SharedLearnerAddress(f"test-{tmp_path.name}", terms)
    actor = (
        ray.remote(SharedLearner)
        .options(
            name=made.name,
            namespace=made.namespace,
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=8,
        )
        .remote(shared_settings(common, strategies))
    )
    yield made
    ray.kill(actor, no_restart=True)


def account(folder: Path, address: SharedLearnerAddress, name: str) -> Account:
    champions = ChampionStore(settings_of(folder)[name].paths.checkpoints, 5)
    manager = ChampionManager(champions)
    learning = SharedLearning(address, name, manager, WAIT_S)
    deadline = time.monotonic() + START_S
    assert learning.begin(
        AccountChampion(), lambda: time.monotonic() > deadline, lambda phase: None
    )
    return Account(learning, manager, champions)


def rejections(account: Account) -> list[ChallengerRejected]:
    """What an account has heard of and is to journal."""
    waiting = account.manager.waiting
    assert all(isinstance(each, ChallengerRejected) for each in waiting)
    return [each for each in waiting if isinstance(each, ChallengerRejected)]


def fragment(settings: Settings, seed: int) -> Rollout:
    rollout = random_rollout(seed, 6, 1, config=assembly.model_config(settings))
    return replace(rollout, rewards=rollout.rewards * np.float32(1e-3))


def test_both_strategies_are_learned_from_both_are_promoted_and_trade_on_without_it(
    tmp_path: Path, address: SharedLearnerAddress
) -> None:
    settings = settings_of(tmp_path)["a"]
    a, b = account(tmp_path, address, "a"), account(tmp_path, address, "b")
    assert (a.champion, b.champion) == (1, 1)

    event = a.learn(fragment(settings, 1))
    assert event is not None
    assert (event.champion, event.before, event.by) == (2, 1, PromotedBy.GATE)
    assert a.learning.report.fragments == {"a": 1}
    until(lambda: b.learning.follow(b.reported) or b.champion == 2)
    (other,) = b.manager.waiting
    assert (other.version, other.reason) == (event.version, event.reason)
    for name, weights in a.manager.champion.weights.items():
        np.testing.assert_array_equal(weights, b.manager.champion.weights[name])

    # What one account loses is its own affair, and is told.
    fell = AccountChampion(champion=1, newest=2, changes=2)
    assert a.learning.follow(fell)
    assert (a.champion, b.champion) == (1, 2)
    time.sleep(1.1)
    a.learning.follow(fell)
    assert a.champion == 1 and not a.manager.waiting, "what it fell from is no news"
    assert b.learn(fragment(settings, 2)) is not None
    assert b.learning.report.fragments == {"a": 1, "b": 1}
    assert b.learning.report.rollbacks == {"a": 1}
    until(lambda: a.learning.follow(fell) or a.offered)
    assert a.offered is not None and (a.offered.champion, a.offered.before) == (3, 1)

    process = process_of(address)
    os.kill(process, signal.SIGKILL)
    until(lambda: a.learning.learn(fragment(settings, 3)) or a.learning.report.paused)
    assert (a.champion, b.champion) == (3, 3), "both trade on with what they had"
    until(lambda: b.learning.learn(fragment(settings, 4)) or not b.learning.report.paused)
    assert process_of(address) != process
    until(lambda: b.learn(fragment(settings, 5)) and b.champion > 3)
    assert b.learning.report.updates > 2, "it went on from its checkpoint"

    again = SharedLearning(address, "b", b.manager, WAIT_S)
    newest = b.champion
    time.sleep(1.1)
    again.follow(b.reported)
    assert b.champion == newest and not b.manager.waiting, "nothing of it is news to the account"


@pytest.mark.parametrize("address", [("learning.gate.max_kl=1e-12",)], indirect=True)
def test_a_rejection_is_journalled_in_each_account_by_its_own_count(
    tmp_path: Path, address: SharedLearnerAddress
) -> None:
    settings = settings_of(tmp_path)["a"]
    a, b = account(tmp_path, address, "a"), account(tmp_path, address, "b")
    b.learning.follow(AccountChampion(champion=1, newest=1, refusals=7))
    for seed in (1, 2):
        a.learning.learn(fragment(settings, seed))
    b.learning.learn(fragment(settings, 3))
    mine, theirs = rejections(a), rejections(b)
    assert [each.number for each in mine] == [1, 2], "the third is heard of with the next news"
    assert [each.number for each in theirs] == [8, 9, 10], "all of them at once"
    assert mine[0].reason == theirs[0].reason and "KL" in mine[0].reason
    b.learning.follow(AccountChampion(champion=1, newest=1, refusals=10))
    assert rejections(b) == [], "the account has them"
    assert (a.champion, b.champion) == (1, 1)

    # A process that starts again goes on with what comes from then on.
    again = SharedLearning(address, "b", b.manager, WAIT_S)
    again.learn(fragment(settings, 4))
    assert [each.number for each in rejections(b._replace(learning=again))] == [11]


@pytest.mark.parametrize("address", [("learning.gate.max_kl=1e-12",)], indirect=True)
def test_what_others_caused_reaches_an_account_between_its_own_fragments(
    tmp_path: Path, address: SharedLearnerAddress
) -> None:
    settings = settings_of(tmp_path)["a"]
    a, b = account(tmp_path, address, "a"), account(tmp_path, address, "b")
    for seed in (1, 2):
        a.learning.learn(fragment(settings, seed))
    live, stop = ray.remote(Live).options(num_cpus=0).remote(0), threading.Event()
    loop = LearningLoop(live, b.manager, b.learning, None, lockstep=False, stop=stop)
    answer, *_ = run_until(loop, stop, live, bool)
    assert answer.fragment is None
    assert [each.number for each in answer.decisions] == [1, 2]


def test_rejections_that_nobody_asks_for_do_not_pile_up() -> None:
    kept = Rejections()
    for number in range(1, 1001):
        kept.add(msgspec.structs.replace(REJECTED, number=number))
    assert kept.count == 1000
    assert [each.number for each in kept.since(998)] == [999, 1000]
    assert [each.number for each in kept.since(0)] == list(range(745, 1001))
    assert kept.since(1000) == ()


def test_who_joins_after_a_promotion_takes_that_champion_up_once(
    tmp_path: Path, address: SharedLearnerAddress
) -> None:
    settings = settings_of(tmp_path)["a"]
    a = account(tmp_path, address, "a")
    event = a.learn(fragment(settings, 1))
    assert event is not None and event.champion == 2
    b = account(tmp_path, address, "b")
    for name, weights in a.manager.champion.weights.items():
        np.testing.assert_array_equal(weights, b.manager.champion.weights[name])
    assert b.hear() is None and b.champion == 1
    event = b.learn(fragment(settings, 2))
    assert event is not None and (event.champion, event.before) == (2, 1)


def test_numbers_of_another_folder_of_the_learner_hide_nothing(
    tmp_path: Path, address: SharedLearnerAddress
) -> None:
    settings = settings_of(tmp_path)
    a = account(tmp_path, address, "a")
    former = SharedChampion(a.manager.champion._replace(number=9), WHY, "a folder that is gone")
    ChampionStore(settings["b"].paths.checkpoints, 5).write(
        lambda folder: write_shared(folder, former), WHY, AccountChampion()
    )
    b = account(tmp_path, address, "b")
    assert b.hear() is None and b.champion == 1, "what no gate let pass is not taken up"
    assert b.learn(fragment(settings["a"], 1)) is not None
    assert b.champion == 2
    again = SharedLearning(address, "b", b.manager, WAIT_S)
    again.follow(b.reported)
    assert b.champion == 2 and not b.manager.waiting


def test_a_fragment_that_nobody_waits_for_any_more_is_not_learned(
    tmp_path: Path, address: SharedLearnerAddress
) -> None:
    settings = settings_of(tmp_path)["a"]
    a, b = account(tmp_path, address, "a"), account(tmp_path, address, "b")
    late = SharedLearning(address, "a", a.manager, 0.0)
    for seed in range(12):
        late.learn(fragment(settings, seed))
        assert late.report.paused == "the shared learner is not done with a fragment after 0 s"
    actor = ray.get_actor(address.name, namespace=address.namespace)
    ray.get(actor.ping.remote(), timeout=WAIT_S)
    assert b.learn(fragment(settings, 20)) is not None
    assert b.learning.report.fragments == {"b": 1}
