"""One session of one underlying as the environment was told it, whatever it comes from.

A recording of a live day and a day of the vendor's flat files become the same columns, so that
what trains or tests on one does on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from trading.data.catalog import Catalog, Kind
from trading.data.flatfiles import load_minute_bars, load_quotes, minute_bars_path
from trading.errors import DataError
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, ExchangeCalendar, Session
from trading.market.contracts import OptionContract, parse_symbol
from trading.market.corporate_actions import CorporateAction, bars_after

_NS_PER_MS = 1_000_000
_LONGEST_BREAK_DAYS = 7


class RecordedQuotes(NamedTuple):
    """Quotes that were applied, as columns of equal length n, in order of application.

    Attributes
    ----------
    contract: i64[n], position in the session's contracts
    bid, ask: f64[n], USD per share; 0 means that the side is absent
    bid_size, ask_size: f64[n], contracts
    ts_ns: i64[n], UTC; earlier than the open where a quote was known before
    sequence: i64[n], rises per contract; 0 for a snapshot, -1 where it is of the session before
    bar: i64[n], bars that had been closed before it
    """

    contract: NDArray[np.int64]
    bid: NDArray[np.float64]
    ask: NDArray[np.float64]
    bid_size: NDArray[np.float64]
    ask_size: NDArray[np.float64]
    ts_ns: NDArray[np.int64]
    sequence: NDArray[np.int64]
    bar: NDArray[np.int64]


class RecordedBars(NamedTuple):
    """Minute bars of the underlying, as columns of equal length n, in order of application.

    Attributes
    ----------
    start_ns: i64[n], UTC
    open, high, low, close, vwap: f64[n], USD per share
    volume: f64[n], shares
    bar: i64[n], decision bars that had been closed before it
    quotes_before: i64[n], quotes that had been applied before it
    """

    start_ns: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]
    vwap: NDArray[np.float64]
    bar: NDArray[np.int64]
    quotes_before: NDArray[np.int64]

    def stock_bars(self, symbol: str) -> list[StockBar]:
        """Return the rows as values."""
        columns = (column.tolist() for column in self[:7])
        return [StockBar(symbol, *row) for row in zip(*columns, strict=True)]

    @classmethod
    def of(
        cls,
        bars: Sequence[StockBar],
        bar: NDArray[np.int64] | None = None,
        quotes_before: NDArray[np.int64] | None = None,
    ) -> Self:
        """Columns of `bars`; without the last two, of bars that were known at the beginning."""
        values = np.array([each[1:] for each in bars], dtype=_BAR_FIELDS)
        none = np.zeros(len(bars), np.int64)
        columns = [np.ascontiguousarray(values[name]) for name in _BAR_FIELDS.names or ()]
        columns += [none if bar is None else bar, none if quotes_before is None else quotes_before]
        return cls(*columns)


_BAR_FIELDS = np.dtype(
    [("start_ns", np.int64)]
    + [(name, np.float64) for name in ("open", "high", "low", "close", "volume", "vwap")]
)


@dataclass(frozen=True, eq=False)
class RecordedSession:
    """What an environment is told of one underlying in one session.

    To replay it: `begin_session`, `warm_up` with `warm_up`, `list_contracts` with `contracts`;
    then, for each bar b, apply the quotes and bars whose `bar` is b and close the bar at
    `bar_end_ns[b]`. Events whose `bar` is T came after the last bar that was closed.

    Attributes
    ----------
    underlying: its symbol
    session: date, open and close
    contracts: what was listed, in the order of the listing
    warm_up: bars that had closed before the session was opened, oldest first
    quotes, bars: what was applied, in order
    bar_end_ns: i64[T], the decision times of the bars that were closed
    rate: risk-free rate that the options were read with; None: that of the rules
    """

    underlying: str
    session: Session
    contracts: list[OptionContract]
    warm_up: RecordedBars
    quotes: RecordedQuotes
    bars: RecordedBars
    bar_end_ns: NDArray[np.int64]
    rate: float | None = None

    @property
    def is_complete(self) -> bool:
        """Whether its last bar is the session's last."""
        return len(self.bar_end_ns) > 0 and int(self.bar_end_ns[-1]) >= self.session.close_ns

    @classmethod
    def from_flat_files(
        cls,
        folder: Path,
        day: date,
        underlying: str,
        calendar: ExchangeCalendar,
        bar_ns: int = MINUTE_NS,
        actions: Sequence[CorporateAction] = (),
    ) -> Self:
        """Return the session as flat files below `folder` tell it, in the vendor's layout.

        Listed is every contract that the file quotes, sorted by symbol, but no adjusted one.
        Events are cut into bars of `bar_ns` by their time as in live trading: one that is not
        later than a bar's end belongs to it, and one later than the close to none. Times are cut
        to milliseconds, which is what the stream tells. The bars of the session before, where
        their file is there, are the warm-up, in prices of after `actions`.

        Raises
        ------
        FlatFileError
            A file is missing or damaged.
        DataError
            `day` is no session, or the file quotes no contract of `underlying` in it.
        """
        session = _session_on(calendar, day)
        before = _session_before(calendar, day)
        table = load_quotes(folder, day, [underlying])
        quotes = _Quotes(
            table.symbols,
            table.contract,
            {name: getattr(table, name) for name in _QUOTE_COLUMNS},
        )
        warm_up = []
        if minute_bars_path(folder, before.date).is_file():
            warm_up = load_minute_bars(folder, before.date, [underlying])
            warm_up = bars_after(warm_up, underlying, actions, calendar, day)
        bars = load_minute_bars(folder, day, [underlying])
        return cls._cut(underlying, session, before, quotes, bars, warm_up, bar_ns)

    @classmethod
    def from_catalog(
        cls,
        catalog: Catalog,
        day: date,
        underlying: str,
        calendar: ExchangeCalendar,
        bar_ns: int = MINUTE_NS,
        source: str | None = None,
        actions: Sequence[CorporateAction] = (),
    ) -> Self:
        """Return the same from the catalogue; quotes are those of `source`, or of all.

        Raises
        ------
        DataError
            The catalogue lacks quotes or bars of that day, or as `from_flat_files` says.
        """
        session = _session_on(calendar, day)
        before = _session_before(calendar, day)
        rows = catalog.read(Kind.OPTION_QUOTES, underlying, day, source=source)
        quotes = _Quotes(rows.symbols, rows.contract, {name: rows[name] for name in _QUOTE_COLUMNS})
        warm_up = []
        if catalog.partitions(Kind.STOCK_BARS, before.date, underlying):
            warm_up = catalogued_bars(catalog, underlying, before.date)
            warm_up = bars_after(warm_up, underlying, actions, calendar, day)
        bars = catalogued_bars(catalog, underlying, day)
        return cls._cut(underlying, session, before, quotes, bars, warm_up, bar_ns)

    @classmethod
    def _cut(
        cls,
        underlying: str,
        session: Session,
        before: Session,
        quotes: _Quotes,
        bars: list[StockBar],
        warm_up: list[StockBar],
        bar_ns: int,
    ) -> Self:
        bar_end_ns = bar_ends(session, bar_ns)
        contracts, columns = _listed(underlying, session, quotes)
        ts_ns = columns["ts_ns"]
        if not (ts_ns > session.open_ns).any():
            raise DataError(
                f"no quote of {underlying} lies between the open and the close of {session.date}: "
                "nothing could be opened; check the times in that day's file, or leave it out"
            )
        in_session = [each for each in bars if each.start_ns + MINUTE_NS <= session.close_ns]
        known_ns = np.array([each.start_ns + MINUTE_NS for each in in_session], np.int64)
        return cls(
            underlying=underlying,
            session=session,
            contracts=contracts,
            warm_up=RecordedBars.of(
                [each for each in warm_up if before.open_ns <= each.start_ns < before.close_ns]
            ),
            quotes=RecordedQuotes(**columns, bar=np.searchsorted(bar_end_ns, ts_ns)),
            bars=RecordedBars.of(
                in_session, np.searchsorted(bar_end_ns, known_ns), np.searchsorted(ts_ns, known_ns)
            ),
            bar_end_ns=bar_end_ns,
        )


