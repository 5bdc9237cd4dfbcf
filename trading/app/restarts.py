"""How often a part may die: as often as it works in between, else a few times."""

import time
from collections.abc import Callable

from trading.live.faults import MOST_FAULTS, WINDOW_S


class Restarts:
    """Counts the deaths of a part that did nothing since the one before.

    Parameters
    ----------
    now_s
        The clock.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._idle_deaths: list[float] = []
        self._work_done = 0

    def is_spent(self, work_done: int) -> bool:
        """Note a death; whether another start is of no use.

        Parameters
        ----------
        work_done
            A count of what the part has brought about, which never falls.
        """
        now_s = self._now_s()
        if work_done > self._work_done:
            self._idle_deaths = []
        self._work_done = work_done
        self._idle_deaths = [each for each in self._idle_deaths if now_s - each < WINDOW_S]
        self._idle_deaths.append(now_s)
        return len(self._idle_deaths) > MOST_FAULTS
