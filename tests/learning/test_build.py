"""Where the learner runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from trading.config import load_settings
from trading.envs.defaults import DEFAULT_RULES
from trading.errors import CheckpointError, ConfigError
from trading.learning.build import Placement, check_size_levels, place_learner, ppo_settings
from trading.learning.ppo_update import PPOSettings
from trading.live.assembly import model_config


@pytest.mark.parametrize(
    ("overrides", "gpus", "expected"),
    [
        ([], 0.0, Placement(0, 0, {})),
        ([], 2.0, Placement(1, 1, {})),
        (["learning.num_learners=2"], 2.0, Placement(2, 1, {})),
        (["learning.num_learners=1"], 0.0, Placement(1, 0, {})),
        (["learning.num_learners=0"], 1.0, Placement(0, 0, {})),
        (["learning.learner_resource=learner"], 0.0, Placement(1, 0, {"learner": 1.0})),
        (["learning.learner_resource=learner"], 1.0, Placement(1, 1, {"learner": 1.0})),
        (["learning.gpus_per_learner=1"], 0.0, Placement(1, 1, {})),
        (["learning.gpus_per_learner=2", "learning.num_learners=4"], 1.0, Placement(4, 2, {})),
        (["learning.gpus_per_learner=0"], 8.0, Placement(0, 0, {})),
    ],
)
def test_the_learner_takes_a_gpu_where_there_is_one(
    overrides: list[str], gpus: float, expected: Placement
) -> None:
    assert place_learner(load_settings(None, overrides, {}), gpus) == expected


def test_a_gpu_for_no_learner_is_refused() -> None:
    settings = load_settings(None, ["learning.gpus_per_learner=1", "learning.num_learners=0"], {})
    with pytest.raises(ConfigError, match="num_learners to 1 or more"):
        place_learner(settings, 1.0)


def test_a_learner_whose_node_is_known_leaves_the_cpus_to_others() -> None:
    assert Placement(1, 0, {}).cpus_per_learner == 1
    assert Placement(1, 1, {}).cpus_per_learner == 0
    assert Placement(1, 0, {"learner": 1.0}).cpus_per_learner == 0


def test_the_placement_is_told_in_one_line() -> None:
    assert "GPU" in Placement(1, 1, {}).describe()
    assert "CPU" in Placement(0, 0, {}).describe()
    assert "'learner'" in Placement(1, 0, {"learner": 1.0}).describe()


def test_every_setting_of_the_update_is_a_setting_of_the_system() -> None:
    usual = load_settings(None, [], {})
    plain = PPOSettings.of(usual.learning, usual.discount)
    assert ppo_settings(usual) == plain
    changed = ["learning.epochs=8", "learning.clip=0.3", "learning.precision=bf16"]
    assert ppo_settings(load_settings(None, changed, {})) == replace(
        plain, epochs=8, clip=0.3, precision="bf16"
    )


def test_every_option_of_the_network_is_a_setting_of_the_system() -> None:
    changed = ["model.feature_hidden=32", "model.layer_norm=true"]
    config = model_config(load_settings(None, changed, {}))
    assert (config.feature_hidden, config.layer_norm) == (32, True)


def test_a_checkpoint_of_another_number_of_sizes_is_refused_by_the_settings_name() -> None:
    three = DEFAULT_RULES._replace(size_levels=3)
    with pytest.raises(CheckpointError, match=r"env\.size_levels 1, and 3 is set"):
        check_size_levels(three, Path("old"), {})
    noted = {"settings": {"env.size_levels": 3}}
    check_size_levels(three, Path("fits"), noted)
    with pytest.raises(CheckpointError, match=r"env\.size_levels 3, and 1 is set"):
        check_size_levels(DEFAULT_RULES, Path("new"), noted)
    check_size_levels(None, Path("of another environment"), {})
