"""An environment that counts: what should be seen, earned and ended is known at every step."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv


class Counting(gym.Env):  # type: ignore[misc]
    """Shows [age, length]; every step earns age + 1. Episodes are 3, 4, 3, 4, ... steps long."""

    metadata: ClassVar[dict[str, Any]] = {}
    render_mode = None

    def __init__(self, truncate: bool = False, masked: bool = False, start: int = 0) -> None:
        self.observation_space: gym.Space[Any] = gym.spaces.Box(0, 9, (2,), np.float64)
        self.action_space = gym.spaces.Discrete(2, start=start)
        if masked:
            mask = gym.spaces.Box(0, 1, (2,), np.int8)
            self.observation_space = gym.spaces.Dict(
                {"observations": self.observation_space, "action_mask": mask}
            )
        self._truncate, self._masked, self._start = truncate, masked, start
        self._age, self._length = 0, 4

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._age, self._length = 0, 7 - self._length
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        allowed = (self._start,) if self._masked else (self._start, self._start + 1)
        assert int(action) in allowed, action
        self._age += 1
        ended = self._age == self._length
        return (
            self._seen(),
            float(self._age),
            ended and not self._truncate,
            ended and self._truncate,
            {},
        )

    def _seen(self) -> Any:
        shown = np.array([self._age, self._length], np.float64)
        if not self._masked:
            return shown
        over = self._age == self._length
        return {"observations": shown, "action_mask": np.array([not over, 0], np.int8)}


class OfRLlib(Counting):
    """Takes RLlib's one dict of settings."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(**config)


def counting(num_envs: int, seed: int, mode: str = "SAME_STEP", **own: Any) -> VectorEnv:
    """Gymnasium's own vector environment of them."""
    envs = [lambda: Counting(**own)] * num_envs
    return SyncVectorEnv(envs, autoreset_mode=AutoresetMode[mode])


def recorded(num_envs: int, seed: int, mode: str = "SAME_STEP", **own: Any) -> VectorEnv:
    """With Gymnasium's statistics around it."""
    return gym.wrappers.vector.RecordEpisodeStatistics(counting(num_envs, seed, mode, **own))
