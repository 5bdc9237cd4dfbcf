"""Reg-T margin, kind by kind: Cboe Rule 10.3, FINRA Rule 4210(f)(2)."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.execution.scene import CALL_100, CALL_105, LATER_CALL_100, PUT_95, PUT_100, SHAPES
from trading.execution.margin.formulas import uncovered_margin
from trading.execution.margin.reg_t import defined_risk_margin, reg_t_margin, sells_short
from trading.execution.orders import Leg

MARKS = {CALL_100: 3.0, CALL_105: 1.0, PUT_100: 2.5, PUT_95: 1.0, LATER_CALL_100: 4.5}
EARLY_CALL_100 = "O:SPY260109C00100000"


def legs(*pairs: tuple[str, int]) -> tuple[Leg, ...]:
    return tuple(Leg(symbol, ratio) for symbol, ratio in pairs)


def margin_of(*pairs: tuple[str, int], spot: float = 100.0) -> float:
    return reg_t_margin(legs(*pairs), 100.0, spot, MARKS)


@pytest.mark.parametrize(
    ("shape", "margin"),
    [
        ("long_call", 0.0),
        ("long_straddle", 0.0),
        ("long_stock", 0.0),
        ("bull_call_debit", 0.0),
        ("bear_call_credit", 500.0),
        ("iron_condor", 500.0),
        ("short_put", 10_000.0),
        ("covered_call", 0.0),
        ("calendar", 0.0),
        ("protected_short_stock", 10_500.0),
        ("short_call", math.inf),
        ("short_straddle", math.inf),
        ("short_stock", math.inf),
    ],
)
def test_greatest_loss_of_each_kind(shape: str, margin: float) -> None:
    assert defined_risk_margin(SHAPES[shape], 100.0) == margin


def test_a_bought_option_covers_only_while_it_lasts() -> None:
    assert defined_risk_margin(legs((LATER_CALL_100, 1), (CALL_105, -1)), 100.0) == 0.0
    assert defined_risk_margin(legs((LATER_CALL_100, -1), (CALL_100, 1)), 100.0) == math.inf
    diagonal = legs((CALL_100, -1), ("O:SPY260220C00105000", 1))
    assert defined_risk_margin(diagonal, 100.0) == 500.0


def test_sold_options_of_two_expiries_each_need_cover_of_their_own() -> None:
    both = legs((CALL_100, -1), (CALL_105, 1), (LATER_CALL_100, -1), ("O:SPY260220C00110000", 1))
    assert defined_risk_margin(both, 100.0) == 500.0 + 1000.0
    one_cover = legs((EARLY_CALL_100, -1), (CALL_100, -1), (LATER_CALL_100, 2))
    assert defined_risk_margin(one_cover, 100.0) == math.inf


def test_stock_covers_as_many_calls_as_there_are_lots() -> None:
    assert defined_risk_margin(legs(("SPY", 2), (CALL_105, -2)), 100.0) == 0.0
    assert defined_risk_margin(legs(("SPY", 1), (CALL_105, -2)), 100.0) == math.inf


@pytest.mark.parametrize(
    ("right", "strike", "spot", "broad", "margin"),
    [
        (1, 100.0, 100.0, False, 3.0 + 20.0),
        (1, 105.0, 100.0, False, 3.0 + 15.0),
        (1, 120.0, 100.0, False, 3.0 + 10.0),
        (1, 90.0, 100.0, False, 3.0 + 20.0),
        (-1, 100.0, 100.0, False, 3.0 + 20.0),
        (-1, 95.0, 100.0, False, 3.0 + 15.0),
        (-1, 80.0, 100.0, False, 3.0 + 8.0),
        (1, 100.0, 100.0, True, 3.0 + 15.0),
        (-1, 80.0, 100.0, True, 3.0 + 8.0),
    ],
)
def test_uncovered_margin_follows_the_rule(
    right: int, strike: float, spot: float, broad: bool, margin: float
) -> None:
    assert uncovered_margin(right, strike, spot, 3.0, broad) == pytest.approx(margin)


@pytest.mark.parametrize(
    "values", [(math.nan, 1.0, 1.0), (1.0, math.nan, 1.0), (1.0, 1.0, math.nan)]
)
def test_uncovered_margin_of_what_is_no_number_is_none(values: tuple[float, ...]) -> None:
    assert math.isnan(uncovered_margin(1, *values, False))


def test_uncovered_calls_and_puts_are_charged_the_rule() -> None:
    assert margin_of((CALL_100, -1)) == pytest.approx(2300.0)
    assert margin_of((PUT_95, -1)) == pytest.approx(100.0 + 1500.0)


def test_short_straddle_is_charged_its_larger_side_and_the_value_of_the_other() -> None:
    assert margin_of((CALL_100, -1), (PUT_100, -1)) == pytest.approx(2300.0 + 250.0)
    assert margin_of((CALL_105, -1), (PUT_95, -1), spot=97.0) == pytest.approx(
        100.0 + (0.2 * 97.0 - 2.0) * 100.0 + 100.0
    )


def test_short_stock_is_charged_150_percent_of_its_value() -> None:
    assert margin_of(("SPY", -2)) == pytest.approx(30_000.0)
    assert margin_of(("SPY", -1), (PUT_95, -1)) == pytest.approx(15_000.0)
    assert margin_of(("SPY", -1), (PUT_100, -1), spot=98.0) == pytest.approx(14_700.0 + 200.0)


def test_covered_parts_are_charged_as_such_and_the_rest_as_uncovered() -> None:
    assert margin_of(("SPY", 1), (CALL_100, -2)) == pytest.approx(2300.0)
    assert margin_of((CALL_100, -2), (CALL_105, 1)) == pytest.approx(500.0 + 2300.0)


def test_the_lesser_of_both_margins_counts() -> None:
    assert margin_of((CALL_100, -1), (CALL_105, 1)) == 500.0
    far = "O:SPY260116C00200000"
    assert margin_of((CALL_100, -1), (far, 1)) == pytest.approx(2300.0)
    assert margin_of((PUT_100, -1), spot=1.0) <= 10_000.0


def test_a_bought_option_that_expires_first_covers_nothing_of_an_uncovered_sale() -> None:
    assert margin_of((EARLY_CALL_100, 1), (CALL_100, -1)) == pytest.approx(2300.0)
    assert margin_of((LATER_CALL_100, 1), (CALL_100, -1)) == 0.0


def test_what_is_bounded_needs_no_spot_and_what_is_not_has_no_margin_without() -> None:
    assert margin_of((CALL_100, -1), (CALL_105, 1), spot=math.nan) == 500.0
    assert math.isnan(margin_of((CALL_100, -1), spot=math.nan))
    assert math.isnan(margin_of(("SPY", -1), spot=math.nan))
    assert math.isnan(reg_t_margin(legs((CALL_100, -1)), 100.0, 100.0, {}))


@pytest.mark.parametrize(
    ("shape", "short"),
    [
        ("long_call", False),
        ("covered_call", False),
        ("short_put", False),
        ("bull_call_debit", True),
        ("bull_put_credit", True),
        ("short_call", True),
        ("short_straddle", True),
        ("short_stock", True),
        ("protected_short_stock", True),
    ],
)
def test_what_needs_a_margin_account(shape: str, short: bool) -> None:
    assert sells_short(SHAPES[shape]) is short


SYMBOL = st.sampled_from([CALL_100, CALL_105, PUT_100, PUT_95, LATER_CALL_100, "SPY"])


@settings(deadline=None)
@given(
    st.dictionaries(SYMBOL, st.sampled_from([-2, -1, 1, 2]), min_size=1, max_size=5),
    st.integers(1, 3),
    st.floats(50.0, 150.0),
)
def test_margin_grows_with_the_units_and_never_exceeds_the_greatest_loss(
    held: dict[str, int], units: int, spot: float
) -> None:
    one = tuple(Leg(symbol, ratio) for symbol, ratio in held.items())
    more = tuple(Leg(symbol, ratio * units) for symbol, ratio in held.items())
    margin = reg_t_margin(one, 100.0, spot, MARKS)
    assert 0.0 <= margin <= defined_risk_margin(one, 100.0)
    assert math.isfinite(margin)
    assert reg_t_margin(more, 100.0, spot, MARKS) == pytest.approx(units * margin)
