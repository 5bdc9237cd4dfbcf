"""Rates follow from yields."""

import math
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.errors import DataError
from trading.market.rates import YieldCurve, yield_of

DAY = date(2026, 1, 5)


def test_a_bond_equivalent_yield_is_compounded_twice_a_year() -> None:
    assert math.exp(YieldCurve(DAY, {1.0: 5.0}).rate(1.0)) == pytest.approx(1.025**2)


def test_yields_between_maturities_are_on_a_line_and_stay_beyond_the_ends() -> None:
    curve = YieldCurve(DAY, {1 / 12: 4.0, 0.25: 5.0})
    assert curve.rate(0.01) == curve.rate(1 / 12) == YieldCurve(DAY, {1.0: 4.0}).rate(1.0)
    assert curve.rate(1 / 6) == pytest.approx(YieldCurve(DAY, {1.0: 4.5}).rate(1.0))
    assert curve.rate(30.0) == YieldCurve(DAY, {1.0: 5.0}).rate(1.0)


@given(rate=st.floats(-0.04, 0.2), years=st.floats(0.0, 40.0))
def test_a_flat_curve_gives_its_rate_back(rate: float, years: float) -> None:
    percent = yield_of(rate)
    assert YieldCurve(DAY, {1 / 12: percent, 10.0: percent}).rate(years) == pytest.approx(rate)


@pytest.mark.parametrize("percent", [{}, {1.0: math.nan}, {1.0: 5.0, 2.0: 500.0}])
def test_what_is_no_yield_is_refused(percent: dict[float, float]) -> None:
    with pytest.raises(DataError, match="treasury yields of 2026-01-05"):
        YieldCurve(DAY, percent)
