"""The REST client against an HTTP server on the loopback."""

import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.data.rest_service import Answer, Asked, Service, running_service
from tests.waits import WAIT_S
from trading.data.massive.client.rest import RestClient
from trading.data.massive.client.rest_transport import RequestPace
from trading.errors import AuthenticationFailed, DataError, NotEntitled, RestError
from trading.market.bars import StockBar
from trading.market.contracts import Right

ROOT = Path(__file__).parents[2]
KEY = "k3y-that-must-stay-secret"
CONTRACTS = "/v3/reference/options/contracts"
SNAPSHOT = "/v3/snapshot/options/SPY"


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service() as server:
        yield server


@pytest.fixture
def pauses() -> list[float]:
    """The pauses that the client made between attempts, in seconds."""
    return []


@pytest.fixture
def client(service: Service, pauses: list[float]) -> Iterator[RestClient]:
    with RestClient(service.url, KEY, pause=pauses.append) as rest:
        yield rest


def row(symbol: str, **more: Any) -> dict[str, Any]:
    return {"ticker": symbol, "underlying_ticker": "SPY", "shares_per_contract": 100} | more


CALLS = [f"O:SPY251219C00{strike}000" for strike in range(600, 606)]


def test_contracts_are_asked_for_as_the_vendor_documents(
    service: Service, client: RestClient
) -> None:
    service.pages(CONTRACTS, [row(CALLS[0])])
    client.option_contracts(
        "SPY",
        as_of=date(2025, 12, 1),
        expiry_from=date(2025, 12, 5),
        expiry_to=date(2026, 1, 16),
    )
    assert service.asked == [
        Asked(
            CONTRACTS,
            {
                "underlying_ticker": "SPY",
                "as_of": "2025-12-01",
                "expiration_date.gte": "2025-12-05",
                "expiration_date.lte": "2026-01-16",
                "limit": "1000",
                "sort": "ticker",
                "order": "asc",
            },
            f"Bearer {KEY}",
        )
    ]


def test_every_page_is_read(service: Service, client: RestClient) -> None:
    service.pages(CONTRACTS, [row(CALLS[0]), row(CALLS[1])], [], [row(CALLS[2])])
    listed = client.option_contracts("SPY")
    assert [each.contract.symbol for each in listed] == CALLS[:3]
    assert [asked.query.get("cursor") for asked in service.asked] == [None, "page2", "page3"]
    assert {asked.authorization for asked in service.asked} == {f"Bearer {KEY}"}


def test_an_adjusted_contract_is_told_from_a_standard_one(
    service: Service, client: RestClient
) -> None:
    cash = [{"amount": 6.53, "type": "currency", "underlying": "USD"}]
    service.pages(
        CONTRACTS,
        [
            row(CALLS[0], exercise_style="american"),
            row("O:SPY1251219C00600000", additional_underlyings=cash),
            row("O:SPY2251219C00600000", shares_per_contract=50),
        ],
    )
    listed = client.option_contracts("SPY")
    assert [each.is_standard for each in listed] == [True, False, False]
    assert [each.shares_per_contract for each in listed] == [100, 100, 50]
    assert [each.underlying for each in listed] == ["SPY"] * 3
    assert listed[0].exercise_style == "american"


def test_a_malformed_symbol_is_left_out_and_logged(
    service: Service, client: RestClient, caplog: pytest.LogCaptureFixture
) -> None:
    service.pages(CONTRACTS, [row("O:SPY251219C000150000"), row(CALLS[0])])
    assert [each.contract.symbol for each in client.option_contracts("SPY")] == CALLS[:1]
    assert "O:SPY251219C000150000" in caplog.text


FAILING_PAGES = {
    "error in the body": Answer({"status": "ERROR", "error": "cursor expired"}),
    "error beside rows": Answer({"status": "OK", "error": "partial", "results": []}),
    "no status": Answer({}),
    "no JSON": Answer(b"<html>bad gateway</html>"),
    "truncated JSON": Answer(b'{"status":"OK","results":[{"ticker":"O:SPY2512'),
    "an array": Answer([]),
    "rows of another kind": Answer({"status": "OK", "results": [{"symbol": "SPY"}]}),
    "no rows": Answer({"status": "OK"}),
    "not found": Answer({"status": "NOT_FOUND", "message": "no such thing"}, 404),
    "a redirect": Answer(b"", 302, {"Location": "https://example.org/"}),
    "a broken connection": Answer({"status": "OK", "results": []}, cut=True),
    "server error": Answer({"status": "ERROR", "error": "internal"}, 500),
}


