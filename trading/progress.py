"""Progress of what takes longer than people like to wait: rate and time left on a terminal.

Where nobody watches a terminal nothing is written but a line each half minute.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

ProgressCallback: TypeAlias = Callable[[int, int], None]
"""Told how much is done, and how much there is: bytes, contracts."""

_QUIET_S = 30.0


class Pace:
    """How fast something goes, and when it ends, by what was done since it began.

    Parameters
    ----------
    total
        How many there are in all.
    done
        How many were done when it began.
    now_s
        The clock.
    """

    def __init__(
        self, total: int, done: int = 0, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._first, self._now_s = total, done, now_s
        self._began_s = now_s()

    def told(self, done: int) -> str:
        """Rate and time left, as in `1,024/s, 2 min left`; empty before anything was done."""
        passed_s = self._now_s() - self._began_s
        if done <= self._first or passed_s <= 0.0:
            return ""
        rate = (done - self._first) / passed_s
        left_s = max(0, self._total - done) / rate
        left = f"{left_s:.0f} s" if left_s < 100.0 else f"{left_s / 60.0:.0f} min"
        return f"{rate:,.0f}/s, {left} left"


@contextmanager
def counted(text: str, unit: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a bar on standard error, moved by calls with how many are done.

    Parameters
    ----------
    total
        How many there are; None: not known.
    """
    if not sys.stderr.isatty():
        yield _quiet_lines(text, unit, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            rate = task.finished_speed or task.speed
            return Text("" if rate is None else f"{rate:,.0f} {unit}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda done: bar.update(task, completed=done)


def _quiet_lines(text: str, unit: str, total: int | None) -> Callable[[int], None]:
    told_s = time.monotonic()
    pace = Pace(total or 0)

    def progress(done: int) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s < _QUIET_S:
            return
        told_s = now_s
        of = f" of {total:,}" if total else ""
        print(f"{text}: {done:,}{of} {unit}, {pace.told(done)}", file=sys.stderr, flush=True)

    return progress
