"""Champions on disk: whole or not there, and never another under the same number."""

import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.learning.experience import SMALL
from tests.usual import clstm_config
from trading.errors import CheckpointError
from trading.execution.events import (
    ChampionPromoted,
    Compared,
    PromotedBy,
)
from trading.learning.champion.owner_choice import OwnerChoice
from trading.learning.champion.store import (
    AccountChampion,
    ChampionStore,
    Promotion,
    weights_digest,
)
from trading.learning.checkpoints import CheckpointStore, write_module_weights
from trading.learning.policy import Policy, Weights


def weights(seed: int) -> Weights:
    return Policy(SMALL, seed).weights()


def account(champion: int = 0, before: int = 0, newest: int | None = None) -> AccountChampion:
    return AccountChampion(champion, before, champion if newest is None else newest)


def write(
    store: ChampionStore,
    seed: int,
    over: AccountChampion | None = None,
    by: PromotedBy = PromotedBy.GATE,
) -> int:
    compared = (Compared("simulated", 64, 0.1, 0.2, 0.1, 0.0, 0.2),)
    why = Promotion(10 * seed, by, f"reason {seed}", 0.01, compared)
    filled = lambda folder: write_module_weights(folder, weights(seed))  # noqa: E731
    return store.write(filled, why, over or account()).champion


@pytest.fixture
def store(tmp_path: Path) -> ChampionStore:
    """Two champions, the second one over the first."""
    made = ChampionStore(tmp_path, keep=3, clock=lambda: 5.0)
    assert [write(made, 1), write(made, 2, account(1))] == [1, 2]
    return made


def test_a_champion_tells_for_what_it_was_written(store: ChampionStore) -> None:
    event = store.news_for(account(1))
    assert isinstance(event, ChampionPromoted)
    assert (event.champion, event.version, event.before, event.kl) == (2, 20, 1, 0.01)
    assert (event.by, event.reason) == (PromotedBy.GATE, "reason 2")
    assert event.compared[0].sessions == 64
    assert weights_digest(store.load(2).weights) == weights_digest(weights(2))
    metadata = store.metadata(2)
    assert (metadata["version"], metadata["reason"], metadata["time"]) == (20, "reason 2", 5.0)


def test_only_what_passed_the_gate_over_the_accounts_champion_is_news(store: ChampionStore) -> None:
    assert store.news_for(account(2)) is None
    assert store.news_for(account(1, newest=2)) is None
    write(store, 3, account(2), PromotedBy.OWNER)
    assert store.news_for(account(2)) is None, "a command that was not journalled did not happen"
    write(store, 4, account(1, newest=2))
    assert store.news_for(account(2)) is None
    news = store.news_for(account(1, newest=2))
    assert news is not None and news.champion == 4
    (store.path(4) / "module_state.pkl").write_bytes(b"damaged")
    assert store.news_for(account(1, newest=2)) is None


def test_a_number_is_never_given_twice(store: ChampionStore, tmp_path: Path) -> None:
    assert write(store, 4, account(1, newest=2)) == 3
    lost = ChampionStore(tmp_path / "new", keep=2)
    assert write(lost, 1, account(5, newest=7)) == 8


def test_the_one_that_trades_and_the_one_before_are_kept(store: ChampionStore) -> None:
    for seed in range(3, 9):
        write(store, seed, account(2, 1, newest=seed - 1))
    assert store.numbers() == [1, 2, 5, 6, 7, 8]
    assert store.load(2).version == 20


def test_who_has_not_heard_of_the_owners_choice_removes_nothing_that_trades(
    tmp_path: Path,
) -> None:
    store = ChampionStore(tmp_path, keep=1)
    write(store, 1)
    write(store, 2, account(1), PromotedBy.OWNER)
    write(store, 3, account(2, 1), PromotedBy.OWNER)
    # By a driver to whom champion 1 trades still.
    write(store, 4, account(1))
    assert {2, 3} <= set(store.numbers())


def test_the_one_before_is_the_accounts_or_what_the_manifest_tells(store: ChampionStore) -> None:
    assert store.before(account(2, 1)) == 1
    assert store.before(account(2, 0)) == 1
    for none in (account(1), account(2, 7), account()):
        with pytest.raises(CheckpointError, match="no champion before"):
            store.before(none)


def test_a_writer_that_fails_leaves_nothing(store: ChampionStore) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.write(fail, Promotion(1, PromotedBy.GATE, ""), account(2, 1))
    assert store.numbers() == [1, 2]
    assert write(store, 3, account(2, 1)) == 3


