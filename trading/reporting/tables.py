"""An account's journal as pandas tables; every figure is the ledger's or the journal's own."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from trading.execution.events import DecisionMade, Event, OrderFilled
from trading.execution.journal import Journal
from trading.execution.money import round_usd
from trading.execution.portfolio import Account
from trading.reporting.ledger import GREEKS, Ledger, OrderTold, Trade


class TableColumn(NamedTuple):
    """One column of a table."""

    name: str
    kind: str
    """`time` (UTC), `str`, `int64`, `float64`, or `bool`."""
    meaning: str


def _of(*columns: tuple[str, str, str]) -> tuple[TableColumn, ...]:
    return tuple(TableColumn(*each) for each in columns)


_TIME = ("time", "time", "exchange time, UTC")
TABLES: Mapping[str, tuple[TableColumn, ...]] = {
    "fills": _of(
        _TIME,
        ("fill_id", "str", "number of the fill"),
        ("order_id", "str", "of the order that filled"),
        ("underlying", "str", "ticker"),
        ("strategy", "str", "shape of the position, as in `docs/actions.md`"),
        ("intent", "str", "`open` or `close`"),
        ("limit", "float64", "net limit, USD a share, a credit negative; NaN: at the market"),
        ("step", "int64", "so often the limit had come nearer to the touch"),
        ("units", "int64", "units that traded"),
        ("premium", "float64", "change of cash before fees, USD; + received"),
        ("fees", "float64", "USD, 0 or more"),
        ("cash", "float64", "change of cash after fees, USD"),
    ),
    "legs": _of(
        _TIME,
        ("fill_id", "str", "of the fill that it is a part of"),
        ("symbol", "str", "contract, or the underlying"),
        ("quantity", "int64", "signed contracts, or round lots of stock; + bought"),
        ("price", "float64", "USD a share"),
    ),
    "decisions": _of(
        _TIME,
        ("underlying", "str", "ticker"),
        ("action", "str", "what was chosen, as in `docs/actions.md`"),
        ("probability", "float64", "with which it was chosen; NaN in older journals"),
        ("value", "float64", "return that the policy expected from here, in rewards"),
        ("reward", "float64", "that the decision before it earned"),
        ("profit", "float64", "what the underlying has made since the account was opened, USD"),
        ("equity", "float64", "of the account at that bar, USD; NaN where it is not known"),
        ("masked", "bool", "it was not allowed, and became a hold"),
        ("weights_version", "int64", "of the policy; 0 of a rule-based trader"),
        ("trader", "str", "name of the rule-based trader; empty: the policy"),
    ),
    "equity": _of(
        _TIME,
        ("equity", "float64", "of the account after that bar, USD"),
    ),
    "trades": _of(
        ("underlying", "str", "ticker"),
        ("strategy", "str", "shape of the position"),
        ("order_id", "str", "of the order that opened it; of a spin-off with `/` and the action"),
        ("opened", "time", "first fill, UTC"),
        ("closed", "time", "end, UTC; NaT while it is open"),
        ("units", "int64", "most that were open at once"),
        ("profit", "float64", "after all fees, USD; NaN while it is open"),
        ("fees", "float64", "USD"),
        ("net_cash", "float64", "change of cash so far, after fees, USD"),
        ("delta", "float64", "part of the profit, USD: moves of the underlying; NaN: not known"),
        ("gamma", "float64", "curvature of such moves"),
        ("theta", "float64", "passing of time"),
        ("vega", "float64", "changes of volatility"),
        ("spread", "float64", "what fills brought beyond the marks, below 0 as a rule"),
        ("rest", "float64", "the profit without these and the fees; NaN while it is open"),
        ("champion", "int64", "that was the account's when it was opened; 0: none"),
        ("reason_open", "str", "why it was opened"),
        ("reason_close", "str", "why it ended; empty while it is open"),
    ),
    "days": _of(
        ("date", "str", "session, YYYY-MM-DD"),
        ("equity", "float64", "at the close, USD"),
        ("profit", "float64", "change of equity since the close before, without cash moved, USD"),
        ("gain", "float64", "the same as a fraction"),
        ("moved", "float64", "cash paid in (+) or taken out (-) since the close before, USD"),
        ("realised", "float64", "profit of trades that ended, USD"),
        ("fees", "float64", "USD"),
        ("fills", "int64", "number of them"),
        ("interest", "float64", "received less paid, USD"),
        ("open_trades", "int64", "held at the close"),
        ("is_over", "bool", "False for a session that has not ended yet"),
    ),
}
"""Every table and its columns, in order; `docs/api.md` lists them."""


class JournalTables:
    """What a journal tells, as tables that are made when they are first asked for.

    Parameters
    ----------
    path
        File of a journal. It is read and not changed, also while the account trades.

    Attributes
    ----------
    account : the account's fold at the journal's end

    Raises
    ------
    JournalError
        It is not there, is damaged, or another version wrote it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with Journal(path, read_only=True) as journal:
            self._read(journal.events())

    def _read(self, events: Iterable[Event]) -> None:
        ledger = self._ledger = Ledger()
        self._fills: list[tuple[OrderFilled, OrderTold]] = []
        self._decisions: list[DecisionMade] = []
        for event in events:
            ledger.take(event)
            if isinstance(event, OrderFilled):
                self._fills.append((event, ledger.order(event.fill.order_id)))
            elif isinstance(event, DecisionMade):
                self._decisions.append(event)
        ledger.finish()

    @property
    def account(self) -> Account:
        """The account's fold at the journal's end."""
        return self._ledger.account

    @cached_property
    def fills(self) -> pd.DataFrame:
        """A row for each fill."""
        return _table(
            "fills",
            [
                (
                    event.ts_ns,
                    fill.fill_id,
                    fill.order_id,
                    fill.underlying,
                    told.order.strategy,
                    str(told.order.intent),
                    float("nan") if told.order.limit_price is None else told.order.limit_price,
                    told.step,
                    fill.units,
                    fill.premium,
                    fill.fees,
                    round_usd(fill.premium - fill.fees),
                )
                for event, told in self._fills
                for fill in [event.fill]
            ],
        )

    @cached_property
    def legs(self) -> pd.DataFrame:
        """A row for each leg of each fill."""
        return _table(
            "legs",
            [
                (event.ts_ns, event.fill.fill_id, leg.symbol, leg.quantity, leg.price)
                for event, _ in self._fills
                for leg in event.fill.legs
            ],
        )

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """A row for each decision, one per underlying and bar."""
        equity, missing = dict(self._ledger.equity), float("nan")
        return _table(
            "decisions",
            [
                (
                    each.ts_ns,
                    each.underlying,
                    each.action_name,
                    missing if each.probability is None else each.probability,
                    each.value,
                    each.reward,
                    missing if each.profit is None else each.profit,
                    equity.get(each.ts_ns, missing),
                    each.masked,
                    each.weights_version,
                    each.trader,
                )
                for each in self._decisions
            ],
        )

    @cached_property
    def equity(self) -> pd.DataFrame:
        """A row for each bar."""
        return _table("equity", self._ledger.equity)

    @cached_property
    def trades(self) -> pd.DataFrame:
        """A row for each trade: those that ended in that order, then those that are open."""
        ledger = self._ledger
        return _table("trades", [_trade(each) for each in [*ledger.trades, *ledger.open.values()]])

    @cached_property
    def days(self) -> pd.DataFrame:
        """A row for each session."""
        names = [each.name for each in TABLES["days"]]
        rows = [tuple(getattr(day, name) for name in names) for day in self._ledger.days]
        return _table("days", rows)


