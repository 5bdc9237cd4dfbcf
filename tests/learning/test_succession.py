"""The pointer on disk, the registry and the account, brought into step at the start and later."""

from pathlib import Path

import pytest

from tests.learning.experience import SMALL
from trading.execution.events import ChampionPromoted, ChampionRolledBack, PromotedBy
from trading.learning.champions import ChampionStore, Promotion
from trading.learning.checkpoints import write_module_weights
from trading.learning.policy import Policy
from trading.learning.succession import Reported, Succession
from trading.learning.weights import Reign


def write(seed: int):  # type: ignore[no-untyped-def]
    return lambda folder: write_module_weights(folder, Policy(SMALL, seed).weights())


@pytest.fixture
def published() -> list[Reign]:
    return []


def succession(folder: Path, published: list[Reign], reported: Reported) -> Succession:
    made = Succession(ChampionStore(folder, 3, reported.newest), published.append)
    made.begin(write(9), 90, "the newest checkpoint", reported)
    return made


def test_a_folder_without_champions_begins_with_what_there_is(
    tmp_path: Path, published: list[Reign]
) -> None:
    made = succession(tmp_path, published, Reported(newest=4))
    change = made.reign.standing.change
    assert isinstance(change, ChampionPromoted)
    assert (change.champion, change.version, change.by) == (5, 90, PromotedBy.START)
    assert change.reason == "the newest checkpoint"
    assert [each.champion.number for each in published] == [5]
    assert made.path.is_dir()


def test_a_restart_takes_up_the_champion_and_not_the_challenger(
    tmp_path: Path, published: list[Reign]
) -> None:
    succession(tmp_path, published, Reported())
    ChampionStore(tmp_path, 3).promote(write(2), Promotion(20, PromotedBy.GATE, ""))
    again = succession(tmp_path, published, Reported(2, 2))
    assert again.reign.champion.version == 20
    assert again.reign.before is not None and again.reign.before.version == 90


def test_a_drawdown_that_the_disk_has_not_heard_of_is_followed_at_the_start(
    tmp_path: Path, published: list[Reign]
) -> None:
    first = succession(tmp_path, published, Reported())
    first.promote(write(2), Promotion(20, PromotedBy.GATE, ""))
    again = succession(tmp_path, published, Reported(champion=1, newest=2, discarded=2))
    assert again.reign.champion.number == published[-1].champion.number == 1
    assert isinstance(again.reign.standing.change, ChampionRolledBack)


def test_an_owners_move_is_noticed_once(tmp_path: Path, published: list[Reign]) -> None:
    made = succession(tmp_path, published, Reported())
    assert made.moved() is None
    ChampionStore(tmp_path, 3).promote(write(2), Promotion(20, PromotedBy.OWNER, ""))
    ruling = made.moved()
    assert ruling is not None and ruling.champion is not None
    assert ruling.champion.number == published[-1].champion.number == 2
    assert made.moved() is None
