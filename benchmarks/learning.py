"""Training end to end, beside RLlib's PPO, sb3-contrib's RecurrentPPO and PufferLib's PPO.

To repeat it, see docs/learning-benchmark.md:

    python benchmarks/learning.py                    # env steps per second
    python benchmarks/learning.py --time-to-return   # seconds until the task is solved
    python benchmarks/learning.py --profile          # where this project's time goes

Every trainer learns the memory task of `recall.py`, with as many environments, steps of a rollout,
passes over it and gradient steps as the others, and with as many parameters within 2 %. Each runs
in a process of its own, kept to `--cores` cores with as many threads. They take turns, so that
others on the machine disturb all alike; the median of the turns counts. The first iterations are
not timed. A peer that is not installed is left out and named.

Seconds of the processor are those of the trainer's process. On a busy machine only those of one
core compare: threads that wait for each other keep a core busy.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from time import perf_counter, process_time, thread_time
from typing import Any, Protocol

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import recall
import torch
from figures import Figures, add_json, publish

EPISODE_WINDOW = 200
"""Episodes whose mean return says whether the task is solved."""


@dataclass(frozen=True)
class Task:
    """What every trainer is given."""

    length: int
    """Steps of an episode."""
    envs: int = 64
    steps: int = 64
    """Of each environment between two updates."""
    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 3e-4
    gamma: float = 0.99
    entropy: float = 0.01
    seed: int = 1

    @property
    def rollout(self) -> int:
        return self.envs * self.steps

    @property
    def minibatch(self) -> int:
        return self.rollout // self.minibatches


class Trainer(Protocol):
    parameters: int

    def iterate(self) -> int:
        """Samples one rollout and learns from it; returns the steps in it."""

    def mean_return(self) -> float:
        """Of the last `EPISODE_WINDOW` episodes; NaN while there are fewer."""


def mean_of(returns: "deque[float]") -> float:
    return statistics.fmean(returns) if len(returns) == EPISODE_WINDOW else float("nan")


def parameters_of(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


OUR_HIDDEN = {"feature_hidden": 80, "actor_hidden": 80, "critic_hidden": 80}


class Ours:
    """`CLSTMPPO` as `trading` builds it: three LSTMs of 80."""

    def __init__(self, task: Task, torch_threads: int | None = None) -> None:
        from trading.config import LearningSettings
        from trading.learning.ppo import CLSTMPPOConfig
        from trading.learning.ppo_update import PPOSettings

        settings = replace(
            PPOSettings.of(LearningSettings(), task.gamma),
            learning_rate=task.learning_rate,
            epochs=task.epochs,
            minibatches=task.minibatches,
            entropy_coefficient=task.entropy,
        )
        start_ray()
        self._algorithm = (
            CLSTMPPOConfig()
            .environment(env_config={"factory": recall.RecallVectorEnv, "length": task.length})
            .env_runners(num_envs_per_env_runner=task.envs, rollout_fragment_length=task.steps)
            .rl_module(model_config=OUR_HIDDEN)
            .training(ppo=settings, torch_threads=torch_threads)
            .reporting(metrics_num_episodes_for_smoothing=EPISODE_WINDOW)
            .debugging(seed=task.seed, log_level="ERROR")
            .build_algo()
        )
        weights = self._algorithm.weights()
        self.parameters = sum(array.size for array in weights.values())
        self.weights = {name: array.shape for name, array in weights.items()}
        """Shapes, by name."""
        self._episodes = 0

    def iterate(self) -> int:
        results = self._algorithm.train()
        runners = results["env_runners"]
        self._episodes = runners["num_episodes_lifetime"]
        self._return = runners.get("episode_return_mean", float("nan"))
        return int(results["learners"]["default_policy"]["samples"])

    def mean_return(self) -> float:
        return float(self._return) if self._episodes >= EPISODE_WINDOW else float("nan")


class RLlib:
    """RLlib's own PPO and runner: an encoder of 128, an LSTM of 128."""

    def __init__(self, task: Task) -> None:
        from ray.rllib.algorithms.ppo import PPOConfig
        from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

        from trading.learning.allocator import leave_new_memory_as_it_is

        start_ray()
        leave_new_memory_as_it_is()  # a seed has RLlib fill it
        self._steps = 0
        self._algorithm = (
            PPOConfig()
            .environment(recall.RecallEnv, env_config={"length": task.length})
            .env_runners(
                num_env_runners=0,
                num_envs_per_env_runner=task.envs,
                rollout_fragment_length=task.steps,
            )
            .rl_module(
                model_config=DefaultModelConfig(
                    fcnet_hiddens=[128],
                    use_lstm=True,
                    lstm_cell_size=128,
                    max_seq_len=min(task.steps, task.length + 1) + 1,  # PPO appends a step
                )
            )
            .training(
                train_batch_size_per_learner=task.rollout,
                minibatch_size=task.minibatch,
                num_epochs=task.epochs,
                lr=task.learning_rate,
                gamma=task.gamma,
                lambda_=0.95,
                clip_param=0.2,
                entropy_coeff=task.entropy,
                vf_loss_coeff=0.5,
                grad_clip=0.5,
                use_kl_loss=False,
            )
            .reporting(
                metrics_num_episodes_for_smoothing=EPISODE_WINDOW,
                min_time_s_per_iteration=None,
                min_sample_timesteps_per_iteration=0,
            )
            .debugging(seed=task.seed, log_level="ERROR")
            .build_algo()
        )
        self.parameters = parameters_of(self._algorithm.get_module())

    def iterate(self) -> int:
        runners = self._algorithm.train()["env_runners"]
        self._return = runners.get("episode_return_mean", float("nan"))
        self._episodes = runners.get("num_episodes_lifetime", 0)
        before, self._steps = self._steps, int(runners["num_env_steps_sampled_lifetime"])
        return self._steps - before

    def mean_return(self) -> float:
        return float(self._return) if self._episodes >= EPISODE_WINDOW else float("nan")