def _trade(trade: Trade) -> tuple[Any, ...]:
    is_open, parts = not trade.closed_ns, trade.parts or {}
    return (
        trade.underlying,
        trade.strategy,
        trade.order_id,
        trade.opened_ns,
        np.iinfo(np.int64).min if is_open else trade.closed_ns,
        trade.units,
        float("nan") if is_open else trade.profit,
        trade.fees,
        trade.net_cash,
        *(parts.get(name, float("nan")) for name in (*GREEKS, "spread", "rest")),
        trade.champion,
        trade.reason_open,
        trade.reason_close,
    )


def _table(name: str, rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    columns = TABLES[name]
    values = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    return pd.DataFrame(
        {
            column.name: _series(column.kind, each)
            for column, each in zip(columns, values, strict=True)
        }
    )


def _series(kind: str, values: Sequence[Any]) -> "pd.Series[Any]":
    if kind == "time":
        # The lowest number is pandas' own "no time".
        stamps = pd.to_datetime(np.array(values, dtype=np.int64).view("datetime64[ns]"), utc=True)
        return pd.Series(stamps)
    return pd.Series(list(values), dtype=kind)


def columns_table(name: str) -> str:
    """Return the columns of a table as a Markdown table, for `docs/api.md`."""
    rows = [f"| `{each.name}` | {each.kind} | {each.meaning} |" for each in TABLES[name]]
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *rows]) + "\n"
