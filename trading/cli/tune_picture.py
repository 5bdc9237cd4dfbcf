"""Draws a search: how trials' scores grew, and what each setting had to do with them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trading.app.tuning.outcome import GIVEN
from trading.app.tuning.record import Trial
from trading.config.space import Choices, Dimension, SearchRange, Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:
    Axes = Any

_WINNER, _GIVEN, _OTHER, _ZERO = "#c1440e", "#2f5f8f", "#b9b9b9", "#888888"
_COLUMNS = 3
_DECADE = 10.0


def draw(trials: Sequence[Trial], space: Space, winner: int | None, into: Path) -> None:
    """Write the picture; its kind follows from the file's name.

    Parameters
    ----------
    trials
        The best first; those that were never scored are left out.
    space
        What was searched: one small picture each.
    winner
        The number of the trial that is set off; None: none is.
    into
        A file whose folder is there.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    scored = [trial for trial in trials if trial.judged]
    columns = min(_COLUMNS, len(space))
    rows = math.ceil(len(space) / columns)
    style: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with pyplot.rc_context(style):
        sheet = pyplot.figure(figsize=(11.0, 3.4 + 2.6 * rows), layout="constrained")
        grid = sheet.add_gridspec(1 + rows, columns, height_ratios=[1.3, *[1.0] * rows])
        growth = sheet.add_subplot(grid[0, :])
        _growth(growth, scored, winner)
        for place, (key, dimension) in enumerate(space.items()):
            cell = grid[1 + place // columns, place % columns]
            axis = sheet.add_subplot(cell, sharey=growth)
            _setting(axis, scored, key, dimension, winner)
            axis.tick_params(labelleft=place % columns == 0)
        for axis in sheet.axes:
            axis.axhline(0.0, color=_ZERO, linewidth=0.8, zorder=1)
            axis.grid(axis="y", color="#e8e8e8", linewidth=0.6)
            axis.set_axisbelow(True)
        sheet.savefig(into, dpi=110)
        pyplot.close(sheet)


def _colour(trial: Trial, winner: int | None) -> str:
    if trial.number == winner:
        return _WINNER
    return _GIVEN if trial.number == GIVEN else _OTHER


def _growth(axis: Axes, trials: Sequence[Trial], winner: int | None) -> None:
    """Score after each part of learning; the winner and the given settings on top."""
    for trial in sorted(trials, key=lambda each: (each.number == winner, each.number == GIVEN)):
        judged = [trial.judged[each] for each in sorted(trial.judged)]
        label = {GIVEN: "as given", winner: f"trial {winner}, the winner"}.get(trial.number)
        if trial.number == winner == GIVEN:
            label = "as given, the winner"
        axis.plot(
            [each.decisions for each in judged],
            [each.score for each in judged],
            "o-",
            color=_colour(trial, winner),
            linewidth=2.0 if label else 1.0,
            markersize=5.0 if label else 3.5,
            label=label,
            zorder=3 if label else 2,
        )
    axis.set_title("Return a session on held-out sessions, % of the capital", loc="left")
    axis.title.set_fontsize(9.5)
    axis.set_xlabel("decisions learned from, all folds")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.margins(x=0.02)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8)


def _setting(
    axis: Axes, trials: Sequence[Trial], key: str, dimension: Dimension, winner: int | None
) -> None:
    """Draw the last score of each trial over one setting; hollow where it ended early."""
    most = max(max(trial.judged) for trial in trials)
    names: list[str] = []
    if isinstance(dimension, Choices):
        values = [trial.judged[max(trial.judged)].point[key] for trial in trials]
        asked = [*dimension.values, *(each for each in values if each not in dimension.values)]
        if all(isinstance(each, int | float) and not isinstance(each, bool) for each in asked):
            asked = sorted(asked)
        names = list(dict.fromkeys(map(_named, asked)))
    for trial in reversed(trials):
        newest = trial.judged[max(trial.judged)]
        value = newest.point[key]
        colour = _colour(trial, winner)
        axis.plot(
            names.index(_named(value)) if names else value,
            newest.score,
            "o",
            color=colour,
            markerfacecolor=colour if newest.judgement == most else "white",
            markersize=7.0 if colour != _OTHER else 5.0,
            zorder=3 if colour != _OTHER else 2,
        )
    if names:
        axis.set_xticks(range(len(names)), names)
        axis.set_xlim(-0.5, len(names) - 0.5)
    if isinstance(dimension, SearchRange):
        _range(axis, dimension, [trial.judged[max(trial.judged)].point[key] for trial in trials])
    axis.set_title(key, loc="left", fontsize=9.5)


def _named(value: object) -> str:
    return "unset" if value is None else str(value)


def _range(axis: Axes, dimension: SearchRange, values: Sequence[float]) -> None:
    """Show the whole range, and what was given beyond it."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    low, high = min(dimension.low, *values), max(dimension.high, *values)
    if dimension.is_log and low > 0.0:
        margin = (high / low) ** 0.04
        axis.set_xscale("log")
        axis.set_xlim(low / margin, high * margin)
        if high / low >= _DECADE:
            axis.xaxis.set_major_locator(LogLocator(numticks=6))
            axis.xaxis.set_minor_formatter(NullFormatter())
            return
        axis.xaxis.set_minor_locator(LogLocator(subs=()))
    else:
        margin = 0.04 * (high - low)
        axis.set_xlim(low - margin, high + margin)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=dimension.is_whole))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