@pytest.mark.parametrize("failing", FAILING_PAGES.values(), ids=FAILING_PAGES.keys())
def test_a_page_that_fails_fails_the_whole(
    service: Service, client: RestClient, failing: Answer
) -> None:
    service.pages(CONTRACTS, [row(CALLS[0])], [row(CALLS[1])], [row(CALLS[2])])
    service.answers[2:] = [failing]
    with pytest.raises(RestError, match=r"contracts, page 3: "):
        client.option_contracts("SPY")


def test_pages_that_go_in_a_circle_are_refused(service: Service, client: RestClient) -> None:
    url = f"{service.url}{CONTRACTS}?cursor=round"
    service.answers = [Answer({"status": "OK", "results": [row(CALLS[0])], "next_url": url})]
    with pytest.raises(RestError, match="read before"):
        client.option_contracts("SPY")


@pytest.mark.parametrize(
    "elsewhere",
    ["https://example.org/v3?cursor=1", "http://127.0.0.1:1/", "/v3?cursor=1", "http://["],
)
def test_the_key_is_never_taken_to_another_server(
    service: Service, client: RestClient, elsewhere: str
) -> None:
    service.answers = [Answer({"status": "OK", "results": [], "next_url": elsewhere})]
    with pytest.raises(RestError, match="next page"):
        client.option_contracts("SPY")
    assert len(service.asked) == 1


def test_a_refused_key_is_told_apart(service: Service, client: RestClient) -> None:
    service.answers = [Answer({"status": "ERROR", "error": "Unknown API Key"}, 401)]
    with pytest.raises(AuthenticationFailed, match="Unknown API Key"):
        client.market_status()
    assert len(service.asked) == 1


def test_a_key_that_was_accepted_before_is_shown_again(
    service: Service, client: RestClient, pauses: list[float]
) -> None:
    """A vendor whose logins fail for a while refuses every key; that is not its end."""
    refused = Answer({"status": "ERROR", "error": "Unknown API Key"}, 401)
    service.pages(CONTRACTS, [row(CALLS[0])])
    service.answers += [refused, *service.answers, refused]
    assert len(client.option_contracts("SPY")) == 1
    assert len(client.option_contracts("SPY")) == 1
    assert pauses == [0.5]
    with pytest.raises(RestError, match=r"Unknown API Key.*after 4 attempts.*MASSIVE_API_KEY"):
        client.option_contracts("SPY")


def test_calls_after_one_whose_key_was_refused_each_time_wait_no_more(
    service: Service, client: RestClient, pauses: list[float]
) -> None:
    """A session of many symbols would take minutes, which looks like a thread that hangs."""
    refused = Answer({"status": "ERROR", "error": "Unknown API Key"}, 401)
    service.pages(CONTRACTS, [row(CALLS[0])])
    accepted = service.answers
    service.answers = [*accepted, *[refused] * 6, *accepted, refused, *accepted]
    assert len(client.option_contracts("SPY")) == 1
    for attempts in (4, 1, 1):
        with pytest.raises(RestError, match=f"after {attempts} attempts"):
            client.option_contracts("SPY")
    assert pauses == [0.5, 1.0, 2.0]
    assert len(client.option_contracts("SPY")) == 1
    assert len(client.option_contracts("SPY")) == 1
    assert pauses == [0.5, 1.0, 2.0, 0.5]


def test_a_plan_that_lacks_the_data_is_told_apart(service: Service, client: RestClient) -> None:
    service.answers = [Answer({"status": "NOT_AUTHORIZED", "message": "upgrade your plan"}, 403)]
    with pytest.raises(NotEntitled, match="upgrade your plan"):
        client.option_chain_snapshot("SPY")
    assert len(service.asked) == 1


