"""What an open position would be worth after a shock."""

import math
from datetime import date

import pytest

from trading.market.calendar import ExchangeCalendar
from trading.market.pricing import YEAR_NS, bsm_price
from trading.reporting.stress import SPOTS, VOLATILITIES, HeldLeg, stress, stress_of_status

NOW_NS = 1_767_625_200 * 1_000_000_000
EXPIRY_NS = ExchangeCalendar().expiry_ns(date(2026, 2, 20), "SPY")
T = (EXPIRY_NS - NOW_NS) / YEAR_NS
RATE, IV, SPOT = 0.04, 0.3, 100.0


def leg(right: int, strike: int, contracts: int) -> HeldLeg:
    symbol = f"O:SPY260220{'C' if right > 0 else 'P'}{strike * 1000:08d}"
    mark = bsm_price(right, SPOT, float(strike), T, RATE, 0.0, IV)
    return HeldLeg(symbol, 100.0 * contracts, mark, SPOT)


def test_a_long_call_is_priced_anew_at_its_own_volatility() -> None:
    held = stress([leg(1, 100, 2)], NOW_NS, RATE)
    before = bsm_price(1, SPOT, 100.0, T, RATE, 0.0, IV)
    for v, vol in enumerate(VOLATILITIES):
        for s, spot in enumerate(SPOTS):
            after = bsm_price(1, SPOT * (1 + spot), 100.0, T, RATE, 0.0, IV * (1 + vol))
            after = max(after, SPOT * (1 + spot) - 100.0)
            assert held.changes[v][s] == pytest.approx(200.0 * (after - before), abs=1e-4)
    unmoved = held.changes[VOLATILITIES.index(0.0)][SPOTS.index(0.0)]
    assert unmoved == pytest.approx(0.0, abs=1e-9)


def test_a_credit_spread_loses_no_more_than_its_width() -> None:
    legs = [leg(-1, 95, -1), leg(-1, 90, 1)]
    received = legs[0].mark - legs[1].mark
    worst = min(min(row) for row in stress(legs, NOW_NS, RATE).changes)
    assert -100.0 * (5.0 - received) - 1e-6 <= worst < 0.0


def test_stock_moves_with_its_price_and_not_with_volatility() -> None:
    held = stress([HeldLeg("SPY", -100.0, SPOT, SPOT)], NOW_NS, RATE)
    for row in held.changes:
        assert row == pytest.approx([-100.0 * SPOT * spot for spot in SPOTS])


def test_a_mark_without_time_value_moves_by_its_exercise_value() -> None:
    held = stress([HeldLeg("O:SPY260220C00080000", 100.0, 20.0, SPOT)], NOW_NS, RATE)
    assert held.changes[0][SPOTS.index(0.1)] == pytest.approx(1_000.0)


@pytest.mark.parametrize("broken", [math.nan, None])
def test_a_missing_mark_makes_no_table(broken: float | None) -> None:
    told = {
        "market": {
            "time": "2026-01-05T15:00:00+00:00",
            "risk_free_rate": RATE,
            "underlyings": {"SPY": {"spot": SPOT}},
        },
        "positions": [
            {"underlying": "SPY", "legs": [{"symbol": "SPY", "quantity": 1, "mark": broken}]}
        ],
    }
    assert stress_of_status(told, 100.0) is None
