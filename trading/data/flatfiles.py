"""Reads the vendor's daily flat files into columns sorted by time.

A file holds every ticker of one day, sorted by ticker, and is far larger than memory for
option quotes: it is filtered while it streams, so only the wanted underlyings are kept.
Layout below `folder`:

    us_options_opra/quotes_v1/YYYY/MM/YYYY-MM-DD.csv.gz
    us_options_opra/minute_aggs_v1/YYYY/MM/YYYY-MM-DD.csv.gz
    us_stocks_sip/minute_aggs_v1/YYYY/MM/YYYY-MM-DD.csv.gz
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trading.data.flatfile_rows import BLOCK_BYTES, Column, FlatFileRows
from trading.data.gunzip import GunzipReader
from trading.errors import ContractError, FlatFileError
from trading.logs import get_logger
from trading.market.bars import StockBar
from trading.market.contracts import parse_symbol
from trading.market.products import option_prefixes

FlatFileAssetClass = Literal["options", "stocks"]

_ASSET_FOLDERS: dict[FlatFileAssetClass, str] = {
    "options": "us_options_opra",
    "stocks": "us_stocks_sip",
}
log = get_logger(__name__)

_TICKER = Column(pa.dictionary(pa.int32(), pa.string()))
_QUOTE_COLUMNS = {
    "ticker": _TICKER,
    "ask_price": Column(pa.float64(), 0.0),
    "ask_size": Column(pa.float64(), 0.0),
    "bid_price": Column(pa.float64(), 0.0),
    "bid_size": Column(pa.float64(), 0.0),
    "sequence_number": Column(pa.int64(), 0),
    "sip_timestamp": Column(pa.int64()),
}
_BAR_COLUMNS = {
    "ticker": _TICKER,
    "volume": Column(pa.float64(), 0.0),
    "open": Column(pa.float64()),
    "close": Column(pa.float64()),
    "high": Column(pa.float64()),
    "low": Column(pa.float64()),
    "window_start": Column(pa.int64()),
}


@dataclass(frozen=True, slots=True)
class QuoteTable:
    """Option quotes of one day as columns of equal length n, sorted by time.

    Quotes of equal time are in order of their sequence number.

    Attributes
    ----------
    symbols: contract symbols, sorted; `contract` indexes this list
    contract: i32[n]
    bid, ask: f64[n], USD per share; 0 means that the side is absent
    bid_size, ask_size: i64[n], contracts
    ts_ns: i64[n], SIP time in UTC nanoseconds
    sequence: i64[n], rises per contract, with holes
    """

    symbols: list[str]
    contract: NDArray[np.int32]
    bid: NDArray[np.float64]
    ask: NDArray[np.float64]
    bid_size: NDArray[np.int64]
    ask_size: NDArray[np.int64]
    ts_ns: NDArray[np.int64]
    sequence: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ts_ns)


def quotes_path(folder: Path, day: date) -> Path:
    """Where the option quotes of `day` lie below `folder`."""
    return _day_path(folder / _ASSET_FOLDERS["options"] / "quotes_v1", day)


def minute_bars_path(folder: Path, day: date, asset_class: FlatFileAssetClass = "stocks") -> Path:
    """Where the minute bars of `day` lie below `folder`."""
    return _day_path(folder / _ASSET_FOLDERS[asset_class] / "minute_aggs_v1", day)


def load_quotes(folder: Path, day: date, underlyings: Collection[str]) -> QuoteTable:
    """Read the quotes of all contracts on `underlyings`.

    Raises
    ------
    FlatFileError
        the file is missing, damaged, lacks a column, or has no row of that day. Single rows that
        are odd are left out, with a warning in the log.
    """
    path = quotes_path(folder, day)
    rows = _read(
        path, day, _QUOTE_COLUMNS, _on_underlyings(underlyings), _option_fault(underlyings)
    )
    symbols, contract = _encode_tickers(rows["ticker"])
    ts_ns = _column(rows, "sip_timestamp", np.int64)
    sequence = _column(rows, "sequence_number", np.int64)
    order = np.lexsort((sequence, ts_ns))
    return QuoteTable(
        symbols=symbols,
        contract=contract[order],
        bid=_column(rows, "bid_price", np.float64)[order],
        ask=_column(rows, "ask_price", np.float64)[order],
        bid_size=_column(rows, "bid_size", np.int64)[order],
        ask_size=_column(rows, "ask_size", np.int64)[order],
        ts_ns=ts_ns[order],
        sequence=sequence[order],
    )


def load_minute_bars(
    folder: Path,
    day: date,
    symbols: Collection[str],
    asset_class: FlatFileAssetClass = "stocks",
) -> list[StockBar]:
    """Read minute bars sorted by start, then by symbol.

    `symbols` names stocks; with `asset_class="options"` it names the underlyings whose
    contracts are read, and a bar's symbol is the contract's. The files carry no volume
    weighted price: `vwap` is the typical price, (high + low + close) / 3.

    Raises
    ------
    FlatFileError
        the file is missing, damaged, or lacks a column.
    """
    path = minute_bars_path(folder, day, asset_class)
    if asset_class == "stocks":
        rows = _read(path, day, _BAR_COLUMNS, set(symbols).__contains__, _stock_fault)
    else:
        rows = _read(path, day, _BAR_COLUMNS, _on_underlyings(symbols), _option_fault(symbols))
    names, ticker = _encode_tickers(rows["ticker"])
    start_ns = _column(rows, "window_start", np.int64)
    order = np.lexsort((ticker, start_ns))
    high = _column(rows, "high", np.float64)
    low = _column(rows, "low", np.float64)
    close = _column(rows, "close", np.float64)
    columns = (
        ticker,
        start_ns,
        _column(rows, "open", np.float64),
        high,
        low,
        close,
        _column(rows, "volume", np.float64),
        (high + low + close) / 3.0,
    )
    return [
        StockBar(names[row[0]], *row[1:])
        for row in zip(*(column[order].tolist() for column in columns), strict=True)
    ]


def _day_path(folder: Path, day: date) -> Path:
    return folder / f"{day:%Y}" / f"{day:%m}" / f"{day:%Y-%m-%d}.csv.gz"


def _on_underlyings(underlyings: Collection[str]) -> Callable[[str], bool]:
    prefixes = option_prefixes(underlyings)

    def wanted(ticker: str) -> bool:
        # Most tickers of a full day fail the prefix: only the others are worth parsing.
        if not ticker.startswith(prefixes):
            return False
        contract = parse_symbol(ticker)
        return any(contract.is_on(underlying) for underlying in underlyings)

    return wanted


def _option_fault(underlyings: Collection[str]) -> Callable[[str], str]:
    prefixes = option_prefixes(underlyings)

    def fault_of(ticker: str) -> str:
        if not ticker:
            return "without ticker"
        if ticker.startswith(prefixes):
            try:
                parse_symbol(ticker)
            except ContractError:
                return "with a ticker that is no standard option symbol"
        return ""

    return fault_of


def _stock_fault(ticker: str) -> str:
    return "" if ticker else "without ticker"


def _read(
    path: Path,
    day: date,
    columns: dict[str, Column],
    wanted: Callable[[str], bool],
    fault_of: Callable[[str], str],
) -> Any:
    """Return the rows of `path` whose ticker is `wanted`, as one Arrow table."""
    if not path.is_file():
        raise FlatFileError(
            f"flat file {path} does not exist: download that day or choose another folder or date"
        )
    try:
        with path.open("rb") as file:
            plain = io.BufferedReader(GunzipReader(file, str(path)), BLOCK_BYTES)
            read = FlatFileRows(plain, str(path), columns, day, fault_of)
            rows = pa.Table.from_batches(
                list(_wanted_batches(read, wanted)),
                schema=pa.schema(
                    [
                        (name, pa.string() if name == "ticker" else each.parsed)
                        for name, each in columns.items()
                    ]
                ),
            )
    except (pa.ArrowException, OSError) as error:
        raise FlatFileError(f"flat file {path} cannot be read: {error}") from error
    if read.dropped.total:
        log.warning("rows of a flat file are left out", file=str(path), rows=str(read.dropped))
    return rows


def _wanted_batches(read: FlatFileRows, wanted: Callable[[str], bool]) -> Iterator[Any]:
    decided: dict[str, bool] = {}
    for batch in read:
        ticker = batch.column("ticker")
        used = np.unique(ticker.indices.to_numpy(zero_copy_only=False))
        tickers: list[str] = ticker.dictionary.to_pylist()
        keep = np.zeros(len(tickers), np.bool_)
        for code in used.tolist():
            name = tickers[code]
            if name not in decided:
                decided[name] = wanted(name)
            keep[code] = decided[name]
        if not keep.any():
            continue
        rows = pa.array(keep[ticker.indices.to_numpy(zero_copy_only=False)])
        plain = batch.set_column(0, "ticker", pc.cast(ticker, pa.string()))
        yield plain.filter(rows)


def _encode_tickers(ticker: Any) -> tuple[list[str], NDArray[np.int32]]:
    """Sorted distinct names, and the index i32[n] of each row's name among them."""
    encoded = ticker.combine_chunks().dictionary_encode()
    names: list[str] = encoded.dictionary.to_pylist()
    order = np.argsort(np.array(names, dtype=np.str_), kind="stable")
    rank = np.empty(len(names), np.int32)
    rank[order] = np.arange(len(names), dtype=np.int32)
    indices = encoded.indices.to_numpy(zero_copy_only=False)
    return [names[i] for i in order], rank[indices]


def _column(rows: Any, name: str, dtype: type[Any]) -> NDArray[Any]:
    """Return a column as NumPy; of a fractional size only whole contracts count."""
    values: NDArray[Any] = rows[name].to_numpy()
    return values.astype(dtype)
