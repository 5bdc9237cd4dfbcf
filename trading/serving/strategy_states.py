"""Where the driver of several strategies posts the state of each, and the HTTP service reads it."""

import time
from collections.abc import Mapping
from typing import NamedTuple

from trading.serving.supervisor import SupervisorState

FLEET_STATES = "fleet-states"
"""Name of the actor that holds what is posted."""
STALE_S = 30.0
"""What is older counts no more: its driver is gone, or hangs."""


class FleetState(NamedTuple):
    """Where the strategies of an application stand, as its driver knows it."""

    states: Mapping[str, SupervisorState]
    """Of every strategy, by its name."""
    ours: tuple[str, ...]
    """Those that this application trades, or stands by to trade."""
    waiting: str = ""
    """Why it has no strategy to trade; empty where it has one."""


class FleetStates:
    """Holds what the driver posted last, for the replicas; an actor that is started again."""

    def __init__(self) -> None:
        self._posted: FleetState | None = None
        self._at_s = 0.0

    def post(self, posted: FleetState) -> None:
        """Replace what is posted."""
        self._posted, self._at_s = posted, time.monotonic()

    def newest(self) -> FleetState | None:
        """Return what was posted last; None before the first, or when the driver is silent."""
        return self._posted if time.monotonic() - self._at_s < STALE_S else None
