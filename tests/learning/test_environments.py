"""Environments of RLlib's and Gymnasium's users, stepped by the runner."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv, VectorEnv
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.tune.registry import register_env

from tests.learning.algorithms import OPTIONS
from tests.learning.counting_env import Counting, OfRLlib, counting, recorded
from trading.errors import LearningError
from trading.learning.environments import stepped_env
from trading.learning.ppo import CLSTMPPOConfig
from trading.learning.rollout import Rollout, vtrace
from trading.learning.runner import BatchedEnvRunner
from trading.market import randomisation

STEPS, ENVS = 23, 3
MODES = ["SAME_STEP", "NEXT_STEP", "DISABLED"]


def runner(config: CLSTMPPOConfig) -> BatchedEnvRunner:
    config = (
        config.env_runners(num_envs_per_env_runner=ENVS, rollout_fragment_length=STEPS)
        .rl_module(model_config={"feature_hidden": 4, "actor_hidden": 4, "critic_hidden": 4})
        .training(torch_threads=1)
        .debugging(seed=1)
    )
    config.validate()
    return BatchedEnvRunner(config=config, worker_index=0, num_workers=0)


def of(env: Any = None, **env_config: Any) -> BatchedEnvRunner:
    return runner(CLSTMPPOConfig().environment(env, env_config=env_config))


def sampled(source: BatchedEnvRunner) -> Rollout:
    rollout = source.rollout()
    rollout.validate()
    return rollout


def column(rollout: Rollout, name: str, which: int = 0) -> np.ndarray:
    """The steps of one environment that are learned from."""
    values: np.ndarray = getattr(rollout, name)[:, which]
    return values[rollout.valid[:, which]]


register_env("counting", OfRLlib)

NAMED: dict[str, tuple[Any, dict[str, Any]]] = {
    "a registered name": ("counting", {"masked": True}),
    "a Gymnasium id": ("CartPole-v1", {"sutton_barto_reward": True}),
    "a class of RLlib's kind": (OfRLlib, {"masked": True}),
    "a class of Gymnasium's kind": (Counting, {"masked": True}),
    "the path of a class": ("tests.learning.counting_env.Counting", {"masked": False}),
    "a class as factory": (None, {"factory": Counting, "masked": True}),
    "a factory": (None, {"factory": counting}),
    "the path of a factory": (None, {"factory": "tests.learning.counting_env.counting"}),
}


@pytest.mark.parametrize("name", NAMED)
def test_an_environment_is_named_as_everywhere_in_rllib(name: str) -> None:
    env, env_config = NAMED[name]
    rollout = sampled(of(env, **env_config))
    assert rollout.shape == (STEPS, ENVS)
    assert rollout.terminated.any()
    if env_config.get("masked"):
        assert not rollout.action_mask[..., 1].any() and (rollout.actions == 0).all()
    else:
        assert rollout.action_mask[rollout.valid].all()


def test_environments_in_processes_of_their_own_give_the_same() -> None:
    alone, apart = (
        sampled(
            runner(
                CLSTMPPOConfig().environment("CartPole-v1").env_runners(gym_env_vectorize_mode=mode)
            )
        )
        for mode in ("sync", "async")
    )
    np.testing.assert_array_equal(alone.observations, apart.observations)


def test_equal_seeds_begin_equally() -> None:
    one, two = sampled(of("CartPole-v1")), sampled(of("CartPole-v1"))
    np.testing.assert_array_equal(one.observations, two.observations)
    assert not np.array_equal(one.observations[0, 0], one.observations[0, 1])


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("factory", [counting, recorded])
def test_each_autoreset_mode_gives_the_same_experience(
    factory: Any, mode: str, truncate: bool
) -> None:
    source = of(factory=factory, mode=mode, truncate=truncate, masked=True)
    for _ in range(2):
        rollout = sampled(source)
        for which in range(ENVS):
            age, length = column(rollout, "observations", which).T
            rewards = column(rollout, "rewards", which)
            ended = column(rollout, "truncated" if truncate else "terminated", which)
            np.testing.assert_array_equal(rewards, age + 1)
            np.testing.assert_array_equal(ended, age + 1 == length)
            np.testing.assert_array_equal(column(rollout, "first", which), age == 0)
            np.testing.assert_array_equal(age[1:], np.where(ended[:-1], 0, age[:-1] + 1))
        assert not (rollout.terminated if truncate else rollout.truncated).any()
    metrics = source.get_metrics()
    assert 3.0 < metrics["episode_len_mean"].peek() < 4.0
    assert 6.0 < metrics["episode_return_mean"].peek() < 10.0


@pytest.mark.parametrize("mode", MODES)
def test_a_truncated_episode_goes_on_with_the_value_of_its_own_end(mode: str) -> None:
    source = of(factory=counting, mode=mode, truncate=True)
    rollout = sampled(source)
    same = sampled(of(factory=counting, mode="SAME_STEP", truncate=True))
    cut = column(rollout, "truncated")
    values = column(rollout, "final_values")[cut]
    expected = column(same, "final_values")[column(same, "truncated")]
    np.testing.assert_allclose(values, expected[: len(values)], atol=1e-6)
    assert (values != 0.0).all()
    advantages, _ = vtrace(rollout, 0.9, 0.0)
    assert not advantages[~rollout.valid].any()
    of_steps = advantages[:, 0][rollout.valid[:, 0]]
    own = column(rollout, "values")[cut]
    rewards = column(rollout, "rewards")[cut]
    np.testing.assert_allclose(of_steps[cut], rewards + 0.9 * values - own, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_an_evaluation_counts_whole_episodes(mode: str) -> None:
    source = of(factory=counting, mode=mode)
    steps = source.evaluate(None, 6).steps
    metrics = source.get_metrics()
    assert metrics["episode_len_mean"].peek() == 3.5
    assert metrics["episode_return_mean"].peek() == 8.0
    assert steps == 6 * 7 // 2


class Shows(gym.Env):  # type: ignore[misc]
    """Shows whatever its space holds."""

    def __init__(self, space: gym.Space[Any], mask: str = "") -> None:
        self._inner, self._mask = space, mask
        self.observation_space = space
        if mask:
            own = gym.spaces.MultiBinary(3)
            self.observation_space = gym.spaces.Dict({"a": space, "b": space, mask: own})
        self.action_space = gym.spaces.Discrete(3)
        self._age = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._inner.seed(seed)
        self._age = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert not self._mask or action == 2
        self._age += 1
        return self._seen(), 0.0, False, self._age == 5, {}

    def _seen(self) -> Any:
        seen = self._inner.sample()
        return {"a": seen, "b": seen, self._mask: [0, 0, 1]} if self._mask else seen


SPACES: dict[str, tuple[gym.Space[Any], int]] = {
    "a number": (gym.spaces.Discrete(4), 4),
    "an image": (gym.spaces.Box(0, 255, (2, 3), np.uint8), 6),
    "numbers": (gym.spaces.MultiDiscrete([2, 3]), 5),
    "named parts": (
        gym.spaces.Dict({"x": gym.spaces.Box(-1, 1, (2,)), "y": gym.spaces.Discrete(3)}),
        5,
    ),
    "a tuple": (gym.spaces.Tuple([gym.spaces.Discrete(2), gym.spaces.Box(-1, 1, (1,))]), 3),
}


@pytest.mark.parametrize("mask", ["", "action_mask", "allowed"])
@pytest.mark.parametrize("name", SPACES)
def test_whatever_is_shown_becomes_a_row_of_numbers(name: str, mask: str) -> None:
    space, size = SPACES[name]
    config = CLSTMPPOConfig().environment(Shows, env_config={"space": space, "mask": mask})
    config.action_mask_key = mask or "action_mask"
    rollout = sampled(runner(config))
    assert rollout.observations.shape[2] == (2 * size if mask else size)
    assert rollout.observations.any() and rollout.truncated.any()
    if mask:
        assert (rollout.actions == 2).all()


def test_actions_that_do_not_begin_at_zero() -> None:
    assert {0, 1} == set(sampled(of(Counting, start=5)).actions.flat)


class NoMode(SyncVectorEnv):  # type: ignore[misc]
    """Does not say how it begins anew."""

    def __init__(self, num_envs: int, seed: int) -> None:
        super().__init__([Counting] * num_envs)
        self.autoreset_mode, self.metadata = None, {}


class NoLast(VectorEnv):  # type: ignore[misc]
    """Truncates, and does not show what was seen last."""

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int, seed: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space = gym.spaces.Box(0, 1, (1,))
        self.single_action_space = gym.spaces.Discrete(2)

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return np.zeros((self.num_envs, 1), np.float32), {}

    def step(self, actions: Any) -> Any:
        never = np.zeros(self.num_envs, np.bool_)
        return np.zeros((self.num_envs, 1), np.float32), never * 1.0, never, ~never, {}


class Gives(Shows):
    """Gives something else than its space holds, from `step` steps on."""

    def __init__(self, given: Any, step: int = 0, named: bool = False) -> None:
        super().__init__(gym.spaces.Box(-1, 1, (3,)))
        self._given, self._from = given, step
        if named:
            self.observation_space = gym.spaces.Dict({"a": self._inner, "b": self._inner})

    def _seen(self) -> Any:
        return super()._seen() if self._age < self._from else self._given


class GivesAll(NoLast):
    """A vector environment that does the same."""

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return np.zeros((self.num_envs, 2), np.float32), {}


FIVE = np.zeros(5, np.float32)
REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no mode": (None, {"factory": NoMode}, "autoreset_mode"),
    "no last observation": (None, {"factory": NoLast}, "final_obs"),
    "no vector environment": (None, {"factory": lambda num_envs, seed: Counting()}, "VectorEnv"),
    "another size": (None, {"factory": lambda num_envs, seed: counting(7, 1)}, "holds 7"),
    "two of them": ("CartPole-v1", {"factory": counting}, "both name"),
    "none": (None, {}, "no environment is named"),
    "a vector environment by name": (lambda c: counting(3, 1), {}, "vector_entry_point"),
    "no environment": (lambda c: object(), {}, r"no gymnasium\.Env"),
    "continuous actions": ("Pendulum-v1", {}, "Discrete"),
    "another shape": (lambda c: Gives(FIVE), {}, r"shape \(5,\) where its space says \(3,\)"),
    "another shape later": (lambda c: Gives(FIVE, 2), {}, r"shape \(5,\) where its space"),
    "a number for a row": (lambda c: Gives(1.0), {}, r"shape \(\) where its space says"),
    "no part": (lambda c: Gives({"a": FIVE[:3]}, named=True), {}, "without all of a, b"),
    "another part": (
        lambda c: Gives({"a": FIVE[:3], "b": FIVE}, named=True),
        {},
        r"shape \(5,\) where its space says \(3,\) in 'b'",
    ),
    "other rows": (None, {"factory": GivesAll}, "rows of 2 numbers where"),
    "a name of nothing": ("CartPool-v1", {}, "CartPool"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_work_is_refused_with_the_reason(name: str) -> None:
    env, env_config, reason = REFUSED[name]
    if callable(env):
        register_env(name, env)
        env = name
    with pytest.raises((LearningError, gym.error.Error), match=reason):
        of(env, **env_config).rollout()


def test_the_environment_of_an_older_checkpoint_begins_as_it_did() -> None:
    older = {"beginnings": randomisation.Beginnings(event_share=1.0)}
    config = CLSTMPPOConfig().environment(env_config={**OPTIONS, **older})
    config.env_runners(num_envs_per_env_runner=2)
    assert stepped_env(config, 1).env.num_envs == 2


def test_a_run_goes_on_with_the_returns_of_episodes_in_mid_course() -> None:
    """Counted by the runner itself; half-seen ones of older checkpoints are not told."""
    env = "tests.learning.recall_env.MaskedRecallVectorEnv"
    source, later, older = (of(factory=env, length=9) for _ in range(3))
    source.rollout()
    source.get_metrics()
    state = source.get_sampling_state()
    assert state is not None
    before = {name: value for name, value in state.items() if name not in ("episodes", "resetting")}
    assert later.set_sampling_state(state) is None
    assert older.set_sampling_state(before) is None
    for each in (source, later, older):
        each.policy.load_weights(source.policy.weights())
        each.rollout()
    told = [each.get_metrics() for each in (source, later, older)]
    assert told[0]["episode_len_mean"].peek() == told[1]["episode_len_mean"].peek()
    assert told[2]["episode_len_mean"].peek() >= 8


def test_rewards_are_clipped_as_asked() -> None:
    for bound, most in ((0.5, 0.5), (True, 1.0)):
        config = CLSTMPPOConfig().environment(Counting, clip_rewards=bound)
        assert sampled(runner(config)).rewards.max() == most


class Noted(RLlibCallback):  # type: ignore[misc]
    """Keeps what it is told."""

    told: list[tuple[str, Any]] = []  # noqa: RUF012

    def on_environment_created(self, *, env: Any, **_: Any) -> None:
        self.told.append(("made", env.num_envs))

    def on_sample_end(self, *, samples: Any, **_: Any) -> None:
        self.told.append(("sampled", samples[0].steps))


def test_callbacks_of_runner_and_sample_are_called() -> None:
    Noted.told.clear()
    counts: list[int] = []
    config = CLSTMPPOConfig().environment(Counting).callbacks(Noted)
    config.callbacks(on_sample_end=lambda samples, **_: counts.append(len(samples)))
    sampled(runner(config))
    assert Noted.told == [("made", ENVS), ("sampled", STEPS * ENVS)]
    assert counts == [1]
