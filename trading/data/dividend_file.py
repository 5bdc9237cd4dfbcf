"""Dividends from a file: for replays, and for a data plan that does not tell them."""

from pathlib import Path

from trading.data.csv_text import day, number, read_table, ticker
from trading.errors import DataError
from trading.market.dividends import Dividend

_COLUMNS = ("underlying", "ex_date", "amount")
_HELP = "write a ticker, a date as 2026-01-05 and USD a share above 0"


def read_dividends(path: Path) -> list[Dividend]:
    """Read a CSV of `underlying,ex_date,amount`: a ticker, YYYY-MM-DD, and USD a share.

    A column `currency` may follow, which must say USD, and `special`, true for a dividend outside
    of the regular ones; others are passed over.

    Raises
    ------
    DataError
        The file is missing, lacks a column, or a row is wrong or there twice; the message names the
        line.
    """
    found: dict[Dividend, int] = {}
    for line, row in read_table(path, "dividends", _COLUMNS, _HELP):
        dividend = _dividend(path, line, row)
        if dividend in found:
            raise DataError(
                f"dividends {path}, line {line}, {','.join(row.values())!r}: line "
                f"{found[dividend]} says the same; leave one out, or, where both are paid, "
                "write their sum in one"
            )
        found[dividend] = line
    return list(found)


def _dividend(path: Path, line: int, row: dict[str, str]) -> Dividend:
    try:
        if (currency := row.get("currency", "").upper()) not in ("", "USD"):
            raise DataError(f"its currency is {currency}, and only USD can be paid")
        underlying = ticker(row["underlying"])
        special = row.get("special", "").lower()
        if special not in ("", "0", "1", "no", "yes", "false", "true"):
            raise DataError(f"special is {special!r}: say true or false")
        ex_date, amount = day(row["ex_date"]), number(row["amount"])
        return Dividend(underlying, ex_date, amount, special in ("1", "yes", "true"))
    except (ValueError, DataError) as error:
        raise DataError(
            f"dividends {path}, line {line}, {','.join(row.values())!r}: {error}; {_HELP}"
        ) from error
