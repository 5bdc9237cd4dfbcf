"""Which contracts are subscribed to when not all of them may be."""

import math
import time
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from structlog.testing import capture_logs

from tests.data.rest_service import Answer, running_service
from tests.live import market as market_of_test
from tests.live.market import WAIT_S, Bars, FirstMinutes, serving, settings_for, trade
from tests.usual import risk_limits, stream_settings
from trading.data.massive.client.rest import ContractSnapshot, ListedContract, RestClient
from trading.data.massive.client.stream import StreamClient
from trading.data.recording import load_recording
from trading.envs.catalogue import HOLD
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.history import play
from trading.envs.live_env import LiveEnv
from trading.envs.underlying import UnderlyingMarket
from trading.errors import ContractError, DataError, NotEntitled, RestError
from trading.execution.broker import PaperBroker
from trading.execution.catch_up import suspend_unexplained
from trading.execution.journal import Journal
from trading.live import assembly
from trading.live.bar_clock import Bar, first_bar_after
from trading.live.endpoint import Endpoint
from trading.live.market_server import event_source, streamed_symbols
from trading.live.markets import MarketDirectory, nearest_the_money, not_ahead, with_named
from trading.live.trader import Trader
from trading.market.calendar import MINUTE_NS, ExchangeCalendar
from trading.market.contracts import OptionContract, Right, parse_symbol
from trading.market.corporate_actions import Rename, first_name
from trading.market.dividends import Dividend
from trading.market.rates import YieldCurve

TODAY = date(2026, 1, 5)
CONTRACTS = [
    OptionContract("XYZ", expiry, right, strike * 1000)
    for expiry in (date(2026, 1, 9), date(2026, 2, 6), date(2027, 1, 15))
    for strike in range(50, 151, 5)
    for right in Right
]


def test_all_are_taken_while_they_fit() -> None:
    assert nearest_the_money(CONTRACTS, float("nan"), TODAY, len(CONTRACTS)) == CONTRACTS


def test_tradable_expiries_near_the_money_come_first() -> None:
    chosen = nearest_the_money(CONTRACTS, 100.0, TODAY, 20)
    assert len(chosen) == 20
    assert {contract.expiry for contract in chosen} == {date(2026, 1, 9), date(2026, 2, 6)}
    near = [contract.strike for contract in chosen if contract.expiry == date(2026, 1, 9)]
    far = [contract.strike for contract in chosen if contract.expiry == date(2026, 2, 6)]
    assert max(abs(strike - 100.0) for strike in near) < max(abs(strike - 100.0) for strike in far)


def test_both_rights_of_a_strike_are_chosen_together() -> None:
    chosen = nearest_the_money(CONTRACTS, 100.0, TODAY, 10)
    rights = {}
    for contract in chosen:
        rights.setdefault((contract.expiry, contract.strike), set()).add(contract.right)
    assert all(len(pair) == 2 for pair in rights.values())


def test_a_choice_without_a_price_is_refused_with_the_way_out() -> None:
    with pytest.raises(DataError, match=r"data\.max_quote_contracts"):
        nearest_the_money(CONTRACTS, float("nan"), TODAY, 10)


DIVIDENDS = [Dividend("AAA", date(2026, 1, 7), 0.5), Dividend("AAA", date(2026, 3, 2), 0.5)]


