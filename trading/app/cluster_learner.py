"""The learner that strategies share, as an actor of their Ray cluster that applications hold.

All strategies may run in one application, or each in one of its own: those of one cluster, with one
folder of state, find the same learner by its name. The first makes it, beside itself, each says
every few seconds that it still learns by it, and with the last it ends. It starts, and starts
again, by its files.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from trading.app import ray_threads
from trading.app.driver import CALL_TIMEOUT_S, SMALL_SHARE, actor_place, without_secrets
from trading.app.handles import LearnerHandle
from trading.app.holders import HELD_EVERY_S
from trading.app.shared_address import (
    SharedLearnerAddress,
    fleet_name,
    learner_terms,
    shared_settings,
    terms_digest,
    with_the_others,
)
from trading.app.waiting import Heartbeat, StoppedOr, StopRequested, arrived
from trading.config import Settings, absolute_paths
from trading.errors import ConfigError
from trading.logs import get_logger

log = get_logger(__name__)

_LOOK_S = 0.2
_JOIN_TIMEOUT_S = 30.0
"""For the learner's first word: an account that has a champion trades without it."""


class ClusterLearner:
    """An application's hold on the learner that strategies share; makes it where there is none.

    It is minded while it is held: one that hangs is started again, one whose node was lost is made
    anew beside this application. Trading goes on meanwhile.

    Parameters
    ----------
    common
        The settings that the strategies have in common.
    strategies
        The settings of each, by its name, also of those that run elsewhere.
    """

    def __init__(self, common: Settings, strategies: Mapping[str, Settings]) -> None:
        self._settings = without_secrets(shared_settings(common, strategies))
        self._terms = learner_terms(self._settings)
        self.address = SharedLearnerAddress(fleet_name(common), terms_digest(self._terms))
        self._options = {
            "name": self.address.name,
            "namespace": self.address.namespace,
            **learner_options(common, strategies),
        }
        self._hang_s = max(each.safety.hang_s for each in strategies.values())
        self._application = uuid.uuid4().hex
        self._heartbeat = Heartbeat()
        self._stop = threading.Event()
        self._heard = threading.Event()
        self._refusal: ConfigError | None = None
        self._fault = ""
        self._actor = self._made()
        self._thread = ray_threads.begin(self._keep, "learner's holder")

    def join(self, stopped: Callable[[], bool]) -> None:
        """Wait until the learner has heard of this application, half a minute at most.

        It is asked on after that: see `check`.

        Parameters
        ----------
        stopped
            Asked all the while: whether to wait no more.

        Raises
        ------
        ConfigError
            It goes by other settings than those of this application.
        StopRequested
            `stopped` said so.
        """
        deadline = time.monotonic() + _JOIN_TIMEOUT_S
        while not self._heard.wait(_LOOK_S):
            if stopped():
                raise StopRequested("the shared learner")
            if time.monotonic() >= deadline:
                log.warning(
                    "the shared learner does not answer; trading begins without it",
                    reason=self._fault or "it is starting",
                )
                return
        self.check()

    @property
    def refuses(self) -> bool:
        """Whether nothing can be learned by it: see `check`."""
        return self._refusal is not None

    def check(self) -> None:
        """Raise why nothing can be learned by it.

        Raises
        ------
        ConfigError
            It goes by other settings than those of this application.
        """
        if self._refusal is not None:
            raise self._refusal

    def close(self) -> None:
        """Learn by it no more; the last one ends it, with a last checkpoint."""
        import ray

        self._stop.set()
        self._thread.join(2 * CALL_TIMEOUT_S)
        try:
            if not ray.get(self._actor.let_go.remote(self._application), timeout=CALL_TIMEOUT_S):
                return
        except ray.exceptions.RayError as error:
            # Others may learn by it; it ends by itself where nobody does.
            _warn("the shared learner did not hear the end", error)
            return
        try:
            ray.get(self._actor.close.remote(), timeout=CALL_TIMEOUT_S)
        except ray.exceptions.RayError as error:
            _warn("the shared learner did not end in order", error)
        ray.kill(self._actor, no_restart=True)

    def _keep(self) -> None:
        """Say again and again that this application learns by it, until that ends or is refused."""
        while not self._stop.is_set() and self._refusal is None:
            try:
                fault = self._hold()
            except StopRequested:
                return
            except Exception as error:
                fault = " ".join(str(error).split())[:500]
            if fault and fault != self._fault:
                log.error("the shared learner is not held", reason=fault)
            self._fault = fault
            self._stop.wait(HELD_EVERY_S if fault or self._heard.is_set() else _LOOK_S)

    def _hold(self) -> str:
        """Say so once; have one that hangs started again, and make it anew where it is gone.

        Why it was not heard, where that may last; else empty.
        """
        import ray

        if self._heartbeat.is_lost(self._actor, time.monotonic(), self._hang_s):
            log.error("the shared learner hangs and is started again")
            ray.kill(self._actor, no_restart=False)
            return ""
        asked = self._actor.hold.remote(self._application, self._terms)
        try:
            if not arrived(asked, "the shared learner", self._stop.is_set, CALL_TIMEOUT_S):
                return (
                    f"it gives no answer within {CALL_TIMEOUT_S:g} s: it has no room on the "
                    "cluster yet, is starting, or is busy"
                )
            if ray.get(asked):
                self._heard.set()
        except ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, ConfigError) or self._heard.is_set():
                # Who trades already does not end for that.
                raise error.cause from None
            self._refusal = error.cause
            self._heard.set()
        except (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnschedulableError) as error:
            self._actor = self._made()
            return f"it was lost and is made anew: {' '.join(str(error).split())[:500]}"
        except ray.exceptions.ActorUnavailableError:
            pass  # Ray starts it again.
        return ""

    def _made(self) -> LearnerHandle:
        """Return the cluster's actor of that name, made beside this driver where there is none."""
        import ray

        from trading.app.shared_learner import SharedLearner

        actor: Any = ray.remote(SharedLearner)
        handle: LearnerHandle = actor.options(**self._options).remote(self._settings)
        return handle


def learner_options(common: Settings, strategies: Mapping[str, Settings]) -> dict[str, Any]:
    """Options of the actor that strategies learn by."""
    return {
        # Whoever made it may end before others that learn by it.
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        # Each strategy may wait for what it sent while others ask, and say that they hold it.
        "max_concurrency": 3 * len(strategies) + 4,
        **actor_place(common, SMALL_SHARE),
    }


def _warn(what: str, error: Exception) -> None:
    log.warning(what, reason=str(error))


@contextmanager
def learning_with_the_others(
    settings: Settings, stop: threading.Event
) -> Iterator[tuple[SharedLearnerAddress | None, threading.Event]]:
    """Yield where one strategy finds the learner that it shares, with those elsewhere.

    None where it has its own. With it comes what ends the strategy: `stop`, or the learner's
    refusal, which may come while it trades.

    Raises
    ------
    ConfigError
        Its learner goes by other settings, or it is traded apart from the others.
    """
    if settings.learner != "shared":
        yield None, stop
        return
    common, strategies = with_the_others(settings)
    learner = ClusterLearner(
        absolute_paths(common), {name: absolute_paths(each) for name, each in strategies.items()}
    )
    try:
        with suppress(StopRequested):
            # What would learn by it ends at once then.
            learner.join(stop.is_set)
        yield learner.address, StoppedOr(stop, lambda: learner.refuses)
        learner.check()
    finally:
        learner.close()
