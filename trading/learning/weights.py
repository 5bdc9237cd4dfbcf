"""A named Ray actor that hands the champion from the driver to whoever trades.

Weights go in and out by value. A reference owned by the driver would die with it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from trading.errors import LearningError
from trading.learning.champions import Champion, Standing

ACTOR_NAME = "weights"


class Reign(NamedTuple):
    """Who trades, who did before, and what made it so."""

    standing: Standing
    champion: Champion
    before: Champion | None
    """What to go back to; None where there is none."""


class WeightRegistry:
    """Holds the last published reign. A champion may follow one of a higher number."""

    def __init__(self) -> None:
        self._reign: Reign | None = None

    def publish(self, reign: Reign) -> None:
        """Makes `reign` the present one.

        Raises:
            LearningError: A weight is not finite; the present reign stays.
        """
        for name, array in reign.champion.weights.items():
            if not np.isfinite(array).all():
                raise LearningError(
                    f"champion {reign.champion.number}: weight {name} holds NaN or infinity"
                )
        self._reign = reign

    def reign(self) -> Reign | None:
        """The present one; None before the first."""
        return self._reign


def get_or_create(namespace: str, placement: Mapping[str, Any] | None = None) -> Any:
    """The registry's actor handle in `namespace`; made, detached, when it does not exist.

    It outlives its creator and reserves no CPU. Should its node die it restarts empty, and is
    filled again after the next judgement: `placement`, options of an actor, says on which node.
    """
    import ray  # here, so that settings become parts before Ray is imported: see up.ray_runtime

    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(WeightRegistry)
    return actor.options(
        name=ACTOR_NAME,
        namespace=namespace,
        lifetime="detached",
        get_if_exists=True,
        **(placement or {}),
    ).remote()
