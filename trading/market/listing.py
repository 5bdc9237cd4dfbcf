"""What a simulated exchange lists: underlyings, strikes and expiries."""

import zlib
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from trading.market.calendar import ExchangeCalendar
from trading.market.quotes import TickClass

_INCREMENTS = (0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)
_FRIDAY = 4
_TERMS_DAYS = (30, 60)


@dataclass(frozen=True, slots=True)
class UnderlyingSpec:
    """One simulated underlying.

    Parameters
    ----------
    symbol : str
        Ticker of a stock or fund.
    spot : float
        Price at the first session's open, USD per share.
    annual_vol : float
        30-day at-the-money implied volatility in calm times.
    n_strikes : int
        Strikes listed around the spot, per expiry and session.
    penny : bool
        Whether its options tick in cents at every price; otherwise in five cents from 3 dollars.
    tick : TickClass, optional
        How its options tick, whatever `penny` says.
    """

    symbol: str
    spot: float
    annual_vol: float
    n_strikes: int = 21
    penny: bool = True
    tick: TickClass | None = None

    @property
    def tick_class(self) -> TickClass:
        """How its options tick."""
        if self.tick is not None:
            return self.tick
        return TickClass.PENNY if self.penny else TickClass.PENNY_PROGRAM


_KNOWN = {
    spec.symbol: spec
    for spec in (
        UnderlyingSpec("SPY", 680.0, 0.15),
        UnderlyingSpec("QQQ", 610.0, 0.20),
        UnderlyingSpec("IWM", 245.0, 0.21),
        UnderlyingSpec("DIA", 480.0, 0.14, penny=False),
        UnderlyingSpec("AAPL", 270.0, 0.26, penny=False),
        UnderlyingSpec("AMD", 215.0, 0.52, penny=False),
        UnderlyingSpec("AMZN", 230.0, 0.32, penny=False),
        UnderlyingSpec("GOOG", 310.0, 0.30, penny=False),
        UnderlyingSpec("GOOGL", 310.0, 0.30, penny=False),
        UnderlyingSpec("META", 650.0, 0.34, penny=False),
        UnderlyingSpec("MSFT", 480.0, 0.24, penny=False),
        UnderlyingSpec("NVDA", 185.0, 0.42, penny=False),
        UnderlyingSpec("TSLA", 440.0, 0.55, penny=False),
    )
}


def default_spec(symbol: str) -> UnderlyingSpec:
    """Return the usual spec of a well-known underlying, a made-up but fixed one of any other."""
    known = _KNOWN.get(symbol)
    if known is not None:
        return known
    digest = zlib.crc32(symbol.encode())
    spot = round(20.0 * 20.0 ** ((digest & 0xFFFF) / 0xFFFF), 2)
    annual_vol = round(0.20 + 0.40 * (digest >> 16) / 0xFFFF, 3)
    return UnderlyingSpec(symbol, spot, annual_vol, penny=False)


def listing_strikes(spot: float, n_strikes: int, coverage: float = 0.075) -> NDArray[np.float64]:
    """`n_strikes` (K) equally spaced strikes around the spot, f64[K], rising, USD per share.

    The increment is the smallest usual one (0.50 to 100 dollars) whose strikes reach `coverage`
    of the spot to either side. Strikes at or below zero are left out.
    """
    each_side = max(n_strikes // 2, 1)
    increment = next(
        (step for step in _INCREMENTS if each_side * step >= coverage * spot), _INCREMENTS[-1]
    )
    lowest = round(spot / increment) - n_strikes // 2
    strikes = increment * np.arange(lowest, lowest + n_strikes, dtype=np.float64)
    return strikes[strikes > 0.0]


def listing_expiries(session_date: date, calendar: ExchangeCalendar) -> list[date]:
    """Expiries that receive new strikes in a session, oldest first.

    They are the two nearest Fridays 2 to 14 days away and the Fridays closest to 30 and 60 days;
    when a Friday is a holiday, the session before it.
    """
    to_friday = (_FRIDAY - session_date.weekday()) % 7
    weeks = [to_friday + 7 * week for week in range(3)]
    days = [day for day in weeks if 2 <= day <= 14][:2]
    days += [to_friday + 7 * round((term - to_friday) / 7) for term in _TERMS_DAYS]
    fridays = [session_date + timedelta(days=day) for day in days]
    return [calendar.date_of(calendar.expiry_ns(friday)) for friday in fridays]
