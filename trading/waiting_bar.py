"""Progress of what takes longer than people like to wait: rate and time left on a terminal.

Where nobody watches a terminal nothing is written but a line each half minute.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_QUIET_S = 30.0


@contextmanager
def counted(text: str, unit: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error for the length of the block, moved by calls with how many are done.

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
    began_s = told_s = time.monotonic()

    def progress(done: int) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s < _QUIET_S:
            return
        told_s = now_s
        rate = done / (now_s - began_s)
        left = f" of {total:,}, {(total - done) / rate:.0f} s left" if total and rate else ""
        print(f"{text}: {done:,}{left}, {rate:,.0f} {unit}/s", file=sys.stderr, flush=True)

    return progress
