"""The report of an account as one page."""

import math
from collections.abc import Sequence

import numpy as np

from trading.evaluation.html_page import (
    BLUE,
    GAIN,
    LOSS,
    MUTED,
    Chart,
    PageSection,
    cards,
    folded,
    page,
    table,
)
from trading.reporting import performance
from trading.reporting.ledger import Note, Trade, new_york
from trading.reporting.report import Group, Report

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MOST_POINTS = 1500
_MOST_MARKERS = 80
_PALE = "rgba(209,73,63,0.15)"
_MOST_SHOWN = 25
"""Rows that are shown at once; more are folded."""


def report_page(report: Report) -> str:
    """Return the page, from what came of it down to each trade."""
    told = f"{report.first} to {report.last}" if report.first else "no session yet"
    intro = (
        f"<p>Paper account <b>{report.account}</b>, {told}. Amounts are USD after fees, times New "
        "York's; a day's return is its change of equity, without cash moved, over what it began "
        "with.</p>" + cards(_headline(report))
    )
    sections = [
        *_curves(report),
        *([_months(report)] if report.days else []),
        *_risk(report),
        _groups("By underlying", "Closed trades.", "underlying", report.by_underlying),
        _groups("By strategy", "Closed trades.", "strategy", report.by_strategy),
        *_by_time(report),
        _by_part(report),
        _open(report),
        _stress(report),
        _trades(report),
        _notes("What the learner changed", "", report.learner),
        *([_notes("Cash moved", "By its owner.", report.moves)] if report.moves else []),
        *([_notes("Cash after the end", "Of ended trades.", report.late)] if report.late else []),
        *([_worked(report)] if any(report.worked.values()) else []),
        *([_rejections(report)] if report.rejections else []),
        _figures(report),
    ]
    return page(f"Report of account {report.account}", intro, sections)


def money(value: float | int | None) -> str:
    """USD with a sign, to the cent."""
    return "-" if value is None else f"{value:+,.2f}"


def percent(value: float | int | None) -> str:
    """Return a fraction as signed percent."""
    return "-" if value is None or not math.isfinite(value) else f"{value:+.2%}"


def ratio(value: float | int | None) -> str:
    """Return a plain number."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.2f}"


def in_percent(value: float | int | None) -> str:
    """Return a fraction as percent without a sign."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.1%}"


def _headline(report: Report) -> list[tuple[str, str]]:
    figures = report.summary
    equity = figures["equity"]
    return [
        ("equity", "-" if equity is None else f"{equity:,.2f}"),
        ("profit", money(figures["profit"])),
        ("return", percent(figures["return"])),
        ("max drawdown", in_percent(figures["max_drawdown"])),
        ("Sharpe", ratio(figures["sharpe"])),
        ("trades, won", f"{figures['trades']}, {in_percent(figures['win_rate'])}"),
        ("fees", f"{figures['fees'] or 0.0:,.2f}"),
    ]


