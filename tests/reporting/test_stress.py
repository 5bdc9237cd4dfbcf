"""What an open position would be worth after a shock."""

import math
from datetime import date

import numpy as np
import pytest

from trading.errors import DataError
from trading.execution.deliverables import Deliverable
from trading.execution.portfolio import Account
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


def american_put(spot: float, strike: float, vol: float, steps: int = 1500) -> float:
    """Value by the tree of Cox, Ross and Rubinstein, which shares nothing with the report's."""
    dt = T / steps
    up = math.exp(vol * math.sqrt(dt))
    chance = (math.exp(RATE * dt) - 1.0 / up) / (up - 1.0 / up)
    nodes = spot * up ** np.arange(-steps, steps + 1.0)
    value = np.maximum(strike - nodes[::2], 0.0)
    for step in range(steps - 1, -1, -1):
        kept = math.exp(-RATE * dt) * (chance * value[1:] + (1.0 - chance) * value[:-1])
        value = np.maximum(kept, strike - nodes[steps - step : steps + step + 1 : 2])
    return float(value[0])


def test_a_put_on_stock_is_priced_as_one_that_may_be_exercised_at_any_time() -> None:
    strike = 112.0
    mark = american_put(SPOT, strike, IV)
    assert mark > bsm_price(-1, SPOT, strike, T, RATE, 0.0, IV) + 0.05
    held = stress([HeldLeg("O:SPY260220P00112000", 100.0, mark, SPOT)], NOW_NS, RATE)
    for vol in (-0.5, 0.0, 0.5):
        for spot in (-0.1, 0.0, 0.1):
            after = american_put(SPOT * (1.0 + spot), strike, IV * (1.0 + vol))
            change = held.changes[VOLATILITIES.index(vol)][SPOTS.index(spot)]
            assert change == pytest.approx(100.0 * (after - mark), abs=1.0)


def test_a_put_on_an_index_may_be_worth_less_than_its_exercise_value() -> None:
    strike = 125.0
    t = (ExchangeCalendar().expiry_ns(date(2026, 2, 20), "SPXW") - NOW_NS) / YEAR_NS
    mark = bsm_price(-1, SPOT, strike, t, RATE, 0.0, IV)
    assert mark < strike - SPOT
    held = stress([HeldLeg("O:SPXW260220P00125000", 100.0, mark, SPOT)], NOW_NS, RATE)
    after = bsm_price(-1, SPOT * 0.8, strike, t, RATE, 0.0, IV)
    change = held.changes[VOLATILITIES.index(0.0)][SPOTS.index(-0.2)]
    assert change == pytest.approx(100.0 * (after - mark), abs=1e-3)


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


def told(symbol: str, quantity: int, mark: float | None) -> dict[str, object]:
    """What `GET /status` tells of one leg."""
    return {
        "market": {
            "time": "2026-01-05T15:00:00+00:00",
            "risk_free_rate": RATE,
            "underlyings": {"SPY": {"spot": SPOT}},
        },
        "positions": [
            {
                "underlying": "SPY",
                "legs": [{"symbol": symbol, "quantity": quantity, "mark": mark}],
            }
        ],
    }


@pytest.mark.parametrize("broken", [math.nan, None])
def test_a_missing_mark_makes_no_table(broken: float | None) -> None:
    with pytest.raises(DataError, match="SPY has no mark"):
        stress_of_status(told("SPY", 1, broken), Account())


@pytest.mark.parametrize(("shares_of_one", "shares"), [(0.0, 2_400.0), (1.0, 24.0)])
def test_stock_counts_in_the_unit_that_the_account_counts_it_in(
    shares_of_one: float, shares: float
) -> None:
    account = Account()
    if shares_of_one:
        account.stock_lots["SPY"] = shares_of_one
    made = stress_of_status(told("SPY", 24, SPOT), account)
    assert made.changes[0][SPOTS.index(0.1)] == pytest.approx(shares * SPOT * 0.1)


def test_an_adjusted_contract_makes_no_table_and_is_named() -> None:
    account, symbol = Account(), "O:SPY1260220C00100000"
    account.deliverables[symbol] = Deliverable("SPY", 150.0)
    with pytest.raises(DataError, match=f"{symbol} is an adjusted contract"):
        stress_of_status(told(symbol, 1, 3.0), account)


def test_a_status_of_another_shape_is_said_to_lack_a_figure() -> None:
    status = told("SPY", 1, SPOT)
    status["market"] = None
    with pytest.raises(DataError, match="lacks a figure"):
        stress_of_status(status, Account())
