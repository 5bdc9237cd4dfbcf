"""An RLlib EnvRunner that steps a whole vector environment with one call of the policy.

It has no connector pipelines and no per-step Python objects: observations go from the vector
environment to the network and into preallocated arrays, and a rollout comes out.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import ray
import torch
from gymnasium import Space
from gymnasium.vector import AutoresetMode
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core import (
    COMPONENT_RL_MODULE,
    DEFAULT_AGENT_ID,
    DEFAULT_MODULE_ID,
)
from ray.rllib.env import INPUT_ENV_SPACES
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils import force_list
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import (
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    NUM_EPISODES_LIFETIME,
    WEIGHTS_SEQ_NO,
)

from trading.errors import LearningError, TradingError
from trading.learning.allocator import leave_new_memory_as_it_is
from trading.learning.environments import AnyVectorEnv, Situation, Step, SteppedEnv, stepped_env
from trading.learning.minibatch_threads import single_threaded
from trading.learning.module import NETWORK, clstm_config
from trading.learning.policy import Policy, Weights
from trading.learning.precedence import LEARNING, give_way
from trading.learning.rollout import (
    ACTION_MASK,
    OBSERVATIONS,
    BoolArray,
    FloatArray,
    RecurrentState,
    Rollout,
)
from trading.learning.uncompiled import leave_the_compiler_out


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What an evaluation ran, as RLlib counts it; its returns are in the metrics."""

    steps: int

    def env_steps(self) -> int:
        """Decisions in all environments together."""
        return self.steps

    def agent_steps(self) -> int:
        """Return the same: there is one agent."""
        return self.steps