def test_a_throttled_request_is_tried_again_when_the_server_says(
    service: Service, client: RestClient, pauses: list[float]
) -> None:
    service.pages(CONTRACTS, [row(CALLS[0])], [row(CALLS[1])])
    service.answers.insert(1, Answer({"status": "ERROR"}, 429, {"Retry-After": "7"}))
    service.answers.insert(2, Answer(b"slow down", 429, {"Retry-After": "soon"}))
    assert len(client.option_contracts("SPY")) == 2
    assert pauses == [7.0, 1.0]
    assert [asked.query.get("cursor") for asked in service.asked] == [None] + ["page2"] * 3


@pytest.mark.parametrize(
    ("after", "pause_s"),
    [
        ("Mon, 05 Jan 2026 15:00:30 GMT", 30.0),
        ("Mon, 05 Jan 2026 14:00:00 GMT", 0.5),
        ("Tue, 06 Jan 2026 15:00:00 GMT", 60.0),
        ("1.5", 1.5),
        ("31536000", 60.0),
        ("Mon, 99 Jan 2026 15:00:30 GMT", 0.5),
    ],
)
def test_the_pause_may_be_told_as_a_date_and_has_a_bound(
    service: Service, client: RestClient, pauses: list[float], after: str, pause_s: float
) -> None:
    told = {"Retry-After": after, "Date": "Mon, 05 Jan 2026 15:00:00 GMT"}
    service.answers.append(Answer({"status": "ERROR"}, 429, told))
    service.pages(CONTRACTS, [row(CALLS[0])])
    assert len(client.option_contracts("SPY")) == 1
    assert pauses == [pause_s]


def test_throttling_without_end_raises(
    service: Service, client: RestClient, pauses: list[float]
) -> None:
    service.answers = [Answer({"status": "ERROR", "error": "too many requests"}, 429)]
    with pytest.raises(RestError, match="too many requests"):
        client.option_contracts("SPY")
    assert len(service.asked) == 4
    assert pauses == [0.5, 1.0, 2.0]


def test_a_server_that_is_not_there_raises(pauses: list[float]) -> None:
    with Service() as gone:
        url = gone.url
    with (
        RestClient(url, KEY, pause=pauses.append) as client,
        pytest.raises(RestError, match="NewConnectionError"),
    ):
        client.market_status()


def test_a_server_that_does_not_answer_raises(pauses: list[float]) -> None:
    with Service() as deaf:
        client = RestClient(deaf.url, KEY, timeout_s=0.05, attempts=2, pause=pauses.append)
        with client, pytest.raises(RestError, match="ReadTimeoutError"):
            client.market_status()


def snapshot_row(symbol: str, **more: Any) -> dict[str, Any]:
    return {"details": {"ticker": symbol, "strike_price": 600}, "open_interest": 12} | more


def test_a_snapshot_carries_quote_greeks_and_underlying(
    service: Service, client: RestClient
) -> None:
    full = snapshot_row(
        CALLS[0],
        last_quote={
            "bid": 1.2,
            "ask": 1.25,
            "bid_size": 8,
            "ask_size": 4,
            "last_updated": 1_766_154_600_123_456_789,
        },
        greeks={"delta": 0.5, "gamma": 0.01, "theta": -0.2, "vega": 0.4},
        implied_volatility=0.18,
        underlying_asset={"price": 601.5, "ticker": "SPY"},
    )
    service.pages(SNAPSHOT, [full])
    [snapshot] = client.option_chain_snapshot("SPY")
    assert snapshot.contract.symbol == CALLS[0]
    assert (snapshot.bid, snapshot.ask, snapshot.bid_size, snapshot.ask_size) == (1.2, 1.25, 8, 4)
    assert snapshot.quote_ns == 1_766_154_600_123_456_789
    assert (snapshot.iv, snapshot.delta, snapshot.vega) == (0.18, 0.5, 0.4)
    assert (snapshot.open_interest, snapshot.underlying_price) == (12, 601.5)


def test_a_snapshot_without_quote_or_greeks_says_so(service: Service, client: RestClient) -> None:
    service.pages(SNAPSHOT, [snapshot_row(CALLS[0], greeks={}, last_quote=None)])
    [snapshot] = client.option_chain_snapshot("SPY")
    assert (snapshot.bid, snapshot.ask, snapshot.quote_ns) == (0.0, 0.0, 0)
    assert math.isnan(snapshot.delta)
    assert math.isnan(snapshot.iv)
    assert math.isnan(snapshot.underlying_price)


