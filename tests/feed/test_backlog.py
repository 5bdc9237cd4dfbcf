"""What waits for a slow reader."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trading.feed.backlog import Backlog
from trading.feed.splitting import RawEvent


def event(channel: str, symbol: str, number: int) -> RawEvent:
    return RawEvent(channel, symbol, f"{channel}.{symbol}#{number}".encode())


def test_below_its_bound_nothing_is_left_out() -> None:
    backlog = Backlog(max_events=100, max_bytes=10_000)
    events = [event("Q", "X", number) for number in range(100)]
    for each in events:
        backlog.put(each)
    assert backlog.take(1000) == [each.data for each in events]
    assert (backlog.replaced, backlog.dropped, len(backlog)) == (0, 0, 0)


def test_old_quotes_give_way_to_new_ones_and_bars_stay() -> None:
    backlog = Backlog(max_events=100, max_bytes=10_000)
    backlog.put(event("AM", "SPY", 0))
    for number in range(1000):
        backlog.put(event("Q", "XY"[number % 2], number))
    waiting = backlog.take(1000)
    assert waiting[0] == b"AM.SPY#0"
    assert waiting[-2:] == [b"Q.X#998", b"Q.Y#999"]
    assert backlog.replaced == 1001 - len(waiting)
    assert backlog.dropped == 0


def test_trades_go_before_bars_and_bars_before_quotes() -> None:
    backlog = Backlog(max_events=8, max_bytes=10_000)
    for number, channel in enumerate(["Q", "AM", "AM", "T", "T", "T", "LULD", "T", "T"]):
        backlog.put(event(channel, str(number), number))
    waiting = backlog.take(100)
    assert waiting == [b"Q.0#0", b"AM.1#1", b"AM.2#2", b"LULD.6#6", b"T.7#7", b"T.8#8"]
    assert (backlog.replaced, backlog.dropped) == (0, 3)


@given(
    st.lists(st.tuples(st.sampled_from(["Q", "T", "A", "AM"]), st.sampled_from("abcdef"))),
    st.integers(8, 40),
    st.integers(60, 400),
)
def test_it_stays_bounded_in_order_and_loses_nothing_uncounted(
    events: list[tuple[str, str]], max_events: int, max_bytes: int
) -> None:
    backlog = Backlog(max_events, max_bytes)
    put = [event(channel, symbol, number) for number, (channel, symbol) in enumerate(events)]
    for each in put:
        backlog.put(each)
        assert len(backlog) <= max_events
    waiting = backlog.take(len(put) + 1)
    assert sum(map(len, waiting)) <= max_bytes
    assert len(waiting) + backlog.replaced + backlog.dropped == len(put)
    order = {each.data: number for number, each in enumerate(put)}
    assert [order[each] for each in waiting] == sorted(order[each] for each in waiting)
    # The newest quote of a contract outlives all that came before it.
    if max_events * 3 // 4 >= 6 and max_bytes >= 200:
        newest = {each.symbol: each.data for each in put if each.channel == "Q"}
        assert set(newest.values()) <= set(waiting)
