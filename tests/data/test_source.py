"""Sources of events: a simulated exchange without end, and a recorded day."""

import asyncio
import gzip
from collections.abc import Iterator
from datetime import date
from itertools import pairwise, takewhile
from pathlib import Path

import numpy as np
import pytest

from trading.data.flatfiles import minute_bars_path, quotes_path
from trading.data.massive.columns import Quotes, Trades
from trading.data.massive.server.server import MarketServer
from trading.data.massive.server.simulated_trades import (
    MINUTE_NS,
    MinuteBarBuilder,
    SimulatedTrades,
)
from trading.data.massive.server.source import ReplaySource, SimulationSource, SourceStep
from trading.errors import CalendarError, FlatFileError
from trading.market.calendar import ExchangeCalendar, Session
from trading.market.simulator import SimulatedExchange, UnderlyingSpec

SHARED = Path(__file__).parents[2].parent / "shared"
FLATFILES = SHARED / "data" / "flatfiles"
GOOG_DAY = date(2015, 12, 24)
SECOND_NS = 1_000_000_000
CALENDAR = ExchangeCalendar()


def session_on(day: date) -> Session:
    session = CALENDAR.session_on(day)
    assert session is not None
    return session


FRIDAY = session_on(date(2026, 1, 9))
MONDAY = session_on(date(2026, 1, 12))


def exchange(step_seconds: int = 30) -> SimulatedExchange:
    specs = [
        UnderlyingSpec("SPY", 680.0, 0.15, n_strikes=5),
        UnderlyingSpec("QQQ", 610.0, 0.20, n_strikes=5),
    ]
    return SimulatedExchange(specs, FRIDAY.date, 7, calendar=CALENDAR, step_seconds=step_seconds)


def until(steps: Iterator[SourceStep], ts_ns: int) -> list[SourceStep]:
    return list(takewhile(lambda step: step.ts_ns <= ts_ns, steps))


def assert_same_step(one: SourceStep, other: SourceStep) -> None:
    assert (one.ts_ns, one.bars) == (other.ts_ns, other.bars)
    assert one.listing.symbols == other.listing.symbols
    for left, right in zip(one.quotes + one.trades, other.quotes + other.trades, strict=True):
        np.testing.assert_array_equal(left, right)


# Simulation


def test_simulated_time_rises_and_no_event_is_later_than_its_step() -> None:
    source = SimulationSource(exchange(), FRIDAY.open_ns)
    steps = until(source.steps(), FRIDAY.open_ns + 30 * MINUTE_NS)
    assert len(steps) == 61
    assert all(before.ts_ns < after.ts_ns for before, after in pairwise(steps))
    for step in steps:
        assert np.all(step.quotes.ts_ns <= step.ts_ns)
        assert np.all(np.diff(step.quotes.ts_ns) >= 0)
        assert np.all(step.trades.ts_ns <= step.ts_ns)


def test_sequence_numbers_rise_over_the_whole_session() -> None:
    steps = until(SimulationSource(exchange(), FRIDAY.open_ns).steps(), FRIDAY.close_ns)
    sequence = np.concatenate(
        [numbers for step in steps for numbers in (step.quotes.sequence, step.trades.sequence)]
    )
    assert np.all(np.diff(sequence) > 0)


def test_every_underlying_has_a_bar_of_every_minute() -> None:
    steps = until(SimulationSource(exchange(), FRIDAY.open_ns).steps(), FRIDAY.close_ns)
    bars = [
        (bar.symbol, bar.start_ns)
        for step in steps
        for bar in step.bars
        if not bar.symbol.startswith("O:")
    ]
    minutes = range(FRIDAY.open_ns, FRIDAY.close_ns, MINUTE_NS)
    assert sorted(bars) == sorted((name, ts) for name in ("SPY", "QQQ") for ts in minutes)
    assert all(bar.start_ns + MINUTE_NS == step.ts_ns for step in steps for bar in step.bars)


def test_option_trades_happen_at_the_touch_and_make_the_option_bars() -> None:
    source = SimulationSource(exchange(), FRIDAY.open_ns)
    steps = until(source.steps(), FRIDAY.close_ns)
    bid, ask = np.zeros((2, len(source.listing.symbols)))
    volume = 0
    for step in steps:
        bid[step.quotes.contract] = step.quotes.bid
        ask[step.quotes.contract] = step.quotes.ask
        at_bid = step.trades.price == bid[step.trades.contract]
        at_ask = step.trades.price == ask[step.trades.contract]
        assert np.all(at_bid | at_ask)
        assert np.all(step.trades.size >= 1)
        in_a_bar = step.trades.ts_ns < FRIDAY.close_ns
        volume += int(step.trades.size[in_a_bar].sum())
    bars = [bar for step in steps for bar in step.bars if bar.symbol.startswith("O:")]
    assert volume > 0
    assert sum(bar.volume for bar in bars) == volume
    assert all(bar.low <= bar.vwap <= bar.high for bar in bars)


