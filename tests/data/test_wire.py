"""The vendor's messages: decoded as specified, encoded as decoded, odd ones counted."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.data.massive.wire import (
    Aggregate,
    ClientAction,
    EventDecoder,
    FeedEvent,
    Quote,
    SecondAggregate,
    Status,
    Trade,
    decode,
    decode_action,
    encode,
    encode_action,
    event_ns,
)

SPECIFICATION = Path(__file__).parents[3] / "shared" / "vendor" / "massive" / "websocket.json"
KINDS = {"Q": Quote, "T": Trade, "AM": Aggregate, "A": SecondAggregate}

prices = st.floats(min_value=0.0, max_value=1e6)
counts = st.integers(min_value=0, max_value=2**53)
symbols = st.sampled_from(["SPY", "BRK.B", "O:SPY251219C00650000"])
quotes = st.builds(
    Quote, symbols, counts, bp=prices, ap=prices, bs=counts, as_=counts, q=counts, bx=counts
)
trades = st.builds(Trade, symbols, counts, prices, prices, st.lists(counts).map(tuple), counts)
aggregates = st.builds(
    Aggregate, symbols, counts, counts, prices, prices, prices, prices, v=prices, vw=prices
)
seconds = st.builds(SecondAggregate, symbols, counts, counts, prices, prices, prices, prices)
statuses = st.builds(Status, st.text(), st.text())
events = quotes | trades | aggregates | seconds | statuses


@given(st.lists(events))
def test_what_is_encoded_decodes_to_the_same(frame: list[FeedEvent]) -> None:
    decoder = EventDecoder()
    assert decoder.decode(encode(frame)) == frame
    assert decoder.decode(encode(frame).decode()) == frame
    assert (decoder.unknown, decoder.malformed) == (0, 0)


def specified() -> list[tuple[str, dict[str, Any]]]:
    """The examples of the vendor's specification for the channels that we decode."""
    if not SPECIFICATION.exists():
        return []
    paths = json.loads(SPECIFICATION.read_text())["paths"]
    examples = []
    for asset_class in ("options", "stocks"):
        for kind in KINDS:
            content = paths[f"/{asset_class}/{kind}"]["get"]["responses"]["200"]["content"]
            example = content["application/json"]["example"]
            examples.append((kind, {**example, "ev": kind}))
    return examples


@pytest.mark.skipif(not SPECIFICATION.exists(), reason="the vendor's specification is not at hand")
def test_every_example_of_the_specification_decodes() -> None:
    for kind, example in specified():
        [event] = decode(json.dumps([example]))
        assert type(event) is KINDS[kind]
        for field in msgspec.structs.fields(event):
            if field.encode_name in example:
                value = getattr(event, field.name)
                expected = example[field.encode_name]
                assert value == (tuple(expected) if isinstance(expected, list) else expected)


def test_a_quote_has_the_names_of_the_specification_on_the_wire() -> None:
    quote = Quote("SPY", 1, bp=2.0, ap=3.0, bs=4, as_=5, q=6, bx=7, ax=8)
    assert json.loads(encode([quote])) == [
        {"ev": "Q", "sym": "SPY", "t": 1, "bp": 2.0, "ap": 3.0}
        | {"bs": 4, "as": 5, "q": 6, "bx": 7, "ax": 8}
    ]


def test_an_absent_side_is_written_as_zero() -> None:
    assert json.loads(encode([Quote("SPY", 1)]))[0]["bp"] == 0


def test_one_frame_mixes_channels_and_keeps_their_order() -> None:
    frame = [
        Quote("SPY", 1),
        Aggregate("SPY", 0, 60_000, 1.0, 2.0, 0.5, 1.5),
        Status("success", "subscribed to: AM.SPY"),
        SecondAggregate("SPY", 0, 1000, 1.0, 2.0, 0.5, 1.5),
        Trade("SPY", 2, 1.0, 0.5, (12, 37)),
        Quote("QQQ", 3),
    ]
    assert decode(encode(frame)) == frame


def test_a_second_aggregate_is_an_aggregate() -> None:
    [event] = decode(b'[{"ev":"A","sym":"SPY","s":1,"e":2,"o":1,"h":1,"l":1,"c":1,"v":0.25}]')
    assert isinstance(event, Aggregate)
    assert event.v == 0.25