def test_dividends_of_the_next_days_are_asked_for_at_a_sessions_start(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    with serving(FirstMinutes(2), dividends=DIVIDENDS) as (endpoint, begin):
        run = trade(settings, endpoint, begin)
    assert run.trader.env._dividends == (DIVIDENDS[0],)


@pytest.mark.parametrize("status", [403, 404])
def test_dividends_that_the_vendor_does_not_tell_stay_what_they_were(
    status: int, tmp_path: Path
) -> None:
    path = "/stocks/v1/dividends"
    known = {"ticker": "AAA", "ex_dividend_date": "2026-01-07", "cash_amount": 0.5}
    with (
        capture_logs() as told,
        running_service() as service,
        RestClient(service.url, "key") as rest,
    ):
        service.answers_of[path] = service.paged(path, [known])
        env = LiveEnv(("AAA",), DEFAULT_RULES, DEFAULT_FEES, ExchangeCalendar(), broker(tmp_path))
        stream = StreamClient(stream_settings("ws://127.0.0.1:9", "key"))
        directory = MarketDirectory(rest, stream, env, ExchangeCalendar(), 1000)
        assert directory._known_dividends(TODAY) == [DIVIDENDS[0]]
        service.answers_of[path] = [Answer({"status": "ERROR", "error": "no"}, status=status)]
        assert directory._known_dividends(TODAY) == [DIVIDENDS[0]]
    assert any("dividends are not known" in each["event"] for each in told)
    env.broker.journal.close()


def broker(folder: Path) -> PaperBroker:
    journal = Journal(folder / "journal.sqlite")
    account = journal.open_account("paper", 100_000.0, 1)
    return PaperBroker(journal, account, DEFAULT_FEES, risk_limits())


class OddListings(RestClient):
    """The server's listings, but for underlyings that a test lets fail."""

    failing: ClassVar[dict[str, list[ListedContract] | Exception]] = {}

    def option_contracts(self, underlying: str, **options: Any) -> list[ListedContract]:
        found = self.failing.get(underlying)
        if isinstance(found, Exception):
            raise found
        return super().option_contracts(underlying, **options) if found is None else found


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[ListedContract] | Exception]:
    monkeypatch.setattr(OddListings, "failing", {})
    monkeypatch.setattr(market_of_test, "RestClient", OddListings)
    return OddListings.failing


