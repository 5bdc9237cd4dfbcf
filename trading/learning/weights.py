"""A Ray actor that hands the champion from the driver to whoever trades.

Weights go in and out by value. It belongs to the driver that made it: no other finds it, and it
ends with it. So two accounts on one cluster never meet in one.
"""

import secrets
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from trading.errors import LearningError
from trading.learning.champions import Champion, Standing


class Reign(NamedTuple):
    """Who trades, who did before, and what made it so."""

    standing: Standing
    champion: Champion
    before: Champion | None
    """What to go back to; None where there is none."""


class WeightRegistry:
    """Holds the last published reign. A champion may follow one of a higher number.

    Parameters:
        refill: What it holds before the first is published, as after its process was killed.
    """

    def __init__(self, refill: Callable[[], Reign | None] | None = None) -> None:
        self._reign = refill() if refill is not None else None

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

    def ping(self) -> None:
        """Answers while the registry is not stuck."""


class Registered(NamedTuple):
    """Where a registry is found by others than its driver, such as an actor that Ray restarts.

    Its handle among the arguments of such an actor would have Ray warn of their loss.
    """

    name: str
    namespace: str

    def reign(self) -> Reign | None:
        """The present one; None before the first, or while it is started again."""
        import ray

        try:
            registry = ray.get_actor(self.name, namespace=self.namespace)
        except ValueError:
            return None
        try:
            reign: Reign | None = ray.get(registry.reign.remote())
        except ray.exceptions.RayActorError:
            return None
        return reign


def new_name() -> str:
    """A name for a registry that no other has."""
    return f"weights-{secrets.token_hex(4)}"


def get_or_create(
    namespace: str,
    placement: Mapping[str, Any] | None = None,
    refill: Callable[[], Reign | None] | None = None,
    name: str | None = None,
) -> Any:
    """A registry of this driver's own.

    It reserves no CPU. Where its process dies it is started again and filled by `refill`, or else
    when something is published.

    Parameters:
        namespace: Of the account; tells its process apart in Ray's lists.
        placement: Options of an actor that say on which node.
        refill: See `WeightRegistry`.
        name: By which `Registered` finds it; None: one that nobody else has.
    """
    import ray  # here, so that settings become parts before Ray is imported: see up.ray_runtime

    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(WeightRegistry)
    return actor.options(name=name or new_name(), namespace=namespace, **(placement or {})).remote(
        refill
    )
