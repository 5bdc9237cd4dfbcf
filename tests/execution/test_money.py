import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading.execution.money import round_usd


@settings(deadline=None)
@given(st.integers(-(10**15), 10**15))
def test_a_whole_number_of_micro_dollars_is_the_float_nearest_its_decimal(micros: int) -> None:
    nearest = float(Decimal(micros) / 1_000_000)
    assert round_usd(nearest) == nearest


@settings(deadline=None)
@given(st.lists(st.integers(-(10**9), 10**9), max_size=40))
def test_sums_are_exact_to_the_micro_dollar(micros: list[int]) -> None:
    total = 0.0
    for each in micros:
        total = round_usd(total + each / 1e6)
    assert total == float(Decimal(sum(micros)) / 1_000_000)


@pytest.mark.parametrize("amount", [math.inf, -math.inf])
def test_infinity_passes_through(amount: float) -> None:
    assert round_usd(amount) == amount


def test_what_is_no_number_passes_through() -> None:
    assert math.isnan(round_usd(math.nan))