class BatchedEnvRunner(EnvRunner, Checkpointable):  # type: ignore[misc]
    """Samples rollouts of `config.rollout_fragment_length` steps from one vector environment.

    The environment is the one that `config.environment(...)` names, see `environments`; or it is
    made by `config.env_config["factory"]`, a callable or its dotted path, which is called with
    `num_envs=config.num_envs_per_env_runner`, `seed=...` and the other entries of `env_config`.

    Of RLlib's callbacks it calls `on_environment_created`, and `on_sample_end` with the `Rollout`.

    On the driver of remote runners there is no environment, only the policy.

    A run goes on exactly from a checkpoint where the environment has `get_state` and `set_state`,
    as those of `trading.envs.vector_env` have; with another one it starts new episodes.
    """

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        leave_the_compiler_out()
        super().__init__(config=config, **kwargs)
        if self.worker_index:  # Not the one on the driver, which watches over all other parts.
            give_way(LEARNING)
        if self.config.torch_threads is not None:
            torch.set_num_threads(self.config.torch_threads)
        leave_new_memory_as_it_is()
        seed = self._seed
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        self._evaluation_seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
        self._callbacks = [each() for each in force_list(self.config.callbacks_class)]
        self.env: AnyVectorEnv | None = None
        self._stepped: SteppedEnv | None = None
        if self.worker_index or self.num_workers == 0 or self.config.create_env_on_local_worker:
            self._stepped = self._make_env(seed)
            self.env = self._stepped.env
            spaces = self._stepped.spaces
        else:
            configured = (self.config.observation_space, self.config.action_space)
            spaces = (kwargs.get("spaces") or {}).get(DEFAULT_MODULE_ID, configured)
        self._spaces: tuple[Space[Any], Space[Any]] = spaces
        self.policy = Policy(clstm_config(*spaces, dict(self.config.model_config)), seed)
        self._weights_seq_no = 0
        self._current: dict[str, Any] | None = None
        self._state: RecurrentState = {}
        self._first = np.zeros(0, np.bool_)
        self._episodes = _Episodes(0)

    def _make_env(self, seed: int) -> SteppedEnv:
        worker = (self.worker_index, self.num_workers)
        stepped = stepped_env(self.config, seed, worker)
        self._call_back(
            "on_environment_created",
            env=stepped.env.unwrapped,
            env_context=EnvContext(self.config.env_config, *worker),
        )
        return stepped

    def _call_back(self, event: str, **kwargs: Any) -> None:
        make_callback(
            event,
            callbacks_objects=self._callbacks,
            callbacks_functions=getattr(self.config, f"callbacks_{event}"),
            kwargs={"env_runner": self, "metrics_logger": self.metrics, **kwargs},
        )

    def sample(
        self, *, num_timesteps: int | None = None, num_episodes: int | None = None, **_: Any
    ) -> list[Rollout] | list[Evaluated]:
        """RLlib's verb: one rollout, or where a duration is given, an evaluation.

        Raises
        ------
        LearningError
            As `rollout`.
        """
        if num_timesteps is not None or num_episodes is not None:
            return [self.evaluate(num_timesteps, num_episodes)]
        return [self.rollout()]

    @single_threaded()  # the products of one step are too small to share out
    def rollout(self) -> Rollout:
        """Step every environment `rollout_fragment_length` times from where it stands.

        Returns
        -------
        Rollout
            What was experienced, [T, B].

        Raises
        ------
        LearningError
            This runner has no environment.
        """
        env = self._running_env()
        steps, envs = self.config.get_rollout_fragment_length(self.worker_index), env.num_envs
        rollout = _empty_rollout(self.policy, steps, envs, self._state, self._weights_seq_no)
        for t in range(steps):
            self._step(env, rollout, t)
        current = cast(Situation, self._current)
        rollout.last_values[:] = self.policy.value(
            current[OBSERVATIONS], current[ACTION_MASK], self._state
        )
        self._log_steps(rollout.steps, int((rollout.terminated | rollout.truncated).sum()))
        self._call_back("on_sample_end", samples=[rollout])
        return rollout

    def evaluate(self, num_timesteps: int | None, num_episodes: int | None) -> Evaluated:
        """Act from new episodes on and log the episodes that end.

        Actions are the most likely ones, or with `explore=True` in the evaluation's config sampled.
        It has an environment and draws of its own, the same in every evaluation, and leaves
        the runner's be. Every environment plays an equal share of the episodes, so short ones count
        no more than long ones.

        Parameters
        ----------
        num_timesteps
            Decisions to take, in all environments together; or
        num_episodes
            Episodes to finish.
        """
        env = self._make_env(self._evaluation_seed)
        policy = Policy(self.policy.config, self._evaluation_seed, self.policy.model)
        greedy = not _explores_in_evaluation(self.config)
        try:
            envs = env.num_envs
            quota = np.full(envs, np.iinfo(np.int64).max)
            if num_episodes is not None:
                quota = num_episodes // envs + (np.arange(envs) < num_episodes % envs)
            situation, counts = env.reset(), _Episodes(envs)
            state, first = policy.initial_state(envs), np.ones(envs, np.bool_)
            steps, episodes, window = 0, 0, num_episodes
            while quota.any() and (num_timesteps is None or steps < num_timesteps):
                resetting = env.resetting.copy()
                decision, state = policy.act(
                    situation[OBSERVATIONS], situation[ACTION_MASK], state, first, greedy=greedy
                )
                step = env.step(decision.actions)
                situation = step.situation
                ended = step.terminated | step.truncated
                first = resetting if env.mode is AutoresetMode.NEXT_STEP else ended
                steps += int((~resetting).sum())
                told = counts.add(step, resetting)
                if (counted := ended & (quota > 0)).any():
                    quota = quota - counted
                    episodes += int(counted.sum())
                    self._log_episodes(told, counted, window)
        finally:
            env.close()
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED, steps, reduce="sum")
        self.metrics.log_value(NUM_EPISODES, episodes, reduce="sum")
        return Evaluated(steps)

    def _running_env(self) -> SteppedEnv:
        if self._stepped is None:
            raise LearningError("this runner has no environment; sample from the remote runners")
        if self._current is None:
            self._current = self._stepped.reset()
            self._state = self.policy.initial_state(self._stepped.num_envs)
            self._first = np.ones(self._stepped.num_envs, np.bool_)
            self._episodes = _Episodes(self._stepped.num_envs)
        return self._stepped

    def _step(self, env: SteppedEnv, rollout: Rollout, t: int) -> None:
        """Act once in every environment and record step `t`."""
        before = cast(Situation, self._current)
        resetting = env.resetting.copy()
        decision, self._state = self.policy.act(
            before[OBSERVATIONS], before[ACTION_MASK], self._state, self._first
        )
        rollout.observations[t] = before[OBSERVATIONS]
        rollout.action_mask[t] = before[ACTION_MASK]
        rollout.actions[t] = decision.actions
        rollout.log_probs[t] = decision.log_probs
        rollout.values[t] = decision.values
        rollout.first[t] = self._first
        rollout.valid[t] = ~resetting
        step = env.step(decision.actions)
        self._current = step.situation
        rollout.rewards[t] = _clipped(step.rewards, self.config.clip_rewards)
        rollout.terminated[t] = step.terminated
        rollout.truncated[t] = step.truncated
        cut = np.flatnonzero(step.truncated & ~step.terminated)
        if len(cut):
            rollout.final_values[t, cut] = self.policy.value(
                *step.last(cut), {key: array[:, cut] for key, array in self._state.items()}
            )
        ended = step.terminated | step.truncated
        # After NEXT_STEP's end comes the step that only begins anew, and then the first one.
        self._first = resetting if env.mode is AutoresetMode.NEXT_STEP else ended
        whole = ended & self._episodes.are_whole
        told = self._episodes.add(step, resetting)
        if whole.any():
            self._log_episodes(told, whole)

    def _log_steps(self, steps: int, episodes: int) -> None:
        log = self.metrics.log_value
        log(NUM_ENV_STEPS_SAMPLED, steps, reduce="sum")
        log(NUM_ENV_STEPS_SAMPLED_LIFETIME, steps, reduce="lifetime_sum", with_throughput=True)
        log((NUM_AGENT_STEPS_SAMPLED_LIFETIME, DEFAULT_AGENT_ID), steps, reduce="lifetime_sum")
        log(NUM_EPISODES, episodes, reduce="sum")
        log(NUM_EPISODES_LIFETIME, episodes, reduce="lifetime_sum")
        self.num_env_steps_sampled_lifetime += steps

    def _log_episodes(
        self, episode: dict[str, Any], done: np.ndarray[Any, Any], window: int | None = None
    ) -> None:
        """Log the return and length of ended episodes, and what the environment tells of them.

        The mean is over the last `window` of them, where that is given, else as RLlib's config has
        it.
        """
        smoothing = self.config.metrics_num_episodes_for_smoothing / (self.num_workers or 1)
        window = window or max(1, math.ceil(smoothing))
        names = {"r": EPISODE_RETURN_MEAN, "l": EPISODE_LEN_MEAN}
        for key, values in episode.items():
            name = names.get(key, f"episode_{key}_mean")
            for value in np.asarray(values)[done]:
                self.metrics.log_value(name, float(value), reduce="mean", window=window)

    def get_spaces(self) -> dict[str, tuple[Space[Any], Space[Any]]]:
        """Observation and action space of one environment, by RLlib's names."""
        return {INPUT_ENV_SPACES: self._spaces, DEFAULT_MODULE_ID: self._spaces}

    def get_metrics(self) -> Any:
        """RLlib's statistics since the last call."""
        return self.metrics.reduce()

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Counters, and the weights where asked for.

        RLlib hands this to other runners; what is a runner's alone is in `get_sampling_state`.
        """
        state: dict[str, Any] = {
            NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime
        }
        if self._check_component(COMPONENT_RL_MODULE, components, not_components):
            weights = {f"{NETWORK}.{k}": v for k, v in self.policy.weights().items()}
            state[COMPONENT_RL_MODULE] = {DEFAULT_MODULE_ID: weights}
            state[WEIGHTS_SEQ_NO] = self._weights_seq_no
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over weights, of an older version too (a restore goes back), and counters.

        Raises
        ------
        LearningError
            The weights do not fit.
        """
        if COMPONENT_RL_MODULE in state:
            weights = state[COMPONENT_RL_MODULE]
            if isinstance(weights, ray.ObjectRef):
                weights = ray.get(weights)
            self.policy.load_weights(network_weights(weights.get(DEFAULT_MODULE_ID, weights)))
            self._weights_seq_no = state.get(WEIGHTS_SEQ_NO, 0)
        if NUM_ENV_STEPS_SAMPLED_LIFETIME in state:
            self.num_env_steps_sampled_lifetime = state[NUM_ENV_STEPS_SAMPLED_LIFETIME]

    def get_sampling_state(self) -> dict[str, Any] | None:
        """All that the next rollout depends on beside the weights; None before the first one."""
        if self.env is None or self._current is None:
            return None
        save = getattr(self.env, "get_state", None)
        return {
            "environment": save() if save is not None else None,
            "observation": {key: array.copy() for key, array in self._current.items()},
            "recurrent": {key: array.copy() for key, array in self._state.items()},
            "first": self._first.copy(),
            "resetting": self._stepped.resetting.copy() if self._stepped else None,
            "episodes": self._episodes.get_state(),
            "generator": self.policy.generator.get_state().numpy().copy(),
            NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime,
        }

    def set_sampling_state(self, state: dict[str, Any] | None) -> str | None:
        """Go on in the episodes of `get_sampling_state`, to the last bit.

        Returns
        -------
        str | None
            None, or why that cannot be; the next rollout starts new episodes then.
        """
        self._current = None
        if self.env is None:
            return "it has no environment"
        if state is None:
            return "the checkpoint holds no episodes of it"
        self.policy.generator.set_state(torch.from_numpy(state["generator"].copy()))
        self.num_env_steps_sampled_lifetime = state[NUM_ENV_STEPS_SAMPLED_LIFETIME]
        restore = getattr(self.env, "set_state", None)
        if restore is None or state["environment"] is None:
            return f"{type(self.env).__name__} cannot be saved; it has no get_state and set_state"
        envs = self.env.num_envs
        if len(state["first"]) != envs:
            return f"it had {len(state['first'])} environments and has {envs} now"
        try:
            restore(state["environment"])
        except TradingError as error:
            return str(error)
        self._current = {key: array.copy() for key, array in state["observation"].items()}
        self._state = {key: array.copy() for key, array in state["recurrent"].items()}
        self._first = state["first"].copy()
        self._episodes = _Episodes(envs)
        self._episodes.set_state(state.get("episodes"))
        if self._stepped is not None and state.get("resetting") is not None:
            self._stepped.resetting = state["resetting"].copy()
        return None

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """How RLlib makes such a runner again."""
        return (), {"config": self.config}

    def assert_healthy(self) -> None:
        """Do nothing: the constructor ran to its end.

        Raises
        ------
        AssertionError
            It did not.
        """
        assert hasattr(self, "policy")

    def stop(self) -> None:
        """Close the environment."""
        if self.env is not None:
            self.env.close()


