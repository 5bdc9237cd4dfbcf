"""Corporate actions and official closes over HTTP: by the vendor's client, for a directory."""

import time
from collections.abc import Callable
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.data.rest_service import Answer, running_service
from tests.live.market import DAY, KEY, FirstMinutes, serving
from tests.usual import risk_limits, stream_settings
from trading.data.corporate_action_file import read_corporate_actions
from trading.data.massive.client.rest import RestClient
from trading.data.massive.client.stream import StreamClient
from trading.data.recorded_closes import RecordedCloses
from trading.data.recording import Recorder
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.live_env import LiveEnv
from trading.errors import DataError
from trading.execution.broker import PaperBroker
from trading.execution.events import Settled
from trading.execution.journal import Journal
from trading.execution.orders import Fill, Intent, Leg, Order, QuoteView
from trading.live.bar_clock import Bar
from trading.live.close_finder import CloseFinder
from trading.live.markets import MarketDirectory
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, SECOND_NS, ExchangeCalendar, Session
from trading.market.closes import CloseSource, OfficialClose
from trading.market.contracts import parse_symbol
from trading.market.corporate_actions import (
    CorporateAction,
    Delisting,
    Merger,
    Rename,
    SpinOff,
    Split,
)
from trading.market.dividends import Dividend

CALENDAR = ExchangeCalendar()
FRI, NEXT_MON = date(2026, 1, 9), date(2026, 1, 12)
CALL = "O:AAA260109C00100000"
ACTIONS = [Split("AAA", date(2026, 1, 7), 3, 2, "E1"), Rename("OLD", date(2026, 1, 5), "AAA")]


def session(day: date) -> Session:
    found = CALENDAR.session_on(day)
    assert found is not None
    return found


def test_our_server_tells_the_vendors_client_splits_renames_and_special_dividends() -> None:
    special = Dividend("AAA", date(2026, 1, 7), 5.0, special=True)
    regular = Dividend("AAA", date(2026, 1, 7), 0.5)
    year = (date(2026, 1, 1), date(2026, 12, 31))
    with (
        serving(FirstMinutes(1), actions=ACTIONS, dividends=[regular, special]) as (endpoint, _),
        RestClient(endpoint.rest_url, KEY) as rest,
    ):
        assert rest.splits("AAA", *year) == [ACTIONS[0]]
        assert rest.splits("BBB", *year) == []
        assert rest.splits("AAA", date(2026, 1, 8), year[1]) == []
        assert rest.ticker_events("AAA") == [ACTIONS[1]]
        assert rest.ticker_events("BBB") == []
        assert set(rest.dividends("AAA", *year)) == {regular, special}


def test_a_company_that_gave_its_symbol_up_is_found_by_its_identifier() -> None:
    day, later = date(2026, 1, 5), date(2026, 6, 1)
    told: list[CorporateAction] = [
        Rename("AAA", day, "NEW"),
        Rename("GONE", later, "AAA"),
        Delisting("BBB", day),
    ]
    with (
        serving(FirstMinutes(1), actions=told) as (endpoint, _),
        RestClient(endpoint.rest_url, KEY) as rest,
    ):
        then = rest.ticker_details("AAA", date(2026, 1, 2))
        assert then is not None and then.delisted is None
        assert rest.ticker_details("AAA", day) is None
        assert rest.ticker_details("NEW", day) == then
        assert rest.ticker_events("AAA") == []
        assert rest.ticker_events(then.figi) == rest.ticker_events("NEW") == [told[0]]
        gone = rest.ticker_details("BBB", day)
        assert gone is not None and gone.delisted == day
        before = rest.ticker_details("BBB", date(2026, 1, 2))
        assert before is not None and before.delisted is None


def test_our_server_has_no_close_before_the_session_is_over() -> None:
    with serving(FirstMinutes(1)) as (endpoint, _), RestClient(endpoint.rest_url, KEY) as rest:
        assert rest.official_close("AAA", DAY) is None


OPEN_CLOSE = f"/v1/open-close/AAA/{FRI}"
MINUTES = (
    f"/v2/aggs/ticker/AAA/range/1/minute/{session(FRI).open_ns // 10**6}"
    f"/{(session(FRI).close_ns + MINUTE_NS) // 10**6}"
)


def bar(minutes_after_close: int, price: float) -> dict[str, Any]:
    start_ms = (session(FRI).close_ns + minutes_after_close * MINUTE_NS) // 10**6
    return {"t": start_ms, "o": price, "h": price + 1, "l": price - 1, "c": price + 0.5, "v": 1.0}


