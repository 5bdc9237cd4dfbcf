"""How a recording lies on disk: one folder for each run, with a file for each part.

    <folder>/date=2026-01-05/underlying=SPY/run=0/listing.parquet
                                                 /warm-up.parquet
                                                 /events-000000.parquet, events-000001.parquet, ...

A run is one listing of one session; a process that starts again in a session begins another. Its
folder appears with listing and warm-up in it, and each part of the events with its name, so a
process that dies leaves the parts it had written: a prefix of the session.

`events` has a row for each event in order of application. `kind` says which columns it fills:
`quote` (`contract` is the position in the listing), `stock_bar` or `bar_end`; `ts_ns` is the time
of the quote, the start of the minute bar or the end of the decision bar.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trading.data.recorded_session import RecordedBars, RecordedQuotes, RecordedSession
from trading.errors import ContractError, DataError
from trading.files import place_folder, replacing, staging_folder
from trading.market.bars import StockBar
from trading.market.calendar import Session
from trading.market.contracts import OptionContract, parse_symbol

QUOTE_ROW = np.dtype(
    [
        ("contract", np.int64),
        ("bid", np.float64),
        ("ask", np.float64),
        ("bid_size", np.float64),
        ("ask_size", np.float64),
        ("ts_ns", np.int64),
        ("sequence", np.int64),
    ]
)
"""A quote as the recorder packs it."""

Mark = tuple[int, StockBar | int]
"""Quotes of the part before it, and a stock bar or the end of a decision bar."""

_FORMAT = 1
_ABOUT = b"recording"
_LISTING, _WARM_UP, _EVENTS = "listing.parquet", "warm-up.parquet", "events-{:06d}.parquet"
_QUOTE, _STOCK_BAR, _BAR_END = range(3)
_KINDS = ("quote", "stock_bar", "bar_end")
_RISING = ("ts_ns", "sequence", "start_ns")
_QUOTE_FLOATS = ("bid", "ask", "bid_size", "ask_size")
_BAR_FLOATS = ("open", "high", "low", "close", "volume", "vwap")
_LISTING_SCHEMA = pa.schema([pa.field("symbol", pa.string(), nullable=False)])
_WARM_UP_SCHEMA = pa.schema(
    [pa.field("start_ns", pa.int64(), nullable=False)]
    + [pa.field(name, pa.float64(), nullable=False) for name in _BAR_FLOATS]
)
_EVENT_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("ts_ns", pa.int64(), nullable=False),
        pa.field("contract", pa.int32()),
        pa.field("sequence", pa.int64()),
        *(pa.field(name, pa.float64()) for name in (*_QUOTE_FLOATS, *_BAR_FLOATS)),
    ]
)


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """One recording: of a New York date and an underlying, numbered in order of time."""

    day: date
    underlying: str
    number: int


class RunWriter:
    """Writes one run; every file is whole or not there.

    Raises
    ------
    OSError
        The disk is full or the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        underlying: str,
        session: Session,
        contracts: Sequence[OptionContract],
        warm_up: Sequence[StockBar],
        rate: float | None = None,
    ) -> None:
        about = {
            "format": _FORMAT,
            "underlying": underlying,
            "date": session.date.isoformat(),
            "open_ns": session.open_ns,
            "close_ns": session.close_ns,
            "rate": rate,
        }
        listing = pa.table(
            [[contract.symbol for contract in contracts]],
            schema=_LISTING_SCHEMA.with_metadata({_ABOUT: json.dumps(about).encode()}),
        )
        columns = RecordedBars.of(warm_up)[: len(_WARM_UP_SCHEMA)]
        day = _day_folder(folder, session.date, underlying)
        with staging_folder(day, ".new-") as staged:
            _write(staged / _LISTING, listing)
            _write(staged / _WARM_UP, pa.table(list(columns), schema=_WARM_UP_SCHEMA))
            self.folder = _take_number(staged, day)
        self._parts = 0

    def write(self, quotes: NDArray[Any], marks: Sequence[Mark]) -> None:
        """Write a part: quotes (QUOTE_ROW [n]) and the marks between them, in order."""
        with replacing(self.folder / _EVENTS.format(self._parts)) as staged:
            _write(staged, _event_table(quotes, marks))
        self._parts += 1


def recorded_runs(
    folder: Path, day: date | None = None, underlying: str | None = None
) -> list[Run]:
    """Return the recordings below `folder`, sorted by date, underlying and time."""
    name = "*" if underlying is None else quote(underlying, safe="")
    return sorted(
        Run(
            date.fromisoformat(each.parts[-3].removeprefix("date=")),
            unquote(each.parts[-2].removeprefix("underlying=")),
            int(each.name.removeprefix("run=")),
        )
        for each in folder.glob(f"date={day or '*'}/underlying={name}/run=*")
    )


def load_recording(
    folder: Path, day: date, underlying: str, run: int | None = None
) -> RecordedSession:
    """Read a recording back; of several runs, the one with the most closed bars.

    The recording of a process that died is read as far as it goes: `is_complete` is then False.

    Raises
    ------
    DataError
        There is no such recording, or a file of it is damaged.
    """
    numbers = [each.number for each in recorded_runs(folder, day, underlying)]
    if run is not None:
        numbers = [number for number in numbers if number == run]
    if not numbers:
        what = f"run {run} of {underlying}" if run is not None else underlying
        raise DataError(
            f"folder {folder} holds no recording of {what} on {day}: "
            "live days are recorded with data.record=true"
        )
    below = _day_folder(folder, day, underlying)
    sessions = [_load_run(below / f"run={number}", underlying) for number in numbers]
    return max(reversed(sessions), key=lambda each: len(each.bar_end_ns))


