import math

import pytest

from trading.execution.fees import NO_FEES, FeeSchedule, order_fees


def test_each_kind_is_rounded_up_to_the_cent() -> None:
    # 2 contracts: commission 1.30, ORF 0.0563 -> 0.06, OCC 0.05, TAF on 1 sold 0.00279 -> 0.01
    assert order_fees(FeeSchedule(), 1, 1, 150.0) == pytest.approx(1.42)


def test_whole_cents_are_not_rounded_to_the_next() -> None:
    assert order_fees(NO_FEES._replace(commission=0.65), 3, 0, 0.0) == 1.95


def test_clearing_fee_is_capped_for_an_order() -> None:
    assert order_fees(NO_FEES._replace(occ_fee=0.02, occ_cap=55.0), 5000, 0, 0.0) == 55.0


def test_sales_alone_pay_the_activity_and_section_31_fees() -> None:
    schedule = NO_FEES._replace(taf_fee=0.01, sec_rate=20.6e-6)
    assert order_fees(schedule, 10, 0, 0.0) == 0.0
    assert order_fees(schedule, 0, 10, 100_000.0) == pytest.approx(0.10 + 2.06)


def test_not_a_number_is_not_hidden() -> None:
    schedule = NO_FEES._replace(sec_rate=20.6e-6)
    assert math.isnan(order_fees(schedule, 0, 1, math.nan))
