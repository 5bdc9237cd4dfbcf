"""Corporate actions: what a company does that changes what its shares and options stand for.

Each is one value with the date from which the exchange trades without what was before (`ex_date`).
What an action does to a price is `price_after`; what it does to an account is worked out in
`trading.execution.adjustment`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from fractions import Fraction
from typing import TypeAlias

from trading.errors import DataError
from trading.market.bars import StockBar
from trading.market.calendar import ExchangeCalendar
from trading.market.dividends import Dividend

SPECIAL_DIVIDEND_THRESHOLD = 0.125
"""USD a share from which a special dividend adjusts contracts (OCC By-Laws Article VI, section 11A,
interpretation .01: 12.50 USD a contract)."""

_FEWEST_MILLI = 10
"""A strike is at least a cent."""


_NOW = "now "


class ActionKind(StrEnum):
    """Which corporate action."""

    SPLIT = "split"
    SPECIAL_DIVIDEND = "special_dividend"
    SPIN_OFF = "spin_off"
    MERGER = "merger"
    RENAME = "rename"
    DELISTING = "delisting"


@dataclass(frozen=True, slots=True)
class Split:
    """`new` shares take the place of `old` ones: 10 for 1, 3 for 2, 1 for 10.

    Parameters
    ----------
    identifier : str
        The vendor's name of this announcement, empty where it has none.

    Raises
    ------
    DataError
        Either number is below one.
    """

    underlying: str
    ex_date: date
    new: int
    old: int
    identifier: str = ""

    kind = ActionKind.SPLIT

    def __post_init__(self) -> None:
        if self.new < 1 or self.old < 1:
            raise DataError(
                f"split of {self.underlying} on {self.ex_date} is {self.new} for {self.old}: give "
                "whole numbers of shares, as 3 for 2"
            )

    @property
    def ratio(self) -> Fraction:
        """Shares after for each share before."""
        return Fraction(self.new, self.old)

    @property
    def is_whole(self) -> bool:
        """Whether contracts multiply and strikes divide, instead of delivering other numbers."""
        return self.ratio.denominator == 1

    @property
    def terms(self) -> str:
        """For people, and to tell two splits apart."""
        return f"{self.ratio.numerator} for {self.ratio.denominator}"

    def price_after(self, price: float) -> float:
        """Return what a price of before is in shares of after, USD."""
        return price * self.ratio.denominator / self.ratio.numerator


@dataclass(frozen=True, slots=True)
class SpecialDividend:
    """A cash dividend outside of the regular ones: strikes fall by it.

    The cash itself is paid by a `Dividend`; this is what happens to contracts and prices.
    """

    underlying: str
    ex_date: date
    amount: float
    identifier: str = ""

    kind = ActionKind.SPECIAL_DIVIDEND

    def __post_init__(self) -> None:
        _check_amount(self.underlying, self.ex_date, "special dividend", self.amount)

    @property
    def terms(self) -> str:
        """For people, and to tell two dividends apart."""
        return f"{self.amount:.10g} USD a share"

    def price_after(self, price: float) -> float:
        """Return what a price of before is without the dividend, USD; never below a cent."""
        return max(price - self.amount, min(price, 0.01))


@dataclass(frozen=True, slots=True)
class SpinOff:
    """Each share brings `ratio` shares of `new_symbol`, worth `price` USD each at the beginning."""

    underlying: str
    ex_date: date
    new_symbol: str
    ratio: Fraction
    price: float
    identifier: str = ""

    kind = ActionKind.SPIN_OFF

    def __post_init__(self) -> None:
        _check_ratio(self.underlying, self.ex_date, "spin-off", self.ratio)
        _check_amount(self.underlying, self.ex_date, "price of the spun-off share", self.price)

    @property
    def terms(self) -> str:
        """For people."""
        return f"{self.ratio} {self.new_symbol} a share, at {self.price:.10g} USD"

    def price_after(self, price: float) -> float:
        """Return what a price of before is without the spun-off shares, USD; never below a cent."""
        return max(price - float(self.ratio) * self.price, min(price, 0.01))


@dataclass(frozen=True, slots=True)
class Merger:
    """Each share becomes `ratio` shares of `new_symbol` and `cash` USD; a ratio of 0 is for cash.

    Raises
    ------
    DataError
        Nothing is given for a share, or shares of nobody.
    """

    underlying: str
    ex_date: date
    new_symbol: str = ""
    ratio: Fraction = Fraction(0)
    cash: float = 0.0
    identifier: str = ""

    kind = ActionKind.MERGER

    def __post_init__(self) -> None:
        if self.ratio < 0 or (self.ratio > 0) is not bool(self.new_symbol):
            raise DataError(
                f"merger of {self.underlying} on {self.ex_date} gives {self.ratio} shares of "
                f"{self.new_symbol!r}: name the company and a number above 0, or neither"
            )
        if not 0.0 <= self.cash < math.inf or (self.cash == 0.0 and self.ratio == 0):
            raise DataError(
                f"merger of {self.underlying} on {self.ex_date} gives {self.cash} USD and no "
                "shares: give what a share becomes"
            )

    @property
    def terms(self) -> str:
        """For people."""
        shares = f"{self.ratio} {self.new_symbol}" if self.ratio else ""
        cash = f"{self.cash:.10g} USD" if self.cash else ""
        return " and ".join(filter(None, (shares, cash))) + " a share"

    def price_after(self, price: float) -> float:
        """Return the price of a new company's share that makes both sides worth the same, USD."""
        if self.ratio == 0:
            return self.cash
        return max(price - self.cash, min(price, 0.01)) / float(self.ratio)


