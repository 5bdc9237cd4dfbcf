from dataclasses import replace

import numpy as np
import pytest

from tests.learning.experience import random_rollout
from tests.learning.reference import plain_vtrace
from trading.errors import LearningError
from trading.learning.rollout import Rollout, cut_at_episodes, vtrace

GAMMA, LAMBDA = 0.9, 0.8


def random_ratios(seed: int, shape: tuple[int, int]) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_vtrace_equals_the_papers_sum(seed: int) -> None:
    rollout = random_rollout(seed, steps=17, sequences=5).padded(19)
    assert rollout.truncated.any()
    assert rollout.terminated.any()
    ratios = random_ratios(seed, rollout.shape)
    assert (ratios[rollout.valid] > 1.0).any()
    advantages, returns = vtrace(rollout, GAMMA, LAMBDA, ratios)
    expected = plain_vtrace(rollout, GAMMA, LAMBDA, ratios)
    np.testing.assert_allclose(returns, expected, atol=1e-5)
    np.testing.assert_allclose(advantages, np.where(rollout.valid, returns - rollout.values, 0),
                               atol=1e-5)  # fmt: skip
    assert advantages.dtype == returns.dtype == np.float32


def plain_gae(rollout: Rollout) -> np.ndarray:
    """The recursion of arXiv:1506.02438, eq. 16, as it is commonly written; no padding."""
    advantages = np.zeros_like(rollout.values)
    value, advantage = rollout.last_values, np.zeros_like(rollout.last_values)
    for t in reversed(range(rollout.shape[0])):
        ended = rollout.terminated[t] | rollout.truncated[t]
        value = np.where(ended, rollout.final_values[t], value)
        error = rollout.rewards[t] + np.float32(GAMMA) * value - rollout.values[t]
        advantage = error + np.float32(GAMMA * LAMBDA) * np.where(ended, np.float32(0), advantage)
        advantages[t], value = advantage, rollout.values[t]
    return advantages


@pytest.mark.parametrize("ratios", [None, 1.0])
def test_for_ratios_of_one_vtrace_is_gae_to_the_last_bit(ratios: float | None) -> None:
    rollout = random_rollout(1, steps=17, sequences=5)
    given = None if ratios is None else np.full(rollout.shape, ratios, np.float32)
    advantages, returns = vtrace(rollout, GAMMA, LAMBDA, given)
    np.testing.assert_array_equal(advantages, plain_gae(rollout))
    np.testing.assert_array_equal(returns, advantages + rollout.values)


def test_an_action_that_the_policy_would_never_take_again_teaches_nothing() -> None:
    rollout = random_rollout(0, ends=0.0)
    ratios = np.ones(rollout.shape, np.float32)
    ratios[5] = 0.0
    advantages, returns = vtrace(rollout, GAMMA, LAMBDA, ratios)
    assert not advantages[5].any()
    np.testing.assert_array_equal(returns[5], rollout.values[5])
    changed = replace(rollout, rewards=rollout.rewards + np.float32(np.arange(12)[:, None] > 5))
    np.testing.assert_array_equal(vtrace(changed, GAMMA, LAMBDA, ratios)[0][:5], advantages[:5])


def test_a_ratio_that_overflowed_is_clipped() -> None:
    rollout = random_rollout(0)
    ratios = np.full(rollout.shape, np.inf, np.float32)
    np.testing.assert_array_equal(
        vtrace(rollout, GAMMA, LAMBDA, ratios)[0], vtrace(rollout, GAMMA, LAMBDA)[0]
    )


def test_gae_bootstraps_on_truncation_but_not_on_termination() -> None:
    rollout = random_rollout(0, steps=1, sequences=2, ends=0.0)
    rollout.truncated[0, 0] = rollout.terminated[0, 1] = True
    rollout.final_values[0, 0] = 10.0
    advantages, _ = vtrace(rollout, GAMMA, LAMBDA)
    expected = rollout.rewards[0] - rollout.values[0] + np.array([GAMMA * 10.0, 0.0])
    np.testing.assert_allclose(advantages[0], expected, rtol=1e-5)