class _Episodes:
    """Return and length of the running episodes, counted here: no environment needs to tell them.

    Parameters
    ----------
    envs
        Number of environments.
    """

    def __init__(self, envs: int) -> None:
        self._returns = np.zeros(envs)
        self._lengths = np.zeros(envs, np.int64)
        self.are_whole = np.ones(envs, np.bool_)
        """Those whose beginning was seen."""

    def get_state(self) -> dict[str, Any]:
        """To go on from."""
        return {name: array.copy() for name, array in vars(self).items()}

    def set_state(self, state: dict[str, Any] | None) -> None:
        """Go on from a state, or where nobody counted before in episodes half seen."""
        self.are_whole[:] = False
        for name, array in (state or {}).items():
            setattr(self, name, array.copy())

    def add(self, step: Step, resetting: BoolArray) -> dict[str, Any]:
        """Count one step; return what there is to tell of the episodes that ended with it."""
        ended = step.terminated | step.truncated
        self._returns += np.where(resetting, 0.0, step.rewards)
        self._lengths += ~resetting
        told = {**step.episode, "r": self._returns.copy(), "l": self._lengths.copy()}
        self._returns[ended], self._lengths[ended], self.are_whole[ended] = 0.0, 0, True
        return told


def _clipped(rewards: FloatArray, bound: bool | float | None) -> FloatArray:
    """RLlib's `clip_rewards`: by their sign where True, to within the bound where a number."""
    if bound is None or bound is False:
        return rewards
    return np.sign(rewards) if bound is True else rewards.clip(-abs(bound), abs(bound))


