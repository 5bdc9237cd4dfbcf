"""One trial of a search: a policy for each fold, which learns, and is scored as it goes.

It runs in a process of its own, and learns and samples there.
"""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
import torch
from ray import tune
from rich.console import Console

from trading.app.algorithm import open_algorithm
from trading.app.display import Display
from trading.app.retraining import acting_policy, settings_of_fold
from trading.app.tuning.plan import SearchPlan, TrialFold
from trading.closing import Closing
from trading.config import Settings
from trading.config.space import Point, with_point
from trading.evaluation.backtest import learnt
from trading.files import write
from trading.learning.build import pretrain
from trading.learning.champion.gate import Returns
from trading.learning.checkpoints import CheckpointStore, load_module_weights
from trading.learning.policy import Policy
from trading.learning.ppo import CLSTMPPO

SCORE = "score"
"""Mean return of a session, in percent of the initial capital."""
_PROGRESS = "progress.json"


class TrialProgress(msgspec.Struct, frozen=True):
    """How far the weights of a checkpoint have come."""

    judgement: int
    done: list[int]
    """Decisions that each fold's policy learned from."""


def trial(config: Point, plan: SearchPlan) -> None:
    """Learn and trade, part by part, from where the trial's checkpoint ends.

    After each part it reports to Ray Tune its score, every episode's return, and a checkpoint.
    """
    # Matrices this small are slower on several threads; the learner has its own setting.
    torch.set_num_threads(1)
    settings = settings_of_trial(plan.settings, config)
    judgements = settings.tune.judgements
    with tempfile.TemporaryDirectory(prefix="trading-tune-") as folder, ExitStack() as stack:
        work = Path(folder)
        progress = _restored(work) or TrialProgress(0, [0] * len(plan.folds))
        opened = [
            stack.enter_context(_Learning(settings, fold, folder_of_fold(work, k), done))
            for k, (fold, done) in enumerate(zip(plan.folds, progress.done, strict=True))
        ]
        for judgement in range(progress.judgement + 1, judgements + 1):
            steps = settings.learning.pretrain_steps * judgement // judgements
            returns = 100.0 * np.concatenate([each.learn_and_trade(steps) for each in opened])
            now = TrialProgress(judgement, [each.done for each in opened])
            write(work / _PROGRESS, msgspec.json.encode(now))
            tune.report(
                {
                    "judgement": judgement,
                    "decisions": sum(now.done),
                    SCORE: float(returns.mean()),
                    "returns": returns.tolist(),
                    "point": dict(config),
                },
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


def settings_of_trial(settings: Settings, point: Point) -> Settings:
    """Return the settings of a trial, which learns and samples in its own process, on CPUs."""
    changed = with_point(settings, point)
    learning = changed.learning.model_copy(
        update={
            "num_env_runners": 0,
            "num_learners": 0,
            "gpus_per_learner": None,
            "learner_resource": None,
            "keep_checkpoints": 1,
        }
    )
    return changed.model_copy(update={"learning": learning})


def folder_of_fold(checkpoint: Path, fold: int) -> Path:
    """Where a trial's checkpoint has what one of its folds learnt."""
    return checkpoint / f"fold-{fold + 1}"


def trial_policy(checkpoint: Path, fold: int, settings: Settings) -> Policy:
    """Return what one fold of a trial learnt, acting as the trial's settings say.

    Raises
    ------
    CheckpointError
        The checkpoint is damaged.
    """
    store = CheckpointStore(_checkpoints(folder_of_fold(checkpoint, fold)), 1)
    return acting_policy(settings, load_module_weights(store.path(store.steps()[-1])))


def _checkpoints(state: Path) -> Path:
    return state / "checkpoints"


def _restored(work: Path) -> TrialProgress | None:
    """Copy the trial's checkpoint, where it has one."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as kept:
        shutil.copytree(kept, work, dirs_exist_ok=True)
    return msgspec.json.decode((work / _PROGRESS).read_bytes(), type=TrialProgress)


class _Learning(Closing):
    """A fold's algorithm, open while the trial runs."""

    def __init__(self, settings: Settings, fold: TrialFold, state: Path, done: int) -> None:
        of_fold = settings_of_fold(settings, fold.learns_from, state)
        self._settings = of_fold.model_copy(update={"seed": fold.seed})
        self._fold = fold
        self._stack = ExitStack()
        self._algorithm: CLSTMPPO | None = None
        self._store: CheckpointStore | None = None
        self.done = done
        """Decisions learned from."""

    def __enter__(self) -> "_Learning":
        unseen = Display(Console(quiet=True))
        opened = open_algorithm(self._settings, unseen, self._stack)
        self._algorithm, self._store = opened.algorithm, opened.store
        return self

    def close(self) -> None:
        """End the algorithm."""
        self._stack.close()

    def learn_and_trade(self, steps: int) -> Returns:
        """Learn until it has learned from so many decisions; what its sessions returned."""
        assert self._algorithm is not None and self._store is not None, "it must be entered"
        done, _ = pretrain(
            self._algorithm,
            self._store,
            steps,
            max(steps, 1),
            lambda _: None,
            lambda: False,
            self.done,
        )
        self.done = done
        policy = acting_policy(self._settings, self._algorithm.weights())
        return self._fold.trade(learnt(policy))