def test_padding_changes_no_advantage() -> None:
    rollout = random_rollout(3, steps=9)
    padded = rollout.padded(14)
    padded.validate()
    assert padded.shape == (14, 6)
    assert padded.steps == rollout.steps
    advantages, returns = vtrace(padded, GAMMA, LAMBDA)
    np.testing.assert_array_equal(advantages[:9], vtrace(rollout, GAMMA, LAMBDA)[0])
    assert not advantages[9:].any()
    assert not returns[9:].any()


def test_concatenate_joins_columns_and_keeps_the_oldest_version() -> None:
    parts = [random_rollout(4, sequences=2), random_rollout(2, sequences=3)]
    joined = Rollout.concatenate(parts)
    joined.validate()
    assert joined.shape == (12, 5)
    assert joined.weights_version == 2
    np.testing.assert_array_equal(joined.rewards[:, 2:], parts[1].rewards)
    np.testing.assert_array_equal(
        joined.initial_state["actor_h"][:, :2], parts[0].initial_state["actor_h"]
    )


def test_concatenate_refuses_different_lengths_and_nothing() -> None:
    with pytest.raises(LearningError, match=r"\[11, 12\]"):
        Rollout.concatenate([random_rollout(0, steps=11), random_rollout(0, steps=12)])
    with pytest.raises(LearningError, match="no rollout"):
        Rollout.concatenate([])


@pytest.mark.parametrize("length", [1, 2, 5, 15, 400])
def test_cut_sequences_hold_every_step_once_and_reset_only_at_their_start(length: int) -> None:
    age = np.arange(20)[:, None] + np.arange(7) * length // 7
    first = age % length == 0
    steps, inside, column = cut_at_episodes(first)
    assert sorted(steps[inside].tolist()) == list(range(140))
    assert (steps % 7 == column).all()
    assert not first.reshape(-1)[steps][1:][inside[1:]].any()
    assert steps.size <= 280


def test_columns_stay_whole_when_cutting_would_waste_more_than_it_saves() -> None:
    first = np.zeros((40, 2), np.bool_)
    first[1:, 1] = True
    steps, inside, column = cut_at_episodes(first)
    assert steps.shape == (40, 2)
    assert inside.all()
    assert column.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rewards", np.nan, "rewards holds NaN"),
        ("observations", np.inf, "observations holds NaN"),
        ("log_probs", np.nan, "log_probs holds NaN"),
        ("last_values", np.nan, "last_values holds NaN"),
        ("actions", 99, r"outside 0\.\.3"),
        ("actions", -1, r"outside 0\.\.3"),
        ("first", True, "first disagrees"),
    ],
)
def test_an_unusable_rollout_is_refused_by_field(field: str, value: float, message: str) -> None:
    rollout = random_rollout(0, ends=0.0)
    getattr(rollout, field)[-1] = value
    with pytest.raises(LearningError, match=message):
        rollout.validate()


def test_an_action_that_its_mask_forbids_is_refused() -> None:
    rollout = random_rollout(0)
    rollout.action_mask[3, 2, rollout.actions[3, 2]] = False
    with pytest.raises(LearningError, match="mask forbids"):
        rollout.validate()


@pytest.mark.parametrize(
    ("field", "array", "message"),
    [
        ("rewards", np.zeros((12, 6)), "rewards is float64"),
        ("values", np.zeros((12, 5), np.float32), "values has shape"),
        ("actions", np.zeros((0, 6), np.int64), "actions has shape"),
        ("initial_state", {"actor_h": np.zeros((1, 5, 6), np.float32)}, "initial_state"),
    ],
)
def test_a_wrong_dtype_or_shape_is_refused_by_field(field, array, message) -> None:
    with pytest.raises(LearningError, match=message):
        replace(random_rollout(0), **{field: array}).validate()


def test_garbage_on_padding_is_no_concern() -> None:
    rollout = random_rollout(0, ends=0.0).padded(15)
    rollout.rewards[13] = np.nan
    rollout.actions[14] = 77
    rollout.validate()
    assert np.isfinite(vtrace(rollout, GAMMA, LAMBDA)[0]).all()