@pytest.mark.parametrize(
    ("odd", "unknown", "malformed"),
    [
        (b'{"ev":"LV","sym":"SPY","p":1}', 1, 0),
        (b'{"ev":"Q","sym":"SPY"}', 0, 1),
        (b'{"ev":"Q","sym":"SPY","t":1,"bp":"high"}', 0, 1),
        (b'{"ev":"Q","sym":"SPY","t":1,"bp":-1}', 0, 1),
        (b'{"ev":"Q","sym":"SPY","t":1,"bp":1e300}', 0, 1),
        (b'{"ev":"Q","sym":"SPY","t":1,"ap":NaN}', 0, 1),
        (b'{"ev":"Q","sym":null,"t":1}', 0, 1),
        (b'{"ev":"Q","sym":"SPY","t":null}', 0, 1),
        (b'{"ev":"AM","sym":"SPY","s":1,"e":2,"o":1,"h":1,"l":1,"c":null}', 0, 1),
        (b'{"ev":"Q","sym":"SPY","t":1,"bp":2,"x":"', 0, 1),
        (b'{"ev":"Q","sym":"SPY","t":1,"x":' + b"[" * 5000, 0, 1),
        (b'{"ev":"Q","sym":"SPY","t":1,"x":' + b"9" * 10_000 + b"e}", 0, 1),
        (b'{"sym":"SPY"}', 0, 1),
        (b"17", 0, 1),
        (b"null", 0, 1),
    ],
)
def test_an_odd_event_costs_only_itself(odd: bytes, unknown: int, malformed: int) -> None:
    decoder = EventDecoder()
    good = b'{"ev":"Q","sym":"SPY","t":1}'
    frame = b"[" + b",".join([good, odd, good]) + b"]"
    assert decoder.decode(frame) == [Quote("SPY", 1), Quote("SPY", 1)]
    assert (decoder.unknown, decoder.malformed) == (unknown, malformed)


@pytest.mark.parametrize(
    ("odd", "event"),
    [
        ({"bp": None}, Quote("SPY", 5, bp=0.0, ap=2.0, bs=3, as_=4, q=6)),
        ({"ap": None}, Quote("SPY", 5, bp=1.0, ap=0.0, bs=3, as_=4, q=6)),
        ({"bs": None}, Quote("SPY", 5, bp=1.0, ap=2.0, bs=0, as_=4, q=6)),
        ({"as": "many"}, Quote("SPY", 5, bp=1.0, ap=2.0, bs=3, as_=0, q=6)),
        ({"q": None}, Quote("SPY", 5, bp=1.0, ap=2.0, bs=3, as_=4, q=0)),
        ({"q": 2**63}, Quote("SPY", 5, bp=1.0, ap=2.0, bs=3, as_=4, q=0)),
        ({"q": -1}, Quote("SPY", 5, bp=1.0, ap=2.0, bs=3, as_=4, q=0)),
        ({"t": 5.0}, Quote("SPY", 5, bp=1.0, ap=2.0, bs=3, as_=4, q=6)),
        ({"bx": "CBOE"}, Quote("SPY", 5, bp=1.0, ap=2.0, bs=3, as_=4, q=6)),
        ({"ax": None, "bx": []}, Quote("SPY", 5, bp=1.0, ap=2.0, bs=3, as_=4, q=6)),
    ],
)
def test_what_nobody_needs_may_be_anything_and_a_withdrawn_side_is_gone(
    odd: dict[str, Any], event: Quote
) -> None:
    usual = {"ev": "Q", "sym": "SPY", "t": 5, "bp": 1.0, "ap": 2.0, "bs": 3, "as": 4, "q": 6}
    decoder = EventDecoder()
    assert decoder.decode(json.dumps([usual | odd])) == [event]
    assert (decoder.unknown, decoder.malformed, decoder.mistimed) == (0, 0, 0)


@pytest.mark.parametrize("t", [-1, 2**63, 10**19, 1e300, 5 * 10**16])
def test_a_time_that_is_none_is_counted_as_such(t: float) -> None:
    decoder = EventDecoder()
    assert decoder.decode(json.dumps([{"ev": "Q", "sym": "SPY", "t": t}])) == []
    assert (decoder.malformed, decoder.mistimed) == (0, 1)


def test_bytes_that_are_no_utf8_cost_only_the_text_that_they_are_in() -> None:
    good = b'{"ev":"Q","sym":"SPY","t":1}'
    frame = b'[{"ev":"status","status":"success","message":"\x99"},' + good + b"]"
    assert decode(frame) == [Status("success", "\ufffd"), Quote("SPY", 1)]


def test_what_hides_in_a_readable_event_of_another_kind_is_no_event() -> None:
    inner = b'{"ev":"Q","sym":"SPY","t":1}'
    assert decode(b'[{"ev":"X","in":' + inner + b'},{"ev":"Q","sym":1,"in":' + inner + b"}]") == []


_DAMAGES = st.sampled_from(
    [b"[", b"]", b"{", b"}", b'"', b"\\", b"\\u", b"null", b"-", b"9" * 25, b"\x00", b"\xc3", b":"]
)


