import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from trading.execution.fees import NO_FEES, FeeSchedule
from trading.execution.matching import MatchCode, fill_cash, gross_price, match_legs, net_price

NOW = 1_000_000


def match(
    ratio: list[int],
    bid: list[float],
    ask: list[float],
    *,
    size: list[float] | None = None,
    ts_ns: int = NOW,
    units: int = 1,
    slippage: float = 0.0,
) -> tuple[int, int, list[float]]:
    prices = np.zeros(len(ratio))
    sizes = np.array(size or [100.0] * len(ratio))
    code, fillable = match_legs(
        np.array(ratio), np.array(bid), np.array(ask), sizes, sizes,
        np.full(len(ratio), ts_ns), len(ratio), NOW, units, 1000, slippage, prices,
    )  # fmt: skip
    return code, fillable, prices.tolist()


def test_buys_at_the_ask_and_sells_at_the_bid() -> None:
    code, units, prices = match([1, -1], [2.0, 1.0], [2.1, 1.2], units=3)
    assert (code, units, prices) == (MatchCode.OK, 3, [2.1, 1.0])
    assert net_price(np.array([1, -1]), np.array(prices), 2) == pytest.approx(1.1)
    assert gross_price(np.array([1, -1]), np.array(prices), 2) == pytest.approx(3.1)


def cash(
    legs: list[tuple[int, int, float]], units: int = 1, schedule: FeeSchedule = NO_FEES
) -> tuple[float, float]:
    right, ratio, price = zip(*legs, strict=True)
    return fill_cash(
        np.array(right, np.int8), np.array(ratio, np.int64), np.array(price), len(legs), units,
        100.0, schedule,
    )  # fmt: skip


def test_cash_of_a_fill_is_its_net_price_and_its_fees() -> None:
    assert cash([(1, 1, 3.1), (1, -1, 1.0)], 2) == (-420.0, 0.0)
    # Two contracts a side: commission 2.60, ORF 0.12, OCC 0.10, TAF 0.01, section 31 0.01
    assert cash([(1, 1, 3.1), (1, -1, 1.0)], 2, FeeSchedule())[1] == pytest.approx(2.84)


def test_stock_costs_a_round_lot_and_no_contract_fees() -> None:
    assert cash([(0, 1, 100.55)], 3, FeeSchedule()) == (-30_165.0, 0.0)
    # TAF 300 shares 0.0585 -> 0.06, section 31 on 30,135 USD 0.6208 -> 0.63
    assert cash([(0, -1, 100.45)], 3, FeeSchedule()) == (30_135.0, pytest.approx(0.69))


def test_kernels_call_it_and_get_the_same_bits() -> None:
    @njit
    def in_a_kernel(right, ratio, price, schedule):  # type: ignore[no-untyped-def]
        return fill_cash(right, ratio, price, 2, 7, 100.0, schedule)

    arrays = np.array([0, 1], np.int8), np.array([1, -1], np.int64), np.array([100.57, 1.03])
    assert in_a_kernel(*arrays, FeeSchedule()) == fill_cash(*arrays, 2, 7, 100.0, FeeSchedule())


def test_a_covered_call_pays_for_both_in_one_fill() -> None:
    premium, fees = cash([(0, 1, 100.55), (1, -1, 1.0)], 1, FeeSchedule())
    assert premium == -9_955.0
    assert fees == pytest.approx(0.65 + 0.03 + 0.03 + 0.01 + 0.01)


def test_prices_that_are_no_numbers_are_not_hidden_in_cash() -> None:
    premium, fees = cash([(1, -1, math.nan)], 1, FeeSchedule())
    assert math.isnan(premium)
    assert math.isnan(fees)


def test_slippage_is_paid_on_every_leg() -> None:
    assert match([1, -1], [2.0, 1.0], [2.1, 1.2], slippage=0.02)[2] == pytest.approx([2.12, 0.98])


def test_slippage_takes_no_sale_below_a_cent() -> None:
    assert match([-1], [0.02], [0.05], slippage=0.10)[2] == [0.01]


