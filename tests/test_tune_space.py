"""The space that `trading tune` searches: what is read, what is refused, what is drawn."""

from pathlib import Path

import numpy as np
import pytest

from trading.config import Settings, load_settings
from trading.config.loading import load_space
from trading.config.space import Choices, SearchRange, points, read_space, with_point
from trading.errors import ConfigError

RATE = {"low": 1e-5, "high": 1e-2, "scale": "log"}


def test_choices_and_ranges_by_dotted_key_or_by_section() -> None:
    dotted = read_space({"learning.learning_rate": RATE, "model.feature_hidden": [32, 64]}, "x")
    assert dotted == {
        "learning.learning_rate": SearchRange(1e-5, 1e-2, is_log=True),
        "model.feature_hidden": Choices((32, 64)),
    }
    nested = {"learning": {"learning_rate": RATE}, "model": {"feature_hidden": [32, 64]}}
    assert read_space(nested, "x") == dotted
    epochs = read_space({"learning.epochs": {"low": 2, "high": 4}}, "x")["learning.epochs"]
    assert epochs == SearchRange(2, 4, is_whole=True)
    unset = read_space({"learning.gamma": [None, 0.95]}, "x")["learning.gamma"]
    assert unset == Choices((None, 0.95))


WRONG = {
    "learning.learnin_rate": ([1.0], "unknown key; did you mean learning.learning_rate?"),
    "learning.learning_rate": ([1e-3, -1.0], "= -1.0 (x): must be greater than 0"),
    "learning.epochs": ({"low": 1.5, "high": 3}, "= 1.5 (x): must be a whole number"),
    "model.feature_hidden": ({"low": 8, "high": 4}, "low must be less than high"),
    "learning.clip": ({"low": 0, "high": 0.4, "scale": "log"}, "greater than 0 where scale is log"),
    "learning.gamma": ({"low": 0.9, "high": 1.5}, "= 1.5 (x): must be 1 or less"),
    "learning.gae_lambda": ({"low": 0.9, "hihg": 1.0}, "the numbers low and high"),
    "learning.entropy_coefficient": ({"low": 0, "high": 1, "scale": "lin"}, "'linear', 'log'"),
    "learning.precision": ({"low": 0, "high": 1}, "a list of choices in place of a range"),
    "learning.minibatches": (4, "must be a list of choices, or a range"),
    "learning.value_coefficient": ([], "at least one choice"),
    "policy.act": (["greedy", "greedy"], "each choice once"),
    "execution.commission": ([0.0, 0.65], "every trial trades the same markets"),
    "market": ({"price": {"drift": [0.1]}}, "every trial trades the same markets"),
    "learning.pretrain_steps": ([10], "by --steps"),
    "learning.history": (["a"], "by --history"),
    "learning.gate.sessions": ([20], "no trial depends on it"),
    "policy.trader": (["a", "b"], "no trial depends on it"),
    "serving.port": ([1, 2], "no trial depends on it"),
    "credentials.massive_api_key": (["abc"], "only from the environment variable"),
}


@pytest.mark.parametrize("key", WRONG)
def test_what_is_no_space_is_told_by_key_value_and_what_is_allowed(key: str) -> None:
    value, allowed = WRONG[key]
    with pytest.raises(ConfigError) as refused:
        read_space({key: value}, "x")
    (line,) = refused.value.lines
    assert line.startswith(f"tune.space.{key}") and allowed in line
    assert "abc" not in line


def test_each_mistake_has_its_line() -> None:
    with pytest.raises(ConfigError) as refused:
        read_space({"learning.epochs": [0, 2, "x"], "model.heads": [2]}, "x")
    assert len(refused.value.lines) == 3


def test_settings_and_files_are_checked_alike(tmp_path: Path) -> None:
    file, space = tmp_path / "a.yaml", tmp_path / "space.yaml"
    file.write_text("tune:\n  trials: 3\n  space:\n    learning.epochs: [0]\n")
    space.write_text("learning.epochs: [0]\n")
    told = "tune.space.learning.epochs = 0 ({}): must be 1 or greater"
    with pytest.raises(ConfigError) as of_settings:
        load_settings(file, environ={})
    assert of_settings.value.lines == [told.format(file)]
    with pytest.raises(ConfigError) as of_file:
        load_space(space)
    assert of_file.value.lines == [told.format(space)]
    space.write_text("- learning.epochs\n")
    with pytest.raises(ConfigError, match="must be a mapping of settings, is a list"):
        load_space(space)
    with pytest.raises(ConfigError, match="no such file"):
        load_space(tmp_path / "none.yaml")
    file.write_text("tune:\n  space:\n    learning.epochs: [2]\n")
    assert load_settings(file, environ={}).tune.space == {"learning.epochs": [2]}


def test_points_differ_begin_with_the_given_one_and_end_with_the_space() -> None:
    space = read_space({"learning.epochs": [2, 4], "model.layer_norm": [True, False]}, "x")
    given = {"learning.epochs": 3, "model.layer_norm": False}
    found = points(space, 99, given, np.random.default_rng(1))
    assert found[0] == given and len(found) == 5
    assert len({tuple(each.items()) for each in found}) == 5
    assert points(space, 3, given, np.random.default_rng(1)) == found[:3]


def test_ranges_are_drawn_within_their_ends_by_their_scale() -> None:
    rng = np.random.default_rng(2)
    whole = [SearchRange(2, 5, is_whole=True).draw(rng) for _ in range(200)]
    assert set(whole) == {2, 3, 4, 5} and all(isinstance(each, int) for each in whole)
    wide = [SearchRange(1, 64, is_log=True, is_whole=True).draw(rng) for _ in range(500)]
    assert min(wide) == 1 and max(wide) == 64 and float(np.median(wide)) < 12
    rates = np.array([SearchRange(1e-5, 1e-1, is_log=True).draw(rng) for _ in range(500)])
    assert rates.min() >= 1e-5 and rates.max() <= 1e-1
    assert 0.4 < (rates < 1e-3).mean() < 0.6
    assert SearchRange(2, 5, is_whole=True).within(9.2) == 5


def test_a_point_replaces_its_settings_alone() -> None:
    settings = Settings()
    changed = with_point(settings, {"learning.epochs": 9, "policy.act": "greedy"})
    assert (changed.learning.epochs, changed.policy.act) == (9, "greedy")
    assert with_point(changed, {"learning.epochs": 4, "policy.act": "sampled"}) == settings
