"""Dividends from a file: for replays, and for a data plan that does not tell them."""

import csv
from datetime import date
from pathlib import Path

from trading.errors import DataError
from trading.market.dividends import Dividend

_COLUMNS = ["underlying", "ex_date", "amount"]


def read_dividends(path: Path) -> list[Dividend]:
    """Read a CSV of `underlying,ex_date,amount`: a ticker, YYYY-MM-DD, and USD a share.

    Raises
    ------
    DataError
        The file is missing, has other columns, or a row is wrong; the message names the line.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read dividends {path}: {error}") from error
    if not rows or rows[0] != _COLUMNS:
        raise DataError(
            f"dividends {path} begin with {','.join(rows[0]) if rows else 'nothing'}: the first "
            f"line must be {','.join(_COLUMNS)}"
        )
    return [_dividend(path, line, row) for line, row in enumerate(rows[1:], start=2) if row]


def _dividend(path: Path, line: int, row: list[str]) -> Dividend:
    try:
        underlying, ex_date, amount = (cell.strip() for cell in row)
        return Dividend(underlying.upper(), date.fromisoformat(ex_date), float(amount))
    except (ValueError, DataError) as error:
        raise DataError(
            f"dividends {path}, line {line}, {','.join(row)!r}: {error}; write a ticker, a date as "
            "2026-01-05 and USD a share above 0"
        ) from error
