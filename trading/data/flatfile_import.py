"""Imports the vendor's flat files into the catalogue, in bounded memory.

A file is decompressed, parsed, filtered and written block by block. Its rows enter the catalogue
only when it has been read to its end and its checksums hold.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from trading.data.catalog import FLAT_FILE, SCHEMAS, Catalog, Kind, PartitionWriter
from trading.data.gunzip import GunzipReader
from trading.errors import (
    AuthenticationFailed,
    ContractError,
    DataError,
    FlatFileError,
    NotEntitled,
)
from trading.market.contracts import parse_symbol
from trading.market.products import option_prefixes

FlatFileKind = Literal[Kind.OPTION_QUOTES, Kind.OPTION_TRADES, Kind.OPTION_BARS, Kind.STOCK_BARS]
Progress = Callable[[int, int], None]
"""Told how many bytes of the compressed file are there, and how many it has."""

FOLDERS: dict[FlatFileKind, str] = {
    Kind.OPTION_QUOTES: "us_options_opra/quotes_v1",
    Kind.OPTION_TRADES: "us_options_opra/trades_v1",
    Kind.OPTION_BARS: "us_options_opra/minute_aggs_v1",
    Kind.STOCK_BARS: "us_stocks_sip/minute_aggs_v1",
}
"""Where the vendor keeps each kind, below the bucket and below a folder of downloaded files."""

_CSV_BLOCK_BYTES = 1 << 22
_MOST_DECISIONS = 100_000


@dataclass(frozen=True, slots=True)
class _Field:
    """A column of a file: the catalogue's name, the type it is parsed as, its value if empty."""

    name: str
    parsed: Any
    if_empty: Any = None  # None: it must not be empty