@given(st.lists(st.tuples(st.integers(0, 400), _DAMAGES, st.integers(0, 5)), max_size=6))
def test_damage_anywhere_raises_nothing_and_invents_no_price(
    damages: list[tuple[int, bytes, int]],
) -> None:
    frame = bytearray(encode([Quote("SPY", 1, bp=2.0, ap=3.0, q=4) for _ in range(4)]))
    for at, damage, removed in damages:
        frame[at : at + removed] = damage
    decoder = EventDecoder()
    for event in decoder.decode(bytes(frame)):
        if isinstance(event, Quote):
            assert 0 <= event.t <= 2**63 - 1 and 0 <= event.q <= 2**63 - 1
            assert 0.0 <= event.bp <= 1e8 and 0.0 <= event.ap <= 1e8


def test_a_frame_of_nothing_but_beginnings_is_given_up_in_bounded_time() -> None:
    decoder = EventDecoder()
    assert decoder.decode(b"[" + b'{"ev"' * 200_000) == []
    assert 0 < decoder.malformed <= 1001


def test_unknown_fields_are_passed_over() -> None:
    assert decode(b'[{"ev":"Q","sym":"SPY","t":1,"z":{"new":[1]}}]') == [Quote("SPY", 1)]


@given(st.binary() | st.text())
def test_no_frame_whatever_raises(frame: bytes | str) -> None:
    decoder = EventDecoder()
    assert decoder.decode(frame) is not None


@pytest.mark.parametrize("frame", [b"", b"[", b'{"ev":"Q","sym":"SPY","t":1}', b"\xff\xfe", b"[1,"])
def test_a_frame_that_is_no_array_is_counted(frame: bytes) -> None:
    decoder = EventDecoder()
    assert decoder.decode(frame) == []
    assert decoder.malformed == 1


def test_an_action_reads_as_it_was_written() -> None:
    text = encode_action("subscribe", "Q.O:SPY251219C00650000,AM.SPY")
    assert json.loads(text) == {"action": "subscribe", "params": "Q.O:SPY251219C00650000,AM.SPY"}
    assert decode_action(text) == ClientAction("subscribe", "Q.O:SPY251219C00650000,AM.SPY")


@pytest.mark.parametrize("message", ["", "[]", '{"action":"auth"}', '{"action":1,"params":""}'])
def test_a_message_that_is_no_action_raises(message: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_action(message)


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
@given(st.integers(min_value=10**8, max_value=4 * 10**9))
def test_the_unit_of_a_time_is_inferred(unit: int, seconds: int) -> None:
    assert event_ns(seconds * unit) == seconds * 10**9


@pytest.mark.parametrize(
    "change",
    [
        {"bp": "3.0", "ap": "3.1", "bs": "1", "as": "2", "t": "1767625205000", "q": "7"},
        {"bp": " 3.0 ", "q": 7.0, "t": 1767625205000.0},
        {"bp": "3", "bx": "N"},
    ],
)
def test_numbers_that_come_as_text_are_read_as_numbers(change: dict[str, object]) -> None:
    quote = {"ev": "Q", "sym": "X", "bp": 3.0, "ap": 3.1, "bs": 1, "as": 2, "q": 7}
    event = quote | {"t": 1767625205000} | change
    decoder = EventDecoder()
    (read,) = decoder.decode(json.dumps([event]))
    assert read == Quote("X", 1767625205000, 3.0, 3.1, 1, 2, 7)
    assert decoder.malformed == 0


def test_an_empty_price_is_a_side_that_is_absent_and_other_text_is_damage() -> None:
    quote = {"ev": "Q", "sym": "X", "bp": "", "ap": 3.1, "t": 1767625205000}
    decoder = EventDecoder()
    (read,) = decoder.decode(json.dumps([quote, quote | {"bp": "three"}, quote | {"bp": "1_0"}]))
    assert isinstance(read, Quote) and read.bp == 0.0 and read.ap == 3.1
    assert decoder.malformed == 2


@pytest.mark.parametrize(
    "odd", [{"o": None}, {"h": None}, {"l": None}, {"o": "", "h": "", "l": ""}]
)
def test_a_bar_needs_its_last_price_only(odd: dict[str, object]) -> None:
    told = {"ev": "AM", "sym": "SPY", "s": 1, "e": 2, "o": 100, "h": 102, "l": 99, "c": 101}
    (bar,) = EventDecoder().decode(json.dumps([told | odd]))
    assert isinstance(bar, Aggregate) and bar.c == 101.0
    assert bar.l <= min(bar.o, bar.c) and bar.h >= max(bar.o, bar.c)
    assert EventDecoder().decode(json.dumps([told | {"c": None}])) == []
