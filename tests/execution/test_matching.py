import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from tests.usual import fee_schedule
from trading.execution.fees import NO_FEES, FeeSchedule
from trading.execution.matching import (
    SHARES,
    FillStyle,
    MatchCode,
    fill_cash,
    gross_price,
    match_legs,
    net_price,
    share_price,
    shown_class,
)
from trading.market.quotes import TickClass

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
    style: FillStyle = FillStyle.TOUCH,
    is_stock: bool = False,
) -> tuple[int, int, list[float]]:
    prices = np.zeros(len(ratio))
    sizes = np.array(size or [100.0] * len(ratio))
    code, fillable = match_legs(
        np.array(ratio), np.array(bid), np.array(ask), sizes, sizes,
        np.full(len(ratio), ts_ns), len(ratio), NOW, units, 1000, slippage, prices,
        int(style), is_stock,
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
    assert cash([(1, 1, 3.1), (1, -1, 1.0)], 2, fee_schedule())[1] == pytest.approx(2.84)


def test_stock_costs_a_round_lot_and_no_contract_fees() -> None:
    assert cash([(0, 1, 100.55)], 3, fee_schedule()) == (-30_165.0, 0.0)
    # TAF 300 shares 0.0585 -> 0.06, section 31 on 30,135 USD 0.6208 -> 0.63
    assert cash([(0, -1, 100.45)], 3, fee_schedule()) == (30_135.0, pytest.approx(0.69))


def test_kernels_call_it_and_get_the_same_bits() -> None:
    @njit
    def in_a_kernel(right, ratio, price, schedule):  # type: ignore[no-untyped-def]
        return fill_cash(right, ratio, price, 2, 7, 100.0, schedule)

    arrays = np.array([0, 1], np.int8), np.array([1, -1], np.int64), np.array([100.57, 1.03])
    assert in_a_kernel(*arrays, fee_schedule()) == fill_cash(*arrays, 2, 7, 100.0, fee_schedule())


def test_a_covered_call_pays_for_both_in_one_fill() -> None:
    premium, fees = cash([(0, 1, 100.55), (1, -1, 1.0)], 1, fee_schedule())
    assert premium == -9_955.0
    assert fees == pytest.approx(0.65 + 0.03 + 0.03 + 0.01 + 0.01)


def test_prices_that_are_no_numbers_are_not_hidden_in_cash() -> None:
    premium, fees = cash([(1, -1, math.nan)], 1, fee_schedule())
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


SHARE = FillStyle.SHARE_OF_SPREAD


@pytest.mark.parametrize(
    ("legs", "bought", "sold"), [(1, 1.75, 1.25), (2, 1.66, 1.34), (3, 1.56, 1.44), (4, 1.53, 1.47)]
)
def test_a_fill_pays_the_published_share_of_the_spread(
    legs: int, bought: float, sold: float
) -> None:
    """A dollar wide, in a class of cents as the odd cent of another side shows it."""
    assert SHARES.tolist() == [0.75, 0.66, 0.56, 0.53]
    for side, price in ((1, bought), (-1, sold)):
        bid, ask = ([1.0] * legs, [2.0] * legs) if legs > 1 else ([1.01], [2.01])
        code, _, prices = match([side] * legs, bid, ask, style=SHARE)
        expected = price if legs > 1 else price + 0.01
        assert code == MatchCode.OK
        # One option of a class of five cents is rounded against the order.
        assert prices == pytest.approx([expected] * legs, abs=0.011)


def test_one_option_trades_in_the_ticks_of_its_class() -> None:
    assert shown_class(4.10, 4.90) == TickClass.STANDARD
    assert shown_class(4.15, 4.90) == TickClass.PENNY_PROGRAM
    assert shown_class(4.12, 4.90) == TickClass.PENNY
    assert share_price(4.10, 4.90, True, 0.0, 1, False) == pytest.approx(4.70)
    assert share_price(4.15, 4.90, True, 0.0, 1, False) == pytest.approx(4.75)
    assert share_price(4.12, 4.90, True, 0.0, 1, False) == pytest.approx(4.71)
    assert share_price(4.12, 4.90, False, 0.0, 1, False) == pytest.approx(4.31)
    # A complex order's net, and stock, are in cents whatever the class.
    assert share_price(4.10, 4.90, True, 0.0, 2, False) == pytest.approx(4.63)
    assert share_price(4.10, 4.90, True, 0.0, 1, True) == pytest.approx(4.70)
    # A tick wide there is nothing between the touches.
    assert share_price(4.10, 4.20, True, 0.0, 1, False) == 4.20


_CENTS = st.integers(1, 100_000)


@given(
    st.lists(
        st.tuples(_CENTS, st.integers(1, 5000), st.sampled_from((-2, -1, 1, 2))),
        min_size=1,
        max_size=4,
    )
)
def test_a_share_is_never_past_the_touch_and_never_better_than_the_share(
    legs: list[tuple[int, int, int]],
) -> None:
    bid = [cents / 100.0 for cents, _, _ in legs]
    ask = [(cents + wide) / 100.0 for cents, wide, _ in legs]
    ratio = [each for _, _, each in legs]
    code, units, prices = match(ratio, bid, ask, style=SHARE)
    _, at_touch, touch = match(ratio, bid, ask)
    assert (code, units) == (MatchCode.OK, at_touch)
    share = float(SHARES[len(legs) - 1])
    for k, price in enumerate(prices):
        buys = ratio[k] > 0
        exact = bid[k] + share * (ask[k] - bid[k]) if buys else ask[k] - share * (ask[k] - bid[k])
        assert bid[k] <= price <= ask[k]
        assert (price - exact) * (1 if buys else -1) >= -1e-7
        assert (touch[k] - price) * (1 if buys else -1) >= 0.0
        assert len(legs) == 1 or abs(price * 100.0 - round(price * 100.0)) < 1e-6
    net = net_price(np.array(ratio), np.array(prices), len(legs))
    assert abs(net * 100.0 - round(net * 100.0)) < 1e-4


@pytest.mark.parametrize(
    ("bid", "ask", "code"),
    [
        (1.0, 1.0, MatchCode.CROSSED),
        (1.1, 1.0, MatchCode.CROSSED),
        (0.0, 1.0, MatchCode.ONE_SIDED),
        (1.0, 0.0, MatchCode.ONE_SIDED),
        (math.nan, 1.0, MatchCode.NOT_A_NUMBER),
    ],
)
def test_no_style_fills_a_locked_crossed_or_absent_quote(
    bid: float, ask: float, code: MatchCode
) -> None:
    for style in FillStyle:
        assert match([1, -1], [2.0, bid], [2.1, ask], style=style)[:2] == (code, 0)
