"""Cash dividends of stocks and funds."""

from dataclasses import dataclass
from datetime import date

from trading.errors import DataError

_LARGEST = 1e6
"""USD a share: more than any stock costs; a larger amount is damage."""


@dataclass(frozen=True, slots=True)
class Dividend:
    """A cash dividend.

    Parameters
    ----------
    underlying : str
        The stock or fund, as in `GOOG`.
    ex_date : date
        First session in which the stock trades without it: who holds the stock at the close
        before gets it, who is short owes it.
    amount : float
        USD a share, above zero and at most a million.
    special : bool
        Whether it is paid outside of the regular ones, which also adjusts option contracts.

    Raises
    ------
    DataError
        The amount is no such number.
    """

    underlying: str
    ex_date: date
    amount: float
    special: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.amount <= _LARGEST:
            raise DataError(
                f"dividend of {self.underlying} on {self.ex_date} is {self.amount}: give USD a "
                f"share, above 0 and at most {_LARGEST:.0f}"
            )
