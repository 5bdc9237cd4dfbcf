"""The single environment keeps Gymnasium's contract and is the vector environment at B = 1."""

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env

from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.simulated_markets import SESSION_BARS
from trading.envs.single_env import SimulatedOptionsEnv
from trading.envs.vector_env import SimulatedOptionsVectorEnv


def test_gymnasium_finds_nothing_to_complain_about() -> None:
    check_env(SimulatedOptionsEnv(), skip_render_check=True)


def test_an_episode_is_what_the_vector_environment_of_one_account_plays() -> None:
    single, vector = (
        SimulatedOptionsEnv(),
        SimulatedOptionsVectorEnv(1, DEFAULT_RULES, DEFAULT_FEES),
    )
    seen, _ = single.reset(seed=5)
    batch, _ = vector.reset(seed=5)
    rng = np.random.default_rng(0)
    for _ in range(SESSION_BARS):
        assert np.array_equal(seen["observations"], batch["observations"][0])
        action = int(rng.choice(np.flatnonzero(seen["action_mask"])))
        seen, reward, _, ended, _ = single.step(action)
        batch, rewards, _, truncated, info = vector.step(np.array([action]))
        assert reward == rewards[0]
        assert ended == truncated[0]
        if ended:
            assert np.array_equal(seen["observations"], info["final_obs"]["observations"][0])
            return
    raise AssertionError("the session never closed")


def test_an_episode_goes_through_as_many_nights_as_it_is_asked_for() -> None:
    env = gymnasium.make("trading/Options-v0", sessions_per_episode=2)
    env.reset(seed=3)
    bars, ended = 0, False
    while not ended:
        _, _, terminated, truncated, _ = env.step(0)
        bars, ended = bars + 1, terminated or truncated
    assert SESSION_BARS < bars <= 2 * SESSION_BARS + 2


def test_gymnasium_makes_many_that_are_stepped_together() -> None:
    env = gymnasium.make_vec(
        "trading/Options-v0", num_envs=4, vectorization_mode="vector_entry_point", seed=2
    )
    assert isinstance(env.unwrapped, SimulatedOptionsVectorEnv)
    same = SimulatedOptionsVectorEnv(4, DEFAULT_RULES, DEFAULT_FEES, seed=2)
    np.testing.assert_array_equal(env.reset()[0]["observations"], same.reset()[0]["observations"])