def test_equal_seeds_give_equal_worlds_at_every_call() -> None:
    end_ns = FRIDAY.open_ns + 10 * MINUTE_NS
    source = SimulationSource(exchange(), FRIDAY.open_ns, seed=3)
    again = SimulationSource(exchange(), FRIDAY.open_ns, seed=3)
    for steps in (source.steps(), again.steps()):
        for one, other in zip(until(source.steps(), end_ns), until(steps, end_ns), strict=True):
            assert_same_step(one, other)


def test_a_later_start_continues_the_same_world() -> None:
    start_ns = FRIDAY.open_ns + 90 * MINUTE_NS + 10 * SECOND_NS
    late = SimulationSource(exchange(), start_ns)
    assert late.start_ns == start_ns
    whole = SimulationSource(exchange(), FRIDAY.open_ns)
    end_ns = start_ns + 10 * MINUTE_NS
    for one, other in zip(until(late.steps(), end_ns), until(whole.steps(), end_ns), strict=True):
        assert_same_step(one, other)


@pytest.mark.parametrize(
    "start_ns",
    [FRIDAY.close_ns, FRIDAY.close_ns + 3_600 * SECOND_NS, MONDAY.open_ns - SECOND_NS],
)
def test_a_start_outside_a_session_waits_for_the_next_open(start_ns: int) -> None:
    source = SimulationSource(exchange(), start_ns)
    assert source.start_ns == MONDAY.open_ns
    assert source.listing.session == MONDAY
    assert next(source.steps()).ts_ns == MONDAY.open_ns


def test_the_clock_jumps_from_the_close_to_the_next_open() -> None:
    steps = until(SimulationSource(exchange(), FRIDAY.open_ns).steps(), MONDAY.open_ns)
    assert [step.ts_ns for step in steps[-2:]] == [FRIDAY.close_ns, MONDAY.open_ns]
    assert steps[-2].listing.session == FRIDAY
    assert steps[-1].listing.session == MONDAY
    held = {contract for contract in steps[0].listing.contracts if contract.expiry > FRIDAY.date}
    assert held <= set(steps[-1].listing.contracts)


def test_a_start_before_the_first_session_is_refused() -> None:
    with pytest.raises(CalendarError):
        SimulationSource(exchange(), FRIDAY.open_ns - 24 * 3_600 * SECOND_NS)


def test_a_server_knows_the_past_of_the_session_it_begins_in() -> None:
    start_ns = FRIDAY.open_ns + 30 * MINUTE_NS
    source = SimulationSource(exchange(), start_ns)

    async def body() -> None:
        server = MarketServer(source, ["key"])
        await server.start()
        try:
            state = server.state
            assert state.now_ns == start_ns
            assert np.all(state.quote_ns > 0)
            assert np.all(state.quote_ns <= start_ns)
            # The step at the start itself, with the bar of the thirtieth minute, is streamed.
            assert len(state.bars("SPY")) == 29
        finally:
            await server.stop()

    asyncio.run(asyncio.wait_for(body(), 60))


# Tape


def quotes_of(bid: float, ask: float, size: int, count: int = 1) -> Quotes:
    whole = np.ones(count, np.int64)
    return Quotes(
        contract=np.arange(count),
        bid=np.full(count, bid),
        ask=np.full(count, ask),
        bid_size=size * whole,
        ask_size=size * whole,
        ts_ns=MINUTE_NS * whole,
        sequence=np.arange(1, count + 1),
    )


@pytest.mark.parametrize(
    ("bid", "ask", "size"), [(0.0, 1.0, 5), (1.0, 0.0, 5), (1.0, 1.0, 5), (1.0, 1.1, 0)]
)
def test_no_trade_happens_on_an_absent_locked_or_empty_quote(
    bid: float, ask: float, size: int
) -> None:
    tape = SimulatedTrades(0, probability=1.0)
    assert len(tape.trades(MINUTE_NS, quotes_of(bid, ask, size, 50)).price) == 0


def test_no_trade_is_larger_than_the_displayed_size() -> None:
    trades = SimulatedTrades(0, probability=1.0).trades(MINUTE_NS, quotes_of(1.0, 1.1, 2, 200))
    assert set(trades.size.tolist()) == {1, 2}
    assert set(trades.price.tolist()) == {1.0, 1.1}
    assert trades.sequence.tolist() == list(range(201, 401))


def trades_at(*rows: tuple[int, float, int]) -> Trades:
    ts_ns, price, size = zip(*rows, strict=True)
    return Trades(
        contract=np.zeros(len(rows), np.int64),
        price=np.array(price),
        size=np.array(size),
        ts_ns=np.array(ts_ns),
        sequence=np.arange(len(rows)),
    )


