"""Small algorithms on the recall task for the tests that run RLlib."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.learning.experience import random_rollout
from tests.usual import clstm_config, ppo_settings
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.learning.policy import Weights
from trading.learning.ppo import CLSTMPPO, CLSTMPPOConfig
from trading.learning.rollout import Rollout

HIDDEN = {"feature_hidden": 32, "actor_hidden": 32, "critic_hidden": 32}
NETWORK = clstm_config(observation_size=5, action_count=5, **HIDDEN)
RECALL = {"factory": "tests.learning.recall_env.MaskedRecallVectorEnv"}
OPTIONS = {
    "factory": "trading.envs.vector_env.SimulatedOptionsVectorEnv",
    "rules": DEFAULT_RULES,
    "fees": DEFAULT_FEES,
}
Build = Callable[[CLSTMPPOConfig], CLSTMPPO]
"""Builds an algorithm, which the test's end stops."""


def config(seed: int = 3) -> CLSTMPPOConfig:
    return (
        CLSTMPPOConfig()
        .environment(env_config=RECALL)
        .env_runners(num_envs_per_env_runner=32, rollout_fragment_length=32)
        .rl_module(model_config=HIDDEN)
        .training(ppo=ppo_settings(learning_rate=3e-3, gamma=0.9, minibatches=2), torch_threads=1)
        .debugging(seed=seed)
    )


def live(seed: int, steps: int = 21, sequences: int = 3) -> Rollout:
    """A fragment of another shape than the simulator's."""
    return random_rollout(seed, steps=steps, sequences=sequences, config=NETWORK)


def learned(results: dict[str, Any]) -> dict[str, float]:
    """The statistics of the last update."""
    return {k: float(v) for k, v in results["learners"]["default_policy"].items()}


def equal(one: Weights, two: Weights) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(a, two[k]) for k, a in one.items())
