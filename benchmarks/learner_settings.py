"""What the learner's settings do on a task whose answer is known, one setting changed at a time.

    python -m benchmarks.learner_settings                    # all parts, 15 minutes of one core
    python -m benchmarks.learner_settings update old --seeds 2

The task is `recall` of `benchmarks/learning_curves.py`: a cue is asked for 9 to 11 decisions later,
and a guess is right once in three times. `docs/learner.md` holds the tables.
"""

import argparse
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from time import process_time
from typing import Any, NamedTuple

import numpy as np
import torch
from ray.rllib.utils.metrics import EPISODE_RETURN_MEAN
from rich.console import Console
from rich.table import Table

from benchmarks.learning_curves import PROBLEMS, TEST_SEED, Problem, greedy_return, new_runner
from tests.learning.recall_env import MaskedRecallVectorEnv
from trading.learning.clstm import CLSTM
from trading.learning.policy import Policy
from trading.learning.ppo_update import update
from trading.learning.replay_mix import ReplayMix
from trading.learning.rollout import Rollout
from trading.learning.runner import BatchedEnvRunner

RECALL = PROBLEMS["recall"]
SHORT = replace(RECALL, factory=partial(MaskedRecallVectorEnv, length=5))
GOAL = 0.97
MOST = 200_000
"""Decisions after which a run that has not solved the task is given up."""


class Run(NamedTuple):
    """One training run; `solved` is after how many decisions the mean return was `GOAL`."""

    solved: int | None
    seconds: float
    """Of the processor, until then."""
    lowest: float
    """Least mean return after that."""
    kl: float
    """Greatest KL divergence of one update."""


class Training:
    """The product's runner, network and update, on rollouts that may be some updates old."""

    def __init__(self, problem: Problem, seed: int, age: int = 0) -> None:
        self.problem, self.updates = problem, 0
        self.runner: BatchedEnvRunner = new_runner(problem, seed, CLSTM)
        self.policy: Policy = self.runner.policy
        self.optimizer = torch.optim.Adam(
            self.policy.model.parameters(), lr=problem.ppo.learning_rate, fused=True
        )
        self.generator = torch.Generator().manual_seed(seed)
        self._waiting: deque[Rollout] = deque()
        self._age = age

    def sample(self) -> list[Rollout]:
        """A rollout by the weights of now, which says so."""
        (rollout,) = self.runner.sample()
        return [replace(rollout, weights_version=self.updates)]

    def learn(self, *rollouts: Rollout) -> dict[str, float]:
        steps = max(each.shape[0] for each in rollouts)
        whole = Rollout.concatenate([each.padded(steps) for each in rollouts])
        ppo, model = self.problem.ppo, self.policy.model
        found = update(model, self.optimizer, whole, ppo, self.generator, version=self.updates)
        self.updates += 1
        return found

    def step(self) -> tuple[int, float]:
        """Sample and learn; decisions learned from, and the update's KL divergence."""
        self._waiting += self.sample()
        while len(self._waiting) <= self._age:
            self._waiting += self.sample()
        rollout = self._waiting.popleft()
        return rollout.steps, self.learn(rollout)["kl"]

    def mean_return(self) -> float:
        return float(np.mean(self.runner.metrics.peek(EPISODE_RETURN_MEAN, default=np.nan)))


def trained(problem: Problem, seed: int, age: int = 0, beyond: int = 0) -> Run:
    """Train until the task is solved, and for so many decisions more."""
    start, training = process_time(), Training(problem, seed, age)
    done, highest, lowest, solved, seconds = 0, 0.0, np.nan, None, np.nan
    while done < (MOST if solved is None else solved + beyond):
        steps, kl = training.step()
        done, highest = done + steps, max(highest, kl)
        mean = training.mean_return()
        if solved is not None:
            lowest = np.fmin(lowest, mean)
        elif mean >= GOAL:
            solved, seconds = done, process_time() - start
    return Run(solved, seconds, float(lowest), highest)


