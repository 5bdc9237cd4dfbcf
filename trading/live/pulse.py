"""The trading thread's sign of life, for those who watch it from other threads and processes."""

import time
from collections.abc import Callable


class Pulse:
    """Beats as often as the trading loop goes round, also while it waits for frames or answers.

    Parameters
    ----------
    clock
        Seconds, rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat_s: float | None = None
        """None while there is no loop that could hang."""

    def beat(self) -> None:
        """Note that the loop goes round."""
        self._beat_s = self._clock()

    def go_on(self) -> None:
        """Note that the loop waits for something and does not hang, where there is a loop."""
        if self._beat_s is not None:
            self.beat()

    def rest(self) -> None:
        """Note that the loop has ended, and is missed no more."""
        self._beat_s = None

    @property
    def silent_s(self) -> float:
        """Seconds since the last beat; 0 before the first and after the end."""
        beat_s = self._beat_s
        return 0.0 if beat_s is None else self._clock() - beat_s