@dataclass(frozen=True, slots=True)
class Rename:
    """The same shares trade under another symbol."""

    underlying: str
    ex_date: date
    new_symbol: str
    identifier: str = ""

    kind = ActionKind.RENAME

    def __post_init__(self) -> None:
        if not self.new_symbol or self.new_symbol == self.underlying:
            raise DataError(
                f"{self.underlying} is renamed to {self.new_symbol!r} on {self.ex_date}: give "
                "another symbol"
            )

    @property
    def terms(self) -> str:
        """For people."""
        return f"{_NOW}{self.new_symbol}"

    def price_after(self, price: float) -> float:
        """Return the same."""
        return price


@dataclass(frozen=True, slots=True)
class Delisting:
    """The shares trade no more from `ex_date` on."""

    underlying: str
    ex_date: date
    identifier: str = ""

    kind = ActionKind.DELISTING

    @property
    def terms(self) -> str:
        """For people."""
        return "delisted"

    def price_after(self, price: float) -> float:
        """Return the same."""
        return price


CorporateAction: TypeAlias = Split | SpecialDividend | SpinOff | Merger | Rename | Delisting

_ORDER = [
    # A dividend is told in shares of before the split of the same morning, so is a spin-off; the
    # symbol changes last, and what ends ends under its last name.
    ActionKind.SPECIAL_DIVIDEND,
    ActionKind.SPIN_OFF,
    ActionKind.SPLIT,
    ActionKind.MERGER,
    ActionKind.RENAME,
    ActionKind.DELISTING,
]


def action_id(action: CorporateAction) -> str:
    """Names an action in the journal, so that it is applied once."""
    return f"{action.underlying}/{action.kind}/{action.ex_date}"


