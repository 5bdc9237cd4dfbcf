"""A market is found again from sessions that it made."""

from datetime import date

import numpy as np
import pytest

from trading.errors import DataError
from trading.market.calendar import MINUTE_NS, ExchangeCalendar
from trading.market.chain import Chain
from trading.market.model import DEFAULT_MODEL
from trading.market.quotes import TickClass
from trading.market.recorded_market import SampledSession, fit, sample_session
from trading.market.simulator import SimulatedExchange, UnderlyingSpec

CALENDAR = ExchangeCalendar()
FIRST = date(2026, 1, 5)
_MADE = DEFAULT_MODEL._replace(
    spread_scale=2.5, size_mean=90.0, calm_skew=-0.08, missing_side=0.1, requote_per_bar=0.6,
    stress_rate=0.0, term_slope=0.0, jump_share=0.0,
)  # fmt: skip


def recorded(days: int) -> list[SampledSession]:
    """Sessions of an exchange as `sample_session` is told them."""
    spec = UnderlyingSpec("AAA", 200.0, 0.35, n_strikes=15, penny=False)
    world = SimulatedExchange([spec], FIRST, 11, _MADE, CALENDAR, 60)
    found = []
    for session in CALENDAR.sessions(FIRST, date(2026, 2, 27))[:days]:
        told = world.session(session.date)
        expiries = [CALENDAR.expiry_ns(each.expiry) for each in told.contracts]
        chain = Chain("AAA", told.contracts, expiries)
        column = np.array([chain.index[each.symbol] for each in told.contracts])
        steps = list(told.steps())
        bars = [bar for step in steps for bar in step.bars]
        names = ("bid", "ask", "bid_size", "ask_size", "quote_ns")
        quotes = [np.concatenate([getattr(step, name) for step in steps]) for name in names]
        at = np.concatenate([column[step.index] for step in steps])
        order = np.argsort(quotes[-1], kind="stable")
        ends = np.array([bar.start_ns + MINUTE_NS for bar in bars])
        closes = np.array([bar.close for bar in bars])
        columns = [each[order] for each in (at, *quotes)]
        found.append(
            sample_session(chain, (ends, closes), columns, session.open_ns, session.close_ns, 38)
        )
    return found


def test_a_market_is_found_again_from_its_own_sessions() -> None:
    found = fit(recorded(3), 0.04, 5)
    model = found.model
    assert found.tick_class is TickClass.PENNY_PROGRAM
    assert model.spread_scale == pytest.approx(2.5, rel=0.2)
    assert model.size_mean == pytest.approx(90.0, rel=0.2)
    assert model.calm_vol == pytest.approx(0.35, rel=0.2)
    assert model.calm_skew == pytest.approx(-0.08, abs=0.03)
    assert model.missing_side == pytest.approx(0.1, abs=0.05)
    assert model.requote_per_bar == pytest.approx(0.6, abs=0.15)
    premium, error = found.premium
    assert abs(premium - DEFAULT_MODEL.calm_premium) < 1.5 * error < 1.0
    spreads = [each for each in found.residuals if "spread" in each.figure.group]
    assert spreads
    middles = [each for each in spreads if each.figure.measure == "50%"]
    assert all(abs(each.fitted / each.recorded - 1.0) < 0.4 for each in middles)


def test_one_session_says_nothing_of_the_premium() -> None:
    found = fit(recorded(1), 0.04, 5)
    assert found.premium[1] == float("inf")
    assert "calm_premium" not in found.values


def test_nothing_recorded_fits_nothing() -> None:
    with pytest.raises(DataError, match="name at least one day"):
        fit([], 0.04, 1)
