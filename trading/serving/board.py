"""The board: where the driver of several strategies posts where each of them stands."""

import time
from collections.abc import Mapping
from typing import NamedTuple

from trading.serving.supervisor import Standing

BOARD = "board"
"""Name of the actor that holds what is posted."""
STALE_S = 30.0
"""What is older counts no more: its driver is gone, or hangs."""


class Posted(NamedTuple):
    """Where the strategies of an application stand, as its driver knows it."""

    standings: Mapping[str, Standing]
    """Of every strategy, by its name."""
    ours: tuple[str, ...]
    """Those that this application trades, or stands by to trade."""
    waiting: str = ""
    """Why it has no strategy to trade; empty where it has one."""


class Board:
    """Holds what the driver posted last, for the replicas; an actor that is started again."""

    def __init__(self) -> None:
        self._posted: Posted | None = None
        self._at_s = 0.0

    def post(self, posted: Posted) -> None:
        """Replace what is posted."""
        self._posted, self._at_s = posted, time.monotonic()

    def newest(self) -> Posted | None:
        """What was posted last; None before the first, or when the driver is silent."""
        return self._posted if time.monotonic() - self._at_s < STALE_S else None
