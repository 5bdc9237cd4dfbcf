"""Openings at a part of what is allowed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading.config import load_settings
from trading.envs.catalogue import (
    ACTION_COUNT,
    ACTIONS,
    MOST_SIZE_LEVELS,
    action_count,
    action_names,
)
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.size_levels import allow_parts, of_full_size
from trading.envs.vector_env import SimulatedOptionsVectorEnv
from trading.errors import ConfigError
from trading.live.assembly import model_config, trading_rules


def test_one_level_is_the_catalogue() -> None:
    assert action_count() == ACTION_COUNT
    assert action_names() == tuple(action.name for action in ACTIONS)


@pytest.mark.parametrize("levels", [2, 3, MOST_SIZE_LEVELS])
def test_names_tell_the_part_and_the_contracts_are_those_of_full_size(levels: int) -> None:
    names = action_names(action_count(levels))
    assert len(set(names)) == action_count(levels)
    for a, name in enumerate(names[ACTION_COUNT:], ACTION_COUNT):
        whole, _, part = name.rpartition("_")
        assert whole == ACTIONS[of_full_size(a, ACTION_COUNT)].name
        assert part == f"{(a - ACTION_COUNT) // (ACTION_COUNT - 2) + 1}of{levels}"
    assert [of_full_size(a, ACTION_COUNT) for a in range(ACTION_COUNT)] == [*range(ACTION_COUNT)]


def test_a_number_that_no_levels_give_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"39 actions: no number of env\.size_levels"):
        action_names(ACTION_COUNT + 1)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, MOST_SIZE_LEVELS), st.integers(2, ACTION_COUNT - 1))
def test_a_part_is_whole_units_of_what_is_allowed(most: int, levels: int, action: int) -> None:
    units = np.zeros((1, action_count(levels)), np.int32)
    mask = np.zeros((1, action_count(levels)), np.bool_)
    units[0, action] = most
    allow_parts(0, levels, ACTION_COUNT, units, mask)
    parts = [
        a for a in range(ACTION_COUNT, len(units[0])) if of_full_size(a, ACTION_COUNT) == action
    ]
    assert units[0, parts].tolist() == [most * k // levels for k in range(1, levels)]
    assert mask[0].tolist() == [a in parts and units[0, a] >= 1 for a in range(len(units[0]))]


def test_what_is_opened_at_a_part_is_that_part() -> None:
    rules = DEFAULT_RULES._replace(size_levels=3)
    held = {}
    for name in ("long_call_far_d30", "long_call_far_d30_1of3", "long_call_far_d30_2of3"):
        env = SimulatedOptionsVectorEnv(8, rules, DEFAULT_FEES, seed=3)
        observation, _ = env.reset()
        mask = observation["action_mask"]
        assert env.single_action_space.n == action_count(3) == mask.shape[1]
        action = action_names(action_count(3)).index(name)
        may, units = mask[:, action], env._accounts.views.units[:, action].copy()
        env.step(np.where(may, action, 0))
        holdings = env._accounts.holdings
        assert (holdings.units == np.where(may, units, 0)).all()
        held[name] = holdings.units.copy(), holdings.legs.copy()
    (full, legs), (third, same), (two, _) = held.values()
    both = (full > 0) & (third > 0) & (two > 0)
    assert both.any()
    assert (third[both] == full[both] // 3).all() and (two[both] == full[both] * 2 // 3).all()
    assert (legs[both] == same[both]).all()


def test_the_setting_makes_rules_and_network_of_one_size() -> None:
    chosen = load_settings(None, ["env.size_levels=3"], {})
    assert trading_rules(chosen).size_levels == 3
    assert model_config(chosen).action_count == action_count(3)
    assert model_config(load_settings(None, [], {})).action_count == ACTION_COUNT
    with pytest.raises(ConfigError, match="10 or less"):
        load_settings(None, ["env.size_levels=11"], {})
