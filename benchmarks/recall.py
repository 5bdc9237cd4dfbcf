"""A memory task in the form that each trainer steps fastest: the same episodes, rewards and sizes.

A cue is shown at an episode's first step and asked for at its last; naming it earns 1. Without
memory the best is a guess, 1 / CUES. No action is masked, because not every trainer knows masks.
"""

from importlib import import_module
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

CUES = 4
FEATURES = CUES + 1
"""One for each cue, one for the question."""


def observation_space() -> gym.spaces.Box:
    return gym.spaces.Box(0.0, 1.0, (FEATURES,), np.float32)


def action_space() -> gym.spaces.Discrete:
    """0 says nothing, 1..CUES name a cue."""
    return gym.spaces.Discrete(CUES + 1)


class RecallBatch:
    """B episodes that restart by themselves; the first of each is shorter, so they are staggered.

    Parameters:
        count: B.
        length: Mean steps of an episode; one is a step longer or shorter.
        seed: Of all cues and lengths.
    """

    def __init__(self, count: int, length: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._length = length
        self._cue = self._rng.integers(0, CUES, count)
        self._span = self._rng.integers(2, length + 2, count)
        self._age = np.zeros(count, np.int64)

    def observe(self) -> np.ndarray:
        """float32 [B, FEATURES]."""
        observations = np.zeros((len(self._age), FEATURES), np.float32)
        shown = np.flatnonzero(self._age == 0)
        observations[shown, self._cue[shown]] = 1.0
        observations[self._age == self._span - 1, CUES] = 1.0
        return observations

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rewards float32 [B], episodes that ended bool [B], their lengths; ended ones restart."""
        done = self._age == self._span - 1
        rewards = (done & (actions == self._cue + 1)).astype(np.float32)
        self._age += 1
        lengths = self._age.copy()
        if count := int(np.count_nonzero(done)):
            self._cue[done] = self._rng.integers(0, CUES, count)
            self._span[done] = self._length + self._rng.integers(-1, 2, count)
            self._age[done] = 0
        return rewards, done, lengths


class RecallVectorEnv(VectorEnv):
    """For this project: Gymnasium's vector interface with an action mask that allows everything."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, num_envs: int, seed: int, length: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space = gym.spaces.Dict(
            {"observations": observation_space(), "action_mask": gym.spaces.MultiBinary(CUES + 1)}
        )
        self.single_action_space = action_space()
        self._batch = RecallBatch(num_envs, length, seed)
        self._mask = np.ones((num_envs, CUES + 1), np.bool_)
        self._never = np.zeros(num_envs, np.bool_)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        return self._situation(), {}

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        rewards, done, lengths = self._batch.step(actions)
        info = {"episode": {"r": rewards, "l": lengths}} if done.any() else {}
        return self._situation(), rewards, done, self._never, info

    def _situation(self) -> dict[str, np.ndarray]:
        return {"observations": self._batch.observe(), "action_mask": self._mask}


class RecallEnv(gym.Env):
    """One episode at a time, for RLlib, which puts many of them into its own vector environment."""

    observation_space = observation_space()
    action_space = action_space()

    def __init__(self, config: dict[str, Any]) -> None:
        self._length = config["length"]
        self._rng = np.random.default_rng()
        self._fewest = 2

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._cue = int(self._rng.integers(CUES))
        self._span = int(self._rng.integers(self._fewest, self._length + 2))
        self._fewest = self._length - 1
        self._age = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        done = self._age == self._span - 1
        reward = float(done and action == self._cue + 1)
        self._age += 1
        return self._observe(), reward, done, False, {}

    def _observe(self) -> np.ndarray:
        observation = np.zeros(FEATURES, np.float32)
        if self._age == 0:
            observation[self._cue] = 1.0
        if self._age == self._span - 1:
            observation[CUES] = 1.0
        return observation


def sb3_env(count: int, length: int, seed: int) -> Any:
    """As Stable-Baselines3's vector environment."""
    base = import_module("stable_baselines3.common.vec_env").VecEnv

    class RecallVecEnv(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__(count, observation_space(), action_space())
            self._batch = RecallBatch(count, length, seed)

        def reset(self) -> np.ndarray:
            return self._batch.observe()

        def step_async(self, actions: np.ndarray) -> None:
            self._actions = actions

        def step_wait(self) -> tuple[Any, Any, Any, list[dict[str, Any]]]:
            rewards, done, lengths = self._batch.step(self._actions)
            infos: list[dict[str, Any]] = [{} for _ in range(count)]
            for i in np.flatnonzero(done):
                infos[i]["episode"] = {"r": float(rewards[i]), "l": int(lengths[i]), "t": 0.0}
            return self._batch.observe(), rewards, done, infos

        def close(self) -> None: ...

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [getattr(self, attr_name, None)] * count

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            setattr(self, attr_name, value)

        def env_method(self, method_name: str, *_: Any, **__: Any) -> list[Any]:
            raise NotImplementedError(method_name)

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * count

    return RecallVecEnv()


def puffer_env(count: int, length: int, seed: int) -> Any:
    """As PufferLib's native environment, which writes into its buffers."""
    base = import_module("pufferlib").PufferEnv

    class RecallPufferEnv(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            self.single_observation_space = observation_space()
            self.single_action_space = action_space()
            self.num_agents = count
            super().__init__()
            self.agents_per_batch = count
            self._batch = RecallBatch(count, length, seed)

        def reset(self, seed: int | None = None) -> tuple[Any, list[Any]]:
            self.observations[:] = self._batch.observe()
            return self.observations, []

        def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, list[Any]]:
            rewards, done, _ = self._batch.step(actions.reshape(-1))
            self.observations[:] = self._batch.observe()
            self.rewards[:] = rewards
            self.terminals[:] = done
            infos = [{"return": rewards[done].tolist()}] if done.any() else []
            return self.observations, self.rewards, self.terminals, self.truncations, infos

        def close(self) -> None: ...

    return RecallPufferEnv()
