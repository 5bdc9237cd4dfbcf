"""A memory task: a cue is shown once, and must be named when it is no longer visible."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

CUES = 4


class MaskedRecallVectorEnv(VectorEnv):
    """B episodes of `length` steps; the cue is visible at the first, asked for at the last.

    Until the last step only action 0 is allowed. Then actions 1..CUES name a cue, one wrong of
    which is masked out, and the right one earns 1. Without memory the best is a guess, 1 / 3.
    Episodes start out of phase. `truncate` ends them by truncation instead of termination.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, num_envs: int, seed: int, length: int = 5, truncate: bool = False) -> None:
        self.num_envs = num_envs
        self.single_observation_space = gym.spaces.Dict(
            {
                "observations": gym.spaces.Box(0.0, 1.0, (CUES + 1,), np.float32),
                "action_mask": gym.spaces.MultiBinary(CUES + 1),
            }
        )
        self.single_action_space = gym.spaces.Discrete(CUES + 1)
        self.invalid_actions = 0
        self._length = length
        self._truncate = truncate
        self._rng = np.random.default_rng(seed)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        rows = self.num_envs
        self._cue = self._rng.integers(0, CUES, rows)
        self._decoy = self._rng.integers(1, CUES, rows)
        self._age = np.zeros(rows, np.int64)
        self._span = self._length + self._rng.integers(-1, 2, rows)
        self._returns = np.zeros(rows, np.float32)
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        rows = np.arange(self.num_envs)
        self.invalid_actions += int((~self._observe()["action_mask"][rows, actions]).sum())
        done = self._age == self._span - 1
        reward = (done & (actions == self._cue + 1)).astype(np.float32)
        self._returns += reward
        self._age += 1
        info: dict[str, Any] = {}
        if done.any():
            info["final_obs"] = self._observe()
            info["episode"] = {"r": self._returns.copy(), "l": self._age.copy()}
            info["_episode"] = done.copy()
            count = int(done.sum())
            self._cue[done] = self._rng.integers(0, CUES, count)
            self._decoy[done] = self._rng.integers(1, CUES, count)
            self._span[done] = self._length + self._rng.integers(-1, 2, count)
            self._age[done] = 0
            self._returns[done] = 0.0
        never = np.zeros(self.num_envs, np.bool_)
        ends = (never, done) if self._truncate else (done, never)
        return self._observe(), reward, *ends, info

    def _observe(self) -> dict[str, np.ndarray]:
        rows = np.arange(self.num_envs)
        observations = np.zeros((self.num_envs, CUES + 1), np.float32)
        shown = self._age == 0
        observations[rows[shown], self._cue[shown]] = 1.0
        asked = self._age == self._span - 1
        observations[asked, CUES] = 1.0
        mask = np.zeros((self.num_envs, CUES + 1), np.bool_)
        mask[~asked, 0] = True
        mask[asked, 1:] = True
        mask[rows[asked], 1 + (self._cue + self._decoy)[asked] % CUES] = False
        return {"observations": observations, "action_mask": mask}
