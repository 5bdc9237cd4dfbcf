"""Learning curves on problems whose answer is known.

To repeat them:

    pip install -c constraints.txt -e '.[dev,bench]'
    python -m benchmarks.learning_curves              # all, in the order of the page; or name some
    python -m benchmarks.learning_curves recall --seeds 1 --steps 50000 --out /tmp/curves

Each problem leaves its curves as CSV and PNG in the folder, and prints a table. The learner is the
product's: `BatchedEnvRunner` samples, `ppo_update.update` learns, with one thread and without Ray.
The control of the problems that need memory is `MemorylessCLSTM`, trained in the same way. What
was learnt is tested greedily, on episodes that neither training nor another seed's test has seen.
"""

import argparse
import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from matplotlib.axes import Axes
from ray.rllib.utils.metrics import EPISODE_RETURN_MEAN
from rich.console import Console
from rich.table import Table

from benchmarks.known_problems import (
    NO_EDGE,
    REVERTING_VOLATILITY,
    MemorylessCLSTM,
    PositionsOnlyCartPole,
    buy_low_volatility,
    option_markets,
    play,
)
from tests.learning.recall_env import MaskedRecallVectorEnv
from trading.config import LearningSettings
from trading.evaluation.backtest import learnt
from trading.evaluation.baselines import SessionTrader, hold, random_masked
from trading.learning.clstm import CLSTM
from trading.learning.policy import Policy, seeded_clstm
from trading.learning.ppo import CLSTMPPOConfig
from trading.learning.ppo_update import PPOSettings, update
from trading.learning.rollout import Rollout
from trading.learning.runner import BatchedEnvRunner
from trading.market.randomisation import ModelRanges

LEARNER, CONTROL = "CLSTM", "without memory"
TEST_SEED = 1_000_000
"""Added to a training seed, it seeds that policy's test."""
EPISODES, SESSIONS = 256, 256
"""In the test of each seed."""
RESAMPLES = 10_000
BASELINES: dict[str, SessionTrader] = {
    "hold cash": hold,
    "random allowed actions": random_masked(1),
    "rule: straddle while volatility is low": buy_low_volatility,
}
UNDERLYING = "buy and hold the underlying"


@dataclass(frozen=True)
class Problem:
    """What is learnt, from how much, and with which settings."""

    title: str
    factory: Callable[..., VectorEnv]
    steps: int
    seeds: int
    ppo: PPOSettings
    envs: int = 64
    rollout_length: int = 64
    hidden: int = 64
    anneal: bool = False
    """Whether the learning rate falls evenly to zero."""
    solved: float | None = None
    """Mean return that counts as a solution."""
    model: dict[str, Any] = field(default_factory=dict)
    """Options of the network beside its sizes."""
    markets: ModelRanges | None = None
    """What the option markets are drawn from; the others compare with the memoryless control."""


USUAL = PPOSettings.of(LearningSettings(), gamma=0.99)

PROBLEMS = {
    "recall": Problem(
        "Recall: a cue is asked for 9 to 11 steps later",
        partial(MaskedRecallVectorEnv, length=11),
        steps=60_000,
        seeds=3,
        ppo=replace(USUAL, learning_rate=1e-3, gamma=0.95),
        hidden=32,
        solved=0.97,
    ),
    "cartpole": Problem(
        "CartPole without velocities",
        PositionsOnlyCartPole,
        steps=500_000,
        seeds=3,
        ppo=replace(USUAL, learning_rate=1e-3, entropy_coefficient=0.0),
        envs=128,
        rollout_length=32,
        hidden=32,
        anneal=True,
        solved=475.0,
    ),
    "edge": Problem(
        "Options whose volatility reverts",
        partial(option_markets, ranges=REVERTING_VOLATILITY),
        steps=250_000,
        seeds=5,
        ppo=replace(USUAL, learning_rate=1e-3),
        envs=256,
        rollout_length=16,
        markets=REVERTING_VOLATILITY,
    ),
    "no-edge": Problem(
        "Options at fair prices",
        partial(option_markets, ranges=NO_EDGE),
        steps=1_500_000,
        seeds=5,
        ppo=replace(USUAL, learning_rate=1e-3),
        envs=256,
        rollout_length=16,
        markets=NO_EDGE,
    ),
}


class Point(NamedTuple):
    """A place on a learning curve; means are over the last 128 episodes."""

    learner: str
    seed: int
    steps: int
    mean_return: float
    fills: float
    """In an option session; NaN elsewhere."""


@dataclass
class Run:
    """One training run and its test."""

    learner: str
    seed: int
    curve: list[Point]
    policy: Policy
    seconds: float
    """Processor time of the training."""
    tested: float = field(default=np.nan)
    """Mean return of the test's episodes."""


