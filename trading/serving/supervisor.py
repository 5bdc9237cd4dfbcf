"""Drives the application in place of `trading up`: waits for the account, trades, starts it again.

The second cluster of an upgrade stands by like this until the first one lets go of the account.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

from trading.errors import AccountLeased, TradingError
from trading.execution.lease import AccountLease, wait_for_lease
from trading.logs import get_logger

log = get_logger(__name__)

STANDBY = "standby"
STARTING = "starting"
TRADING = "trading"
RESTARTING = "restarting"
STOPPING = "stopping"
STOPPED = "stopped"
FINISHED = "finished"
PHASES = (STANDBY, STARTING, TRADING, RESTARTING, STOPPING, STOPPED, FINISHED)

T = TypeVar("T")
Application: TypeAlias = Callable[[threading.Event, Callable[[], None]], None]
"""Trades until the event is set; calls the other argument when it has begun to trade."""


class SupervisorDied(TradingError):
    """The supervisor's thread has ended by a fault of its own."""


class Backoff(NamedTuple):
    """Seconds between a failure and the next start: doubled each time, up to a limit."""

    first_s: float = 5.0
    longest_s: float = 300.0
    steady_s: float = 600.0
    """After so long a life the next failure counts as the first."""

    def after(self, before_s: float, lived_s: float) -> float:
        """Return the pause that follows the last one, of `before_s`; 0 before the first."""
        if not before_s or lived_s >= self.steady_s:
            return self.first_s
        return min(2 * before_s, self.longest_s)


class SupervisorState(NamedTuple):
    """Where the application stands."""

    phase: str
    """One of `PHASES`."""
    reason: str
    """Why it does not trade; empty when it does."""
    leased: bool
    """Whether this application holds the account's lease."""
    failures: int
    """Times that it ended by a failure, and was started again."""


class Supervisor:
    """Runs the application on a thread of its own while it holds the account's lease.

    In `standby` it waits for the lease and writes nothing. Then it is `starting`, `trading`, and
    `restarting` for a while after each failure: the lease is kept, so that no other cluster comes
    between. It ends `stopped`, when it was told to or asked by `trading stop`, or `finished` with
    its recording; it does not begin again after that.

    Parameters
    ----------
    journal
        The account's journal.
    application
        What to run; any exception that it raises is a failure.
    pauses
        Between a failure and the next start.
    lease
        The account's, where it is held already; let go of in the end.
    """

    def __init__(
        self,
        journal: Path,
        application: Application,
        pauses: Backoff,
        lease: AccountLease | None = None,
    ) -> None:
        self._journal = journal
        self._lease = lease
        self._application = application
        self._pauses = pauses
        self._stop = threading.Event()
        self._state = SupervisorState(STANDBY, "standby", leased=False, failures=0)
        self._thread = threading.Thread(target=self._main, name="supervisor", daemon=True)
        self._thread.start()

    @property
    def state(self) -> SupervisorState:
        """Where the application stands now."""
        state = self._state
        if self._stop.is_set() and state.phase not in (STOPPED, FINISHED):
            return state._replace(phase=STOPPING, reason="it is stopping")
        return state

    def check(self) -> None:
        """Raise what only a new process can mend.

        Raises
        ------
        SupervisorDied
            Nobody would start the application again.
        """
        if not self._thread.is_alive() and self._state.phase not in (STOPPED, FINISHED):
            raise SupervisorDied("the supervisor's thread has ended: see its log")

    def close(self, timeout_s: float) -> None:
        """End the application in order; returns when the lease is free, or time is up."""
        self._stop.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.error("the application did not end in time", seconds=timeout_s)

    def _main(self) -> None:
        finished = False
        lease = self._lease or self._repeat(self._wait_for_lease)
        if lease is not None:
            with lease:
                lease.answer_requests(self._stop)
                finished = bool(self._repeat(self._trade))
        if finished:
            self._stand(FINISHED, "its recording has ended")
        else:
            self._stand(STOPPED, "it was told to stop")

    def _repeat(self, attempt: Callable[[], T | None]) -> T | None:
        """Return what `attempt` returns, tried again after failures; None when told to stop."""
        pause_s = 0.0
        while not self._stop.is_set():
            began_s = time.monotonic()
            try:
                return attempt()
            except Exception as error:
                pause_s = self._pauses.after(pause_s, time.monotonic() - began_s)
                self._fail(error, pause_s)
                self._stop.wait(pause_s)
        return None

    def _wait_for_lease(self) -> AccountLease | None:
        return wait_for_lease(self._journal, self._stop, None, self._stand_by)

    def _trade(self) -> bool:
        """Run the application once; whether it came to an end by itself."""
        self._stand(STARTING, "it is starting", leased=True)
        self._application(self._stop, self._begin_trading)
        return not self._stop.is_set()

    def _stand_by(self, leased: AccountLeased) -> None:
        log.info("standing by", holder=leased.holder)
        self._stand(STANDBY, f"standby: the account is traded by {leased.holder}")

    def _begin_trading(self) -> None:
        self._stand(TRADING, "", leased=True)

    def _fail(self, error: Exception, pause_s: float) -> None:
        log.error("the application failed", pause_s=pause_s, exc_info=error)
        failures = self._state.failures + 1
        reason = f"failed {failures} times, again in {pause_s:g} s at most: {one_line(error)}"
        leased = self._state.leased
        self._state = SupervisorState(RESTARTING, reason, leased, failures)

    def _stand(self, phase: str, reason: str, *, leased: bool = False) -> None:
        self._state = SupervisorState(phase, reason, leased, self._state.failures)


def one_line(error: Exception) -> str:
    """Return what an error says, for people; its type, where the text is not meant for them."""
    if isinstance(error, TradingError):
        return " ".join(str(error).split())
    return type(error).__name__
