"""A Ray actor that hands the champion from the driver to whoever trades.

Weights go in and out by value. It belongs to the driver that made it: no other finds it, and it
ends with it. So two accounts on one cluster never meet in one.
"""

import secrets
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from trading.errors import LearningError
from trading.learning.champion.store import Champion, ChampionPointer, not_finite


class ChampionState(NamedTuple):
    """Who trades, who did before, and what made it so."""

    pointer: ChampionPointer
    champion: Champion
    before: Champion | None
    """What to go back to; None where there is none."""


class WeightRegistry:
    """Holds the champion state that was published last.

    Its champion may have a lower number than the one before it: after a rollback.

    Parameters
    ----------
    refill
        Reads what it holds before the first is published, as after its process was killed.
    """

    def __init__(self, refill: Callable[[], ChampionState | None] | None = None) -> None:
        self._state = refill() if refill is not None else None

    def publish(self, champion_state: ChampionState) -> None:
        """Replace the present champion state.

        Raises
        ------
        LearningError
            A weight is not finite; the present state stays.
        """
        champion = champion_state.champion
        if wrong := not_finite(champion.weights):
            raise LearningError(f"champion {champion.number}: {wrong}")
        self._state = champion_state

    def state(self) -> ChampionState | None:
        """Return the present champion state; None before the first."""
        return self._state

    def ping(self) -> None:
        """Answer, while the registry is not stuck."""


class RegistryAddress(NamedTuple):
    """Where a registry is found by others than its driver, such as an actor that Ray restarts.

    Its handle among the arguments of such an actor would have Ray warn of their loss.
    """

    name: str
    namespace: str

    def state(self) -> ChampionState | None:
        """Ask for the present champion state; None before the first, or while it restarts."""
        import ray

        try:
            registry = ray.get_actor(self.name, namespace=self.namespace)
        except ValueError:
            return None
        try:
            champion_state: ChampionState | None = ray.get(registry.state.remote())
        except ray.exceptions.RayActorError:
            return None
        return champion_state


def registry_name() -> str:
    """Make a name that no other registry has."""
    return f"weights-{secrets.token_hex(4)}"


def create_registry(
    namespace: str,
    placement: Mapping[str, Any] | None = None,
    refill: Callable[[], ChampionState | None] | None = None,
    name: str | None = None,
) -> Any:
    """Start a registry of this driver's own.

    It reserves no CPU. Where its process dies it is started again and filled by `refill`, or else
    when something is published.

    Parameters
    ----------
    namespace
        Of the account; tells its process apart in Ray's lists.
    placement
        Options of an actor that say on which node.
    refill
        See `WeightRegistry`.
    name
        By which `RegistryAddress` finds it; None: one that nobody else has.
    """
    import ray  # here, so that settings become parts before Ray is imported: see up.ray_runtime

    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(WeightRegistry)
    return actor.options(
        name=name or registry_name(), namespace=namespace, **(placement or {})
    ).remote(refill)
