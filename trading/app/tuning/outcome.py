"""What a search found: trials in their order, the winner, and what it is worth elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trading.app.tuning.plan import SearchPlan
from trading.app.tuning.record import Trial
from trading.app.tuning.trial import settings_of_trial, trial_policy
from trading.config import Settings
from trading.config.space import Point
from trading.evaluation.backtest import learnt
from trading.evaluation.return_statistics import bootstrap_interval
from trading.execution.events import Compared
from trading.learning.champion.gate import Returns, compare

GIVEN = 1
"""The trial of the settings as they were given."""
_CONFIDENCE = 0.975
"""Of each bound, so that both make an interval of 95 %."""
_NO_PART = {"credentials", "tune", "ray", "strategy", "strategies"}


class MeanReturn(NamedTuple):
    """A mean return of a session with its interval of 95 %, in percent of the initial capital."""

    mean: float
    low: float
    high: float
    sessions: int
    """Or episodes, where these are of several sessions."""


class HeldBackReturns(NamedTuple):
    """What the winner made of sessions that no trial was scored on."""

    winner: MeanReturn
    beside_given: Compared | None
    """With the given settings' policy in the champion's place; None where there is none."""


def ranked(trials: Mapping[int, Trial]) -> list[Trial]:
    """Sort the best first: by how far they came, then by their score; failures last."""

    def place(trial: Trial) -> tuple[bool, int, float]:
        newest = trial.newest
        return (
            not trial.failure,
            newest.judgement if newest else 0,
            newest.score if newest else -np.inf,
        )

    return sorted(trials.values(), key=place, reverse=True)


def winner_of(trials: Mapping[int, Trial], judgements: int) -> Trial | None:
    """Return the best of those that learned to their end; None where none has."""
    for trial in ranked(trials):
        if trial.newest is not None and trial.newest.judgement == judgements and not trial.failure:
            return trial
    return None


def mean_return(returns: Returns, seed: int) -> MeanReturn:
    """Of episodes' returns in percent."""
    low, high = bootstrap_interval(
        returns, lambda each: float(np.mean(each)), generator=np.random.default_rng(seed)
    )
    return MeanReturn(float(np.mean(returns)), low, high, len(returns))


def elsewhere(
    plan: SearchPlan, trials: Mapping[int, Trial], winner: int, kept: Mapping[int, Path]
) -> HeldBackReturns:
    """Trade the sessions that no trial was scored on, by what the last fold learnt.

    Beside the winner the given settings' policy trades them, where it is another one and learned
    to its end as well.

    Raises
    ------
    CheckpointError
        A trial's checkpoint is damaged.
    """
    judgements = plan.settings.tune.judgements

    def traded(number: int) -> Returns:
        newest = trials[number].newest
        assert newest is not None, "a trial with a checkpoint was judged"
        settings = settings_of_trial(plan.settings, newest.point)
        return plan.last(learnt(trial_policy(kept[number], len(plan.folds) - 1, settings)))

    ours = traded(winner)
    given = trials.get(GIVEN)
    beside: Compared | None = None
    is_measure = plan.settings.tune.method != "pbt" and winner != GIVEN and GIVEN in kept
    if is_measure and given and given.newest and given.newest.judgement == judgements:
        beside = compare("last", traded(GIVEN), ours, _CONFIDENCE)
    return HeldBackReturns(mean_return(100.0 * ours, plan.settings.seed), beside)


def settings_layer(settings: Settings, point: Point) -> dict[str, Any]:
    """Return the settings with a point's values, as a file of settings has them.

    What is a default, a secret, or an environment variable's is left out.
    """
    tree = settings.model_dump(mode="json", exclude_defaults=True, exclude=_NO_PART)
    tree.get("market", {}).pop("file", None)
    for key in _from_environment(settings):
        _drop(tree, key.split("."))
    for key, value in point.items():
        *sections, name = key.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[name] = value
    return tree


def _from_environment(settings: Settings) -> list[str]:
    from trading.config import environment_names

    names = environment_names()
    return [names[name] for name, value in settings.origin.environment.items() if value]


def _drop(tree: dict[str, Any], path: list[str]) -> None:
    name, *rest = path
    if rest and name in tree:
        _drop(tree[name], rest)
    if not rest or not tree.get(name):
        tree.pop(name, None)
