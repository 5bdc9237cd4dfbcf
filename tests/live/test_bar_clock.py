"""When bars end, over sessions, half-days and nights, and which events may end them."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from tests.envs.desk import CALL, SYMBOL, Desk, at, desk, session
from trading.config.settings import MassiveSettings
from trading.data.admission import Refusal
from trading.live.bar_clock import Bar, BarClock, first_bar_after
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


SECOND = 1_000_000_000
AHEAD = [3, 90, 3600, 86_400, 365 * 86_400]


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path) as one:
        one.minute(30, 100.0)
        yield one


def clock_of(market: Desk, **options: int) -> BarClock:
    return BarClock(market.env, Bar(session(), at(31)), MINUTE_NS, **options)


def quote(ts_ns: int, sym: str = CALL, unit: int = 10**6, **fields: object) -> dict[str, object]:
    usual = {"ev": "Q", "sym": sym, "bp": 3.7, "ap": 3.8, "bs": 1, "as": 1, "t": ts_ns // unit}
    return usual | fields


def bar(end_ns: int, close: float, sym: str = SYMBOL) -> dict[str, object]:
    prices = dict.fromkeys(("o", "h", "l", "c"), close)
    return {"ev": "AM", "sym": sym, "s": end_ns // 10**6 - 60_000, "e": end_ns // 10**6} | prices


def bid(market: Desk) -> float:
    return float(market.env._markets[SYMBOL].chain.columns.bid[_place(market)])


def _place(market: Desk) -> int:
    return market.env._markets[SYMBOL].chain.index[CALL]


@pytest.mark.parametrize("ahead_s", AHEAD)
def test_an_event_ahead_of_the_clock_is_refused(market: Desk, ahead_s: int) -> None:
    clock, now_ns = clock_of(market), at(30.5)
    clock.follow(lambda: now_ns)
    for event in (
        quote(now_ns + ahead_s * SECOND, bp=9.0, ap=9.1),
        bar(now_ns + ahead_s * SECOND, 50.0),
    ):
        clock.take(json.dumps([event, quote(now_ns - SECOND, sym="O:ACME260206P00100000")]))
    assert not clock.due and clock.watermark_ns <= now_ns
    assert clock.refused()[Refusal.AHEAD] == 2
    assert bid(market) != 9.0 and market.env.spot(SYMBOL) == 100.0
    assert not any(clock._waiting.values())


@pytest.mark.parametrize("ahead_s", AHEAD)
def test_an_event_ahead_of_the_tape_is_refused(market: Desk, ahead_s: int) -> None:
    clock = clock_of(market)
    tape = {"ev": "CLK", "t": at(30.5) // 10**6}
    clock.take(json.dumps([tape, quote(at(30.5) + ahead_s * SECOND)]))
    assert not clock.due and clock.refused()[Refusal.AHEAD] == 1
    late = {"ev": "CLK", "t": at(31.1) // 10**6}
    clock.take(json.dumps([late, quote(at(31.1))]))
    assert clock.due


@pytest.mark.parametrize("ahead_s", AHEAD)
def test_where_nobody_tells_the_time_one_event_alone_closes_no_bar(
    market: Desk, ahead_s: int
) -> None:
    clock = clock_of(market)
    odd = quote(at(31) + ahead_s * SECOND)
    for frame in ([odd], [odd, odd], [quote(at(30.5), sym="O:ACME260206P00100000")]):
        clock.take(json.dumps(frame))
        assert not clock.due
    clock.take(json.dumps([quote(at(31.02), sym="O:ACME260206P00100000")]))
    assert clock.due


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_every_unit_of_time_is_read(market: Desk, unit: int) -> None:
    clock = clock_of(market)
    clock.follow(lambda: at(30.5))
    clock.take(json.dumps([quote(at(30.5), unit=unit, bp=3.71)]))
    assert bid(market) == 3.71 and clock.watermark_ns == at(30.5)


@pytest.mark.parametrize("t", [-5, 10**19, 5 * 10**13, 9 * 10**18])
def test_a_time_of_no_unit_moves_nothing(market: Desk, t: int) -> None:
    clock = clock_of(market)
    before = bid(market)
    clock.take(json.dumps([quote(0, t=t, bp=9.0), quote(0, t=t + 7, bp=9.0, sym="O:X")]))
    assert not clock.due and clock.watermark_ns < at(30) and bid(market) == before
    assert sum(clock.refused().values()) == 2


def test_a_quote_of_the_past_never_replaces_a_newer_one(market: Desk) -> None:
    clock = clock_of(market)
    clock.follow(lambda: at(30.9))
    clock.take(json.dumps([quote(at(30.5), bp=3.7, q=10**6)]))
    for ago_s in (1, 3600, 86_400, 365 * 86_400):
        clock.take(json.dumps([quote(at(30.5) - ago_s * SECOND, bp=9.0, q=2 * 10**6)]))
    assert bid(market) == 3.7
    assert clock.refused()[Refusal.OLDER] == 4


@pytest.mark.parametrize("sequence", [{"q": 7}, {"q": 0}, {}, {"q": None}, {"q": 10**6}])
def test_a_later_quote_counts_whatever_its_sequence_number(
    market: Desk, sequence: dict[str, object]
) -> None:
    clock = clock_of(market)
    clock.take(json.dumps([quote(at(30.2), q=10**6)]))
    clock.take(json.dumps([quote(at(30.6), bp=3.5) | sequence]))
    assert bid(market) == 3.5


def test_a_withdrawn_side_is_gone(market: Desk) -> None:
    for fields in ({"bp": None}, {"bp": 0}):
        clock = clock_of(market)
        clock.take(json.dumps([quote(at(30.2))]))
        clock.take(json.dumps([quote(at(30.6), **fields)]))
        assert bid(market) == 0.0


def test_a_late_bar_is_counted_and_moves_nothing(market: Desk) -> None:
    clock = clock_of(market)
    clock.follow(lambda: at(30.9))
    clock.take(json.dumps([bar(at(30), 100.0), bar(at(30) - 3600 * SECOND, 55.0)]))
    assert market.env.spot(SYMBOL) == 100.0
    assert clock.refused()[Refusal.LATE_BAR] == 1


@pytest.mark.parametrize(
    "window", [{"s": 0}, {"e": 0}, {"s": at(31) // 10**6, "e": at(30) // 10**6}]
)
def test_a_bar_whose_window_is_none_is_refused(market: Desk, window: dict[str, int]) -> None:
    clock = clock_of(market)
    clock.take(json.dumps([bar(at(31), 101.0) | window]))
    assert market.env.spot(SYMBOL) == 100.0
    assert clock.refused()[Refusal.MISTIMED] == 1


def test_price_limits_of_the_stock_stream_suspend_a_stock_that_has_come_to_them(
    market: Desk,
) -> None:
    clock = clock_of(market)
    limits = {"ev": "LULD", "T": SYMBOL, "h": 100.0, "l": 90.0, "i": [21], "z": 3, "q": 1}
    clock.take(json.dumps([limits | {"t": at(30) // 10**6 + 1000}]).encode())
    assert SYMBOL in market.env.broker.account.suspensions
    odd = limits | {"t": at(30) // 10**6 + 2000, "h": 105.0, "l": None, "i": None}
    clock.take(json.dumps([odd]).encode())
    assert SYMBOL not in market.env.broker.account.suspensions


def test_where_nobody_tells_the_time_one_symbol_alone_closes_no_bar(market: Desk) -> None:
    clock, put = clock_of(market), "O:ACME260206P00100000"
    for k in range(5):
        clock.take(json.dumps([quote(at(31) + 3600 * SECOND + k * 20_000_000)]))
        assert not clock.due
    clock.take(json.dumps([quote(at(30.9), sym=put), quote(at(31.02), sym=put)]))
    assert clock.due and clock.watermark_ns == at(31.02)
    clock.take(json.dumps([bar(at(32), 100.0)]))
    assert clock.watermark_ns == at(32)


def test_a_halt_as_the_vendor_tells_it_suspends_until_the_stock_reopens(market: Desk) -> None:
    market.env.halt_indicators = frozenset(MassiveSettings().halt_indicators)
    clock = clock_of(market)

    def tell(after_s: int, low: float, high: float, *indicators: int) -> bool:
        # The specification says milliseconds; its own sample, and what is sent, are nanoseconds.
        event = {"ev": "LULD", "T": SYMBOL, "h": high, "l": low, "i": indicators, "z": 3}
        clock.take(json.dumps([event | {"t": at(30) + after_s * SECOND, "q": after_s}]))
        return SYMBOL in market.env.broker.account.suspensions

    assert not tell(1, 95.0, 105.0, 15)
    assert tell(2, 0.0, 0.0, 17)
    clock.take(json.dumps([quote(at(30.1))]))
    assert SYMBOL in market.env.broker.account.suspensions
    assert not tell(9, 94.0, 104.0, 18)
    assert not tell(10, 94.0, 104.0, 22)
