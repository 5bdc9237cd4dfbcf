"""A backtest as one HTML file that needs no network."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from trading.envs.catalogue import HOLD, action_names
from trading.envs.structures import all_actions
from trading.evaluation.attribution import COMPONENTS, FEES
from trading.evaluation.backtest import Backtest
from trading.evaluation.baselines import BENCHMARK
from trading.evaluation.html_page import INK, Chart, PageSection, facts, folded, page, table
from trading.evaluation.summary import Figures
from trading.evaluation.watched_env import position_names
from trading.market.chain import F64

_MOST_BARS = 24
_MOST_MARKERS = 80
_MOST_TRADES = 40
_FIRST_HELD = "; of an account's underlyings the first that holds something"
_COLOURS = {
    "delta": "#1f77b4",
    "gamma": "#17becf",
    "theta": "#2ca02c",
    "vega": "#9467bd",
    "quotes": "#bcbd22",
    "unexplained": "#7f7f7f",
    "spread": "#ff7f0e",
    "fees": "#d62728",
    "endings": "#8c564b",
}
_ASIDE = "random"
"""Random trading loses so much that beside it nothing else can be told apart."""


def tear_sheet(
    title: str,
    results: Mapping[str, Backtest],
    tables: Mapping[str, Mapping[str, Figures]],
    about: Sequence[tuple[str, str]] = (),
    looked_at: str | None = None,
) -> str:
    """Return the page; one result is looked at closely.

    Parameters
    ----------
    tables
        What `trading.evaluation.summary.summaries` gives for the results.
    about
        What was tried: the model, its digest, settings, fees.
    looked_at
        Whose result is looked at closely, whether or not it traded; None: the first that traded.
    """
    traded = [name for name, result in results.items() if result.trades.any()]
    name = looked_at or next(iter(traded or results))
    main = results[name]
    across_sessions = [
        ("Equity", "Sum of the session returns, % of the initial capital.", _equity(results)),
        ("Drawdown", "Fall from the highest sum so far, % of the capital.", _drawdown(results)),
    ]
    trades = _trades(main)
    of_trades = (
        f"Trades of {name}",
        f"{len(trades)}: bars are those of the session, profits are after spreads and fees.",
        _trade_table(trades),
    )
    sections = [
        ("Summary", _begun(main), _figures(tables, name)),
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
            "Share of the sessions that hold each strategy, by bar"
            f"{_FIRST_HELD if main.underlyings > 1 else ''}.",
            _positions(main),
        ),
        (
            "Contracts held",
            "Mean of the sessions by bar, sold ones counted too.",
            _contracts(results),
        ),
        (f"Actions of {name}", _held_share(main), _actions(main)),
        *([] if main.underlyings > 1 else [of_trades]),
        (f"Sessions of {name}", "", _sessions(main)),
    ]
    dashed = f" The dashed line is the benchmark, {BENCHMARK}." if BENCHMARK in results else ""
    intro = (
        f"<p>Closely looked at: <b>{escape(name)}</b>. Returns are summed, not compounded. Ratios "
        "are annualised; the deflated Sharpe ratio is the probability that it beats the luckiest "
        f"of so many traders without skill.{dashed}</p>"
        f"{facts(about)}"
    )
    return page(title, intro, [PageSection(*each) for each in sections])


def _figures(tables: Mapping[str, Mapping[str, Figures]], first: str) -> str:
    """Return a table under each heading, that of the trader looked at in its first row."""
    parts = []
    for heading, traders in tables.items():
        heads = [figure for figure, _ in next(iter(traders.values()))]
        order = sorted(traders, key=lambda trader: trader != first)
        rows = [(trader, *(value for _, value in traders[trader])) for trader in order]
        parts.append(f"<h3>{escape(heading)}</h3>" + table(("", *heads), rows))
    return "".join(parts)


def _equity(results: Mapping[str, Backtest]) -> str:
    sums = {name: 100.0 * np.cumsum(result.returns) for name, result in results.items()}
    return _lines(sums, "session", _names(results))


def _drawdown(results: Mapping[str, Backtest]) -> str:
    falls = {}
    for name, result in results.items():
        total = 100.0 * np.cumsum(result.returns)
        falls[name] = total - np.maximum.accumulate(np.maximum(total, 0.0))
    return _lines(falls, "session", _names(results))


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
    names = _for_an_axis(main.names)
    x = [_range(group, names) for group in groups]
    figure = Chart()
    for k, component in enumerate(COMPONENTS):
        if np.abs(parts[:, k]).max() >= 0.5:
            colour = _COLOURS[component]
            figure.bar(x, parts[:, k].tolist(), name=component, marker={"color": colour})
    total = parts.sum(axis=1).tolist()
    figure.line(x, total, name="all", mode="lines+markers", line={"color": INK, "width": 1.5})
    figure.layout["barmode"] = "relative"
    return figure.axes("session", "USD", type="category", nticks=8, tickangle=0).draw()


def _attribution_by_bar(main: Backtest) -> str:
    """Components added up since the open of the only session, and their sum."""
    summed = np.cumsum(main.parts[0], axis=0)
    x = list(range(1, len(summed) + 1))
    figure = Chart()
    for k, component in enumerate(COMPONENTS):
        if np.abs(summed[:, k]).max() >= 0.5:
            colour = {"color": _COLOURS[component]}
            figure.line(x, summed[:, k].tolist(), name=component, line=colour)
    total = summed.sum(axis=1).tolist()
    figure.line(x, total, name="all", line={"color": INK})
    return figure.axes("bar", "USD").draw()


def _attributions(results: Mapping[str, Backtest]) -> str:
    shown = {name: r for name, r in results.items() if name != _ASIDE and r.trades.any()}
    means = {name: r.parts.sum(axis=(0, 1)) / len(r.returns) for name, r in shown.items()}
    figure = Chart()
    for k, component in enumerate(COMPONENTS):
        figure.bar(
            [float(mean[k]) for mean in means.values()],
            list(means),
            name=component,
            orientation="h",
            marker={"color": _COLOURS[component]},
        )
    figure.line(
        [float(mean.sum()) for mean in means.values()],
        list(means),
        name="all",
        mode="markers",
        marker={"color": INK, "symbol": "diamond", "size": 9},
    )
    figure.layout["barmode"] = "relative"
    figure.layout["yaxis"]["autorange"] = "reversed"
    return figure.axes("USD a session").draw(90 + 50 * max(len(shown), 3))


def _positions(main: Backtest) -> str:
    """Stacked shares of the sessions that hold each strategy."""
    sessions = np.maximum(np.count_nonzero(main.position >= 0, axis=0), 1)
    figure = Chart()
    held = position_names(main.structures)
    for kind in range(1, len(held)):
        share = 100.0 * np.count_nonzero(main.position == kind, axis=0) / sessions
        if share.any():
            figure.line(
                range(1, len(share) + 1),
                share.tolist(),
                name=held[kind].replace("_", " "),
                line={"width": 0.5, "shape": "hv"},
                stackgroup="held",
            )
    if not figure.data:
        return "<p>It held nothing.</p>"
    figure.layout["yaxis"] |= {"range": [0, 100], "ticksuffix": " %"}
    return figure.axes("bar").draw()


def _actions(main: Backtest) -> str:
    called = action_names(len(main.actions), all_actions(main.structures))
    taken = [(int(n), called[a]) for a, n in enumerate(main.actions) if n and a != HOLD]
    if not taken:
        return "<p>It took no other.</p>"
    counts, names = zip(*sorted(taken), strict=True)
    text = {"text": [str(count) for count in counts], "textposition": "auto"}
    figure = Chart().bar(counts, names, orientation="h", **text)
    figure.layout["showlegend"] = False
    return figure.axes("times taken").draw(90 + 22 * max(len(taken), 4))


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
    shown = table(("session", "return", "fills", *(f"{c}, USD" for c in COMPONENTS)), rows)
    return folded(f"{len(rows)} sessions", shown)


def _trades(main: Backtest) -> list[tuple[str, ...]]:
    """Each position from the bar of its opening to that of its end, as told in the table."""
    trades: list[tuple[str, ...]] = []
    names = position_names(main.structures)
    for d, name in enumerate(main.names):
        held = main.position[d]
        open_bars = int(np.count_nonzero(held >= 0))
        begin = 0
        while begin < open_bars:
            if held[begin] <= 0:
                begin += 1
                continue
            end = begin
            while end < open_bars and held[end] == held[begin]:
                end += 1
            # The bar that ends it pays for that, and holds nothing any more.
            last = min(end, open_bars - 1)
            parts = main.parts[d, begin : last + 1 if end < open_bars and held[end] == 0 else end]
            by_component = parts.sum(axis=0)
            trades.append(
                (
                    name,
                    names[held[begin]].replace("_", " "),
                    str(begin + 1),
                    "to the close" if end == open_bars else str(end + 1),
                    f"{main.contracts[d, begin]:.0f}",
                    f"{abs(by_component[FEES]):,.2f}",
                    f"{by_component.sum():+,.2f}",
                )
            )
            begin = end
    return trades


def _begun(main: Backtest) -> str:
    """Return what sessions begin with, and how many of them an account trades in a row."""
    episodes, sessions = len(np.unique(main.episode)), len(main.episode)
    if episodes == sessions:
        return "Every session begins with the initial capital."
    return (
        f"{sessions} sessions in {episodes} episode{'s' * (episodes > 1)}: an account begins each "
        "with the initial capital and trades its sessions in a row, through nights and expiries."
    )


def _trade_table(trades: Sequence[tuple[str, ...]]) -> str:
    if not trades:
        return "<p>It traded nothing.</p>"
    heads = ("session", "strategy", "opened, bar", "closed, bar", "contracts", "fees", "profit")
    content = table(heads, trades[:_MOST_TRADES], (0, 1))
    if len(trades) > _MOST_TRADES:
        more = table(heads, trades[_MOST_TRADES:], (0, 1))
        content += folded(f"{len(trades) - _MOST_TRADES} more", more)
    return content


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


def _range(group: slice, names: Sequence[str]) -> str:
    first, last = names[group.start], names[group.stop - 1]
    return first if first == last else f"{first} to {last}"


def _names(results: Mapping[str, Backtest]) -> Sequence[str]:
    """Return what the sessions were: their days, where they are of a history."""
    return _for_an_axis(next(iter(results.values())).names)


def _for_an_axis(names: Sequence[str]) -> Sequence[str]:
    """Return the names without what simulated ones have in common, so that they fit beside."""
    short = [name.removeprefix("simulated ") for name in names]
    if len({name.partition(", ")[0] for name in short}) > 1:
        return short
    return [name.partition(", ")[2] or name for name in short]


def _mean_of_open(values: F64) -> F64:
    """Mean by bar of the sessions that are open then, [T]."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.asarray(total / np.maximum(known.sum(axis=0), 1))


def _lines(series: Mapping[str, F64], x_title: str, names: Sequence[str] = ()) -> str:
    """Return a line for each trader, over the sessions of these names, else over bars."""
    figure = Chart()
    for name, values in series.items():
        mode = "lines+markers" if len(values) <= _MOST_MARKERS else "lines"
        line = {"color": INK, "dash": "dash"} if name == BENCHMARK else {}
        figure.line(
            list(names) or range(1, len(values) + 1),
            values.tolist(),
            name=name,
            mode=mode,
            marker={"size": 4},
            line=line,
            visible="legendonly" if name == _ASIDE else True,
        )
    kind = {"type": "category", "nticks": 8, "tickangle": 0} if names else {}
    return figure.axes(x_title, "%" if names else "", **kind).draw()
