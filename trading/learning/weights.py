"""A named Ray actor that hands the newest weights from the learner to whoever acts.

Weights go in and out by value. A reference owned by the trainer would die with it.
"""

from collections import OrderedDict
from typing import Any

import numpy as np
import ray

from trading.errors import LearningError
from trading.learning.policy import Weights

ACTOR_NAME = "weights"


class WeightRegistry:
    """Holds the last published weights and remembers recent versions.

    It never refuses an older version: a trainer that was restored from a checkpoint goes back.

    Parameters:
        remember: Versions listed by `versions`.
    """

    def __init__(self, remember: int = 100) -> None:
        self._remember = remember
        self._latest: tuple[int, Weights] | None = None
        self._versions: OrderedDict[int, None] = OrderedDict()

    def publish(self, version: int, weights: Weights) -> None:
        """Makes `weights` the latest.

        Raises:
            LearningError: A weight is not finite; the latest stay what they were.
        """
        for name, array in weights.items():
            if not np.isfinite(array).all():
                raise LearningError(f"version {version}: weight {name} holds NaN or infinity")
        self._latest = (version, weights)
        self._versions.pop(version, None)
        self._versions[version] = None
        while len(self._versions) > self._remember:
            self._versions.popitem(last=False)

    def latest(self) -> tuple[int, Weights] | None:
        """The last published version and its weights; None before the first."""
        return self._latest

    def version(self) -> int | None:
        """The last published version alone: cheap to poll."""
        return self._latest[0] if self._latest is not None else None

    def versions(self) -> list[int]:
        """Recently published versions, the latest last."""
        return list(self._versions)


def get_or_create(namespace: str) -> Any:
    """The registry's actor handle in `namespace`; made, detached, when it does not exist.

    It outlives its creator and reserves no CPU. Should its node die it restarts empty, and is
    filled by the next update.
    """
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(WeightRegistry)
    return actor.options(
        name=ACTOR_NAME, namespace=namespace, lifetime="detached", get_if_exists=True
    ).remote()
