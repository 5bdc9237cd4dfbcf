"""Imports the vendor's flat files into the catalogue, in bounded memory.

A file is decompressed, parsed, filtered and written block by block. Its rows enter the catalogue
only when it has been read to its end and its checksums hold.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trading.data.catalog import FLAT_FILE, SCHEMAS, Catalog, Kind, PartitionWriter
from trading.data.flatfile_rows import Column, FlatFileRows
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
from trading.progress import ProgressCallback

FlatFileKind = Literal[Kind.OPTION_QUOTES, Kind.OPTION_TRADES, Kind.OPTION_BARS, Kind.STOCK_BARS]

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
class _Field(Column):
    """A column of a file, and the catalogue's name for it."""

    name: str = ""


_F64, _I64, _I32, _TEXT = pa.float64(), pa.int64(), pa.int32(), pa.string()
_TICKER = _Field(pa.dictionary(pa.int32(), pa.string()), name="symbol")
_BAR_FIELDS = {
    "ticker": _TICKER,
    "window_start": _Field(_I64, name="start_ns"),
    "open": _Field(_F64, name="open"),
    "high": _Field(_F64, name="high"),
    "low": _Field(_F64, name="low"),
    "close": _Field(_F64, name="close"),
    "volume": _Field(_F64, 0.0, name="volume"),
    "transactions": _Field(_I64, 0, name="transactions"),
}
_FIELDS: dict[FlatFileKind, dict[str, _Field]] = {
    Kind.OPTION_QUOTES: {
        "ticker": _TICKER,
        "sip_timestamp": _Field(_I64, name="ts_ns"),
        "sequence_number": _Field(_I64, 0, name="sequence"),
        "bid_price": _Field(_F64, 0.0, name="bid"),
        "ask_price": _Field(_F64, 0.0, name="ask"),
        "bid_size": _Field(_F64, 0.0, name="bid_size"),
        "ask_size": _Field(_F64, 0.0, name="ask_size"),
        "bid_exchange": _Field(_I32, 0, name="bid_exchange"),
        "ask_exchange": _Field(_I32, 0, name="ask_exchange"),
    },
    Kind.OPTION_TRADES: {
        "ticker": _TICKER,
        "sip_timestamp": _Field(_I64, name="ts_ns"),
        "price": _Field(_F64, name="price"),
        "size": _Field(_F64, name="size"),
        "exchange": _Field(_I32, 0, name="exchange"),
        "correction": _Field(_I32, 0, name="correction"),
        "conditions": _Field(_TEXT, "", name="conditions"),
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
        """Return the underlyings that get a partition even if the file has no row of them."""
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
    dropped: str = ""
    """What rows of them were left out for, with the first line of each reason."""


def flat_file_key(kind: FlatFileKind, day: date) -> str:
    """Return the path of a day's file, below the bucket or below a folder of downloaded files."""
    return f"{FOLDERS[kind]}/{day:%Y/%m/%Y-%m-%d}.csv.gz"


def find_flat_files(folder: Path) -> list[tuple[FlatFileKind, date, Path]]:
    """Return the flat files below `folder`, which has the vendor's layout, by kind and date."""
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
    progress: ProgressCallback | None = None,
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
    plain = io.BufferedReader(GunzipReader(source, name), _CSV_BLOCK_BYTES)
    try:
        wanted = _Wanted(kind, selection)
        read = FlatFileRows(plain, name, _FIELDS[kind], day, wanted.fault_of)
        with catalog.writing(kind, day, FLAT_FILE) as writer:
            writer.is_complete = selection == Selection()
            for batch in read:
                _write_batch(writer, batch, kind, wanted)
            for underlying in sorted(selection.named_underlyings(kind) - writer.files.keys()):
                writer.add(underlying, pa.RecordBatch.from_pylist([], SCHEMAS[kind]))
            rows, underlyings = writer.rows, len(writer.files)
    except (FlatFileError, NotEntitled, AuthenticationFailed):
        raise
    except (pa.ArrowException, DataError, ContractError) as error:
        raise FlatFileError(f"flat file {name} cannot be imported: {_line(error)}") from error
    dropped = str(read.dropped)
    return ImportReport(kind, day, read.rows_read, rows, underlyings, dropped)


class _SizedReader(io.RawIOBase):
    """Reads a file and checks that it ends where it did when it was opened."""

    def __init__(
        self, file: BinaryIO, size: int, name: str, progress: ProgressCallback | None
    ) -> None:
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
        """Return the underlying of a wanted ticker, else an empty string."""
        underlying = self._decided.get(ticker)
        if underlying is None:
            if len(self._decided) >= _MOST_DECISIONS:
                self._decided.clear()
            underlying = self._decided[ticker] = self._decide(ticker)
        return underlying

    def fault_of(self, ticker: str) -> str:
        """Why a ticker that may be wanted is none; empty when it is one, or not wanted."""
        if not ticker:
            return "without ticker"
        if self._stocks or not self._may_be_wanted(ticker):
            return ""
        try:
            parse_symbol(ticker)
        except ContractError:
            return "with a ticker that is no standard option symbol"
        return ""

    def _may_be_wanted(self, ticker: str) -> bool:
        if self._contracts is not None and ticker not in self._contracts:
            return False
        # Most tickers of a full day fail the prefix: only the others are worth parsing.
        return self._underlyings is None or ticker.startswith(self._prefixes)

    def _decide(self, ticker: str) -> str:
        if self._stocks:
            return ticker if self._underlyings is None or ticker in self._underlyings else ""
        if not self._may_be_wanted(ticker) or self.fault_of(ticker):
            return ""
        contract = parse_symbol(ticker)
        if self._underlyings is None:
            return contract.underlying
        return next((name for name in self._underlyings if contract.is_on(name)), "")


def _frozen(names: Collection[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _write_batch(writer: PartitionWriter, batch: Any, kind: FlatFileKind, wanted: _Wanted) -> None:
    """Hand the wanted rows of a batch to the writer, one slice for each underlying."""
    ticker = batch.column("ticker")
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
    """Return a batch of the file as one of the catalogue: its names and its types."""
    schema = SCHEMAS[kind]
    columns: dict[str, Any] = {}
    for file_name, field in _FIELDS[kind].items():
        column, want = batch.column(file_name), schema.field(field.name).type
        if pa.types.is_integer(want) and pa.types.is_floating(column.type):
            column = pc.floor(column)  # Of a size only whole contracts can be traded.
        columns[field.name] = pc.cast(column, want)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
