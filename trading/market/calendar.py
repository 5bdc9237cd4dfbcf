"""When an options exchange is open: sessions with half-days and holidays, in UTC nanoseconds."""

from bisect import bisect_left
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from trading.errors import CalendarError
from trading.market.products import EQUITY, product_of

NEW_YORK = ZoneInfo("America/New_York")
SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
DAY_NS = 24 * 3600 * SECOND_NS

_FIRST_YEAR = 1990
_LAST_YEAR = 2199


@dataclass(frozen=True, slots=True)
class Session:
    """One trading day in New York: `open_ns` and `close_ns` are UTC nanoseconds."""

    date: date
    open_ns: int
    close_ns: int


class ExchangeCalendar:
    """The regular sessions of one exchange.

    Days and hours come from `pandas_market_calendars`, one year at a time when first asked for.
    Options stop with their underlyings: a session ends no later after the close of the New York
    Stock Exchange than usual, which is at once for stocks and a quarter of an hour for broad
    indices. The options calendars of that package lack the half-day on Christmas Eve.

    Parameters
    ----------
    name : str
        A calendar of `pandas_market_calendars`.

    Raises
    ------
    CalendarError
        From any method: the name is unknown, or a year lies outside 1990 to 2199.
    """

    def __init__(self, name: str = "CBOE_Equity_Options") -> None:
        self.name = name
        self._years: dict[int, dict[date, Session]] = {}
        self._sources: list[Any] = []
        self._others: dict[str, ExchangeCalendar] = {}

    def session_on(self, day: date) -> Session | None:
        """Return the session of a New York date, or None on a weekend or holiday."""
        return self._year(day.year).get(day)

    def session_at(self, ts_ns: int) -> Session | None:
        """Return the session that is open at a time, both ends included, or None."""
        session = self.session_on(self.date_of(ts_ns))
        if session is None or not session.open_ns <= ts_ns <= session.close_ns:
            return None
        return session

    def next_session(self, after: date) -> Session:
        """Return the first session on a date strictly later than `after`."""
        for year in (after.year, after.year + 1):
            days = list(self._year(year))
            position = bisect_left(days, after + timedelta(days=1))
            if position < len(days):
                return self._year(year)[days[position]]
        raise CalendarError(f"calendar {self.name} has no session after {after}")

    def sessions(self, start: date, end: date) -> list[Session]:
        """All sessions from `start` to `end`, both included, oldest first."""
        return [
            session
            for year in range(start.year, end.year + 1)
            for day, session in self._year(year).items()
            if start <= day <= end
        ]

    def trading_hours(self, root: str, day: date) -> Session | None:
        """When the options of a root trade on a New York date; None when they do not.

        `root` is an option root or an underlying: `GOOG` stops at 16:00, `SPY` and `SPXW` at
        16:15, and on a half-day at 13:00 and 13:15.
        """
        return self._named(product_of(root).calendar).session_on(day)

    def expiry_ns(self, expiry: date, root: str | None = None) -> int:
        """When contracts with this expiry date cease to trade.

        That is the close of that day or, when the exchange is shut, of the session before it: by
        the hours of this calendar or, where `root` is given, by those of that root on a last day.
        Roots that settle at a morning's level (`SPX`, `VIX`) stop a day before their expiry, which
        is not taken into account.
        """
        calendar = self
        if root is not None:
            product = product_of(root)
            product = EQUITY if product.expires_with_stocks else product
            calendar = self._named(product.calendar)
        day = expiry
        while (session := calendar.session_on(day)) is None:
            day -= timedelta(days=1)
        return session.close_ns

    def _named(self, name: str) -> "ExchangeCalendar":
        if name == self.name:
            return self
        return self._others.setdefault(name, ExchangeCalendar(name))

    def date_of(self, ts_ns: int) -> date:
        """Return the date in New York at a time."""
        return datetime.fromtimestamp(ts_ns // SECOND_NS, NEW_YORK).date()

    def _year(self, year: int) -> dict[date, Session]:
        sessions = self._years.get(year)
        if sessions is None:
            sessions = self._load(year)
            self._years[year] = sessions
        return sessions

    def _load(self, year: int) -> dict[date, Session]:
        if not _FIRST_YEAR <= year <= _LAST_YEAR:
            raise CalendarError(
                f"calendar {self.name} knows no year {year}: use {_FIRST_YEAR} to {_LAST_YEAR}"
            )
        if not self._sources:
            self._sources = [_exchange(self.name), _exchange("NYSE")]
        options, stocks = (_hours(source, year) for source in self._sources)
        days = [day for day in options if day in stocks]
        lag_ns = min(options[day][1] - stocks[day][1] for day in days)
        return {
            day: Session(
                day,
                max(options[day][0], stocks[day][0]),
                min(options[day][1], stocks[day][1] + max(lag_ns, 0)),
            )
            for day in days
        }


def _exchange(name: str) -> Any:
    import pandas_market_calendars  # takes a second to import

    try:
        return pandas_market_calendars.get_calendar(name)
    except RuntimeError as error:
        raise CalendarError(
            f"exchange calendar {name!r} is unknown: use a name from "
            "pandas_market_calendars.get_calendar_names(), as in CBOE_Equity_Options"
        ) from error


def _hours(source: Any, year: int) -> dict[date, tuple[int, int]]:
    schedule = source.schedule(f"{year}-01-01", f"{year}-12-31")
    opens = schedule["market_open"].to_numpy("datetime64[ns]").astype("int64").tolist()
    closes = schedule["market_close"].to_numpy("datetime64[ns]").astype("int64").tolist()
    days = [stamp.date() for stamp in schedule.index]
    return dict(zip(days, zip(opens, closes, strict=True), strict=True))
