"""Sessions follow the exchange, not the clock on the wall."""

from datetime import UTC, date, datetime

import pytest

from trading.errors import CalendarError
from trading.market.calendar import ExchangeCalendar

CALENDAR = ExchangeCalendar()


def utc_ns(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 1_000_000_000  # type: ignore[misc, arg-type]


@pytest.mark.parametrize("year", [2015, 2018, 2024, 2025])
def test_christmas_eve_closes_at_one(year: int) -> None:
    session = CALENDAR.session_on(date(year, 12, 24))
    assert session is not None
    assert session.open_ns == utc_ns(year, 12, 24, 14, 30)
    assert session.close_ns == utc_ns(year, 12, 24, 18, 0)


def test_day_after_thanksgiving_closes_at_one() -> None:
    session = CALENDAR.session_on(date(2026, 11, 27))
    assert session is not None
    assert session.close_ns == utc_ns(2026, 11, 27, 18, 0)


@pytest.mark.parametrize(
    ("day", "open_hour"),
    [
        (date(2026, 3, 6), 14),
        (date(2026, 3, 9), 13),
        (date(2026, 10, 30), 13),
        (date(2026, 11, 2), 14),
    ],
)
def test_open_moves_with_daylight_saving(day: date, open_hour: int) -> None:
    session = CALENDAR.session_on(day)
    assert session is not None
    assert session.open_ns == utc_ns(day.year, day.month, day.day, open_hour, 30)
    assert session.close_ns - session.open_ns == 6.5 * 3600e9


@pytest.mark.parametrize(
    "day",
    [
        date(2026, 1, 1),
        date(2026, 4, 3),
        date(2026, 6, 19),
        date(2026, 7, 3),
        date(2025, 1, 9),
        date(2026, 11, 26),
        date(2026, 11, 22),
    ],
)
def test_holidays_and_weekends_have_no_session(day: date) -> None:
    assert CALENDAR.session_on(day) is None


def test_session_at_includes_both_ends_and_nothing_else() -> None:
    session = CALENDAR.session_on(date(2026, 1, 5))
    assert session is not None
    assert CALENDAR.session_at(session.open_ns) == session
    assert CALENDAR.session_at(session.close_ns) == session
    assert CALENDAR.session_at(session.open_ns - 1) is None
    assert CALENDAR.session_at(session.close_ns + 1) is None


def test_next_session_skips_holidays_and_years() -> None:
    assert CALENDAR.next_session(date(2025, 12, 31)).date == date(2026, 1, 2)
    assert CALENDAR.next_session(date(2026, 4, 2)).date == date(2026, 4, 6)


def test_sessions_of_a_range_include_both_ends() -> None:
    days = [session.date for session in CALENDAR.sessions(date(2025, 12, 24), date(2026, 1, 2))]
    assert [day.day for day in days] == [24, 26, 29, 30, 31, 2]
    assert len(CALENDAR.sessions(date(2025, 1, 1), date(2025, 12, 31))) == 250


def test_contract_expiring_on_a_holiday_ends_the_session_before() -> None:
    assert CALENDAR.expiry_ns(date(2026, 4, 3)) == utc_ns(2026, 4, 2, 20, 0)
    assert CALENDAR.expiry_ns(date(2015, 12, 24)) == utc_ns(2015, 12, 24, 18, 0)


def test_date_is_that_of_new_york() -> None:
    assert CALENDAR.date_of(utc_ns(2026, 1, 6, 4, 59)) == date(2026, 1, 5)
    assert CALENDAR.date_of(utc_ns(2026, 1, 6, 5, 0)) == date(2026, 1, 6)
    assert CALENDAR.date_of(utc_ns(2026, 7, 6, 4, 0)) == date(2026, 7, 6)


def test_unknown_calendar_and_year_are_refused_by_name() -> None:
    with pytest.raises(CalendarError, match="'NO_SUCH_PLACE'"):
        ExchangeCalendar("NO_SUCH_PLACE").session_on(date(2026, 1, 5))
    with pytest.raises(CalendarError, match="1776"):
        CALENDAR.session_on(date(1776, 7, 4))
