"""A Ray actor that holds the weights of champions by number, for whoever trades.

It decides nothing, and knows nothing that the champions' folder does not: what it does not hold it
reads there. Weights come out by value. It belongs to the driver that made it: no other finds it,
and it ends with it. So two accounts on one cluster never meet in one.
"""

import secrets
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from trading.errors import CheckpointError
from trading.learning.champion.store import Champion

KEPT = 4
"""Champions held: the present one, the one before it, and what comes next."""
_TIMEOUT_S = 10.0


class WeightRegistry:
    """Holds the champions that were asked for last.

    Parameters
    ----------
    read
        The weights of a champion; raises CheckpointError where there is none.
    """

    def __init__(self, read: Callable[[int], Champion]) -> None:
        self._read = read
        self._held: dict[int, Champion] = {}

    def champion(self, number: int) -> Champion | None:
        """Return a champion by its number.

        Raises
        ------
        CheckpointError
            It is not held, and cannot be read.
        """
        champion = self._held.pop(number, None) or self._read(number)
        self._held[number] = champion
        for oldest in list(self._held)[:-KEPT]:
            del self._held[oldest]
        return champion

    def ping(self) -> None:
        """Answer, while the registry is not stuck."""


class RegistryAddress(NamedTuple):
    """Where a registry is found by others than its driver, such as an actor that Ray restarts.

    Its handle among the arguments of such an actor would have Ray warn of their loss.
    """

    name: str
    namespace: str

    def champion(self, number: int) -> Champion | None:
        """Ask for a champion by its number; None while the registry restarts, or hangs.

        Raises
        ------
        CheckpointError
            The registry does not hold it, and cannot read it.
        """
        import ray

        try:
            registry = ray.get_actor(self.name, namespace=self.namespace)
        except ValueError:
            return None
        try:
            asked = registry.champion.remote(number)
            champion: Champion | None = ray.get(asked, timeout=_TIMEOUT_S)
        except ray.exceptions.RayTaskError as error:
            raise CheckpointError(str(error.cause)) from error
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            return None
        return champion


def registry_name() -> str:
    """Make a name that no other registry has."""
    return f"weights-{secrets.token_hex(4)}"


def create_registry(
    namespace: str,
    read: Callable[[int], Champion],
    placement: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Any:
    """Start a registry of this driver's own.

    It reserves no CPU. Where its process dies it is started again, empty.

    Parameters
    ----------
    namespace
        Of the account; tells its process apart in Ray's lists.
    read
        See `WeightRegistry`.
    placement
        Options of an actor that say on which node.
    name
        By which `RegistryAddress` finds it; None: one that nobody else has.
    """
    import ray  # here, so that settings become parts before Ray is imported: see up.ray_runtime

    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(WeightRegistry)
    return actor.options(
        name=name or registry_name(), namespace=namespace, **(placement or {})
    ).remote(read)
