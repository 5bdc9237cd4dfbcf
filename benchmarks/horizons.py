"""What the horizon of the discount does to an edge that takes a session to pay.

    python -m benchmarks.horizons                      # every horizon, in the order of the page
    python -m benchmarks.horizons "5 sessions" --seeds 1 --steps 50000

Each horizon trains the same network in `SLOW_EDGE`, episodes of five sessions, and the policy is
then tested on episodes of its own seed, drawing its actions as it trades. Rules and cash trade the
same episodes.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import exp
from pathlib import Path
from time import process_time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.known_problems import SLOW_EDGE, Sessions, buy_calls, option_markets, play
from benchmarks.learning_curves import TEST_SEED, USUAL, Problem, Run, interval, train, write_csv
from trading.config.fields import horizon_seconds
from trading.evaluation.backtest import learnt
from trading.evaluation.baselines import hold

SESSIONS_PER_EPISODE, EPISODES = 5, 64
BAR_SECONDS = 60.0
HORIZONS = ("100 minutes", "1 session", "5 sessions")
PROBLEM = Problem(
    "An edge that pays after most of a session",
    partial(option_markets, ranges=SLOW_EDGE, sessions_per_episode=SESSIONS_PER_EPISODE),
    steps=500_000,
    seeds=3,
    ppo=replace(USUAL, learning_rate=1e-3),
    envs=256,
    rollout_length=16,
    markets=SLOW_EDGE,
)


BEST = "rule: buy calls and keep them"
RULES = {"hold cash": hold, BEST: buy_calls}
"""What stands beside the learners."""


def test_of(episodes: int) -> Callable[..., Sessions]:
    """How a trader is tested: so many episodes of markets that nothing is learnt from."""
    return partial(play, ranges=SLOW_EDGE, sessions=episodes, in_a_row=SESSIONS_PER_EPISODE)


def trained(horizon: str, seed: int, steps: int, gae_lambda: float) -> Run:
    """One policy that learnt with a horizon."""
    gamma = exp(-BAR_SECONDS / horizon_seconds(horizon))
    problem = replace(PROBLEM, ppo=replace(PROBLEM.ppo, gamma=gamma, gae_lambda=gae_lambda))
    start, points = process_time(), list(train(problem, seed, steps))
    curve = [point._replace(learner=horizon) for point, _ in points]
    return Run(horizon, seed, curve, points[-1][1], process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description="Horizons on a slow edge.")
    parser.add_argument("horizons", nargs="*", default=list(HORIZONS))
    parser.add_argument("--seeds", type=int, default=PROBLEM.seeds, help="runs of each horizon")
    parser.add_argument("--steps", type=int, default=PROBLEM.steps, help="decisions of each run")
    parser.add_argument("--episodes", type=int, default=EPISODES, help="in the test of each run")
    parser.add_argument("--gae-lambda", type=float, default=PROBLEM.ppo.gae_lambda)
    parser.add_argument("--out", type=Path, help="folder of the curves, as CSV")
    arguments = parser.parse_args()
    console = Console(width=140)
    torch.set_num_threads(1)
    seeds = range(1, arguments.seeds + 1)
    test = test_of(arguments.episodes)
    returns, fills = {}, {}
    for name, rule in RULES.items():
        played = [test(rule, seed=TEST_SEED + seed) for seed in seeds]
        returns[name] = np.stack([each.returns for each in played])
        fills[name] = np.stack([each.fills for each in played])
    runs = []
    for horizon in arguments.horizons:
        played = []
        for seed in seeds:
            run = trained(horizon, seed, arguments.steps, arguments.gae_lambda)
            runs.append(run)
            played.append(test(learnt(run.policy), seed=TEST_SEED + seed))
            mean = played[-1].returns.mean()
            console.print(f"{horizon}, seed {seed}: {mean:+.3%}, {run.seconds:.0f} s")
        returns[horizon] = np.stack([each.returns for each in played])
        fills[horizon] = np.stack([each.fills for each in played])
    rng = np.random.default_rng(0)
    shape = f"{arguments.seeds} x {arguments.episodes} episodes of {SESSIONS_PER_EPISODE} sessions"
    table = Table("trader", title=f"{PROBLEM.title}: {shape}")
    for column in ("mean return", "95 %", "of the rule", "fills", "each seed"):
        table.add_column(column, justify="right")
    best = returns[BEST].mean()
    for name, each in returns.items():
        low, high = interval(each, rng)
        table.add_row(
            name,
            f"{each.mean():+.3%}",
            f"{low:+.3%} to {high:+.3%}",
            f"{each.mean() / best:.2f}",
            f"{fills[name].mean():.2f}",
            " ".join(f"{mean:+.2%}" for mean in each.mean(axis=1)),
        )
    console.print(table)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_csv(runs, arguments.out / "learning-horizons.csv")


if __name__ == "__main__":
    main()
