"""Checkpoints that were learnt with an option that is gone, as programs with it wrote them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trading.config import Settings
from trading.errors import CheckpointError, LearningError
from trading.execution.events import PromotedBy
from trading.learning.champion.store import AccountChampion, ChampionStore, Promotion
from trading.learning.checkpoints import CheckpointStore, write_module_weights, write_weights_file
from trading.learning.noted_settings import NOTED, differences, noted_settings
from trading.learning.policy import Policy, Weights
from trading.live import assembly

OFF = {
    "model.residual": False,
    "model.feature_layers": 1,
    "model.window": None,
    "learning.burn_in": 0,
    "learning.target_kl": None,
    "learning.vtrace_rho": 1.0,
    "learning.vtrace_c": 1.0,
}


def weights() -> Weights:
    return Policy(assembly.model_config(Settings()), 3).weights()


def noted(**changed: Any) -> dict[str, Any]:
    return {NOTED: noted_settings(Settings()) | OFF | changed}


def saved(folder: Path, **changed: Any) -> Path:
    store = CheckpointStore(folder, 5, noted=noted(**changed))
    return store.save(lambda directory: write_module_weights(directory, weights()), {"step": 30})


def test_one_without_the_options_acts_as_before(tmp_path: Path) -> None:
    path = saved(tmp_path / "plain")
    found = assembly.policy_of(Settings(), path).weights()
    assert all(np.array_equal(found[name], array) for name, array in weights().items())
    champions = ChampionStore(tmp_path / "checkpoints", 5, noted=noted())
    config = assembly.model_config(Settings())
    written = champions.write_checkpoint(path, config, AccountChampion(), own=True)
    assert champions.load(written.champion).number == 1


@pytest.mark.parametrize(
    ("name", "value"), [("model.residual", True), ("model.feature_layers", 2), ("model.window", 30)]
)
def test_one_whose_network_had_one_is_refused_by_its_name_though_its_shape_fits(
    tmp_path: Path, name: str, value: object
) -> None:
    told = (
        f"learnt with {name}={value}, which there is no more: use the program .* or begin anew: "
        "name another paths.checkpoint_dir, .*`trading train`.*`trading checkpoints promote step-N`"
    )
    path = saved(tmp_path / "other", **{name: value})
    with pytest.raises(CheckpointError, match=told):
        assembly.policy_of(Settings(), path)
    champions = ChampionStore(tmp_path / "checkpoints", 5, noted=noted(**{name: value}))
    with pytest.raises(CheckpointError, match=told):
        champions.write_checkpoint(
            path, assembly.model_config(Settings()), AccountChampion(), own=True
        )
    champions.write(
        lambda directory: write_module_weights(directory, weights()),
        Promotion(10, PromotedBy.START, "of the test"),
        AccountChampion(),
    )
    with pytest.raises(CheckpointError, match=told):
        champions.load(1)


def test_a_file_of_weights_is_refused_by_the_option_that_a_weight_belongs_to(
    tmp_path: Path,
) -> None:
    file = tmp_path / "model.pt"
    for name, option in (
        ("feature_skip.weight", "residual"),
        ("feature.weight_ih_l1", "feature_layers"),
    ):
        write_weights_file(file, weights() | {name: np.zeros((64, 37), np.float32)})
        with pytest.raises(LearningError, match=rf"{name}; .* model\.{option}"):
            assembly.policy_of(Settings(), file)


def test_what_only_learning_depended_on_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "burnt in", **{"learning.burn_in": 8})
    assert assembly.policy_of(Settings(), path).config.action_count
    now = noted_settings(Settings())
    assert differences(now | OFF, now) == []
    assert differences(now | OFF | {"learning.burn_in": 8}, now) == [
        "learning.burn_in is gone; the checkpoint was learnt with 8"
    ]
