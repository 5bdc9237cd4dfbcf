"""Champions on disk: whole or not there, and one pointer that says which of them trades."""

import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.learning.experience import SMALL
from trading.errors import CheckpointError
from trading.execution.events import (
    ChampionPromoted,
    ChampionRolledBack,
    Compared,
    PromotedBy,
    RolledBackBy,
)
from trading.learning.champion.store import ChampionStore, Promotion, weights_digest
from trading.learning.checkpoints import CheckpointStore, write_module_weights
from trading.learning.clstm import CLSTMConfig
from trading.learning.policy import Policy, Weights


def weights(seed: int) -> Weights:
    return Policy(SMALL, seed).weights()


def promote(store: ChampionStore, seed: int, by: PromotedBy = PromotedBy.GATE) -> int:
    compared = (Compared("simulated", 64, 0.1, 0.2, 0.1, 0.0, 0.2),)
    why = Promotion(10 * seed, by, f"reason {seed}", 0.01, compared)
    return store.promote(lambda d: write_module_weights(d, weights(seed)), why).champion


@pytest.fixture
def store(tmp_path: Path) -> ChampionStore:
    """Two champions, of which the second trades."""
    made = ChampionStore(tmp_path, keep=3, clock=lambda: 5.0)
    assert [promote(made, seed) for seed in (1, 2)] == [1, 2]
    return made


def pointed(store: ChampionStore) -> tuple[int, int]:
    pointer = store.pointer()
    assert pointer is not None
    return pointer.champion, pointer.before


def test_before_the_first_there_is_none(tmp_path: Path) -> None:
    assert ChampionStore(tmp_path, keep=2).pointer() is None


def test_the_promoted_one_is_the_champion_with_its_numbers(store: ChampionStore) -> None:
    pointer = store.pointer()
    assert pointer is not None and pointed(store) == (2, 1)
    assert isinstance(pointer.change, ChampionPromoted)
    assert (pointer.change.version, pointer.change.before, pointer.change.kl) == (20, 1, 0.01)
    assert pointer.change.compared[0].sessions == 64
    champion = store.load(2)
    assert weights_digest(champion.weights) == weights_digest(weights(2))
    metadata = store.metadata(2)
    assert (metadata["version"], metadata["reason"], metadata["time"]) == (20, "reason 2", 5.0)


def test_rolling_back_goes_on_as_far_as_champions_are_kept(store: ChampionStore) -> None:
    promote(store, 3)
    pointer = store.roll_back()
    assert isinstance(pointer.change, ChampionRolledBack)
    assert (pointer.champion, pointer.change.discarded, pointer.change.version) == (2, 3, 20)
    assert pointer.change.by is RolledBackBy.OWNER
    store.roll_back()
    assert pointed(store) == (1, 0)
    with pytest.raises(CheckpointError, match="no champion before"):
        store.roll_back()


def test_a_number_is_never_given_twice(store: ChampionStore, tmp_path: Path) -> None:
    store.roll_back()
    assert promote(store, 4) == 3
    assert ChampionStore(tmp_path / "new", keep=2, newest_known=7).pointer() is None
    assert promote(ChampionStore(tmp_path / "new", keep=2, newest_known=7), 1) == 8


def test_the_one_that_trades_and_the_one_before_are_kept(store: ChampionStore) -> None:
    promote(store, 3)
    store.roll_back()
    promote(store, 4)
    assert pointed(store) == (4, 2)
    promote(store, 5)
    assert set(store.numbers()) >= {5, 4}
    assert store.load(4).version == 40


def test_a_drawdown_moves_the_pointer_once(store: ChampionStore) -> None:
    assert store.follow(champion=2, newest=2, discarded=0) is None
    fallen = {"champion": 1, "newest": 2, "discarded": 2}
    pointer = store.follow(**fallen)
    assert pointer is not None and pointed(store) == (1, 0)
    assert isinstance(pointer.change, ChampionRolledBack)
    assert pointer.change.by is RolledBackBy.DRAWDOWN
    assert store.follow(**fallen) is None
    promote(store, 3, PromotedBy.OWNER)
    assert store.follow(**fallen) is None and pointed(store) == (3, 1)


