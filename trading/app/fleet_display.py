"""What the terminal shows of several strategies: a row for each while trading."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from trading.app.display import REFRESH_A_SECOND, Display, figures_of
from trading.serving.supervisor import TRADING, SupervisorState

_COLUMNS = {
    "UTC": "market time, UTC",
    "equity": "equity",
    "P&L today": "P&L today",
    "open": "open positions",
    "fills": "fills",
}
"""What stands above each column, and the figure in it."""
_YEAR = len("2026-")
_NOTES = 8
"""Newest ones that stay in view."""


class FleetDisplay:
    """Writes to one console: a table that stays in place on a terminal, elsewhere lines.

    Parameters
    ----------
    console
        Where to.
    names
        The strategies, in the order of their rows.
    """

    def __init__(self, console: Console, names: tuple[str, ...]) -> None:
        self._console = console
        self._live: Live | None = None
        self._notes: list[str] = []
        self._states: Mapping[str, SupervisorState] = {}
        self._waiting = ""
        self._figures: dict[str, dict[str, str]] = {}
        self.common = _Row(self, console, "")
        self._rows = {name: _Row(self, console, name) for name in names}

    @property
    def is_terminal(self) -> bool:
        """Whether people watch, rather than a log."""
        return self._console.is_terminal

    def of(self, name: str) -> Display:
        """Return what shows one strategy."""
        return self._rows[name]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show the table in place while the block runs, if the console is a terminal."""
        if not self.is_terminal:
            yield
            return
        with Live(
            console=self._console, refresh_per_second=REFRESH_A_SECOND, transient=False
        ) as self._live:
            yield
        self._live = None

    def stand(self, states: Mapping[str, SupervisorState], waiting: str) -> None:
        """Show where each strategy stands, and why this application has none."""
        self._states, self._waiting = states, waiting
        self._update()

    def noted(self, text: str) -> None:
        """Keep a note in view."""
        self._notes = [*self._notes, text][-_NOTES:]

    def progressed(self, name: str, figures: Mapping[str, str]) -> bool:
        """Show the figures of one strategy; whether the table does."""
        self._figures[name] = dict(figures)
        self._update()
        return self._live is not None

    def _update(self) -> None:
        live = self._live
        if live is not None:
            live.update(self.panel())

    def panel(self) -> Panel:
        """Return the table, why strategies do not trade, and the newest notes."""
        table = Table(box=None, padding=(0, 1), pad_edge=False)
        table.add_column("strategy")
        table.add_column("state")
        for column in _COLUMNS:
            table.add_column(column, justify="right")
        reasons = [self._waiting] if self._waiting else []
        for name in self._rows:
            state, figures = self._states.get(name), self._figures.get(name, {})
            shown = state.phase if state is not None else ""
            if shown == TRADING:
                shown = figures.get("state", shown)
            elif state is not None and state.reason:
                reasons.append(f"{name}: {state.reason}")
            when, *others = (figures.get(figure, "-") for figure in _COLUMNS.values())
            table.add_row(name, shown, when[_YEAR:] or "-", *others)
        parts: list[Any] = [table]
        for lines in (reasons, self._notes):
            if lines:
                parts += [Rule(style="dim"), Text("\n".join(lines), style="dim")]
        return Panel(Group(*parts), title="paper trading", title_align="left")


class _Row(Display):
    """One strategy's part; what it says begins with its name."""

    def __init__(self, fleet: FleetDisplay, console: Console, name: str) -> None:
        super().__init__(console)
        self._fleet = fleet
        self._name = name
        self._before = f"{name}: " if name else ""

    def phase(self, text: str) -> None:
        super().phase(self._before + text)

    def note(self, text: str) -> None:
        super().note(self._before + text)
        self._fleet.noted(self._before + text)

    def progress(self, progress: Any, report: Any | None) -> None:
        if not self._fleet.progressed(self._name, dict(figures_of(progress, report))):
            super().progress(progress, report)

    def _line(self, figures: list[tuple[str, str]]) -> str:
        return self._before + super()._line(figures)

    def summary(self, summary: Any) -> None:
        self.console.print(Text(self._name))
        super().summary(summary)
