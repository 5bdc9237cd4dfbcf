"""The feed between a vendor and its readers, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
import urllib3
from massive.exceptions import AuthError
from massive.websocket.models import EquityQuote
from prometheus_client.parser import text_string_to_metric_families

from tests.data.test_server import SYMBOLS, official_client, running_server, scripted_source
from tests.feed.vendor import KEYS, READER_KEY, Vendor, play, reading, running, until
from tests.ports import free_port
from tests.usual import feed_options, stream_settings
from tests.waits import WAIT_S
from trading.data.massive.client.stream import ConnectionState, StreamClient
from trading.data.massive.wire import Aggregate, Quote, Trade, decode, encode
from trading.errors import AuthenticationFailed, StreamError
from trading.feed.feed_server import FeedServer, needs_of
from trading.feed.reader import ReaderProtocol

NOW_MS = 1_766_154_600_000
CONTRACTS = [f"O:SPY251219C{strike:05d}000" for strike in range(1, 41)]
NAMES = [f"Q.{contract}" for contract in CONTRACTS]


def quote(number: int, contract: str = CONTRACTS[0]) -> Quote:
    return Quote(contract, NOW_MS + number, 1.0, 1.1, 5, 6, number)


def bar(number: int, symbol: str = "SPY") -> Aggregate:
    start = NOW_MS + 60_000 * number
    return Aggregate(symbol, start, start + 60_000, 600.0, 601.0, 599.0, 600.5)


def our_client(port: int, key: str = READER_KEY, **options: Any) -> StreamClient:
    quick = {"backoff_initial_s": 0.01, "backoff_max_s": 0.05, "cool_down_s": 0.05}
    return StreamClient(stream_settings(f"ws://127.0.0.1:{port}", key, **quick, **options))


async def take(client: StreamClient, events: list[Any], count: int) -> None:
    """Take frames of our client until there are `count` events."""
    while len(events) < count:
        for frame in await asyncio.to_thread(client.frames, 5.0):
            events += decode(frame.data)


def live(client: StreamClient) -> bool:
    health = client.health().get("options")
    return health is not None and health["state"] is ConnectionState.LIVE


# Readers beside each other


def test_the_official_client_and_ours_read_the_same_events_side_by_side() -> None:
    async def body() -> None:
        names = [f"Q.{symbol}" for symbol in SYMBOLS]
        async with running_server(scripted_source()) as (market, market_port):
            options = feed_options(
                f"ws://127.0.0.1:{market_port}",
                f"http://127.0.0.1:{market_port}",
                ["key-of-the-test"],
                [READER_KEY],
            )
            feed = FeedServer(options)
            port = await feed.start()
            official = official_client(port, "options", names, READER_KEY)
            official.max_reconnects = None
            theirs: list[Any] = []

            async def keep(messages: list[Any]) -> None:
                theirs.extend(messages)

            reading_on = asyncio.create_task(official.connect(keep))
            with our_client(port) as client:
                client.subscribe("options", names)
                await until(lambda: live(client) and feed.figures().readers["options"] == 2)
                await until(
                    lambda: all(each["subscriptions"] == 40 for each in feed.status()["readers"])
                )
                await until(lambda: len(market.subscriptions) == 40)
                await market.begin()
                ours: list[Any] = []
                await take(client, ours, 360)
                await until(lambda: len(theirs) >= 360)
            await official.close()
            await reading_on
            await feed.stop()
        assert {type(each) for each in theirs} == {EquityQuote}
        assert [
            (each.symbol, each.bid_price, each.ask_price, each.sequence_number) for each in theirs
        ] == [(each.sym, each.bp, each.ap, each.q) for each in ours]
        assert len(ours) == 360

    play(body)


def test_events_arrive_byte_for_byte_and_only_where_they_are_wanted() -> None:
    async def body() -> None:
        vendor = Vendor()
        odd = b'[ {"ev":"Q","sym":"%s","t":1,"extra":[1]} ]' % CONTRACTS[0].encode()
        async with (
            running(vendor) as (_, port),
            reading(port, NAMES[0]) as one,
            reading(port, NAMES[0], NAMES[1]) as both,
        ):
            await vendor.send_raw(odd)
            await vendor.send(quote(2, CONTRACTS[1]), quote(3))
            await both.until(lambda: len(both.events) == 3)
            await one.until(lambda: len(one.events) == 2)
            assert odd[2:-2] in b"".join(one.frames)
            assert both.events[1:] == [quote(2, CONTRACTS[1]), quote(3)]
            assert one.events[1] == quote(3)

    play(body)


def test_subscriptions_are_the_union_and_end_with_the_last_reader() -> None:
    async def body() -> None:
        vendor = Vendor()
        async with running(vendor) as (feed, port), reading(port, NAMES[0], NAMES[1]) as one:
            async with reading(port, NAMES[1], NAMES[2]):
                assert vendor.subscribed() == set(NAMES[:3])
                await one.act("unsubscribe", f"{NAMES[0]},{NAMES[1]}")
                await until(lambda: vendor.subscribed() == set(NAMES[1:3]))
                assert feed.subscriptions("options") == set(NAMES[1:3])
            await until(lambda: vendor.subscribed() == set())
            await one.until(lambda: ("success", f"unsubscribed to: {NAMES[1]}") in one.statuses)
            # What one reader asked for already is not asked of the vendor a second time.
            asked = [
                name
                for action, names in vendor.asked
                if action == "subscribe"
                for name in names.split(",")
            ]
            assert sorted(asked) == sorted(NAMES[:3])
            assert vendor.attempts == 1

    play(body)


def test_a_wildcard_covers_what_it_tells_and_nobody_reads_anything_twice() -> None:
    async def body() -> None:
        vendor = Vendor()
        async with running(vendor) as (_, port), reading(port, "AM.SPY", path="stocks") as one:
            async with reading(port, "AM.*", "AM.SPY", path="stocks") as every:
                await until(lambda: vendor.subscribed("stocks") == {"AM.*"})
                await vendor.send(bar(1), bar(2, "QQQ"), bar(3), asset_class="stocks")
                await every.until(lambda: len(every.events) == 3)
                await one.until(lambda: len(one.events) == 2)
                assert every.events == [bar(1), bar(2, "QQQ"), bar(3)]
            await until(lambda: vendor.subscribed("stocks") == {"AM.SPY"})
            await vendor.send(bar(4), asset_class="stocks")
            await one.until(lambda: len(one.events) == 3)
            assert one.events == [bar(1), bar(3), bar(4)]

    play(body)


# Answers


def test_the_vendors_refusal_reaches_the_reader_in_its_place() -> None:
    async def body() -> None:
        vendor = Vendor()
        # "A" is a channel that the vendor knows and this key's plan does not include.
        async with running(vendor) as (_, port), reading(port, NAMES[1]) as first:
            async with reading(port) as reader:
                names = [NAMES[0], f"A.{CONTRACTS[0]}", NAMES[1]]
                await reader.act("subscribe", ",".join(names))
                await reader.until(lambda: len(reader.statuses) == 5)
                assert reader.statuses[2:] == [
                    ("success", f"subscribed to: {NAMES[0]}"),
                    ("error", "not authorized"),
                    ("success", f"subscribed to: {NAMES[1]}"),
                ]
            assert len(first.statuses) == 3

    play(body)


@pytest.mark.parametrize(
    ("params", "answer"),
    [
        ("Q.*", "not authorized"),
        ("Q.with blank", "not authorized"),
        ("V.I:SPX", None),
        (NAMES[0], None),
        ("", None),
    ],
)
def test_what_the_vendor_would_not_take_is_answered_as_it_does(
    params: str, answer: str | None
) -> None:
    async def body() -> None:
        async with running(Vendor()) as (_, port), reading(port, NAMES[0]) as reader:
            await reader.act("subscribe", params)
            await reader.act("end", "")
            await reader.until(lambda: reader.statuses[-1][1] == "unknown action: end")
            assert reader.statuses[3:-1] == ([] if answer is None else [("error", answer)])

    play(body)


def test_a_name_that_is_never_answered_does_not_hold_up_others_for_ever() -> None:
    async def body() -> None:
        vendor = Vendor()
        async with (
            running(vendor, answer_timeout_s=0.05) as (_, port),
            reading(port, NAMES[0]) as first,
            reading(port) as reader,
        ):
            # The vendor is gone, so nothing new is answered; what is known already is.
            await vendor.stop()
            await first.until(lambda: first.statuses[-1][0] == "upstream_lost")
            await reader.act("subscribe", NAMES[1])
            await reader.act("subscribe", NAMES[2])
            await reader.act("end", "")
            await reader.until(lambda: reader.statuses[-1][1] == "unknown action: end")
            await vendor.start()
            await reader.until(lambda: reader.acknowledged == {NAMES[1], NAMES[2]})

    play(body)


def test_a_wrong_key_is_refused_for_both_clients_and_counted() -> None:
    async def body() -> None:
        async with running(Vendor()) as (feed, port):
            official = official_client(port, "options", NAMES[:1], key="wrong")
            with pytest.raises(AuthError):
                await official.connect(lambda _: asyncio.sleep(0))
            with our_client(port, key="wrong") as client:
                client.subscribe("options", NAMES[:1])
                with pytest.raises(AuthenticationFailed):
                    await asyncio.to_thread(client.frames, 60.0)
            await until(lambda: feed.figures().refused_readers == 2)
            assert feed.subscriptions("options") == set()

    play(body)


def test_a_vendor_that_refuses_the_feeds_key_is_told_to_readers_as_it_tells_them() -> None:
    async def body() -> None:
        vendor = Vendor(keys=["another"])
        async with running(vendor, cool_down_s=WAIT_S) as (_, port):
            with our_client(port) as client:
                client.subscribe("options", NAMES[:1])
                with pytest.raises(AuthenticationFailed):
                    await asyncio.to_thread(client.frames, 60.0)
            with our_client(port) as client:
                client.subscribe("options", NAMES[:1])
                with pytest.raises(AuthenticationFailed):
                    await asyncio.to_thread(client.frames, 60.0)
            assert vendor.attempts == 1
            reply = await asyncio.to_thread(
                urllib3.request, "GET", f"http://127.0.0.1:{port}/health"
            )
            assert reply.status == 503
            assert KEYS[0] not in reply.data.decode()

    play(body)


def test_a_feed_that_starts_while_the_vendors_logins_fail_asks_again() -> None:
    async def body() -> None:
        vendor = Vendor(keys=["another"])
        async with running(vendor) as (_, port):
            with our_client(port, outlasts_refusal=True) as client:
                client.subscribe("options", NAMES[:1])
                await until(lambda: vendor.attempts >= 2)
                vendor.keys = set(KEYS)
                await until(lambda: live(client))
                assert vendor.subscribed() == {NAMES[0]}
            reply = await asyncio.to_thread(
                urllib3.request, "GET", f"http://127.0.0.1:{port}/health"
            )
            assert reply.status == 200

    play(body)


def test_no_more_readers_than_configured() -> None:
    async def body() -> None:
        async with running(Vendor(), max_readers=1) as (feed, port), reading(port, NAMES[0]):
            async with reading(port) as second:
                await second.until(lambda: second.statuses[-1][0] == "max_connections")
            await until(lambda: feed.figures().refused_readers == 1)

    play(body)


# Slow readers


def slow_socket(port: int) -> socket.socket:
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.setblocking(False)
    return plain


async def slow_reader_socket(port: int) -> socket.socket:
    plain = slow_socket(port)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
    return plain


def test_a_slow_reader_delays_nobody_and_what_it_loses_is_counted() -> None:
    async def body() -> None:
        vendor = Vendor()
        options = {"max_waiting_events": 1000, "max_frame_events": 50}
        async with running(vendor, **options) as (feed, port):
            plain = await slow_reader_socket(port)
            async with (
                reading(port, *NAMES[:3]) as quick,
                reading(port, *NAMES[:3], sock=plain, max_queue=1, ping_interval=None) as slow,
            ):
                sent = 0
                # What is written to it fills the buffers of both kernels first.
                while feed.figures().replaced == 0:
                    await vendor.send(*(quote(sent + n, CONTRACTS[n % 3]) for n in range(300)))
                    sent += 300
                    await quick.until(lambda count=sent: len(quick.events) == count)
                for number in range(3):
                    await vendor.send(quote(sent + number, CONTRACTS[number]))
                sent += 3
                await quick.until(lambda: len(quick.events) == sent)
                numbers = [each.q for each in quick.events]
                assert numbers[-3:] == [sent - 3, sent - 2, sent - 1]
                (loss,) = [each for each in feed.status()["readers"] if each["replaced_quotes"]]
                # It gets the newest quotes once it reads, in order, and lost what is counted.
                await slow.until(lambda: bool(slow.events) and slow.events[-1].q == sent - 1)
                got = [each.q for each in slow.events]
                assert got == sorted(got)
                assert len(got) + loss["replaced_quotes"] == sent
                assert loss["dropped_events"] == 0
                assert feed.figures().replaced == loss["replaced_quotes"]
            await until(lambda: feed.figures().readers["options"] == 0)
            # A reader that has left took nothing out of the totals.
            assert feed.figures().replaced == loss["replaced_quotes"]

    play(body)


# The vendor's limits


def test_quotes_beyond_the_limit_of_a_connection_go_by_rank_of_need() -> None:
    async def body() -> None:
        vendor = Vendor(keys=KEYS[:1], max_quotes=3)
        async with (
            running(vendor, max_quotes=3) as (feed, port),
            reading(port, *NAMES[:3], "T.*") as one,
        ):
            async with reading(port) as two:
                # Each has its first two in; of the third there is room for none.
                await two.act("subscribe", ",".join(NAMES[10:12]))
                await two.until(lambda: len(two.statuses) == 4)
                assert two.acknowledged == {NAMES[10]}
                assert two.statuses[-1] == (
                    "error",
                    "Subscription limit reached for feed: 3 contracts",
                )
                await one.until(lambda: one.statuses[-1][0] == "displaced")
                assert NAMES[2] in one.statuses[-1][1]
                assert vendor.subscribed() == {NAMES[0], NAMES[1], NAMES[10], "T.*"}
                assert feed.figures().left_out["options"] == 2
                # What is asked for again is needed most.
                await one.act("subscribe", NAMES[2])
                await until(lambda: NAMES[2] in vendor.subscribed())
                assert vendor.subscribed() == {NAMES[2], NAMES[0], NAMES[10], "T.*"}
            # With the other reader gone there is room again, and it is said.
            before = len(one.statuses)
            await one.until(
                lambda: ("success", f"subscribed to: {NAMES[1]}") in one.statuses[before:]
            )
            assert vendor.subscribed() == {*NAMES[:3], "T.*"}

    play(body)


def test_several_keys_share_the_quotes_and_take_over_from_one_that_is_refused() -> None:
    async def body() -> None:
        vendor = Vendor(max_quotes=3)
        options = {"keys": (*KEYS, "refused-key"), "max_quotes": 3}
        async with running(vendor, **options) as (feed, port), reading(port) as reader:
            await reader.act("subscribe", ",".join(NAMES[:6]))
            await reader.until(lambda: reader.acknowledged == set(NAMES[:6]))
            await until(lambda: [len(each) for each in vendor.shares()] == [3, 3])
            await vendor.send(*(quote(n, CONTRACTS[n]) for n in range(6)))
            await reader.until(lambda: len(reader.events) == 6)
            assert {each.q for each in reader.events} == set(range(6))
            assert feed.figures().left_out["options"] == 0

    play(body)


@pytest.mark.parametrize("chunk", [1, 200])
def test_our_client_tells_what_it_needs_most_and_the_vendor_carries_that(chunk: int) -> None:
    async def body() -> None:
        vendor = Vendor(keys=KEYS[:1], max_quotes=2)
        async with running(vendor, max_quotes=2) as (feed, port):
            settings = stream_settings(
                f"ws://127.0.0.1:{port}", READER_KEY, subscribe_chunk=chunk, tells_need=True
            )
            with StreamClient(settings) as client:
                client.subscribe("options", NAMES[:4])
                await until(lambda: vendor.subscribed() == set(NAMES[:2]))
                await until(lambda: client.health()["options"]["refused"] == 2)
                client.rank("options", [NAMES[3], NAMES[1]])
                await until(lambda: vendor.subscribed() == {NAMES[3], NAMES[1]})
                await until(
                    lambda: (
                        client.refused("options") == sorted([NAMES[0], NAMES[2]])
                        and client.health()["options"]["acknowledged"] == 2
                    )
                )
                assert feed.figures().left_out["options"] == 2

    play(body)


def test_need_is_the_best_place_that_a_name_has_with_any_reader() -> None:
    protocols = [ReaderProtocol("options", [READER_KEY], 10, key=READER_KEY) for _ in range(2)]
    for each, wanted in zip(protocols, ["Q.a,Q.b,Q.c", "Q.d,Q.b"], strict=True):
        each.receive(json.dumps({"action": "subscribe", "params": wanted}))
    needs = needs_of(protocols)
    assert sorted(needs, key=lambda name: needs[name]) == ["Q.a", "Q.d", "Q.b", "Q.c"]


# Losing the vendor, and the feed


def test_the_vendor_lost_and_found_everything_is_asked_for_again() -> None:
    async def body() -> None:
        vendor = Vendor()
        async with running(vendor) as (feed, port), reading(port, *NAMES[:3]) as reader:
            vendor.drop()
            await reader.until(lambda: reader.statuses[-1][0] == "upstream_lost")
            await reader.until(lambda: reader.statuses[-1][0] == "upstream_back")
            await until(lambda: vendor.subscribed() == set(NAMES[:3]))
            await vendor.send(quote(7))
            await reader.until(lambda: bool(reader.events))
            assert reader.events == [quote(7)]
            # The reader keeps its connection and is not told again what it knows.
            assert len(reader.acknowledged) == 3
            assert [status for status, _ in reader.statuses].count("success") == 3
            assert feed.status()["connections"][0]["reconnects"] == 1

    play(body)


@pytest.mark.parametrize("keys", [KEYS[:1], KEYS], ids=["one key", "two keys"])
def test_keys_that_were_accepted_outlast_a_vendor_whose_logins_fail(keys: tuple[str, ...]) -> None:
    async def body() -> None:
        vendor = Vendor(max_quotes=2)
        options = {"keys": keys, "max_quotes": 2}
        names = NAMES[: 2 * len(keys)]
        async with running(vendor, **options) as (_, port), reading(port, *names) as reader:
            vendor.keys = set()
            vendor.drop()
            await reader.until(lambda: reader.statuses[-1][0] == "upstream_lost")
            await until(lambda: vendor.attempts >= 3 * len(keys))
            vendor.keys = set(KEYS)
            await until(lambda: vendor.subscribed() == set(names))
            await vendor.send(*(quote(7, name.removeprefix("Q.")) for name in names))
            await reader.until(lambda: len(reader.events) == len(names))
            assert "auth_failed" not in [status for status, _ in reader.statuses]
            assert "upstream_back" in [status for status, _ in reader.statuses]

    play(body)


def test_another_key_carries_what_one_that_is_refused_carried_until_it_is_accepted() -> None:
    async def body() -> None:
        vendor = Vendor(max_quotes=3)
        options = {"keys": KEYS, "max_quotes": 3}
        async with running(vendor, **options) as (feed, port), reading(port, *NAMES[:3]) as reader:
            vendor.keys = {KEYS[1]}
            vendor.drop()
            await until(lambda: vendor.shares() == [set(NAMES[:3])])
            await reader.act("subscribe", NAMES[3])
            await until(lambda: feed.figures().left_out["options"] == 1)
            vendor.keys = set(KEYS)
            await until(lambda: vendor.subscribed() == set(NAMES[:4]))
            await reader.until(lambda: reader.acknowledged == set(NAMES[:4]))
            assert feed.figures().left_out["options"] == 0

    play(body)


def test_a_feed_that_is_gone_and_back_is_read_on_by_both_clients() -> None:
    async def body() -> None:
        vendor = Vendor()
        theirs: list[Any] = []

        async def keep(messages: list[Any]) -> None:
            theirs.extend(messages)

        await vendor.start()
        port = free_port()
        feed = await feed_at(port, vendor)
        official = official_client(port, "options", NAMES[:1], READER_KEY)
        official.max_reconnects = None
        reading_on = asyncio.create_task(official.connect(keep))
        with our_client(port) as client:
            client.subscribe("options", NAMES[:1])
            await until(lambda: live(client) and feed.figures().readers["options"] == 2)
            await until(lambda: vendor.subscribed() == {NAMES[0]})
            await feed.stop()
            await until(lambda: vendor.subscribed() == set())
            again = await feed_at(port, vendor)
            await until(lambda: again.figures().readers["options"] == 2)
            await until(
                lambda: (
                    all(each["subscriptions"] for each in again.status()["readers"])
                    and vendor.subscribed() == {NAMES[0]}
                )
            )
            await vendor.send(quote(1))
            ours: list[Any] = []
            await take(client, ours, 1)
            await until(lambda: theirs)
            assert [each.q for each in ours if isinstance(each, Quote)] == [1]
            assert theirs[0].sequence_number == 1
        await official.close()
        await reading_on
        await again.stop()
        await vendor.stop()

    play(body)


async def feed_at(port: int, vendor: Vendor) -> FeedServer:
    """A feed of `vendor` that listens at a port."""
    feed = FeedServer(
        feed_options(vendor.url, "http://127.0.0.1:1", KEYS[:1], (READER_KEY,), port=port)
    )
    await feed.start()
    return feed


# What it says of itself


def test_its_metrics_say_what_it_does() -> None:
    async def body() -> None:
        vendor = Vendor()
        async with running(vendor) as (_, port), reading(port, NAMES[0], "T.*") as reader:
            trade = Trade(CONTRACTS[0], NOW_MS, 1.0, 2)
            await vendor.send(quote(1), trade)
            await vendor.send_raw(encode([quote(2)])[:-1] + b",nonsense]")
            await reader.until(lambda: len(reader.events) == 3)
            reply = await asyncio.to_thread(
                urllib3.request, "GET", f"http://127.0.0.1:{port}/metrics"
            )
            found = {
                (sample.name, *sorted(sample.labels.values())): sample.value
                for family in text_string_to_metric_families(reply.data.decode())
                for sample in family.samples
            }
            assert found["trading_feed_readers", "options"] == 1
            assert found["trading_feed_connected", "1", "options"] == 1
            assert found["trading_feed_subscriptions", "1", "acknowledged", "options"] == 2
            assert found["trading_feed_events_total",] == 3
            assert found["trading_feed_sent_events_total",] == 3
            assert found["trading_feed_malformed_total",] == 1
            assert found["trading_feed_replaced_quotes_total",] == 0
            for secret in (KEYS[0], READER_KEY):
                assert secret not in reply.data.decode()

    play(body)


def test_a_feed_without_keys_does_not_start() -> None:
    with pytest.raises(StreamError, match="vendor's key"):
        feed_options("ws://127.0.0.1:1", "http://127.0.0.1:1", [], [READER_KEY])
    assert "vendor-key" not in repr(
        feed_options("ws://127.0.0.1:1", "http://127.0.0.1:1", KEYS, [READER_KEY])
    )
