"""The history of the market on disk: Parquet files by kind, New York date and underlying.

    <folder>/option_quotes/date=2026-01-05/underlying=SPY/flat-file.parquet

A file is what one source knows of one partition: a flat file, a snapshot of the chain, or the
quotes of one contract by REST. It is whole or not there, and a source that is written again
replaces what it wrote before. The folders are named as other readers of partitioned Parquet expect
them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trading.errors import DataError
from trading.files import replace, staging_folder, sync

if TYPE_CHECKING:
    import pandas as pd

FLAT_FILE = "flat-file"
"""Source of what was imported from the vendor's flat file of the day."""

REST = "rest"
"""Source of what was fetched by REST; a file for each contract, `rest.<symbol without O:>`."""

_STAGING = ".staging"
_ROW_GROUP = 1 << 17
_MOST_BUFFERED_ROWS = 1 << 19
_MOST_OPEN_FILES = 64


class Kind(StrEnum):
    """What the rows of a partition are; the value names its folder."""

    OPTION_QUOTES = "option_quotes"
    OPTION_TRADES = "option_trades"
    OPTION_BARS = "option_bars"
    STOCK_BARS = "stock_bars"
    CHAIN_SNAPSHOTS = "chain_snapshots"


def _columns(**types: Any) -> Any:
    fields = {"symbol": pa.string()} | types
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields.items()])


_BAR_COLUMNS = _columns(
    start_ns=pa.int64(),
    open=pa.float64(),
    high=pa.float64(),
    low=pa.float64(),
    close=pa.float64(),
    volume=pa.float64(),
    transactions=pa.int64(),
)

SCHEMAS: dict[Kind, Any] = {
    Kind.OPTION_QUOTES: _columns(
        ts_ns=pa.int64(),
        sequence=pa.int64(),
        bid=pa.float64(),
        ask=pa.float64(),
        bid_size=pa.int64(),
        ask_size=pa.int64(),
        bid_exchange=pa.int32(),
        ask_exchange=pa.int32(),
    ),
    Kind.OPTION_TRADES: _columns(
        ts_ns=pa.int64(),
        price=pa.float64(),
        size=pa.float64(),
        exchange=pa.int32(),
        correction=pa.int32(),
        conditions=pa.string(),
    ),
    Kind.OPTION_BARS: _BAR_COLUMNS,
    Kind.STOCK_BARS: _BAR_COLUMNS,
    Kind.CHAIN_SNAPSHOTS: _columns(
        ts_ns=pa.int64(),
        quote_ns=pa.int64(),
        bid=pa.float64(),
        ask=pa.float64(),
        bid_size=pa.float64(),
        ask_size=pa.float64(),
        iv=pa.float64(),
        delta=pa.float64(),
        gamma=pa.float64(),
        theta=pa.float64(),
        vega=pa.float64(),
        open_interest=pa.float64(),
        underlying_price=pa.float64(),
    ),
}
"""Columns of each kind. Times (`*_ns`) are UTC nanoseconds, prices USD per share, option sizes
contracts; a bid or ask of 0 is absent. `conditions` lists the vendor's codes with commas."""

_ORDER = {
    Kind.OPTION_QUOTES: ("sequence", "ts_ns"),
    Kind.OPTION_TRADES: ("ts_ns",),
    Kind.OPTION_BARS: ("contract", "start_ns"),
    Kind.STOCK_BARS: ("contract", "start_ns"),
    Kind.CHAIN_SNAPSHOTS: ("contract", "ts_ns"),
}


@dataclass(frozen=True, slots=True)
class Partition:
    """The rows of one kind, New York date and underlying."""

    kind: Kind
    day: date
    underlying: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one partition as columns of equal length n, sorted by time.

    Quotes of equal time are in order of their sequence number, bars and snapshots in order of
    their symbol, trades as the source had them.

    Attributes
    ----------
    symbols : list of str
        Distinct symbols, sorted; `contract` indexes this list.
    contract : i32[n]
    values : dict of str to array[n]
        The other columns of `SCHEMAS[kind]` by name: int64, int32, float64 or str.
    """

    symbols: list[str]
    contract: NDArray[np.int32]
    values: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.contract)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.values[name]

    def to_arrow(self) -> Any:
        """Return the rows as a `pyarrow.Table`: `symbol`, then the columns of `SCHEMAS[kind]`."""
        symbol = pa.DictionaryArray.from_arrays(pa.array(self.contract), self.symbols)
        columns = {name: pa.array(column) for name, column in self.values.items()}
        return pa.table({"symbol": symbol, **columns})

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a table: `symbol`, a category, then the columns of `SCHEMAS[kind]`.

        Times stay int64 UTC nanoseconds; `pandas.to_datetime(..., utc=True)` reads them.
        """
        table: pd.DataFrame = self.to_arrow().to_pandas()
        return table


