"""One account in one simulated market as an ordinary Gymnasium environment.

For trying things out and for tools that know nothing of vector environments; training uses
`trading.envs.vector_env`, of which this is the case B = 1. Gymnasium knows it as
`trading/Options-v0`.
"""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.own_features import OwnFeatures
from trading.envs.registration import register_environments
from trading.envs.rewards import RewardRule
from trading.envs.rules import TradingRules
from trading.envs.vector_env import Observation, SimulatedOptionsVectorEnv
from trading.errors import ConfigError
from trading.execution.fees import FeeSchedule
from trading.market.randomisation import (
    DEFAULT_INITIAL_CONDITIONS,
    DEFAULT_RANGES,
    InitialConditions,
    ModelRanges,
)

register_environments()


class SimulatedOptionsEnv(gym.Env):  # type: ignore[misc]
    """One simulated session day; it ends by truncation at the close and does not reset itself.

    The first episode after a seeded reset begins at the open, and so do all others. With
    `sessions_per_episode` it goes on through the nights, for so many sessions.

    Raises
    ------
    ConfigError
        Accounts trade several underlyings by the rules: a vector environment has them.

    Examples
    --------
    >>> env = SimulatedOptionsEnv()
    >>> observation, _ = env.reset(seed=1)
    >>> bool(observation["action_mask"][0])  # holding is always allowed
    True
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}
    render_mode = None

    def __init__(
        self,
        rules: TradingRules = DEFAULT_RULES,
        fees: FeeSchedule = DEFAULT_FEES,
        ranges: ModelRanges = DEFAULT_RANGES,
        initial_conditions: InitialConditions = DEFAULT_INITIAL_CONDITIONS,
        sessions_per_episode: int = 1,
        reward: RewardRule | None = None,
        features: OwnFeatures | None = None,
    ) -> None:
        if rules.underlyings_per_account > 1:
            raise ConfigError(
                [
                    f"env.underlyings_per_account: {rules.underlyings_per_account}, and this "
                    "environment is one account in one market: set it to 1, or use "
                    "make_vector_env, which has a row for each underlying"
                ]
            )
        self._env = SimulatedOptionsVectorEnv(
            1,
            rules,
            fees,
            ranges,
            initial_conditions=initial_conditions,
            sessions_per_episode=sessions_per_episode,
            reward=reward,
            features=features,
        )
        self.observation_space = self._env.single_observation_space
        self.action_space = self._env.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a new day; without a seed the generator goes on."""
        super().reset(seed=seed)
        observation, _ = self._env.reset(seed=seed)
        return _first(observation), {}

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One bar; `info["invalid_action"]` says that the action was masked out and so a hold."""
        observation, reward, terminated, truncated, info = self._env.step(np.array([action]))
        ended = bool(truncated[0])
        seen = _first(info["final_obs"] if ended else observation)
        told = {"invalid_action": bool(info["invalid_action"][0])}
        return seen, float(reward[0]), bool(terminated[0]), ended, told


def simulated_options(
    num_envs: int,
    rules: TradingRules = DEFAULT_RULES,
    fees: FeeSchedule = DEFAULT_FEES,
    **options: Any,
) -> SimulatedOptionsVectorEnv:
    """Return what `gymnasium.make_vec` makes of that name: markets that are stepped together."""
    return SimulatedOptionsVectorEnv(num_envs, rules, fees, **options)


def _first(batch: Observation) -> Observation:
    return {name: column[0] for name, column in batch.items()}
