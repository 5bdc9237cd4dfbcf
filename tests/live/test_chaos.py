"""A hundredth of a session's events disturbed: fills and marks are those of the true session."""

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.envs.goog import DAY, FOLDER
from tests.live.chaos import Chaos
from tests.usual import risk_limits
from trading.data.flatfiles import quotes_path
from trading.data.massive.encoding import encode_bar, encode_quotes, frames
from trading.data.massive.server.market_state import DayTotals
from trading.data.massive.server.source import EventSource, ReplaySource, SimulationSource
from trading.data.massive.wire import TapeClock, encode
from trading.envs.catalogue import CLOSE
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.live_env import LiveEnv
from trading.execution.broker import PaperBroker
from trading.execution.journal import Journal
from trading.execution.orders import Fill
from trading.live.bar_clock import BarClock, first_bar_after
from trading.market.calendar import MINUTE_NS, ExchangeCalendar
from trading.market.simulator import SimulatedExchange, UnderlyingSpec

CALENDAR = ExchangeCalendar()
BARS_OFF = 2
"""A mark may be off the true quotes for so many bars."""


def simulated() -> EventSource:
    session = CALENDAR.next_session(DAY.replace(year=2026, month=1, day=4))
    exchange = SimulatedExchange(
        [UnderlyingSpec("GOOG", 700.0, 0.25, n_strikes=15)], session.date, seed=3, step_seconds=20
    )
    return SimulationSource(exchange, session.open_ns)


def real() -> EventSource:
    if not quotes_path(FOLDER, DAY).is_file():
        pytest.skip(f"real session {DAY} of GOOG is absent: no file below {FOLDER}")
    return ReplaySource(FOLDER, DAY, ["GOOG"])


