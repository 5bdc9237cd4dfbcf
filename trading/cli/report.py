"""`trading report`: what an account did, from its journal."""

import json
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading.cli.common import (
    ConfigOption,
    JsonOption,
    SetOption,
    StrategyOption,
    check_output,
    failures,
    misuse,
    settings_for,
)
from trading.files import write

if TYPE_CHECKING:
    from rich.table import Table

    from trading.config import Settings
    from trading.execution.journal import Journal
    from trading.reporting.ledger import Day, Ledger, Trade
    from trading.reporting.report import Group, Report
    from trading.reporting.stress import Stress

_STATUS_TIMEOUT_S = 3.0
_WIDTH = 110
_MOST_ROWS = 10


def report(
    config: ConfigOption = None,
    overrides: SetOption = None,
    strategy: StrategyOption = None,
    first: Annotated[str | None, typer.Option("--from", help="First day, YYYY-MM-DD.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day, YYYY-MM-DD.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page to this file.")] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Another journal's file; default: the account's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what an account did: profit by day, underlying and strategy, risk, every trade.

    Everything is read from the journal, also while the account trades. The stress of the open
    position takes the marks that the running application tells.
    """
    check_output("--html", html, ".html")
    from trading.cli.data import day_of

    begin, end = day_of("--from", first), day_of("--to", last)
    if begin is not None and end is not None and end < begin:
        misuse(f"--to {end} is before --from {begin}")
    settings = settings_for(config, overrides or [], strategy)
    from trading.execution.journal import Journal
    from trading.live.assembly import journal_path
    from trading.reporting.report import make_report

    with failures(), Journal(journal or journal_path(settings), read_only=True) as opened:
        ledger = _read(opened)
        stress = _stress(settings, ledger) if ledger.open else "nothing is open"
        made = make_report(ledger, ledger.between(begin, end), stress)
        if html is not None:
            from trading.reporting.sheet import report_page

            write(html, report_page(made).encode())
        if as_json:
            print(json.dumps(made.plain()))
        else:
            _print(made)
            if html is not None:
                print(f"page: {html}")


def _read(journal: "Journal") -> "Ledger":
    from trading.progress import counted
    from trading.reporting.ledger import read_ledger

    with counted("reading the journal", "events", journal.last_seq) as progress:
        return read_ledger(journal.events(), progress)


def _stress(settings: "Settings", ledger: "Ledger") -> "Stress | str":
    """Of the position that the running application tells, or why it is not known."""
    from trading.errors import DataError
    from trading.reporting.stress import stress_of_status

    account = ledger.account
    # The root is another account's where several are served on one port.
    for path in ("", f"/{account.account_id}"):
        status = _status(settings, path)
        told = status.get("account")
        if isinstance(told, dict) and told.get("id") == account.account_id:
            try:
                return stress_of_status(status, account)
            except DataError as error:
                return str(error)
    return (
        "it takes the marks that the running application has, and none of this account answers at "
        f"port {settings.serving.port}; one that was started with --port N is found by --set "
        "serving.port=N"
    )


def _status(settings: "Settings", path: str) -> dict[str, Any]:
    """Return what an application tells of itself; nothing where none answers."""
    serving = settings.serving
    host = "127.0.0.1" if serving.host == "0.0.0.0" else serving.host
    try:
        url = f"http://{host}:{serving.port}{path}/status"
        with urllib.request.urlopen(url, timeout=_STATUS_TIMEOUT_S) as answer:
            told = json.load(answer)
    except (OSError, ValueError, HTTPException):
        return {}
    return told if isinstance(told, dict) else {}


def _print(made: "Report") -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    period = f"{made.first} to {made.last}" if made.first else "no session yet"
    console.print(f"account {made.account}, {period}; USD after fees")
    console.print(_figures(made))
    if made.by_underlying:
        console.print(_groups("By underlying", made.by_underlying))
    if made.by_strategy:
        console.print(_groups("By strategy", made.by_strategy))
    if made.by_part:
        console.print(_by_part(made))
    if made.stress is not None:
        console.print(_stress_table(made.stress))
    elif made.open:
        told = f"If prices and volatilities moved at once: not known, {made.no_stress}"
        console.print(told, markup=False)
    if made.by_hour:
        console.print(_groups("By hour of the close, New York", made.by_hour))
    if made.days:
        console.print(_days(made.days[-_MOST_ROWS:]))
    trades = [*made.trades[-_MOST_ROWS:], *made.open[:_MOST_ROWS]]
    if trades:
        console.print(_trades(trades))
        if any(trade.parts is not None for trade in trades):
            console.print(_shares(trades))
        console.print(_legs(trades))


def _table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for name in texts:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _figures(made: "Report") -> "Table":
    """Return the summary, two figures a row."""
    from rich import box
    from rich.table import Table

    from trading.reporting.sheet import figure_text

    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    for _ in range(2):
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
    told = [(n.replace("_", " "), figure_text(n, v)) for n, v in made.summary.items()]
    half = (len(told) + 1) // 2
    for place in range(half):
        right = told[half + place] if half + place < len(told) else ("", "")
        table.add_row(*told[place], *right)
    return table


def _groups(title: str, rows: Sequence["Group"]) -> "Table":
    from trading.reporting.sheet import in_percent, money

    table = _table(title, [""], ["trades", "won", "profit", "fees"])
    for each in rows:
        fees = f"{each.fees:,.2f}"
        table.add_row(
            each.name, str(each.trades), in_percent(each.won_share), money(each.profit), fees
        )
    return table


def _by_part(made: "Report") -> "Table":
    from trading.reporting.sheet import money

    table = _table("Closed trades, by what they earned it", [], list(made.by_part))
    table.add_row(*(money(each) for each in made.by_part.values()))
    return table


def _stress_table(stress: "Stress") -> "Table":
    heads = [f"{spot:+.0%}" for spot in stress.spots]
    title = (
        "If prices (across) and volatilities (down) moved at once: change of equity, USD, "
        f"as of {stress.taken}"
    )
    table = _table(title, ["volatility"], heads)
    for vol, changes in zip(stress.volatilities, stress.changes, strict=True):
        table.add_row(f"{vol:+.0%}", *(f"{change:+,.0f}" for change in changes))
    return table


def _days(days: Sequence["Day"]) -> "Table":
    from trading.reporting.sheet import money, percent

    table = _table("Last days", [""], ["equity", "profit", "return", "fills", "fees"])
    for day in days:
        table.add_row(
            day.date + ("" if day.is_over else " (not over)"),
            f"{day.equity:,.2f}",
            money(day.profit),
            percent(day.gain),
            str(day.fills),
            f"{day.fees:,.2f}",
        )
    return table


def _trades(trades: Sequence["Trade"]) -> "Table":
    from trading.reporting.ledger import new_york
    from trading.reporting.sheet import money

    heads = ["#", "closed, New York", "underlying", "strategy"]
    table = _table("Last trades, and open ones", heads, ["profit"])
    table.add_column("why closed", overflow="fold")
    for number, trade in enumerate(trades, 1):
        closed = f"{new_york(trade.closed_ns):%Y-%m-%d %H:%M}" if trade.closed_ns else "open"
        profit = money(trade.profit) if trade.closed_ns else "-"
        table.add_row(
            str(number), closed, trade.underlying, trade.strategy, profit, trade.reason_close
        )
    return table


def _shares(trades: Sequence["Trade"]) -> "Table":
    """Return what each closed one earned by what; a dash where the journal does not tell."""
    from trading.reporting.ledger import PARTS

    table = _table("Their profit by what earned it, USD", ["#"], PARTS)
    for number, trade in enumerate(trades, 1):
        if trade.closed_ns:
            parts = trade.parts
            cells = ["-"] * len(PARTS) if parts is None else [f"{parts[n]:+,.2f}" for n in PARTS]
            table.add_row(str(number), *cells)
    return table


def _legs(trades: Sequence["Trade"]) -> "Table":
    from trading.reporting.ledger import new_york

    table = _table("Their legs", ["#", "New York", "what", "contract"], ["quantity", "price"])
    for number, trade in enumerate(trades, 1):
        for leg in trade.legs:
            when = f"{new_york(leg.ts_ns):%m-%d %H:%M}"
            quantity, price = f"{leg.quantity:+d}", f"{leg.price:,.2f}"
            table.add_row(str(number), when, leg.what, leg.symbol, quantity, price)
    return table
