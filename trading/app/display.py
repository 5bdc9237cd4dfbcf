"""What the terminal shows: phases while starting, a live table while trading, a summary."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import zip_longest
from textwrap import wrap
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

REFRESH_A_SECOND = 4
_WIDTH = 78
_FRAME, _FIXED_LINES = 4, 4
"""Columns of a panel's frame; its lines, and those of the two rules."""


class Display:
    """Writes to one console; on a terminal the figures stay in place, elsewhere they are lines."""

    def __init__(self, console: Console, line_interval_s: float = 5.0) -> None:
        self.console = console
        self._line_interval_s = line_interval_s
        self._live: Live | None = None
        self._notes: list[str] = []
        self._next_line_s = 0.0
        self._events = (0, 0.0)
        self._events_per_s = 0.0

    @property
    def is_terminal(self) -> bool:
        """Whether people watch, rather than a log."""
        return self.console.is_terminal

    def phase(self, text: str) -> None:
        """Show what is being done now."""
        self.console.print(Text("· " + text, style="dim"))

    def note(self, text: str) -> None:
        """Show a fact worth keeping in view."""
        self._notes.append(text)
        self.console.print(Text("• " + text))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show `progress` in place while the block runs, if the console is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        with Live(
            console=self.console, refresh_per_second=REFRESH_A_SECOND, transient=False
        ) as self._live:
            yield
        self._live = None

    def progress(self, progress: Any, report: Any | None) -> None:
        """Show the live market's `Progress` and the learner's report."""
        now_s = time.monotonic()
        count, before_s = self._events
        if now_s - before_s >= 1.0:
            self._events_per_s = max(0.0, (progress.events - count) / (now_s - before_s))
            self._events = (progress.events, now_s)
        if self._live is not None:
            self._live.update(self._panel(progress, report))
        elif now_s >= self._next_line_s:
            self._next_line_s = now_s + self._line_interval_s
            line = self._line(figures_of(progress, report, self._events_per_s))
            self.console.print(line, soft_wrap=True)

    def summary(self, summary: Any) -> None:
        """Show what the run did."""
        table = Table(title="Summary", show_header=False, title_justify="left")
        table.add_column(style="dim")
        table.add_column(justify="right")
        table.add_row("market events", f"{summary.events:,}")
        table.add_row("decisions", f"{summary.decisions:,}")
        table.add_row("fills", f"{summary.fills:,}")
        table.add_row("fees", f"{summary.fees:,.2f} USD")
        table.add_row("final equity", f"{summary.equity:,.2f} USD")
        table.add_row("learner updates", f"{summary.learner_updates:,}")
        table.add_row("promotions", f"{summary.promotions:,}")
        table.add_row("refusals", f"{summary.refusals:,}")
        table.add_row("rollbacks", f"{summary.rollbacks:,}")
        table.add_row("checkpoint", str(summary.checkpoint or "none"))
        table.add_row("wall time", f"{summary.wall_s:,.1f} s")
        self.console.print(table)

    def _line(self, figures: list[tuple[str, str]]) -> str:
        return "  ".join(f"{name} {value}" for name, value in figures)

    def _panel(self, progress: Any, report: Any | None) -> Panel:
        """Figures in two columns, then fills and notes, the newest of them as far as they fit."""
        figures = figures_of(progress, report, self._events_per_s)
        rows = (len(figures) + 1) // 2
        table = Table.grid(padding=(0, 2), expand=True)
        for _ in range(2):
            table.add_column(style="dim", no_wrap=True)
            table.add_column(justify="right", no_wrap=True)
        for left, right in zip_longest(figures[:rows], figures[rows:], fillvalue=("", "")):
            table.add_row(*left, *right)
        width = min(_WIDTH, self.console.width) - _FRAME
        # The last line of a terminal stays empty, so that nothing scrolls.
        room = self.console.height - 1 - rows - _FIXED_LINES
        fills = [line for each in progress.recent_fills for line in fold(each, width)]
        fills = fills[-max(1, room // 2) :] or ["no fill yet"]
        notes: list[str] = []
        for note in reversed(self._notes):
            lines = fold(note, width)
            if len(lines) + len(notes) + len(fills) > room:
                break
            notes = [*lines, *notes]
        body: list[RenderableType] = [table, Rule(style="dim"), Text("\n".join(fills))]
        if notes:
            body += [Rule(style="dim"), Text("\n".join(notes), style="dim")]
        return Panel(Group(*body), title="paper trading", title_align="left", width=width + _FRAME)


def fold(text: str, width: int) -> list[str]:
    """Return the text in lines of at most so many characters, with nothing left out."""
    return wrap(text, width, break_on_hyphens=False) or [""]


def figures_of(
    progress: Any, report: Any | None, events_per_s: float = 0.0
) -> list[tuple[str, str]]:
    """Name and value of what is shown of the live market's `Progress` and the learner's report."""
    market_time = datetime.fromtimestamp(progress.market_time_ns / 1e9, UTC)
    clock = f"{market_time:%Y-%m-%d %H:%M}" if progress.market_time_ns else "-"
    base = progress.equity - progress.profit_today
    share = f" ({progress.profit_today / base:+.2%})" if base > 0.0 else ""
    figures = [
        ("state", progress.phase),
        ("market time, UTC", clock),
        ("equity", f"{progress.equity:,.2f}"),
        ("P&L today", f"{progress.profit_today:+,.2f}{share}"),
        ("open positions", f"{progress.open_positions}"),
        ("decisions", f"{progress.decisions:,}"),
        ("fills", f"{progress.fills:,}"),
        ("fees", f"{progress.fees:,.2f}"),
        ("events", f"{progress.events:,}"),
        ("events/s", f"{events_per_s:,.0f}"),
    ]
    if progress.champion:
        figures.append(("champion", f"{progress.champion}"))
    if progress.rollbacks:
        figures.append(("rollbacks", f"{progress.rollbacks:,}"))
    if report is not None:
        figures.append(("promotions", f"{progress.promotions:,}"))
        figures.append(("judgements", f"{report.judgements:,}"))
        figures.append(("learner updates", f"{report.live_updates:,}"))
        if report.live_updates:
            figures.append(("entropy", f"{report.entropy:.3f}"))
            figures.append(("kl", f"{report.kl:.4f}"))
    return figures
