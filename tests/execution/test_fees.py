import math

import pytest

from tests.usual import fee_schedule
from trading.execution.fees import NO_FEES, order_fees


def test_each_kind_is_rounded_up_to_the_cent() -> None:
    # 2 contracts: commission 1.30, ORF 0.0563 -> 0.06, OCC 0.05, TAF on 1 sold 0.00329 -> 0.01,
    # section 31 on 150 USD 0.00309 -> 0.01
    assert order_fees(fee_schedule(), 1, 1, 150.0) == pytest.approx(1.43)


def test_whole_cents_are_not_rounded_to_the_next() -> None:
    assert order_fees(NO_FEES._replace(commission=0.65), 3, 0, 0.0) == 1.95


def test_clearing_fee_is_capped_for_an_order() -> None:
    assert order_fees(NO_FEES._replace(occ_fee=0.02, occ_cap=55.0), 5000, 0, 0.0) == 55.0


def test_sales_alone_pay_the_activity_and_section_31_fees() -> None:
    schedule = NO_FEES._replace(taf_fee=0.01, sec_rate=20.6e-6)
    assert order_fees(schedule, 10, 0, 0.0) == 0.0
    assert order_fees(schedule, 0, 10, 100_000.0) == pytest.approx(0.10 + 2.06)


def test_stock_pays_by_the_share_and_its_activity_fee_is_capped() -> None:
    schedule = fee_schedule(stock_commission=0.005)
    assert order_fees(schedule, 0, 0, 0.0, shares_bought=200.0) == 1.0
    # 300 shares at 50 USD: commission 1.50, TAF 0.0585 -> 0.06, section 31 0.309 -> 0.31
    assert order_fees(schedule, 0, 0, 0.0, 0.0, 300.0, 15_000.0) == pytest.approx(1.87)
    assert order_fees(schedule._replace(stock_commission=0.0), 0, 0, 0.0, 0.0, 1e6, 0.0) == 9.79


def test_options_and_stock_share_one_section_31_fee() -> None:
    schedule = NO_FEES._replace(sec_rate=20.6e-6)
    assert order_fees(schedule, 0, 1, 200.0, 0.0, 100.0, 10_000.0) == pytest.approx(0.22)


def test_not_a_number_is_not_hidden() -> None:
    schedule = NO_FEES._replace(sec_rate=20.6e-6)
    assert math.isnan(order_fees(schedule, 0, 1, math.nan))