@pytest.mark.parametrize(
    "failure",
    [
        [],
        RestError("/v3/reference/options/contracts, page 1: HTTP 404 (Not found)"),
        NotEntitled("/v3/reference/options/contracts: the plan does not include this"),
        ContractError("option symbol 'O:' is malformed"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_an_underlying_that_cannot_be_listed_is_suspended_and_the_other_trades(
    tmp_path: Path,
    failing: dict[str, list[ListedContract] | Exception],
    failure: list[ListedContract] | Exception,
) -> None:
    failing["BBB"] = failure
    with serving(FirstMinutes(8)) as (endpoint, begin):
        run = trade(settings_for(tmp_path), endpoint, begin)
    account = run.trader.env.broker.account
    assert list(account.suspended) == ["BBB"]
    assert account.suspended["BBB"].startswith("it cannot be listed: ")
    assert account.last_decision_ns["AAA"] == account.last_decision_ns["BBB"]
    assert run.trader.env.listed_symbols("AAA") and not run.trader.env.listed_symbols("BBB")
    assert account.fills > 0 and run.fold == account.fingerprint()


def test_what_could_not_be_listed_is_asked_for_again_and_trades_then(
    tmp_path: Path, failing: dict[str, list[ListedContract] | Exception]
) -> None:
    failing["BBB"] = []

    class Mending(Bars):
        def on_bar(self, trader: Trader, bar: Bar, latency_s: float | None) -> None:
            super().on_bar(trader, bar, latency_s)
            failing.clear()
            for answer in trader._markets._asked.values():  # type: ignore[attr-defined]
                answer.result(WAIT_S)

    with serving(FirstMinutes(12)) as (endpoint, begin):
        run = trade(settings_for(tmp_path), endpoint, begin, bars=Mending())
    assert run.trader.env.broker.account.suspended == {}
    assert run.trader.env.listed_symbols("BBB")
    assert run.trader.env._markets["BBB"].chain.columns.quote_ns.max() > 0


def test_a_start_at_which_nothing_can_be_listed_ends_with_the_reason(
    tmp_path: Path, failing: dict[str, list[ListedContract] | Exception]
) -> None:
    failing |= {"AAA": [], "BBB": []}
    with (
        serving(FirstMinutes(3)) as (endpoint, begin),
        pytest.raises(DataError, match="AAA has no listed options"),
    ):
        trade(settings_for(tmp_path), endpoint, begin)


def test_what_is_held_beyond_the_symbols_is_subscribed_marked_and_only_closed(
    tmp_path: Path,
) -> None:
    with serving(FirstMinutes(30)) as (endpoint, begin):
        first = trade(settings_for(tmp_path), endpoint, begin, bars=HoldingBoth())
    assert set(first.trader.env.broker.account.strategies) == {"AAA", "BBB"}
    seen = Masks("BBB")
    with serving(FirstMinutes(60)) as (endpoint, begin):
        second = trade(settings_for(tmp_path, "symbols=[AAA]"), endpoint, begin, bars=seen)
    env, account = second.trader.env, second.trader.env.broker.account
    assert env.symbols == ("AAA", "BBB") and env.winding_down == {"BBB"}
    assert env.listed_symbols("BBB")
    assert all(mask == {HOLD} for mask in seen.masks), "nobody is asked"
    assert "BBB" not in account.strategies
    assert second.fold == account.fingerprint()
    assert np.isfinite(env.equity())


class HoldingBoth(Bars):
    """Stops as soon as both underlyings are held."""

    def on_bar(self, trader: Trader, bar: Bar, latency_s: float | None) -> None:
        super().on_bar(trader, bar, latency_s)
        if len(trader.env.broker.account.strategies) == 2:
            trader.stopping.set()


class Masks(Bars):
    """What one underlying may do at each bar."""

    def __init__(self, underlying: str) -> None:
        super().__init__()
        self._underlying = underlying
        self.masks: list[set[int]] = []
        self.held = 0

    def on_bar(self, trader: Trader, bar: Bar, latency_s: float | None) -> None:
        super().on_bar(trader, bar, latency_s)
        env = trader.env
        self.held += self._underlying in env.broker.account.strategies
        u = env.symbols.index(self._underlying)
        self.masks.append(set(np.flatnonzero(env._views.mask[u]).tolist()))


def test_a_price_that_nobody_tells_is_implied_by_the_chain_where_a_choice_must_be_made(
    tmp_path: Path,
) -> None:
    path = "/v3/snapshot/options/AAA"
    row = {
        "details": {"ticker": "O:AAA260116C00100000"},
        "last_quote": {"bid": 3.0, "ask": 3.2, "last_updated": 1},
    }
    put = {
        "details": {"ticker": "O:AAA260116P00100000"},
        "last_quote": {"bid": 1.0, "ask": 1.2, "last_updated": 1},
    }
    with running_service() as service, RestClient(service.url, "key") as rest:
        env = LiveEnv(("AAA",), DEFAULT_RULES, DEFAULT_FEES, ExchangeCalendar(), broker(tmp_path))
        stream = StreamClient(stream_settings("ws://127.0.0.1:9", "key"))
        directory = MarketDirectory(rest, stream, env, ExchangeCalendar(), 1000)
        service.answers_of[path] = service.paged(path, [row, put])
        assert directory._price_by_options("AAA", TODAY) == pytest.approx(102.0)
        told = row | {"underlying_asset": {"price": 101.5}}
        service.answers_of[path] = service.paged(path, [told, put])
        assert directory._price_by_options("AAA", TODAY) == 101.5
        service.answers_of[path] = service.paged(path, [row])
        assert np.isnan(directory._price_by_options("AAA", TODAY))
    env.broker.journal.close()


def test_too_few_subscriptions_for_an_underlying_say_the_way_out() -> None:
    with pytest.raises(DataError, match=r"raise data\.max_quote_contracts, or trade fewer"):
        nearest_the_money(CONTRACTS, 100.0, TODAY, 1)


def test_the_rate_is_the_newest_yield_and_is_recorded(tmp_path: Path) -> None:
    curve = YieldCurve(date(2026, 1, 2), {1 / 12: 5.0, 1.0: 5.0})
    settings = settings_for(tmp_path, "symbols=[AAA]", "data.record=true")
    recorder = assembly.recorder(settings)
    assert recorder is not None
    with recorder, serving(FirstMinutes(3), treasury_yields=[curve]) as (endpoint, begin):
        run = trade(settings, endpoint, begin, recorder=recorder, treasury_yields=True)
    assert run.trader.env.rate == pytest.approx(2.0 * math.log(1.025))
    assert run.trader.env.rate != DEFAULT_RULES.rate
    recording = load_recording(assembly.recordings_path(settings), TODAY, "AAA")
    assert recording.rate == run.trader.env.rate
    market = UnderlyingMarket("AAA", DEFAULT_RULES, DEFAULT_FEES)
    list(play(recording, market, ExchangeCalendar()))
    traded = run.trader.env._markets["AAA"]
    assert np.array_equal(market.snapshots.features, traded.snapshots.features)
    assert np.array_equal(market.chain.columns.forward, traded.chain.columns.forward)


def test_without_yields_the_rate_is_that_of_the_settings(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "env.risk_free_rate_pct=1.5")
    with capture_logs() as told, serving(FirstMinutes(2)) as (endpoint, begin):
        run = trade(settings, endpoint, begin, treasury_yields=True)
    assert run.trader.env.rate == 0.015
    assert any("no treasury yields" in each["event"] for each in told)


def test_a_simulation_that_is_as_fast_as_its_client_reads_loses_no_frame(tmp_path: Path) -> None:
    endpoint = Endpoint("ws://127.0.0.1:1", "http://127.0.0.1:1", "key")
    for speed, waits in (("0", True), ("60", False)):
        simulated = ("data.source=simulation", f"data.simulation.speed={speed}")
        settings = settings_for(tmp_path, *simulated)
        assert assembly.stream_settings(settings, endpoint).block_when_full is waits


def test_a_renamed_company_is_simulated_under_its_first_symbol() -> None:
    applied = {
        "AAA/rename/2026-03-02": ("now AAAX", ""),
        "AAAX/rename/2026-06-01": ("now AAA", ""),
        "BBB/split/2026-06-01": ("2 for 1", ""),
        "AAA/rename/2026-09-01": ("now AAAX", ""),
    }
    assert first_name("AAAX", applied) == "AAA"
    assert first_name("AAA", applied) == "AAA"
    assert first_name("BBB", applied) == "BBB"


def test_a_simulated_or_replayed_market_also_streams_what_winds_down(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "symbols=[AAA]", "data.source=simulation")
    path = assembly.journal_path(settings)
    assert streamed_symbols(settings, path) == ("AAA",)
    with serving(FirstMinutes(30)) as (endpoint, begin):
        trade(settings_for(tmp_path), endpoint, begin, bars=HoldingBoth())
    assert streamed_symbols(settings, path) == ("AAA", "BBB")
    source = event_source(settings, path)
    assert {each.root for each in source.listing.contracts} == {"AAA", "BBB"}


@pytest.mark.parametrize("count", [1, 8, 40])
@pytest.mark.parametrize("behind", [1, 50])
def test_a_snapshot_dated_ahead_does_not_silence_its_contract(count: int, behind: int) -> None:
    """Of `behind` a tape has run ahead of its bars, which only many snapshots can tell."""
    end_ns, nan = 1_000 * 10**9, math.nan
    contract = parse_symbol("O:SPY251219C00650000")

    def quoted(quote_ns: int) -> ContractSnapshot:
        figures = (nan, nan, nan, nan, nan, nan, nan)
        return ContractSnapshot(contract, 1.0, 1.1, 5.0, 5.0, quote_ns, *figures)

    told = [quoted(end_ns - 5 * 10**9 + behind * k) for k in range(count)]
    odd = [quoted(end_ns + 86_400 * 10**9)]
    assert not_ahead([*told, *odd], end_ns) == told
    if count == 40:
        tape = not_ahead([*told, *odd], end_ns - 3_600 * 10**9)
        assert len(tape) >= 36 and not set(odd) & set(tape)


@pytest.mark.parametrize("told_as_special", [False, True])
def test_a_special_dividend_that_is_named_is_paid_once(told_as_special: bool) -> None:
    special = Dividend("XYZ", TODAY, 4.5, special=True)
    regular = Dividend("XYZ", TODAY, 0.1)
    told = [Dividend("XYZ", TODAY, 4.5, special=told_as_special), regular, regular]
    assert with_named(told, [special]) == [regular, regular, special]
    assert with_named(told, []) == told


def test_what_an_action_brings_during_a_session_is_listed_and_subscribed_to_at_once(
    tmp_path: Path,
) -> None:
    calendar, day = ExchangeCalendar(), market_of_test.DAY
    settings = settings_for(tmp_path, "symbols=[AAA]")
    with (
        serving(FirstMinutes(8)) as (endpoint, _),
        RestClient(endpoint.rest_url, endpoint.api_key) as rest,
        StreamClient(assembly.stream_settings(settings, endpoint)) as stream,
    ):
        env = LiveEnv(("AAA",), DEFAULT_RULES, DEFAULT_FEES, calendar, broker(tmp_path))
        directory = MarketDirectory(rest, stream, env, calendar, 10_000)
        bar = first_bar_after(rest.market_status().server_ns, calendar, MINUTE_NS)
        directory.open_session(bar)
        suspend_unexplained(env.broker, "AAA", day, "of the test", bar.end_ns)
        directory._actions = (Rename("AAA", day, "BBB"),)
        later = bar._replace(end_ns=bar.end_ns + 10 * MINUTE_NS)
        deadline = time.monotonic() + WAIT_S
        while "BBB" not in env.underlyings or not env.listed_symbols("BBB"):
            directory.follow(later)
            assert time.monotonic() < deadline, env.broker.account.suspensions
            time.sleep(0.05)
        assert env.symbols == ("BBB",)
        listed = {f"Q.{name}" for name in env.listed_symbols()}
        assert listed == directory._subscribed and all("BBB" in name for name in listed)
        assert "AM.BBB" in stream._connections["stocks"].subscriptions._asked
        env.broker.journal.close()


def test_what_is_held_or_ordered_is_asked_for_first_then_what_is_nearest_the_money(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calendar = ExchangeCalendar()
    settings = settings_for(tmp_path, "symbols=[AAA]")
    with (
        serving(FirstMinutes(8)) as (endpoint, _),
        RestClient(endpoint.rest_url, endpoint.api_key) as rest,
        StreamClient(assembly.stream_settings(settings, endpoint)) as stream,
    ):
        env = LiveEnv(("AAA",), DEFAULT_RULES, DEFAULT_FEES, calendar, broker(tmp_path))
        directory = MarketDirectory(rest, stream, env, calendar, 10_000)
        bar = first_bar_after(rest.market_status().server_ns, calendar, MINUTE_NS)
        monkeypatch.setattr(env, "spot", lambda _: 100.0)
        directory.open_session(bar)
        subscriptions = stream._connections["options"].subscriptions

        def strikes() -> list[float]:
            names = [name.removeprefix("Q.") for name in subscriptions._asked]
            expiry = min(parse_symbol(name).expiry for name in names)
            contracts = [parse_symbol(name) for name in names]
            return [each.strike for each in contracts if each.expiry == expiry]

        away = [abs(math.log(strike / 100.0)) for strike in strikes()]
        assert away == sorted(away) and away[0] < away[-1]
        before = list(subscriptions._asked)
        directory.follow(bar)
        assert list(subscriptions._asked) == before and subscriptions.take_ranked(1) == []
        monkeypatch.setattr(env, "spot", lambda _: 105.0)
        directory.follow(bar)
        moved = [abs(math.log(strike / 105.0)) for strike in strikes()]
        assert moved == sorted(moved)
        farthest = list(subscriptions._asked)[-1]
        # What waits to open is nothing held, and is needed as much.
        monkeypatch.setattr(env, "needed_symbols", lambda _: [farthest.removeprefix("Q.")])
        directory.follow(bar)
        assert next(iter(subscriptions._asked)) == farthest
        assert set(subscriptions._asked) == set(before)
        directory._max_contracts = 20
        assert len(directory._look_up("AAA", bar).chosen) == 19
        env.broker.journal.close()
