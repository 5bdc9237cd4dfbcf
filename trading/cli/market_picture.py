"""Draws a simulated market on one sheet."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trading.market.factors import SESSIONS_PER_YEAR, STRESSED
from trading.market.model import MarketModel
from trading.market.model_statistics import STRIKES, TENORS, ModelStatistics, variance_ratio
from trading.market.quotes import TickClass, median_spread
from trading.market.surface import surface_iv

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:
    Axes = Any

_BLUE, _RED, _GREEN, _PALE = "#2f5f8f", "#c1440e", "#3c7d4b", "#f3d9cb"
_SHOWN = 3
_HORIZONS = (1, 2, 3, 5, 10, 21, 42)


def draw(model: MarketModel, found: ModelStatistics, into: Path, name: str) -> None:
    """Write the picture, of the kind that the file's ending says, into a folder that is there."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with pyplot.rc_context(style):
        sheet, axes = pyplot.subplots(2, 3, figsize=(13.0, 7.4), layout="constrained")
        _paths(axes[0, 0], found)
        _volatility(axes[0, 1], found)
        _trend(axes[0, 2], found)
        _premium(axes[1, 0], found)
        _held(axes[1, 1], found)
        _smile(axes[1, 2], model)
        for axis in axes.flat:
            axis.grid(axis="y", color="#e8e8e8", linewidth=0.6)
            axis.set_axisbelow(True)
        sheet.suptitle(name, x=0.01, ha="left", fontsize=12)
        sheet.savefig(into, dpi=110)
        pyplot.close(sheet)


def _paths(axis: Axes, found: ModelStatistics) -> None:
    for p, colour in zip(range(_SHOWN), (_BLUE, _RED, _GREEN), strict=True):
        axis.plot(found.paths.spot[p], color=colour, linewidth=1.1)
    _shade_stress(axis, found)
    axis.set_title(
        "Price, 100 at first: three years; stress of the blue one shaded", loc="left", fontsize=9.5
    )
    axis.set_xlabel("sessions")


def _volatility(axis: Axes, found: ModelStatistics) -> None:
    for p, colour in zip(range(_SHOWN), (_BLUE, _RED, _GREEN), strict=True):
        axis.plot(100.0 * found.paths.atm_iv[p], color=colour, linewidth=1.1)
    _shade_stress(axis, found)
    axis.set_ylim(bottom=0.0)
    axis.set_title("30-day implied volatility, %", loc="left", fontsize=9.5)
    axis.set_xlabel("sessions")


def _shade_stress(axis: Axes, found: ModelStatistics) -> None:
    stressed = found.paths.regime[0] == STRESSED
    axis.fill_between(
        np.arange(len(stressed)), 0, 1, where=stressed, transform=axis.get_xaxis_transform(),
        color=_PALE, linewidth=0,
    )  # fmt: skip


def _trend(axis: Axes, found: ModelStatistics) -> None:
    returns = found.paths.by_day + found.paths.by_night
    ratios = [variance_ratio(returns, sessions) for sessions in _HORIZONS]
    axis.axhline(1.0, color="#888888", linewidth=0.8)
    axis.plot(range(len(_HORIZONS)), ratios, "o-", color=_BLUE)
    axis.set_xticks(range(len(_HORIZONS)), [str(each) for each in _HORIZONS])
    axis.set_ylim(0.0, max(2.0, 1.1 * max(ratios)))
    axis.set_title("Variance ratio: above 1, trends go on", loc="left", fontsize=9.5)
    axis.set_xlabel("sessions")


def _premium(axis: Axes, found: ModelStatistics) -> None:
    (figures,) = (each for group, each in found.figures.items() if group.startswith("implied"))
    known = {name: each for name, each in figures.items() if np.isfinite(each.value)}
    errors = [each.error for each in known.values()]
    axis.bar(range(len(known)), [each.value for each in known.values()], yerr=errors, color=_BLUE)
    axis.axhline(0.0, color="#888888", linewidth=0.8)
    axis.set_xticks(range(len(known)), list(known))
    axis.set_title("Implied over realised volatility, minus one, %", loc="left", fontsize=9.5)


def _held(axis: Axes, found: ModelStatistics) -> None:
    for k, (strike, colour) in enumerate(zip(STRIKES, (_RED, _BLUE, _GREEN), strict=True)):
        each = [found.held[tenor, strike] for tenor in TENORS]
        axis.errorbar(
            np.arange(len(TENORS)) + 0.08 * (k - 1), [value for value, _ in each],
            yerr=[error for _, error in each], fmt="o", color=colour, label=strike,
        )  # fmt: skip
    axis.axhline(0.0, color="#888888", linewidth=0.8)
    axis.set_xticks(range(len(TENORS)), [str(tenor) for tenor in TENORS])
    axis.set_xlabel("sessions to expiry")
    axis.legend(frameon=False, fontsize=8)
    axis.set_title("What options gain, bought and held to expiry, %", loc="left", fontsize=9.5)


def _smile(axis: Axes, model: MarketModel) -> None:
    for tenor, colour in zip((5, 21, 63), (_RED, _BLUE, _GREEN), strict=True):
        t = tenor / SESSIONS_PER_YEAR
        at = np.linspace(-2.5, 2.5, 61)
        level = surface_iv(model, 0.0, t, model.calm_vol, model.calm_skew)
        logs = at * level * np.sqrt(t)
        smile = [surface_iv(model, x, t, model.calm_vol, model.calm_skew) for x in logs]
        axis.plot(at, 100.0 * np.array(smile), color=colour, label=f"{tenor} sessions")
    axis.set_ylim(0.0, 1.15 * axis.get_ylim()[1])
    axis.set_xlabel(f"log moneyness, standard deviations\n{_spreads(model)}")
    axis.set_title("Implied volatility in calm, %", loc="left", fontsize=9.5)
    axis.legend(frameon=False, fontsize=8, loc="lower left")


def _spreads(model: MarketModel) -> str:
    spread = model.spread_scale * median_spread(2.0, 0.0, int(TickClass.PENNY_PROGRAM))
    return f"a 2 dollar option is {spread:.2f} wide"
