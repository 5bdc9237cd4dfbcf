"""Every champion has a card, and no promotion fails for want of one."""

from pathlib import Path

import pytest

from tests.learning.experience import SMALL
from trading.config import Settings, load_settings
from trading.execution.events import Compared, PromotedBy
from trading.learning.champion import card
from trading.learning.champion.card import (
    CARD,
    LEARNT_FROM,
    describe_experience,
    describe_training_markets,
    model_card,
)
from trading.learning.champion.store import (
    AccountChampion,
    ChampionStore,
    Promotion,
    weights_digest,
)
from trading.learning.checkpoints import CheckpointStore, verify, write_module_weights
from trading.learning.noted_settings import NOTED, noted_settings
from trading.learning.policy import Policy

WEIGHTS = Policy(SMALL, 1).weights()
COMPARED = (
    Compared("simulated", 64, -0.5, -0.25, 0.25, 0.125, 0.375),
    Compared("recent", 5, 0.1, 0.2, 0.1, None, None),
)
GATE = Promotion(20, PromotedBy.GATE, "not worse on simulated", 0.0125, COMPARED)


def write(directory: Path) -> None:
    write_module_weights(directory, WEIGHTS)


def noted(*overrides: str) -> dict[str, object]:
    settings = load_settings(None, overrides, {})
    return {NOTED: noted_settings(settings), LEARNT_FROM: describe_experience(settings)}


def store(folder: Path, *overrides: str) -> ChampionStore:
    return ChampionStore(folder, 3, clock=lambda: 1_767_625_200.0, noted=noted(*overrides))


def card_of(champions: ChampionStore, number: int) -> str:
    return (champions.path(number) / CARD).read_text()


def test_a_promoted_champion_has_a_card_of_all_that_is_known(tmp_path: Path) -> None:
    champions = store(tmp_path, "learning.epochs=9", "market.price.drift_pct=20", "symbols=SPY,QQQ")
    champions.write(write, GATE, AccountChampion())
    told = card_of(champions, 1)
    for part in (
        "# Model card: champion-1",
        weights_digest(WEIGHTS),
        "gate: not worse on simulated",
        "2026-01-05 15:00:00 UTC",
        "simulated markets",
        "`market.price.drift_pct=",
        "data.source simulation: SPY, QQQ",
        "| `learning.epochs` | `9` |",
        "| simulated sessions | 64 | -0.500 | -0.250 | +0.250 | +0.125 to +0.375 |",
        "| newest recorded days | 5 | +0.100 | +0.200 | +0.100 | too few episodes |",
        "0.0125 nats",
        "by more than a margin of 0.02 % a session",
        "`execution.style=touch`",
    ):
        assert part in told, part
    assert "learning.clip" not in told, "defaults are in docs/settings.md"
    assert "simulated sessions only" not in told
    assert CARD in (champions.path(1) / "manifest.json").read_text(), "the manifest holds it"
    assert verify(champions.path(1))[NOTED]["learning.epochs"] == 9


def test_who_was_judged_on_simulated_sessions_only_has_that_as_a_limit(tmp_path: Path) -> None:
    champions = store(tmp_path)
    champions.write(write, GATE._replace(compared=COMPARED[:1]), AccountChampion())
    assert "judged on simulated sessions only" in card_of(champions, 1)


def test_an_owners_champion_tells_where_its_checkpoint_came_from(tmp_path: Path) -> None:
    champions = store(tmp_path, "learning.epochs=9")
    champions.write(write, GATE, AccountChampion())
    then = load_settings(None, ["learning.epochs=7"], {})
    origin = {NOTED: noted_settings(then), LEARNT_FROM: describe_training_markets(then)}
    learner = CheckpointStore(tmp_path, 3, noted=origin)
    path = learner.save(write, {"step": 30})
    champions.write_checkpoint(path, SMALL, AccountChampion(1, 0, 1), own=True)
    told = card_of(champions, 2)
    assert "| `learning.epochs` | `7` |" in told and "owner: promoted from step-000000030" in told
    assert "the gate was not asked" in told and "Nothing was measured" in told
    assert "data.source" not in told
    champions.write_checkpoint(champions.path(1), SMALL, AccountChampion(2, 1, 2), own=True)
    assert "| `learning.epochs` | `9` |" in card_of(champions, 3)
    assert "the gate was not asked" in card_of(champions, 3), "the card is not its origin's"


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    told = model_card("model.pt", {}, "abc")
    assert "| trained in | not known |" in told and "nothing was noted" in told


def test_no_promotion_fails_for_want_of_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    champions = store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(card, "model_card", full)
        assert champions.write(write, GATE, AccountChampion()).champion == 1
    assert not (champions.path(1) / CARD).exists()
    assert champions.load(1).number == 1
    assert "no model card is written" in caplog.text and "No space left" in caplog.text


def test_a_history_that_was_trained_on_is_named() -> None:
    settings = load_settings(None, ["learning.history=days", "learning.online=false"], {})
    assert describe_experience(settings) == {"markets": "history days"}
    assert describe_experience(Settings())["live"] == "data.source simulation: SPY, QQQ, IWM"
