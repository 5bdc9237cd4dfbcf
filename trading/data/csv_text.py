"""CSV as programs and spreadsheets write it: byte-order marks, spaces, other separators."""

import csv
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from trading.errors import DataError

_BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_SEPARATORS = ",;\t"


def header_names(line: str) -> list[str]:
    """The column names of a first line: without a byte-order mark, spaces and capitals."""
    cells = next(csv.reader([line.lstrip("\ufeff")], skipinitialspace=True), [])
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

    Column names are found in any order and case, cells are stripped of spaces, empty lines are
    passed over. The separator is a comma, a semicolon or a tab.

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
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip(_SEPARATORS + " ")]
    if not rows:
        raise DataError(f"{what} {path} is empty: the first line must be {','.join(columns)}")
    separator = max(_SEPARATORS, key=rows[0][1].count)
    names = header_names(rows[0][1].replace(separator, ","))
    if problem := header_problem(names, columns):
        raise DataError(
            f"{what} {path}, line {rows[0][0]}: {problem}; the first line must be "
            f"{','.join(columns)}"
        )
    for number, line in rows[1:]:
        cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True))
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()
        if len(cells) != len(names):
            raise DataError(
                f"{what} {path}, line {number}, {line!r}: it has {len(cells)} cells, the first "
                f"line has {len(names)}; {hint}"
            )
        yield number, dict(zip(names, (cell.strip() for cell in cells), strict=True))
