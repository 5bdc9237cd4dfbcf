"""Risk-free rates from the yields of treasuries."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from trading.errors import DataError

_LARGEST_PERCENT = 100.0


@dataclass(frozen=True, slots=True)
class YieldCurve:
    """Yields of treasuries on one day.

    Parameters
    ----------
    day : date
        When they were observed.
    percent : mapping of float to float
        Bond-equivalent yields (compounded twice a year) in percent, by years to maturity.

    Raises
    ------
    DataError
        There is no yield, or one that is no number between -100 and 100.

    Examples
    --------
    >>> round(YieldCurve(date(2026, 1, 5), {0.25: 4.0, 1.0: 4.2}).rate(0.1), 6)
    0.039605
    """

    day: date
    percent: Mapping[float, float]

    def __post_init__(self) -> None:
        usable = [abs(each) < _LARGEST_PERCENT for each in self.percent.values()]
        if not usable or not all(usable):
            raise DataError(
                f"treasury yields of {self.day} are {dict(self.percent)}: give percent a year by "
                "years to maturity"
            )

    def rate(self, years: float) -> float:
        """Continuously compounded rate a year, for money lent for `years`.

        Yields between two maturities are on a straight line; beyond the ends they stay.
        """
        known = sorted(self.percent.items())
        below = [each for each in known if each[0] <= years] or known[:1]
        above = [each for each in known if each[0] >= years] or known[-1:]
        (first, low), (last, high) = below[-1], above[0]
        share = (years - first) / (last - first) if last > first else 0.0
        return 2.0 * math.log1p((low + share * (high - low)) / 200.0)


def yield_of(rate: float) -> float:
    """Return the yield, percent, that `YieldCurve.rate` makes a continuous rate of."""
    return 200.0 * math.expm1(rate / 2.0)
