"""A backtest as one HTML file that needs no network."""

from collections.abc import Mapping
from html import escape

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from trading.envs.catalogue import ACTIONS
from trading.evaluation import metrics
from trading.evaluation.backtest import Backtest
from trading.market.chain import F64

_FONT = "system-ui, sans-serif"
_STYLE = f"""body{{font:15px {_FONT};color:#1f2933;max-width:1080px;
margin:40px auto;padding:0 20px}}
h1{{font-size:26px}}h2{{font-size:18px;margin-top:36px}}table{{border-collapse:collapse;width:100%}}
td,th{{padding:6px 10px;text-align:right;border-bottom:1px solid #e4e7eb}}
td:first-child,th:first-child{{text-align:left}}p{{color:#52606d}}"""


def summary(result: Backtest, seed: int = 0) -> list[tuple[str, str]]:
    """Name and value of each figure, as the command and the tear sheet show them."""
    returns = result.returns
    low, high = metrics.bootstrap_interval(
        returns, lambda r: float(np.mean(r)), generator=np.random.default_rng(seed)
    )
    ratio = "{:.2f}".format
    figures = [
        ("sessions", str(len(returns))),
        ("mean return", f"{np.mean(returns):+.3%}"),
        ("95 % interval", f"{low:+.3%} to {high:+.3%}" if np.isfinite(low) else "-"),
        ("max drawdown", f"{metrics.max_drawdown(returns):.2%}"),
        ("Sharpe", ratio(metrics.sharpe(returns))),
        ("Sortino", ratio(metrics.sortino(returns))),
        ("Calmar", ratio(metrics.calmar(returns))),
        ("win rate", ratio(metrics.win_rate(returns))),
        ("profit factor", ratio(metrics.profit_factor(returns))),
        ("fills a session", ratio(float(np.mean(result.trades)))),
    ]
    return [(name, "-" if value == "nan" else value) for name, value in figures]


def tear_sheet(title: str, results: Mapping[str, Backtest]) -> str:
    """The page; the first result is the one whose actions and sessions are shown."""
    name, main = next(iter(results.items()))
    columns = {each: summary(result) for each, result in results.items()}
    heads = [figure for figure, _ in columns[name]]
    table = _table(
        ("", *heads), [(each, *(v for _, v in figures)) for each, figures in columns.items()]
    )
    sums = {each: 100.0 * np.cumsum(result.returns) for each, result in results.items()}
    falls = {
        each: total - np.maximum.accumulate(np.maximum(total, 0.0)) for each, total in sums.items()
    }
    mix = go.Figure(
        go.Bar(
            x=[int(count) for count in main.actions if count],
            y=[ACTIONS[a].name for a, count in enumerate(main.actions) if count],
            orientation="h",
        )
    )
    days = _table(
        ("session", "return", "fills"),
        [(day, f"{main.returns[d]:+.3%}", str(main.trades[d])) for d, day in enumerate(main.names)],
    )
    sections = [
        ("Summary", table),
        ("Sum of session returns, %", _div(_lines(sums))),
        ("Drawdown, % of the initial capital", _div(_lines(falls))),
        (f"Actions of {name}", _div(mix)),
        (f"Sessions of {name}", days),
    ]
    body = "".join(f"<h2>{escape(head)}</h2>{content}" for head, content in sections)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body>"
        f"<h1>{escape(title)}</h1><p>Every session begins with the initial capital; returns are "
        f"summed, not compounded. Ratios are annualised.</p>{body}</body></html>\n"
    )


def _lines(series: Mapping[str, F64]) -> go.Figure:
    figure = go.Figure()
    for name, values in series.items():
        x = list(range(1, len(values) + 1))
        # Random trading loses so much that beside it nothing else can be told apart.
        shown = "legendonly" if name == "random" else True
        figure.add_scatter(x=x, y=values.tolist(), name=name, mode="lines+markers", visible=shown)
    figure.update_xaxes(title="session")
    return figure


def _div(figure: go.Figure) -> str:
    figure.update_layout(
        template="plotly_white", height=340, font={"family": _FONT}, margin={"t": 10, "r": 10}
    )
    figure.update_yaxes(automargin=True)
    return str(
        figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False})
    )


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(each)}</td>" for each in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
