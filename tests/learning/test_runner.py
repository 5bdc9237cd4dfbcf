from typing import Any

import numpy as np
import pytest
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, WEIGHTS_SEQ_NO

from tests.learning.experience import acted_by
from tests.learning.recall_env import MaskedRecallVectorEnv
from trading.errors import LearningError
from trading.learning.policy import Policy
from trading.learning.ppo import CLSTMPPOConfig
from trading.learning.rollout import Rollout
from trading.learning.runner import BatchedEnvRunner

STEPS, ENVS = 9, 4


def runner(seed: int = 1, factory: Any = MaskedRecallVectorEnv, **env: Any) -> BatchedEnvRunner:
    config = (
        CLSTMPPOConfig()
        .environment(env_config={"factory": factory, **env})
        .env_runners(num_envs_per_env_runner=ENVS, rollout_fragment_length=STEPS)
        .rl_module(model_config={"feature_hidden": 8, "actor_hidden": 8, "critic_hidden": 8})
        .training(torch_threads=1)
        .debugging(seed=seed)
    )
    return BatchedEnvRunner(config=config, worker_index=0, num_workers=0)


def sample(source: BatchedEnvRunner) -> Rollout:
    (rollout,) = source.sample()
    rollout.validate()
    return rollout


def test_what_was_recorded_is_what_the_network_says_of_it() -> None:
    """Log probabilities and values recompute from the initial state, also in later fragments."""
    source = runner()
    for _ in range(3):
        rollout = sample(source)
        assert rollout.shape == (STEPS, ENVS)
        again = acted_by(source.policy.model, rollout)
        np.testing.assert_allclose(rollout.log_probs, again.log_probs, atol=1e-5)
        np.testing.assert_allclose(rollout.values, again.values, atol=1e-5)


def test_fragments_continue_where_the_last_one_ended() -> None:
    source = runner()
    one, two = sample(source), sample(source)
    np.testing.assert_array_equal(two.first[0], (one.terminated | one.truncated)[-1])
    assert one.first[0].all()
    assert any(array.any() for array in two.initial_state.values())
    running = ~two.first[0]
    np.testing.assert_allclose(one.last_values[running], two.values[0, running], atol=1e-6)


def test_a_truncated_episode_is_valued_at_its_own_last_observation() -> None:
    valued: list[tuple[np.ndarray, np.ndarray]] = []

    class Watched(Policy):
        def value(self, observations, action_mask, state):
            result = super().value(observations, action_mask, state)
            valued.append((observations, result))
            return result

    source = runner(truncate=True)
    source.policy = Watched(source.policy.config, 0, source.policy.model)
    rollout = sample(source)
    assert rollout.truncated.any()
    assert not rollout.terminated.any()
    assert (rollout.final_values[~rollout.truncated] == 0).all()
    cuts = [t for t in range(STEPS) if rollout.truncated[t].any()]
    for t, (observations, values) in zip(cuts, valued[:-1], strict=True):
        cut = rollout.truncated[t]
        np.testing.assert_array_equal(rollout.final_values[t, cut], values)
        assert not observations.any(), "an ended episode shows neither cue nor question"


def test_equal_seeds_sample_equal_rollouts() -> None:
    one, two, other = sample(runner(5)), sample(runner(5)), sample(runner(6))
    for name in ("observations", "actions", "rewards", "log_probs", "last_values"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert not np.array_equal(one.observations, other.observations)


def test_a_factory_may_be_a_dotted_path() -> None:
    sample(runner(factory="tests.learning.recall_env.MaskedRecallVectorEnv", length=3))


@pytest.mark.parametrize("factory", [None, "nowhere", "tests.learning.recall_env.Missing"])
def test_a_factory_that_leads_nowhere_is_refused(factory: str | None) -> None:
    with pytest.raises(LearningError, match="factory"):
        runner(factory=factory)


def test_metrics_count_steps_and_average_episodes() -> None:
    source = runner()
    sample(source)
    metrics = source.get_metrics()
    assert metrics[NUM_ENV_STEPS_SAMPLED_LIFETIME].peek() == STEPS * ENVS
    assert 3 <= metrics["episode_len_mean"].peek() <= 7
    assert 0 <= metrics["episode_return_mean"].peek() <= 1


def test_weights_of_any_version_are_taken_over() -> None:
    source, wanted = runner(1), runner(2)
    weights = wanted.get_state()[COMPONENT_RL_MODULE]
    for version in (7, 3):
        source.set_state({COMPONENT_RL_MODULE: weights, WEIGHTS_SEQ_NO: version})
        assert sample(source).weights_version == version
    own = source.get_state()
    assert own[WEIGHTS_SEQ_NO] == 3
    for name, array in own[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID].items():
        np.testing.assert_array_equal(array, weights[DEFAULT_MODULE_ID][name])
    assert COMPONENT_RL_MODULE not in source.get_state(not_components=COMPONENT_RL_MODULE)
