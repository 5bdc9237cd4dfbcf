"""The life of a simulated company: what it announces, and what that makes of its listing.

A company announces an action a few sessions ahead, as real ones do, and rests for a quarter
afterwards, so that contracts which one action adjusted have expired before the next. It trades
under another symbol, or not at all, for a quarter, and comes back: so a world does not run dry.
"""

from datetime import date, timedelta
from fractions import Fraction
from typing import NamedTuple, TypeAlias

import numpy as np

from trading.market.calendar import ExchangeCalendar
from trading.market.corporate_actions import (
    CorporateAction,
    Delisting,
    Rename,
    SpecialDividend,
    Split,
    adjusted_strike,
)
from trading.market.dividends import Dividend
from trading.market.products import is_index, main_root
from trading.market.rare_events import RareEvents, RareKind

ListedStrikes: TypeAlias = dict[date, tuple[int, ...]]
"""Strikes in thousandths of a dollar by expiry."""

LEAD = 4
"""Sessions from the announcement to the ex-date."""
_REST = timedelta(days=91)
"""Beyond the longest listed expiry."""
_CLOSES_KEPT = 100
_LONGEST_ROOT = 6
_SHARES = 100

_FORWARD = [(2, 1), (3, 1), (4, 1), (5, 1), (10, 1), (3, 2)]
_REVERSE = [(1, 4), (1, 5), (1, 8), (1, 10), (1, 20)]
_EITHER = [(2, 1), (3, 2), (5, 4), (1, 2), (1, 8)]
_DEAR, _CHEAP = 250.0, 30.0


class AdjustedSeries(NamedTuple):
    """Contracts that deliver `shares` and `cash` (USD), under a root of their own."""

    root: str
    shares: int
    cash: float
    listing: ListedStrikes


class Company(NamedTuple):
    """Where one company stands when a session opens.

    Parameters
    ----------
    symbol : what it trades as
    listed : whether it trades at all
    ahead : what is announced and has not taken effect
    free_on : the day from which on something else may be announced
    back_on : the day on which its name, or its listing, comes back
    told : all that was announced: actions, and special dividends as what they pay
    adjusted : contracts that the last action adjusted, until they expire
    closes : closing prices of sessions in which it did not trade, as the exchanges set them
    """

    symbol: str
    listed: bool = True
    ahead: CorporateAction | None = None
    free_on: date = date.min
    back_on: date | None = None
    told: tuple[CorporateAction | Dividend, ...] = ()
    adjusted: AdjustedSeries | None = None
    closes: tuple[tuple[str, date, float], ...] = ()

    def closed_at(self, day: date, price: float) -> "Company":
        """After a session in which it did not trade."""
        closes = (*self.closes, (self.symbol, day, price))
        return self._replace(closes=closes[-_CLOSES_KEPT:])


class CompanyAtOpen(NamedTuple):
    """A company when a session opens: its price and its contracts are those of after its actions.

    `listing` is of standard contracts that were listed before.
    """

    company: Company
    spot: float
    listing: ListedStrikes


def alias_of(symbol: str) -> str:
    """Return the symbol that a simulated company takes when it is renamed."""
    return symbol.replace(".", "")[: _LONGEST_ROOT - 1] + "X"


def company_at_open(
    company: Company,
    events: RareEvents,
    home: str,
    day: date,
    spot: float,
    close: float,
    listing: ListedStrikes,
    rng: np.random.Generator,
    calendar: ExchangeCalendar,
) -> CompanyAtOpen:
    """Return the company at the open of the session `day`.

    `home` is its first symbol, `spot` the price at the open in shares of the evening before,
    `close` the closing price of that evening, `listing` the standard contracts then.
    """
    company = company._replace(adjusted=_unexpired(company.adjusted, day))
    now = CompanyAtOpen(company, spot, listing)
    if company.ahead is not None and company.ahead.ex_date <= day:
        now = _taking_effect(now, company.ahead, close)
    elif company.back_on is not None and company.back_on <= day:
        now = now._replace(company=_returned(company, home, day))
    return now._replace(
        company=_announcing(now.company, events, home, day, now.spot, rng, calendar)
    )


def _unexpired(series: AdjustedSeries | None, day: date) -> AdjustedSeries | None:
    if series is None:
        return None
    left = {expiry: strikes for expiry, strikes in series.listing.items() if expiry >= day}
    return series._replace(listing=left) if left else None


