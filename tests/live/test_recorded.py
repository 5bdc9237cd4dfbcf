"""A live session that is recorded, and told again from its recording."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.live.market import DAY, FirstMinutes, Run, serving, settings_for, trade
from trading.data.flatfiles import quotes_path
from trading.data.massive.encoding import encode_bar, encode_quotes, frames
from trading.data.massive.server.market_state import DayTotals
from trading.data.massive.server.source import ReplaySource, SimulationSource
from trading.data.recorded_session import RecordedBars, RecordedQuotes, RecordedSession
from trading.data.recording import Recorder, load_recording
from trading.envs.live_env import LiveEnv
from trading.envs.market_features import HISTORY_BARS
from trading.execution.broker import PaperBroker
from trading.execution.events import DecisionMade
from trading.execution.journal import Journal
from trading.live import assembly
from trading.live.bar_clock import BarClock, first_bar_after
from trading.live.recorded import recorded_env
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, ExchangeCalendar, Session
from trading.market.contracts import OptionContract, Right
from trading.market.corporate_actions import Split
from trading.market.option_quote import OptionQuote
from trading.market.simulator import SimulatedExchange, UnderlyingSpec

MINUTES = 12
SYMBOLS = ("AAA", "BBB")
CALENDAR = ExchangeCalendar()
SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "flatfiles"
GOOG_DAY = date(2015, 12, 24)


def recorded_run(folder: Path) -> Run:
    settings = settings_for(folder, "data.record=true")
    with (
        assembly.recorder(settings) or pytest.fail("nothing is recorded") as recorder,
        serving(FirstMinutes(MINUTES)) as (endpoint, begin),
    ):
        return trade(settings, endpoint, begin, recorder=recorder)


def test_nothing_is_recorded_unless_asked_for(tmp_path: Path) -> None:
    assert assembly.recorder(settings_for(tmp_path)) is None
    assert not (tmp_path / "recordings").exists()


def test_recording_changes_nothing(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "plain")
    with serving(FirstMinutes(MINUTES)) as (endpoint, begin):
        plain = trade(settings, endpoint, begin)
    assert recorded_run(tmp_path / "recorded").digest == plain.digest


def test_a_recorded_session_told_again_gives_the_same_equity_to_the_last_bit(
    tmp_path: Path,
) -> None:
    live = recorded_run(tmp_path)
    sessions = [load_recording(tmp_path / "recordings", DAY, symbol) for symbol in SYMBOLS]
    for session in sessions:
        assert session.bar_end_ns.tolist() == live.bars.ends
        assert len(session.quotes.ts_ns) > MINUTES * len(session.contracts) / 10
        assert session.bars.bar.tolist() == list(range(MINUTES))
        assert np.all(session.quotes.ts_ns <= session.bar_end_ns[session.quotes.bar])
    with Journal(assembly.journal_path(settings_for(tmp_path)), read_only=True) as journal:
        decisions = [each for each in journal.events() if isinstance(each, DecisionMade)]
    assert retold_equity(tmp_path / "again", sessions, decisions) == live.bars.equity


def retold_equity(
    folder: Path, sessions: list[RecordedSession], decisions: list[DecisionMade]
) -> list[float]:
    """Equity after every bar, from recordings and the actions that were chosen."""
    settings = settings_for(folder)
    folder.mkdir()
    with Journal(assembly.journal_path(settings)) as journal:
        opened_ns = sessions[0].session.open_ns
        account = journal.open_account("paper", settings.account.initial_capital, opened_ns)
        fees, rules = assembly.fee_schedule(settings), assembly.trading_rules(settings)
        broker = PaperBroker(journal, account, fees, assembly.risk_limits(settings))
        env = LiveEnv(settings.symbols, rules, fees, CALENDAR, broker)
        env.begin_session(sessions[0].session)
        for each in sessions:
            env.warm_up(each.underlying, each.warm_up.stock_bars(each.underlying))
            env.list_contracts(each.underlying, each.contracts)
        equity = []
        for bar, end_ns in enumerate(sessions[0].bar_end_ns.tolist()):
            for each in sessions:
                tell(env, each, bar)
            env.close_bar(end_ns, sessions[0].session)
            env.trade(end_ns, [each.action for each in decisions if each.ts_ns == end_ns])
            equity.append(env.equity())
        return equity


def tell(env: LiveEnv, session: RecordedSession, bar: int) -> None:
    """Apply the events of one bar."""
    quotes = session.quotes
    for row in np.flatnonzero(quotes.bar == bar).tolist():
        symbol = session.contracts[quotes.contract[row]].symbol
        quote = OptionQuote(symbol, *(column[row].item() for column in quotes[1:7]))
        assert env.apply_quote(quote)
    stock_bars = session.bars.stock_bars(session.underlying)
    for row in np.flatnonzero(session.bars.bar == bar).tolist():
        assert env.apply_bar(stock_bars[row])


def test_the_second_session_of_a_process_is_told_again_from_its_own_recording(
    tmp_path: Path,
) -> None:
    monday, tuesday = CALENDAR.sessions(DAY, DAY + timedelta(days=1))
    source = SimulationSource(
        SimulatedExchange(
            [UnderlyingSpec(symbol, 100.0, 0.25, n_strikes=9) for symbol in SYMBOLS],
            DAY,
            seed=3,
            step_seconds=20,
        ),
        monday.close_ns - 20 * MINUTE_NS,
    )
    with (
        Recorder(tmp_path / "recordings", history_bars=HISTORY_BARS, waits=True) as recorder,
        untraded_env(tmp_path / "live.sqlite") as bare,
    ):
        env = recorded_env(bare, recorder)
        seen = {}
        for session, last_ns in (
            (monday, monday.close_ns),
            (tuesday, tuesday.open_ns + MINUTES * MINUTE_NS),
        ):
            recorder.begin_session(session)
            env.begin_session(session)
            seen[session.date] = simulated_observations(env, source, session, last_ns)
    with untraded_env(tmp_path / "again.sqlite") as env:
        sessions = [
            load_recording(tmp_path / "recordings", tuesday.date, symbol) for symbol in SYMBOLS
        ]
        assert all((each.quotes.sequence == -1).any() for each in sessions)
        env.begin_session(tuesday)
        for each in sessions:
            env.warm_up(each.underlying, each.warm_up.stock_bars(each.underlying))
            env.list_contracts(each.underlying, each.contracts)
        again = []
        for bar, end_ns in enumerate(sessions[0].bar_end_ns.tolist()):
            for each in sessions:
                tell(env, each, bar)
            again.append(env.close_bar(end_ns, tuesday).observations)
    assert len(again) == MINUTES
    np.testing.assert_array_equal(again, seen[tuesday.date])


def test_a_session_after_a_split_is_told_again_from_its_own_recording(tmp_path: Path) -> None:
    monday, tuesday = CALENDAR.sessions(DAY, DAY + timedelta(days=1))
    with (
        Recorder(tmp_path / "recordings", history_bars=HISTORY_BARS, waits=True) as recorder,
        untraded_env(tmp_path / "live.sqlite") as bare,
    ):
        env = recorded_env(bare, recorder)
        env.set_actions([Split(symbol, tuesday.date, 10, 1) for symbol in SYMBOLS])
        seen = {}
        for session, price in ((monday, 100.0), (tuesday, 10.0)):
            recorder.begin_session(session)
            env.begin_session(session)
            seen[session.date] = told_by_hand(env, session, price)
            env.close_session(session.close_ns, session, 0.0)
        assert bare.broker.account.suspensions == {}
    with untraded_env(tmp_path / "again.sqlite") as env:
        sessions = [
            load_recording(tmp_path / "recordings", tuesday.date, symbol) for symbol in SYMBOLS
        ]
        env.begin_session(tuesday)
        for each in sessions:
            closes = each.warm_up.close
            assert len(closes) and np.abs(closes - 10.0).max() < 1.0
            env.warm_up(each.underlying, each.warm_up.stock_bars(each.underlying))
            env.list_contracts(each.underlying, each.contracts)
        again = []
        for bar, end_ns in enumerate(sessions[0].bar_end_ns.tolist()):
            for each in sessions:
                tell(env, each, bar)
            again.append(env.close_bar(end_ns, tuesday).observations)
    np.testing.assert_array_equal(again, seen[tuesday.date])


def told_by_hand(env: LiveEnv, session: Session, price: float) -> list[np.ndarray]:
    """What the first bars of a session show, whose prices move by a percent a minute."""
    expiry = session.date + timedelta(days=11)
    for symbol in SYMBOLS:
        strikes = [round(price * each * 10) for each in range(95, 106)]
        env.list_contracts(
            symbol,
            [
                OptionContract(symbol, expiry, right, strike)
                for strike in strikes
                for right in Right
            ],
        )
    seen = []
    for minute in range(1, 6):
        now_ns = session.open_ns + minute * MINUTE_NS
        spot = price * (1.0 + 0.01 * (minute % 2))
        for symbol in SYMBOLS:
            for contract in env.listed_contracts(symbol):
                value = max(int(contract.right) * (spot - contract.strike), 0.0) + 0.02 * price
                bid, ask = round(0.99 * value, 2), round(1.01 * value, 2) + 0.01
                quote = OptionQuote(contract.symbol, bid, ask, 10.0, 10.0, now_ns, minute)
                env.apply_quote(quote)
            env.apply_bar(StockBar(symbol, now_ns - MINUTE_NS, spot, spot, spot, spot, 100.0, spot))
        seen.append(env.close_bar(now_ns, session).observations)
    return seen


@contextmanager
def untraded_env(journal_path: Path) -> Iterator[LiveEnv]:
    """A live environment of a new account."""
    settings = settings_for(journal_path.parent)
    with Journal(journal_path) as journal:
        account = journal.open_account("paper", 100_000.0, 1)
        fees, rules = assembly.fee_schedule(settings), assembly.trading_rules(settings)
        broker = PaperBroker(journal, account, fees, assembly.risk_limits(settings))
        yield LiveEnv(SYMBOLS, rules, fees, CALENDAR, broker)


def simulated_observations(
    env: LiveEnv, source: SimulationSource, session: Session, last_ns: int
) -> list[np.ndarray]:
    """List the session and tell its steps up to `last_ns`; what each bar showed.

    After the close a bar of the evening is told.
    """
    begun_ns = max(source.start_ns, session.open_ns)
    ahead = dropwhile(lambda step: step.ts_ns <= begun_ns, source.steps())
    observations = []
    listed = False
    for step in takewhile(lambda step: step.ts_ns <= last_ns, ahead):
        if not listed:
            for symbol in SYMBOLS:
                contracts = [each for each in step.listing.contracts if each.underlying == symbol]
                env.list_contracts(symbol, contracts)
            listed = True
        for row in range(len(step.quotes.ts_ns)):
            contract, *quote = (column[row].item() for column in step.quotes)
            env.apply_quote(OptionQuote(step.listing.symbols[contract], *quote))
        for bar in step.bars:
            env.apply_bar(bar)
        if step.ts_ns % MINUTE_NS == 0:
            observations.append(env.close_bar(step.ts_ns, session).observations)
    if last_ns == session.close_ns:
        for symbol in SYMBOLS:
            env.apply_bar(StockBar(symbol, last_ns, 101.0, 102.0, 99.0, 101.5, 10.0, 101.0))
    return observations


# A real session


@dataclass
class Ears:
    """An environment that accepts everything and remembers it."""

    symbols: tuple[str, ...] = ("GOOG",)
    quotes: list[OptionQuote] = field(default_factory=list)
    bars: list[StockBar] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)

    def list_contracts(self, underlying: str, contracts: Any) -> None:
        self.listed = [contract.symbol for contract in contracts]

    def listed_symbols(self) -> list[str]:
        return self.listed

    def apply_quote(self, quote: OptionQuote) -> bool:
        self.quotes.append(quote)
        return True

    def apply_bar(self, bar: StockBar) -> bool:
        self.bars.append(bar)
        return True

    def close_bar(self, now_ns: int, session: Session) -> None:
        pass

    def spot(self, underlying: str) -> float:
        return self.bars[-1].close if self.bars else float("nan")


def test_a_real_day_streamed_and_recorded_is_the_day_of_the_flat_files(tmp_path: Path) -> None:
    if not quotes_path(SHARED, GOOG_DAY).is_file():
        pytest.skip(f"real session {GOOG_DAY} of GOOG is absent: no file below {SHARED}")
    source = ReplaySource(SHARED, GOOG_DAY, ["GOOG"])
    ears = Ears()
    with Recorder(tmp_path, waits=True) as recorder:
        stream_through_a_bar_clock(source, ears, recorder)
    recorded = load_recording(tmp_path, GOOG_DAY, "GOOG")
    history = RecordedSession.from_flat_files(SHARED, GOOG_DAY, "GOOG", CALENDAR)
    assert recorded.is_complete
    assert recorded.contracts == history.contracts
    np.testing.assert_array_equal(recorded.bar_end_ns, history.bar_end_ns)
    assert_same_columns(recorded.quotes, history.quotes)
    assert_same_columns(recorded.bars, history.bars)
    columns = [column.tolist() for column in recorded.quotes[1:7]]
    symbols = [recorded.contracts[i].symbol for i in recorded.quotes.contract.tolist()]
    told = [quote for quote in ears.quotes if quote.ts_ns <= recorded.session.close_ns]
    assert [OptionQuote(*each) for each in zip(symbols, *columns, strict=True)] == told


def stream_through_a_bar_clock(source: ReplaySource, ears: Ears, recorder: Recorder) -> None:
    """Tell `ears` the day as live trading does; events after the close stay untold."""
    env = recorded_env(ears, recorder)  # type: ignore[arg-type]
    session = source.listing.session
    recorder.begin_session(session)
    env.list_contracts("GOOG", source.listing.contracts)
    clock = BarClock(env, first_bar_after(source.start_ns, CALENDAR, MINUTE_NS), MINUTE_NS)
    for frame in encoded(source):
        clock.take(frame)
        while clock.due and clock.bar.session == session:
            close(env, clock)
    while clock.bar.session == session:
        close(env, clock)


def close(env: LiveEnv, clock: BarClock) -> None:
    env.close_bar(clock.bar.end_ns, clock.bar.session)
    clock.advance(first_bar_after(clock.bar.end_ns, CALENDAR, MINUTE_NS))


def encoded(source: ReplaySource) -> Iterator[bytes]:
    totals = DayTotals(1.0, 1.0, 1.0, 1.0)
    for step in source.steps():
        rows = np.arange(len(step.quotes.ts_ns))
        bars = [encode_bar(bar, bar.start_ns + MINUTE_NS, totals) for bar in step.bars]
        yield from frames(bars + encode_quotes(step.quotes, rows, step.listing.symbols), 500)


def assert_same_columns(
    one: RecordedQuotes | RecordedBars, other: RecordedQuotes | RecordedBars
) -> None:
    for name, column in one._asdict().items():
        np.testing.assert_array_equal(column, getattr(other, name), name)
