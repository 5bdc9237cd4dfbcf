"""Frames taken apart: the same bytes, and whom they are about."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from trading.data.massive.wire import PriceBand, Quote, encode
from trading.feed.splitting import Splitter

QUOTE = b'{"ev":"Q","sym":"O:SPY251219C00650000","bp":1.10,"new":[1,{"a":2}], "t":1}'


def test_events_are_passed_on_byte_for_byte() -> None:
    band = encode([PriceBand("SPY", 1_766_154_600_000)])[1:-1]
    events = Splitter().split(b"[ " + QUOTE + b" ,\n" + band + b"]")
    assert [(each.channel, each.symbol) for each in events] == [
        ("Q", "O:SPY251219C00650000"),
        ("LULD", "SPY"),
    ]
    assert [each.data for each in events] == [QUOTE, band]


def test_what_no_channel_has_is_of_nobody() -> None:
    (event,) = Splitter().split(b'[{"ev":"status","status":"connected"}]')
    assert (event.channel, event.symbol) == ("status", "")


def test_a_damaged_event_costs_only_itself_and_is_counted() -> None:
    splitter = Splitter()
    events = splitter.split(b'[{"ev":"Q","sym":nonsense},' + QUOTE + b',{"no":"kind"},7]')
    assert [each.data for each in events] == [QUOTE]
    assert splitter.malformed == 3


def test_bytes_that_are_no_text_end_no_readers_connection() -> None:
    (event,) = Splitter().split(b'[{"ev":"Q","sym":"X","note":"\xff"}]')
    assert event.symbol == "X"
    assert event.data.decode()


@given(st.binary())
def test_any_bytes_are_taken(frame: bytes) -> None:
    for event in Splitter().split(frame) + Splitter().split(b"[" + frame + b"]"):
        event.data.decode()


@given(st.lists(st.tuples(st.text(min_size=1, max_size=20), st.floats(0, 1e6)), max_size=20))
def test_what_is_joined_again_is_what_was_split(rows: list[tuple[str, float]]) -> None:
    quotes = [Quote(symbol, 1_766_154_600_000, price) for symbol, price in rows]
    splitter = Splitter()
    events = splitter.split(encode(quotes))
    assert b"[" + b",".join(each.data for each in events) + b"]" == encode(quotes)
    assert [each.symbol for each in events] == [quote.sym for quote in quotes]
    assert msgspec.json.decode(b"[" + b",".join(each.data for each in events) + b"]") is not None
    assert splitter.malformed == 0