class RecurrentPPO:
    """sb3-contrib: an LSTM of 112 for the actor, another for the critic, two dense layers each."""

    def __init__(self, task: Task) -> None:
        from sb3_contrib import RecurrentPPO as Algorithm

        self._algorithm = Algorithm(
            "MlpLstmPolicy",
            recall.sb3_env(task.envs, task.length, task.seed),
            n_steps=task.steps,
            batch_size=task.minibatch,
            n_epochs=task.epochs,
            learning_rate=task.learning_rate,
            gamma=task.gamma,
            ent_coef=task.entropy,
            policy_kwargs={"lstm_hidden_size": 112, "net_arch": [72, 64]},
            stats_window_size=EPISODE_WINDOW,
            seed=task.seed,
        )
        self._rollout = task.rollout
        self.parameters = parameters_of(self._algorithm.policy)
        _, self._callback = self._algorithm._setup_learn(10**9)

    def iterate(self) -> int:
        algorithm = self._algorithm
        algorithm.collect_rollouts(
            algorithm.env, self._callback, algorithm.rollout_buffer, algorithm.n_steps
        )
        algorithm._update_current_progress_remaining(algorithm.num_timesteps, 10**9)
        algorithm.train()
        return self._rollout

    def mean_return(self) -> float:
        return mean_of(deque((e["r"] for e in self._algorithm.ep_info_buffer), EPISODE_WINDOW))


class PufferLib:
    """PufferLib's trainer with its default network: an encoder of 128, an LSTM of 128."""

    def __init__(self, task: Task) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            from pufferlib.models import Default, LSTMWrapper
            from pufferlib.pufferl import PuffeRL

        class Quiet(PuffeRL):  # type: ignore[misc]
            def print_dashboard(self, *_: Any, **__: Any) -> None: ...

        torch.manual_seed(task.seed)
        env = recall.puffer_env(task.envs, task.length, task.seed)
        policy = LSTMWrapper(env, Default(env, hidden_size=128), input_size=128, hidden_size=128)
        config = {
            "seed": task.seed,
            "torch_deterministic": True,
            "cpu_offload": False,
            "device": "cpu",
            "optimizer": "adam",
            "anneal_lr": False,
            "precision": "float32",
            "total_timesteps": 10**9,
            "learning_rate": task.learning_rate,
            "gamma": task.gamma,
            "gae_lambda": 0.95,
            "update_epochs": task.epochs,
            "clip_coef": 0.2,
            "vf_coef": 0.5,
            "vf_clip_coef": 0.2,
            "max_grad_norm": 0.5,
            "ent_coef": task.entropy,
            "adam_beta1": 0.9,
            "adam_beta2": 0.999,
            "adam_eps": 1e-8,
            "data_dir": os.devnull,
            "checkpoint_interval": 10**9,
            "batch_size": "auto",
            "minibatch_size": task.minibatch,
            "max_minibatch_size": task.minibatch,
            "bptt_horizon": task.steps,
            "compile": False,
            "vtrace_rho_clip": 1.0,
            "vtrace_c_clip": 1.0,
            "prio_alpha": 0.8,
            "prio_beta0": 0.2,
            "use_rnn": True,
        }
        self.parameters = parameters_of(policy)
        self._rollout = task.rollout
        self._returns: deque[float] = deque(maxlen=EPISODE_WINDOW)
        with contextlib.redirect_stdout(sys.stderr):
            self._trainer = Quiet(config, env, policy)
        self._trainer.epoch = 1  # it saves a checkpoint after those divisible by the interval

    def iterate(self) -> int:
        self._returns.extend(self._trainer.evaluate().pop("return", []))
        self._trainer.train()
        return self._rollout

    def mean_return(self) -> float:
        return mean_of(self._returns)


