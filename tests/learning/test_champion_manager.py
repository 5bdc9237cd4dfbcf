"""The pointer on disk, the registry and the account, brought into step at the start and later."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.learning.experience import SMALL
from trading.errors import CheckpointError, LearningError
from trading.execution.events import (
    ChampionPromoted,
    ChampionRolledBack,
    PromotedBy,
)
from trading.learning.champion.manager import AccountChampion, ChampionManager, PromotionDecision
from trading.learning.champion.registry import ChampionState
from trading.learning.champion.store import ChampionStore, Promotion
from trading.learning.checkpoints import write_module_weights
from trading.learning.policy import Policy


def write(seed: int):  # type: ignore[no-untyped-def]
    return lambda folder: write_module_weights(folder, Policy(SMALL, seed).weights())


@pytest.fixture
def published() -> list[ChampionState]:
    return []


def manager(
    folder: Path, published: list[ChampionState], account_champion: AccountChampion
) -> ChampionManager:
    made = ChampionManager(ChampionStore(folder, 3, account_champion.newest), published.append)
    made.begin(write(9), 90, "the newest checkpoint", account_champion)
    return made


def test_a_folder_without_champions_begins_with_what_there_is(
    tmp_path: Path, published: list[ChampionState]
) -> None:
    made = manager(tmp_path, published, AccountChampion(newest=4))
    change = made.state.pointer.change
    assert isinstance(change, ChampionPromoted)
    assert (change.champion, change.version, change.by) == (5, 90, PromotedBy.START)
    assert change.reason == "the newest checkpoint"
    assert [each.champion.number for each in published] == [5]
    assert made.path.is_dir()


def test_a_restart_takes_up_the_champion_and_not_the_challenger(
    tmp_path: Path, published: list[ChampionState]
) -> None:
    manager(tmp_path, published, AccountChampion())
    ChampionStore(tmp_path, 3).promote(write(2), Promotion(20, PromotedBy.GATE, ""))
    again = manager(tmp_path, published, AccountChampion(2, 2))
    assert again.state.champion.version == 20
    assert again.state.before is not None and again.state.before.version == 90


def test_a_drawdown_that_the_disk_has_not_heard_of_is_followed_at_the_start(
    tmp_path: Path, published: list[ChampionState]
) -> None:
    first = manager(tmp_path, published, AccountChampion())
    first.promote(write(2), Promotion(20, PromotedBy.GATE, ""))
    again = manager(tmp_path, published, AccountChampion(champion=1, newest=2, discarded=2))
    assert again.state.champion.number == published[-1].champion.number == 1
    assert isinstance(again.state.pointer.change, ChampionRolledBack)


def test_an_owners_move_is_noticed_once(tmp_path: Path, published: list[ChampionState]) -> None:
    made = manager(tmp_path, published, AccountChampion())
    assert made.moved() is None
    ChampionStore(tmp_path, 3).promote(write(2), Promotion(20, PromotedBy.OWNER, ""))
    decision = made.moved()
    assert decision is not None and decision.champion is not None
    assert decision.champion.number == published[-1].champion.number == 2
    assert made.moved() is None


GATE = PromotedBy.GATE


class Account:
    """What the live market does with decisions: a gate's is void unless made against its own."""

    def __init__(self, champion: int) -> None:
        self.champion, self.newest, self.discarded = champion, champion, 0
        self.void: list[PromotionDecision] = []

    @property
    def account_champion(self) -> AccountChampion:
        return AccountChampion(self.champion, self.newest, self.discarded)

    def take(self, decision: PromotionDecision | None) -> None:
        if decision is None or decision.champion is None:
            return
        event = decision.event
        assert event.champion == decision.champion.number
        if isinstance(event, ChampionPromoted) and event.champion > self.newest:
            if event.by is GATE and event.before != self.champion:
                self.void.append(decision)
                return
            self.champion = self.newest = event.champion
        elif isinstance(event, ChampionRolledBack):
            self.champion = event.champion

    def fall(self) -> None:
        self.discarded, self.champion = self.champion, self.champion - 1


