"""CSV as programs and spreadsheets write it: byte-order marks, spaces, other separators."""

import csv
import re
from collections.abc import Collection, Iterator, Sequence
from datetime import date
from pathlib import Path

from trading.errors import DataError

_BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_SEPARATORS = ",;\t"


_NUMBER = re.compile(r"\$?\s*([+-]?\d+(?:[.,]\d+)?(?:[eE][+-]?\d{1,3})?)", re.ASCII)
_TICKER = re.compile(r"[A-Z][A-Z0-9]{0,9}(\.[A-Z]{1,2})?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d|\d{8})(?:[T ]00:00(?::00(?:\.0+)?)?(?:Z|\+00:00)?)?", re.ASCII
)
_SEPARATOR_LINE = re.compile(r"\ufeff?\"?sep=(.)\"?", re.IGNORECASE)


def number(cell: str) -> float:
    """Return the number in a cell, with a point or, as half of the world has it, a decimal comma.

    Raises ValueError for anything else, and where a comma may stand before thousands.

    >>> number("$1.69"), number("0,125")
    (1.69, 0.125)
    """
    found = _NUMBER.fullmatch(cell)
    if found is None:
        raise ValueError(f"{cell!r} is no number" if cell else "a number is missing")
    if _THOUSANDS.fullmatch(found[1]):
        raise ValueError(f"{cell!r} may be thousands or a fraction: write it with a point")
    return float(found[1].replace(",", "."))


def ticker(cell: str) -> str:
    """Return the ticker in a cell, `BRK.B` for `brk/b`; raises ValueError where it is none."""
    name = cell.upper().replace("/", ".")
    if not _TICKER.fullmatch(name):
        raise ValueError(
            f"{cell!r} is no ticker, as SPY or BRK.B" if cell else "it names no ticker"
        )
    return name


def day(cell: str) -> date:
    """Return the date in a cell: `2026-01-05`, also with a time of midnight, or `20260105`.

    Raises ValueError for anything else: 03/04 is March to some and April to others.
    """
    found = _DATE.fullmatch(cell)
    if found is None:
        raise ValueError(f"{cell!r} is no date of the form 2026-01-05")
    return date.fromisoformat(found[1])


def header_names(line: str) -> list[str]:
    """Return the column names of a first line: without a byte-order mark, spaces and capitals."""
    try:
        cells = next(csv.reader([line.lstrip("\ufeff")], skipinitialspace=True), [])
    except csv.Error:
        return []
    return [cell.strip().lower() for cell in cells]


def header_problem(names: Sequence[str], wanted: Collection[str]) -> str:
    """Why a header does not do for the columns that are wanted; empty when it does."""
    missing = [name for name in wanted if name not in names]
    twice = sorted({name for name in names if names.count(name) > 1 and name in wanted})
    if missing:
        others = "separated by ';', not ','; " if len(names) == 1 and ";" in names[0] else ""
        return f"the columns are {others}{', '.join(names)!r}, and {', '.join(missing)} is missing"
    return f"the column {', '.join(twice)} is there twice" if twice else ""


def read_table(
    path: Path, what: str, columns: Sequence[str], hint: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a small CSV as cells by column, each with its line; other columns are told too.

    Column names are found in any order and case, cells are stripped of spaces, empty lines and
    those that begin with # are passed over. The separator is a comma, a semicolon or a tab, or what
    a first line `sep=` names.

    Raises
    ------
    DataError
        The file cannot be read, lacks a column, or a row has another number of cells; the message
        names `what`, the file and the line.
    """
    try:
        content = path.read_bytes()
        encoding = next((name for bom, name in _BOMS.items() if content.startswith(bom)), "utf-8")
        lines = content.decode(encoding).splitlines()
    except OSError as error:
        raise DataError(f"cannot read {what} {path}: {error}") from error
    except UnicodeError as error:
        raise DataError(
            f"cannot read {what} {path}: it is no UTF-8 ({error}); save it as CSV in UTF-8"
        ) from error
    rows = [
        (at, line)
        for at, line in enumerate(lines, 1)
        if line.strip(_SEPARATORS + " ") and not line.startswith("#")
    ]
    named = _SEPARATOR_LINE.fullmatch(rows[0][1].strip()) if rows else None
    if named is not None:
        rows = rows[1:]
    if not rows:
        raise DataError(f"{what} {path} is empty: the first line must be {','.join(columns)}")
    separator = max(_SEPARATORS, key=rows[0][1].count) if named is None else named[1]
    names = header_names(rows[0][1].replace(separator, ","))
    if problem := header_problem(names, columns):
        raise DataError(
            f"{what} {path}, line {rows[0][0]}: {problem}; the first line must be "
            f"{','.join(columns)}"
        )
    for at, line in rows[1:]:
        try:
            cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True))
        except csv.Error as error:
            raise DataError(f"{what} {path}, line {at}: {error}; {hint}") from error
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()
        if len(cells) != len(names):
            raise DataError(
                f"{what} {path}, line {at}, {line!r}: it has {len(cells)} cells, the first "
                f"line has {len(names)}; {hint}"
            )
        yield at, dict(zip(names, (cell.strip() for cell in cells), strict=True))