_QUOTE_COLUMNS = {
    "bid": np.float64,
    "ask": np.float64,
    "bid_size": np.float64,
    "ask_size": np.float64,
    "ts_ns": np.int64,
    "sequence": np.int64,
}


@dataclass(frozen=True)
class _Quotes:
    """Quotes of one day, sorted by time; `contract` indexes `symbols`."""

    symbols: list[str]
    contract: NDArray[np.int32]
    columns: dict[str, NDArray[Any]] = field(repr=False)


def bar_ends(session: Session, bar_ns: int) -> NDArray[np.int64]:
    """Return a session's decision times i64[T]: every `bar_ns` from the open, and the close."""
    inner = np.arange(session.open_ns + bar_ns, session.close_ns, bar_ns, dtype=np.int64)
    return np.append(inner, session.close_ns)


def _session_on(calendar: ExchangeCalendar, day: date) -> Session:
    session = calendar.session_on(day)
    if session is None:
        raise DataError(f"{day} is no session: the exchange was closed on that date")
    return session


def _session_before(calendar: ExchangeCalendar, day: date) -> Session:
    first = date.fromordinal(day.toordinal() - _LONGEST_BREAK_DAYS)
    return calendar.sessions(first, day)[-2]


def _listed(
    underlying: str, session: Session, quotes: _Quotes
) -> tuple[list[OptionContract], dict[str, NDArray[Any]]]:
    """Return the contracts of a file that are not adjusted, and their quotes up to the close."""
    parsed = [parse_symbol(symbol) for symbol in quotes.symbols]
    contracts = [contract for contract in parsed if not contract.is_adjusted]
    if not contracts:
        raise DataError(
            f"no contract of {underlying} is quoted on {session.date}: check the symbol, or import "
            "that day's option quotes"
        )
    listed = np.array([not contract.is_adjusted for contract in parsed])
    position = np.cumsum(listed, dtype=np.int64) - 1
    ts_ns = quotes.columns["ts_ns"] // _NS_PER_MS * _NS_PER_MS
    kept = listed[quotes.contract] & (ts_ns <= session.close_ns)
    columns = {
        name: quotes.columns[name][kept].astype(dtype) for name, dtype in _QUOTE_COLUMNS.items()
    }
    return contracts, columns | {
        "contract": position[quotes.contract[kept]],
        "ts_ns": ts_ns[kept],
    }


def catalogued_bars(catalog: Catalog, underlying: str, day: date) -> list[StockBar]:
    """Minute bars of a stock from the catalogue; raises DataError where it has none."""
    rows = catalog.read(Kind.STOCK_BARS, underlying, day)
    high, low, close = rows["high"], rows["low"], rows["close"]
    columns = (rows["start_ns"], rows["open"], high, low, close, rows["volume"])
    typical = (high + low + close) / 3.0
    return [
        StockBar(underlying, *row)
        for row in zip(*(column.tolist() for column in (*columns, typical)), strict=True)
    ]
