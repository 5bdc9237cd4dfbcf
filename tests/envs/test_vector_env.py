"""The vectorised environment: Gymnasium's contract, money, and determinism."""

import numpy as np
import pytest

from trading.envs.catalogue import ACTION_COUNT, CLOSE
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.features import FEATURE_COUNT
from trading.envs.simulated_markets import SESSION_BARS
from trading.envs.vector_env import SimulatedOptionsVectorEnv
from trading.execution.fees import NO_FEES

BATCH = 6


def make(seed: int = 3, **kwargs: object) -> SimulatedOptionsVectorEnv:
    arguments = {"rules": DEFAULT_RULES, "fees": DEFAULT_FEES, **kwargs}
    return SimulatedOptionsVectorEnv(BATCH, seed=seed, **arguments)


def allowed(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    return (rng.random(mask.shape) * mask).argmax(axis=1)


def test_shapes_and_types_are_those_of_the_spaces() -> None:
    env = make()
    observation, _ = env.reset()
    assert env.observation_space.contains(observation)
    assert observation["observations"].shape == (BATCH, FEATURE_COUNT)
    assert observation["observations"].dtype == np.float32
    assert observation["action_mask"].shape == (BATCH, ACTION_COUNT)
    _, reward, terminated, truncated, _ = env.step(np.zeros(BATCH, dtype=np.int64))
    assert reward.dtype == np.float32
    assert not terminated.any() and not truncated.any()


def test_equal_seeds_give_equal_worlds_and_others_differ() -> None:
    def run(seed: int) -> np.ndarray:
        env, rng = make(seed), np.random.default_rng(0)
        observation, _ = env.reset()
        rewards = []
        for _ in range(40):
            observation, reward, *_ = env.step(allowed(rng, observation["action_mask"]))
            rewards.append(np.concatenate([reward, observation["observations"].ravel()]))
        return np.array(rewards)

    assert np.array_equal(run(5), run(5))
    assert not np.array_equal(run(5), run(6))


def test_rewards_of_an_episode_add_up_to_its_return_and_reset_is_in_the_same_step() -> None:
    env, rng = make(), np.random.default_rng(1)
    observation, _ = env.reset()
    totals = np.zeros(BATCH)
    seen = np.zeros(BATCH, dtype=bool)
    for _ in range(2 * SESSION_BARS):
        observation, reward, _, truncated, info = env.step(allowed(rng, observation["action_mask"]))
        totals += reward
        if truncated.any():
            assert np.allclose(info["episode"]["r"][truncated], totals[truncated], atol=1e-3)
            final = info["final_obs"]["observations"][truncated]
            assert not np.array_equal(final, observation["observations"][truncated])
            totals[truncated] = 0.0
            seen |= truncated
        if seen.all():
            return
    pytest.fail("no episode ended")


def test_holding_earns_nothing() -> None:
    env = make()
    env.reset()
    for _ in range(30):
        _, reward, *_ = env.step(np.zeros(BATCH, dtype=np.int64))
        assert (reward == 0.0).all()


def test_an_action_that_is_masked_out_is_a_hold_and_is_reported() -> None:
    env = make()
    env.reset()
    _, reward, _, _, info = env.step(np.full(BATCH, CLOSE))
    assert info["invalid_action"].all()
    assert (reward == 0.0).all()


def test_opening_and_closing_at_once_loses_the_spread_and_the_fees() -> None:
    costs = {}
    for name, fees in (("free", NO_FEES), ("paid", DEFAULT_FEES)):
        env, rng = make(fees=fees), np.random.default_rng(2)
        observation, _ = env.reset()
        mask = observation["action_mask"].copy()
        mask[:, :2] = False
        actions = allowed(rng, mask)
        before = env.equity.copy()
        observation, _, _, _, _ = env.step(actions)
        closing = np.where(observation["action_mask"][:, CLOSE], CLOSE, 0)
        env.step(closing)
        costs[name] = before - env.equity
    assert (costs["paid"] > costs["free"] - 1e-9).all()
    assert (costs["paid"] - costs["free"]).max() > 1.0