def start_ray() -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        object_store_memory=200_000_000,
    )


TRAINERS: dict[str, Callable[[Task], Trainer]] = {
    "this project": Ours,
    "RLlib PPO, use_lstm": RLlib,
    "sb3-contrib RecurrentPPO": RecurrentPPO,
    "PufferLib LSTM PPO": PufferLib,
}


@dataclass(frozen=True)
class Turn:
    """What one process measured."""

    parameters: int
    steps: int
    wall_s: float
    cpu_s: float
    """Of the trainer's process."""
    mean_return: float


def take_turn(trainer: Trainer, seconds: float, wanted: float | None, warmup: int) -> Turn:
    """Trains for so many seconds, or until the mean return is as wanted (from the first step)."""
    for _ in range(0 if wanted is not None else warmup):
        trainer.iterate()
    start, start_cpu, steps = perf_counter(), process_time(), 0
    while True:
        steps += trainer.iterate()
        wall = perf_counter() - start
        if wall >= seconds or (wanted is not None and trainer.mean_return() >= wanted):
            return Turn(
                trainer.parameters, steps, wall, process_time() - start_cpu, trainer.mean_return()
            )


def in_own_process(name: str, task: Task, arguments: argparse.Namespace) -> Turn | str:
    """A turn of the trainer, or why there is none."""
    command = [sys.executable, __file__, "--trainer", name, "--task", json.dumps(asdict(task))]
    command += ["--seconds", str(arguments.seconds), "--warmup", str(arguments.warmup)]
    if arguments.time_to_return:
        command += ["--time-to-return", "--wanted", str(arguments.wanted)]
    if shutil.which("taskset"):
        command = ["taskset", "-c", f"0-{arguments.cores - 1}", *command]
    threads = {"OMP_NUM_THREADS": str(arguments.cores), "MKL_NUM_THREADS": str(arguments.cores)}
    done = subprocess.run(
        command, env={**os.environ, **threads}, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return Turn(**json.loads(done.stdout.splitlines()[-1]))
    last = done.stderr.strip().splitlines()[-1]
    if not last.startswith("ModuleNotFoundError"):
        raise RuntimeError(f"{name} failed:\n{done.stderr}")
    return f"{last.split()[-1].strip(chr(39))} is not installed"


def speeds(turns: dict[str, list[Turn]]) -> Figures:
    figures = Figures(
        "trainer",
        {
            **{"parameters": "{:,}", "steps/s": "{:,.0f}", "spread": "{:.0%}"},
            **{"steps/CPU-s": "{:,.0f}", "this is": "{:.2f} x", "per CPU-s": "{:.2f} x"},
        },
    )

    def rates(name: str) -> tuple[list[float], list[float]]:
        return (
            [turn.steps / turn.wall_s for turn in turns[name]],
            [turn.steps / turn.cpu_s for turn in turns[name]],
        )

    base = [statistics.median(rate) for rate in rates(next(iter(turns)))]
    for name in turns:
        wall, cpu = rates(name)
        middle, middle_cpu = statistics.median(wall), statistics.median(cpu)
        figures.add(
            name,
            turns[name][0].parameters,
            middle,
            (max(wall) - min(wall)) / middle,
            middle_cpu,
            base[0] / middle,
            base[1] / middle_cpu,
        )
    return figures


def times_to_return(turns: dict[str, list[Turn]], wanted: float) -> Figures:
    columns = {"parameters": "{:,}", "solved": "{}", "steps": "{:,.0f}"}
    figures = Figures(
        "trainer", columns | dict.fromkeys(("seconds", "CPU-s", "slowest, s"), "{:.1f}")
    )
    for name, taken in turns.items():
        figures.add(
            name,
            taken[0].parameters,
            f"{sum(turn.mean_return >= wanted for turn in taken)} of {len(taken)}",
            statistics.median(turn.steps for turn in taken),
            statistics.median(turn.wall_s for turn in taken),
            statistics.median(turn.cpu_s for turn in taken),
            max(turn.wall_s for turn in taken),
        )
    return figures


def compare(task: Task, arguments: argparse.Namespace) -> None:
    turns: dict[str, list[Turn]] = {name: [] for name in arguments.trainers}
    missing: dict[str, str] = {}
    for round_ in range(arguments.rounds):
        for name in arguments.trainers:
            if name in missing:
                continue
            seeded = Task(**{**asdict(task), "seed": task.seed + round_})
            turn = in_own_process(name, seeded, arguments)
            if isinstance(turn, Turn):
                turns[name].append(turn)
                print(name, turn, file=sys.stderr, flush=True)
            else:
                missing[name] = turn
                del turns[name]
    if arguments.time_to_return:
        figures = times_to_return(turns, arguments.wanted)
    else:
        figures = speeds(turns)
    publish(arguments, [figures], missing)


class Stopwatch:
    """Processor seconds of this thread in functions; one inside another is not counted twice."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._inner = [0.0]

    def wrap(self, owner: Any, name: str, stage: str | Callable[[], str]) -> None:
        function = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            with self.stage(stage if isinstance(stage, str) else stage()):
                return function(*args, **options)

        setattr(owner, name, timed)

    @contextlib.contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        self._inner.append(0.0)
        start = thread_time()
        try:
            yield
        finally:
            whole = thread_time() - start
            self.spent[stage] = self.spent.get(stage, 0.0) + whole - self._inner.pop()
            self._inner[-1] += whole


def stages(task: Task, seconds: float) -> tuple[dict[str, float], Ours]:
    """Seconds of a step by stage, one thread, sampling and learning in this process.

    Returns
    -------
    tuple
        They, and who was trained for at least so many seconds.
    """
    from trading.learning import compiled, policy, ppo, ppo_update, prepared, runner, uncompiled
    from trading.learning.kernels import network

    trainer = Ours(task, torch_threads=1)
    trainer.iterate()
    watch = Stopwatch()
    watch.wrap(recall.RecallVectorEnv, "step", "environment")
    watch.wrap(network, "evaluate", "acting: network")
    watch.wrap(policy.Policy, "act", "acting: the rest")
    watch.wrap(policy.Policy, "value", "acting: the rest")
    watch.wrap(runner.BatchedEnvRunner, "rollout", "recording the rollout")
    watch.wrap(prepared, "vtrace", "advantages")
    watch.wrap(network, "learn", "learning: forward, loss, backward")
    watch.wrap(compiled, "_by_weights", "learning: gradients of weights")
    watch.wrap(ppo_update, "_step", "learning: gradients added, clipped")
    watch.wrap(uncompiled.Adam, "step", "learning: Adam")
    watch.wrap(ppo, "update", "learning: checks, copies")
    watch.wrap(ppo.CLSTMPPO, "_update_local_runner", "weights to the runner")
    steps, start = 0, thread_time()
    while not steps or thread_time() - start < seconds:
        with watch.stage("RLlib"):
            steps += trainer.iterate()
    slowest = sorted(watch.spent.items(), key=lambda item: -item[1])
    return {stage: spent / steps for stage, spent in slowest}, trainer


def profile(task: Task, arguments: argparse.Namespace) -> Figures:
    """Microseconds of a step by stage."""
    taken, _ = stages(task, arguments.seconds)
    figures = Figures("stage", {"µs a step": "{:.2f}", "share": "{:.0%}"})
    total = sum(taken.values())
    for stage, seconds in taken.items():
        figures.add(stage, 1e6 * seconds, seconds / total)
    figures.add("a step", 1e6 * total, 1.0)
    return figures


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each trainer")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a turn, at most")
    parser.add_argument("--cores", type=int, default=2, help="of each trainer")
    parser.add_argument("--warmup", type=int, default=2, help="iterations that are not timed")
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=64, help="of each environment in a rollout")
    parser.add_argument("--length", type=int, help="mean steps of an episode")
    parser.add_argument("--time-to-return", action="store_true", help="until the task is solved")
    parser.add_argument("--wanted", type=float, default=0.9, help="mean return that solves it")
    parser.add_argument("--profile", action="store_true", help="stages of this project's time")
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=list(TRAINERS))
    add_json(parser)
    parser.add_argument("--trainer", choices=TRAINERS, help=argparse.SUPPRESS)
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.trainer:
        trainer = TRAINERS[arguments.trainer](Task(**arguments.task))
        wanted = arguments.wanted if arguments.time_to_return else None
        turn = take_turn(trainer, arguments.seconds, wanted, arguments.warmup)
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()
        print(json.dumps(asdict(turn)), flush=True)
        os._exit(0)  # PufferLib's thread would go on
    fast = {"length": 5, "learning_rate": 3e-3, "gamma": 0.9}
    task = Task(
        **{
            **({"length": 390} if not arguments.time_to_return else fast),
            **({"length": arguments.length} if arguments.length else {}),
            "envs": arguments.envs,
            "steps": arguments.steps,
        }
    )
    if arguments.profile:
        publish(arguments, [profile(task, arguments)])
    else:
        compare(task, arguments)


if __name__ == "__main__":
    main()
