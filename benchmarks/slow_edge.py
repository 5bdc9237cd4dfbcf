"""An edge that takes most of a session to pay, learnt by this project and by its peers.

    python -m benchmarks.slow_edge                                  # five seeds, hours
    python -m benchmarks.slow_edge --seeds 1 --steps 4096 --episodes 4   # whether it runs

Each learns in `SLOW_EDGE`, episodes of five sessions, with the same decisions, rollouts, passes
and gradient steps, and as many parameters within 2 %: this project with a horizon of five sessions
and with a discount of 0.99 a minute, RLlib's own PPO with `use_lstm`, and sb3-contrib's
RecurrentPPO, both with that horizon. What was learnt then trades episodes of markets that nothing
was learnt from, drawing its actions: once after as many decisions as all others, and once after as
many seconds of the processor as this project took for them. A peer is tested at the end of the
iteration in which it reached either.

The peers know no mask: they see it beside the observation, and what it forbids is a hold.
sb3-contrib steps markets together as this project does, eight accounts to each; RLlib's runner
steps Gymnasium environments one by one. Seconds are those of this process, on one thread, without
the tests; Ray's own processes are not counted. A peer that is not installed is left out and named.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from math import exp
from time import process_time
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.horizons import BAR_SECONDS, PROBLEM, RULES, SESSIONS_PER_EPISODE, test_of
from benchmarks.known_problems import SLOW_EDGE
from benchmarks.learning_curves import TEST_SEED, Problem, interval, train
from trading.config.fields import horizon_seconds
from trading.envs.single_env import SimulatedOptionsEnv
from trading.envs.vector_env import Observation
from trading.evaluation.backtest import learnt
from trading.evaluation.baselines import SessionTrader
from trading.learning.policy import Policy

HORIZON, SHORT = "5 sessions", 0.99
MINIBATCHES, EPOCHS = 4, 4


class Learner(Protocol):
    """One that learns in the slow edge."""

    parameters: int

    def iterate(self) -> int:
        """Sample one rollout and learn from it; the decisions in it."""

    def trader(self) -> SessionTrader:
        """What was learnt so far, drawing its actions."""

    def stop(self) -> None:
        """Free what it holds."""


class Ours:
    """The product's runner and update, without Ray."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem, self._seed = problem, seed
        self._policy: Policy | None = None
        self._updates: Iterator[Any] = train(problem, seed, 2**62)
        self.parameters = 0

    def iterate(self) -> int:
        _, self._policy = next(self._updates)
        self.parameters = sum(each.numel() for each in self._policy.model.parameters())
        return self._problem.envs * self._problem.rollout_length

    def trader(self) -> SessionTrader:
        assert self._policy is not None, "it has learnt"
        policy = Policy(self._policy.config, self._seed)
        policy.load_weights(self._policy.weights())
        return learnt(policy)

    def stop(self) -> None:
        """Nothing is held."""


class Flat(gym.ObservationWrapper):  # type: ignore[misc]
    """The environment with observation and mask as one row."""

    def __init__(self, env_config: dict[str, Any]) -> None:
        super().__init__(
            SimulatedOptionsEnv(ranges=SLOW_EDGE, sessions_per_episode=SESSIONS_PER_EPISODE)
        )
        self.observation_space = row_space(self.env.observation_space)

    def observation(self, observation: Observation) -> NDArray[np.float32]:
        return row_of({name: each[None] for name, each in observation.items()})[0]


def row_space(space: Any) -> gym.spaces.Box:
    width = sum(int(np.prod(each.shape)) for each in space.values())
    return gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)


def row_of(observation: Observation) -> NDArray[np.float32]:
    """float32 [B, F + N]."""
    parts = (observation["observations"], observation["action_mask"])
    return np.concatenate([each.astype(np.float32) for each in parts], axis=1)


