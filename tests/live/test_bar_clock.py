"""When bars end, over sessions, half-days and nights."""

from datetime import date

from trading.live.bar_clock import first_bar_after
from trading.market.calendar import ExchangeCalendar, Session

CALENDAR = ExchangeCalendar()
MINUTE_NS = 60_000_000_000


def session_on(day: date) -> Session:
    session = CALENDAR.session_on(day)
    assert session is not None
    return session


MONDAY, TUESDAY = session_on(date(2026, 1, 5)), session_on(date(2026, 1, 6))
HALF_DAY = session_on(date(2015, 12, 24))


def test_the_first_bar_of_a_session_ends_one_bar_after_the_open() -> None:
    for ts_ns in (MONDAY.open_ns - 1, MONDAY.open_ns, MONDAY.open_ns + MINUTE_NS - 1):
        bar = first_bar_after(ts_ns, CALENDAR, MINUTE_NS)
        assert bar.session == MONDAY
        assert bar.end_ns == MONDAY.open_ns + MINUTE_NS


def test_a_bar_that_just_ended_is_not_decided_again() -> None:
    bar = first_bar_after(MONDAY.open_ns + MINUTE_NS, CALENDAR, MINUTE_NS)
    assert bar.end_ns == MONDAY.open_ns + 2 * MINUTE_NS


def test_the_last_bar_ends_with_the_session_and_the_next_is_the_next_sessions() -> None:
    last = first_bar_after(MONDAY.close_ns - MINUTE_NS, CALENDAR, MINUTE_NS)
    assert last.end_ns == MONDAY.close_ns and last.last
    following = first_bar_after(last.end_ns, CALENDAR, MINUTE_NS)
    assert following.session == TUESDAY and not following.last


def test_a_half_day_ends_at_its_own_close_and_is_followed_after_the_holiday() -> None:
    last = first_bar_after(HALF_DAY.close_ns - 1, CALENDAR, MINUTE_NS)
    assert last.end_ns == HALF_DAY.close_ns and last.last
    following = first_bar_after(HALF_DAY.close_ns, CALENDAR, MINUTE_NS)
    assert following.session.date == date(2015, 12, 28)


def test_a_bar_that_does_not_divide_the_session_is_cut_at_the_close() -> None:
    bar = first_bar_after(MONDAY.close_ns - 1, CALENDAR, 7 * MINUTE_NS)
    assert bar.end_ns == MONDAY.close_ns
