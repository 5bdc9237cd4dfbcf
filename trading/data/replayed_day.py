"""A recorded day to replay: from flat files, from recordings of live trading, or the catalogue."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trading.data.catalog import Catalog, Kind
from trading.data.flatfile_rows import day_bounds_ns
from trading.data.flatfiles import (
    QuoteTable,
    load_minute_bars,
    load_quotes,
    minute_bars_path,
    quotes_path,
)
from trading.data.recorded_session import RecordedSession, catalogued_bars
from trading.data.recording_files import load_recording, recorded_runs
from trading.errors import FlatFileError
from trading.market.bars import StockBar


class ReplayedDay(NamedTuple):
    """Quotes and minute bars of one day, of all its underlyings."""

    quotes: QuoteTable
    bars: list[StockBar]


def load_day(folder: Path, day: date, symbols: Collection[str]) -> ReplayedDay:
    """Read a day from whatever `folder` holds of it.

    Flat files lie in the vendor's layout, recordings as `data.record` writes them, a catalogue as
    `trading import` does. Of a recording the quotes that were known before its day are left out.

    Raises
    ------
    DataError
        The folder holds nothing of that day and these underlyings, or it is damaged.
    """
    if quotes_path(folder, day).is_file() or minute_bars_path(folder, day).is_file():
        found = _of_flat_files(folder, day, symbols)
    elif any(recorded_runs(folder, day, symbol) for symbol in symbols):
        found = _of_recordings(folder, day, symbols)
    elif any(Catalog(folder).partitions(Kind.OPTION_QUOTES, day, symbol) for symbol in symbols):
        found = _of_catalogue(Catalog(folder), day, symbols)
    else:
        raise FlatFileError(
            f"folder {folder} holds nothing of {', '.join(symbols)} on {day}: it must have flat "
            f"files ({quotes_path(folder, day)}), recordings of live days (data.record=true), or "
            "be a catalogue (`trading import`, `trading download`)"
        )
    if not len(found.quotes):
        raise FlatFileError(
            f"folder {folder} has no quote of a contract on {', '.join(symbols)} on {day}: "
            "nothing could be traded; check the symbols, or choose another day"
        )
    return found


def _of_flat_files(folder: Path, day: date, symbols: Collection[str]) -> ReplayedDay:
    bars = load_minute_bars(folder, day, symbols)
    if minute_bars_path(folder, day, "options").is_file():
        bars += load_minute_bars(folder, day, symbols, "options")
    return ReplayedDay(load_quotes(folder, day, symbols), bars)


def _of_recordings(folder: Path, day: date, symbols: Collection[str]) -> ReplayedDay:
    begin_ns, end_ns = day_bounds_ns(str(folder), day)
    parts, bars = [], []
    for symbol in symbols:
        session = load_recording(folder, day, symbol)
        parts.append(_recorded_quotes(session, begin_ns, end_ns))
        bars += session.bars.stock_bars(symbol)
    return ReplayedDay(_joined(parts), bars)


def _recorded_quotes(session: RecordedSession, begin_ns: int, end_ns: int) -> QuoteTable:
    told = session.quotes
    rows = np.flatnonzero((told.ts_ns >= begin_ns) & (told.ts_ns < end_ns) & (told.sequence > 0))
    rows = rows[np.argsort(told.ts_ns[rows], kind="stable")]
    return QuoteTable(
        [contract.symbol for contract in session.contracts],
        told.contract[rows].astype(np.int32),
        told.bid[rows],
        told.ask[rows],
        told.bid_size[rows].astype(np.int64),
        told.ask_size[rows].astype(np.int64),
        told.ts_ns[rows],
        told.sequence[rows],
    )


def _of_catalogue(catalog: Catalog, day: date, symbols: Collection[str]) -> ReplayedDay:
    parts, bars = [], []
    for symbol in symbols:
        rows = catalog.read(Kind.OPTION_QUOTES, symbol, day)
        names = ("bid", "ask", "bid_size", "ask_size", "ts_ns", "sequence")
        parts.append(QuoteTable(rows.symbols, rows.contract, *(rows[name] for name in names)))
        bars += catalogued_bars(catalog, symbol, day)
    return ReplayedDay(_joined(parts), bars)


def _joined(parts: list[QuoteTable]) -> QuoteTable:
    """One table, by time; the order of equal times within a part stays."""
    starts = np.cumsum([0, *(len(part.symbols) for part in parts)])
    contract = np.concatenate(
        [part.contract + start for part, start in zip(parts, starts.tolist(), strict=False)]
    )
    order = np.argsort(np.concatenate([part.ts_ns for part in parts]), kind="stable")
    columns = [
        np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ("bid", "ask", "bid_size", "ask_size", "ts_ns", "sequence")
    ]
    symbols = [symbol for part in parts for symbol in part.symbols]
    return QuoteTable(symbols, contract[order].astype(np.int32), *columns)