class RLlib:
    """RLlib's own PPO and runner: an encoder of 42, an LSTM of 128."""

    def __init__(self, problem: Problem, seed: int) -> None:
        import ray
        from ray.rllib.algorithms.ppo import PPOConfig
        from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

        if not ray.is_initialized():
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
            quiet = {"configure_logging": False, "log_to_driver": False}
            ray.init(address="local", include_dashboard=False, **quiet)
        rollout = problem.envs * problem.rollout_length
        model = DefaultModelConfig(
            fcnet_hiddens=[42],
            use_lstm=True,
            lstm_cell_size=128,
            max_seq_len=problem.rollout_length + 1,  # PPO appends a step
        )
        self._algorithm = (
            PPOConfig()
            .environment(Flat)
            .env_runners(
                num_env_runners=0,
                num_envs_per_env_runner=problem.envs,
                rollout_fragment_length=problem.rollout_length,
            )
            .rl_module(model_config=model)
            .training(
                train_batch_size_per_learner=rollout,
                minibatch_size=rollout // MINIBATCHES,
                num_epochs=EPOCHS,
                lr=problem.ppo.learning_rate,
                gamma=problem.ppo.gamma,
                lambda_=problem.ppo.gae_lambda,
                clip_param=problem.ppo.clip,
                entropy_coeff=problem.ppo.entropy_coefficient,
                vf_loss_coeff=problem.ppo.value_coefficient,
                grad_clip=problem.ppo.max_grad_norm,
                use_kl_loss=False,
            )
            .reporting(min_time_s_per_iteration=None, min_sample_timesteps_per_iteration=0)
            .debugging(seed=seed, log_level="ERROR")
            .build_algo()
        )
        self._module: Any = self._algorithm.get_module()
        self._generator = torch.Generator().manual_seed(seed)
        self._steps = 0
        self.parameters = sum(each.numel() for each in self._module.parameters())

    def iterate(self) -> int:
        runners = self._algorithm.train()["env_runners"]
        before, self._steps = self._steps, int(runners["num_env_steps_sampled_lifetime"])
        return self._steps - before

    def trader(self) -> SessionTrader:
        from ray.rllib.core.columns import Columns

        state: dict[str, torch.Tensor] = {}

        @torch.no_grad()
        def trade(observation: Observation, first: NDArray[np.bool_]) -> NDArray[np.int64]:
            nonlocal state
            begun = {
                name: torch.as_tensor(each).expand(len(first), *each.shape)
                for name, each in self._module.get_initial_state().items()
            }
            fresh = torch.from_numpy(first)
            state = {
                name: torch.where(fresh.view(-1, *[1] * (each.ndim - 1)), each, state[name])
                if state
                else each
                for name, each in begun.items()
            }
            seen = torch.from_numpy(row_of(observation))[:, None]
            told = self._module.forward_inference({Columns.OBS: seen, Columns.STATE_IN: state})
            state = told[Columns.STATE_OUT]
            chances = torch.softmax(told[Columns.ACTION_DIST_INPUTS][:, 0], dim=-1)
            drawn = torch.multinomial(chances, 1, generator=self._generator)
            return np.asarray(drawn[:, 0].numpy(), np.int64)

        return trade

    def stop(self) -> None:
        self._algorithm.stop()


