"""The market server, met by the vendor's own client and by bare sockets."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from massive import RESTClient, WebSocketClient
from massive.exceptions import AuthError, BadResponse
from massive.websocket.models import EquityAgg, EquityQuote, EquityTrade
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_sync

from tests.waits import WAIT_S
from trading.data.flatfiles import quotes_path
from trading.data.massive.columns import Quotes, Trades
from trading.data.massive.protocol import FeedProtocol
from trading.data.massive.server.server import MarketServer
from trading.data.massive.server.source import EventSource, Listing, ReplaySource, SourceStep
from trading.data.massive.wire import Aggregate, Quote, decode, encode_action
from trading.errors import FlatFileError, StreamError
from trading.market.bars import StockBar
from trading.market.calendar import ExchangeCalendar
from trading.market.contracts import parse_symbol

SHARED = Path(__file__).parents[2].parent / "shared"
FLATFILES = SHARED / "data" / "flatfiles"
GOOG_DAY = date(2015, 12, 24)
KEY = "key-of-the-test"

MINUTE_NS = 60_000_000_000
SESSION = next(iter(ExchangeCalendar().sessions(date(2026, 1, 5), date(2026, 1, 5))))
SYMBOLS = [f"O:SPY260109{right}{strike * 1000:08d}" for right in "CP" for strike in range(590, 610)]


@dataclass
class ScriptedSource:
    """A fixed list of steps."""

    script: list[SourceStep]
    listing: Listing
    start_ns: int = SESSION.open_ns
    failure: Exception | None = field(default=None)

    def steps(self) -> Iterator[SourceStep]:
        yield from self.script
        if self.failure is not None:
            raise self.failure


def scripted_source(
    minutes: int = 3, *, quotes_per_step: int = 40, failure: Exception | None = None
) -> ScriptedSource:
    """Every 20 s quotes of the first contracts and one trade; every minute a bar of each."""
    listing = Listing(SESSION, [parse_symbol(symbol) for symbol in SYMBOLS])
    script = []
    for number in range(1, 3 * minutes + 1):
        ts_ns = SESSION.open_ns + number * MINUTE_NS // 3
        contract = np.arange(quotes_per_step) % len(SYMBOLS)
        quotes = Quotes(
            contract=contract,
            bid=np.where(contract == 0, 0.0, 1.0 + contract + number / 100),
            ask=1.1 + contract + number / 100,
            bid_size=np.where(contract == 0, 0, 5),
            ask_size=np.full(quotes_per_step, 7),
            ts_ns=np.full(quotes_per_step, ts_ns - 1_000_000),
            sequence=number * 10_000 + np.arange(quotes_per_step),
        )
        trade = Trades(
            contract=np.array([3]),
            price=np.array([4.1]),
            size=np.array([2]),
            ts_ns=np.array([ts_ns - 500_000]),
            sequence=np.array([number * 10_000 + quotes_per_step]),
        )
        bars = []
        if number % 3 == 0:
            start_ns = ts_ns - MINUTE_NS
            bars = [
                StockBar("SPY", start_ns, 600.0, 601.5, 599.5, 600.0 + number, 1000.5, 600.25),
                StockBar(SYMBOLS[3], start_ns, 4.1, 4.1, 4.1, 4.1, 6.0, 4.1),
            ]
        script.append(SourceStep(ts_ns, listing, quotes, trade, bars))
    return ScriptedSource(script, listing, failure=failure)


@asynccontextmanager
async def running_server(source: EventSource, **settings: Any) -> AsyncIterator[Any]:
    """A server that listens, and its port; stopped at the end."""
    server = MarketServer(source, [KEY, "another-key"], **({"speed": 0.0} | settings))
    port = await server.start()
    try:
        async with asyncio.timeout(WAIT_S):
            yield server, port
    finally:
        await asyncio.wait_for(server.stop(), WAIT_S)


@asynccontextmanager
async def feed(
    port: int, path: str = "options", topics: Sequence[str] = (), key: str = KEY
) -> AsyncIterator[ClientConnection]:
    """An authenticated connection that has read the acknowledgements of its `topics`."""
    async with connect(f"ws://127.0.0.1:{port}/{path}", max_size=None) as connection:
        await send_action(connection, "auth", key)
        assert await statuses(connection, 2) == ["connected", "auth_success"]
        if topics:
            await send_action(connection, "subscribe", ",".join(topics))
            assert await statuses(connection, len(topics)) == ["success"] * len(topics)
        yield connection


async def send_action(connection: ClientConnection, action: str, params: str) -> None:
    await connection.send(json.dumps({"action": action, "params": params}))


async def read_events(connection: ClientConnection, count: int) -> list[dict[str, Any]]:
    """At least the next `count` events."""
    events: list[dict[str, Any]] = []
    while len(events) < count:
        events += json.loads(await connection.recv())
    return events


async def read_to_close(connection: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """Every event until the close, and its code."""
    events: list[dict[str, Any]] = []
    try:
        while True:
            events += json.loads(await connection.recv())
    except ConnectionClosed:
        assert connection.close_code is not None
        return events, connection.close_code


async def statuses(connection: ClientConnection, count: int) -> list[str]:
    return [event["status"] for event in await read_events(connection, count)]


async def answers(connection: ClientConnection, params: str) -> list[tuple[str, str]]:
    """The answers to a subscription, read up to that of a final one which is never silent."""
    await send_action(connection, "subscribe", params)
    await send_action(connection, "end", "")
    found: list[tuple[str, str]] = []
    while True:
        for event in await read_events(connection, 1):
            if event["message"] == "unknown action: end":
                return found
            found.append((event["status"], event["message"]))


def run(test: Callable[[], Any]) -> None:
    """Runs an async test body."""
    asyncio.run(asyncio.wait_for(test(), 3 * WAIT_S))


# The vendor's own client


def official_client(port: int, market: str, topics: list[str], key: str = KEY) -> WebSocketClient:
    return WebSocketClient(
        api_key=key,
        feed=f"127.0.0.1:{port}",
        market=market,
        secure=False,
        subscriptions=topics,
        max_reconnects=0,
    )


async def collect(client: WebSocketClient, server: MarketServer, wanted: int) -> list[Any]:
    """Runs the official client until the server ends the stream; the clock starts once it is in."""
    received: list[Any] = []

    async def keep(messages: list[Any]) -> None:
        received.extend(messages)

    reading = asyncio.create_task(client.connect(keep))
    while len(server.subscriptions) < wanted and not reading.done():
        await asyncio.sleep(0)
    await server.begin()
    await reading
    return received


def test_official_client_receives_the_option_contracts_it_subscribes_to() -> None:
    async def body() -> None:
        topics = [f"Q.{SYMBOLS[1]}", f"Q.{SYMBOLS[0]}", "AM.*", "T.*"]
        async with running_server(scripted_source()) as (server, port):
            client = official_client(port, "options", topics)
            received = await collect(client, server, len(topics))
        quotes = [event for event in received if isinstance(event, EquityQuote)]
        assert [event.symbol for event in quotes] == [SYMBOLS[0], SYMBOLS[1]] * 9
        assert (quotes[0].bid_price, quotes[0].bid_size) == (0.0, 0)
        assert (quotes[1].bid_price, quotes[1].ask_size) == (2.01, 7)
        assert quotes[0].timestamp == SESSION.open_ns // 1_000_000 + 19_999
        trades = [event for event in received if isinstance(event, EquityTrade)]
        assert [(trade.price, trade.size) for trade in trades] == [(4.1, 2)] * 9
        bars = [event for event in received if isinstance(event, EquityAgg)]
        assert [bar.symbol for bar in bars] == [SYMBOLS[3]] * 3
        assert [bar.accumulated_volume for bar in bars] == [6, 12, 18]

    run(body)


def test_official_client_receives_stock_minute_bars() -> None:
    async def body() -> None:
        async with running_server(scripted_source()) as (server, port):
            client = official_client(port, "stocks", ["AM.*"])
            bars = await collect(client, server, 1)
        assert [bar.symbol for bar in bars] == ["SPY"] * 3
        assert [bar.close for bar in bars] == [603.0, 606.0, 609.0]
        assert [bar.official_open_price for bar in bars] == [600.0] * 3
        assert bars[0].end_timestamp - bars[0].start_timestamp == 60_000

    run(body)


def test_official_client_with_a_wrong_key_raises_its_auth_error() -> None:
    async def body() -> None:
        async with running_server(scripted_source()) as (server, port):
            client = official_client(port, "options", ["AM.*"], key="wrong")
            with pytest.raises(AuthError):
                await collect(client, server, 1)

    run(body)


def rest_client(port: int, key: str = KEY) -> RESTClient:
    return RESTClient(api_key=key, base=f"http://127.0.0.1:{port}", retries=0)


def test_official_rest_client_lists_contracts_page_by_page() -> None:
    async def body() -> None:
        async with running_server(scripted_source()) as (_, port):
            client = rest_client(port)

            def listed(**filters: Any) -> list[str]:
                return [contract.ticker for contract in client.list_options_contracts(**filters)]

            everything = await asyncio.to_thread(listed, underlying_ticker="SPY", limit=7)
            assert everything == sorted(SYMBOLS)
            calls = await asyncio.to_thread(
                listed, contract_type="call", strike_price_gte=600, strike_price_lt=602
            )
            assert calls == ["O:SPY260109C00600000", "O:SPY260109C00601000"]
            assert await asyncio.to_thread(listed, underlying_ticker="QQQ") == []
            assert await asyncio.to_thread(listed, expiration_date_gt="2026-01-09") == []
            assert await asyncio.to_thread(listed, as_of="2026-01-10") == []
            down = await asyncio.to_thread(listed, sort="strike_price", order="desc", limit=1000)
            assert down[0][-8:] == "00609000"

    run(body)


def test_official_rest_client_pages_the_snapshot_of_the_quotes_sent_so_far() -> None:
    async def body() -> None:
        async with running_server(scripted_source()) as (server, port):
            client = rest_client(port)

            def snapshot() -> list[Any]:
                return list(client.list_snapshot_options_chain("SPY", params={"limit": 11}))

            before = await asyncio.to_thread(snapshot)
            assert [row.details.ticker for row in before] == sorted(SYMBOLS)
            assert all(row.last_quote is None for row in before)
            await server.begin()
            await server.wait_finished()
            after = {row.details.ticker: row for row in await asyncio.to_thread(snapshot)}
        quote = after[SYMBOLS[1]].last_quote
        assert (quote.bid, quote.ask, quote.bid_size, quote.ask_size) == (2.09, 2.19, 5, 7)
        assert quote.last_updated == SESSION.open_ns + 3 * MINUTE_NS - 1_000_000
        assert after[SYMBOLS[1]].underlying_asset.price == 609.0
        assert after[SYMBOLS[3]].day.volume == 18

    run(body)


def test_official_rest_client_pages_the_quotes_sent_so_far() -> None:
    async def body() -> None:
        async with running_server(scripted_source(quotes_per_step=80)) as (server, port):
            client = rest_client(port)

            def quotes(symbol: str = SYMBOLS[1], **filters: Any) -> list[Any]:
                return list(client.list_quotes(symbol, **filters))

            assert await asyncio.to_thread(quotes) == []
            await server.begin()
            await server.wait_finished()
            oldest_first = await asyncio.to_thread(quotes, order="asc", limit=4)
            newest_first = await asyncio.to_thread(quotes, limit=50_000)
            step_ns = MINUTE_NS // 3
            between = await asyncio.to_thread(
                quotes,
                order="asc",
                timestamp_gte=SESSION.open_ns + step_ns - 1_000_000,
                timestamp_lt=SESSION.open_ns + 2 * step_ns - 1_000_000,
            )
            day = await asyncio.to_thread(quotes, timestamp="2026-01-05")
            assert await asyncio.to_thread(quotes, timestamp_gte="2026-01-06") == []
            assert await asyncio.to_thread(quotes, "O:SPY260109C00999000") == []
        assert [each.sequence_number for each in oldest_first] == [
            number * 10_000 + row for number in range(1, 10) for row in (1, 41)
        ]
        assert newest_first == day == oldest_first[::-1]
        assert between == oldest_first[:2]
        first = oldest_first[0]
        assert (first.bid_price, first.ask_price, first.bid_size, first.ask_size) == (
            2.01,
            2.11,
            5,
            7,
        )
        assert first.sip_timestamp == SESSION.open_ns + step_ns - 1_000_000

    run(body)


def test_official_rest_client_reads_minute_bars_and_the_exchange_clock() -> None:
    async def body() -> None:
        async with running_server(scripted_source()) as (server, port):
            client = rest_client(port)
            status = await asyncio.to_thread(client.get_market_status)
            assert status.server_time == "2026-01-05T09:30:00-05:00"
            assert status.market == "open"
            await server.begin()
            await server.wait_finished()
            status = await asyncio.to_thread(client.get_market_status)
            assert status.server_time == "2026-01-05T09:33:00-05:00"
            bars = await asyncio.to_thread(
                lambda: list(client.list_aggs("SPY", 1, "minute", "2026-01-05", "2026-01-05"))
            )
            assert [bar.close for bar in bars] == [603.0, 606.0, 609.0]
            from_ms = SESSION.open_ns // 1_000_000 + 60_000
            later = await asyncio.to_thread(
                lambda: list(client.list_aggs("SPY", 1, "minute", from_ms, from_ms, limit=1))
            )
            assert [bar.timestamp for bar in later] == [from_ms]

    run(body)


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/v3/reference/options/contracts", "wrong", 401),
        ("/v3/reference/options/contracts?limit=1001", KEY, 400),
        ("/v3/reference/options/contracts?limit=many", KEY, 400),
        ("/v3/reference/options/contracts?cursor=x", KEY, 400),
        ("/v3/reference/options/contracts?sort=colour", KEY, 400),
        ("/v3/reference/options/contracts?expiration_date=tomorrow", KEY, 400),
        ("/v3/snapshot/options/SPY?strike_price.gt=high", KEY, 400),
        ("/v2/aggs/ticker/SPY/range/5/minute/2026-01-05/2026-01-05", KEY, 400),
        (f"/v3/quotes/{SYMBOLS[0]}?limit=50001", KEY, 400),
        (f"/v3/quotes/{SYMBOLS[0]}?timestamp.gte=noon", KEY, 400),
        (f"/v3/quotes/{SYMBOLS[0]}?timestamp.gte=%C2%B2", KEY, 400),
        ("/v2/aggs/ticker/SPY/range/1/minute/%C2%B2/5", KEY, 400),
        ("/v2/aggs/ticker/SPY/range/1/minute/9999-12-31/x", KEY, 400),
        ("/v9/nothing", KEY, 404),
    ],
)
def test_rest_refuses_with_a_status_and_a_json_error(path: str, key: str, status: int) -> None:
    async def body() -> None:
        async with running_server(scripted_source()) as (_, port):
            client = rest_client(port, key)
            with pytest.raises(BadResponse) as refused:
                await asyncio.to_thread(client._get, path)
            assert json.loads(str(refused.value))["status"] == "ERROR"
            reply = await asyncio.to_thread(
                client.client.request, "GET", client.BASE + path, headers=client.headers
            )
            assert reply.status == status

    run(body)


def test_the_last_day_that_there_is_is_a_bound_like_others() -> None:
    async def body() -> None:
        async with running_server(scripted_source()) as (_, port):
            client = rest_client(port, KEY)
            reply = await asyncio.to_thread(
                client.client.request,
                "GET",
                client.BASE + "/v2/aggs/ticker/SPY/range/1/minute/2026-01-05/9999-12-31",
                headers=client.headers,
            )
            assert reply.status == 200

    run(body)


# The vendor's specification


def specification(name: str) -> dict[str, Any]:
    path = SHARED / "vendor" / "massive" / name
    if not path.is_file():
        pytest.skip(f"the vendor's specification is absent: no file {path}")
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def response_schema(document: dict[str, Any], path: str) -> dict[str, Any]:
    content = document["paths"][path]["get"]["responses"]["200"]["content"]
    schema: dict[str, Any] = content["application/json"]["schema"]
    return schema


def field_names(schema: dict[str, Any]) -> set[str]:
    parts = [schema, *schema.get("allOf", [])]
    return {name for part in parts for name in part.get("properties", {})}


def test_every_event_on_the_wire_fits_the_vendors_schema() -> None:
    document = specification("websocket.json")
    schemas = {
        ("options", channel): response_schema(document, f"/options/{channel}")
        for channel in ("Q", "T", "AM")
    }
    schemas["stocks", "AM"] = response_schema(document, "/stocks/AM")
    event_schema = document["components"]["schemas"]["Event"]
    schemas["options", "status"] = schemas["stocks", "status"] = event_schema

    async def body() -> None:
        options_topics = [*(f"Q.{symbol}" for symbol in SYMBOLS), "T.*", "AM.*"]
        async with (
            running_server(scripted_source()) as (server, port),
            connect(f"ws://127.0.0.1:{port}/options") as options,
            connect(f"ws://127.0.0.1:{port}/stocks") as stocks,
        ):
            for connection, topics in ((options, options_topics), (stocks, ["AM.SPY", "LULD.*"])):
                await send_action(connection, "subscribe", "AM.*")
                await send_action(connection, "auth", KEY)
                await send_action(connection, "subscribe", ",".join(topics))
            seen_options = await read_events(options, 3 + len(options_topics))
            seen_stocks = await read_events(stocks, 5)
            await server.begin()
            rest_options, _ = await read_to_close(options)
            rest_stocks, _ = await read_to_close(stocks)
        for path, events in (
            ("options", seen_options + rest_options),
            ("stocks", seen_stocks + rest_stocks),
        ):
            kinds = {event["ev"] for event in events}
            assert kinds == {channel for name, channel in schemas if name == path}
            for event in events:
                schema = schemas[path, event["ev"]]
                jsonschema.validate(event, schema)
                assert set(event) <= field_names(schema)

    run(body)


def test_every_rest_body_fits_the_vendors_schema() -> None:
    document = specification("rest.json")
    paths = {
        "/v3/reference/options/contracts": "/v3/reference/options/contracts",
        "/v3/snapshot/options/SPY": "/v3/snapshot/options/{underlyingAsset}",
        "/v2/aggs/ticker/SPY/range/1/minute/2026-01-05/2026-01-05": (
            "/v2/aggs/ticker/{stocksTicker}/range/{multiplier}/{timespan}/{from}/{to}"
        ),
        f"/v3/quotes/{SYMBOLS[1]}?limit=2": "/v3/quotes/{optionsTicker}",
        "/v1/marketstatus/now": "/v1/marketstatus/now",
    }

    async def body() -> None:
        async with running_server(scripted_source()) as (server, port):
            client = rest_client(port)
            await server.begin()
            await server.wait_finished()
            for path, template in paths.items():
                reply = await asyncio.to_thread(client._get, path, None, None, None, True)
                jsonschema.validate(json.loads(reply.data), response_schema(document, template))

    run(body)


# Subscriptions


def test_each_subscription_is_acknowledged_by_one_status() -> None:
    async def body() -> None:
        async with running_server(scripted_source()) as (_, port), feed(port) as connection:
            assert await answers(connection, f"Q.{SYMBOLS[0]}, AM.*") == [
                ("success", f"subscribed to: Q.{SYMBOLS[0]}"),
                ("success", "subscribed to: AM.*"),
            ]

    run(body)


def test_duplicates_and_unknown_channels_get_no_answer() -> None:
    async def body() -> None:
        async with running_server(scripted_source()) as (_, port), feed(port) as connection:
            await answers(connection, f"Q.{SYMBOLS[0]}")
            assert await answers(connection, f"Q.{SYMBOLS[0]},ZZ.SPY,nonsense") == []

    run(body)


def test_a_misspelt_symbol_is_acknowledged_and_silent() -> None:
    async def body() -> None:
        async with (
            running_server(scripted_source()) as (server, port),
            feed(port, topics=["Q.O:SPX260109C00600000"]) as connection,
        ):
            await server.begin()
            assert await read_to_close(connection) == ([], 1000)

    run(body)


def test_quotes_take_no_wildcard_and_unentitled_channels_are_not_authorized() -> None:
    async def body() -> None:
        async with running_server(scripted_source()) as (_, port), feed(port) as connection:
            refused = ("error", "not authorized")
            assert await answers(connection, "Q.*,A.*") == [refused, refused]

    run(body)


def test_quote_contracts_are_limited_per_connection() -> None:
    async def body() -> None:
        async with (
            running_server(scripted_source(), max_quote_contracts=2) as (_, port),
            feed(port, topics=[f"Q.{SYMBOLS[0]}", f"Q.{SYMBOLS[1]}"]) as connection,
        ):
            ((status, message),) = await answers(connection, f"Q.{SYMBOLS[2]}")
            assert status == "error"
            assert message.startswith("Subscription limit reached for feed")
            await send_action(connection, "unsubscribe", f"Q.{SYMBOLS[0]}")
            assert await statuses(connection, 1) == ["success"]
            ((status, _),) = await answers(connection, f"Q.{SYMBOLS[2]}")
            assert status == "success"

    run(body)


def test_a_thousand_contracts_fit_by_default_and_not_one_more() -> None:
    async def body() -> None:
        async with running_server(scripted_source()) as (_, port), feed(port) as connection:
            topics = [f"Q.O:SPY260109C{strike:08d}" for strike in range(1, 1002)]
            received = await answers(connection, ",".join(topics))
            assert [status for status, _ in received] == ["success"] * 1000 + ["error"]

    run(body)


def test_an_unsubscribed_contract_is_silent() -> None:
    async def body() -> None:
        async with (
            running_server(scripted_source()) as (server, port),
            feed(port, topics=[f"Q.{SYMBOLS[0]}", f"Q.{SYMBOLS[1]}"]) as connection,
        ):
            await send_action(connection, "unsubscribe", f"Q.{SYMBOLS[0]}")
            assert await statuses(connection, 1) == ["success"]
            await server.begin()
            events, _ = await read_to_close(connection)
            assert {event["sym"] for event in events} == {SYMBOLS[1]}

    run(body)


def test_a_subscription_made_while_streaming_takes_effect() -> None:
    async def body() -> None:
        # 25 MB: more than the buffers on the way hold, so the server cannot have finished.
        async with (
            running_server(scripted_source(70, quotes_per_step=1000)) as (server, port),
            feed(port, topics=[f"Q.{symbol}" for symbol in SYMBOLS[1:]]) as connection,
        ):
            await server.begin()
            await read_events(connection, 1)
            await send_action(connection, "subscribe", f"Q.{SYMBOLS[0]}")
            events, _ = await read_to_close(connection)
            acknowledged = [event["ev"] for event in events].index("status")
            before, after = events[:acknowledged], events[acknowledged + 1 :]
            assert SYMBOLS[0] not in {event["sym"] for event in before}
            assert {event["sym"] for event in after} == set(SYMBOLS)

    run(body)


def test_a_subscription_follows_its_contract_into_the_next_session() -> None:
    async def body() -> None:
        source = scripted_source(1)
        later = Listing(SESSION, source.listing.contracts[::-1])
        first, second, third = source.script
        source.script = [first, second._replace(listing=later), third._replace(listing=later)]
        async with (
            running_server(source) as (server, port),
            feed(port, topics=[f"Q.{SYMBOLS[1]}"]) as connection,
        ):
            await server.begin()
            events, _ = await read_to_close(connection)
        assert [event["sym"] for event in events] == [SYMBOLS[1]] * 3
        # The position of the contract in the listing is told by the scripted price.
        assert [int(event["ap"]) for event in events] == [2, 39, 39]

    run(body)


def test_at_speed_0_a_session_goes_on_when_those_who_say_so_have_listed_it() -> None:
    source = scripted_source(minutes=1)
    following = ExchangeCalendar().next_session(SESSION.date)
    second = Listing(following, [parse_symbol(symbol) for symbol in SYMBOLS])
    night_ns = following.open_ns - SESSION.open_ns
    source.script += [
        each._replace(ts_ns=each.ts_ns + night_ns, listing=second, bars=[])
        for each in source.script
    ]

    async def body() -> None:
        async with (
            running_server(source) as (server, port),
            feed(port) as options,
        ):
            await send_action(options, "clock", SESSION.date.isoformat())
            await send_action(options, "subscribe", f"Q.{SYMBOLS[3]}")
            assert await statuses(options, 1) == ["success"]
            await server.begin()
            told = await read_events(options, 4 * 2)  # each with the clock
            assert [each["ev"] for each in told] == ["CLK", "Q"] * 4
            # A contract that is new in the session: none of its later quotes is missed.
            await send_action(options, "subscribe", f"Q.{SYMBOLS[4]}")
            assert await statuses(options, 1) == ["success"]
            await send_action(options, "clock", following.date.isoformat())
            events, _ = await read_to_close(options)
            assert [each.get("sym") for each in events].count(SYMBOLS[4]) == 2

    run(body)


def test_two_keys_each_receive_only_their_own_subscriptions() -> None:
    async def body() -> None:
        async with (
            running_server(scripted_source()) as (server, port),
            feed(port, topics=[f"Q.{SYMBOLS[0]}", f"Q.{SYMBOLS[5]}", "T.*"]) as one,
            feed(port, topics=[f"Q.{SYMBOLS[5]}", f"Q.{SYMBOLS[7]}"], key="another-key") as two,
        ):
            await server.begin()
            first, _ = await read_to_close(one)
            second, _ = await read_to_close(two)
        assert {event["sym"] for event in first if event["ev"] == "Q"} == {SYMBOLS[0], SYMBOLS[5]}
        assert {event["sym"] for event in first if event["ev"] == "T"} == {SYMBOLS[3]}
        assert {event["sym"] for event in second} == {SYMBOLS[5], SYMBOLS[7]}
        assert len(second) == 18

    run(body)


def test_a_frame_holds_no_more_events_than_configured() -> None:
    async def body() -> None:
        async with (
            running_server(scripted_source(1), max_frame_events=16) as (server, port),
            feed(port, topics=[f"Q.{symbol}" for symbol in SYMBOLS]) as connection,
        ):
            await server.begin()
            sizes = [len(json.loads(message)) async for message in connection]
            assert sizes == [16, 16, 8] * 3

    run(body)


# Connections


def test_nothing_but_a_connection_status_comes_before_authentication() -> None:
    async def body() -> None:
        async with (
            running_server(scripted_source()) as (_, port),
            connect(f"ws://127.0.0.1:{port}/options") as connection,
        ):
            await send_action(connection, "subscribe", "AM.*")
            await connection.send("not json")
            await send_action(connection, "auth", "wrong")
            events, code = await read_to_close(connection)
        received = [event["status"] for event in events]
        assert received == ["connected", "auth_required", "error", "auth_failed"]
        assert code == 1008

    run(body)


def test_a_connection_that_never_authenticates_is_closed_by_timeout() -> None:
    async def body() -> None:
        async with (
            running_server(scripted_source(), auth_timeout_s=0.05) as (_, port),
            connect(f"ws://127.0.0.1:{port}/options") as connection,
        ):
            events, code = await read_to_close(connection)
        assert [event["status"] for event in events] == ["connected", "auth_timeout"]
        assert code == 1008

    run(body)


def test_a_second_connection_of_one_key_and_asset_class_is_refused_after_auth_success() -> None:
    async def body() -> None:
        async with (
            running_server(scripted_source()) as (_, port),
            feed(port, "options"),
            feed(port, "stocks"),
            feed(port, "options", key="another-key"),
            feed(port, "options") as second,
        ):
            events, code = await read_to_close(second)
        assert [event["status"] for event in events] == ["max_connections"]
        assert code == 1008

    run(body)


def test_the_slot_of_a_closed_connection_is_free_again() -> None:
    async def body() -> None:
        async with running_server(scripted_source()) as (_, port):
            async with feed(port, "options"):
                pass
            async with feed(port, "options", topics=["AM.*"]):
                pass

    run(body)


def test_an_unknown_path_is_not_found() -> None:
    async def body() -> None:
        async with running_server(scripted_source()) as (_, port):
            with pytest.raises(Exception, match="HTTP 401"):
                await connect(f"ws://127.0.0.1:{port}/forex")

    run(body)


def test_nothing_streams_before_begin_and_stop_goes_away() -> None:
    async def body() -> None:
        async with running_server(scripted_source()) as (server, port):
            topics = [f"Q.{symbol}" for symbol in SYMBOLS]
            async with feed(port, topics=topics) as connection:
                await (await connection.ping())
                assert server.now_ns == SESSION.open_ns
                stopping = asyncio.create_task(server.stop())
                assert await read_to_close(connection) == ([], 1001)
                await stopping

    run(body)


def test_the_clock_is_paced_by_the_speed() -> None:
    async def body() -> None:
        source = scripted_source(1)
        async with (
            running_server(source, speed=240.0) as (server, port),
            feed(port, topics=[f"Q.{SYMBOLS[1]}"]) as connection,
        ):
            began = time.monotonic()
            await server.begin()
            events, code = await read_to_close(connection)
            # 60 exchange seconds at 240 a second: the wall clock cannot have run less.
            assert time.monotonic() - began >= 60 / 240
            assert (len(events), code) == (3, 1000)

    run(body)


def test_a_slow_reader_is_cut_and_others_are_not() -> None:
    async def body() -> None:
        source = scripted_source(200, quotes_per_step=1000)
        topics = [f"Q.{symbol}" for symbol in SYMBOLS]
        async with running_server(source, slow_reader="cut", max_buffered_bytes=1 << 20) as (
            server,
            port,
        ):
            url = f"ws://127.0.0.1:{port}/options"
            async with (
                feed(port, "stocks", topics=["AM.SPY"]) as reader,
                connect(url, max_queue=1, ping_interval=None) as sleeper,
            ):
                await send_action(sleeper, "auth", KEY)
                await send_action(sleeper, "subscribe", ",".join(topics))
                await read_events(sleeper, 2 + len(topics))
                await server.begin()
                bars, code = await read_to_close(reader)
                assert (len(bars), code) == (200, 1000)
                events, code = await read_to_close(sleeper)
                assert events[-1]["status"] == "slow_consumer"
                assert code == 1008
                assert len(events) < 600_000

    run(body)


def test_a_slow_reader_holds_the_clock_when_it_is_waited_for() -> None:
    async def body() -> None:
        source = scripted_source(150, quotes_per_step=1000)
        topics = [f"Q.{symbol}" for symbol in SYMBOLS]
        async with (
            running_server(source) as (server, port),
            connect(f"ws://127.0.0.1:{port}/options", max_queue=1) as reader,
        ):
            await send_action(reader, "auth", KEY)
            await send_action(reader, "subscribe", ",".join(topics))
            await read_events(reader, 2 + len(topics))
            await server.begin()
            count = 0
            async for message in reader:
                quotes = [event for event in decode(message) if isinstance(event, Quote)]
                count += len(quotes)
                # 56 MB in all: no buffer on the way holds a third of that.
                assert server.now_ns - quotes[0].t * 1_000_000 < 50 * MINUTE_NS
            assert count == 450_000
            assert reader.close_code == 1000

    run(body)


@pytest.mark.parametrize("minutes", [1, 60])
def test_stop_does_not_wait_for_a_client_that_never_reads(minutes: int) -> None:
    async def body() -> None:
        source = scripted_source(minutes, quotes_per_step=10_000)
        async with (
            running_server(source, close_timeout_s=0.1) as (server, port),
            connect(f"ws://127.0.0.1:{port}/options", max_queue=1, close_timeout=0.1) as sleeper,
            connect(f"ws://127.0.0.1:{port}/stocks", close_timeout=0.1) as refused,
        ):
            await send_action(refused, "auth", "wrong")
            await send_action(sleeper, "auth", KEY)
            topics = [f"Q.{symbol}" for symbol in SYMBOLS]
            await send_action(sleeper, "subscribe", ",".join(topics))
            await read_events(sleeper, 2 + len(topics))
            await server.begin()
            while server.now_ns == SESSION.open_ns:
                await asyncio.sleep(0)
            await server.stop()
            assert server.finished.is_set()
            assert server.subscriptions == set()

    run(body)


def test_a_failing_source_closes_with_an_internal_error_and_is_reported() -> None:
    async def body() -> None:
        source = scripted_source(1, failure=FlatFileError("flat file ended early"))
        async with (
            running_server(source) as (server, port),
            feed(port, topics=[f"Q.{SYMBOLS[1]}"]) as connection,
        ):
            await server.begin()
            events, code = await read_to_close(connection)
            assert (len(events), code) == (3, 1011)
            with pytest.raises(FlatFileError, match="ended early"):
                await server.wait_finished()

    run(body)


def test_a_port_that_is_taken_is_waited_for_as_long_as_it_may() -> None:
    """A client that came back while nobody listened may hold it, or who died a moment ago."""

    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
            with pytest.raises(OSError, match="in use"):
                await MarketServer(scripted_source(), [KEY], port=port).start()
            server = MarketServer(scripted_source(), [KEY], port=port)
            starting = asyncio.create_task(server.start(WAIT_S))
            await asyncio.sleep(0.6)
            assert not starting.done()
        assert await starting == port
        await server.stop()

    run(body)


@pytest.mark.parametrize(
    "settings", [{"speed": -1.0}, {"speed": float("nan")}, {"max_quote_contracts": 0}]
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(StreamError):
        MarketServer(scripted_source(), [KEY], **settings)


# Order across the two connections


def test_stock_bars_are_written_before_any_later_option_event() -> None:
    source = scripted_source(60, quotes_per_step=100)

    def read_in_step(port: int, begin: Callable[[], None]) -> int:
        """Pings the stocks connection at each option frame; returns the frames read."""
        url = f"ws://127.0.0.1:{port}"
        with (
            connect_sync(f"{url}/options", max_queue=None) as options,
            connect_sync(f"{url}/stocks", max_queue=None) as stocks,
        ):
            topics = [f"Q.{symbol}" for symbol in SYMBOLS]
            for connection, wanted in ((options, topics), (stocks, ["AM.*"])):
                connection.send(json.dumps({"action": "auth", "params": KEY}))
                params = ",".join(wanted)
                connection.send(json.dumps({"action": "subscribe", "params": params}))
                for _ in range(3):
                    connection.recv(WAIT_S)
            begin()
            bar_ends: set[int] = set()
            frames = 0
            while True:
                try:
                    events = decode(options.recv(WAIT_S))
                except ConnectionClosed:
                    return frames
                frames += 1
                bar_ends |= set(everything_written_so_far(stocks))
                latest_ms = max(event.t for event in events if isinstance(event, Quote))
                due = {
                    step.ts_ns // 1_000_000
                    for step in source.script
                    if step.bars and step.ts_ns // 1_000_000 < latest_ms
                }
                assert due <= bar_ends

    def everything_written_so_far(stocks: Any) -> Iterator[int]:
        with suppress(ConnectionClosed):  # closed: all of it has been received
            # A pong never follows a close: without this the event would not be set.
            assert stocks.ping(ack_on_close=True).wait(WAIT_S)
        while True:
            try:
                message = stocks.recv(timeout=0)
            except (TimeoutError, ConnectionClosed):
                return
            yield from (event.e for event in decode(message) if isinstance(event, Aggregate))

    async def body() -> None:
        # Paced, so that the reader keeps up and a late bar would be seen to be late.
        settings = {"speed": 3600.0, "slow_reader": "wait"}
        async with running_server(source, **settings) as (server, port):
            loop = asyncio.get_running_loop()

            def begin() -> None:
                asyncio.run_coroutine_threadsafe(server.begin(), loop).result(WAIT_S)

            assert await asyncio.to_thread(read_in_step, port, begin) == 180

    run(body)


# A real session


@pytest.fixture(scope="module")
def goog_replay() -> ReplaySource:
    if not quotes_path(FLATFILES, GOOG_DAY).is_file():
        pytest.skip(f"real session {GOOG_DAY} of GOOG is absent: no file below {FLATFILES}")
    return ReplaySource(FLATFILES, GOOG_DAY, ["GOOG"])


def test_a_full_replay_delivers_every_quote_and_closes_normally(
    goog_replay: ReplaySource, record_property: Callable[[str, object], None]
) -> None:
    async def body() -> None:
        symbols = goog_replay.listing.symbols
        async with (
            running_server(goog_replay, max_quote_contracts=3000) as (server, port),
            feed(port, topics=[f"Q.{symbol}" for symbol in symbols]) as options,
            feed(port, "stocks", topics=["AM.GOOG"]) as stocks,
        ):
            began = time.perf_counter()
            await server.begin()
            bars = asyncio.create_task(read_to_close(stocks))
            frames = [message async for message in options]
            seconds = time.perf_counter() - began
            record_property("quotes_per_second", round(275_552 / seconds))
            print(f"{275_552 / seconds:,.0f} quotes/s delivered over loopback")
            assert options.close_code == 1000
            events, code = await bars
            assert (len(events), code) == (227, 1000)
        quotes = [event for frame in frames for event in decode(frame)]
        assert len(quotes) == 275_552
        times = [event.t for event in quotes if isinstance(event, Quote)]
        assert times == sorted(times)
        assert {event.sym for event in quotes if isinstance(event, Quote)} == set(symbols)

    run(body)


def test_official_rest_client_reads_the_whole_real_chain(goog_replay: ReplaySource) -> None:
    async def body() -> None:
        async with running_server(goog_replay) as (_, port):
            client = rest_client(port)
            contracts = await asyncio.to_thread(
                lambda: list(client.list_options_contracts("GOOG", limit=1000))
            )
            assert [contract.ticker for contract in contracts] == list(goog_replay.listing.symbols)
            assert {contract.underlying_ticker for contract in contracts} == {"GOOG"}

    run(body)


@pytest.mark.parametrize("message", [b'{"action":"\xff","params":""}', "[" * 100_000, b"", "null"])
def test_a_message_that_nobody_can_read_is_answered(message: str | bytes) -> None:
    protocol = FeedProtocol("options", {KEY}, max_quote_contracts=10)
    (status,) = protocol.receive(message).statuses
    assert status.status == "error"
    assert protocol.receive(encode_action("auth", KEY)).statuses[0].status == "auth_success"