def _explores_in_evaluation(config: Any) -> bool:
    """Whether evaluation samples actions, also where the runner is not of a group of its own."""
    overrides = config.evaluation_config
    if config.in_evaluation or not overrides:
        return bool(config.explore)
    return bool(overrides.get("explore", config.explore))


def network_weights(module_state: dict[str, Any]) -> Weights:
    """Return the network's weights from an RLModule's state: the module's own prefix removed."""
    return {name.removeprefix(f"{NETWORK}."): array for name, array in module_state.items()}


def _empty_rollout(
    policy: Policy, steps: int, envs: int, state: RecurrentState, version: int
) -> Rollout:
    """Arrays for `steps` x `envs` to be written in place."""
    shape = (steps, envs)
    return Rollout(
        observations=np.empty((*shape, policy.config.observation_size), np.float32),
        action_mask=np.empty((*shape, policy.config.action_count), np.bool_),
        actions=np.empty(shape, np.int64),
        log_probs=np.empty(shape, np.float32),
        values=np.empty(shape, np.float32),
        rewards=np.empty(shape, np.float32),
        first=np.empty(shape, np.bool_),
        terminated=np.empty(shape, np.bool_),
        truncated=np.empty(shape, np.bool_),
        final_values=np.zeros(shape, np.float32),
        last_values=np.empty(envs, np.float32),
        valid=np.ones(shape, np.bool_),
        initial_state=state,
        weights_version=version,
    )