class RecurrentPPO:
    """sb3-contrib: an LSTM of 75 for the actor, another for the critic."""

    def __init__(self, problem: Problem, seed: int) -> None:
        algorithm = import_module("sb3_contrib").RecurrentPPO
        rollout = problem.envs * problem.rollout_length
        self._algorithm: Any = algorithm(
            "MlpLstmPolicy",
            sb3_markets(problem, seed),
            n_steps=problem.rollout_length,
            batch_size=rollout // MINIBATCHES,
            n_epochs=EPOCHS,
            learning_rate=problem.ppo.learning_rate,
            gamma=problem.ppo.gamma,
            gae_lambda=problem.ppo.gae_lambda,
            clip_range=problem.ppo.clip,
            ent_coef=problem.ppo.entropy_coefficient,
            vf_coef=problem.ppo.value_coefficient,
            max_grad_norm=problem.ppo.max_grad_norm,
            policy_kwargs={"lstm_hidden_size": 75, "net_arch": []},
            seed=seed,
            device="cpu",
        )
        self._rollout = rollout
        _, self._callback = self._algorithm._setup_learn(2**62)
        self.parameters = sum(each.numel() for each in self._algorithm.policy.parameters())

    def iterate(self) -> int:
        algorithm = self._algorithm
        algorithm.collect_rollouts(
            algorithm.env, self._callback, algorithm.rollout_buffer, algorithm.n_steps
        )
        algorithm._update_current_progress_remaining(algorithm.num_timesteps, 2**62)
        algorithm.train()
        return self._rollout

    def trader(self) -> SessionTrader:
        state: Any = None

        def trade(observation: Observation, first: NDArray[np.bool_]) -> NDArray[np.int64]:
            nonlocal state
            actions, state = self._algorithm.predict(row_of(observation), state, first)
            return np.asarray(actions, np.int64)

        return trade

    def stop(self) -> None:
        """Nothing is held."""