def test_a_minute_bar_comes_when_its_window_has_ended_and_only_with_trades() -> None:
    minutes = MinuteBarBuilder(["O:SPY260109C00600000"])
    assert minutes.advance(30 * SECOND_NS, trades_at((10 * SECOND_NS, 2.0, 1))) == []
    inside = trades_at((40 * SECOND_NS, 3.0, 2), (MINUTE_NS, 1.0, 1))
    (bar,) = minutes.advance(MINUTE_NS, inside)
    assert (bar.start_ns, bar.open, bar.high, bar.low, bar.close) == (0, 2.0, 3.0, 2.0, 3.0)
    assert (bar.volume, bar.vwap) == (3.0, 2.6667)
    (bar,) = minutes.advance(2 * MINUTE_NS, Trades.none())
    assert (bar.start_ns, bar.close) == (MINUTE_NS, 1.0)
    assert minutes.advance(3 * MINUTE_NS, Trades.none()) == []


# Replay


@pytest.fixture(scope="module")
def goog_replay() -> ReplaySource:
    if not quotes_path(FLATFILES, GOOG_DAY).is_file():
        pytest.skip(f"real session {GOOG_DAY} of GOOG is absent: no file below {FLATFILES}")
    return ReplaySource(FLATFILES, GOOG_DAY, ["GOOG"])


def test_a_replay_yields_every_recorded_event_once_in_order_of_time(
    goog_replay: ReplaySource,
) -> None:
    steps = list(goog_replay.steps())
    assert sum(len(step.quotes.ts_ns) for step in steps) == 275_552
    assert sum(len(step.bars) for step in steps) == 227
    assert all(before.ts_ns < after.ts_ns for before, after in pairwise(steps))
    previous_ns = goog_replay.start_ns - 1
    for step in steps:
        assert np.all((step.quotes.ts_ns > previous_ns) & (step.quotes.ts_ns <= step.ts_ns))
        previous_ns = step.ts_ns


def test_a_replayed_half_day_has_its_own_close(goog_replay: ReplaySource) -> None:
    session = goog_replay.listing.session
    assert session.close_ns - session.open_ns == 210 * MINUTE_NS
    assert goog_replay.start_ns <= session.open_ns


def write_recorded_day(folder: Path, day: date) -> None:
    quotes = (
        "ticker,ask_exchange,ask_price,ask_size,bid_exchange,bid_price,bid_size,"
        "sequence_number,sip_timestamp\n"
        f"O:SPY260116C00680000,1,1.25,3,1,1.20,4,2,{FRIDAY.open_ns + 1_500_000_000}\n"
        f"O:SPY260116C00680000,1,1.30,3,1,1.20,4,3,{FRIDAY.open_ns + 2_000_000_000}\n"
        f"O:SPY260116P00680000,1,9.30,3,1,9.20,4,1,{FRIDAY.open_ns + 2_000_000_001}\n"
    )
    header = "ticker,volume,open,close,high,low,window_start,transactions\n"
    stocks = f"{header}SPY,100,680,681,682,679,{FRIDAY.open_ns},3\n"
    options = f"{header}O:SPY260116C00680000,2,1,1,1,1,{FRIDAY.open_ns},1\n"
    for path, text in (
        (quotes_path(folder, day), quotes),
        (minute_bars_path(folder, day), stocks),
        (minute_bars_path(folder, day, "options"), options),
    ):
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress(text.encode()))


def test_recorded_seconds_become_steps_with_stock_and_option_bars(tmp_path: Path) -> None:
    write_recorded_day(tmp_path, FRIDAY.date)
    source = ReplaySource(tmp_path, FRIDAY.date, ["SPY"], calendar=CALENDAR)
    steps = list(source.steps())
    seconds = [(step.ts_ns - FRIDAY.open_ns) // SECOND_NS for step in steps]
    assert seconds == [2, 3, 60]
    assert [len(step.quotes.ts_ns) for step in steps] == [2, 1, 0]
    assert [bar.symbol for bar in steps[-1].bars] == ["SPY", "O:SPY260116C00680000"]
    assert source.start_ns == FRIDAY.open_ns


def test_a_day_without_a_session_cannot_be_replayed(tmp_path: Path) -> None:
    with pytest.raises(FlatFileError, match="2026-01-10"):
        ReplaySource(tmp_path, date(2026, 1, 10), ["SPY"], calendar=CALENDAR)


def test_a_day_without_files_names_the_missing_one(tmp_path: Path) -> None:
    with pytest.raises(FlatFileError, match="quotes_v1"):
        ReplaySource(tmp_path, FRIDAY.date, ["SPY"], calendar=CALENDAR)