def new_runner(problem: Problem, seed: int, network: type[CLSTM]) -> BatchedEnvRunner:
    config = (
        CLSTMPPOConfig()
        .environment(env_config={"factory": problem.factory})
        .env_runners(
            num_envs_per_env_runner=problem.envs, rollout_fragment_length=problem.rollout_length
        )
        .rl_module(
            model_config=dict.fromkeys(
                ("feature_hidden", "actor_hidden", "critic_hidden"), problem.hidden
            )
            | problem.model
        )
        .training(torch_threads=1)
        .reporting(metrics_num_episodes_for_smoothing=128)
        .debugging(seed=seed)
    )
    runner = BatchedEnvRunner(config=config, worker_index=0, num_workers=0)
    shape = runner.policy.config
    model = network(shape)
    model.load_state_dict(seeded_clstm(shape, seed).state_dict())
    runner.policy = Policy(shape, seed, model)
    return runner


class Training:
    """The product's runner, network and update on a problem."""

    def __init__(self, problem: Problem, seed: int, network: type[CLSTM] = CLSTM) -> None:
        self.problem, self.seed, self.updates = problem, seed, 0
        self.learner = CONTROL if network is MemorylessCLSTM else LEARNER
        self.runner = new_runner(problem, seed, network)
        self.policy: Policy = self.runner.policy
        self.optimizer = torch.optim.Adam(
            self.policy.model.parameters(), lr=problem.ppo.learning_rate, fused=True
        )
        self.generator = torch.Generator().manual_seed(seed)

    def sample(self) -> Rollout:
        """A rollout by the weights of now, which says so."""
        (rollout,) = self.runner.sample()
        return replace(rollout, weights_version=self.updates)

    def learn(self, *rollouts: Rollout) -> None:
        """One update on all of them together."""
        steps = max(each.shape[0] for each in rollouts)
        whole = Rollout.concatenate([each.padded(steps) for each in rollouts])
        ppo, model = self.problem.ppo, self.policy.model
        update(model, self.optimizer, whole, ppo, self.generator, version=self.updates)
        self.updates += 1

    def curve(self, steps: int) -> Iterator[Point]:
        """One update after another until `steps` are learned from."""
        done, rate = 0, self.problem.ppo.learning_rate
        while done < steps:
            if self.problem.anneal:
                self.optimizer.param_groups[0]["lr"] = rate * (1.0 - done / steps)
            rollout = self.sample()
            self.learn(rollout)
            done += rollout.steps
            peek = self.runner.metrics.peek
            mean_return = float(np.mean(peek(EPISODE_RETURN_MEAN, default=np.nan)))
            fills = float(np.mean(peek("episode_trades_mean", default=np.nan)))
            yield Point(self.learner, self.seed, done, mean_return, fills)


def train(
    problem: Problem, seed: int, steps: int, network: type[CLSTM] = CLSTM
) -> Iterator[tuple[Point, Policy]]:
    """One update after another until `steps` are learned from; the policy is the one learning."""
    training = Training(problem, seed, network)
    for point in training.curve(steps):
        yield point, training.policy


def greedy_return(problem: Problem, policy: Policy, seed: int) -> float:
    """Mean return of the first episodes that end after each environment's first one."""
    env = problem.factory(num_envs=EPISODES, seed=seed)
    act = learnt(policy)
    observation, _ = env.reset()
    first, ended = np.ones(EPISODES, np.bool_), np.zeros(EPISODES, np.int64)
    returns = np.zeros(EPISODES)
    while (ended < 2).any():
        observation, _, terminated, truncated, info = env.step(act(observation, first))
        first = terminated | truncated
        counted = first & (ended == 1)
        if counted.any():
            returns[counted] = info["episode"]["r"][counted]
        ended += first
    return float(returns.mean())


def run(problem: Problem, seed: int, steps: int, network: type[CLSTM], console: Console) -> Run:
    start = process_time()
    points = list(train(problem, seed, steps, network))
    point, policy = points[-1]
    curve = [each for each, _ in points]
    result = Run(point.learner, seed, curve, policy, process_time() - start)
    if problem.markets is None:
        result.tested = greedy_return(problem, policy, TEST_SEED + seed)
    console.print(
        f"{problem.title}: {point.learner}, seed {seed}, {point.steps:,} decisions in "
        f"{result.seconds:.0f} s, last mean return {point.mean_return:.3g}"
    )
    return result


