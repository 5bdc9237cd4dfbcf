"""What time it is in live trading: the machine's clock, held against the vendor's.

Between two comparisons a clock that nobody sets keeps the time, so a machine whose clock is set
forward or back, or that slept, closes no bars in bulk and none twice.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from trading.errors import TradingError
from trading.logs import get_logger

log = get_logger(__name__)

_SECOND_NS = 1_000_000_000
_HALF_SECOND_NS = _SECOND_NS // 2
_TRIES = 3
WARNS_NS = _SECOND_NS
"""A machine's clock that is off by more is told of, and no longer believed."""
OFF_NS = 5 * _SECOND_NS
"""Off by more, nothing is opened."""
CHECK_AGAIN_NS = 600 * _SECOND_NS
RETRY_NS = 15 * _SECOND_NS
"""After a comparison that failed: right after a reconnection the network may not be back."""


def steady_ns() -> int:
    """Nanoseconds that pass at one pace whatever sets the clock, while the machine sleeps too."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class _Anchor(NamedTuple):
    """An instant on the steady clock and on another one."""

    steady_ns: int
    ns: int


class LiveClock:
    """The time that live trading goes by.

    Parameters
    ----------
    machine_ns
        The machine's clock, UTC nanoseconds; anybody may set it.
    vendor_ns
        Asks the vendor, whose answers are cut to whole seconds; None where there is nobody to ask.
    steady_ns
        Keeps the pace between comparisons.

    Attributes
    ----------
    steps
        How often the machine's clock was set by more than a second.
    failures
        Comparisons that failed, because the vendor did not answer.
    """

    def __init__(
        self,
        machine_ns: Callable[[], int],
        vendor_ns: Callable[[], int] | None,
        steady_ns: Callable[[], int] = steady_ns,
    ) -> None:
        self.steps = 0
        self.failures = 0
        self._machine_ns, self._vendor_ns, self._steady_ns = machine_ns, vendor_ns, steady_ns
        self._anchor = _Anchor(steady_ns(), machine_ns())
        self._vendor: _Anchor | None = None
        self._drift_ns = 0
        self._checking = threading.Lock()
        self._check_again_ns = self._anchor.steady_ns + CHECK_AGAIN_NS
        self._reconnects = 0

    def now_ns(self) -> int:
        """Return what time it is; looks at the machine's clock only to see whether it was set."""
        steady_ns = self._steady_ns()
        now_ns = _at(self._anchor, steady_ns)
        drift_ns = self._machine_ns() - now_ns
        if abs(drift_ns - self._drift_ns) > WARNS_NS:
            self.steps += 1
            log.warning("the machine's clock was set", by_s=(drift_ns - self._drift_ns) / 1e9)
            self._drift_ns = drift_ns
            self.check_soon()
        self._drift_ns = drift_ns
        if steady_ns > self._check_again_ns:
            self.check_soon()
        return now_ns

    @property
    def time_ns(self) -> int:
        """What time it is, for other threads than the one that trades."""
        return _at(self._anchor, self._steady_ns())

    @property
    def offset_s(self) -> float:
        """Seconds that the machine's clock is ahead of the vendor's; of what it was, unasked."""
        reference = self._vendor or self._anchor
        return (self._machine_ns() - _at(reference, self._steady_ns())) / 1e9

    @property
    def is_off(self) -> bool:
        """Whether the machine's clock is so far off that nothing may be opened."""
        return abs(self.offset_s) * 1e9 > OFF_NS

    def follow(self, reconnects: int) -> None:
        """Compare again when connections were opened anew since the last call."""
        if reconnects != self._reconnects:
            self._reconnects = reconnects
            self.check_soon()

    def check_soon(self) -> None:
        """`check` on a thread of its own: the vendor may take its time to answer."""
        self._check_again_ns = self._steady_ns() + CHECK_AGAIN_NS
        threading.Thread(target=self.check, name="clock-check", daemon=True).start()

    def check(self) -> None:
        """Compare with the vendor's clock; without an answer the steady clock keeps the time.

        The answer with the shortest way there and back counts. The machine's clock is believed
        where both agree to a second, which is all that the vendor's tells, the vendor's otherwise.
        """
        if self._vendor_ns is None or not self._checking.acquire(blocking=False):
            return
        try:
            asked = [self._ask(self._vendor_ns)]
            with contextlib.suppress(TradingError):
                while len(asked) < _TRIES and asked[-1][0] > _HALF_SECOND_NS:
                    asked.append(self._ask(self._vendor_ns))
            took_ns, vendor, machine = min(asked)
            self._compare(vendor, machine, max(took_ns - _HALF_SECOND_NS, 0) // 2)
            self._check_again_ns = self._steady_ns() + CHECK_AGAIN_NS
        except TradingError as error:
            self.failures += 1
            self._check_again_ns = self._steady_ns() + RETRY_NS
            log.warning("the vendor's clock is not known", reason=str(error))
        finally:
            self._checking.release()

    def _ask(self, vendor_ns: Callable[[], int]) -> tuple[int, _Anchor, _Anchor]:
        """Return the time that the answer took, and both clocks in the middle of it."""
        sent_ns = self._steady_ns()
        told_ns = vendor_ns() + _HALF_SECOND_NS
        machine_ns, got_ns = self._machine_ns(), self._steady_ns()
        middle_ns = (sent_ns + got_ns) // 2
        return got_ns - sent_ns, _Anchor(middle_ns, told_ns), _Anchor(got_ns, machine_ns)

    def _compare(self, vendor: _Anchor, machine: _Anchor, unsure_ns: int) -> None:
        """Believe one of both clocks; what a slow answer leaves unsure is no difference."""
        apart_ns = machine.ns - _at(vendor, machine.steady_ns)
        unsure_ns = min(max(apart_ns, -unsure_ns), unsure_ns)
        vendor = vendor._replace(ns=vendor.ns + unsure_ns)
        offset_ns = apart_ns - unsure_ns
        agrees = abs(offset_ns) <= WARNS_NS
        if not agrees:
            log.warning(
                "the machine's clock is off: set it by NTP",
                ahead_of_the_vendor_s=offset_ns / 1e9,
                opens_nothing=abs(offset_ns) > OFF_NS,
            )
        self._vendor = vendor
        self._anchor = machine if agrees else vendor
        self._drift_ns = self._machine_ns() - _at(self._anchor, self._steady_ns())


def _at(anchor: _Anchor, steady_ns: int) -> int:
    return anchor.ns + steady_ns - anchor.steady_ns
