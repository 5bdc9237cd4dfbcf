"""A backtest as one HTML file that needs no network."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from trading.envs.catalogue import ACTIONS, HOLD
from trading.evaluation.attribution import COMPONENTS
from trading.evaluation.backtest import Backtest
from trading.evaluation.summary import Figures
from trading.evaluation.watched_env import POSITIONS
from trading.market.chain import F64

_FONT = "system-ui, sans-serif"
_STYLE = f"""body{{font:15px {_FONT};color:#1f2933;max-width:1080px;
margin:40px auto;padding:0 20px}}
h1{{font-size:26px}}h2{{font-size:18px;margin:40px 0 4px}}h3{{font-size:14px;margin:18px 0 4px}}
table{{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}}
td,th{{padding:5px 8px;text-align:right;border-bottom:1px solid #e4e7eb;white-space:nowrap}}
td:first-child,th:first-child{{text-align:left}}p{{color:#52606d;margin:4px 0}}
summary{{cursor:pointer;color:#52606d}}"""
_HEIGHT = 340
_MOST_BARS = 24
_MOST_MARKERS = 80
_COLOURS = {
    "delta": "#1f77b4",
    "gamma": "#17becf",
    "theta": "#2ca02c",
    "vega": "#9467bd",
    "quotes": "#bcbd22",
    "unexplained": "#7f7f7f",
    "spread": "#ff7f0e",
    "fees": "#d62728",
}
_ASIDE = "random"
"""Random trading loses so much that beside it nothing else can be told apart."""


def tear_sheet(
    title: str,
    results: Mapping[str, Backtest],
    tables: Mapping[str, Mapping[str, Figures]],
) -> str:
    """The page; the first result that traded is the one that is looked at closely.

    Parameters
    ----------
    tables
        What `trading.evaluation.summary.summaries` gives for the results.
    """
    traded = [name for name, result in results.items() if result.trades.any()]
    name = next(iter(traded or results))
    main = results[name]
    across_sessions = [
        ("Equity", "Sum of the session returns, % of the initial capital.", _equity(results)),
        ("Drawdown", "Fall from the highest sum so far, % of the capital.", _drawdown(results)),
    ]
    sections = [
        ("Summary", "Every session begins with the initial capital.", _figures(tables)),
        *(across_sessions if len(main.returns) > 1 else []),
        (
            "Within the session",
            "Mean change of equity since the open, % of the capital.",
            _intraday(results),
        ),
        (
            f"Where the profit of {name} came from",
            f"USD{_grouping(main)}; the black line is what they add up to.",
            _attribution(main) if len(main.returns) > 1 else _attribution_by_bar(main),
        ),
        (
            "Where the traders' profits came from",
            f"USD a session, mean{'; without ' + _ASIDE if _ASIDE in results else ''}.",
            _attributions(results),
        ),
        (
            f"Positions of {name}",
            "Share of the sessions that hold each strategy, by bar.",
            _positions(main),
        ),
        (
            "Contracts held",
            "Mean of the sessions by bar, sold ones counted too.",
            _contracts(results),
        ),
        (f"Actions of {name}", _held_share(main), _actions(main)),
        (f"Sessions of {name}", "", _sessions(main)),
    ]
    body = "".join(
        f"<h2>{escape(head)}</h2><p>{escape(told)}</p>{content}" for head, told, content in sections
    )
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body>"
        f"<h1>{escape(title)}</h1><p>Returns are summed, not compounded. Ratios are annualised; "
        f"the deflated Sharpe ratio is the probability that it beats the luckiest of so many "
        f"traders without skill.</p>{body}</body></html>\n"
    )


def _figures(tables: Mapping[str, Mapping[str, Figures]]) -> str:
    parts = []
    for heading, traders in tables.items():
        heads = [figure for figure, _ in next(iter(traders.values()))]
        rows = [(trader, *(v for _, v in figures)) for trader, figures in traders.items()]
        parts.append(f"<h3>{escape(heading)}</h3>" + _table(("", *heads), rows))
    return "".join(parts)


def _equity(results: Mapping[str, Backtest]) -> str:
    sums = {name: 100.0 * np.cumsum(result.returns) for name, result in results.items()}
    return _lines(sums, "session")


def _drawdown(results: Mapping[str, Backtest]) -> str:
    falls = {}
    for name, result in results.items():
        total = 100.0 * np.cumsum(result.returns)
        falls[name] = total - np.maximum.accumulate(np.maximum(total, 0.0))
    return _lines(falls, "session")


def _intraday(results: Mapping[str, Backtest]) -> str:
    means = {
        name: 100.0 * (_mean_of_open(result.equity) / result.capital - 1.0)
        for name, result in results.items()
    }
    return _lines(means, "bar")


def _contracts(results: Mapping[str, Backtest]) -> str:
    return _lines({name: _mean_of_open(r.contracts) for name, r in results.items()}, "bar")


def _attribution(main: Backtest) -> str:
    """Stacked components of groups of sessions in a row, and their sum."""
    groups = _groups(main)
    by_session = main.parts.sum(axis=1)
    parts = np.array([by_session[group].sum(axis=0) for group in groups])
    x = [_range(group) for group in groups]
    figure = go.Figure()
    for k, component in enumerate(COMPONENTS):
        if np.abs(parts[:, k]).max() >= 0.5:
            colour = _COLOURS[component]
            figure.add_bar(x=x, y=parts[:, k].tolist(), name=component, marker_color=colour)
    total = parts.sum(axis=1).tolist()
    figure.add_scatter(
        x=x, y=total, name="all", mode="lines+markers", line={"color": "#1f2933", "width": 1.5}
    )
    figure.update_layout(barmode="relative")
    figure.update_xaxes(title="session", type="category", nticks=12, tickangle=0)
    return _div(figure)


def _attribution_by_bar(main: Backtest) -> str:
    """Components added up since the open of the only session, and their sum."""
    summed = np.cumsum(main.parts[0], axis=0)
    x = list(range(1, len(summed) + 1))
    figure = go.Figure()
    for k, component in enumerate(COMPONENTS):
        if np.abs(summed[:, k]).max() >= 0.5:
            colour = {"color": _COLOURS[component]}
            figure.add_scatter(
                x=x, y=summed[:, k].tolist(), name=component, mode="lines", line=colour
            )
    total = summed.sum(axis=1).tolist()
    figure.add_scatter(x=x, y=total, name="all", mode="lines", line={"color": "#1f2933"})
    figure.update_xaxes(title="bar")
    return _div(figure)


def _attributions(results: Mapping[str, Backtest]) -> str:
    shown = {name: r for name, r in results.items() if name != _ASIDE and r.trades.any()}
    means = {name: r.parts.sum(axis=(0, 1)) / len(r.returns) for name, r in shown.items()}
    figure = go.Figure()
    for k, component in enumerate(COMPONENTS):
        figure.add_bar(
            x=[float(mean[k]) for mean in means.values()],
            y=list(means),
            name=component,
            orientation="h",
            marker_color=_COLOURS[component],
        )
    figure.add_scatter(
        x=[float(mean.sum()) for mean in means.values()],
        y=list(means),
        name="all",
        mode="markers",
        marker={"color": "#1f2933", "symbol": "diamond", "size": 9},
    )
    figure.update_layout(barmode="relative")
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="USD a session")
    return _div(figure, 90 + 50 * max(len(shown), 3))


def _positions(main: Backtest) -> str:
    """Stacked shares of the sessions that hold each strategy."""
    sessions = np.maximum(np.count_nonzero(main.position >= 0, axis=0), 1)
    figure = go.Figure()
    for kind in range(1, len(POSITIONS)):
        share = 100.0 * np.count_nonzero(main.position == kind, axis=0) / sessions
        if share.any():
            figure.add_scatter(
                x=list(range(1, len(share) + 1)),
                y=share.tolist(),
                name=POSITIONS[kind].replace("_", " "),
                mode="lines",
                line={"width": 0.5, "shape": "hv"},
                stackgroup="held",
            )
    if not figure.data:
        return "<p>It held nothing.</p>"
    figure.update_xaxes(title="bar")
    figure.update_yaxes(range=[0, 100], ticksuffix=" %")
    return _div(figure)


def _actions(main: Backtest) -> str:
    taken = [(int(n), ACTIONS[a].name) for a, n in enumerate(main.actions) if n and a != HOLD]
    if not taken:
        return "<p>It took no other.</p>"
    counts, names = zip(*sorted(taken), strict=True)
    figure = go.Figure(go.Bar(x=counts, y=names, orientation="h", text=counts, textposition="auto"))
    figure.update_xaxes(title="times taken")
    figure.update_traces(showlegend=False)
    return _div(figure, 90 + 22 * max(len(taken), 4))


def _held_share(main: Backtest) -> str:
    total = max(int(main.actions.sum()), 1)
    share = main.actions[HOLD] / total
    return f"Of {total:,} decisions {share:.2%} were to hold; these are the others."


def _sessions(main: Backtest) -> str:
    parts = main.parts.sum(axis=1)
    rows = [
        (
            name,
            f"{main.returns[d]:+.3%}",
            str(main.trades[d]),
            *(f"{value:+,.0f}" for value in parts[d]),
        )
        for d, name in enumerate(main.names)
    ]
    table = _table(("session", "return", "fills", *(f"{c}, USD" for c in COMPONENTS)), rows)
    return f"<details><summary>{len(rows)} sessions</summary>{table}</details>"


def _groups(main: Backtest) -> list[slice]:
    """Sessions in order, so many together that there are few enough bars to read."""
    sessions = len(main.returns)
    size = -(-sessions // _MOST_BARS)
    return [slice(i, min(i + size, sessions)) for i in range(0, sessions, size)]


def _grouping(main: Backtest) -> str:
    if len(main.returns) == 1:
        return " since the open"
    size = -(-len(main.returns) // _MOST_BARS)
    return " a session" if size == 1 else f", {size} sessions together"


def _range(group: slice) -> str:
    first, last = group.start + 1, group.stop
    return str(first) if first == last else f"{first}-{last}"


def _mean_of_open(values: F64) -> F64:
    """Mean by bar of the sessions that are open then, [T]."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.asarray(total / np.maximum(known.sum(axis=0), 1))


def _lines(series: Mapping[str, F64], x_title: str) -> str:
    figure = go.Figure()
    for name, values in series.items():
        mode = "lines+markers" if len(values) <= _MOST_MARKERS else "lines"
        figure.add_scatter(
            x=list(range(1, len(values) + 1)),
            y=values.tolist(),
            name=name,
            mode=mode,
            marker={"size": 4},
            visible="legendonly" if name == _ASIDE else True,
        )
    figure.update_xaxes(title=x_title)
    return _div(figure)


def _div(figure: go.Figure, height: int = _HEIGHT) -> str:
    figure.update_layout(
        template="plotly_white",
        height=height,
        font={"family": _FONT},
        margin={"t": 10, "r": 10, "b": 40},
        showlegend=True,
    )
    figure.update_yaxes(automargin=True)
    figure.update_xaxes(automargin=True)
    return str(
        figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False})
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(each)}</td>" for each in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
