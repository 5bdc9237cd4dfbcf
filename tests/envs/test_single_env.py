"""The single environment keeps Gymnasium's contract and is the vector environment at B = 1."""

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