def _returned(company: Company, home: str, day: date) -> Company:
    if company.listed:
        back = Rename(company.symbol, day, home)
        company = company._replace(symbol=home, told=(*company.told, back))
    told = tuple(each for each in company.told if not isinstance(each, Delisting))
    return company._replace(listed=True, back_on=None, free_on=day + _REST, told=told)


def _announcing(
    company: Company,
    events: RareEvents,
    home: str,
    day: date,
    spot: float,
    rng: np.random.Generator,
    calendar: ExchangeCalendar,
) -> Company:
    chance, size, which = rng.random(3).tolist()
    is_idle = company.ahead is None and company.back_on is None and company.listed
    if not is_idle or is_index(home):
        return company
    kind, ex_date = _planned(events, home, day, calendar)
    if kind is None and day >= company.free_on:
        kind = events.drawn_action(chance)
    if kind is None:
        return company
    action = _action(kind, company.symbol, ex_date, spot, size, which)
    told: CorporateAction | Dividend = action
    if isinstance(action, SpecialDividend):
        told = Dividend(action.underlying, ex_date, action.amount, special=True)
    return company._replace(ahead=action, free_on=ex_date + _REST, told=(*company.told, told))


def _planned(
    events: RareEvents, home: str, day: date, calendar: ExchangeCalendar
) -> tuple[RareKind | None, date]:
    """Return what is planned to be announced on `day`, if anything, and the ex-date of what is."""
    actions = (
        RareKind.SPLIT,
        RareKind.UNEVEN_SPLIT,
        RareKind.SPECIAL_DIVIDEND,
        RareKind.RENAME,
        RareKind.DELISTING,
    )
    ex_date = day
    for _ in range(LEAD):
        ex_date = calendar.next_session(ex_date).date
        kind = events.planned.get((home, ex_date))
        if kind in actions:
            return kind, ex_date
    return None, ex_date


def _action(
    kind: RareKind, symbol: str, ex_date: date, spot: float, size: float, which: float
) -> CorporateAction:
    if kind is RareKind.SPECIAL_DIVIDEND:
        return SpecialDividend(symbol, ex_date, max(round(spot * (0.01 + 0.07 * size), 2), 0.13))
    if kind is RareKind.RENAME:
        return Rename(symbol, ex_date, alias_of(symbol))
    if kind is RareKind.DELISTING:
        return Delisting(symbol, ex_date)
    if len(main_root(symbol)) == _LONGEST_ROOT:  # No root is left for adjusted contracts.
        return Split(symbol, ex_date, 2, 1)
    if kind is RareKind.UNEVEN_SPLIT:
        return Split(symbol, ex_date, 3, 2)
    ratios = _FORWARD if spot > _DEAR else _REVERSE if spot < _CHEAP else _EITHER
    new, old = ratios[int(which * len(ratios))]
    return Split(symbol, ex_date, new, old)


def _taking_effect(now: CompanyAtOpen, action: CorporateAction, close: float) -> CompanyAtOpen:
    company, listing = now.company._replace(ahead=None), now.listing
    spot = action.price_after(now.spot)
    if isinstance(action, Delisting):
        gone = company._replace(listed=False, back_on=action.ex_date + _REST, adjusted=None)
        return CompanyAtOpen(gone, spot, {})
    if isinstance(action, Rename):
        renamed = company._replace(symbol=action.new_symbol, back_on=action.ex_date + _REST)
        return CompanyAtOpen(renamed, spot, listing)
    if isinstance(action, Split) and not action.is_whole:
        series = _adjusted_series(company.symbol, action, close, listing)
        return CompanyAtOpen(company._replace(adjusted=series), spot, {})
    converted = {}
    for expiry, strikes in listing.items():
        after = {adjusted_strike(action, strike) for strike in strikes}
        converted[expiry] = tuple(sorted(each for each in after if each is not None))
    return CompanyAtOpen(company, spot, converted)


def _adjusted_series(
    symbol: str, action: Split, close: float, listing: ListedStrikes
) -> AdjustedSeries:
    shares = Fraction(_SHARES) * action.ratio
    whole = int(shares)
    cash = round(float(shares - whole) * action.price_after(round(close, 2)), 2)
    kept = {
        expiry: tuple(each for each in strikes if each * _SHARES > 1000.0 * cash)
        for expiry, strikes in listing.items()
    }
    return AdjustedSeries(main_root(symbol) + "1", whole, cash, kept)