def at_champion_two(
    folder: Path, published: list[ChampionState]
) -> tuple[ChampionManager, Account]:
    made = manager(folder, published, AccountChampion())
    account = Account(1)
    account.take(made.promote(write(2), Promotion(20, GATE, "not worse")))
    return made, account


def owner(folder: Path, newest: int = 0) -> ChampionStore:
    """The owner's command, a process of its own."""
    return ChampionStore(folder, 3, newest)


def promote_by_owner(folder: Path, account: Account) -> None:
    owner(folder, account.newest).promote(write(3), Promotion(30, PromotedBy.OWNER, "update-model"))


DURING: dict[str, tuple[Callable[[Path, Account], object], int]] = {
    "an owner's promotion": (promote_by_owner, 3),
    "two of them": (lambda f, a: (promote_by_owner(f, a), promote_by_owner(f, a)), 4),
    "an owner's rollback": (lambda f, a: owner(f).roll_back(), 1),
    "a promotion and back": (lambda f, a: (promote_by_owner(f, a), owner(f).roll_back()), 2),
    "a drawdown": (lambda f, a: a.fall(), 1),
    "a drawdown and a promotion": (lambda f, a: (a.fall(), promote_by_owner(f, a)), 3),
}


@pytest.mark.parametrize("during", DURING)
@pytest.mark.parametrize("restart", [False, True])
def test_what_happens_while_a_challenger_is_judged_is_told_and_no_later_promotion_is_void(
    tmp_path: Path, published: list[ChampionState], during: str, restart: bool
) -> None:
    made, account = at_champion_two(tmp_path, published)
    happens, trades = DURING[during]
    happens(tmp_path, account)
    account.take(made.promote(write(4), Promotion(40, GATE, "the judgement that was under way")))
    if restart:
        # The live market takes up what is published, as `ChampionPolicy.begin` does.
        made = manager(tmp_path, published, account.account_champion)
        champion_state = published[-1]
        if champion_state.pointer.champion not in (account.champion, account.discarded):
            account.take(PromotionDecision(champion_state.pointer.change, champion_state.champion))
    account.take(made.moved())
    account.take(made.follow(account.account_champion))
    assert account.champion == made.state.champion.number == trades
    # Only what a drawdown has overtaken may be void, and that is left behind with it.
    assert bool(account.void) == (during == "a drawdown")
    account.void.clear()
    for version in (50, 60):
        account.take(made.moved())
        account.take(made.promote(write(5), Promotion(version, GATE, "not worse")))
        assert not account.void and account.champion == made.state.champion.number
    assert published[-1].champion.version == 60
    assert made.moved() is None


def test_a_challenger_that_gives_way_leaves_nothing_on_disk(
    tmp_path: Path, published: list[ChampionState]
) -> None:
    made = manager(tmp_path, published, AccountChampion())
    promote_by_owner(tmp_path, Account(1))
    decision = made.promote(write(4), Promotion(40, GATE, ""))
    assert (decision.event.champion, decision.event.by) == (2, PromotedBy.OWNER)  # type: ignore[union-attr]
    assert owner(tmp_path).numbers() == [1, 2]
    assert made.moved() == decision and made.moved() is None


@pytest.mark.parametrize("fault", ["damaged", "not finite"])
def test_an_owners_champion_that_cannot_trade_hinders_no_later_one(
    tmp_path: Path, published: list[ChampionState], fault: str
) -> None:
    made, account = at_champion_two(tmp_path, published)
    weights = Policy(SMALL, 3).weights()
    if fault == "not finite":
        next(iter(weights.values())).flat[0] = np.nan
    command = owner(tmp_path)
    command.promote(
        lambda folder: write_module_weights(folder, weights), Promotion(30, PromotedBy.OWNER, "")
    )
    if fault == "damaged":
        (command.path(3) / "module_state.pkl").write_bytes(b"damaged")
    assert made.moved() is None and made.state.champion.number == 2
    account.take(made.promote(write(4), Promotion(40, GATE, "")))
    assert account.champion == 4 and not account.void


