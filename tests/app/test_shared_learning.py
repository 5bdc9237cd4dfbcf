"""What a strategy asks of the learner that it shares, by answers of a learner of this process."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from tests.learning.experience import SMALL, random_rollout
from trading.app import shared_learner
from trading.app import shared_learning as module
from trading.app.shared_address import SharedLearnerAddress, learner_terms, terms_digest
from trading.app.shared_learner import Heard, News, SharedChampion, SharedLearner
from trading.app.shared_learning import SharedLearning
from trading.config import Settings, load_settings
from trading.errors import CheckpointError, ConfigError, LearningError
from trading.execution.events import PromotedBy
from trading.learning.champion.manager import ChampionManager
from trading.learning.champion.store import AccountChampion, Champion, ChampionStore, Promotion
from trading.learning.checkpoints import write_module_weights
from trading.learning.online import LearnerReport, OnlineLearner
from trading.learning.policy import Policy

RUN = SharedLearner._run
AT_TWO = AccountChampion(2, 1, 2, 1)


def write(seed: int) -> Callable[[Path], None]:
    return lambda folder: write_module_weights(folder, Policy(SMALL, seed).weights())


def shared(number: int, folder: str, by: PromotedBy = PromotedBy.GATE) -> SharedChampion:
    champion = Champion(number, 10 * number, Policy(SMALL, number).weights())
    return SharedChampion(champion, Promotion(10 * number, by, "because"), folder)


class Learner:
    """Answers as the actor does, of which it is the methods, without the thread that learns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(SharedLearner, "_run", lambda _: None)
        monkeypatch.setattr(SharedLearner, "_end", lambda _: None)
        monkeypatch.setattr(shared_learner, "configure_logging", lambda _: None)
        monkeypatch.setattr(module, "_NEWS_EVERY_S", -1.0)
        self.actor = SharedLearner(Settings())
        self.told: list[tuple[Any, ...]] = []
        self.sent: list[News] = []
        monkeypatch.setattr(SharedLearning, "_ask", lambda _, *asked: self.answer(*asked))

    def answer(self, method: str, _: float, *arguments: Any) -> Any:
        answer = getattr(self.actor, method)(*arguments)
        if method == "news":
            self.sent.append(answer)
        else:
            self.told.append(arguments)
        return answer


@pytest.fixture
def learner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Learner]:
    made = Learner(monkeypatch)
    yield made
    made.actor.close()


@pytest.fixture
def manager(tmp_path: Path) -> ChampionManager:
    """The account has taken up champion 2."""
    made = ChampionManager(ChampionStore(tmp_path, 5))
    made.begin(write(1), 10, "the beginning", AccountChampion())
    made.follow(AccountChampion(1, 0, 1))
    made.promote(write(2), Promotion(20, PromotedBy.GATE, "not worse"))
    made.follow(AT_TWO)
    return made


def learning(manager: ChampionManager, *, settings: Settings | None = None) -> SharedLearning:
    terms = terms_digest(learner_terms(settings or Settings()))
    return SharedLearning(SharedLearnerAddress("of the test", terms), "a", manager, 1.0)


def test_nothing_is_learned_nor_taken_up_where_the_learner_goes_by_other_settings(
    learner: Learner, manager: ChampionManager
) -> None:
    learner.actor._learner = cast(OnlineLearner, SimpleNamespace(report=LearnerReport()))
    learner.actor._champion = shared(1, "folder")
    own = learning(manager, settings=load_settings(None, ["learning.clip=0.3"], {}))
    own.learn(random_rollout(1, 6, 1))
    own.follow(AT_TWO)
    assert learner.actor._fragments.empty() and not manager.waiting
    assert own.report.paused.startswith("the shared learner goes by other settings")
    made = ChampionManager(ChampionStore(manager.champions.directory, 5, account_id="new"))
    own = learning(made, settings=load_settings(None, ["learning.clip=0.3"], {}))
    with pytest.raises(LearningError, match="goes by other settings"):
        own.begin(AccountChampion(), lambda: False, lambda _: None)