def test_two_writers_wait_for_each_other(store: ChampionStore) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(directory: Path) -> None:
        write_module_weights(directory, weights(3))
        entered.set()
        assert leave.wait(30.0)

    first = threading.Thread(
        target=store.write, args=(slow, Promotion(30, PromotedBy.GATE, "first"), account(2, 1))
    )
    first.start()
    assert entered.wait(30.0)
    other = ChampionStore(store.directory.parent, keep=2)
    second = threading.Thread(target=write, args=(other, 4, account(2, 1)))
    second.start()
    leave.set()
    first.join(30.0)
    second.join(30.0)
    assert (store.load(3).version, store.load(4).version) == (30, 40)


def test_a_champion_that_is_no_number_is_refused(store: ChampionStore) -> None:
    bad = {name: np.full_like(array, np.nan) for name, array in weights(3).items()}
    filled = lambda folder: write_module_weights(folder, bad)  # noqa: E731
    store.write(filled, Promotion(30, PromotedBy.GATE, ""), account(2, 1))
    with pytest.raises(CheckpointError, match=r"champion 3: weight .* NaN"):
        store.load(3)


def test_a_damaged_champion_is_refused(store: ChampionStore) -> None:
    (store.path(2) / "module_state.pkl").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="champion-000000002"):
        store.load(2)


def test_an_own_checkpoint_is_copied_whole(store: ChampionStore, tmp_path: Path) -> None:
    def fill(directory: Path) -> None:
        write_module_weights(directory, weights(6))
        (directory / "optimizer").write_bytes(b"moments")

    source = CheckpointStore(tmp_path, keep=3).save(fill, {"step": 60})
    event = store.write_checkpoint(source, SMALL, account(2, 1), own=True)
    assert (event.champion, event.version, event.before) == (3, 60, 2)
    assert event.by is PromotedBy.OWNER
    assert (store.path(3) / "optimizer").read_bytes() == b"moments"
    assert store.load(3).version == 60


def test_of_another_checkpoint_only_the_weights_are_taken(
    store: ChampionStore, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    write_module_weights(model, weights(6))
    (model / "code.pkl").write_bytes(pickle.dumps("anything"))
    store.write_checkpoint(model, SMALL, account(2, 1), own=False)
    assert weights_digest(store.load(3).weights) == weights_digest(weights(6))
    assert not (store.path(3) / "code.pkl").exists()


@pytest.mark.parametrize("fault", ["shape", "not finite", "damaged", "no checkpoint"])
def test_what_cannot_trade_is_not_promoted(
    store: ChampionStore, tmp_path: Path, fault: str
) -> None:
    bad, config = weights(6), SMALL
    if fault == "not finite":
        bad["value_head.bias"][:] = np.nan
    if fault == "shape":
        config = clstm_config(observation_size=5, action_count=9)
    source = CheckpointStore(tmp_path, keep=3).save(
        lambda directory: write_module_weights(directory, bad), {"step": 60}
    )
    if fault == "damaged":
        (source / "module_state.pkl").write_bytes(b"damaged")
    if fault == "no checkpoint":
        source = tmp_path
    with pytest.raises(CheckpointError):
        store.write_checkpoint(source, config, account(2, 1), own=fault != "no checkpoint")
    assert store.numbers() == [1, 2]


def test_accounts_that_share_a_folder_leave_each_others_champions_alone(tmp_path: Path) -> None:
    one, two = (ChampionStore(tmp_path, keep=2, account_id=name) for name in ("one", "two"))
    before = ChampionStore(tmp_path, keep=2)
    assert [write(before, 1), write(one, 2, account(1)), write(two, 3, account(1))] == [1, 2, 3]
    assert (one.metadata(2)["account"], two.metadata(3)["account"]) == ("one", "two")
    # A crash kept champion 2 from one, and 3 from the other; each takes up its own.
    news = [store.news_for(account(1)) for store in (one, two)]
    assert [each and each.champion for each in news] == [2, 3]
    assert one.news_for(account(2)) is None
    for seed in range(4, 10):
        write(two, seed, account(3, newest=seed - 1))
    assert two.numbers() == [2, 3, 6, 7, 8, 9], "kept are four each, and who trades"
    newcomer = ChampionStore(tmp_path, keep=2, account_id="three")
    assert newcomer.news_for(account()) is None
    choice = OwnerChoice(tmp_path, 2, account_id="three")
    assert choice.prepare("champion-9", SMALL, account(1)).number == 10
    assert newcomer.metadata(10)["account"] == "three" and newcomer.news_for(account())