class Catalog:
    """Reads and writes partitions below `folder`.

    Several processes may read and write at once. A reader sees a file as it was or as it is now,
    never in between.

    Examples
    --------
    >>> catalog = Catalog(Path("var/catalog"))
    >>> quotes = catalog.read(Kind.OPTION_QUOTES, "SPY", date(2026, 1, 5))  # doctest: +SKIP
    >>> mid = (quotes["bid"] + quotes["ask"]) / 2  # doctest: +SKIP
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def partitions(
        self, kind: Kind | None = None, day: date | None = None, underlying: str | None = None
    ) -> list[Partition]:
        """Return the partitions that exist, sorted by kind, date and underlying."""
        folders = self.folder.glob(
            f"{kind or '*'}/date={day or '*'}/underlying={_escaped(underlying or '*')}"
        )
        found = [
            Partition(Kind(each.parts[-3]), _day_of(each.parts[-2]), _underlying_of(each.parts[-1]))
            for each in folders
            if each.parts[-3] in set(Kind) and any(each.glob("*.parquet"))
        ]
        return sorted(found, key=lambda each: (each.kind, each.day, each.underlying))

    def sources(self, kind: Kind, underlying: str, day: date) -> list[str]:
        """Return the sources that a partition was written from, sorted."""
        return sorted(each.stem for each in self._folder(kind, day, underlying).glob("*.parquet"))

    def read(
        self,
        kind: Kind | str,
        underlying: str,
        day: date,
        *,
        contracts: Collection[str] | None = None,
        source: str | None = None,
    ) -> Rows:
        """Return the rows of a partition as NumPy columns.

        A quote that several sources have is one row.

        Parameters
        ----------
        kind : Kind or str
            What to read, or its name, as in "option_quotes".
        contracts : collection of str, optional
            Only these symbols; those without a row are left out.
        source : str, optional
            Only what this source wrote, or what is named after it as `source.<more>`.

        Raises
        ------
        DataError
            Nothing of this was ever written, there is no such kind, or a file is damaged.
        """
        if kind not in set(Kind):
            raise DataError(f"there is no kind {kind!r} of rows: {', '.join(Kind)} are known")
        kind = Kind(kind)
        folder = self._folder(kind, day, underlying)
        files = [
            file
            for file in sorted(folder.glob("*.parquet"))
            if source in (None, file.stem, _family(file))
        ]
        if not files:
            raise DataError(
                f"catalogue {self.folder} holds no {kind} of {underlying} on {day}: "
                "get them with `trading download` or `trading import`"
            )
        rows = pa.concat_tables([_read_file(file, SCHEMAS[kind], contracts) for file in files])
        columns = _sorted_rows(kind, rows)
        if kind is Kind.OPTION_QUOTES and len({_family(file) for file in files}) > 1:
            columns = _without_repeated_quotes(columns)
        return columns

    @contextmanager
    def writing(self, kind: Kind, day: date, source: str) -> Iterator[PartitionWriter]:
        """Collect rows of one source; they enter the catalogue when the block ends well.

        When it ends with an exception, or the process dies in it, the catalogue is as it was. The
        files of several underlyings are complete on the disk before the first one is moved to its
        place, each in one step.
        """
        with staging_folder(self.folder / _STAGING) as folder:
            writer = PartitionWriter(folder, kind)
            try:
                yield writer
                writer.close()
            except BaseException:
                writer.abandon()
                raise
            self._commit(writer, kind, day, source)

    def _commit(self, writer: PartitionWriter, kind: Kind, day: date, source: str) -> None:
        for underlying, staged in writer.files.items():
            final = self._folder(kind, day, underlying) / f"{source}.parquet"
            final.parent.mkdir(parents=True, exist_ok=True)
            replace(staged, final)
        if writer.is_complete:
            for each in self.partitions(kind, day):
                if each.underlying not in writer.files:
                    file = self._folder(kind, day, each.underlying) / f"{source}.parquet"
                    file.unlink(missing_ok=True)

    def _folder(self, kind: Kind, day: date, underlying: str) -> Path:
        return self.folder / kind / f"date={day}" / f"underlying={_escaped(underlying)}"


class PartitionWriter:
    """Takes rows of many underlyings and holds few of them in memory.

    At most 64 underlyings are open at a time. Rows grouped by underlying, as flat files have them,
    may be of any number of underlyings.

    Attributes
    ----------
    files : dict of str to Path
        The file of each underlying so far.
    is_complete : bool
        Set it when the source was read whole and unfiltered: underlyings that it no longer has
        then leave the catalogue.
    """

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.files: dict[str, Path] = {}
        self.is_complete = False
        self.rows = 0
        self._folder = folder
        self._schema = SCHEMAS[kind]
        self._open: dict[str, pq.ParquetWriter] = {}
        self._buffers: dict[str, list[Any]] = {}
        self._buffered: dict[str, int] = {}

    def add(self, underlying: str, batch: Any) -> None:
        """Add rows: a RecordBatch with the columns of `SCHEMAS[kind]`. No rows are rows too.

        Raises
        ------
        DataError
            The underlying comes back after 64 others.
        """
        if underlying not in self._open:
            self._start(underlying)
        else:
            self._open[underlying] = self._open.pop(underlying)  # now the latest used
        self._buffers[underlying].append(batch)
        self._buffered[underlying] += batch.num_rows
        self.rows += batch.num_rows
        if self._buffered[underlying] >= _ROW_GROUP:
            self._flush(underlying)
        elif sum(self._buffered.values()) >= _MOST_BUFFERED_ROWS:
            for each in self._open:
                self._flush(each)

    def close(self) -> None:
        """Write what is left and bring it to the disk."""
        for underlying in list(self._open):
            self._finish(underlying)

    def abandon(self) -> None:
        """Close the files; they are about to be removed."""
        for writer in self._open.values():
            writer.close()

    def _start(self, underlying: str) -> None:
        if underlying in self.files:
            raise DataError(
                f"rows of {underlying} come back after {_MOST_OPEN_FILES} other underlyings: "
                f"sort the source by ticker, or take at most {_MOST_OPEN_FILES} underlyings at once"
            )
        if len(self._open) >= _MOST_OPEN_FILES:
            self._finish(next(iter(self._open)))
        file = self._folder / f"{len(self.files)}.parquet"
        self.files[underlying] = file
        self._open[underlying] = pq.ParquetWriter(file, self._schema, compression="zstd")
        self._buffers[underlying] = []
        self._buffered[underlying] = 0

    def _flush(self, underlying: str) -> None:
        if self._buffered[underlying]:
            rows = pa.Table.from_batches(self._buffers[underlying], self._schema)
            self._open[underlying].write_table(rows, row_group_size=_ROW_GROUP)
            self._buffers[underlying] = []
            self._buffered[underlying] = 0

    def _finish(self, underlying: str) -> None:
        self._flush(underlying)
        self._open.pop(underlying).close()
        del self._buffers[underlying], self._buffered[underlying]
        sync(self.files[underlying])


def _read_file(file: Path, schema: Any, contracts: Collection[str] | None) -> Any:
    try:
        rows = pq.read_table(
            file,
            columns=schema.names,
            read_dictionary=["symbol"],
            partitioning=None,
            filters=None if contracts is None else pc.field("symbol").isin(list(contracts)),
        )
        types = [pa.dictionary(pa.int32(), pa.string()), *schema.types[1:]]
        return rows.select(schema.names).cast(
            pa.schema(list(zip(schema.names, types, strict=True)))
        )
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(
            f"catalogue file {file} cannot be read: {error}; remove it and import that day again"
        ) from error


def _sorted_rows(kind: Kind, rows: Any) -> Rows:
    encoded = rows["symbol"].unify_dictionaries().combine_chunks()
    names: list[str] = encoded.dictionary.to_pylist()
    index = encoded.indices.to_numpy(zero_copy_only=False)
    used = sorted(np.unique(index).tolist(), key=names.__getitem__)  # a filter leaves unused names
    rank = np.zeros(len(names), np.int32)
    rank[used] = np.arange(len(used), dtype=np.int32)
    contract = rank[index]
    values = {name: _as_numpy(rows[name]) for name in rows.column_names if name != "symbol"}
    keys = [contract if name == "contract" else values[name] for name in _ORDER[kind]]
    order = np.lexsort(keys)
    return Rows(
        symbols=[names[i] for i in used],
        contract=contract[order],
        values={name: column[order] for name, column in values.items()},
    )


def _without_repeated_quotes(quotes: Rows) -> Rows:
    """One of each run of quotes with equal time, sequence number and contract."""
    keys = (quotes.contract, quotes["sequence"], quotes["ts_ns"])
    order = np.lexsort(keys)
    repeated = np.ones(max(len(order) - 1, 0), np.bool_)
    for key in keys:
        repeated &= np.diff(key[order]) == 0
    order = order[np.concatenate([np.ones(min(len(order), 1), np.bool_), ~repeated])]
    return Rows(
        symbols=quotes.symbols,
        contract=quotes.contract[order],
        values={name: column[order] for name, column in quotes.values.items()},
    )


def _as_numpy(column: Any) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy()
    return values.astype(np.str_) if values.dtype == object else values


def _escaped(underlying: str) -> str:
    return underlying if underlying == "*" else quote(underlying, safe="")


def _family(file: Path) -> str:
    """Return what a source is named after: `rest` of `rest.SPY260116C00680000`."""
    return file.stem.partition(".")[0]


def _underlying_of(folder: str) -> str:
    return unquote(folder.removeprefix("underlying="))


def _day_of(folder: str) -> date:
    return date.fromisoformat(folder.removeprefix("date="))