def test_a_start_goes_on_with_the_accounts_champion_where_the_pointers_is_damaged(
    tmp_path: Path, published: list[ChampionState]
) -> None:
    at_champion_two(tmp_path, published)
    (owner(tmp_path).path(2) / "module_state.pkl").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="champion-000000002"):
        manager(tmp_path, published, AccountChampion(2, 2))
    again = manager(tmp_path, published, AccountChampion(1, 2))
    assert again.state.champion.number == published[-1].champion.number == 1
    account = Account(1)
    account.newest = 2
    account.take(again.promote(write(4), Promotion(40, GATE, "")))
    assert account.champion == 3


def test_a_registry_that_is_away_costs_no_ruling(tmp_path: Path) -> None:
    published: list[ChampionState] = []
    away = False

    def publish(champion_state: ChampionState) -> None:
        if away:
            raise LearningError("the weight registry failed")
        published.append(champion_state)

    made = ChampionManager(ChampionStore(tmp_path, 3), publish)
    made.begin(write(1), 10, "", AccountChampion())
    away = True
    assert made.promote(write(2), Promotion(20, GATE, "")).event.champion == 2
    promote_by_owner(tmp_path, Account(2))
    decision = made.moved()
    assert decision is not None and decision.event.champion == 3
    assert [each.champion.number for each in published] == [1]
    away = False
    assert made.moved() is None
    assert [each.champion.number for each in published] == [1, 3]


@pytest.mark.parametrize("lost", ["folder", "pointer", "champion before"])
def test_a_lost_folder_is_written_again_and_succession_goes_on(
    tmp_path: Path, published: list[ChampionState], lost: str
) -> None:
    made, account = at_champion_two(tmp_path / "checkpoints", published)
    folder = owner(tmp_path / "checkpoints").directory
    if lost == "folder":
        shutil.rmtree(folder.parent)
    if lost == "pointer":
        (folder / "champion.json").unlink()
    if lost == "champion before":
        shutil.rmtree(owner(tmp_path / "checkpoints").path(1))
    assert made.moved() is None
    account.fall()
    account.take(made.follow(account.account_champion))
    assert made.state.champion.number == account.champion == 1
    account.take(made.promote(write(4), Promotion(40, GATE, "")))
    assert account.champion == 3 and not account.void
    store = ChampionStore(tmp_path / "checkpoints", 3)
    assert store.load(1).version == 90


def test_a_folder_that_cannot_be_written_stops_no_look(
    tmp_path: Path, published: list[ChampionState]
) -> None:
    folder = tmp_path / "checkpoints"
    made, account = at_champion_two(folder, published)
    shutil.rmtree(folder)
    folder.write_text("no folder")
    assert made.moved() is None
    account.fall()
    assert made.follow(account.account_champion) is None
    with pytest.raises(CheckpointError, match="no champion can be written"):
        made.promote(write(4), Promotion(40, GATE, ""))
    folder.unlink()
    account.take(made.follow(account.account_champion))
    assert made.state.champion.number == 1


def test_of_several_moves_between_two_looks_the_ruling_names_who_traded(
    tmp_path: Path, published: list[ChampionState]
) -> None:
    made, account = at_champion_two(tmp_path, published)
    promote_by_owner(tmp_path, account)
    promote_by_owner(tmp_path, account)
    decision = made.promote(write(5), Promotion(50, GATE, "the judgement that was under way"))
    assert isinstance(decision.event, ChampionPromoted)
    assert (decision.event.champion, decision.event.before) == (4, account.champion)
    account.take(decision)
    following = made.promote(write(6), Promotion(60, GATE, "not worse"))
    assert isinstance(following.event, ChampionPromoted)
    assert following.event.before == account.champion == 4