def _curves(report: Report) -> list[PageSection]:
    sections = []
    dates = [day.date for day in report.days]
    returns = report.returns
    if len(report.equity) > 1:
        step = -(-len(report.equity) // _MOST_POINTS)
        points = [*report.equity[::step], report.equity[-1]]
        x = [f"{new_york(ts_ns):%Y-%m-%d %H:%M}" for ts_ns, _ in points]
        figure = Chart().line(x, [equity for _, equity in points], name="equity")
        figure.layout["showlegend"] = False
        figure.axes("New York time", "USD", type="category", nticks=8, tickangle=0)
        told = "After each bar, USD; nights and weekends are left out."
        sections.append(PageSection("Equity", told, figure.draw(label="Equity after each bar")))
    if len(report.days) >= performance.FEWEST:
        growth = 100.0 * (performance.compounded(returns) - 1.0)
        fall = 100.0 * performance.drawdown_curve(returns)
        thin = {"color": LOSS, "width": 1}
        figure = Chart().line(
            dates, fall, name="drawdown", fill="tozeroy", fillcolor=_PALE, line=thin
        )
        mode = "lines+markers" if len(dates) <= _MOST_MARKERS else "lines"
        figure.line(dates, growth, name="account", mode=mode, line={"color": BLUE})
        figure.axes("", "%", type="category", nticks=10, tickangle=0)
        sections.append(
            PageSection("Return and drawdown", "Compounded, by session, %.", figure.draw())
        )
    if report.days:
        colours = [GAIN if day.profit >= 0.0 else LOSS for day in report.days]
        figure = Chart().bar(dates, [day.profit for day in report.days], marker={"color": colours})
        figure.layout["showlegend"] = False
        figure.axes("", "USD", type="category", nticks=10, tickangle=0)
        over = "" if report.days[-1].is_over else " The last one has not ended yet."
        sections.append(PageSection("Profit by day", f"Change of equity.{over}", figure.draw(260)))
    return sections


def _months(report: Report) -> PageSection:
    rows = []
    for year, months in sorted(report.months.items(), reverse=True):
        total = float(np.prod([1.0 + gain for gain in months.values()])) - 1.0
        cells = [percent(months[m]) if m in months else "" for m in range(1, 13)]
        rows.append((str(year), *cells, percent(total)))
    content = table(("year", *_MONTHS, "all"), rows)
    return PageSection("Returns by month", "Compounded.", content)


def _risk(report: Report) -> list[PageSection]:
    returns, sections = report.returns, []
    dates = [day.date for day in report.days]
    if len(returns) >= performance.WINDOW:
        figure = Chart().line(dates, report.rolling_sharpe, name="Sharpe ratio")
        figure.line(dates, report.rolling_volatility, name="volatility", yaxis="y2")
        figure.layout["yaxis2"] = {
            "overlaying": "y",
            "side": "right",
            "tickformat": ".0%",
            "rangemode": "tozero",
            "showgrid": False,
        }
        figure.layout["legend"] = {"orientation": "h", "y": 1.15}
        figure.axes("", "Sharpe", type="category", nticks=10, tickangle=0)
        told = f"Of the last {performance.WINDOW} sessions, annualised."
        sections.append(PageSection("Rolling Sharpe ratio and volatility", told, figure.draw()))
    if len(returns) >= performance.FEWEST:
        counts, edges = np.histogram(100.0 * returns, bins=min(30, max(5, len(returns) // 3)))
        middles = (edges[:-1] + edges[1:]) / 2.0
        figure = Chart().bar(middles, counts, marker={"color": BLUE})
        figure.layout |= {"showlegend": False, "bargap": 0.05}
        at_risk = report.summary["value_at_risk_95"]
        if at_risk is not None:
            tallest = float(counts.max())
            line = {"color": MUTED, "dash": "dash"}
            x = [-100.0 * at_risk] * 2
            figure.line(x, [0.0, tallest], name="value at risk", line=line)
        figure.axes("return of a session, %", "sessions")
        told = (
            f"Value at risk (95 %) {in_percent(at_risk)}, expected shortfall "
            f"{in_percent(report.summary['expected_shortfall_95'])}; "
            "below 20 sessions neither is told."
        )
        sections.append(PageSection("Returns of sessions", told, figure.draw(260)))
    if report.drawdowns:
        rows = [
            (
                dates[fall.begins],
                dates[fall.lowest],
                "not yet" if fall.recovers is None else dates[fall.recovers],
                str((fall.recovers or len(dates)) - fall.begins),
                percent(-fall.depth),
            )
            for fall in report.drawdowns
        ]
        heads = ("from", "lowest", "recovered", "sessions", "depth")
        sections.append(PageSection("Worst drawdowns", "", table(heads, rows, (0, 1, 2))))
    return sections


def _groups(heading: str, told: str, name: str, groups: Sequence[Group]) -> PageSection:
    if not groups:
        return PageSection(heading, "No trade was closed.", "")
    heads = (name, "trades", "won", "profit", "fees", "best", "worst")
    rows = [
        (
            group.name.replace("_", " ") if name == "strategy" else group.name,
            str(group.trades),
            in_percent(group.won_share),
            money(group.profit),
            f"{group.fees:,.2f}",
            money(group.best),
            money(group.worst),
        )
        for group in groups
    ]
    return PageSection(heading, told, table(heads, rows))


def _by_time(report: Report) -> list[PageSection]:
    if not report.trades:
        return []
    hours = Chart().bar(
        [group.name for group in report.by_hour],
        [group.profit for group in report.by_hour],
        marker={"color": [GAIN if g.profit >= 0.0 else LOSS for g in report.by_hour]},
    )
    hours.layout["showlegend"] = False
    hours.axes("hour of the close, New York", "USD", type="category")
    days = _groups("", "", "day", report.by_day).content
    if len(report.by_day) > _MOST_SHOWN:
        days = folded(f"{len(report.by_day)} days", days)
    return [
        PageSection("By hour", "Profit of the trades that were closed in it.", hours.draw(240)),
        PageSection("By day", "Profit of the trades that were closed on it.", days),
    ]


def _by_part(report: Report) -> PageSection:
    """Return what closed trades earned by what."""
    heading = "By what it was earned"
    known = [trade for trade in report.trades if trade.parts is not None]
    if not known:
        told = "Not known: no trade was closed, or the journal is of a version that tells nothing."
        return PageSection(heading, told, "")
    told = (
        f"Of {len(known)} closed trades, {money(sum(trade.profit for trade in known))} in all: "
        "moves of the underlying, their curvature, time, volatility, what fills paid beyond the "
        "marks, and the rest, which is of higher order, settlements, dividends, and what nobody "
        "watched."
    )
    figure = Chart().bar(
        list(report.by_part),
        list(report.by_part.values()),
        marker={"color": [GAIN if each >= 0.0 else LOSS for each in report.by_part.values()]},
    )
    figure.layout["showlegend"] = False
    figure.axes("", "USD", type="category")
    rows = [(name, money(amount)) for name, amount in report.by_part.items()]
    return PageSection(heading, told, figure.draw(240) + table(("part", "USD"), rows))


def _open(report: Report) -> PageSection:
    if not report.open:
        return PageSection("Open", "Nothing is open.", "")
    rows = [
        (
            trade.underlying,
            trade.strategy.replace("_", " "),
            str(trade.units),
            f"{new_york(trade.opened_ns):%Y-%m-%d %H:%M}",
            f"{'received' if trade.net_cash > 0.0 else 'paid'} {abs(trade.net_cash):,.2f}",
            f"{trade.fees:,.2f}",
        )
        for trade in report.open
    ]
    heads = ("underlying", "strategy", "units", "opened", "so far", "fees")
    more = [f"{trade.reason_open}.{_parts(trade)} {_legs(trade)}" for trade in report.open]
    return PageSection("Open", "So far is after fees.", table(heads, rows, (0, 1, 3, 4), more))


def _stress(report: Report) -> PageSection:
    heading, stress = "If prices and volatilities moved at once", report.stress
    if stress is None:
        return PageSection(heading, f"Not known: {report.no_stress}.", "")
    heads = ("volatility \\ spot", *(f"{spot:+.0%}" for spot in stress.spots))
    rows = [
        (f"{vol:+.0%}", *(f"{change:+,.0f}" for change in changes))
        for vol, changes in zip(stress.volatilities, stress.changes, strict=True)
    ]
    told = f"Change of the account's value, USD, as of {stress.taken}; all underlyings alike."
    return PageSection(heading, told, table(heads, rows))


def _trades(report: Report) -> PageSection:
    if not report.trades:
        return PageSection("Trades", "None was closed.", "")
    trades = report.trades[::-1]
    content = _trade_table(trades[:_MOST_SHOWN])
    if len(trades) > _MOST_SHOWN:
        older = _trade_table(trades[_MOST_SHOWN:])
        content += folded(f"{len(trades) - _MOST_SHOWN} older trades", older)
    return PageSection("Trades", "The newest first.", content)


def _trade_table(trades: Sequence[Trade]) -> str:
    rows = [
        (
            f"{new_york(trade.closed_ns):%Y-%m-%d %H:%M}",
            f"{new_york(trade.opened_ns):%Y-%m-%d %H:%M}",
            trade.underlying,
            trade.strategy.replace("_", " "),
            str(trade.units),
            f"{trade.fees:,.2f}",
            money(trade.profit),
        )
        for trade in trades
    ]
    more = [
        f"Opened: {trade.reason_open}. Closed: {trade.reason_close}.{_parts(trade)} {_legs(trade)}"
        for trade in trades
    ]
    heads = ("closed", "opened", "underlying", "strategy", "units", "fees", "profit")
    return table(heads, rows, (0, 1, 2, 3), more)


def _parts(trade: Trade) -> str:
    """Tell what it earned by what, as a sentence after others; empty where that is not known."""
    if trade.parts is None:
        return ""
    return f" Earned by {', '.join(f'{name} {money(each)}' for name, each in trade.parts.items())}."


def _legs(trade: Trade) -> str:
    """Return what happened to its legs, by the minute and in what way."""
    told: dict[tuple[str, str], list[str]] = {}
    for leg in trade.legs:
        when = f"{new_york(leg.ts_ns):%m-%d %H:%M}"
        done = f"{leg.quantity:+d} {leg.symbol} at {leg.price:.2f}"
        told.setdefault((when, leg.what), []).append(done)
    return "; ".join(f"{when} {what} {', '.join(each)}" for (when, what), each in told.items())


def _notes(heading: str, told: str, notes: Sequence[Note]) -> PageSection:
    if not notes:
        return PageSection(heading, told or "Nothing.", "")
    rows = [
        (f"{new_york(note.ts_ns):%Y-%m-%d %H:%M}", note.what, note.told) for note in reversed(notes)
    ]
    content = table(("when", "what", ""), rows[:_MOST_SHOWN], (0, 1, 2))
    if len(rows) > _MOST_SHOWN:
        older = table(("when", "what", ""), rows[_MOST_SHOWN:], (0, 1, 2))
        content += folded(f"{len(rows) - _MOST_SHOWN} older", older)
    return PageSection(heading, told, content)


def _worked(report: Report) -> PageSection:
    told = (
        "Limits at mid that stepped to the touch, of the whole journal. Cancelled are those of "
        "which nothing was filled: at the close, by another decision, or by a limit."
    )
    rows = [(name, str(count)) for name, count in report.worked.items()]
    return PageSection("Orders that worked", told, table(("", "orders"), rows))


def _rejections(report: Report) -> PageSection:
    rows = [(name.replace("_", " "), str(count)) for name, count in report.rejections.items()]
    return PageSection("Orders refused", "Since the account was opened.", table(("why", ""), rows))


def _figures(report: Report) -> PageSection:
    rows = [
        (name.replace("_", " "), figure_text(name, value)) for name, value in report.summary.items()
    ]
    return PageSection("All figures", "Ratios are annualised.", table(("figure", ""), rows))


_SHARES = {"return", "volatility", "max_drawdown", "value_at_risk_95", "expected_shortfall_95",
           "best_day", "worst_day", "win_rate", "mean_margin_used"}  # fmt: skip
_RATIOS = {"sharpe", "sortino", "calmar", "profit_factor", "mean_hours_held"}


def figure_text(name: str, value: float | int | None) -> str:
    """One figure of the summary, for people."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if name in _SHARES:
        return f"{value:.2%}"
    return f"{value:.2f}" if name in _RATIOS else f"{value:,.2f}"
