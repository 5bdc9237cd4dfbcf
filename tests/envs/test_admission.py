"""What gets through the one door for market data into a market, and what is kept apart."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.envs.desk import CALL, DAY, LISTING, SYMBOL, Desk, at, desk, fair, session
from tests.envs.goog import CALENDAR, recorded_goog
from trading.data.admission import Refusal, is_older
from trading.data.massive.server.source import SimulationSource
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.history import play
from trading.envs.underlying import UnderlyingMarket
from trading.execution.orders import Fill
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS
from trading.market.contracts import OptionContract, Right
from trading.market.option_quote import OptionQuote
from trading.market.simulator import SimulatedExchange, UnderlyingSpec

ABSURD = [(500.0, 500.05), (40.0, 40.2), (6.0, 6.1), (0.01, 0.02), (0.0, 0.02), (40.0, 0.0)]


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path) as one:
        one.minute(30, 100.0)
        yield one


def refused(market: Desk, reason: Refusal) -> int:
    return market.env.refused[reason]


@pytest.mark.parametrize("quote", [*ABSURD, (3.3, 500.0)])
def test_a_lone_absurd_quote_is_neither_traded_nor_marked_and_the_next_good_one_is(
    market: Desk, quote: tuple[float, float]
) -> None:
    before = market.mark()
    market.quote(*quote, 30.5)
    market.minute(31, 100.0, chain=False)
    assert market.held_against()[:2] == (0.0, 0.0)
    assert market.mark() == before
    assert not isinstance(market.order(31, 1), Fill)
    assert refused(market, Refusal.UNCONFIRMED) + refused(market, Refusal.OUT_OF_BOUNDS) == 1
    market.minute(32, 100.0)
    assert market.held_against().bid == pytest.approx(before, abs=0.1)
    assert market.mark() == pytest.approx(before, abs=0.1)


@pytest.mark.parametrize("quote", ABSURD)
def test_the_first_quote_ever_of_a_contract_may_be_absurd(
    tmp_path: Path, quote: tuple[float, float]
) -> None:
    with desk(tmp_path) as market:
        market.chain(30, 100.0, without=[CALL])
        market.quote(*quote, 30)
        market.stock(30, 100.0)
        market.close_bar(30)
        assert market.held_against()[:2] == (0.0, 0.0)
        assert market.mark() < 2.0


def test_an_absurd_quote_of_a_held_leg_is_not_traded_on_though_it_is_the_newest(
    market: Desk,
) -> None:
    assert isinstance(market.order(30, 1, units=5), Fill)
    equity = market.env.equity()
    market.quote(500.0, 500.05, 30.9)
    assert not isinstance(market.order(31, -1, units=5), Fill), "before any bar has closed"
    market.minute(31, 100.0, chain=False)
    assert market.env.equity() == pytest.approx(equity)
    assert not isinstance(market.order(31, -1, units=5), Fill)


def test_what_is_absurd_at_the_close_settles_nothing(tmp_path: Path) -> None:
    call = "O:ACME260109C00100000"
    for price in (55.0, 0.0, math.nan, 1e300):
        with desk(tmp_path / str(price)) as market:
            market.minute(389, 103.0)
            market.stock(390, price)
            market.quote(90.0, 90.1, 390, call)
            market.close_bar(390)
            assert market.env.spot(SYMBOL) == 103.0
            assert market.mark(call) == pytest.approx(3.1, abs=0.3)


def test_a_second_quote_confirms_what_the_chain_does_not_forbid(market: Desk) -> None:
    for minute in (31, 32):
        market.quote(5.0, 5.1, minute - 0.5)
        market.minute(minute, 100.0, chain=False)
    assert market.held_against()[:2] == (5.0, 5.1)
    assert market.mark() == pytest.approx(5.05)


def test_the_same_event_told_twice_is_one_event(market: Desk) -> None:
    for minute in (31, 32):
        market.quote(5.0, 5.1, 30.5)
        market.minute(minute, 100.0, chain=False)
    assert market.held_against()[:2] == (0.0, 0.0)


@pytest.mark.parametrize("quote", [(500.0, 500.05), (0.01, 0.02), (40.0, 0.0)])
def test_what_the_chain_forbids_is_not_confirmed_by_being_repeated(
    market: Desk, quote: tuple[float, float]
) -> None:
    for minute in range(31, 36):
        market.chain(minute, 100.0, without=[CALL])
        market.quote(*quote, minute)
        market.stock(minute, 100.0)
        market.close_bar(minute)
        assert market.held_against()[:2] == (0.0, 0.0)


def test_what_was_kept_apart_is_let_in_when_the_chain_comes_to_it(market: Desk) -> None:
    """Volatility doubles; one contract is quoted a bar before the others."""
    contract = next(each for each in LISTING if each.symbol == CALL)
    bid = round(fair(contract, 100.0, at(31), iv=0.6), 2)
    market.quote(bid, bid + 0.05, 30.9)
    market.minute(31, 100.0, chain=False)
    assert market.held_against()[:2] == (0.0, 0.0)
    for each in LISTING:
        if each.symbol != CALL:
            price = round(fair(each, 100.0, at(32), iv=0.6), 2)
            market.quote(price, price + 0.05, 31.5, each.symbol)
    market.minute(32, 100.0, chain=False)
    assert market.held_against()[:2] == (bid, bid + 0.05)


@pytest.mark.parametrize("spot", [130.0, 70.0, 115.0])
def test_a_gap_with_the_chain_following_is_taken_over_at_once(market: Desk, spot: float) -> None:
    market.minute(31, spot)
    assert market.env.spot(SYMBOL) == spot
    assert market.held_against().ask > 0.0


@pytest.mark.parametrize("spot", [130.0, 70.0, 200.0, 30.0])
def test_a_gap_is_taken_over_within_two_bars_also_when_the_chain_is_late(
    market: Desk, spot: float
) -> None:
    market.minute(31, 100.0)
    market.minute(32, spot, chain=False)
    assert market.env.spot(SYMBOL) == 100.0
    market.minute(33, spot)
    assert market.env.spot(SYMBOL) == spot
    market.minute(34, spot)
    assert market.held_against().ask > 0.0


@pytest.mark.parametrize("price", [55.0, 1.0, 130.0, 1e6])
def test_a_lone_absurd_price_of_the_stock_never_moves_it(market: Desk, price: float) -> None:
    for minute in range(31, 41, 2):
        market.stock(minute, price)
        market.chain(minute, 100.0)
        market.close_bar(minute)
        assert market.env.spot(SYMBOL) == 100.0
        market.minute(minute + 1, 100.0)
    bars = market.env._markets[SYMBOL]._history.bars()
    assert set(bars.close[: bars.filled]) == {100.0}


def test_a_price_that_the_chain_denies_stays_out_however_often_it_is_told(market: Desk) -> None:
    for minute in range(31, 36):
        market.chain(minute - 0.01, 100.0)
        market.stock(minute, 55.0)
        market.close_bar(minute)
        assert market.env.spot(SYMBOL) == 100.0


def test_without_a_chain_a_second_bar_confirms_a_gap(tmp_path: Path) -> None:
    with desk(tmp_path) as market:
        for minute, price in ((30, 100.0), (31, 130.0), (32, 131.0)):
            market.minute(minute, price, chain=False)
        assert market.env.spot(SYMBOL) == 131.0


def test_the_first_price_ever_may_be_absurd(tmp_path: Path) -> None:
    with desk(tmp_path) as market:
        market.chain(30, 100.0)
        market.stock(30, 10.0)
        market.close_bar(30)
        assert market.env.spot(SYMBOL) == pytest.approx(100.0, abs=0.1)
        market.minute(31, 100.0)
        assert market.env.spot(SYMBOL) == 100.0


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan, math.inf, 1e300])
def test_what_is_no_price_moves_nothing(market: Desk, price: float) -> None:
    assert not market.stock(31, price)
    assert not market.quote(price if price else -1.0, 4.0, 31)
    assert not market.quote(3.0, price if price else -1.0, 31)
    market.close_bar(31)
    assert market.env.spot(SYMBOL) == 100.0
    assert refused(market, Refusal.NOT_A_PRICE) == 3


def test_a_late_bar_corrects_the_history_and_moves_nothing_else(market: Desk) -> None:
    for minute, price in ((31, 101.0), (32, 102.0), (33, 103.0)):
        market.minute(minute, price)
    market.stock(32, 102.5)
    bars = market.env._markets[SYMBOL]._history.bars()
    assert bars.close[: bars.filled].tolist() == [100.0, 101.0, 102.5, 103.0]
    market.stock(32, 55.0)
    assert bars.close[: bars.filled].tolist() == [100.0, 101.0, 102.5, 103.0]
    market.stock(31 - 24 * 60, 95.0)
    assert bars.close[: bars.filled].tolist() == [100.0, 101.0, 102.5, 103.0]
    assert market.env.spot(SYMBOL) == 103.0
    assert refused(market, Refusal.LATE_BAR) == 3


@pytest.mark.parametrize("ahead_minutes", [60, 24 * 60, 366 * 24 * 60])
def test_what_is_dated_ahead_is_forgotten_at_the_bar_and_bars_nothing_true(
    market: Desk, ahead_minutes: int
) -> None:
    before = market.mark()
    assert market.quote(9.0, 9.1, 31 + ahead_minutes)
    assert market.stock(31 + ahead_minutes, 104.0)
    market.close_bar(31)
    assert refused(market, Refusal.AHEAD) == 2
    assert market.env.spot(SYMBOL) == 100.0
    assert market.mark() == before
    assert not isinstance(market.order(31, 1), Fill)
    market.minute(32, 100.5)
    assert market.env.spot(SYMBOL) == 100.5
    assert market.held_against().bid == pytest.approx(before, abs=0.5)
    assert isinstance(market.order(32, 1), Fill)
    assert refused(market, Refusal.AHEAD) == 2


def test_two_bars_dated_ahead_leave_the_price_to_the_chain(market: Desk) -> None:
    market.chain(31, 100.0)
    market.stock(91, 104.0)
    market.stock(92, 104.0)
    market.close_bar(31)
    assert market.env.spot(SYMBOL) == pytest.approx(100.0, abs=0.05)
    market.minute(32, 100.5)
    assert market.env.spot(SYMBOL) == 100.5


def test_a_contract_on_something_else_costs_only_itself(
    market: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    other = OptionContract("OTHER", LISTING[0].expiry, Right.CALL, 100_000)
    market.env.list_contracts(SYMBOL, [other, *LISTING])
    assert sorted(market.env.listed_symbols()) == sorted(each.symbol for each in LISTING)
    assert other.symbol in caplog.text
    market.minute(31, 100.0)
    assert isinstance(market.order(31, 1), Fill)


def test_the_newest_bar_may_be_corrected_twice(market: Desk) -> None:
    for price in (101.0, 99.0, 100.5):
        market.stock(31, price)
    market.close_bar(31)
    assert market.env.spot(SYMBOL) == 100.5
    bars = market.env._markets[SYMBOL]._history.bars()
    assert (bars.high[1], bars.low[1], bars.close[1]) == (100.5, 100.5, 100.5)


def test_an_extreme_of_a_bar_that_jumps_is_cut(market: Desk) -> None:
    start_ns = at(31) - MINUTE_NS
    market.env.apply_bar(StockBar(SYMBOL, start_ns, 100.0, 1e6, 0.01, 100.2, 1.0, 100.0))
    market.close_bar(31)
    bars = market.env._markets[SYMBOL]._history.bars()
    assert (bars.high[1], bars.low[1], bars.close[1]) == (100.2, 100.0, 100.2)


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5), st.floats(0.5, 5.0)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_the_quote_held_is_the_newest_by_its_own_time(
    told: list[tuple[int, int, float]],
) -> None:
    market = UnderlyingMarket(SYMBOL, DEFAULT_RULES, DEFAULT_FEES)
    market.list_contracts(LISTING[:1], CALENDAR.expiry_ns)
    held = (0, -1, 0.0)
    for second, sequence, bid in told:
        older = is_older(second, sequence, held[0], held[1])
        quote = OptionQuote(LISTING[0].symbol, bid, bid + 1.0, 1.0, 1.0, second, sequence)
        assert market.apply_quote(0, quote) is not older
        if not older:
            held = (second, sequence, bid)
        columns = market.chain.columns
        assert (columns.quote_ns[0], columns.bid[0]) == (held[0], held[2])
    assert held[0] == max((second for second, _, _ in told), default=0)


def test_quotes_of_a_real_session_are_admitted() -> None:
    recorded = recorded_goog()
    market = UnderlyingMarket("GOOG", DEFAULT_RULES, DEFAULT_FEES)
    for _ in play(recorded, market, CALENDAR):
        pass
    assert sum(market.refused.values()) < 1e-4 * len(recorded.quotes.ts_ns)


def test_a_disturbed_real_session_ends_as_the_undisturbed_one() -> None:
    """One quote in a hundred is absurd: while it stands, it is no quote; marks stay true."""
    recorded = recorded_goog()
    rng = np.random.default_rng(5)
    count = len(recorded.quotes.ts_ns)
    hit = rng.random(count) < 0.01
    factor = rng.choice([0.0001, 20.0, 100.0], count)
    disturbed = recorded.quotes._replace(
        bid=np.where(hit, recorded.quotes.bid * factor, recorded.quotes.bid),
        ask=np.where(hit, recorded.quotes.ask * factor, recorded.quotes.ask),
    )
    true = UnderlyingMarket("GOOG", DEFAULT_RULES, DEFAULT_FEES)
    market = UnderlyingMarket("GOOG", DEFAULT_RULES, DEFAULT_FEES)
    unlike = replace(recorded, quotes=disturbed)
    gave_away = 0
    for bar, _ in enumerate(
        zip(play(recorded, true, CALENDAR), play(unlike, market, CALENDAR), strict=True)
    ):
        if bar < 5:
            continue
        off = np.abs(market.chain.columns.mark - true.chain.columns.mark)
        one, other = market.chain.columns, true.chain.columns
        both = (one.bid > 0.0) & (other.bid > 0.0) & (one.ask > 0.0) & (other.ask > 0.0)
        gain = np.maximum(one.bid - other.ask, other.bid - one.ask)[both]
        bound = np.maximum(0.03 * 750.0, 0.6 * other.mark[both])
        gave_away += int(np.sum(gain > bound))
        assert np.nanmean(off > 0.01 * 750.0) < 0.01
    # Two neighbours of a contract without others may be disturbed in one bar.
    assert gave_away <= 10
    assert market.refused[Refusal.UNCONFIRMED] + market.refused[Refusal.OUT_OF_BOUNDS] > 100


def test_the_simulated_exchange_is_admitted() -> None:
    spec = UnderlyingSpec(SYMBOL, 100.0, 0.25, n_strikes=15)
    exchange = SimulatedExchange([spec], DAY, seed=3, step_seconds=20)
    source = SimulationSource(exchange, session().open_ns)
    market = UnderlyingMarket(SYMBOL, DEFAULT_RULES, DEFAULT_FEES)
    market.list_contracts(source.listing.contracts, CALENDAR.expiry_ns)
    places = [market.chain.index[symbol] for symbol in source.listing.symbols]
    for step in source.steps():
        if step.ts_ns > session().close_ns or step.listing is not source.listing:
            break
        for row in zip(*(column.tolist() for column in step.quotes), strict=True):
            contract, *quote = row
            symbol = source.listing.symbols[contract]
            market.apply_quote(places[contract], OptionQuote(symbol, *quote))
        for bar in step.bars:
            if bar.symbol == SYMBOL:
                market.apply_bar(bar)
        if (step.ts_ns - session().open_ns) % MINUTE_NS == 0:
            market.close_bar(step.ts_ns, session())
    assert sum(market.refused.values()) == 0


@pytest.mark.parametrize("price", [40.0, 6.5])
@pytest.mark.parametrize("spread", [0.05, 0.3])
def test_call_and_put_of_a_strike_do_not_vouch_for_one_another(
    market: Desk, price: float, spread: float
) -> None:
    put = "O:ACME260206P00100000"
    marks = market.mark(), market.mark(put)
    market.chain(30.5, 100.0)
    for symbol in (CALL, put):
        market.quote(price, price + spread, 30.6, symbol)
    assert market.held_against()[:2] == market.held_against(put)[:2] == (0.0, 0.0)
    market.minute(31, 100.0, chain=False)
    assert (market.mark(), market.mark(put)) == pytest.approx(marks, abs=0.05)
    assert refused(market, Refusal.UNCONFIRMED) == 2
    market.minute(32, 100.0)
    assert market.held_against().bid == pytest.approx(marks[0], abs=0.1)


@pytest.mark.parametrize("factor", [0.1, 0.2, 10.0])
def test_strikes_far_apart_do_not_vouch_for_a_fraction_of_what_one_between_them_is_worth(
    tmp_path: Path, factor: float
) -> None:
    """At the money the value above intrinsic has a peak that the strikes around do not show."""
    with desk(tmp_path) as market:
        far = [each for each in LISTING if each.strike % 5 == 0]
        market.env.list_contracts(SYMBOL, far)
        market.chain(30, 100.0, without=[each.symbol for each in LISTING if each not in far])
        market.minute(30, 100.0, chain=False)
        for symbol in (CALL, "O:ACME260206P00100000"):
            before = market.mark(symbol)
            market.quote(before * factor, before * factor + 0.04, 30.5, symbol)
            market.minute(31, 100.0, chain=False)
            assert market.held_against(symbol)[:2] == (0.0, 0.0)
            assert market.mark(symbol) == before


def test_a_quote_kept_apart_speaks_for_no_other(market: Desk) -> None:
    """Three neighbours go wrong at once: none confirms the others."""
    wrong = [f"O:ACME260206C00{strike}000" for strike in (100, 101, 102)]
    for symbol in wrong:
        market.quote(40.0, 40.1, 30.6, symbol)
    market.minute(31, 100.0, chain=False)
    assert [market.held_against(symbol)[:2] for symbol in wrong] == [(0.0, 0.0)] * 3
