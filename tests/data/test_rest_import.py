"""Chains and past quotes by REST, from a market server and from one that fails as told."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.command import run_download
from tests.data.rest_service import Answer, Service, running_service
from tests.waits import WAIT_S
from trading.data.catalog import REST, Catalog, Kind, Partition
from trading.data.flatfile_import import flat_file_key, import_flat_file
from trading.data.flatfiles import load_quotes
from trading.data.massive.client.rest import RestClient
from trading.data.massive.server.server import MarketServer
from trading.data.massive.server.source import EventSource, ReplaySource
from trading.data.rest_import import import_chain_snapshot, import_quotes
from trading.errors import AuthenticationFailed, DataError, NotEntitled, RestError
from trading.market.contracts import parse_symbol

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "flatfiles"
GOOG_DAY = date(2015, 12, 24)
DAY = date(2026, 1, 5)
KEY = "k3y-that-must-stay-secret"
QUOTES = Kind.OPTION_QUOTES
CHAIN = "/v3/snapshot/options/SPY"
CALLS = [parse_symbol(f"O:SPY260109C00{strike}000") for strike in (600, 601, 602)]
NEXT_MORNING_NS = int(datetime(2026, 1, 6, 6, 0, tzinfo=UTC).timestamp()) * 10**9
OPEN_NS = int(datetime(2026, 1, 5, 14, 30, tzinfo=UTC).timestamp()) * 10**9


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service() as server:
        yield server


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "catalog")


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def rest(service: Service, pauses: list[float]) -> Iterator[RestClient]:
    with RestClient(service.url, KEY, pause=pauses.append) as client:
        yield client


# Chains


SNAPSHOTS = [
    {
        "details": {"ticker": "O:SPY260109C00600000"},
        "last_quote": {"bid": 1.2, "ask": 1.25, "last_updated": 1_767_623_400_000_000_000},
        "greeks": {"delta": 0.5},
        "implied_volatility": 0.2,
        "open_interest": 7,
    },
    {"details": {"ticker": "O:SPY260109P00600000"}},
]


def test_each_snapshot_of_a_chain_is_added_to_its_new_york_day(
    service: Service, rest: RestClient, catalog: Catalog
) -> None:
    kind = Kind.CHAIN_SNAPSHOTS
    evening_ns = int(datetime(2026, 1, 6, 2, 0, tzinfo=UTC).timestamp()) * 10**9
    for _ in range(2):
        service.pages(CHAIN, SNAPSHOTS[:1], SNAPSHOTS[1:])
    service.pages("/v3/snapshot/options/QQQ", [])
    import_chain_snapshot(rest, catalog, "SPY", evening_ns)
    import_chain_snapshot(rest, catalog, "SPY", evening_ns + 1)
    with pytest.raises(DataError, match="QQQ is empty"):
        import_chain_snapshot(rest, catalog, "QQQ", evening_ns)
    assert catalog.partitions() == [Partition(kind, DAY, "SPY")]
    chain = catalog.read(kind, "SPY", DAY)
    assert chain["ts_ns"].tolist() == [evening_ns] * 2 + [evening_ns + 1] * 2
    assert chain.contract.tolist() == [0, 1, 0, 1]
    assert chain["bid"].tolist() == [1.2, 0.0, 1.2, 0.0]
    assert chain["quote_ns"].tolist()[:2] == [1_767_623_400_000_000_000, 0]
    assert np.isnan(chain["delta"]).tolist() == [False, True, False, True]


DAMAGED = {
    "cut connection": Answer({"status": "OK", "results": SNAPSHOTS}, cut=True),
    "corrupt JSON": Answer(b'{"status":"OK","results":[{"details":{"ticker":"O:SPY2601'),
    "no rows": Answer({"status": "OK"}),
    "an error in the body": Answer({"status": "ERROR", "error": "cursor expired"}),
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_chain_that_breaks_off_is_not_taken_for_a_whole_one(
    service: Service, rest: RestClient, catalog: Catalog, damaged: Answer
) -> None:
    service.pages(CHAIN, SNAPSHOTS[:1], SNAPSHOTS[1:])
    service.answers[1:] = [damaged]
    with pytest.raises(RestError, match="SPY, page 2"):
        import_chain_snapshot(rest, catalog, "SPY", OPEN_NS)
    assert catalog.partitions() == []


def test_the_command_takes_snapshots_of_chains(service: Service, catalog: Catalog) -> None:
    service.pages(CHAIN, SNAPSHOTS)
    result = run_download(
        *("--chains", "--symbols", "SPY", "--catalog", str(catalog.folder)),
        *("--set", f"data.massive.rest_url={service.url}"),
        MASSIVE_API_KEY=KEY,
    )
    assert result.returncode == 0, result.stderr
    (partition,) = catalog.partitions(Kind.CHAIN_SNAPSHOTS)
    assert len(catalog.read(partition.kind, "SPY", partition.day)) == 2
    assert {asked.authorization for asked in service.asked} == {f"Bearer {KEY}"}


# Quotes


def quote(number: int, **more: Any) -> dict[str, Any]:
    row = {
        "sip_timestamp": OPEN_NS + number,
        "sequence_number": 100 + number,
        "bid_price": 1.0 + number / 100,
        "ask_price": 1.05 + number / 100,
        "bid_size": 3.0,
        "ask_size": 4.0,
        "bid_exchange": 302,
        "ask_exchange": 303,
    }
    return row | more


def path_of(number: int) -> str:
    return f"/v3/quotes/{CALLS[number].symbol}"


def test_quotes_are_asked_for_oldest_first_within_the_new_york_day(
    service: Service, rest: RestClient, catalog: Catalog
) -> None:
    service.pages(path_of(0), [quote(1), quote(2)], [], [quote(2, sequence_number=200)])
    report = import_quotes(rest, catalog, CALLS[:1], DAY, NEXT_MORNING_NS)
    assert (report.contracts, report.fetched, report.rows, report.silent) == (1, 1, 3, 0)
    midnight_ns = int(datetime(2026, 1, 5, 5, 0, tzinfo=UTC).timestamp()) * 10**9
    assert service.asked[0].path == path_of(0)
    assert service.asked[0].query == {
        "timestamp.gte": str(midnight_ns),
        "timestamp.lt": str(midnight_ns + 24 * 3600 * 10**9),
        "order": "asc",
        "sort": "timestamp",
        "limit": "50000",
    }
    rows = catalog.read(QUOTES, "SPY", DAY, source=REST)
    assert rows.symbols == [CALLS[0].symbol]
    assert rows["sequence"].tolist() == [101, 102, 200]
    assert rows["ts_ns"].tolist() == [OPEN_NS + 1, OPEN_NS + 2, OPEN_NS + 2]
    assert rows["bid"].tolist() == [1.01, 1.02, 1.02]
    assert rows["ask_exchange"].tolist() == [303] * 3


def test_a_side_that_is_missing_is_absent(
    service: Service, rest: RestClient, catalog: Catalog
) -> None:
    bare = {"sip_timestamp": OPEN_NS, "sequence_number": 1, "ask_price": 0.05, "ask_size": 9}
    service.pages(path_of(0), [bare])
    import_quotes(rest, catalog, CALLS[:1], DAY, NEXT_MORNING_NS)
    rows = catalog.read(QUOTES, "SPY", DAY)
    assert (rows["bid"][0], rows["bid_size"][0], rows["ask"][0]) == (0.0, 0, 0.05)


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_contract_is_there_with_all_its_quotes_or_not_at_all_and_fetched_once(
    service: Service, rest: RestClient, catalog: Catalog, damaged: Answer
) -> None:
    service.answers_of = {
        path_of(0): service.paged(path_of(0), [quote(1)]),
        path_of(1): [service.paged(path_of(1), [quote(2)], [quote(3)])[0], damaged],
    }
    with pytest.raises(RestError, match="601000, page 2"):
        import_quotes(rest, catalog, CALLS[:2], DAY, NEXT_MORNING_NS)
    fetched = catalog.sources(QUOTES, "SPY", DAY)
    assert "rest.SPY260109C00601000" not in fetched
    service.answers_of[path_of(1)] = service.paged(path_of(1), [quote(2)], [quote(3)])
    service.asked.clear()
    progress: list[tuple[int, int]] = []
    report = import_quotes(
        rest, catalog, CALLS[:2], DAY, NEXT_MORNING_NS, lambda *each: progress.append(each)
    )
    assert report.fetched == 2 - len(fetched)
    assert progress[-1] == (2, 2)
    assert catalog.read(QUOTES, "SPY", DAY)["sequence"].tolist() == [101, 102, 103]
    assert [asked.path for asked in service.asked].count(path_of(1)) == 2
    service.asked.clear()
    again = import_quotes(rest, catalog, CALLS[:2], DAY, NEXT_MORNING_NS)
    assert (again.contracts, again.fetched) == (2, 0)
    assert service.asked == []


def test_a_cut_connection_and_throttling_are_tried_again(
    service: Service, rest: RestClient, catalog: Catalog, pauses: list[float]
) -> None:
    first, second = service.paged(path_of(0), [quote(1)], [quote(2)])
    service.answers = [
        Answer(first.body, cut=True),
        first,
        Answer({"status": "ERROR"}, 429, {"Retry-After": "7"}),
        Answer({"status": "ERROR", "error": "try again"}, 503),
        second,
    ]
    import_quotes(rest, catalog, CALLS[:1], DAY, NEXT_MORNING_NS)
    assert catalog.read(QUOTES, "SPY", DAY)["sequence"].tolist() == [101, 102]
    assert pauses == [0.5, 7.0, 1.0]


@pytest.mark.parametrize(
    ("status", "error"), [(401, AuthenticationFailed), (403, NotEntitled), (429, RestError)]
)
def test_a_refusal_is_told_by_its_own_error_and_without_the_key(
    service: Service,
    rest: RestClient,
    catalog: Catalog,
    status: int,
    error: type[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    service.answers = [Answer({"status": "ERROR", "error": f"no {KEY}"}, status)]
    with pytest.raises(error) as caught:
        import_quotes(rest, catalog, CALLS, DAY, NEXT_MORNING_NS)
    assert "***" in str(caught.value)
    assert KEY not in str(caught.value) + caplog.text
    assert catalog.partitions() == []


@pytest.mark.parametrize(
    "rows",
    [
        [quote(2), quote(1)],
        [quote(0, sip_timestamp=NEXT_MORNING_NS)],
        [quote(0, sip_timestamp=OPEN_NS - 24 * 3600 * 10**9)],
    ],
)
def test_quotes_out_of_order_or_of_another_day_are_refused(
    service: Service, rest: RestClient, catalog: Catalog, rows: list[dict[str, Any]]
) -> None:
    service.pages(path_of(0), rows)
    with pytest.raises(RestError, match="order"):
        import_quotes(rest, catalog, CALLS[:1], DAY, NEXT_MORNING_NS)
    assert catalog.partitions() == []


def test_a_day_that_is_not_over_is_refused(
    service: Service, rest: RestClient, catalog: Catalog
) -> None:
    evening_ns = int(datetime(2026, 1, 6, 4, 59, tzinfo=UTC).timestamp()) * 10**9
    with pytest.raises(DataError, match="not over"):
        import_quotes(rest, catalog, CALLS, DAY, evening_ns)
    assert service.asked == []


def test_silent_contracts_are_done_and_expired_ones_passed_over(
    service: Service, rest: RestClient, catalog: Catalog
) -> None:
    service.answers = [Answer({"status": "OK"})]
    expired = parse_symbol("O:SPY260102C00600000")
    report = import_quotes(rest, catalog, [*CALLS, expired], DAY, NEXT_MORNING_NS)
    assert (report.contracts, report.fetched, report.silent) == (3, 3, 3)
    assert import_quotes(rest, catalog, CALLS, DAY, NEXT_MORNING_NS).fetched == 0
    assert len(catalog.read(QUOTES, "SPY", DAY)) == 0


# A real day, by the vendor's protocol


@contextmanager
def played(source: EventSource) -> Iterator[str]:
    """The REST address of a market server that has streamed its source to the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def begin() -> tuple[MarketServer, int]:
        server = MarketServer(source, [KEY], speed=0.0)
        port = await server.start()
        await server.begin()
        await server.wait_finished()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(begin(), loop).result(WAIT_S)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(WAIT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_S)
        loop.close()


