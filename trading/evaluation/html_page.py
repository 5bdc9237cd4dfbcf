"""Pages of tables and charts as one HTML file each, which needs no network.

The charts are drawn by Plotly's basic bundle (MIT), which lies beside this module, compressed, and
goes into each page as it is: browsers unpack it themselves.
"""

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple

_BUNDLE = "vendor/plotly-basic-4.1.1.min.js.gz"
_FONT = "system-ui, sans-serif"
_STYLE = f"""body{{font:15px {_FONT};color:#1f2933;background:#fff;max-width:1080px;
margin:32px auto;padding:0 20px}}
h1{{font-size:26px;margin:0 0 4px}}h2{{font-size:18px;margin:36px 0 4px}}
h3{{font-size:14px;margin:18px 0 4px}}
table{{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}}
td,th{{padding:5px 8px;text-align:right;border-bottom:1px solid #e4e7eb;white-space:nowrap}}
td.text,th.text{{text-align:left}}td.wide{{white-space:normal;min-width:180px}}
tr.more td{{white-space:normal;text-align:left;color:#52606d;font-size:12px;padding-top:0}}
tr.has td{{border-bottom:0;padding-bottom:2px}}
td:first-child,th:first-child{{text-align:left}}p{{color:#52606d;margin:4px 0}}
.scroll{{overflow-x:auto}}.gain{{color:#0b6e4f}}.loss{{color:#b3261e}}
dl{{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;font-size:13px;margin:12px 0}}
dt{{color:#52606d}}dd{{margin:0;overflow-wrap:anywhere}}
.cards{{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:10px;
margin:16px 0}}
.cards div{{border:1px solid #e4e7eb;border-radius:8px;padding:8px 12px}}
.cards b{{display:block;font-size:18px;font-variant-numeric:tabular-nums}}
.cards span{{color:#52606d;font-size:12px}}
summary{{cursor:pointer;color:#52606d}}
@media print{{details{{display:block}}}}"""
_DRAW = """(async()=>{const packed=Uint8Array.from(
atob(document.getElementById("plotly").textContent),c=>c.charCodeAt(0));
const stream=new Blob([packed]).stream().pipeThrough(
new DecompressionStream("gzip"));(0,eval)(await new Response(stream).text());
for(const figure of document.querySelectorAll("script.figure")){const {data,layout}=
JSON.parse(figure.textContent);Plotly.newPlot(figure.parentElement,data,layout,
{displayModeBar:false,responsive:true});}document.body.dataset.drawn="yes";})();"""
_HEIGHT = 340
_DIGITS = 6
"""Significant ones of a number in a chart."""

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
GAIN, LOSS, BLUE = "#2a9d74", "#d1493f", "#2563a8"
_COLOURS = (BLUE, "#d9822b", "#2a9d74", "#b3498f", "#7a6ff0", "#8a6d3b", "#5c6b77", "#c0392b")


class PageSection(NamedTuple):
    """One part of a page; `told` is a sentence below its heading, `content` HTML."""

    heading: str
    told: str
    content: str


class Chart:
    """A chart as Plotly's JSON; methods add traces and change the layout."""

    def __init__(self) -> None:
        self.data: list[dict[str, Any]] = []
        axis = {"gridcolor": GRID, "zerolinecolor": "#9aa5b1", "automargin": True}
        self.layout: dict[str, Any] = {
            "font": {"family": _FONT, "color": INK, "size": 12},
            "margin": {"t": 10, "r": 10, "b": 40, "l": 50},
            "xaxis": {**axis, "title": {"text": ""}},
            "yaxis": {**axis, "title": {"text": ""}},
            "colorway": list(_COLOURS),
            "paper_bgcolor": "#fff",
            "plot_bgcolor": "#fff",
            "showlegend": True,
        }

    def bar(self, x: Iterable[Any], y: Iterable[Any], **trace: Any) -> "Chart":
        """Add bars."""
        self.data.append({"type": "bar", "x": list(x), "y": list(y), **trace})
        return self

    def line(self, x: Iterable[Any], y: Iterable[Any], **trace: Any) -> "Chart":
        """Add a line, or points by `mode`."""
        self.data.append({"type": "scatter", "mode": "lines", "x": list(x), "y": list(y), **trace})
        return self

    def axes(self, x_title: str = "", y_title: str = "", **x_axis: Any) -> "Chart":
        """Name the axes, and change the horizontal one."""
        self.layout["xaxis"] |= {"title": {"text": x_title}, **x_axis}
        self.layout["yaxis"] |= {"title": {"text": y_title}}
        return self

    def draw(self, height: int = _HEIGHT, label: str = "") -> str:
        """Return the chart as HTML; `label` says what it shows to who cannot see it."""
        layout = {**self.layout, "height": height}
        told = json.dumps(_plain({"data": self.data, "layout": layout}), separators=(",", ":"))
        safe = told.replace("<", "\\u003c")
        return (
            f'<div role="img" aria-label="{escape(label)}" style="min-height:{height}px">'
            f'<script type="application/json" class="figure">{safe}</script></div>'
        )


def page(title: str, intro: str, sections: Sequence[PageSection]) -> str:
    """Return a whole page; `intro` is HTML below the title."""
    body = "".join(
        f"<h2>{escape(each.heading)}</h2><p>{escape(each.told)}</p>{each.content}"
        for each in sections
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1>{intro}{body}"
        f'<script type="application/octet-stream" id="plotly">{_bundle()}</script>'
        f"<script>{_DRAW}</script></body></html>\n"
    )


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    text: Sequence[int] = (0,),
    more: Sequence[str] = (),
) -> str:
    """Return a table; the columns in `text` hold words, all others numbers, signed ones coloured.

    `more` is what is told below each row, where it is given.
    """
    head = "".join(
        f'<th class="text">{escape(each)}</th>' if i in text else f"<th>{escape(each)}</th>"
        for i, each in enumerate(heads)
    )
    shown = ["".join(_cell(each, i in text) for i, each in enumerate(row)) for row in rows]
    below = [
        f'<tr class="more"><td colspan="{len(heads)}">{escape(told)}</td></tr>' for told in more
    ] or [""] * len(shown)
    kind = ' class="has"' if more else ""
    body = "".join(f"<tr{kind}>{row}</tr>{told}" for row, told in zip(shown, below, strict=True))
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def cards(figures: Iterable[tuple[str, str]]) -> str:
    """Return the most important figures, large."""
    shown = "".join(
        f'<div><span>{escape(name)}</span><b class="{_sign(value)}">{escape(value)}</b></div>'
        for name, value in figures
    )
    return f'<div class="cards">{shown}</div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, one a line; long ones fold."""
    return (
        "<dl>"
        + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
        + "</dl>"
    )


def folded(summary: str, content: str) -> str:
    """Return what is shown once it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def _cell(value: str, is_text: bool) -> str:
    if is_text:
        kind = "text wide" if len(value) > 40 else "text"
        return f'<td class="{kind}">{escape(value)}</td>'
    sign = _sign(value)
    return f'<td class="{sign}">{escape(value)}</td>' if sign else f"<td>{escape(value)}</td>"


def _sign(value: str) -> str:
    if " to " in value:
        return ""
    if value[:1] == "+" and any(digit in value for digit in "123456789"):
        return "gain"
    return "loss" if value[:1] == "-" and len(value) > 1 else ""


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, its numbers as short as a chart can show."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value


@cache
def _bundle() -> str:
    packed = files(__package__).joinpath(_BUNDLE).read_bytes()
    return base64.b64encode(packed).decode()
