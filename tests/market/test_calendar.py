"""Sessions follow the exchange, not the clock on the wall."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.errors import CalendarError
from trading.market.calendar import NEW_YORK, ExchangeCalendar

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


def hours(root: str, day: date) -> tuple[str, str]:
    """Opening and closing time of a root's options, on the clocks of New York."""
    session = CALENDAR.trading_hours(root, day)
    assert session is not None
    assert session.date == day
    open_at, close_at = (
        datetime.fromtimestamp(ns // 10**9, NEW_YORK).strftime("%H:%M")
        for ns in (session.open_ns, session.close_ns)
    )
    return open_at, close_at


DAYS = [date(2026, 1, 5), date(2026, 7, 6), date(2026, 3, 6), date(2026, 3, 9), date(2026, 11, 2)]
HALF_DAYS = [date(2015, 12, 24), date(2025, 7, 3), date(2026, 11, 27), date(2026, 12, 24)]


@pytest.mark.parametrize("day", DAYS)
@pytest.mark.parametrize("root", ["GOOG", "AAPL", "TLT", "GOOG1"])
def test_stock_options_trade_until_four(root: str, day: date) -> None:
    assert hours(root, day) == ("09:30", "16:00")
    assert CALENDAR.trading_hours(root, day) == CALENDAR.session_on(day)


@pytest.mark.parametrize("day", DAYS)
@pytest.mark.parametrize("root", ["SPY", "QQQ", "IWM", "SPX", "SPXW", "XSP", "NDX", "RUT", "VIX"])
def test_options_on_broad_funds_and_indices_trade_until_a_quarter_past(
    root: str, day: date
) -> None:
    assert hours(root, day) == ("09:30", "16:15")


@pytest.mark.parametrize("day", HALF_DAYS)
def test_half_day_ends_at_one_and_a_quarter_of_an_hour_later(day: date) -> None:
    assert hours("GOOG", day) == ("09:30", "13:00")
    assert hours("SPY", day) == ("09:30", "13:15")
    assert hours("SPXW", day) == ("09:30", "13:15")


@pytest.mark.parametrize("root", ["GOOG", "SPY"])
@pytest.mark.parametrize("day", [date(2026, 11, 26), date(2026, 11, 22), date(2025, 1, 9)])
def test_no_product_trades_on_holidays(root: str, day: date) -> None:
    assert CALENDAR.trading_hours(root, day) is None


@pytest.mark.parametrize(
    ("before", "after", "hours_later"),
    [(date(2026, 3, 6), date(2026, 3, 9), 71), (date(2026, 10, 30), date(2026, 11, 2), 73)],
)
@pytest.mark.parametrize("root", ["GOOG", "SPY"])
def test_weekend_of_a_clock_change_is_an_hour_shorter_or_longer(
    root: str, before: date, after: date, hours_later: int
) -> None:
    friday, monday = CALENDAR.trading_hours(root, before), CALENDAR.trading_hours(root, after)
    assert friday is not None
    assert monday is not None
    assert monday.open_ns - friday.open_ns == hours_later * 3600 * 10**9
    assert monday.close_ns - friday.close_ns == hours_later * 3600 * 10**9
    assert friday.close_ns - friday.open_ns == monday.close_ns - monday.open_ns


@given(days=st.integers(0, 30 * 365), root=st.sampled_from(["GOOG", "SPY", "SPX"]))
def test_every_session_opens_at_half_past_nine_and_ends_at_a_known_time(
    days: int, root: str
) -> None:
    day = date(2012, 1, 1) + timedelta(days=days)
    if CALENDAR.trading_hours(root, day) is None:
        return
    late = root != "GOOG"
    opened, closed = hours(root, day)
    assert opened == "09:30"
    assert closed in (("13:15", "16:15") if late else ("13:00", "16:00"))


def test_contract_ceases_to_trade_by_the_hours_of_its_root() -> None:
    day = date(2026, 1, 9)
    four, quarter_past = utc_ns(2026, 1, 9, 21, 0), utc_ns(2026, 1, 9, 21, 15)
    for calendar in (CALENDAR, ExchangeCalendar("CBOE_Index_Options")):
        assert calendar.expiry_ns(day, "GOOG") == four
        assert calendar.expiry_ns(day, "SPY") == quarter_past
        assert calendar.expiry_ns(day, "SPXW") == four
    assert CALENDAR.expiry_ns(day) == four
    assert CALENDAR.expiry_ns(date(2026, 4, 3), "SPY") == utc_ns(2026, 4, 2, 20, 15)
    assert CALENDAR.expiry_ns(date(2026, 11, 27), "SPY") == utc_ns(2026, 11, 27, 18, 15)
