"""What the learner's settings do on a task whose answer is known, one setting changed at a time.

    python -m benchmarks.learner_settings                    # all parts, 15 minutes of one core
    python -m benchmarks.learner_settings update replay --seeds 2

The task is `recall` of `benchmarks/learning_curves.py`: a cue is asked for 9 to 11 decisions later,
and a guess is right once in three times. `docs/learner.md` holds the tables.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from time import process_time
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.learning_curves import (
    PROBLEMS,
    TEST_SEED,
    Problem,
    Training,
    greedy_return,
    new_runner,
)
from tests.learning.recall_env import MaskedRecallVectorEnv
from trading.learning.clstm import CLSTM
from trading.learning.replay_mix import ReplayMix

RECALL = PROBLEMS["recall"]
MOST = 200_000
"""Decisions after which a run that has not solved the task is given up."""


def solve(training: Training) -> int | None:
    """Train until the problem is solved; after how many decisions, None after `MOST`."""
    goal = training.problem.solved
    return next((each.steps for each in training.curve(MOST) if each.mean_return >= goal), None)


Case = tuple[str, Callable[[int], Sequence[str]]]
"""What is changed, and what came of it for a seed, as the cells of a table."""


def solved_case(name: str, problem: Problem) -> Case:
    def measured(seed: int) -> Sequence[str]:
        start = process_time()
        solved = solve(Training(problem, seed))
        return ("never" if solved is None else f"{solved:,}", f"{process_time() - start:.1f}")

    return name, measured


def update_cases() -> Iterator[Case]:
    """Each setting of the update and of the rollouts, lower and higher."""
    yield solved_case("as it is", RECALL)
    yield solved_case("layer_norm", replace(RECALL, model={"layer_norm": True}))
    changed: dict[str, tuple[Any, ...]] = {
        "learning_rate": (3e-4, 3e-3),
        "clip": (0.1, 0.4),
        "epochs": (2, 8),
        "minibatches": (2, 8),
        "entropy_coefficient": (0.0, 0.05),
        "value_coefficient": (0.1, 2.0),
        "max_grad_norm": (0.1, 10.0),
        "gae_lambda": (0.8, 1.0),
        "gamma": (0.8, 0.99),
    }
    for name, values in changed.items():
        for value in values:
            ppo = replace(RECALL.ppo, **{name: value})
            yield solved_case(f"{name} {value:g}", replace(RECALL, ppo=ppo))
    for name, sizes in {"envs": (16, 256), "rollout_length": (16, 256), "hidden": (8, 128)}.items():
        for value in sizes:
            changes: dict[str, Any] = {name: value}
            yield solved_case(f"{name} {value}", replace(RECALL, **changes))


class NoEdge(MaskedRecallVectorEnv):
    """A market in which nothing pays: rewards are noise, whatever is done."""

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observation, rewards, *rest = super().step(actions)
        return observation, self._rng.normal(size=len(rewards)).astype(np.float32), *rest


def replay_cases() -> Iterator[Case]:
    """What is left of the task when live fragments teach nothing, and replay goes on with it."""
    for share in (0.0, 0.5, 0.25, 0.75):

        def measured(seed: int, share: float = share) -> Sequence[str]:
            training = Training(RECALL, seed)
            solve(training)
            factory = partial(NoEdge, length=11)
            live = new_runner(
                replace(RECALL, factory=factory, envs=3, rollout_length=21), seed, CLSTM
            )
            live.policy = training.policy
            mix = ReplayMix(lambda: [training.sample()], share)
            for _ in range(150):
                (fragment,) = live.sample()
                fragment = replace(fragment, weights_version=training.updates)
                training.learn(fragment, *mix.beside(fragment.steps))
            return (f"{greedy_return(RECALL, training.policy, TEST_SEED + seed):.2f}",)

        yield f"replay share {share:g}", measured


PARTS: dict[str, tuple[Callable[[], Iterator[Case]], tuple[str, ...]]] = {
    "update": (update_cases, ("decisions until solved", "CPU-s")),
    "replay": (replay_cases, ("mean return after 150 updates",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="What the learner's settings do.")
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="part")
    parser.add_argument("--seeds", type=int, default=3, help="training runs of each case")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    torch.set_num_threads(1)
    console = Console(width=140)
    for part in arguments.parts:
        cases, columns = PARTS[part]
        table = Table("changed", *columns, title=f"{part}: {arguments.seeds} seeds")
        for name, measured in cases():
            if arguments.only in name:
                each = [measured(seed) for seed in range(1, arguments.seeds + 1)]
                table.add_row(name, *(", ".join(cells) for cells in zip(*each, strict=True)))
                console.print(
                    name, *map(", ".join, zip(*each, strict=True)), sep=" | ", style="dim"
                )
        console.print(table)


if __name__ == "__main__":
    main()
