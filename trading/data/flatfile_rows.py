"""Rows of the vendor's flat files: what is read rightly, and what is dropped, counted by reason.

A file is split into blocks at line ends. A block that the columnar parser takes is read by it; one
with an odd row is read line by line, so that an odd row costs itself and its line is known.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from trading.data.csv_text import header_names, header_problem
from trading.errors import FlatFileError
from trading.market.calendar import NEW_YORK, ExchangeCalendar

BLOCK_BYTES = 1 << 22

_UNITS = ((9 * 10**9, 10**9), (9 * 10**12, 10**6), (9 * 10**15, 10**3))
"""Times below the first are in units of the second, in nanoseconds; larger ones in nanoseconds."""
_TIMES = ("sip_timestamp", "window_start")
_BAR_PRICES = ("open", "high", "low", "close")
_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file: the type it is parsed as, and its value if empty."""

    parsed: Any
    if_empty: Any = None
    """None: a row without it is dropped."""


@dataclass
class Dropped:
    """Rows of one file that were left out, by reason."""

    counts: dict[str, int] = field(default_factory=dict)
    first_line: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, line: int, count: int = 1) -> None:
        """Count rows; `line` is the first one's in the file."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        self.first_line.setdefault(reason, line)

    @property
    def total(self) -> int:
        """Rows left out."""
        return sum(self.counts.values())

    def __str__(self) -> str:
        return ", ".join(
            f"{count:,} {reason} (first in line {self.first_line[reason]:,})"
            for reason, count in self.counts.items()
        )


class FlatFileRows:
    """Reads one file's plain text in blocks.

    Parameters
    ----------
    plain
        The decompressed text.
    name
        What messages call the file.
    columns
        What is wanted of it; other columns are passed over. `ticker` is a dictionary column.
    day
        The New York date that every row must be of.
    fault_of
        Why a ticker is none that can be wanted; empty when nothing is wrong with it.

    Attributes
    ----------
    rows_read : int
        Rows seen so far, dropped ones included.
    dropped : Dropped
        What was left out so far.

    Raises
    ------
    FlatFileError
        While iterating: there is no header, it lacks a column, or no row of the file is usable.
    """

    def __init__(
        self,
        plain: io.BufferedIOBase | BinaryIO,
        name: str,
        columns: Mapping[str, Column],
        day: date,
        fault_of: Callable[[str], str],
    ) -> None:
        self.rows_read = 0
        self.dropped = Dropped()
        self._plain, self._name, self._columns = plain, name, dict(columns)
        self._day, self._fault_of = day, fault_of
        self._begin_ns, self._end_ns = day_bounds_ns(name, day)
        self._time = next(each for each in _TIMES if each in self._columns)
        self._line = 1
        self._names: list[str] = []

    def __iter__(self) -> Iterator[Any]:
        """Record batches of the wanted columns, in the order of `columns`, nothing empty."""
        kept = 0
        rest = self._read_header()
        while block := self._plain.read(BLOCK_BYTES):
            rest += block
            end = rest.rfind(b"\n") + 1
            for batch in self._batches(rest[:end]):
                kept += batch.num_rows
                yield batch
            rest = rest[end:]
        for batch in self._batches(rest):
            kept += batch.num_rows
            yield batch
        if self.rows_read and not kept:
            raise FlatFileError(
                f"flat file {self._name}: none of its {self.rows_read:,} rows can be used: "
                f"{self.dropped}; check that it is the file of {self._day}, or leave that day out"
            )

    def _read_header(self) -> bytes:
        content = b""
        while b"\n" not in content and (block := self._plain.read(BLOCK_BYTES)):
            content += block
        line, _, rest = content.partition(b"\n")
        if not line.strip():
            raise FlatFileError(
                f"flat file {self._name} is empty: not even a header is in it; get it from where "
                "it came, or leave that day out"
            )
        first = line.decode("utf-8-sig", errors="replace").rstrip("\r\n")
        if "\r" in first:
            raise FlatFileError(
                f"flat file {self._name}: its lines end with a carriage return alone; end them "
                "with a line feed"
            )
        self._names = header_names(first)
        if problem := header_problem(self._names, self._columns):
            raise FlatFileError(
                f"flat file {self._name}, line 1: {problem}; a file of this kind begins with "
                f"{','.join(self._columns)}, in any order, so this one is of another kind or was "
                "changed"
            )
        return rest

    def _batches(self, block: bytes) -> Iterator[Any]:
        if not block.strip():
            self._line += block.count(b"\n")
            return
        first = self._line + 1
        self._line += block.count(b"\n")
        try:
            if b"\n\n" in block or b"\n\r" in block or block[:1] in b"\r\n":
                raise pa.ArrowInvalid("empty lines: the number of a row is not that of its line")
            batch, lines = self._parsed(block), None
        except (pa.ArrowException, UnicodeDecodeError):
            batch, lines = self._read_line_by_line(block, first)
        self.rows_read += batch.num_rows
        usable, why = self._judge(batch)
        if why:
            odd = np.flatnonzero(~usable)
            for reason in dict.fromkeys(why[row] for row in odd.tolist()):
                rows = [row for row in odd.tolist() if why[row] == reason]
                self.dropped.add(
                    reason, first + rows[0] if lines is None else lines[rows[0]], len(rows)
                )
            batch = batch.filter(pa.array(usable))
        if batch.num_rows:
            yield batch

    def _parsed(self, block: bytes) -> Any:
        """Return the block by the columnar parser, times in nanoseconds."""
        table = pa_csv.read_csv(
            io.BytesIO(block),
            read_options=pa_csv.ReadOptions(column_names=self._names, use_threads=False),
            convert_options=pa_csv.ConvertOptions(
                column_types={name: each.parsed for name, each in self._columns.items()},
                include_columns=list(self._columns),
                null_values=[""],
            ),
        ).combine_chunks()
        (batch,) = table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
        return self._finished(batch)

    def _finished(self, batch: Any) -> Any:
        columns = []
        for name, each in self._columns.items():
            column = batch.column(name)
            if name == "ticker":
                names = pc.utf8_trim_whitespace(column.dictionary)
                column = pa.DictionaryArray.from_arrays(column.indices, names)
            if column.null_count and each.if_empty is not None:
                column = pc.fill_null(column, each.if_empty)
            if name == self._time:
                column = pa.array(_in_nanoseconds(column), pa.int64(), mask=_nulls(column))
            columns.append(column)
        return pa.RecordBatch.from_arrays(columns, names=list(self._columns))

    def _read_line_by_line(self, block: bytes, first: int) -> tuple[Any, list[int]]:
        lines: list[int] = []
        found: dict[str, list[Any]] = {name: [] for name in self._columns}
        at = {name: self._names.index(name) for name in self._columns}
        for line, text in enumerate(block.decode(errors="replace").splitlines(), first):
            if not text.strip():
                continue
            reason, values = "", {}
            try:
                cells = next(csv.reader([text], skipinitialspace=True))
            except csv.Error:
                reason, cells = "with a cell that nobody can read", []
            if reason:
                pass
            elif header_names(text) == self._names:
                reason = "repeated headers"
            elif len(cells) != len(self._names):
                reason = "with another number of columns"
            else:
                for name, each in self._columns.items():
                    values[name], odd = _value(cells[at[name]].strip(), each)
                    if odd:
                        reason = f"with {name} that is {odd}"
                        break
            if reason:
                self.rows_read += 1
                self.dropped.add(reason, line)
                continue
            lines.append(line)
            for name, value in values.items():
                found[name].append(value)
        arrays = [pa.array(found[name], each.parsed) for name, each in self._columns.items()]
        batch = pa.RecordBatch.from_arrays(arrays, names=list(self._columns))
        return self._finished(batch), lines

    def _judge(self, batch: Any) -> tuple[NDArray[np.bool_], dict[int, str]]:
        """Which rows can be used, and why the others cannot, by row."""
        why: dict[int, str] = {}

        def refuse(odd: NDArray[np.bool_], reason: str) -> None:
            for row in np.flatnonzero(odd).tolist():
                why.setdefault(row, reason)

        ticker = batch.column("ticker")
        faults = [self._fault_of(each) for each in ticker.dictionary.to_pylist()]
        codes: NDArray[np.int64] = pc.fill_null(ticker.indices, -1).to_numpy(zero_copy_only=False)
        for code, fault in enumerate(faults):
            if fault:
                refuse(codes == code, fault)
        numbers: dict[str, NDArray[Any]] = {}
        for name, each in self._columns.items():
            column = batch.column(name)
            if each.if_empty is None and column.null_count:
                refuse(_nulls(column), f"without {name}")
            if pa.types.is_floating(each.parsed) or pa.types.is_integer(each.parsed):
                plain = pc.fill_null(column, 0)
                numbers[name] = plain.to_numpy(zero_copy_only=False)
                if pa.types.is_floating(each.parsed):
                    refuse(~np.isfinite(numbers[name]), f"with {name} that is no number")
        ts_ns = numbers[self._time]
        refuse((ts_ns < self._begin_ns) | (ts_ns >= self._end_ns), f"not of {self._day}")
        bars = "open" in numbers
        for name in ("bid_price", "ask_price", "bid_size", "ask_size", "size", "volume"):
            if name in numbers:
                refuse(numbers[name] < 0.0, f"with negative {name}")
        for name in _BAR_PRICES if bars else ("price",):
            if name in numbers:
                refuse(~(numbers[name] > 0.0), f"with {name} not above 0")
        if bars:
            highest = np.maximum(numbers["open"], numbers["close"])
            lowest = np.minimum(numbers["open"], numbers["close"])
            odd = (numbers["high"] < highest - 1e-9) | (numbers["low"] > lowest + 1e-9)
            refuse(odd, "with a high or low that open or close passes")
            sound = np.ones(batch.num_rows, np.bool_)
            sound[list(why)] = False
            _refuse_contradictions(codes, numbers, np.flatnonzero(sound), refuse)
        usable = np.ones(batch.num_rows, np.bool_)
        usable[list(why)] = False
        return usable, why


def _refuse_contradictions(
    codes: NDArray[np.int64],
    numbers: dict[str, NDArray[Any]],
    sound: NDArray[np.int64],
    refuse: Callable[[NDArray[np.bool_], str], None],
) -> None:
    """Two `sound` bars of one ticker and minute: equal ones count once, else neither is known."""
    start = numbers["window_start"]
    order = sound[np.lexsort((sound, start[sound], codes[sound]))]
    same = (codes[order][1:] == codes[order][:-1]) & (start[order][1:] == start[order][:-1])
    if not same.any():
        return
    earlier, later = order[:-1][same], order[1:][same]
    equal = np.all([numbers[n][earlier] == numbers[n][later] for n in _BAR_PRICES], axis=0)
    repeated, unlike = np.zeros(len(start), np.bool_), np.zeros(len(start), np.bool_)
    repeated[later[equal]] = True
    unlike[earlier[~equal]] = unlike[later[~equal]] = True
    refuse(unlike, "of a minute that has another bar with other prices")
    refuse(repeated, "repeated")


@cache
def _calendar() -> ExchangeCalendar:
    return ExchangeCalendar()


def day_bounds_ns(name: str, day: date) -> tuple[int, int]:
    """Return the first instant of a New York date, and of the next one.

    Raises
    ------
    FlatFileError
        The exchange was closed on that date.
    """
    if _calendar().session_on(day) is None:
        raise FlatFileError(
            f"flat file {name} is of {day}, {day:%A}, which is no session: the exchange was "
            "closed; leave it out, or correct its name"
        )
    begin, end = (
        datetime(each.year, each.month, each.day, tzinfo=NEW_YORK)
        for each in (day, day + timedelta(days=1))
    )
    return int(begin.timestamp()) * 10**9, int(end.timestamp()) * 10**9


def _in_nanoseconds(column: Any) -> NDArray[np.int64]:
    """Return times of any unit from seconds to nanoseconds, told apart by magnitude, in ns."""
    told: NDArray[np.int64] = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    factor = np.ones_like(told)
    for limit, times in reversed(_UNITS):
        factor[(told >= 0) & (told < limit)] = times
    return told * factor


def _nulls(column: Any) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    return found


def _value(text: str, column: Column) -> tuple[Any, str]:
    """Return a cell as its column's type, or why it is not one."""
    whole = pa.types.is_integer(column.parsed)
    if not text or not (whole or pa.types.is_floating(column.parsed)):
        return text or None, ""
    try:
        # Python reads 1_000 as a number, nobody who writes such files does.
        number = math.nan if "_" in text else float(text)
    except ValueError:
        number = math.nan
    odd = "" if math.isfinite(number) else "no number"
    if whole and not odd:
        if not number.is_integer():
            return None, "no whole number"
        exact = int(text) if text.lstrip("+-").isdecimal() else int(number)
        largest = _LARGEST if column.parsed == pa.int64() else 2**31 - 1
        return exact, "" if abs(exact) <= largest else "out of range"
    return number, odd
