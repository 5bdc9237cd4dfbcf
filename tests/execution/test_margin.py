import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.execution.margin.formulas import (
    buying_power_effect,
    payoff_margin,
    worst_payoff,
)

CALL, PUT, STOCK = 1, -1, 0
Legs = list[tuple[int, float, int]]


def arrays(legs: Legs) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    right, strike, ratio = zip(*legs, strict=True)
    return np.array(right, np.int8), np.array(strike, float), np.array(ratio, np.int64), len(legs)


@pytest.mark.parametrize(
    ("legs", "margin"),
    [
        ([(CALL, 100.0, 1)], 0.0),
        ([(PUT, 100.0, 1)], 0.0),
        ([(CALL, 100.0, 1), (CALL, 105.0, -1)], 0.0),
        ([(CALL, 100.0, -1), (CALL, 105.0, 1)], 500.0),
        ([(PUT, 100.0, -1), (PUT, 95.0, 1)], 500.0),
        ([(CALL, 100.0, 1), (PUT, 100.0, 1)], 0.0),
        ([(PUT, 90.0, 1), (PUT, 95.0, -1), (CALL, 105.0, -1), (CALL, 115.0, 1)], 1000.0),
        ([(CALL, 95.0, 1), (CALL, 100.0, -2), (CALL, 105.0, 1)], 0.0),
        ([(CALL, 95.0, -1), (CALL, 100.0, 2), (CALL, 105.0, -1)], 500.0),
        ([(PUT, 50.0, -1)], 5000.0),
        ([(STOCK, 0.0, 1)], 0.0),
        ([(STOCK, 0.0, 1), (CALL, 105.0, -1)], 0.0),
        ([(STOCK, 0.0, 1), (CALL, 105.0, -1), (PUT, 95.0, 1)], 0.0),
        ([(STOCK, 0.0, -1), (CALL, 105.0, 1)], 10_500.0),
    ],
    ids=[
        "long call", "long put", "debit vertical", "credit call vertical", "credit put vertical",
        "long straddle", "iron condor by the larger side", "long butterfly", "short butterfly",
        "put secured by cash", "stock", "covered call", "collar", "stock sold and a call bought",
    ],
)  # fmt: skip
def test_margin_is_what_the_legs_can_cost_at_expiry(legs: Legs, margin: float) -> None:
    assert payoff_margin(*arrays(legs), 100.0) == margin


@pytest.mark.parametrize(
    "legs",
    [
        [(CALL, 100.0, -1)],
        [(CALL, 100.0, -1), (PUT, 100.0, -1)],
        [(CALL, 100.0, 1), (CALL, 105.0, -2)],
        [(STOCK, 0.0, -1)],
        [(STOCK, 0.0, 1), (CALL, 105.0, -2)],
        [(STOCK, 0.0, -1), (PUT, 95.0, 1)],
        [(CALL, math.nan, 1)],
        [(PUT, math.inf, -1)],
        [(PUT, 0.0, -1)],
    ],
)
def test_uncovered_calls_and_strikes_that_are_no_prices_are_undefined(legs: Legs) -> None:
    assert payoff_margin(*arrays(legs), 100.0) == math.inf


def test_opening_a_credit_vertical_takes_width_less_credit_and_closing_frees_it() -> None:
    assert buying_power_effect(-2.0, 500.0, 3, 100.0, 4.0) == 904.0
    assert buying_power_effect(1.0, -500.0, 3, 100.0, 4.0) == -1196.0


LEG = st.tuples(
    st.sampled_from([CALL, PUT, STOCK]),
    st.integers(1, 40).map(lambda n: n * 5.0),
    st.sampled_from([-2, -1, 1, 2]),
)


@given(st.lists(LEG, min_size=1, max_size=4))
def test_worst_payoff_is_the_least_over_a_fine_grid_of_prices(legs: Legs) -> None:
    worst = worst_payoff(*arrays(legs))
    prices = np.arange(0.0, 1000.0, 1.25)
    payoff = sum(q * (np.maximum(r * (prices - k), 0.0) if r else prices) for r, k, q in legs)
    if worst == -math.inf:
        assert sum(q for r, _, q in legs if r in {CALL, STOCK}) < 0
    else:
        assert worst == payoff.min()