def renames(applied: Mapping[str, tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Old and new symbol of the renames among actions of the journal: terms by `action_id`."""
    for name, (terms, _) in sorted(applied.items(), key=lambda each: each[0].rpartition("/")[2]):
        underlying, kind, _ = name.rsplit("/", 2)
        if kind == ActionKind.RENAME and terms.startswith(_NOW):
            yield underlying, terms.removeprefix(_NOW)


def first_name(symbol: str, applied: Mapping[str, tuple[str, str]]) -> str:
    """Return the symbol that a held company had before all changes that were `applied`."""
    name = symbol
    for before, after in reversed(list(renames(applied))):
        name = before if after == name else name
    return name


def in_order(actions: Iterable[CorporateAction]) -> list[CorporateAction]:
    """Each distinct action once, in the order in which they take effect."""
    # The same action told under two identifiers is one.
    distinct = {(action_id(each), each.terms): each for each in actions}
    return sorted(
        distinct.values(),
        key=lambda each: (each.ex_date, _ORDER.index(each.kind), each.underlying, each.terms),
    )


def special_dividends(dividends: Iterable[Dividend]) -> list[SpecialDividend]:
    """Return what special `dividends` do to contracts, those of one ex-date added up."""
    totals: dict[tuple[str, date], float] = {}
    for each in dividends:
        if each.special:
            key = (each.underlying, each.ex_date)
            totals[key] = totals.get(key, 0.0) + each.amount
    return [
        SpecialDividend(underlying, ex_date, round(amount, 6))
        for (underlying, ex_date), amount in totals.items()
        if amount >= SPECIAL_DIVIDEND_THRESHOLD
    ]


def without_adjusting(dividends: Iterable[Dividend]) -> list[Dividend]:
    """Those dividends for which contracts are not adjusted, so that their holders may miss them."""
    told = list(dividends)
    adjusting = {(each.underlying, each.ex_date) for each in special_dividends(told)}
    return [
        each
        for each in told
        if not each.special or (each.underlying, each.ex_date) not in adjusting
    ]


def adjusted_strike(action: CorporateAction, strike_milli: int) -> int | None:
    """Return the strike, in thousandths, of a contract that stays standard through an action.

    To the cent, halves up (OCC By-Laws Article VI, section 11A). None where the action changes what
    the contract delivers instead, or leaves less than a cent.
    """
    if isinstance(action, Rename | Delisting):
        return strike_milli
    if isinstance(action, Split) and action.is_whole:
        return _cents(strike_milli / action.ratio)
    if isinstance(action, SpecialDividend):
        lowered = strike_milli - 1000 * Fraction(str(action.amount))
        return _cents(lowered) if lowered >= _FEWEST_MILLI else None
    return None


def _cents(milli: Fraction) -> int:
    return max(int((milli / 10 + Fraction(1, 2)) // 1) * 10, _FEWEST_MILLI)


def price_factor(actions: Sequence[CorporateAction], price: float) -> float:
    """Return what prices of before `actions` are multiplied with to go on without a jump.

    `price` is the last one before them, USD; without one (NaN) only splits count.
    """
    known = 0.0 < price < math.inf
    at = price if known else 1.0
    start = at
    for action in in_order(actions):
        if known or action.kind is ActionKind.SPLIT:
            at = action.price_after(at)
    return at / start


def bars_after(
    bars: Iterable[StockBar],
    underlying: str,
    actions: Iterable[CorporateAction],
    calendar: ExchangeCalendar,
    on: date,
) -> list[StockBar]:
    """Bars of an underlying, oldest first, in the prices of after its actions up to `on`.

    Those of before an action are multiplied so that its last close goes on without a jump.
    """
    told = list(bars)
    for action in in_order(actions):
        if action.underlying != underlying or action.ex_date > on:
            continue
        start_ns = calendar.next_session(action.ex_date - timedelta(days=1)).open_ns
        before = [bar for bar in told if bar.start_ns < start_ns]
        if before:
            factor = price_factor([action], before[-1].close)
            told = [bar.times(factor) for bar in before] + told[len(before) :]
    return told


def _check_amount(underlying: str, ex_date: date, what: str, amount: float) -> None:
    if not 0.0 < amount < math.inf:
        raise DataError(
            f"{what} of {underlying} on {ex_date} is {amount}: give USD a share, above 0"
        )


def _check_ratio(underlying: str, ex_date: date, what: str, ratio: Fraction) -> None:
    if not ratio > 0:
        raise DataError(
            f"{what} of {underlying} on {ex_date} gives {ratio} shares: give a number above 0"
        )