def test_a_snapshot_is_filtered_and_paged(service: Service, client: RestClient) -> None:
    service.pages(SNAPSHOT, [snapshot_row(CALLS[0])], [snapshot_row(CALLS[1])])
    snapshots = client.option_chain_snapshot(
        "SPY", expiry_to=date(2026, 1, 16), strike_from=590.5, strike_to=610, right=Right.CALL
    )
    assert len(snapshots) == 2
    assert service.asked[0].path == SNAPSHOT
    assert service.asked[0].query == {
        "expiration_date.lte": "2026-01-16",
        "strike_price.gte": "590.5",
        "strike_price.lte": "610",
        "contract_type": "call",
        "limit": "250",
        "sort": "ticker",
        "order": "asc",
    }


def test_aggregates_are_bars_in_nanoseconds(service: Service, client: RestClient) -> None:
    start_ms = 1_766_154_600_000
    rows = [
        {"t": start_ms, "o": 1, "h": 4, "l": 1, "c": 2.5, "v": 10.5, "vw": 2.25, "n": 3},
        {"t": start_ms + 60_000, "o": 2, "h": 3, "l": 1, "c": 2, "v": 1},
    ]
    service.answers = [Answer({"status": "DELAYED", "resultsCount": 2, "results": rows})]
    bars = client.aggregates(
        "SPY", 1, "minute", start_ms * 1_000_000 - 1, (start_ms + 60_000) * 1_000_000 + 1
    )
    assert bars == [
        StockBar("SPY", start_ms * 1_000_000, 1.0, 4.0, 1.0, 2.5, 10.5, 2.25),
        StockBar("SPY", (start_ms + 60_000) * 1_000_000, 2.0, 3.0, 1.0, 2.0, 1.0, 2.0),
    ]
    asked = service.asked[0]
    assert asked.path == f"/v2/aggs/ticker/SPY/range/1/minute/{start_ms}/{start_ms + 60_000}"
    assert asked.query == {"adjusted": "false", "sort": "asc", "limit": "50000"}


def test_a_range_without_trades_has_no_bars(service: Service, client: RestClient) -> None:
    service.answers = [Answer({"status": "OK", "resultsCount": 0})]
    assert client.aggregates("SPY", 1, "minute", 0, 1) == []


def test_the_market_status_carries_the_servers_clock(service: Service, client: RestClient) -> None:
    service.answers = [
        Answer(
            {
                "afterHours": True,
                "earlyHours": False,
                "market": "extended-hours",
                "serverTime": "2020-11-10T17:37:37-05:00",
            }
        )
    ]
    status = client.market_status()
    assert status.market == "extended-hours"
    assert status.server_ns == 1_605_047_857_000_000_000
    assert (status.early_hours, status.after_hours) == (False, True)


def test_a_clock_that_cannot_be_read_raises(service: Service, client: RestClient) -> None:
    service.answers = [Answer({"market": "open", "serverTime": "noon"})]
    with pytest.raises(RestError, match="noon"):
        client.market_status()


DATE = "Tue, 10 Nov 2020 22:37:37 GMT"
DATE_NS = 1_605_047_857_000_000_000
TOLD = {"market": "open", "serverTime": "2020-11-10T17:37:40-05:00"}


def test_the_clock_is_that_of_the_market_status(service: Service, client: RestClient) -> None:
    service.answers = [Answer(TOLD, headers={"Date": DATE})]
    assert client.clock_ns() == DATE_NS + 3_000_000_000


@pytest.mark.parametrize(
    "answer",
    [
        Answer({"status": "ERROR", "error": "not in your plan"}, status=403),
        Answer(b"<html>busy</html>", status=503),
        Answer(b"[]"),
        Answer({"market": "open", "serverTime": "noon"}),
        Answer({"market": "open", "serverTime": "2020-11-10T17:37:37"}),
        Answer({"market": "open"}),
    ],
)
def test_where_the_market_status_tells_no_time_the_clock_is_the_replys_date(
    service: Service, client: RestClient, answer: Answer
) -> None:
    service.answers = [answer._replace(headers={"Date": DATE})]
    assert client.clock_ns() == DATE_NS
    assert len(service.asked) == 1, "what is tried again is of another instant"