def interval(returns: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """95 % of the mean of [seeds, sessions]: seeds are resampled, and then sessions of each."""
    seeds, sessions = returns.shape
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        which = rng.integers(seeds, size=seeds)[:, None]
        means[i] = returns[which, rng.integers(sessions, size=(seeds, sessions))].mean()
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def session_table(problem: Problem, runs: list[Run]) -> Table:
    """Policies and baselines in fresh sessions, each seed's policy in sessions of its own."""
    assert problem.markets is not None
    seeds = [TEST_SEED + run.seed for run in runs]
    test = partial(play, ranges=problem.markets, sessions=SESSIONS)
    policies = [test(learnt(run.policy), seed=seed) for run, seed in zip(runs, seeds, strict=True)]
    returns = {LEARNER: np.stack([each.returns for each in policies])}
    fills = {LEARNER: np.stack([each.fills for each in policies])}
    for name, trader in BASELINES.items():
        played = [test(trader, seed=seed) for seed in seeds]
        returns[name] = np.stack([each.returns for each in played])
        fills[name] = np.stack([each.fills for each in played])
    returns[UNDERLYING] = np.stack([each.underlying for each in policies])
    fills[UNDERLYING] = np.ones_like(fills[LEARNER])
    rng = np.random.default_rng(0)
    table = Table("trader", title=f"{problem.title}: {len(runs)} x {SESSIONS} fresh sessions")
    for column in ("mean return", "95 %", "CLSTM less this, 95 %", "fills", "each seed"):
        table.add_column(column, justify="right")
    for name, each in returns.items():
        low, high = interval(each, rng)
        ahead = interval(returns[LEARNER] - each, rng)
        table.add_row(
            name,
            f"{each.mean():+.3%}",
            f"{low:+.3%} to {high:+.3%}",
            "" if name == LEARNER else f"{ahead[0]:+.3%} to {ahead[1]:+.3%}",
            f"{fills[name].mean():.2f}",
            " ".join(f"{mean:+.2%}" for mean in each.mean(axis=1)),
        )
    return table


def episode_table(problem: Problem, runs: list[Run]) -> Table:
    """Learner and control in fresh episodes."""
    table = Table("learner", title=f"{problem.title}: {EPISODES} fresh episodes a seed")
    for column in ("decisions", "first at its goal after", "mean return", "each seed"):
        table.add_column(column, justify="right")
    for learner in dict.fromkeys(run.learner for run in runs):
        chosen = [run for run in runs if run.learner == learner]
        goals = [
            next((f"{p.steps:,}" for p in run.curve if p.mean_return >= problem.solved), "never")
            for run in chosen
        ]
        table.add_row(
            learner,
            f"{chosen[0].curve[-1].steps:,}",
            ", ".join(goals),
            f"{np.mean([run.tested for run in chosen]):.4g}",
            " ".join(f"{run.tested:.4g}" for run in chosen),
        )
    return table


def draw(axes: Axes, runs: list[Run], what: str, label: str) -> None:
    """A thin line a seed and a thick one for their mean, a colour a learner."""
    for colour, learner in enumerate(dict.fromkeys(run.learner for run in runs)):
        curves = [run.curve for run in runs if run.learner == learner]
        steps = np.array([point.steps for point in curves[0]]) / 1e6
        values = np.array([[getattr(point, what) for point in curve] for curve in curves])
        axes.plot(steps, values.T, color=f"C{colour}", linewidth=0.6, alpha=0.5)
        axes.plot(steps, values.mean(axis=0), color=f"C{colour}", linewidth=2, label=learner)
    axes.set_xlabel("decisions, millions")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)


def plot(problem: Problem, runs: list[Run], path: Path) -> None:
    panels = 1 if problem.markets is None else 2
    figure, axes = plt.subplots(
        1, panels, figsize=(4.5 * panels, 3.4), squeeze=False, layout="constrained"
    )
    returns = axes[0, 0]
    if problem.markets is None:
        draw(returns, runs, "mean_return", "mean return of an episode")
        returns.axhline(problem.solved, color="grey", linestyle=":", label="goal")
        figure.legend(loc="outside lower center", ncols=3)
    else:
        draw(returns, runs, "mean_return", "return of a session, % of capital")
        returns.axhline(0.0, color="grey", linestyle=":")
        draw(axes[0, 1], runs, "fills", "fills in a session")
        axes[0, 1].set_ylim(bottom=0.0)
    figure.suptitle(problem.title)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def write_csv(runs: list[Run], path: Path, points: int = 50) -> None:
    """About `points` places of each curve."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Point._fields)
        for run in runs:
            every = max(len(run.curve) // points, 1)
            for point in run.curve[every - 1 :: every]:
                writer.writerow([*point[:3], *(f"{value:.4g}" for value in point[3:])])


def main() -> None:
    parser = argparse.ArgumentParser(description="Learning curves on known problems.")
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS), metavar="problem")
    parser.add_argument("--seeds", type=int, help="training runs of each learner")
    parser.add_argument("--steps", type=int, help="decisions to learn from in each of them")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of results")
    arguments = parser.parse_args()
    if unknown := set(arguments.problems) - set(PROBLEMS):
        parser.error(f"no problem {', '.join(unknown)}; there are {', '.join(PROBLEMS)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = Console(width=160)
    torch.set_num_threads(1)
    for name in arguments.problems:
        problem = PROBLEMS[name]
        seeds = range(1, (arguments.seeds or problem.seeds) + 1)
        steps = arguments.steps or problem.steps
        networks: list[type[Any]] = [CLSTM]
        if problem.markets is None:
            networks.append(MemorylessCLSTM)
        runs: list[Run] = []
        try:
            for network, seed in product(networks, seeds):
                runs.append(run(problem, seed, steps, network, console))
        except KeyboardInterrupt:
            console.print(f"{problem.title}: interrupted; what follows is of {len(runs)} runs")
        write_csv(runs, arguments.out / f"learning-{name}.csv")
        plot(problem, runs, arguments.out / f"learning-{name}.png")
        report = episode_table if problem.markets is None else session_table
        console.print(report(problem, runs))


if __name__ == "__main__":
    main()
