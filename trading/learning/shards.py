"""How the rollouts of one update are shared out among several learners, and what they agree on.

Each rollout goes to one learner. Gradients are sums over steps, so those of the shares add up to
those of the whole; what an update takes from all of its experience besides (mean and spread of the
advantages, how many minibatches there are) the learners add up before it begins.
"""

from collections.abc import Callable, Sequence
from math import gcd, sqrt
from typing import NamedTuple, TypeVar

import torch
import torch.distributed

from trading.errors import LearningError
from trading.learning.rollout import FloatArray

T = TypeVar("T")


class RefusedElsewhere(LearningError):
    """Another learner cannot do the update, and tells why itself."""


class Replica(NamedTuple):
    """Place of this process among the learners that update the same weights together.

    All of them call the same methods in the same order.
    """

    rank: int = 0
    size: int = 1

    def share(self, sources: Sequence[T]) -> Sequence[T]:
        """Return those of all sources that are this learner's; each is exactly one learner's."""
        return sources[self.rank :: self.size]

    def total(self, device: torch.device, *values: float) -> list[float]:
        """Add each value up over all learners."""
        if self.size == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(told)
        added: list[float] = told.tolist()
        return added

    def agreed(self, device: torch.device, work: Callable[[], T]) -> T:
        """Return what `work` does, once it has succeeded on every learner.

        Raises
        ------
        RefusedElsewhere
            It failed on another one.
        Exception
            What it failed of here.
        """
        if self.size == 1:
            return work()
        try:
            done, fault = work(), None
        except Exception as error:  # the others wait: they are told first
            fault = error
        (faults,) = self.total(device, float(fault is not None))
        if fault is not None:
            raise fault
        if faults:
            raise RefusedElsewhere("another learner refused its share of the rollouts")
        return done


class Moments(NamedTuple):
    """Mean and standard deviation of values that lie with several learners."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: FloatArray, replica: Replica, device: torch.device) -> "Moments":
        """Take them over all learners' values; there is at least one."""
        if replica.size == 1:
            return cls(values.mean(), values.std())
        wide = values.astype("float64")
        count, added = replica.total(device, float(wide.size), float(wide.sum()))
        mean = added / count
        (squares,) = replica.total(device, float(((wide - mean) ** 2).sum()))
        return cls(mean, sqrt(squares / count))


def pieces(runners: int, learners: int) -> int:
    """Say into how many pieces every runner cuts its rollout, so that learners get as many."""
    return max(1, learners) // gcd(max(1, runners), max(1, learners))
