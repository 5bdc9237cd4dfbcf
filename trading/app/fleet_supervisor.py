"""Several strategies without a command above them: what a RayService's application runs.

Each waits for its own account's lease, so that of two clusters one may still trade some of them
while the other has the rest.
"""

import threading
from collections.abc import Mapping
from contextlib import ExitStack

from trading.app.cluster_feed import cluster_feed
from trading.app.fleet import Fleet, direct_readers, ray_address
from trading.app.fleet_display import FleetDisplay
from trading.app.shared_address import fleet_name
from trading.app.waiting import StopRequested
from trading.config import Settings
from trading.live import assembly
from trading.logs import get_logger
from trading.serving.supervisor import SupervisorDied

log = get_logger(__name__)


class FleetSupervisor:
    """Runs strategies on a thread of its own until it is closed, or all have ended.

    Parameters
    ----------
    common
        The settings that the strategies share.
    strategies
        The settings of each, by its name.
    display
        Where they tell what they do.

    Raises
    ------
    PluginError
        A strategy's plug-in is missing or wrong.
    ConfigError
        A strategy that learns has too few sessions for its gate.
    """

    def __init__(
        self, common: Settings, strategies: Mapping[str, Settings], display: FleetDisplay
    ) -> None:
        for each in strategies.values():
            assembly.check_before_trading(each)
        self._common, self._strategies = common, strategies
        self._stop = threading.Event()
        self._fleet = Fleet(common, strategies, None, display, self._stop, ray_address())
        self._fault = ""
        self._thread = threading.Thread(target=self._main, name="fleet", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what only a new process can mend.

        Raises
        ------
        SupervisorDied
            Nobody would start a strategy again.
        """
        if self._fault:
            raise SupervisorDied(f"the strategies' supervisor has ended: {self._fault}")
        self._fleet.check()

    def close(self, timeout_s: float) -> None:
        """End the strategies in order; returns when all leases are free, or time is up."""
        self._stop.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.error("the strategies did not end in time", seconds=timeout_s)

    def _main(self) -> None:
        try:
            with ExitStack() as stack:
                if direct := direct_readers(self._strategies):
                    feed = cluster_feed(self._strategies[direct[0]], self._stop.is_set)
                    self._fleet.read(stack.enter_context(feed))
                stack.callback(self._fleet.close)
                self._fleet.begin(fleet_name(self._common))
                self._fleet.run()
        except StopRequested:
            log.info("told to stop while the strategies started")
        except Exception as error:
            log.exception("the strategies' supervisor failed")
            self._fault = " ".join(str(error).split()) or type(error).__name__