def _load_run(folder: Path, underlying: str) -> RecordedSession:
    listing = _read(folder / _LISTING, _LISTING_SCHEMA)
    warm_up = _read(folder / _WARM_UP, _WARM_UP_SCHEMA)
    session, rate = _session_of(listing, folder)
    parts: list[Any] = []
    while (path := folder / _EVENTS.format(len(parts))).is_file():
        parts.append(_read(path, _EVENT_SCHEMA))
    events = pa.concat_tables(parts).combine_chunks() if parts else _EVENT_SCHEMA.empty_table()
    try:
        contracts = [parse_symbol(symbol) for symbol in listing["symbol"].to_pylist()]
    except ContractError as error:
        raise DataError(f"recording {folder} is damaged: {error}; remove it") from error
    early = [column.to_numpy() for column in warm_up.columns]
    early += [np.zeros(len(warm_up), np.int64)] * 2
    kind = _kinds(events["kind"])
    closed = np.cumsum(kind == _BAR_END)
    quoted = kind == _QUOTE
    barred = kind == _STOCK_BAR
    return RecordedSession(
        underlying=underlying,
        session=session,
        rate=rate,
        contracts=contracts,
        warm_up=RecordedBars(*early),
        quotes=RecordedQuotes(
            contract=_taken(events, "contract", quoted).astype(np.int64),
            **{name: _taken(events, name, quoted) for name in (*_QUOTE_FLOATS, "ts_ns")},
            sequence=_taken(events, "sequence", quoted),
            bar=closed[quoted],
        ),
        bars=RecordedBars(
            *[_taken(events, name, barred) for name in ("ts_ns", *_BAR_FLOATS)],
            *[closed[barred], np.cumsum(quoted)[barred]],
        ),
        bar_end_ns=_taken(events, "ts_ns", kind == _BAR_END),
    )


def _event_table(quotes: NDArray[Any], marks: Sequence[Mark]) -> Any:
    total = len(quotes) + len(marks)
    places = np.array([before + k for k, (before, _) in enumerate(marks)], np.intp)
    kind = np.full(total, _QUOTE, np.int8)
    kind[places] = [_STOCK_BAR if isinstance(mark, StockBar) else _BAR_END for _, mark in marks]
    ts_ns = np.zeros(total, np.int64)
    quoted = kind == _QUOTE
    ts_ns[quoted] = quotes["ts_ns"]
    ts_ns[places] = [mark.start_ns if isinstance(mark, StockBar) else mark for _, mark in marks]
    bars = RecordedBars.of([mark for _, mark in marks if isinstance(mark, StockBar)])
    columns = {
        "kind": pa.DictionaryArray.from_arrays(kind, list(_KINDS)),
        "ts_ns": pa.array(ts_ns),
        "contract": _spread(quotes["contract"].astype(np.int32), quoted),
        "sequence": _spread(quotes["sequence"], quoted),
    }
    columns |= {name: _spread(quotes[name], quoted) for name in _QUOTE_FLOATS}
    barred = kind == _STOCK_BAR
    columns |= {name: _spread(getattr(bars, name), barred) for name in _BAR_FLOATS}
    return pa.table(columns, schema=_EVENT_SCHEMA)


def _spread(values: NDArray[Any], rows: NDArray[np.bool_]) -> Any:
    """Return a column with `values` in the rows that are True and null in the others."""
    column = np.zeros(len(rows), values.dtype)
    column[rows] = values
    return pa.array(column, mask=~rows)


def _taken(events: Any, name: str, rows: NDArray[np.bool_]) -> NDArray[Any]:
    taken: NDArray[Any] = events[name].filter(pa.array(rows)).to_numpy()
    return taken


def _kinds(column: Any) -> NDArray[np.int64]:
    """Return what `range(3)` calls each row, i64[n]."""
    encoded = column.unify_dictionaries().combine_chunks()
    code_of = np.array(
        [_KINDS.index(name) for name in encoded.dictionary.to_pylist()] or [0], np.int64
    )
    kinds: NDArray[np.int64] = code_of[encoded.indices.to_numpy(zero_copy_only=False)]
    return kinds


def _session_of(listing: Any, folder: Path) -> tuple[Session, float | None]:
    try:
        about = json.loads(listing.schema.metadata[_ABOUT])
        version = about["format"]
        session = Session(
            date.fromisoformat(about["date"]), int(about["open_ns"]), int(about["close_ns"])
        )
        rate = None if about.get("rate") is None else float(about["rate"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"recording {folder} does not tell its session: {error!r}; remove it"
        ) from error
    if version != _FORMAT:
        raise DataError(
            f"recording {folder} has format {version}, this program reads {_FORMAT}: "
            "use the version that recorded it"
        )
    return session, rate


def _write(path: Path, table: Any) -> None:
    with path.open("wb") as file:
        pq.write_table(
            table,
            file,
            compression="zstd",
            use_dictionary=[name for name in table.column_names if name not in _RISING],
            column_encoding={
                name: "DELTA_BINARY_PACKED" for name in table.column_names if name in _RISING
            },
            write_statistics=False,
        )


def _read(path: Path, schema: Any) -> Any:
    try:
        table = pq.read_table(path, partitioning=None)
        return table.select(schema.names).cast(schema.with_metadata(table.schema.metadata))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(
            f"recording file {path} cannot be read: {error}; remove it and the parts after it"
        ) from error


def _take_number(staged: Path, day: Path) -> Path:
    """Give the staged folder the first free number: another process may be taking one too."""
    number = 0
    while True:
        run = day / f"run={number}"
        try:
            place_folder(staged, run)
        except FileExistsError:
            number += 1
        else:
            return run


def _day_folder(folder: Path, day: date, underlying: str) -> Path:
    return folder / f"date={day}" / f"underlying={quote(underlying, safe='')}"
