"""Experience from training markets beside live fragments, so that nothing is forgotten."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from trading.learning.rollout import Rollout
from trading.learning.sampling import RolloutSource, fetched

_FRESH_DEALS = 8


class ReplayMix:
    """Samples rollouts when they are needed, and deals out whole columns of them.

    A live fragment is small beside what the runners sample at once, so one rollout lasts for
    several updates; after `_FRESH_DEALS` of them it counts as too old.

    Parameters
    ----------
    sample
        Samples one rollout from every runner.
    share
        Of the decisions of an update, 0 to below 1.
    """

    def __init__(self, sample: Callable[[], list[RolloutSource]], share: float) -> None:
        self._sample = sample
        self._share = share
        self._rollouts: list[Rollout] = []
        self._dealt = 0

    def beside(self, decisions: int) -> list[Rollout]:
        """Return what to learn beside so many live decisions.

        At least a column where there is a share.

        Empty where no runner delivers.
        """
        wanted = decisions * self._share / (1.0 - self._share)
        if not wanted:
            return []
        if self._dealt >= _FRESH_DEALS or not self._rollouts:
            self.renew()
            self._rollouts, _ = fetched(self._sample())
        self._dealt += 1
        dealt: list[Rollout] = []
        while self._rollouts:
            rollout = self._rollouts.pop(0)
            steps, columns = rollout.shape
            count = min(columns, max(1, round(wanted / steps)))
            dealt.append(columns_of(rollout, slice(0, count)))
            if count < columns:
                self._rollouts.insert(0, columns_of(rollout, slice(count, columns)))
            wanted -= count * steps
            if wanted < steps / 2:
                break
        return dealt

    def renew(self) -> None:
        """Forget what was sampled by earlier weights."""
        self._rollouts, self._dealt = [], 0


def columns_of(rollout: Rollout, which: slice) -> Rollout:
    """Return some of a rollout's sequences; views of its arrays."""
    chosen: dict[str, Any] = {}
    for field in fields(rollout):
        value = getattr(rollout, field.name)
        if isinstance(value, dict):
            value = {key: array[:, which] for key, array in value.items()}
        elif isinstance(value, np.ndarray):
            value = value[which] if value.ndim == 1 else value[:, which]
        chosen[field.name] = value
    return Rollout(**chosen)
