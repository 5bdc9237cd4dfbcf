"""An environment goes on from a saved state as if it had never been away."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.envs.goog import CALENDAR, recorded_goog
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.history import write_history
from trading.envs.saved_state import _FORMER_NAMES
from trading.envs.vector_env import (
    HistoricalOptionsVectorEnv,
    OptionsVectorEnv,
    SimulatedOptionsVectorEnv,
)
from trading.errors import DataError

Make = Callable[..., OptionsVectorEnv]


@pytest.fixture(params=["simulated", "shared", "historical"])
def make(request: pytest.FixtureRequest, goog: Path) -> Make:
    def build(seed: int, count: int = 6) -> OptionsVectorEnv:
        if request.param == "historical":
            return HistoricalOptionsVectorEnv(count, DEFAULT_RULES, DEFAULT_FEES, goog, seed)
        shared = 2 if request.param == "shared" else 1
        return SimulatedOptionsVectorEnv(
            count, DEFAULT_RULES, DEFAULT_FEES, seed=seed, accounts_per_market=shared
        )

    return build


def played(env: OptionsVectorEnv, mask: np.ndarray, steps: int, seed: int) -> list[bytes]:
    """All that random allowed actions lead to, over closes and new days; `mask` is that of now."""
    rng, seen = np.random.default_rng(seed), []
    for _ in range(steps):
        actions = (rng.random(mask.shape) * mask).argmax(axis=1)
        observation, reward, _, truncated, info = env.step(actions)
        mask = observation["action_mask"]
        told = [*observation.values(), reward, truncated, info["invalid_action"], env.equity]
        if truncated.any():
            told += [*info["final_obs"].values(), *info["episode"].values()]
        seen += [array.tobytes() for array in told]
    return seen


def test_a_restored_environment_continues_to_the_last_bit(make: Make) -> None:
    env = make(seed=3)
    observation, _ = env.reset()
    played(env, observation["action_mask"], 250, seed=1)
    state = pickle.loads(pickle.dumps(env.get_state()))
    mask = env._accounts.views.mask.copy()
    after = played(env, mask, 250, seed=2)

    other = make(seed=8)
    other.reset()
    other.set_state(state)
    assert played(other, mask, 250, seed=2) == after
    env.set_state(state)
    assert played(env, mask, 250, seed=2) == after, "the state that was saved is a copy"


def test_a_state_of_before_greeks_were_kept_is_taken_up(make: Make) -> None:
    env = make(seed=3)
    observation, _ = env.reset()
    played(env, observation["action_mask"], 100, seed=1)
    state = env.get_state()
    del state["accounts"]["accounts"]["holdings"]["known"]
    other = make(seed=8)
    observation, _ = other.reset()
    played(other, observation["action_mask"], 100, seed=2)
    other.set_state(state)
    assert (other._accounts.holdings.units == env._accounts.holdings.units).all()
    assert not other._accounts.holdings.known.any()


def test_a_state_whose_parts_had_former_names_is_taken_up(make: Make) -> None:
    def former(state: Any) -> Any:
        if not isinstance(state, dict):
            return state
        names = {new: old for old, new in _FORMER_NAMES.items()}
        return {names.get(name, name): former(part) for name, part in state.items()}

    env = make(seed=3)
    observation, _ = env.reset()
    played(env, observation["action_mask"], 100, seed=1)
    state = env.get_state()
    assert "purses" in former(state)["accounts"]["accounts"]
    other = make(seed=8)
    other.reset()
    other.set_state(former(state))
    np.testing.assert_equal(other.get_state(), state)


def test_a_state_of_another_number_of_accounts_is_refused(make: Make) -> None:
    small, large = make(seed=3), make(seed=3, count=8)
    small.reset()
    large.reset()
    before = large._markets.get_state()["arrays"]
    with pytest.raises(DataError, match="another number of accounts"):
        large.set_state(small.get_state())
    np.testing.assert_equal(large._markets.get_state()["arrays"], before)


def test_a_place_in_another_history_is_refused(goog: Path, tmp_path: Path) -> None:
    shorter = replace(recorded_goog(), bar_end_ns=recorded_goog().bar_end_ns[:60])
    write_history(tmp_path / "shorter", [shorter], DEFAULT_RULES, DEFAULT_FEES, CALENDAR)
    envs = [
        HistoricalOptionsVectorEnv(2, DEFAULT_RULES, DEFAULT_FEES, folder)
        for folder in (goog, tmp_path / "shorter")
    ]
    envs[0].reset()
    with pytest.raises(DataError, match="another history"):
        envs[1].set_state(envs[0].get_state())
