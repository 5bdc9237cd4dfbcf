"""`trading checkpoints` on real folders."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from trading.cli import app
from trading.config import Settings
from trading.execution.events import Compared, PromotedBy
from trading.learning.champions import ChampionStore, Promotion, weights_digest
from trading.learning.checkpoints import CheckpointStore, write_module_weights
from trading.learning.policy import Policy, Weights
from trading.live import assembly


def weights(seed: int) -> Weights:
    return Policy(assembly.model_config(Settings()), seed).weights()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with champions 1 and 2 and the learner's checkpoint of version 30."""
    champions = ChampionStore(tmp_path / "checkpoints", 5, clock=lambda: 1_767_625_200.0)
    compared = (Compared("simulated", 64, -0.5, -0.25, 0.25, 0.125, 0.375),)
    for seed, why in (
        (1, Promotion(10, PromotedBy.START, "pre-training")),
        (2, Promotion(20, PromotedBy.GATE, "not worse on simulated", 0.0125, compared)),
    ):
        champions.promote(lambda d, seed=seed: write_module_weights(d, weights(seed)), why)
    store = CheckpointStore(tmp_path / "checkpoints", 5)
    store.save(lambda d: write_module_weights(d, weights(3)), {"step": 30})
    return tmp_path


def run(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(
        app,
        ["checkpoints", *arguments, "--set", f"paths.state_dir={state}"],
        env={"COLUMNS": "200"},
    )


def trades(state: Path) -> tuple[int, int, str]:
    champions = ChampionStore(state / "checkpoints", 5)
    standing = champions.standing()
    assert standing is not None
    digest = weights_digest(champions.load(standing.champion).weights)
    return standing.champion, standing.before, digest


def test_list_tells_which_champion_trades_and_its_numbers(state: Path) -> None:
    result = run(state, "list")
    assert result.exit_code == 0, result.output
    rows = {line.split()[1]: line for line in result.output.splitlines() if "-" in line[:12]}
    assert "before" in rows["champion-1"] and "pre-training" in rows["champion-1"]
    assert "trades" in rows["champion-2"] and "2026-01-05 15:00:00" in rows["champion-2"]
    for number in ("20", "gate", "0.0125", "+0.250 % [+0.125, +0.375]", "not worse"):
        assert number in rows["champion-2"]
    assert "30" in rows["step-30"]


def test_list_makes_no_folder_where_there_is_none(tmp_path: Path) -> None:
    result = run(tmp_path / "typo", "list")
    assert result.exit_code == 1
    assert f"no checkpoints at {tmp_path / 'typo' / 'checkpoints'}" in result.stderr
    assert not (tmp_path / "typo").exists()


def test_show_prints_the_manifest(state: Path) -> None:
    result = run(state, "show", "champion-2")
    assert result.exit_code == 0, result.output
    for text in ("champion-000000002", "on simulated", "+0.250 %", "parameters"):
        assert text in result.output
    assert run(state, "show", "30").exit_code == 0


@pytest.mark.parametrize("which", ["30", "step-30"])
def test_a_step_of_the_learner_is_promoted(state: Path, which: str) -> None:
    result = run(state, "promote", which)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("champion-3 trades (version 30)")
    assert trades(state) == (3, 2, weights_digest(weights(3)))


def test_an_earlier_champion_and_a_model_are_promoted(state: Path, tmp_path: Path) -> None:
    assert run(state, "promote", "champion-1").exit_code == 0
    assert trades(state) == (3, 2, weights_digest(weights(1)))
    model = tmp_path / "model"
    model.mkdir()
    write_module_weights(model, weights(7))
    assert run(state, "promote", str(model)).exit_code == 0
    assert trades(state) == (4, 3, weights_digest(weights(7)))


def test_rollback_goes_to_the_one_before(state: Path) -> None:
    result = run(state, "rollback")
    assert result.exit_code == 0, result.output
    assert trades(state) == (1, 0, weights_digest(weights(1)))
    again = run(state, "rollback")
    assert again.exit_code == 1
    assert "no champion before" in again.stderr


@pytest.mark.parametrize(
    ("which", "told"),
    [
        ("31", "there are step-30"),
        ("champion-9", "there are champion-1, champion-2"),
        ("nowhere", "trading checkpoints list"),
    ],
)
def test_what_does_not_exist_is_named(state: Path, which: str, told: str) -> None:
    result = run(state, "promote", which)
    assert result.exit_code == 1
    assert told in result.stderr and result.stderr.count("\n") == 1
    assert trades(state)[0] == 2


def test_what_cannot_trade_is_refused_and_a_damaged_one_is_listed(
    state: Path, tmp_path: Path
) -> None:
    bad = weights(3)
    next(iter(bad.values())).flat[0] = np.nan
    model = tmp_path / "model"
    model.mkdir()
    write_module_weights(model, bad)
    assert "NaN" in run(state, "promote", str(model)).stderr
    other_shape = run(state, "promote", "30", "--set", "model.actor_hidden=8")
    assert "does not fit the configured network" in other_shape.stderr
    damaged = state / "checkpoints" / "step-000000030" / "module_state.pkl"
    damaged.write_bytes(b"damaged")
    assert "differs from the manifest" in run(state, "promote", "30").stderr
    assert "damaged" in run(state, "list").output
    assert trades(state)[0] == 2
