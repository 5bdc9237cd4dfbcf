"""What the driver learns from: the account's champion, or what the account was offered."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.learning.experience import SMALL
from trading.errors import CheckpointError
from trading.execution.events import ChallengerRejected, ChampionPromoted, PromotedBy
from trading.learning.champion.manager import ChampionManager
from trading.learning.champion.store import AccountChampion, ChampionStore, Promotion
from trading.learning.checkpoints import write_module_weights
from trading.learning.policy import Policy

GATE = PromotedBy.GATE


def write(seed: int) -> Callable[[Path], None]:
    return lambda folder: write_module_weights(folder, Policy(SMALL, seed).weights())


def manager(folder: Path, account: AccountChampion) -> ChampionManager:
    made = ChampionManager(ChampionStore(folder, 3))
    made.begin(write(9), 90, "the newest checkpoint", account)
    return made


def not_worse(version: int) -> Promotion:
    return Promotion(version, GATE, "not worse")


AT_ONE = AccountChampion(1, 0, 1)
AT_TWO = AccountChampion(2, 1, 2, 1)


@pytest.fixture
def at_two(tmp_path: Path) -> ChampionManager:
    """The account has taken up champion 2."""
    made = manager(tmp_path / "checkpoints", AccountChampion())
    made.follow(AT_ONE)
    made.promote(write(2), not_worse(20))
    assert not made.follow(AT_TWO)
    return made


def store(folder: Path) -> ChampionStore:
    return ChampionStore(folder / "checkpoints", 3)


def test_a_folder_without_champions_begins_with_what_there_is(tmp_path: Path) -> None:
    made = manager(tmp_path, AccountChampion())
    assert (made.champion.number, made.champion.version) == (1, 90)
    news = ChampionStore(tmp_path, 3).news_for(AccountChampion())
    assert isinstance(news, ChampionPromoted)
    assert (news.by, news.reason) == (PromotedBy.START, "the newest checkpoint")
    assert made.path.is_dir()


def test_a_start_takes_up_the_accounts_champion_and_not_the_newest(
    tmp_path: Path, at_two: ChampionManager
) -> None:
    assert manager(tmp_path / "checkpoints", AT_TWO).champion.number == 2
    assert manager(tmp_path / "checkpoints", AccountChampion(1, 0, 2, 2)).champion.number == 1


def test_what_is_offered_is_the_present_one_until_the_account_says_otherwise(
    tmp_path: Path, at_two: ChampionManager
) -> None:
    decision = at_two.promote(write(3), not_worse(30))
    assert (decision.champion, decision.before) == (3, 2)
    assert not at_two.follow(AT_TWO)
    assert at_two.waiting == (decision,) and at_two.champion.number == 3
    assert not at_two.may_offer, "one at a time"
    assert not at_two.follow(AccountChampion(3, 2, 3, 2))
    assert at_two.waiting == () and at_two.champion.number == 3 and at_two.may_offer


@pytest.mark.parametrize(
    ("account", "trades"),
    [
        (AccountChampion(1, 0, 2, 2), 1),  # a drawdown, or the owner's rollback
        (AccountChampion(3, 2, 3, 2), 3),  # the owner's promotion
        (AccountChampion(1, 0, 3, 3), 1),
    ],
)
def test_what_happens_while_a_challenger_is_judged_is_followed_and_the_next_one_is_not_void(
    tmp_path: Path, at_two: ChampionManager, account: AccountChampion, trades: int
) -> None:
    if account.newest == 3:
        store(tmp_path).write(write(3), Promotion(30, PromotedBy.OWNER, ""), AT_TWO)
    at_two.promote(write(4), not_worse(40))
    at_two.follow(account)
    assert at_two.champion.number == trades and at_two.waiting == ()
    following = at_two.promote(write(5), not_worse(50))
    assert following.before == trades and following.champion > 4 - (account.newest < 3)


def test_a_start_with_a_promotion_that_never_arrived_does_not_go_back_for_an_earlier_report(
    tmp_path: Path, at_two: ChampionManager
) -> None:
    at_two.promote(write(3), not_worse(30))
    begun = manager(tmp_path / "checkpoints", AT_TWO)
    assert begun.champion.number == 3
    assert not begun.follow(AT_TWO)
    assert begun.champion.number == 3
    assert not begun.follow(AccountChampion(3, 2, 3, 2))
    assert begun.champion.number == 3 and begun.waiting == ()


def test_an_offer_over_what_the_owner_came_back_to_is_still_due(
    tmp_path: Path, at_two: ChampionManager
) -> None:
    store(tmp_path).write(write(3), Promotion(30, PromotedBy.OWNER, ""), AT_TWO)
    decision = at_two.promote(write(4), not_worse(40))
    back = AccountChampion(2, 0, 3, 3)
    assert not at_two.follow(back) and at_two.waiting == (decision,)
    assert store(tmp_path).news_for(back) == decision


def test_an_older_report_changes_nothing(at_two: ChampionManager) -> None:
    assert not at_two.follow(AT_ONE) and at_two.champion.number == 2
    assert not at_two.follow(AccountChampion()) and at_two.champion.number == 2


@pytest.mark.parametrize("lost", ["folder", "champion before"])
def test_a_lost_champion_is_written_again_from_memory(
    tmp_path: Path, at_two: ChampionManager, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    champions = store(tmp_path)
    shutil.rmtree(champions.directory.parent if lost == "folder" else champions.path(1))
    assert not at_two.follow(AT_TWO)
    assert champions.numbers() == [1, 2]
    assert champions.load(1).version == 90
    assert "a lost champion is written again" in caplog.text
    assert at_two.follow(AccountChampion(1, 0, 2, 2)) and at_two.champion.number == 1
    assert at_two.promote(write(4), not_worse(40)).champion == 3


@pytest.mark.parametrize("offered", [False, True])
def test_what_the_owner_chose_and_the_one_before_it_are_in_memory(
    tmp_path: Path, at_two: ChampionManager, offered: bool
) -> None:
    champions = store(tmp_path)
    if offered:
        at_two.promote(write(4), not_worse(40))
    numbers = []
    for seed in (5, 6):
        why = Promotion(10 * seed, PromotedBy.OWNER, "by hand")
        numbers.append(champions.write(write(seed), why, AT_TWO).champion)
    first, second = numbers
    # With an offer open, and of two choices at once the second alone is heard of.
    chosen = AccountChampion(first, 2, second, 2)
    if not offered:
        chosen = AccountChampion(second, first, second, 3)
    assert at_two.follow(chosen)
    shutil.rmtree(champions.directory)
    assert not at_two.follow(chosen)
    assert champions.numbers() == sorted([chosen.before, chosen.champion])


def test_a_champion_that_cannot_be_read_is_told_once_and_hinders_no_later_one(
    tmp_path: Path, at_two: ChampionManager, caplog: pytest.LogCaptureFixture
) -> None:
    champions = store(tmp_path)
    champions.write(write(3), Promotion(30, PromotedBy.OWNER, ""), AT_TWO)
    (champions.path(3) / "module_state.pkl").write_bytes(b"damaged")
    for _ in range(2):
        assert not at_two.follow(AccountChampion(3, 2, 3, 2))
    assert at_two.champion.number == 2
    assert at_two.follow(AccountChampion(1, 0, 3, 3)) and at_two.champion.number == 1


def test_a_folder_that_cannot_be_written_stops_no_look(
    tmp_path: Path, at_two: ChampionManager
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.rmtree(folder)
    folder.write_text("no folder")
    assert not at_two.follow(AT_TWO)
    with pytest.raises(CheckpointError, match="no champion can be written"):
        at_two.promote(write(4), not_worse(40))
    assert at_two.champion.number == 2 and at_two.waiting == ()
    assert at_two.follow(AccountChampion(1, 0, 2, 2)), "it is in memory"
    folder.unlink()
    at_two.follow(AccountChampion(1, 0, 2, 2))
    assert store(tmp_path).load(1).version == 90


def test_a_full_disk_is_told_once_whatever_folder_it_names(
    tmp_path: Path,
    at_two: ChampionManager,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = []

    def full(folder: Path, weights: object) -> None:
        named.append(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    monkeypatch.setattr("trading.learning.champion.store.write_module_weights", full)
    shutil.rmtree(store(tmp_path).path(1))
    for _ in range(3):
        assert not at_two.follow(AT_TWO)
    assert len(set(named)) == 3
    assert caplog.text.count("a lost champion cannot be written") == 1


def test_a_start_is_refused_where_the_accounts_champion_cannot_be_read(
    tmp_path: Path, at_two: ChampionManager
) -> None:
    at_two.promote(write(3), not_worse(30))
    champions = store(tmp_path)
    (champions.path(3) / "module_state.pkl").write_bytes(b"damaged")
    assert manager(tmp_path / "checkpoints", AT_TWO).champion.number == 2
    (champions.path(2) / "module_state.pkl").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"champion-000000002.*trading checkpoints promote"):
        manager(tmp_path / "checkpoints", AT_TWO)


def test_a_champion_that_cannot_be_read_is_told_once_and_tried_at_each_report(
    tmp_path: Path, at_two: ChampionManager, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = AccountChampion(3, 2, 3, 2)
    for _ in range(3):
        assert not at_two.follow(chosen)
    assert caplog.text.count("the account's champion 3 cannot be read") == 1
    store(tmp_path).write(write(3), Promotion(30, PromotedBy.OWNER, "by hand"), AT_TWO)
    assert at_two.follow(chosen) and at_two.champion.number == 3


def test_where_the_accounts_champion_cannot_be_read_a_void_offer_is_not_judged_against(
    tmp_path: Path, at_two: ChampionManager
) -> None:
    champions = store(tmp_path)
    champions.write(write(3), Promotion(30, PromotedBy.OWNER, ""), AT_TWO)
    (champions.path(3) / "module_state.pkl").write_bytes(b"damaged")
    at_two.promote(write(4), not_worse(40))
    assert not at_two.follow(AccountChampion(3, 2, 3, 2))
    assert at_two.waiting == () and not at_two.may_offer
    assert "trading checkpoints promote" in at_two.fault
    assert at_two.follow(AccountChampion(2, 0, 3, 3)) and at_two.champion.number == 2
    assert at_two.may_offer and not at_two.fault
    following = at_two.promote(write(5), not_worse(50))
    assert (following.champion, following.before) == (5, 2)


def test_rejections_go_on_from_the_accounts_count_and_wait_until_it_has_them(
    at_two: ChampionManager,
) -> None:
    at_two.follow(AT_TWO._replace(refusals=7))
    event = ChallengerRejected(0, 0, 5, 0, ("kl",), "too far", 1, False)
    rejected = (at_two.reject(event), at_two.reject(event))
    assert [(each.number, each.champion) for each in rejected] == [(8, 2), (9, 2)]
    assert at_two.waiting == rejected
    at_two.follow(AT_TWO._replace(refusals=8))
    assert at_two.waiting == rejected[1:]
    # A report of before says nothing new: the next number is not given twice.
    at_two.follow(AT_TWO._replace(refusals=9))
    at_two.follow(AT_TWO._replace(refusals=7))
    assert at_two.waiting == () and at_two.reject(event).number == 10