def sb3_markets(problem: Problem, seed: int) -> Any:
    """The markets of this project's runner as Stable-Baselines3's vector environment."""
    base = import_module("stable_baselines3.common.vec_env").VecEnv

    class Markets(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            self._env = problem.factory(num_envs=problem.envs, seed=seed)
            space = self._env.single_observation_space
            super().__init__(problem.envs, row_space(space), self._env.single_action_space)

        def reset(self) -> NDArray[np.float32]:
            return row_of(self._env.reset()[0])

        def step_async(self, actions: NDArray[np.int64]) -> None:
            self._actions = actions

        def step_wait(self) -> tuple[Any, Any, Any, list[dict[str, Any]]]:
            seen, rewards, terminated, truncated, told = self._env.step(self._actions)
            infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
            if (ended := np.flatnonzero(terminated | truncated)).size:
                last = row_of(told["final_obs"])
                for row in ended.tolist():
                    infos[row]["terminal_observation"] = last[row]
                    infos[row]["TimeLimit.truncated"] = bool(truncated[row])
            return row_of(seen), rewards, terminated | truncated, infos

        def close(self) -> None: ...

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [getattr(self, attr_name, None)] * self.num_envs

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None: ...

        def env_method(self, method_name: str, *args: Any, **options: Any) -> list[Any]:
            return [None] * self.num_envs

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * self.num_envs

    return Markets()


class Tested(NamedTuple):
    """What one run came to."""

    returns: NDArray[np.float64]
    """[E], of the test's episodes."""
    steps: int
    seconds: float


class Run(NamedTuple):
    """One learner and seed."""

    parameters: int
    at_steps: Tested
    at_seconds: Tested


def run(
    make: Callable[[], Learner],
    test: Callable[[SessionTrader], Any],
    steps: int,
    seconds: float | None,
) -> Run:
    """Learn until both are reached; `seconds` None: those that the steps take."""
    learner = make()
    found: dict[str, Tested] = {}
    done, spent = 0, 0.0
    while len(found) < 2:
        start = process_time()
        done += learner.iterate()
        spent += process_time() - start
        reached = [
            name
            for name, is_reached in (
                ("steps", done >= steps),
                ("seconds", spent >= seconds if seconds is not None else done >= steps),
            )
            if is_reached and name not in found
        ]
        if reached:
            tested = Tested(test(learner.trader()).returns, done, spent)
            found |= dict.fromkeys(reached, tested)
    learner.stop()
    return Run(learner.parameters, found["steps"], found["seconds"])


def learners() -> dict[str, Callable[[int], Callable[[], Learner]]]:
    """By name: for a seed, what makes one."""
    long = exp(-BAR_SECONDS / horizon_seconds(HORIZON))

    def of(kind: Any, gamma: float) -> Callable[[int], Callable[[], Learner]]:
        problem = replace(PROBLEM, ppo=replace(PROBLEM.ppo, gamma=gamma))
        return lambda seed: partial(kind, problem, seed)

    return {
        f"this project, horizon {HORIZON}": of(Ours, long),
        f"this project, gamma {SHORT:g}": of(Ours, SHORT),
        "RLlib PPO, use_lstm": of(RLlib, long),
        "sb3-contrib RecurrentPPO": of(RecurrentPPO, long),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The slow edge, beside peers.")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each learner")
    parser.add_argument("--steps", type=int, default=PROBLEM.steps, help="decisions of each run")
    parser.add_argument("--episodes", type=int, default=64, help="in the test of each run")
    parser.add_argument("--learners", nargs="+", choices=learners(), default=list(learners()))
    arguments = parser.parse_args()
    console = Console(width=150)
    torch.set_num_threads(1)
    # What is compiled or loaded at the first step is no part of learning.
    Ours(PROBLEM, 0).iterate()
    test = test_of(arguments.episodes)
    runs: dict[str, list[Run]] = {}
    rules: dict[str, list[NDArray[np.float64]]] = {}
    missing: dict[str, str] = {}
    first = next(iter(learners()))
    names = [first, *(name for name in arguments.learners if name != first)]
    for seed in range(1, arguments.seeds + 1):
        test_of_seed = partial(test, seed=TEST_SEED + seed)
        for rule, trader in RULES.items():
            rules.setdefault(rule, []).append(test_of_seed(trader).returns)
        allowed: float | None = None
        for name in names:
            if name in missing:
                continue
            try:
                made = run(learners()[name](seed), test_of_seed, arguments.steps, allowed)
            except ModuleNotFoundError as error:
                missing[name] = f"{error.name} is not installed"
                continue
            if name == first:
                allowed = made.at_steps.seconds
            runs.setdefault(name, []).append(made)
            mean = made.at_steps.returns.mean()
            console.print(f"{name}, seed {seed}: {mean:+.3%}, {made.at_steps.seconds:.0f} s")
    console.print(table(runs, rules, arguments))
    for name, why in missing.items():
        console.print(f"Left out, as {why}: {name}.")


def table(
    runs: dict[str, list[Run]],
    rules: dict[str, list[NDArray[np.float64]]],
    arguments: argparse.Namespace,
) -> Table:
    """Mean returns of the tests, with intervals over seeds and episodes."""
    rng = np.random.default_rng(0)

    def shown(returns: list[NDArray[np.float64]]) -> tuple[str, str]:
        each = np.stack(returns)
        low, high = interval(each, rng)
        return f"{each.mean():+.3%}", f"{low:+.3%} to {high:+.3%}"

    made = Table(
        "learner",
        title=f"{PROBLEM.title}: {arguments.seeds} x {arguments.episodes} episodes of "
        f"{SESSIONS_PER_EPISODE} sessions",
    )
    made.columns[0].no_wrap = True
    for column in ("parameters", f"after {arguments.steps:,}", "95 %", "CPU-s"):
        made.add_column(column, justify="right")
    for column in ("in our seconds", "95 %", "decisions"):
        made.add_column(column, justify="right")
    for rule, returns in rules.items():
        made.add_row(rule, "", *shown(returns), "", "", "", "")
    for name, each in runs.items():
        made.add_row(
            name,
            f"{each[0].parameters:,}",
            *shown([one.at_steps.returns for one in each]),
            f"{np.mean([one.at_steps.seconds for one in each]):,.0f}",
            *shown([one.at_seconds.returns for one in each]),
            f"{np.mean([one.at_seconds.steps for one in each]):,.0f}",
        )
    return made


if __name__ == "__main__":
    main()