_F64, _I64, _I32, _TEXT = pa.float64(), pa.int64(), pa.int32(), pa.string()
_TICKER = _Field("symbol", pa.dictionary(pa.int32(), pa.string()))
_BAR_FIELDS = {
    "ticker": _TICKER,
    "window_start": _Field("start_ns", _I64),
    "open": _Field("open", _F64),
    "high": _Field("high", _F64),
    "low": _Field("low", _F64),
    "close": _Field("close", _F64),
    "volume": _Field("volume", _F64, 0.0),
    "transactions": _Field("transactions", _I64, 0),
}
_FIELDS: dict[FlatFileKind, dict[str, _Field]] = {
    Kind.OPTION_QUOTES: {
        "ticker": _TICKER,
        "sip_timestamp": _Field("ts_ns", _I64),
        "sequence_number": _Field("sequence", _I64, 0),
        "bid_price": _Field("bid", _F64, 0.0),
        "ask_price": _Field("ask", _F64, 0.0),
        "bid_size": _Field("bid_size", _F64, 0.0),
        "ask_size": _Field("ask_size", _F64, 0.0),
        "bid_exchange": _Field("bid_exchange", _I32, 0),
        "ask_exchange": _Field("ask_exchange", _I32, 0),
    },
    Kind.OPTION_TRADES: {
        "ticker": _TICKER,
        "sip_timestamp": _Field("ts_ns", _I64),
        "price": _Field("price", _F64),
        "size": _Field("size", _F64),
        "exchange": _Field("exchange", _I32, 0),
        "correction": _Field("correction", _I32, 0),
        "conditions": _Field("conditions", _TEXT, ""),
    },
    Kind.OPTION_BARS: _BAR_FIELDS,
    Kind.STOCK_BARS: _BAR_FIELDS,
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of a file are wanted; with neither, all of them.

    Parameters
    ----------
    underlyings : collection of str, optional
        All contracts on these, adjusted ones included; in a file of stocks, these tickers.
    contracts : collection of str, optional
        These option symbols and no others; a file of stocks is not filtered by them.
    """

    underlyings: Collection[str] | None = None
    contracts: Collection[str] | None = None

    def named_underlyings(self, kind: Kind) -> frozenset[str]:
        """The underlyings that get a partition even if the file has no row of them."""
        names = set(self.underlyings or ())
        if kind is not Kind.STOCK_BARS and self.contracts is not None:
            contracts = [parse_symbol(each) for each in self.contracts]
            if self.underlyings is None:
                names = {each.underlying for each in contracts}
            else:
                names = {name for name in names if any(each.is_on(name) for each in contracts)}
        return frozenset(names)


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What one file gave: rows read, rows kept, and the underlyings they are of."""

    kind: Kind
    day: date
    rows_read: int
    rows_kept: int
    underlyings: int


def flat_file_key(kind: FlatFileKind, day: date) -> str:
    """The path of a day's file, below the bucket or below a folder of downloaded files."""
    return f"{FOLDERS[kind]}/{day:%Y/%m/%Y-%m-%d}.csv.gz"


def find_flat_files(folder: Path) -> list[tuple[FlatFileKind, date, Path]]:
    """The flat files below `folder`, which has the vendor's layout, by kind and date."""
    found = []
    for kind, below in FOLDERS.items():
        for path in (folder / below).glob("*/*/*.csv.gz"):
            try:
                day = date.fromisoformat(path.name.removesuffix(".csv.gz"))
            except ValueError:
                continue
            if path == folder / flat_file_key(kind, day):
                found.append((kind, day, path))
    return sorted(found)


def import_flat_file(
    catalog: Catalog,
    path: Path,
    kind: FlatFileKind,
    day: date,
    selection: Selection | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Bring the wanted rows of one file into the catalogue, in place of its former ones.

    Raises
    ------
    FlatFileError
        The file is missing, damaged, was changed while it was read, or has other columns or
        values than the vendor documents. The catalogue is then as it was.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            source = _SizedReader(file, size, str(path), progress)
            return import_stream(catalog, source, str(path), kind, day, selection)
    except FileNotFoundError as error:
        raise FlatFileError(
            f"flat file {path} does not exist: download that day or choose another folder or date"
        ) from error


def import_stream(
    catalog: Catalog,
    source: io.RawIOBase | BinaryIO,
    name: str,
    kind: FlatFileKind,
    day: date,
    selection: Selection | None = None,
) -> ImportReport:
    """Like `import_flat_file`, from an open gzip stream that messages call `name`."""
    selection = selection or Selection()
    rows_read = 0
    try:
        wanted = _Wanted(kind, selection)
        with (
            # Closed at the end whatever happens: a thread of Arrow's may still read ahead, and must
            # not do so while the interpreter ends.
            io.BufferedReader(GunzipReader(source, name), _CSV_BLOCK_BYTES) as plain,
            catalog.writing(kind, day, FLAT_FILE) as writer,
        ):
            writer.is_complete = selection == Selection()
            for batch in _batches(plain, kind):
                rows_read += batch.num_rows
                _write_batch(writer, batch, kind, wanted)
            for underlying in sorted(selection.named_underlyings(kind) - writer.files.keys()):
                writer.add(underlying, pa.RecordBatch.from_pylist([], SCHEMAS[kind]))
            rows, underlyings = writer.rows, len(writer.files)
    except (FlatFileError, NotEntitled, AuthenticationFailed):
        raise
    except (pa.ArrowException, KeyError, DataError, ContractError) as error:
        expected = ", ".join(_FIELDS[kind])
        raise FlatFileError(
            f"flat file {name} is damaged or has other columns than {expected}: {_line(error)}; "
            "download it again"
        ) from error
    return ImportReport(kind, day, rows_read, rows, underlyings)


class _SizedReader(io.RawIOBase):
    """Reads a file and checks that it ends where it did when it was opened."""

    def __init__(self, file: BinaryIO, size: int, name: str, progress: Progress | None) -> None:
        super().__init__()
        self._file = file
        self._size = size
        self._name = name
        self._progress = progress
        self._position = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        piece = self._file.read(size)
        self._position += len(piece)
        if self._position > self._size or (not piece and self._position != self._size):
            raise FlatFileError(
                f"flat file {self._name} had {self._size} bytes and now has another size: "
                "wait until it is written, then import it again"
            )
        if self._progress is not None:
            self._progress(self._position, self._size)
        return piece


class _Wanted:
    """Decides for each ticker which underlying it belongs to, if it is wanted at all."""

    def __init__(self, kind: Kind, selection: Selection) -> None:
        self._stocks = kind is Kind.STOCK_BARS
        self._underlyings = _frozen(selection.underlyings)
        self._contracts = None if self._stocks else _frozen(selection.contracts)
        self._prefixes = option_prefixes(self._underlyings or ())
        self._decided: dict[str, str] = {}

    def underlying_of(self, ticker: str) -> str:
        """The underlying of a wanted ticker, else an empty string."""
        underlying = self._decided.get(ticker)
        if underlying is None:
            if len(self._decided) >= _MOST_DECISIONS:
                self._decided.clear()
            underlying = self._decided[ticker] = self._decide(ticker)
        return underlying

    def _decide(self, ticker: str) -> str:
        if not ticker:
            raise DataError("a row has no ticker")
        if self._stocks:
            return ticker if self._underlyings is None or ticker in self._underlyings else ""
        if self._contracts is not None and ticker not in self._contracts:
            return ""
        # Most tickers of a full day fail the prefix: only the others are worth parsing.
        if self._underlyings is not None and not ticker.startswith(self._prefixes):
            return ""
        contract = parse_symbol(ticker)
        if self._underlyings is None:
            return contract.underlying
        return next((name for name in self._underlyings if contract.is_on(name)), "")


def _frozen(names: Collection[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _batches(plain: io.BufferedIOBase, kind: FlatFileKind) -> Iterator[Any]:
    fields = _FIELDS[kind]
    with pa_csv.open_csv(
        plain,
        read_options=pa_csv.ReadOptions(block_size=_CSV_BLOCK_BYTES),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: field.parsed for name, field in fields.items()},
            include_columns=list(fields),
        ),
    ) as reader:
        yield from reader


def _write_batch(writer: PartitionWriter, batch: Any, kind: FlatFileKind, wanted: _Wanted) -> None:
    """Hand the wanted rows of a batch to the writer, one slice for each underlying."""
    ticker = batch.column("ticker")
    if ticker.null_count:
        raise DataError("a row has no ticker")
    names = [wanted.underlying_of(each) for each in ticker.dictionary.to_pylist()]
    found = sorted(set(names) - {""})
    if not found:
        return
    code_of = {name: code for code, name in enumerate(found)}
    by_entry = np.array([code_of.get(name, -1) for name in names], np.int32)
    codes = by_entry[ticker.indices.to_numpy(zero_copy_only=False)]
    order = np.argsort(codes, kind="stable")[np.count_nonzero(codes < 0) :]
    rows = _typed(batch.take(pa.array(order)), kind)
    bounds = np.searchsorted(codes[order], np.arange(len(found) + 1))
    for code, underlying in enumerate(found):
        start, end = int(bounds[code]), int(bounds[code + 1])
        writer.add(underlying, rows.slice(start, end - start))


def _typed(batch: Any, kind: FlatFileKind) -> Any:
    """A batch of the file as one of the catalogue: its names, its types, nothing empty."""
    schema = SCHEMAS[kind]
    columns: dict[str, Any] = {}
    for file_name, field in _FIELDS[kind].items():
        column = batch.column(file_name)
        if column.null_count:
            if field.if_empty is None:
                raise DataError(f"a row has no {file_name}")
            column = pc.fill_null(column, field.if_empty)
        columns[field.name] = pc.cast(column, schema.field(field.name).type)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