@pytest.mark.parametrize(("by", "champion"), [(PromotedBy.GATE, 1), (PromotedBy.OWNER, 3)])
def test_a_challenger_promoted_over_a_fallen_champion_falls_with_it(
    store: ChampionStore, by: PromotedBy, champion: int
) -> None:
    """The account fell back from 2 to 1 before it heard of 3; an owner's choice stands."""
    promote(store, 3, by)
    store.follow(champion=1, newest=2, discarded=2)
    assert pointed(store)[0] == champion


def test_a_writer_that_fails_leaves_the_champion(store: ChampionStore) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.promote(fail, Promotion(1, PromotedBy.GATE, ""))
    assert pointed(store) == (2, 1)
    assert promote(store, 3) == 3


@pytest.mark.parametrize("call", range(1, 4))
def test_a_death_between_any_two_renames_leaves_a_whole_champion(
    store: ChampionStore, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """The checkpoint is renamed, then the pointer replaced; it dies before or after either."""

    class Died(BaseException):
        pass

    calls = 0

    def dying(original):  # type: ignore[no-untyped-def]
        def renamed(*arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls == call:
                raise Died
            return original(*arguments)

        return renamed

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", dying(Path.rename))
        patched.setattr(os, "replace", dying(os.replace))
        if call < 3:
            with pytest.raises(Died):
                promote(store, 3)
        else:
            promote(store, 3)
    again = ChampionStore(store.directory.parent, keep=2)
    champion, before = pointed(again)
    assert (champion, before) == ((2, 1) if call < 3 else (3, 2))
    assert again.load(champion).version == 10 * champion
    assert promote(again, 5) > champion
    assert again.load(pointed(again)[0]).version == 50


def test_two_writers_wait_for_each_other(store: ChampionStore) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(directory: Path) -> None:
        write_module_weights(directory, weights(3))
        entered.set()
        assert leave.wait(30.0)

    first = threading.Thread(
        target=store.promote, args=(slow, Promotion(30, PromotedBy.GATE, "first"))
    )
    first.start()
    assert entered.wait(30.0)
    other = ChampionStore(store.directory.parent, keep=2)
    second = threading.Thread(target=promote, args=(other, 4))
    second.start()
    leave.set()
    first.join(30.0)
    second.join(30.0)
    assert pointed(store) == (4, 3)
    assert (store.load(3).version, store.load(4).version) == (30, 40)


def test_a_damaged_champion_is_refused(store: ChampionStore) -> None:
    (store.path(2) / "module_state.pkl").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="champion-000000002"):
        store.load(2)


def test_an_unreadable_pointer_is_named(store: ChampionStore) -> None:
    pointer = store.directory / "champion.json"
    odd = pointer.read_bytes().replace(b'"reason": "', b'"reason": "\xff')
    assert b"\xff" in odd
    for content in (b"{", odd):
        pointer.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"champion\.json"):
            store.pointer()


def test_an_own_checkpoint_is_copied_whole(store: ChampionStore, tmp_path: Path) -> None:
    def fill(directory: Path) -> None:
        write_module_weights(directory, weights(6))
        (directory / "optimizer").write_bytes(b"moments")

    source = CheckpointStore(tmp_path, keep=3).save(fill, {"step": 60})
    pointer = store.promote_checkpoint(source, SMALL, own=True)
    assert (pointer.champion, pointer.change.version) == (3, 60)
    assert isinstance(pointer.change, ChampionPromoted)
    assert pointer.change.by is PromotedBy.OWNER
    assert (store.path(3) / "optimizer").read_bytes() == b"moments"
    assert store.load(3).version == 60


def test_of_another_checkpoint_only_the_weights_are_taken(
    store: ChampionStore, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    write_module_weights(model, weights(6))
    (model / "code.pkl").write_bytes(pickle.dumps("anything"))
    store.promote_checkpoint(model, SMALL, own=False)
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
        config = CLSTMConfig(observation_size=5, action_count=9)
    source = CheckpointStore(tmp_path, keep=3).save(
        lambda directory: write_module_weights(directory, bad), {"step": 60}
    )
    if fault == "damaged":
        (source / "module_state.pkl").write_bytes(b"damaged")
    if fault == "no checkpoint":
        source = tmp_path
    with pytest.raises(CheckpointError):
        store.promote_checkpoint(source, config, own=fault != "no checkpoint")
    assert pointed(store) == (2, 1)
    assert store.numbers() == [1, 2]