@pytest.mark.parametrize(
    ("official", "bars", "later", "expected"),
    [
        (Answer({"status": "OK", "close": 100.6}), [], False, OfficialClose(100.6)),
        (Answer({"status": "NOT_FOUND"}, 404), [bar(0, 99.0)], False, None),
        (
            Answer({"status": "NOT_FOUND"}, 404),
            [bar(-1, 98.0), bar(0, 100.6)],
            True,
            OfficialClose(100.6, CloseSource.MINUTE_BAR),
        ),
        (
            Answer({"status": "NOT_AUTHORIZED", "message": "upgrade"}, 403),
            [bar(-1, 98.0)],
            False,
            OfficialClose(98.5, CloseSource.MINUTE_BAR),
        ),
        (Answer({"status": "NOT_FOUND"}, 404), [], True, None),
        (Answer({"status": "OK", "close": 0.0}), [], False, None),
        (Answer({"status": "ERROR"}, 400), [bar(0, 100.0)], True, None),
    ],
    ids=["official", "waits", "auction", "not entitled", "nothing", "zero", "refused"],
)
def test_the_official_close_then_the_auctions_bar_then_the_last_one(
    official: Answer, bars: list[dict[str, Any]], later: bool, expected: OfficialClose | None
) -> None:
    now_ns = session(FRI).close_ns + (24 if later else 1) * 3600 * SECOND_NS
    with running_service() as service, RestClient(service.url, "key", attempts=1) as rest:
        service.answers_of[OPEN_CLOSE] = [official]
        service.answers_of[MINUTES] = service.paged(MINUTES, bars)
        found = CloseFinder(rest, CALENDAR, 300.0).find("AAA", FRI, now_ns)
        assert found == expected
        if official.status == 200:
            assert service.asked[0].query["adjusted"] == "false"


def test_a_close_is_not_asked_for_before_the_auction_has_been_printed() -> None:
    with running_service() as service, RestClient(service.url, "key") as rest:
        finder = CloseFinder(rest, CALENDAR, 300.0)
        assert finder.find("AAA", FRI, session(FRI).close_ns + 299 * SECOND_NS) is None
        assert service.asked == []


def write(folder: Path, *rows: str, start: str = "") -> Path:
    path = folder / "actions.csv"
    head = f"{start}underlying,ex_date,kind,new_symbol,ratio,cash"
    path.write_text("\r\n".join([head, *rows, ""]), encoding="utf-8")
    return path


def test_a_file_tells_every_kind_of_action(tmp_path: Path) -> None:
    day = date(2026, 1, 7)
    path = write(
        tmp_path,
        "aaa, 2026-01-07 ,split,,3/2,",
        "AAA,2026-01-07,split,,1.5,",
        "",
        "BBB,2026-01-07,special_dividend,,,2.50",
        "CCC,2026-01-07,spin_off,NEW,1/4,20",
        "DDD,2026-01-07,Merger,BUY,0.5,40",
        "EEE,2026-01-07,merger,,,110",
        "FB,2026-01-07,rename,meta,,",
        "GGG,2026-01-07,delisting,,,",
        start="\ufeff",
    )
    actions, dividends = read_corporate_actions(path)
    expected: list[CorporateAction] = [
        Split("AAA", day, 3, 2),
        SpinOff("CCC", day, "NEW", Fraction(1, 4), 20.0),
        Merger("DDD", day, "BUY", Fraction(1, 2), 40.0),
        Merger("EEE", day, cash=110.0),
        Rename("FB", day, "META"),
        Delisting("GGG", day),
    ]
    assert actions == expected
    assert dividends == [Dividend("BBB", day, 2.5, special=True)]


@pytest.mark.parametrize(
    "row",
    [
        "AAA,2026-01-07,split,,,",
        "AAA,2026-01-07,split,,1/0,",
        "AAA,2026-01-07,split,,-2,",
        "AAA,07.01.2026,split,,2,",
        "AAA,2026-01-07,spilt,,2,",
        ",2026-01-07,split,,2,",
        "AAA,2026-01-07,split,2",
        "AAA,2026-01-07,merger,,,",
        "AAA,2026-01-07,merger,BUY,,5",
        "AAA,2026-01-07,spin_off,NEW,1,",
        "AAA,2026-01-07,special_dividend,,,nan",
        "AAA,2026-01-07,rename,AAA,,",
    ],
)
def test_a_row_that_is_wrong_is_named_with_its_line_and_what_to_write(
    tmp_path: Path, row: str
) -> None:
    with pytest.raises(DataError, match=r"actions\.csv, line 3, .*write a ticker, a date as"):
        read_corporate_actions(write(tmp_path, "BBB,2026-01-07,split,,2,", row))