def test_weights_are_sent_where_they_can_be_taken_up(
    learner: Learner, manager: ChampionManager, caplog: pytest.LogCaptureFixture
) -> None:
    own = learning(manager)
    own._heard = Heard(7, "a folder that is gone")
    offered = manager.promote(write(3), Promotion(30, PromotedBy.GATE, "not worse"))
    learner.actor._champion = shared(1, "another folder")
    for _ in range(3):
        own.follow(AT_TWO)
    assert [each.champion for each in learner.sent] == [None] * 3
    assert manager.waiting == (offered,) and "began anew" not in caplog.text
    for _ in range(3):
        own.follow(AccountChampion(3, 2, 3, 2))
    assert sum(each.champion is not None for each in learner.sent) == 1
    (following,) = manager.waiting
    assert getattr(following, "champion", 0) == 4
    assert caplog.text.count("began anew") == 1


def test_a_champion_that_the_disk_refuses_is_sent_more_and_more_rarely_and_told_once(
    learner: Learner,
    manager: ChampionManager,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now_s))
    own, folder = learning(manager), manager.champions.directory
    learner.actor._champion = shared(1, "folder")
    aside = folder.rename(folder.with_name("aside"))
    folder.write_text("no folder")
    sent_s = []
    for _ in range(1200):
        now_s += 1.0
        own.follow(AT_TWO)
        if learner.sent[-1].champion is not None:
            sent_s.append(now_s - 1000.0)
    assert sent_s == [1, 6, 16, 36, 76, 156, 316, 616, 916]
    assert not manager.waiting and caplog.text.count("cannot be taken up") == 1
    folder.unlink()
    aside.rename(folder)
    for _ in range(300):
        now_s += 1.0
        own.follow(AT_TWO)
    (taken_up,) = manager.waiting
    assert getattr(taken_up, "champion", 0) == 3
    assert sum(each.champion is not None for each in learner.sent) == len(sent_s) + 1


@pytest.mark.parametrize("taken_up", [False, True])
def test_the_learner_is_told_the_champion_that_the_account_had(
    learner: Learner, manager: ChampionManager, taken_up: bool
) -> None:
    own = learning(manager)
    manager.promote(write(3), Promotion(30, PromotedBy.GATE, "not worse"))
    fallen = AccountChampion(2, 0, 3, 3) if taken_up else AccountChampion(1, 0, 2, 2)
    assert own.follow(fallen)
    assert learner.told == [("a", 2, 3) if taken_up else ("a", 1, 2)]


def test_an_account_without_a_champion_waits_for_no_learner_whose_settings_are_wrong(
    learner: Learner, manager: ChampionManager, tmp_path: Path
) -> None:
    class Wrong(SharedLearner):
        def _begin(self, stack: ExitStack) -> NoReturn:
            raise ConfigError(["env.size_levels = 3: must be 1"])

    learner.actor.close()
    made = ChampionManager(ChampionStore(tmp_path / "own", 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_learner, "_PAUSE_S", 0.0)
        patch.setattr(shared_learner, "give_way", lambda _: None)
        patch.setattr(SharedLearner, "_run", RUN)
        learner.actor = Wrong(Settings())
        with pytest.raises(LearningError, match=r"the shared learner: .*env\.size_levels = 3"):
            learning(made).begin(AccountChampion(), lambda: False, lambda _: None)


def test_an_account_without_a_champion_waits_for_the_learners_beside_champions_of_others(
    learner: Learner, tmp_path: Path
) -> None:
    others = ChampionStore(tmp_path, 5, account_id="other")
    others.write(write(5), Promotion(50, PromotedBy.START, "of another"), AccountChampion())
    learner.actor._champion = shared(1, "folder", PromotedBy.START)
    made = ChampionManager(ChampionStore(tmp_path, 5, account_id="own"))
    assert learning(made).begin(AccountChampion(), lambda: False, lambda _: None)
    assert (made.champion.number, made.champion.version) == (2, 10)


def test_an_account_whose_champions_are_lost_is_told_so_and_waits_for_nobody(
    learner: Learner, tmp_path: Path
) -> None:
    made = ChampionManager(ChampionStore(tmp_path, 5))
    with pytest.raises(CheckpointError, match="trading checkpoints promote"):
        learning(made).begin(AT_TWO, lambda: True, lambda _: None)
    assert learner.sent == []
