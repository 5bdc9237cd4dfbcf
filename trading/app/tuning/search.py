"""Has Ray Tune run the trials of a search, and goes on with one that was ended."""

import os
import signal
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search.basic_variant import BasicVariantGenerator

from trading.app.tuning.outcome import GIVEN
from trading.app.tuning.plan import SearchPlan
from trading.app.tuning.record import TrialEnd, TrialLog, TrialScore
from trading.app.tuning.trial import SCORE, trial
from trading.config.space import Choices, Point, Space
from trading.errors import ConfigError

NAME = "ray-tune"
"""Folder of Ray Tune's own state."""
_TIME = "judgement"
_FAILURES = 1
"""Times that a trial whose process was lost goes on from its checkpoint."""
_PBT_KEPT = 4
"""Checkpoints of a trial: another one may be reading the newest but one."""


def run_trials(
    plan: SearchPlan,
    space: Space,
    points: list[Point],
    work: Path,
    record: TrialLog,
    tell: Callable[[str], None],
    stopped: Callable[[], bool],
) -> dict[int, Path]:
    """Run every trial that has not ended; the newest checkpoint of each, by its number.

    Where the folder holds a search it is gone on with: what had ended stays, and each other trial
    goes on from its last judgement. Told to stop, it ends with its state on disk. Ray must run.

    Raises
    ------
    ConfigError
        A trial needs more CPUs than any node has.
    """
    settings = plan.settings
    cpus = settings.learning.threads
    most = max(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
    if cpus > most:
        raise ConfigError(
            [f"learning.threads: {cpus}, and no node has more than {most:g} CPUs: set it lower"]
        )
    # What Ray Tune prints itself, and what it does on Ctrl-C, is told and done here.
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    warnings.filterwarnings("ignore", "Consider boosting PBT")
    searched = BasicVariantGenerator(
        points_to_evaluate=points, max_concurrent=settings.tune.concurrent or 0
    )
    is_pbt = settings.tune.method == "pbt"
    found = tune.run(
        tune.with_parameters(trial, plan=plan),
        name=NAME,
        storage_path=str(work),
        config=dict(points[0]),
        num_samples=len(points),
        metric=SCORE,
        mode="max",
        search_alg=searched,
        scheduler=_scheduler(plan, space, record),
        resources_per_trial={"cpu": cpus},
        checkpoint_config=tune.CheckpointConfig(num_to_keep=_PBT_KEPT if is_pbt else 1),
        max_failures=_FAILURES,
        raise_on_failed_trial=False,
        trial_dirname_creator=lambda each: f"trial-{number_of(each)}",
        callbacks=[_Telling(record, len(points), settings.tune.judgements, tell, stopped)],
        resume="AUTO+ERRORED" if is_begun(work) else None,
        verbose=0,
    )
    return {
        number_of(each): Path(each.checkpoint.path)
        for each in found.trials
        if each.checkpoint is not None
    }


def is_begun(work: Path) -> bool:
    """Whether the folder holds a search that can be gone on with."""
    return any((work / NAME).glob("experiment_state-*.json"))


def number_of(each: TuneTrial) -> int:
    """Trials are counted from 1, in the order of their points."""
    return int(each.trial_id.rpartition("_")[2]) + 1


def _scheduler(plan: SearchPlan, space: Space, record: TrialLog) -> TrialScheduler:
    tuned = plan.settings.tune
    if tuned.method == "random":
        return FIFOScheduler()
    if tuned.method == "pbt":
        return PopulationBasedTraining(
            time_attr=_TIME,
            perturbation_interval=1,
            hyperparam_mutations=_mutations(space, plan.settings.seed),
            custom_explore_fn=lambda point: brought_into_ranges(space, point),
        )
    return _Halving(
        record, time_attr=_TIME, max_t=tuned.judgements, reduction_factor=tuned.reduction
    )


def _mutations(space: Space, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        key: list(each.values) if isinstance(each, Choices) else lambda each=each: each.draw(rng)
        for key, each in space.items()
    }


def brought_into_ranges(space: Space, point: Mapping[str, Any]) -> Point:
    """Return the point with every number brought back into its range."""
    bounded = dict(point)
    for key, each in space.items():
        if not isinstance(each, Choices):
            bounded[key] = each.within(point[key])
    return bounded


class _Halving(AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA that lets the given settings learn to their end, so that the winner has a measure.

    It knows the scores of the record from before an interruption, which Ray Tune does not keep.
    """

    def __init__(self, record: TrialLog, **options: Any) -> None:
        super().__init__(**options)
        self._record = record

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        super().on_trial_add(tune_controller, trial)
        known = self._record.trials().get(number_of(trial))
        reached = (trial.last_result or {}).get(_TIME, 0)
        for judgement, judged in sorted(known.judged.items()) if known else ():
            if judgement <= reached:
                told = {_TIME: judgement, SCORE: judged.score}
                super().on_trial_result(tune_controller, trial, told)

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        decision: str = super().on_trial_result(tune_controller, trial, result)
        if number_of(trial) == GIVEN and result[_TIME] < self._max_t:
            decision = TrialScheduler.CONTINUE
        return decision


class _Telling(tune.Callback):  # type: ignore[misc]
    """Writes the record, tells people, and ends the search when it is told to."""

    def __init__(
        self,
        record: TrialLog,
        count: int,
        judgements: int,
        tell: Callable[[str], None],
        stopped: Callable[[], bool],
    ) -> None:
        self._record, self._count, self._judgements = record, count, judgements
        self._tell, self._stopped = tell, stopped
        self._has_told_to_end = False

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        if self._stopped() and not self._has_told_to_end:
            self._has_told_to_end = True
            # Ray Tune ends with its state on disk on this signal.
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        judged = TrialScore(
            number_of(trial),
            result["judgement"],
            result["decisions"],
            result[SCORE],
            result["returns"],
            # What the trial has now, PBT may already have changed.
            result["point"],
        )
        self._record.append(judged)
        self._tell(
            f"trial {judged.trial} of {self._count}: {judged.score:+.3f} % a session after "
            f"{judged.decisions:,} decisions ({judged.judgement} of {self._judgements})"
        )

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        self._record.append(TrialEnd(number_of(trial)))

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        failure = _last_line(trial)
        self._record.append(TrialEnd(number_of(trial), failure))
        self._tell(f"trial {number_of(trial)} of {self._count} failed: {failure}")


def _last_line(trial: TuneTrial) -> str:
    """Return what its process said at its end."""
    try:
        lines = Path(trial.error_file or "").read_text().strip().splitlines()
    except OSError:
        lines = []
    return lines[-1].strip() if lines else "its process was lost"