@pytest.mark.parametrize("age", ["0", "37", "odd"])
@pytest.mark.parametrize("status", [200, 503])
def test_what_a_cache_kept_tells_no_time(
    service: Service, client: RestClient, age: str, status: int
) -> None:
    service.answers = [Answer(TOLD, status, {"Date": DATE, "Age": age})]
    with pytest.raises(RestError, match="a cache answered"):
        client.clock_ns()


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 10 Nov 2020"])
def test_a_reply_that_tells_no_time_at_all_is_an_error(
    service: Service, client: RestClient, date: str
) -> None:
    service.answers = [Answer({"error": "busy"}, 503, {"Date": date})]
    with pytest.raises(RestError, match="neither does its Date"):
        client.clock_ns()


def test_a_clock_behind_a_broken_connection_is_not_known(
    service: Service, client: RestClient
) -> None:
    service.answers = [Answer(TOLD, headers={"Date": DATE}, cut=True)]
    with pytest.raises(RestError, match="/v1/marketstatus/now"):
        client.clock_ns()


@pytest.mark.parametrize("status", [200, 400, 401, 403, 429])
def test_the_key_shows_nowhere(
    service: Service, client: RestClient, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    told = Answer({"status": "ERROR", "error": f"not with {KEY}"}, status)
    service.answers = [told]
    with pytest.raises(DataError) as caught:
        client.option_contracts("SPY")
    assert service.asked[0].authorization == f"Bearer {KEY}"
    shown = [str(caught.value), repr(caught.value), repr(client), caplog.text]
    shown += [str(record.__dict__) for record in caplog.records]
    assert not [text for text in shown if KEY in text]
    assert "***" in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1", "https://127.0.0.1/?apiKey=1"])
def test_an_unusable_url_is_refused(url: str) -> None:
    with pytest.raises(DataError):
        RestClient(url, KEY)


@pytest.mark.parametrize("key", ["", "line\nbreak", "l\u00ebtters"])
def test_an_unusable_key_is_refused(key: str) -> None:
    with pytest.raises(AuthenticationFailed):
        RestClient("https://127.0.0.1", key)


def test_requests_begin_no_faster_than_their_pace() -> None:
    now_s, begun_s = 5.0, []

    def pause(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    pace = RequestPace(4.0, clock=lambda: now_s, pause=pause)
    for _ in range(5):
        pace.wait()
        begun_s.append(now_s)
    now_s += 10.0
    pace.wait()
    assert begun_s == [5.0, 5.25, 5.5, 5.75, 6.0]
    assert now_s == 16.0


def test_the_key_of_the_environment_is_not_used(service: Service) -> None:
    program = (
        "import sys; from trading.data.massive.client.rest import RestClient\n"
        "with RestClient(sys.argv[1], sys.argv[2]) as rest: rest.option_contracts('SPY')"
    )
    service.pages(CONTRACTS, [])
    subprocess.run(
        [sys.executable, "-c", program, service.url, KEY],
        env=os.environ | {"MASSIVE_API_KEY": "another-key", "PYTHONPATH": str(ROOT)},
        timeout=WAIT_S,
        check=True,
    )
    assert service.asked[0].authorization == f"Bearer {KEY}"


GOOD = row("O:SPY251219P00600000")


@pytest.mark.parametrize(
    "odd",
    [
        row("O:SPY251219C00600000", shares_per_contract="many"),
        row(None),  # type: ignore[arg-type]
        {"underlying_ticker": "SPY"},
        [],
        "O:SPY251219C00600000",
        None,
        row("O:SPY251219C00600000", underlying_ticker=7),
        row("O:SPY251219C-0600000"),
        row("O:1SPY251219C00600000"),
        row("SPY251219C00600000"),
        row("O:spy251219C00600000"),
        row("O:SPY251219C00000000"),
    ],
    ids=str,
)
def test_a_row_of_a_listing_that_cannot_be_read_costs_that_row(odd: object) -> None:
    with running_service() as service, RestClient(service.url, "key") as rest:
        service.pages(CONTRACTS, [odd, GOOD], [odd, GOOD | {"ticker": "O:SPY251219P00610000"}])
        listed = rest.option_contracts("SPY")
    assert [each.contract.symbol for each in listed] == [
        "O:SPY251219P00600000",
        "O:SPY251219P00610000",
    ]


def test_a_listing_without_a_row_that_can_be_read_is_an_error() -> None:
    with running_service() as service, RestClient(service.url, "key") as rest:
        service.pages(CONTRACTS, [{"name": "x"}, None])
        with pytest.raises(RestError, match="none of 2 rows is what the vendor documents"):
            rest.option_contracts("SPY")


def test_a_contract_that_is_listed_twice_counts_once() -> None:
    with running_service() as service, RestClient(service.url, "key") as rest:
        service.pages(CONTRACTS, [GOOD, GOOD], [GOOD])
        assert len(rest.option_contracts("SPY")) == 1


@pytest.mark.parametrize("told", ["BRK.B", "BRK/B", None])
def test_the_underlying_of_options_on_a_class_of_a_stock(told: str | None) -> None:
    with running_service() as service, RestClient(service.url, "key") as rest:
        service.pages(CONTRACTS, [row("O:BRKB251219C00500000", underlying_ticker=told)])
        (listed,) = rest.option_contracts("BRK.B")
    assert listed.underlying == "BRK.B" and listed.is_standard


def test_what_a_contract_delivers_is_not_guessed() -> None:
    with running_service() as service, RestClient(service.url, "key") as rest:
        service.pages(CONTRACTS, [GOOD | {"shares_per_contract": None}])
        assert not rest.option_contracts("SPY")[0].is_standard


def test_dividends_in_another_currency_are_left_out() -> None:
    paid = {"ticker": "SPY", "ex_dividend_date": "2026-01-08", "cash_amount": 1.5}
    with running_service() as service, RestClient(service.url, "key") as rest:
        service.pages("/stocks/v1/dividends", [paid | {"currency": "CAD"}, paid, paid])
        (dividend,) = rest.dividends("SPY", date(2026, 1, 1), date(2026, 2, 1))
    assert dividend.amount == 1.5


def test_a_bar_that_is_told_again_replaces_the_one_before() -> None:
    bar = {"t": 1_767_625_200_000, "o": 1, "h": 2, "l": 0.5, "c": 1.5}
    with running_service() as service, RestClient(service.url, "key") as rest:
        service.pages("/v2/aggs", [bar, bar | {"c": 1.75}, bar | {"c": None}])
        (told,) = rest.aggregates("I:SPX", 1, "minute", 0, 10**18)
    assert told.close == 1.75 and told.volume == 0.0


def test_the_newest_treasury_yields_up_to_a_day() -> None:
    rows = [
        {"date": "2026-01-02", "yield_1_month": 4.2, "yield_3_month": 4.1},
        {"date": "2026-01-05", "yield_1_month": None},
        {"date": "2026-01-06", "yield_1_month": 9.9},
        {"date": "no date", "yield_1_month": 1.0},
        {"date": "2025-12-31", "yield_1_month": 4.0},
    ]
    with running_service() as service, RestClient(service.url, "key") as rest:
        service.pages("/fed/v1/treasury-yields", rows)
        curve = rest.treasury_yields(date(2026, 1, 5))
        assert curve is not None
        assert curve.day == date(2026, 1, 2) and curve.percent == {1 / 12: 4.2, 0.25: 4.1}
        (asked,) = service.asked
        assert asked.query["date.lte"] == "2026-01-05"
        service.answers[:] = service.paged("/fed/v1/treasury-yields", [])
        assert rest.treasury_yields(date(2026, 1, 5)) is None


DIVIDENDS = "/stocks/v1/dividends"
PAID = {"ticker": "SPY", "ex_dividend_date": "2026-01-08", "cash_amount": 1.5}


def dividends_of(*bodies: bytes | list[Any]) -> list[tuple[str, float]]:
    with running_service() as service, RestClient(service.url, "key") as rest:
        for body in bodies:
            if isinstance(body, bytes):
                service.answers.append(Answer(body))
            else:
                service.pages(DIVIDENDS, body)
        told = rest.dividends("SPY", date(2026, 1, 1), date(2026, 2, 1))
    return [(each.ex_date.isoformat(), each.amount) for each in told]


@pytest.mark.parametrize(
    ("kinds", "count"),
    [
        (("recurring", "supplemental"), 2),
        (("recurring", "special"), 2),
        (("recurring", "recurring"), 1),
        ((None, "recurring"), 1),
    ],
)
def test_dividends_of_one_amount_are_one_unless_their_kinds_differ(
    kinds: tuple[str | None, str | None], count: int
) -> None:
    rows = [PAID | {"distribution_type": kind} for kind in kinds]
    assert dividends_of(rows) == [("2026-01-08", 1.5)] * count


@pytest.mark.parametrize(
    "odd",
    [
        {"cash_amount": "inf"},
        {"cash_amount": "NaN"},
        {"cash_amount": 1e308},
        {"cash_amount": -1},
        {"ticker": None},
    ],
)
def test_a_dividend_that_is_none_costs_itself(odd: dict[str, Any]) -> None:
    assert dividends_of([PAID | odd, PAID | {"currency": "usd"}]) == [("2026-01-08", 1.5)]


@pytest.mark.parametrize(
    "odd",
    [
        b'{"ticker":"SPY","ex_dividend_date":"2026-01-20","cash_amount":NaN}',
        b'{"ticker":"SPY","ex_dividend_date":"2026-01-20","cash_amount":-Infinity}',
        b'{"ticker":"\\ud800","ex_dividend_date":"2026-01-20","cash_amount":1}',
        b'{"ticker":"S\xffY","ex_dividend_date":"2026-01-20","cash_amount":1}',
    ],
)
def test_what_no_json_has_costs_its_row(odd: bytes) -> None:
    body = b'\xef\xbb\xbf{"status":"OK","results":[%s,%s]}' % (odd, msgspec.json.encode(PAID))
    assert dividends_of(body) == [("2026-01-08", 1.5)]


def test_bars_come_by_their_time_and_those_that_are_none_are_left_out() -> None:
    bar = {"t": 1_767_625_260_000, "o": 1, "h": 2, "l": 0.5, "c": 1.5}
    odd = [bar | {"t": t, "c": c} for t, c in ((5, 0), (6, "inf"), (-5, 1), (10**30, 1))]
    rows = [*odd, bar, bar | {"t": 1_767_625_200_000, "v": None, "vw": "?"}]
    with running_service() as service, RestClient(service.url, "key") as rest:
        service.pages("/v2/aggs", rows)
        told = rest.aggregates("SPY", 1, "minute", 0, 2 * 10**18)
    assert [each.start_ns // 10**9 for each in told] == [1_767_625_200, 1_767_625_260]
    assert told[0].volume == 0.0 and told[0].vwap == pytest.approx(4.0 / 3.0)


def snapshot_of(**fields: Any) -> Any:
    good = {"details": {"ticker": CALLS[0]}, "last_quote": {"bid": 1, "ask": 2, "last_updated": 5}}
    with running_service() as service, RestClient(service.url, "key") as rest:
        service.pages(SNAPSHOT, [good | fields])
        (told,) = rest.option_chain_snapshot("SPY")
    return told


@pytest.mark.parametrize(
    "odd",
    [
        {"greeks": "none"},
        {"greeks": {"delta": "x", "gamma": []}},
        {"implied_volatility": "NaN"},
        {"open_interest": {}},
        {"underlying_asset": [1]},
        {"last_quote": {"bid": 1, "ask": 2, "bid_size": "x", "last_updated": 5}},
    ],
    ids=str,
)
def test_a_figure_beside_a_quote_costs_only_itself(odd: dict[str, Any]) -> None:
    told = snapshot_of(**odd)
    assert (told.bid, told.ask, told.quote_ns) == (1.0, 2.0, 5_000_000_000)
    assert math.isnan(told.delta) and math.isnan(told.iv) and told.bid_size == 0.0


@pytest.mark.parametrize(
    "odd", [{"bid": -1}, {"bid": "NaN"}, {"ask": "inf"}, {"last_updated": 1e300}], ids=str
)
def test_a_snapshot_of_what_is_no_quote_has_none(odd: dict[str, Any]) -> None:
    told = snapshot_of(last_quote={"bid": 1, "ask": 2, "last_updated": 5} | odd)
    assert told.quote_ns == 0


@pytest.mark.parametrize(
    ("reply", "price"),
    [
        ({"from": "2026-01-09", "symbol": "SPY", "close": 100.6}, 100.6),
        ({"close": "100.6"}, 100.6),
        ({"from": "2026-01-08", "symbol": "SPY", "close": 100.6}, None),
        ({"from": "2026-01-09T00:00:00Z", "symbol": "SPY", "close": 100.6}, 100.6),
        ({"from": "2026-01-09", "symbol": "QQQ", "close": 100.6}, None),
        ({"from": "2026-01-09", "symbol": "SPYG", "close": 100.6}, None),
        ({"from": "2026-01-09", "close": 0}, None),
        ({"from": "2026-01-09", "close": "NaN"}, None),
    ],
)
def test_an_official_close_is_that_of_the_day_and_symbol_asked_for(
    reply: dict[str, Any], price: float | None
) -> None:
    with running_service() as service, RestClient(service.url, "key") as rest:
        body = msgspec.json.encode({"status": "OK"} | reply)
        service.answers.append(Answer(body))
        close = rest.official_close("SPY", date(2026, 1, 9))
    assert (close and close.price) == price


def test_an_event_of_a_ticker_that_cannot_be_read_costs_itself() -> None:
    def change(day: Any, ticker: Any) -> dict[str, Any]:
        return {"type": "ticker_change", "date": day, "ticker_change": {"ticker": ticker}}

    odd = [change(None, "X"), change("2013-01-01", None), {"date": "2014-01-01"}, None, 5]
    events = [change("2022-06-09", "META"), *odd, change("2012-05-18", "FB")]
    with running_service() as service, RestClient(service.url, "key") as rest:
        body = msgspec.json.encode({"status": "OK", "results": {"events": events}})
        service.answers.append(Answer(body))
        (renamed,) = rest.ticker_events("META")
    assert (renamed.underlying, renamed.ex_date, renamed.new_symbol) == (
        "FB",
        date(2022, 6, 9),
        "META",
    )


def test_yields_that_are_none_cost_their_day() -> None:
    rows = [
        {"date": "2026-01-05", "yield_1_month": "NaN"},
        {"date": "2026-01-02", "yield_1_month": 4.2},
    ]
    with running_service() as service, RestClient(service.url, "key") as rest:
        service.pages("/fed/v1/treasury-yields", rows)
        curve = rest.treasury_yields(date(2026, 1, 6))
    assert curve is not None and curve.day == date(2026, 1, 2)


@pytest.mark.parametrize(
    "odd",
    [
        {"bid_price": -1},
        {"bid_price": "x"},
        {"ask_price": "inf"},
        {"sip_timestamp": None},
        {"sip_timestamp": 10**30},
        {"bid_size": -5},
        {"sequence_number": {}},
    ],
    ids=str,
)
def test_a_quote_of_the_past_that_is_none_costs_itself(odd: dict[str, Any]) -> None:
    good = {"sip_timestamp": 5, "sequence_number": 1, "bid_price": 1, "ask_price": None}
    with running_service() as service, RestClient(service.url, "key") as rest:
        service.pages("/v3/quotes", [good | odd, good], [good | {"sip_timestamp": "7"}])
        pages = list(rest.option_quotes(CALLS[0], 0, 10))
    assert [[(each.ts_ns, each.bid, each.ask) for each in page] for page in pages] == [
        [(5, 1.0, 0.0)],
        [(7, 1.0, 0.0)],
    ]


def test_a_page_of_quotes_of_which_none_is_one_is_an_error() -> None:
    with running_service() as service, RestClient(service.url, "key") as rest:
        service.pages("/v3/quotes", [{"price": 1}, {"price": 2}])
        with pytest.raises(RestError, match="none of 2 rows is what the vendor documents"):
            list(rest.option_quotes(CALLS[0], 0, 10))


def test_a_refusal_that_is_no_utf8_is_a_refusal() -> None:
    with running_service() as service, RestClient(service.url, "key", attempts=1) as rest:
        service.answers.append(Answer(b'{"status":"ERROR","error":"\xff"}', status=404))
        with pytest.raises(RestError, match="HTTP 404"):
            rest.option_contracts("SPY")


def test_flags_beside_the_servers_clock_may_be_anything() -> None:
    told = {"market": "open", "serverTime": "2026-01-05T10:00:00-05:00", "earlyHours": None}
    with running_service() as service, RestClient(service.url, "key") as rest:
        service.answers.append(Answer(told | {"afterHours": "no"}))
        status = rest.market_status()
    assert status.server_ns == 1_767_625_200 * 10**9
    assert not status.early_hours and not status.after_hours