def test_quotes_of_a_real_day_are_those_of_its_flat_file(catalog: Catalog, tmp_path: Path) -> None:
    file = SHARED / flat_file_key(QUOTES, GOOG_DAY)
    if not file.is_file():
        pytest.skip(f"real session {GOOG_DAY} of GOOG is absent: no file {file}")
    table = load_quotes(SHARED, GOOG_DAY, ["GOOG"])
    chosen = table.symbols[::50]
    with played(ReplaySource(SHARED, GOOG_DAY, ["GOOG"])) as url:
        named = tmp_path / "contracts.txt"
        named.write_text("\n".join(chosen))
        result = run_download(
            *("--date", str(GOOG_DAY), "--contracts", str(named), "--no-files"),
            *("--catalog", str(catalog.folder), "--set", f"data.massive.rest_url={url}"),
            MASSIVE_API_KEY=KEY,
        )
    assert result.returncode == 0, result.stderr
    assert KEY not in result.stdout + result.stderr
    rows = np.flatnonzero(np.isin(table.contract, np.arange(0, len(table.symbols), 50)))
    assert f"{len(rows):,} quotes of {len(chosen)} contracts" in result.stdout
    fetched = catalog.read(QUOTES, "GOOG", GOOG_DAY, source=REST)
    assert fetched.symbols == chosen
    assert [fetched.symbols[i] for i in fetched.contract] == [
        table.symbols[i] for i in table.contract[rows]
    ]
    for name in ("ts_ns", "sequence", "bid", "ask", "bid_size", "ask_size"):
        np.testing.assert_array_equal(fetched[name], getattr(table, name)[rows], name)
    import_flat_file(catalog, file, QUOTES, GOOG_DAY)
    assert len(catalog.read(QUOTES, "GOOG", GOOG_DAY)) == len(table)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--date", "2026-01-05", "--no-files"], "nothing to fetch"),
        (["--date", "2026-01-05", "--no-files", "--quotes"], "contradicts --quotes"),
        (["--date", "2026-01-05", "--contracts", "none.txt"], "MASSIVE_API_KEY is not set"),
    ],
)
def test_the_command_says_what_it_lacks(arguments: list[str], reason: str) -> None:
    result = run_download(*arguments)
    assert result.returncode == 2
    assert reason in result.stderr


def test_a_file_of_contracts_that_is_not_there_is_named() -> None:
    result = run_download(
        *("--date", "2026-01-05", "--no-files", "--contracts", "none.txt"), MASSIVE_API_KEY=KEY
    )
    assert result.returncode == 1
    assert "none.txt cannot be read" in result.stderr
