"""The dead man's switch: positions are not left open while nobody decides, sees or drives.

It watches four signs of life, and only while positions are open and their market is too: decisions,
frames of the feed, the driver's questions, and the clock. When one of them is missing for longer
than the patience, the account reduces or flattens (on real quotes only, as always), and goes on by
itself when all are back.
"""

import math
import time
from collections.abc import Callable

_SECOND_NS = 1_000_000_000


class DeadMan:
    """The signs of life of one trading loop.

    Parameters
    ----------
    patience_s
        Seconds that a sign may be missing; inf never minds.
    clock
        Seconds, rising.
    """

    def __init__(self, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience_s = patience_s
        self._clock = clock
        self._framed_s = clock()
        self._decided_s = clock()
        self._driven_s: float | None = None
        """None before the first question: then nobody drives, and nobody is missed."""
        self._off_since_s: float | None = None
        self._off_by_s = 0.0

    def framed(self) -> None:
        """Note that the feed has brought something."""
        self._framed_s = self._clock()

    def decided(self) -> None:
        """Note that a bar was closed and decided on."""
        self._decided_s = self._clock()

    def driven(self) -> None:
        """Note that the driver has asked; safe on any thread."""
        self._driven_s = self._clock()

    def timed(self, off_by_s: float) -> None:
        """Note how many seconds the clock is off by; 0 where nothing is wrong with it."""
        if off_by_s == 0.0:
            self._off_since_s = None
        elif self._off_since_s is None:
            self._off_since_s = self._clock()
        self._off_by_s = off_by_s

    def missing(
        self, market_ns: int | None, decided_ns: int, opened_ns: int, seen_ns: int
    ) -> list[str]:
        """Return what was not seen for longer than the patience, in words.

        Parameters
        ----------
        market_ns
            Exchange time by the wall clock; None where the market has a clock of its own, which
            stands still with its feed: then seconds of this machine count.
        decided_ns, seen_ns
            Exchange time of the last decision, and of the newest event.
        opened_ns
            When the session began: what is older counts from there.
        """
        if not math.isfinite(self.patience_s):
            return []
        now_s, found = self._clock(), []
        if market_ns is None:
            since_decision_s, since_event_s = now_s - self._decided_s, now_s - self._framed_s
        else:
            since_decision_s = (market_ns - max(decided_ns, opened_ns)) / _SECOND_NS
            # By the feed's own times: a connection that only repeats old news is dead too.
            since_event_s = (market_ns - max(seen_ns, opened_ns)) / _SECOND_NS
        if since_decision_s > self.patience_s:
            found.append(f"no decision for {since_decision_s:.0f} s")
        if since_event_s > self.patience_s:
            found.append(f"nothing from the feed for {since_event_s:.0f} s")
        if self._driven_s is not None and now_s - self._driven_s > self.patience_s:
            found.append(f"no word of the driver for {now_s - self._driven_s:.0f} s")
        if self._off_since_s is not None and now_s - self._off_since_s > self.patience_s:
            found.append(
                f"this machine's clock is {self._off_by_s:+.0f} s off, for "
                f"{now_s - self._off_since_s:.0f} s"
            )
        return found