class Vendor:
    """A directory whose vendor answers as a test wants, and the account that it settles."""

    def __init__(self, folder: Path, service: Any, rest: RestClient) -> None:
        self.service = service
        self.journal = Journal(folder / "journal.sqlite")
        account = self.journal.open_account("paper", 100_000.0, session(DAY).open_ns)
        limits = risk_limits(max_order_notional=1e6)
        self.broker = PaperBroker(self.journal, account, DEFAULT_FEES, limits)
        self.env = LiveEnv(
            ("AAA",), DEFAULT_RULES, DEFAULT_FEES, CALENDAR, self.broker, official_closes=True
        )
        self.stream = StreamClient(stream_settings("ws://127.0.0.1:9", "key"))
        self.stream.start()
        self.directory = MarketDirectory(
            rest,
            self.stream,
            self.env,
            CALENDAR,
            1000,
            closes=CloseFinder(
                rest,
                CALENDAR,
                300.0,
                RecordedCloses(folder / "recordings", folder / "catalog", CALENDAR),
            ),
        )
        nothing = [Answer({"status": "NOT_FOUND"}, 404)]
        for path in ("/stocks/v1/splits", "/stocks/v1/dividends"):
            service.answers_of[path] = service.paged(path, [])
        service.answers_of["/vX/reference/tickers/AAA/events"] = nothing
        service.answers = service.paged("/", [])
        self.lists("O:AAA260206C00100000", "O:AAA260206P00100000")

    def lists(self, *symbols: str) -> None:
        path = "/v3/reference/options/contracts"
        rows = [{"ticker": symbol, "underlying_ticker": "AAA"} for symbol in symbols]
        self.service.answers_of[path] = self.service.paged(path, rows)

    def tell(self, path: str, *rows: dict[str, Any]) -> None:
        self.service.answers_of[path] = self.service.paged(path, list(rows))

    def close(self, day: date, price: float) -> None:
        answer = Answer({"status": "OK", "close": price})
        self.service.answers_of[f"/v1/open-close/AAA/{day}"] = [answer]

    def hold(self, symbol: str, ratio: int = 1) -> None:
        self.env.begin_session(session(DAY))
        now_ns = session(DAY).open_ns + MINUTE_NS
        legs = (Leg(symbol, ratio),)
        order = Order(
            self.broker.next_order_id(), now_ns, "AAA", "test", Intent.OPEN, legs, units=5
        )
        quotes = {symbol: QuoteView(2.0, 2.1, 50.0, 50.0, now_ns)}
        assert isinstance(self.broker.submit(order, quotes, True, now_ns), Fill)
        self.env.close_session(session(DAY).close_ns, session(DAY), 0.0)

    def open(self, day: date) -> None:
        self.directory.open_session(Bar(session(day), session(day).open_ns + MINUTE_NS))

    def settle(self, now_ns: int, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60.0
        while not until():
            assert time.monotonic() < deadline
            self.directory.settle(now_ns)
            now_ns += SECOND_NS
            time.sleep(0.002)

    def end(self) -> None:
        self.stream.close()
        self.journal.close()

    @property
    def suspended(self) -> str:
        return self.broker.account.suspended.get("AAA", "")

    def settled(self) -> list[tuple[str, int, float, CloseSource | None]]:
        return [
            (each.symbol, each.ts_ns, each.underlying_price, each.source)
            for each in self.journal.events()
            if isinstance(each, Settled)
        ]


@pytest.fixture
def vendor(tmp_path: Path) -> Any:
    with running_service() as service, RestClient(service.url, "key", attempts=1) as rest:
        made = Vendor(tmp_path, service, rest)
        yield made
        made.end()


def test_a_start_settles_the_gap_at_the_vendors_official_closes(vendor: Vendor) -> None:
    vendor.hold(CALL)
    for each in CALENDAR.sessions(DAY, FRI):
        vendor.close(each.date, 103.25 if each.date == FRI else 100.0)
    vendor.open(NEXT_MON)
    assert vendor.settled() == [(CALL, session(FRI).close_ns, 103.25, CloseSource.OFFICIAL)]
    assert vendor.suspended == ""


@pytest.mark.parametrize("why", [404, 403, 500])
@pytest.mark.parametrize("recorded", ["whole", "until noon", "not"])
def test_where_the_vendor_tells_no_close_the_recorded_one_settles(
    vendor: Vendor, tmp_path: Path, recorded: str, why: int
) -> None:
    vendor.hold(CALL)
    for each in CALENDAR.sessions(DAY, FRI):
        vendor.close(each.date, 100.0)
    refused = Answer({"status": "ERROR"}, why)
    vendor.service.answers_of[OPEN_CLOSE] = [refused]
    vendor.service.answers_of[MINUTES] = [refused]
    if recorded != "not":
        close_ns = session(FRI).close_ns
        end_ns = close_ns if recorded == "whole" else close_ns - 240 * MINUTE_NS
        with Recorder(tmp_path / "recordings") as recorder:
            recorder.begin_session(session(FRI))
            recorder.list_contracts("AAA", [parse_symbol(CALL)])
            price = 104.5
            recorder.bar(
                StockBar("AAA", end_ns - MINUTE_NS, price, price, price, price, 1.0, price)
            )
            recorder.close_bar(end_ns)
    vendor.open(NEXT_MON)
    if recorded == "whole":
        assert vendor.settled() == [(CALL, session(FRI).close_ns, 104.5, CloseSource.RECORDED)]
        assert vendor.suspended == ""
    else:
        assert vendor.settled() == []
        assert vendor.suspended.startswith("no official close of 2026-01-09")


def test_a_session_waits_for_its_official_close_and_settles_at_it(vendor: Vendor) -> None:
    vendor.hold(CALL)
    vendor.lists(CALL, "O:AAA260206C00100000")
    vendor.open(FRI)
    close_ns = session(FRI).close_ns
    vendor.env.close_session(close_ns, session(FRI), 0.0)
    assert vendor.suspended.startswith("no official close of 2026-01-09")
    vendor.directory.settle(close_ns + SECOND_NS)
    assert vendor.settled() == []
    vendor.close(FRI, 100.6)
    vendor.settle(close_ns + 400 * SECOND_NS, lambda: bool(vendor.settled()))
    assert vendor.settled() == [(CALL, close_ns, 100.6, CloseSource.OFFICIAL)]
    assert vendor.suspended == ""


def test_a_contract_that_is_listed_no_more_suspends_until_a_split_is_told(vendor: Vendor) -> None:
    held = "O:AAA260206C00100000"
    vendor.hold(held)
    vendor.lists("O:AAA260206C00010000", "O:AAA260206P00010000")
    tuesday = date(2026, 1, 6)
    vendor.open(tuesday)
    assert f"{held} held and no longer listed" in vendor.suspended
    vendor.tell(
        "/stocks/v1/splits",
        {"ticker": "AAA", "execution_date": "2026-01-06", "split_from": 1, "split_to": 10},
    )
    bar_of = Bar(session(tuesday), session(tuesday).open_ns + 10 * MINUTE_NS)
    vendor.directory.follow(bar_of)
    assert vendor.suspended == ""
    assert vendor.broker.account.positions["O:AAA260206C00010000"].quantity == 50


def test_adjusted_contracts_take_the_root_that_the_exchange_lists(vendor: Vendor) -> None:
    held = "O:AAA260206C00100000"
    vendor.hold(held)
    vendor.lists("O:AAA2260206C00100000", "O:AAA260206C00066670")
    vendor.tell(
        "/stocks/v1/splits",
        {"ticker": "AAA", "execution_date": "2026-01-06", "split_from": 2, "split_to": 3},
    )
    vendor.open(date(2026, 1, 6))
    assert list(vendor.broker.account.deliverables) == ["O:AAA2260206C00100000"]
    assert vendor.suspended == ""
    assert "O:AAA2260206C00100000" in vendor.env.listed_symbols()


def test_a_rename_that_the_new_symbol_tells_moves_what_is_held(tmp_path: Path) -> None:
    with running_service() as service, RestClient(service.url, "key", attempts=1) as rest:
        vendor = Vendor(tmp_path, service, rest)
        vendor.hold("O:AAA260206C00100000")
        vendor.env._include(("META",))
        events = [
            {"type": "ticker_change", "date": "2026-01-06", "ticker_change": {"ticker": "META"}},
            {"type": "ticker_change", "date": "2012-05-18", "ticker_change": {"ticker": "AAA"}},
        ]
        path = "/vX/reference/tickers/META/events"
        service.answers_of[path] = [Answer({"status": "OK", "results": {"events": events}})]
        vendor.open(date(2026, 1, 6))
        assert list(vendor.broker.account.positions) == ["O:META260206C00100000"]
        vendor.end()


@pytest.mark.parametrize(
    ("old", "new"), [(1, 1e308), (1, 2e6), (1e308, 1), (0, 2), (1, 0), (1, -2), (1, 1), (1, None)]
)
def test_a_row_that_is_no_split_costs_only_itself(
    vendor: Vendor, old: float, new: float | None
) -> None:
    vendor.hold("O:AAA260206C00100000")
    vendor.lists("O:AAA260206C00010000")
    row = {"ticker": "AAA", "execution_date": "2026-01-06"}
    vendor.tell(
        "/stocks/v1/splits",
        row | {"split_from": old, "split_to": new},
        row | {"split_from": 1, "split_to": 10},
    )
    vendor.open(date(2026, 1, 6))
    assert vendor.suspended == ""
    assert vendor.broker.account.positions["O:AAA260206C00010000"].quantity == 50


def test_bars_of_before_a_split_are_converted_for_the_warm_up(vendor: Vendor) -> None:
    tuesday = date(2026, 1, 6)
    vendor.tell(
        "/stocks/v1/splits",
        {"ticker": "AAA", "execution_date": "2026-01-06", "split_from": 1, "split_to": 10},
    )
    start, end = session(DAY).open_ns, session(tuesday).open_ns
    path = f"/v2/aggs/ticker/AAA/range/1/minute/{start // 10**6}/{end // 10**6}"
    close_ms = session(DAY).close_ns // 10**6
    vendor.tell(
        path,
        {"t": close_ms - 120_000, "o": 99.0, "h": 101.0, "l": 98.0, "c": 100.0, "v": 50.0},
        {"t": close_ms - 60_000, "o": 100.0, "h": 101.0, "l": 98.0, "c": 100.0, "v": 50.0},
    )
    vendor.open(tuesday)
    assert vendor.env.spot("AAA") == pytest.approx(10.0)
    bar_ns = session(tuesday).open_ns
    vendor.env.apply_bar(StockBar("AAA", bar_ns, 10.1, 10.1, 10.1, 10.1, 1.0, 10.1))
    vendor.env.close_bar(bar_ns + MINUTE_NS, session(tuesday))
    assert vendor.suspended == ""


def test_nobody_is_asked_twice_within_a_minute(vendor: Vendor) -> None:
    vendor.hold(CALL)
    vendor.open(FRI)
    close_ns = session(FRI).close_ns
    vendor.env.close_session(close_ns, session(FRI), 0.0)
    later_ns = close_ns + 400 * SECOND_NS
    path = f"/v1/open-close/AAA/{FRI}"

    def asked() -> int:
        return sum(each.path == path for each in vendor.service.asked)

    vendor.settle(later_ns, lambda: asked() == 1)
    for _ in range(5):
        vendor.directory.settle(later_ns + 20 * SECOND_NS)
    assert asked() == 1


DETAILS = "/v3/reference/tickers/AAA"


def company(figi: str, **more: Any) -> list[Answer]:
    return [Answer({"status": "OK", "results": {"composite_figi": figi, "active": True, **more}})]


def test_what_is_held_moves_to_the_symbol_that_its_company_took(vendor: Vendor) -> None:
    held, tuesday = "O:AAA260206C00100000", date(2026, 1, 6)
    vendor.service.answers_of[DETAILS] = company("BBG1")
    vendor.open(DAY)
    vendor.hold(held)
    vendor.service.answers_of[DETAILS] = [Answer({"status": "NOT_FOUND"}, 404)]
    changes = [
        {"type": "ticker_change", "date": day, "ticker_change": {"ticker": ticker}}
        for day, ticker in (("2026-01-06", "NEW"), ("2001-01-02", "AAA"))
    ]
    told = Answer({"status": "OK", "results": {"name": "A", "events": changes}})
    vendor.service.answers_of["/vX/reference/tickers/BBG1/events"] = [told]
    vendor.lists()
    vendor.open(tuesday)
    assert set(vendor.broker.account.positions) == {"O:NEW260206C00100000"}
    assert "NEW" in vendor.env.underlyings


def test_a_delisting_suspends_until_the_stock_is_listed_again(vendor: Vendor) -> None:
    held = "O:AAA260206C00100000"
    vendor.service.answers_of[DETAILS] = company("BBG1")
    vendor.open(DAY)
    vendor.hold(held)
    gone = company("BBG1", active=False, delisted_utc="2026-01-06T00:00:00Z")
    vendor.service.answers_of[DETAILS] = gone
    vendor.open(date(2026, 1, 6))
    # It is listed still, to be closed: but there is no stock behind it that trades.
    assert vendor.suspended == "delisted on 2026-01-06"
    vendor.open(date(2026, 1, 7))
    assert vendor.suspended == "delisted on 2026-01-06"
    vendor.service.answers_of[DETAILS] = company("BBG1")
    vendor.open(date(2026, 1, 8))
    assert vendor.suspended == ""
