import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading.execution.exposure import headroom

NUMBER = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("limit", "current", "unit", "units"),
    [
        (100.0, 0.0, 30.0, 3.0),
        (100.0, 0.0, -30.0, 3.0),
        (100.0, 40.0, 30.0, 2.0),
        (100.0, -40.0, 30.0, 4.0),
        (100.0, 100.0, 1.0, 0.0),
        (100.0, 100.0, 0.0, math.inf),
        (100.0, 101.0, 0.0, 0.0),
        (100.0, 150.0, 30.0, 0.0),
        (100.0, 150.0, -30.0, 8.0),
        (100.0, -150.0, 30.0, 8.0),
        (math.inf, 5.0, 1.0, math.inf),
    ],
)
def test_headroom_counts_whole_units_within_the_limit(
    limit: float, current: float, unit: float, units: float
) -> None:
    assert headroom(limit, current, unit) == units


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nothing_fits_where_a_greek_is_no_number(bad: float) -> None:
    assert headroom(100.0, bad, 1.0) == 0.0
    assert headroom(100.0, 0.0, bad) == 0.0
    assert headroom(math.nan, 0.0, 1.0) == 0.0
    assert headroom(-1.0, 0.0, 0.0) == 0.0


@settings(deadline=None)
@given(st.floats(0.0, 1e6), NUMBER, NUMBER, st.integers(1, 100))
def test_a_unit_more_than_the_headroom_breaks_the_limit(
    limit: float, current: float, unit: float, units: int
) -> None:
    room = headroom(limit, current, unit)
    after = abs(current + units * unit)
    slack = 1e-6 * (1.0 + limit + abs(current) + units * abs(unit))
    if units <= room:
        assert after <= max(limit, abs(current)) + slack
    elif abs(current) <= limit:
        assert after >= limit - slack
