"""The learner on problems whose answer is known, and the answers themselves.

The benchmark `benchmarks/learning_curves.py` trains longer, over several seeds.
"""

from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch

from benchmarks.known_problems import (
    NO_EDGE,
    REVERTING_VOLATILITY,
    MemorylessCLSTM,
    PositionsOnlyCartPole,
    buy_low_volatility,
    play,
)
from benchmarks.learning_curves import PROBLEMS, Problem, greedy_return, train
from tests.learning.recall_env import MaskedRecallVectorEnv
from tests.usual import clstm_config, ppo_settings
from trading.evaluation.baselines import hold, open_and_keep, random_masked
from trading.learning.clstm import CLSTM
from trading.learning.policy import seeded_clstm

RECALL = replace(
    PROBLEMS["recall"],
    factory=partial(MaskedRecallVectorEnv, length=5),
    ppo=ppo_settings(learning_rate=3e-3, gamma=0.9, minibatches=2),
    envs=32,
    rollout_length=32,
)


def last_return(problem: Problem, steps: int, network: type[CLSTM]) -> float:
    """Of the greedy policy after so many steps of training."""
    *_, (_, policy) = train(problem, 1, steps, network)
    return greedy_return(problem, policy, seed=99)


@pytest.mark.slow
def test_recall_is_solved_with_memory_and_guessed_without() -> None:
    assert last_return(RECALL, 30_000, CLSTM) > 0.95
    assert last_return(RECALL, 30_000, MemorylessCLSTM) < 0.5


@pytest.mark.slow
def test_cartpole_without_velocities_needs_memory() -> None:
    assert last_return(PROBLEMS["cartpole"], 80_000, CLSTM) > 120.0
    assert last_return(PROBLEMS["cartpole"], 80_000, MemorylessCLSTM) < 70.0


def test_the_control_is_as_large_and_forgets_everything() -> None:
    config = clstm_config(observation_size=3, action_count=2)
    model, control = seeded_clstm(config, 1), MemorylessCLSTM(config)
    control.load_state_dict(model.state_dict())
    observations, mask = torch.randn(4, 2, 3), torch.ones(4, 2, 2, dtype=torch.bool)
    state = {key: tensor + 1.0 for key, tensor in model.initial_state(2).items()}
    once, every = torch.zeros(4, 2, dtype=torch.bool), torch.ones(4, 2, dtype=torch.bool)
    logits, values, _ = control(observations, mask, state, once)
    expected, expected_values, _ = model(observations, mask, state, every)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(values, expected_values)


def test_cartpole_moves_as_gymnasiums_and_resets_in_the_same_step() -> None:
    ours = PositionsOnlyCartPole(num_envs=3, seed=5)
    theirs = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point")
    seen, _ = ours.reset()
    state, _ = theirs.reset(seed=5)
    limits = np.array([2.4, np.deg2rad(12.0)])
    push = np.ones(3, np.int64)
    done, steps = np.zeros(3, np.bool_), 0
    while not done.any() and steps < 30:
        np.testing.assert_allclose(
            seen["observations"][:, :2] * limits, state[:, [0, 2]], atol=1e-6
        )
        seen, reward, done, _, info = ours.step(push)
        state, _, their_done, _, _ = theirs.step(push)
        np.testing.assert_array_equal(done, their_done)
        assert (reward == np.float32(PositionsOnlyCartPole.REWARD)).all()
        steps += 1
    last = info["final_obs"]["observations"]
    np.testing.assert_allclose(last[:, :2] * limits, state[:, [0, 2]], atol=1e-6)
    np.testing.assert_array_equal(info["episode"]["r"][done], steps)
    assert (np.abs(seen["observations"][done, 1]) < 0.05 / limits[1] + 1e-6).all()
    _, _, again, _, _ = ours.step(push)
    assert not again[done].any()


SESSIONS, SEED = 96, 3


def standard_error(returns: np.ndarray) -> float:
    return float(returns.std(ddof=1) / np.sqrt(len(returns)))


def test_the_planted_edge_pays_its_costs() -> None:
    rule = play(buy_low_volatility, REVERTING_VOLATILITY, SESSIONS, SEED)
    assert rule.returns.mean() > 0.02 + 2.0 * standard_error(rule.returns)
    assert rule.fills.mean() > 2.0
    assert not play(hold, REVERTING_VOLATILITY, SESSIONS, SEED).returns.any()
    assert play(random_masked(1), REVERTING_VOLATILITY, SESSIONS, SEED).returns.mean() < -0.01


def test_buying_and_holding_a_martingale_earns_nothing() -> None:
    kept = play(hold, NO_EDGE, SESSIONS, SEED).underlying
    assert abs(kept.mean()) < 3.0 * standard_error(kept)
    assert 0.005 < kept.std() < 0.03


@pytest.mark.parametrize(
    "action", ["long_straddle_far_d50", "long_straddle_near_d50", "iron_condor_near_d30_15"]
)
def test_without_an_edge_options_cost_what_they_pay(action: str) -> None:
    """What is kept to the close loses about half a spread and fees; nothing earns."""
    kept = play(open_and_keep(action), NO_EDGE, SESSIONS, SEED)
    assert kept.fills.mean() > 0.8
    assert kept.returns.mean() < 3.0 * standard_error(kept.returns)
    assert abs(kept.returns.mean()) < 0.001 + 3.0 * standard_error(kept.returns)


def test_without_an_edge_trading_more_loses_more() -> None:
    rule = play(buy_low_volatility, NO_EDGE, SESSIONS, SEED)
    often = play(random_masked(1), NO_EDGE, SESSIONS, SEED)
    assert rule.returns.mean() < 3.0 * standard_error(rule.returns)
    assert often.fills.mean() > 50.0
    assert often.returns.mean() < rule.returns.mean() - 0.02