Case = tuple[str, Callable[[int], Sequence[str]]]
"""What is changed, and what came of it for a seed, as the cells of a table."""


def solved_case(name: str, problem: Problem, age: int = 0) -> Case:
    def measured(seed: int) -> Sequence[str]:
        run = trained(problem, seed, age)
        return ("never" if run.solved is None else f"{run.solved:,}", f"{run.seconds:.1f}")

    return name, measured


def update_cases() -> Iterator[Case]:
    """Each setting of the update and of the rollouts, lower and higher."""
    yield solved_case("as it is", RECALL)
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


def old_cases() -> Iterator[Case]:
    """How much old experience weighs, where it is so many updates old."""
    for age in (1, 8):
        for rho, c in ((1.0, 1.0), (2.0, 1.0), (2.0, 2.0), (10.0, 10.0)):
            ppo = replace(SHORT.ppo, vtrace_rho=rho, vtrace_c=c)
            name = f"{age} updates old, rho {rho:g}, c {c:g}"
            yield solved_case(name, replace(SHORT, ppo=ppo), age)


def kl_cases() -> Iterator[Case]:
    """Whether stopping early keeps what was learnt, with a step that is too large."""
    for target in (None, 0.03, 0.01):
        ppo = replace(RECALL.ppo, learning_rate=3e-3, target_kl=target)
        fast = replace(RECALL, ppo=ppo)

        def measured(seed: int, problem: Problem = fast) -> Sequence[str]:
            run = trained(problem, seed, beyond=160_000)
            solved = "never" if run.solved is None else f"{run.solved:,}"
            return solved, f"{run.lowest:.2f}", f"{run.kl:.2f}"

        yield f"target_kl {target}", measured


def window_cases() -> Iterator[Case]:
    """The state carried on, or a window of the last observations."""
    for window in (None, 6, 30):
        yield solved_case(f"recall of 5, window {window}", replace(SHORT, model={"window": window}))
    for window in (None, 12):
        name = f"recall of 11, window {window}"
        yield solved_case(name, replace(RECALL, model={"window": window}))


class OneCue(MaskedRecallVectorEnv):
    """A market that is always the same: only the first cue is ever shown."""

    def _observe(self) -> dict[str, np.ndarray]:
        self._cue[:] = 0
        return super()._observe()


def replay_cases() -> Iterator[Case]:
    """What is left of all cues when live fragments show one of them, and replay shows all."""
    for share in (0.0, 0.25, 0.5, 0.75):

        def measured(seed: int, share: float = share) -> Sequence[str]:
            training = Training(RECALL, seed)
            while not training.mean_return() >= GOAL:
                training.step()
            factory = partial(OneCue, length=11)
            live = new_runner(
                replace(RECALL, factory=factory, envs=3, rollout_length=21), seed, CLSTM
            )
            live.policy = training.policy
            mix = ReplayMix(lambda: [*training.sample()], share)
            for _ in range(150):
                (fragment,) = live.sample()
                fragment = replace(fragment, weights_version=training.updates)
                training.learn(fragment, *mix.beside(fragment.steps))
            return (f"{greedy_return(RECALL, training.policy, TEST_SEED + seed):.2f}",)

        yield f"replay share {share:g}", measured


PARTS: dict[str, tuple[Callable[[], Iterator[Case]], tuple[str, ...]]] = {
    "update": (update_cases, ("decisions until solved", "CPU-s")),
    "old": (old_cases, ("decisions until solved", "CPU-s")),
    "kl": (kl_cases, ("decisions until solved", "least mean return after", "greatest KL")),
    "window": (window_cases, ("decisions until solved", "CPU-s")),
    "replay": (replay_cases, ("mean return of all cues",)),
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
                console.print(name, *table.columns[1]._cells[-1:], style="dim")
        console.print(table)


if __name__ == "__main__":
    main()
