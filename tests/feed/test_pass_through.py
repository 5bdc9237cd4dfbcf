"""REST answers through the feed: asked for once, for our client and the vendor's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pytest
from massive import RESTClient

from tests.data.rest_service import Answer, Service, running_service
from tests.data.test_server import KEY, SYMBOLS, running_server, scripted_source
from tests.feed.vendor import READER_KEY, Vendor, play, running
from trading.data.massive.client.rest import RestClient
from trading.errors import AuthenticationFailed, RestError
from trading.feed.pass_through import PassThrough

VENDOR_KEY = "vendor-key"
CONTRACTS = "/v3/reference/options/contracts?underlying_ticker=SPY"
SNAPSHOT = "/v3/snapshot/options/SPY"
HEADERS = {"Authorization": f"Bearer {READER_KEY}", "Host": "feed:8765"}


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service() as server:
        yield server


def asking(service: Service, test: Callable[[PassThrough, Clock], Any], **options: Any) -> None:
    """Run a test against a pass-through of `service`."""

    async def body() -> None:
        clock = Clock()
        rest = PassThrough(service.url, VENDOR_KEY, [READER_KEY], clock=clock, **options)
        try:
            await test(rest, clock)
        finally:
            rest.close()

    play(body)


def test_what_all_need_is_asked_for_once_with_the_vendors_key(service: Service) -> None:
    service.answers = [Answer({"status": "OK", "results": [1]})]

    async def body(rest: PassThrough, clock: Clock) -> None:
        answers = await asyncio.gather(*(rest.get(CONTRACTS, HEADERS) for _ in range(5)))
        clock.now_s += 59.0
        late = await rest.get(CONTRACTS, HEADERS)
        assert {each.body for each in [*answers, late]} == {answers[0].body}
        assert json.loads(late.body)["results"] == [1]
        assert late.headers["Age"] == "59"
        assert [asked.authorization for asked in service.asked] == [f"Bearer {VENDOR_KEY}"]
        assert (rest.counts["asked"], rest.counts["shared"], rest.counts["kept"]) == (1, 4, 1)
        clock.now_s += 1.0
        await rest.get(CONTRACTS, HEADERS)
        assert len(service.asked) == 2

    asking(service, body)


@pytest.mark.parametrize(
    ("target", "headers", "asked"),
    [
        (SNAPSHOT, {}, 2),
        (CONTRACTS, {"Cache-Control": "no-cache"}, 3),
        ("/v1/marketstatus/now", {}, 3),
        (CONTRACTS, {}, 1),
    ],
)
def test_an_answer_is_kept_as_long_as_it_is_good(
    service: Service, target: str, headers: dict[str, str], asked: int
) -> None:
    service.answers = [Answer({"status": "OK"})]

    async def body(rest: PassThrough, clock: Clock) -> None:
        for later_s in (0.0, 0.5, 0.5):
            clock.now_s += later_s
            await rest.get(target, HEADERS | headers)
        assert len(service.asked) == asked

    asking(service, body)


@pytest.mark.parametrize("status", [403, 404, 429, 500])
def test_a_refusal_is_passed_on_and_not_kept(service: Service, status: int) -> None:
    refusal = Answer({"status": "ERROR", "error": "no"}, status, {"Retry-After": "7"})
    service.answers = [refusal, Answer({"status": "OK"})]

    async def body(rest: PassThrough, _: Clock) -> None:
        refused = await rest.get(CONTRACTS, HEADERS)
        assert (refused.status, json.loads(refused.body)["error"]) == (status, "no")
        assert refused.headers["Retry-After"] == "7"
        assert (await rest.get(CONTRACTS, HEADERS)).status == 200

    asking(service, body)


def test_a_vendor_that_breaks_off_is_a_bad_gateway_without_the_key(service: Service) -> None:
    service.answers = [Answer({"status": "OK", "results": list(range(100))}, cut=True)]

    async def body(rest: PassThrough, _: Clock) -> None:
        answer = await rest.get(CONTRACTS, HEADERS)
        assert answer.status == 502
        assert VENDOR_KEY not in answer.body.decode()
        assert rest.counts["failed"] == 1

    asking(service, body)


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        (CONTRACTS, {"Authorization": "Bearer wrong"}, 401),
        (CONTRACTS, {}, 401),
        (f"{CONTRACTS}&apiKey={VENDOR_KEY}", {}, 401),
        (f"{CONTRACTS}&apiKey={READER_KEY}", {}, 200),
    ],
)
def test_only_a_readers_key_is_let_in_and_none_goes_to_the_vendor(
    service: Service, target: str, headers: dict[str, str], status: int
) -> None:
    service.answers = [Answer({"status": "OK"})]

    async def body(rest: PassThrough, _: Clock) -> None:
        assert (await rest.get(target, headers)).status == status
        assert [each.query for each in service.asked] == (
            [{"underlying_ticker": "SPY"}] if status == 200 else []
        )

    asking(service, body)


def test_memory_is_bounded_and_the_oldest_goes_first(service: Service) -> None:
    service.answers = [Answer(b"x" * 100)]

    async def body(rest: PassThrough, _: Clock) -> None:
        for number in range(5):
            await rest.get(f"/v3/reference/tickers/{number}", HEADERS)
        assert rest.kept_bytes == 400
        await rest.get("/v3/reference/tickers/4", HEADERS)
        assert len(service.asked) == 5
        await rest.get("/v3/reference/tickers/0", HEADERS)
        assert len(service.asked) == 6

    asking(service, body, max_bytes=400)


def test_both_rest_clients_page_through_the_feed_by_one_address() -> None:
    async def body() -> None:
        async with running_server(scripted_source()) as (_, market_port):
            options = {"keys": (KEY,), "rest_url": f"http://127.0.0.1:{market_port}"}
            async with running(Vendor(), **options) as (feed, port):
                url = f"http://127.0.0.1:{port}"

                def theirs() -> list[str]:
                    client = RESTClient(api_key=READER_KEY, base=url, retries=0)
                    listed = client.list_options_contracts(underlying_ticker="SPY", limit=7)
                    return [each.ticker for each in listed]

                def ours() -> list[str]:
                    with RestClient(url, READER_KEY) as client:
                        return [
                            each.contract.symbol
                            for each in client.option_contracts("SPY", as_of=date(2026, 1, 5))
                        ]

                assert await asyncio.to_thread(theirs) == sorted(SYMBOLS)
                asked = feed.rest.counts["asked"]
                assert await asyncio.to_thread(theirs) == sorted(SYMBOLS)
                assert feed.rest.counts["asked"] == asked
                assert await asyncio.to_thread(ours) == sorted(SYMBOLS)

    play(body)


def test_our_client_is_told_of_a_wrong_key_and_of_a_vendor_that_is_gone() -> None:
    async def body() -> None:
        async with running(Vendor()) as (_, port):
            url = f"http://127.0.0.1:{port}"

            def ask(key: str) -> None:
                with RestClient(url, key, attempts=1) as client:
                    client.market_status()

            with pytest.raises(AuthenticationFailed):
                await asyncio.to_thread(ask, "wrong")
            with pytest.raises(RestError, match="the vendor does not answer"):
                await asyncio.to_thread(ask, READER_KEY)

    play(body)