def test_fills_at_most_the_displayed_size_of_the_scarcest_leg() -> None:
    assert match([1, -2], [2.0, 1.0], [2.1, 1.2], size=[9.0, 7.0], units=5)[:2] == (0, 3)


@pytest.mark.parametrize(
    ("bid", "ask", "ts_ns", "size", "code"),
    [
        (0.0, 1.0, NOW, 10.0, MatchCode.ONE_SIDED),
        (1.0, 0.0, NOW, 10.0, MatchCode.ONE_SIDED),
        (-1.0, 1.0, NOW, 10.0, MatchCode.ONE_SIDED),
        (1.0, 1.0, NOW, 10.0, MatchCode.CROSSED),
        (1.1, 1.0, NOW, 10.0, MatchCode.CROSSED),
        (1.0, 1.1, NOW - 1001, 10.0, MatchCode.STALE),
        (1.0, 1.1, 0, 10.0, MatchCode.STALE),
        (1.0, 1.1, np.iinfo(np.int64).min, 10.0, MatchCode.STALE),
        (1.0, 1.1, NOW, 0.0, MatchCode.NO_SIZE),
        (1.0, 1.1, NOW, math.nan, MatchCode.NO_SIZE),
        (1.0, 1.1, NOW, math.inf, MatchCode.NO_SIZE),
        (math.nan, 1.1, NOW, 10.0, MatchCode.NOT_A_NUMBER),
        (1.0, math.nan, NOW, 10.0, MatchCode.NOT_A_NUMBER),
        (1.0, math.inf, NOW, 10.0, MatchCode.NOT_A_NUMBER),
    ],
)
def test_no_fill_without_a_valid_quote(
    bid: float, ask: float, ts_ns: int, size: float, code: MatchCode
) -> None:
    assert match([1], [bid], [ask], ts_ns=ts_ns, size=[size])[:2] == (code, 0)
    assert match([-1], [bid], [ask], ts_ns=ts_ns, size=[size])[:2] == (code, 0)


def test_one_bad_leg_stops_every_leg() -> None:
    assert match([1, -1], [2.0, 0.0], [2.1, 1.2])[:2] == (MatchCode.ONE_SIDED, 0)


@pytest.mark.parametrize(
    ("ratio", "units", "slippage", "code"),
    [
        ([0], 1, 0.0, MatchCode.INVALID_ORDER),
        ([1], 0, 0.0, MatchCode.INVALID_ORDER),
        ([1], 1, -0.1, MatchCode.INVALID_ORDER),
        ([1], 1, math.nan, MatchCode.NOT_A_NUMBER),
        ([], 1, 0.0, MatchCode.INVALID_ORDER),
    ],
)
def test_refuses_an_order_that_makes_no_sense(
    ratio: list[int], units: int, slippage: float, code: MatchCode
) -> None:
    bid = [1.0] * len(ratio)
    ask = [1.1] * len(ratio)
    prices = np.zeros(1)
    result = match_legs(
        np.array(ratio, dtype=np.int64), np.array(bid), np.array(ask), np.ones(1), np.ones(1),
        np.full(1, NOW), len(ratio), NOW, units, 1000, slippage, prices,
    )  # fmt: skip
    assert result == (code, 0)


PRICE = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(
    st.lists(
        st.tuples(st.sampled_from([-2, -1, 1, 2]), PRICE, PRICE, PRICE), min_size=1, max_size=4
    ),
    st.integers(1, 20),
    st.integers(-1500, 10),
)
def test_a_fill_is_never_better_than_the_touch(
    legs: list[tuple[int, float, float, float]], units: int, age: int
) -> None:
    ratio, bid, ask, size = (list(column) for column in zip(*legs, strict=True))
    code, fillable, prices = match(ratio, bid, ask, size=size, ts_ns=NOW + age, units=units)
    assert (code == MatchCode.OK) == (fillable > 0)
    if code != MatchCode.OK:
        return
    assert fillable <= units
    assert age >= -1000
    for r, b, a, s, price in zip(ratio, bid, ask, size, prices, strict=True):
        assert 0.0 < b < a
        assert price == (a if r > 0 else b)
        assert fillable * abs(r) <= s
