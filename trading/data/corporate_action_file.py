"""Corporate actions from a file: for replays, and for what a data plan does not tell."""

import re
from fractions import Fraction
from pathlib import Path

from trading.data.csv_text import day, number, read_table, ticker
from trading.errors import DataError
from trading.market.corporate_actions import (
    ActionKind,
    CorporateAction,
    Delisting,
    Merger,
    Rename,
    SpecialDividend,
    SpinOff,
    Split,
)
from trading.market.dividends import Dividend

_COLUMNS = ["underlying", "ex_date", "kind", "new_symbol", "ratio", "cash"]
_HELP = (
    "write a ticker, a date as 2026-01-05, one of split, special_dividend, spin_off, merger, "
    "rename and delisting, and what that kind needs: ratio as 3/2, cash in USD a share (for a "
    "spin-off the price of the new share), new_symbol"
)


def read_corporate_actions(path: Path) -> tuple[list[CorporateAction], list[Dividend]]:
    """Read a CSV of `underlying,ex_date,kind,new_symbol,ratio,cash`; cells may be empty.

    `ratio` is shares after for each share before (`10`, `3/2`, `1/10`; shares of the new company in
    a spin-off or merger), `cash` USD a share. A special dividend is both an action and a dividend.

    Raises
    ------
    DataError
        The file is missing, has other columns, or a row is wrong; the message names the line.
    """
    actions: list[CorporateAction] = []
    dividends = []
    for line, cells in read_table(path, "corporate actions", _COLUMNS, _HELP):
        row = [cells[name] for name in _COLUMNS]
        try:
            action = _action(row)
        except (ValueError, ZeroDivisionError, DataError) as error:
            raise DataError(
                f"corporate actions {path}, line {line}, {','.join(row)!r}: {error}; {_HELP}"
            ) from error
        if isinstance(action, SpecialDividend):
            # Its effect on contracts follows from the dividend.
            paid = Dividend(action.underlying, action.ex_date, action.amount, special=True)
            dividends.append(paid)
        else:
            actions.append(action)
    return list(dict.fromkeys(actions)), list(dict.fromkeys(dividends))


_NEEDS = {
    ActionKind.SPLIT: ("ratio",),
    ActionKind.SPECIAL_DIVIDEND: ("cash",),
    ActionKind.SPIN_OFF: ("new_symbol", "ratio", "cash"),
    ActionKind.MERGER: ("new_symbol", "ratio", "cash"),
    ActionKind.RENAME: ("new_symbol",),
    ActionKind.DELISTING: (),
}
"""What the row of each kind says besides."""
_RATIO = re.compile(r"\d{1,7}(\.\d{1,9})?(/\d{1,7})?", re.ASCII)


def _ratio(cell: str) -> Fraction:
    if cell and not _RATIO.fullmatch(cell):
        raise ValueError(f"{cell!r} is no ratio, as 10, 3/2 or 1/10")
    numerator, _, denominator = cell.partition("/")
    return Fraction(numerator or "0") / Fraction(denominator or "1")


def _action(row: list[str]) -> CorporateAction:
    underlying, ex_date, kind, new_symbol, ratio, cash = row
    name, on, what = ticker(underlying), day(ex_date), ActionKind(kind.lower())
    told = {"new_symbol": new_symbol, "ratio": ratio, "cash": cash}
    if odd := [field for field, cell in told.items() if cell and field not in _NEEDS[what]]:
        raise ValueError(f"a {what} has no {odd[0]}: leave it empty")
    new, shares = ticker(new_symbol) if new_symbol else "", _ratio(ratio)
    if new == name:
        raise ValueError(f"{name} cannot become itself")
    if what is ActionKind.SPIN_OFF and not new:
        raise ValueError("the new symbol is empty")
    amount = number(cash or "0")
    match what:
        case ActionKind.SPLIT:
            if shares <= 0 or shares == 1:
                raise ValueError(f"the ratio of a split is {ratio or 'empty'}")
            return Split(name, on, shares.numerator, shares.denominator)
        case ActionKind.SPECIAL_DIVIDEND:
            return SpecialDividend(name, on, amount)
        case ActionKind.SPIN_OFF:
            return SpinOff(name, on, new, shares, amount)
        case ActionKind.MERGER:
            return Merger(name, on, new, shares, amount)
        case ActionKind.RENAME:
            return Rename(name, on, new)
        case ActionKind.DELISTING:
            return Delisting(name, on)
