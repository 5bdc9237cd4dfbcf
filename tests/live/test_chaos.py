"""A hundredth of a session's events disturbed: no restart, and no mark far off the true one."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.envs.desk import CALENDAR, SYMBOL, Desk, desk, session
from tests.live.chaos import Chaos
from trading.data.massive.encoding import encode_bar, encode_quotes, frames
from trading.data.massive.market_state import DayTotals
from trading.data.massive.source import SimulationSource
from trading.data.massive.wire import TapeClock, encode
from trading.live.bar_clock import BarClock, first_bar_after
from trading.market.calendar import MINUTE_NS
from trading.market.simulator import SimulatedExchange, UnderlyingSpec

MINUTES = 60


def source() -> SimulationSource:
    spec = UnderlyingSpec(SYMBOL, 100.0, 0.25, n_strikes=15)
    exchange = SimulatedExchange([spec], session().date, seed=3, step_seconds=20)
    return SimulationSource(exchange, session().open_ns)


def told(market: SimulationSource) -> Iterator[bytes]:
    totals = DayTotals(100.0, 100.0, 100.0, 100.0)
    for step in market.steps():
        if step.ts_ns > session().open_ns + MINUTES * MINUTE_NS:
            return
        rows = np.arange(len(step.quotes.ts_ns))
        bars = [encode_bar(bar, step.ts_ns, totals) for bar in step.bars if bar.symbol == SYMBOL]
        clock = encode([TapeClock(step.ts_ns // 1_000_000)])[1:-1]
        events = bars + encode_quotes(step.quotes, rows, step.listing.symbols)
        yield from frames([clock, *events], 1 + len(events))


def marks(market: Desk, stream: Iterator[bytes]) -> tuple[list[np.ndarray], BarClock]:
    """Marks at every bar; the market's listing is that of the simulation."""
    clock = BarClock(market.env, first_bar_after(session().open_ns, CALENDAR, MINUTE_NS), MINUTE_NS)
    seen = []
    for frame in stream:
        clock.take(frame)
        while clock.due:
            market.env.close_bar(clock.bar.end_ns, clock.bar.session)
            chain = market.env._markets[SYMBOL].chain
            seen.append(np.append(chain.columns.mark, market.env.spot(SYMBOL)))
            clock.advance(first_bar_after(clock.bar.end_ns, CALENDAR, MINUTE_NS))
    return seen, clock


def test_a_disturbed_session_ends_as_the_undisturbed_one(tmp_path: Path) -> None:
    chaos = Chaos(np.random.default_rng(7), share=0.01)
    listing = source().listing.contracts
    with desk(tmp_path / "true") as true, desk(tmp_path / "disturbed") as disturbed:
        for one in (true, disturbed):
            one.env.list_contracts(SYMBOL, listing)
        right, undisturbed = marks(true, told(source()))
        seen, clock = marks(disturbed, chaos.frames(told(source())))
    assert sum(undisturbed.refused().values()) == 0
    assert all(chaos.counts.values()), chaos.counts
    assert len(seen) == len(right) == MINUTES - 1
    refused = Counter(clock.refused())
    assert refused["ahead"] and refused["older"] and refused["malformed"]
    off = np.abs(np.array(seen) - np.array(right))
    wrong = off > 1.5
    assert not np.any(wrong[2:] & wrong[1:-1] & wrong[:-2]), "for more than two bars"