def told(source: EventSource, minutes: int) -> Iterator[bytes]:
    """The frames of a market server: its clock, then what was quoted and traded."""
    totals = DayTotals(700.0, 700.0, 700.0, 700.0)
    end_ns = source.listing.session.open_ns + minutes * MINUTE_NS
    for step in source.steps():
        if step.ts_ns > end_ns:
            return
        rows = np.arange(len(step.quotes.ts_ns))
        bars = [encode_bar(bar, step.ts_ns, totals) for bar in step.bars if bar.symbol == "GOOG"]
        clock = encode([TapeClock(step.ts_ns // 1_000_000)])[1:-1]
        events = bars + encode_quotes(step.quotes, rows, step.listing.symbols)
        for start in range(0, len(events), 200):
            part = events[start : start + 200]
            yield from frames([clock, *part], 1 + len(part))


class Bar(NamedTuple):
    """What an account saw when a bar closed, by contract in the order of the listing."""

    end_ns: int
    mark: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    spot: float
    fills: list[Fill]


class Account:
    """One live market and its account, told frame by frame; it trades by a seed, or not at all."""

    def __init__(self, journal: Journal, source: EventSource, seed: int | None) -> None:
        session = source.listing.session
        account = journal.open_account("paper", 1_000_000.0, session.open_ns)
        limits = risk_limits(
            max_order_notional=1e9, max_contracts_per_order=50, max_orders_per_minute=10_000
        )
        self.broker = PaperBroker(journal, account, DEFAULT_FEES, limits)
        rules = DEFAULT_RULES._replace(initial_capital=1_000_000.0)
        self.env = LiveEnv(("GOOG",), rules, DEFAULT_FEES, CALENDAR, self.broker)
        self.env.begin_session(session)
        self.env.list_contracts("GOOG", source.listing.contracts)
        self.clock = BarClock(
            self.env, first_bar_after(session.open_ns, CALENDAR, MINUTE_NS), MINUTE_NS
        )
        self.rng = None if seed is None else np.random.default_rng(seed)

    @property
    def symbols(self) -> list[str]:
        return list(self.env._markets["GOOG"].chain.symbols)

    def bars(self, stream: Iterator[bytes]) -> Iterator[Bar]:
        for frame in stream:
            self.clock.take(frame)
            while self.clock.due and not self.clock.bar.last:
                yield self.close_bar()

    def close_bar(self) -> Bar:
        bar = self.clock.bar
        mask = self.env.close_bar(bar.end_ns, bar.session).action_mask[0]
        columns = self.env._markets["GOOG"].chain.columns
        seen = [getattr(columns, name).copy() for name in ("mark", "bid", "ask")]
        fills = []
        if self.rng is not None:
            allowed = np.flatnonzero(mask)
            action = CLOSE if mask[CLOSE] and self.rng.random() < 0.5 else self.rng.choice(allowed)
            outcomes = self.env.trade(bar.end_ns, [int(action)])
            fills = [each.result for each in outcomes if isinstance(each.result, Fill)]
        self.clock.advance(first_bar_after(bar.end_ns, CALENDAR, MINUTE_NS))
        return Bar(bar.end_ns, *seen, self.env.spot("GOOG"), fills)


@contextmanager
def account(folder: Path, source: EventSource, seed: int | None = None) -> Iterator[Account]:
    folder.mkdir()
    with Journal(folder / "journal.sqlite") as journal:
        journal._connection.execute("PRAGMA synchronous = OFF")
        yield Account(journal, source, seed)


class Truth:
    """True quotes of each contract, as far back as one that came whole.

    What is lost on the way cannot be known: until the next quote of a contract comes whole, the one
    before counts too.
    """

    def __init__(self, symbols: list[str], disturbed: set[tuple[str, int]]) -> None:
        self.symbols, self.disturbed = symbols, disturbed
        self.low = np.full(len(symbols), np.inf)
        self.high = np.full(len(symbols), -np.inf)
        self.touches: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=3)

    def follow(self, bar: Bar, quote_ms: np.ndarray, is_new: np.ndarray) -> None:
        whole = np.array(
            [
                bool(new) and (symbol, int(ms)) not in self.disturbed
                for symbol, ms, new in zip(self.symbols, quote_ms, is_new, strict=True)
            ]
        )
        # A side that is missing bounds nothing.
        low = np.fmin(np.where(bar.bid > 0, bar.bid, 0.0), bar.mark)
        high = np.fmax(np.where(bar.ask > 0, bar.ask, np.inf), bar.mark)
        self.low = np.where(whole, low, np.fmin(self.low, low))
        self.high = np.where(whole, high, np.fmax(self.high, high))
        self.touches.append((bar.end_ns, bar.bid, bar.ask))

    def off(self, marks: np.ndarray) -> np.ndarray:
        """Which marks lie outside of the true quotes."""
        known = self.high > 0.0
        with np.errstate(invalid="ignore"):
            return known & ~((marks >= self.low - 1e-6) & (marks <= self.high + 1e-6))

    def check(self, fill: Fill, spot: float) -> None:
        """Every leg traded at a true touch that was not too old to trade on."""
        place = {symbol: i for i, symbol in enumerate(self.symbols)}
        for leg in fill.legs:
            if leg.symbol == "GOOG":
                assert leg.price == pytest.approx(spot, rel=0.005), fill
                continue
            i = place[leg.symbol]
            side = [(ask if leg.quantity > 0 else bid)[i] for _, bid, ask in self.touches]
            assert any(leg.price == pytest.approx(price, abs=1e-6) for price in side), (fill, side)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("make", "minutes"), [(simulated, 60), (real, 210)])
def test_a_disturbed_session_has_the_marks_and_fills_of_the_true_one(
    tmp_path: Path, make: object, minutes: int
) -> None:
    source: EventSource = make()  # type: ignore[operator]
    chaos = Chaos(np.random.default_rng(7), share=0.01)
    fills = []
    with (
        account(tmp_path / "true", source) as true,
        account(tmp_path / "disturbed", source, seed=5) as other,
    ):
        truth = Truth(true.symbols, chaos.disturbed)
        before_ns = np.zeros(len(true.symbols), dtype=np.int64)
        off_for = np.zeros(len(true.symbols), dtype=np.int64)
        disturbed = other.bars(chaos.frames(told(source, minutes)))
        bars = 0
        for right in true.bars(told(source, minutes)):
            seen = next(disturbed)
            assert seen.end_ns == right.end_ns, "no bar is closed early, late or twice"
            quote_ns = true.env._markets["GOOG"].chain.columns.quote_ns
            truth.follow(right, quote_ns // 1_000_000, quote_ns > before_ns)
            before_ns = quote_ns.copy()
            off_for = np.where(truth.off(seen.mark), off_for + 1, 0)
            assert off_for.max() <= BARS_OFF, [
                (true.symbols[i], seen.mark[i], truth.low[i], truth.high[i])
                for i in np.flatnonzero(off_for > BARS_OFF)
            ]
            assert seen.spot == pytest.approx(right.spot, rel=0.005)
            for fill in seen.fills:
                truth.check(fill, right.spot)
            fills += seen.fills
            bars += 1
        refused = Counter(other.clock.refused())
        assert true.clock.refused()["malformed"] == true.clock.refused()["ahead"] == 0
        assert vars(other.broker.journal.fold()) == vars(other.broker.account)
    assert bars >= minutes - 2
    assert len(fills) > minutes // 6
    assert all(chaos.counts.values()), chaos.counts
    assert refused["ahead"] and refused["older"] and refused["malformed"]
