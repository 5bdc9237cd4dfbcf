"""Interest on cash and fees of borrowed stock: none by default, and each day once."""

import tempfile
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.execution.scene import NOW_NS, market, new_broker, open_order
from tests.usual import risk_limits
from trading.execution.broker import PaperBroker
from trading.execution.carry import CarryRates
from trading.execution.orders import Fill

MONDAY = date(2026, 1, 5)
DAY = timedelta(days=1)
RATES = CarryRates(cash_interest=0.0365, borrow_fee=0.073)


@pytest.fixture
def lender(tmp_path: Path) -> Iterator[PaperBroker]:
    made = new_broker(tmp_path, limits=risk_limits(allow_naked_shorts=True))
    made.carry = RATES
    yield made
    made.journal.close()


def test_nothing_is_booked_by_default(broker: PaperBroker) -> None:
    events = broker.journal.last_seq
    assert broker.book_carry(MONDAY, MONDAY + DAY, {}, NOW_NS) is None
    assert broker.journal.last_seq == events


def test_interest_is_paid_for_every_day_once(lender: PaperBroker) -> None:
    friday = date(2026, 1, 9)
    assert lender.book_carry(friday, friday + 3 * DAY, {}, NOW_NS) is not None
    assert lender.account.cash == pytest.approx(10_000.0 + 3.0)
    assert lender.book_carry(friday, friday + 3 * DAY, {}, NOW_NS) is None
    assert lender.account.interest == pytest.approx(3.0)


def test_days_on_which_nothing_ran_are_made_up_for(lender: PaperBroker) -> None:
    lender.book_carry(MONDAY, MONDAY + DAY, {}, NOW_NS)
    lender.book_carry(MONDAY + 9 * DAY, MONDAY + 10 * DAY, {}, NOW_NS)
    assert lender.account.interest == pytest.approx(10.0, abs=0.01)


def test_short_stock_pays_for_being_borrowed_and_bears_it_in_its_profit(
    lender: PaperBroker,
) -> None:
    order = open_order(lender, "short_stock")
    assert isinstance(lender.submit(order, market(), True, NOW_NS), Fill)
    lender.carry = CarryRates(borrow_fee=0.073)
    cash, earned = lender.account.cash, lender.account.strategies["SPY"].net_cash
    event = lender.book_carry(MONDAY, MONDAY + DAY, {"SPY": 101.0}, NOW_NS)
    assert event is not None and event.borrow_fees == {"SPY": pytest.approx(2.02)}
    assert lender.account.cash == pytest.approx(cash - 2.02)
    assert lender.account.strategies["SPY"].net_cash == pytest.approx(earned - 2.02)
    assert lender.account.borrow_fees == pytest.approx(2.02)


def test_debt_earns_nothing(lender: PaperBroker) -> None:
    lender.account.cash = -500.0
    event = lender.book_carry(MONDAY, MONDAY + DAY, {}, NOW_NS)
    assert event is not None and event.interest == 0.0


@settings(deadline=None, max_examples=25)
@given(gaps=st.lists(st.integers(1, 5), min_size=1, max_size=8), restart=st.integers(0, 8))
def test_interest_does_not_depend_on_how_the_days_are_cut_nor_on_restarts(
    gaps: list[int], restart: int
) -> None:
    """On a balance that does not grow within a cut, and to the cent."""
    with tempfile.TemporaryDirectory() as folder:
        broker = new_broker(Path(folder))
        expected, day = 10_000.0, MONDAY
        for number, gap in enumerate(gaps):
            if number == restart:
                broker.journal.close()
                broker = new_broker(Path(folder))
            broker.carry = RATES
            broker.book_carry(day, day + gap * DAY, {}, NOW_NS)
            broker.book_carry(day, day + gap * DAY, {}, NOW_NS)
            expected *= 1.0 + 0.0365 * gap / 365.0
            day += gap * DAY
        assert broker.account.cash == pytest.approx(expected, abs=1e-4)
        assert broker.account.interest == pytest.approx(broker.account.cash - 10_000.0)
        assert broker.account.fingerprint() == broker.journal.fold().fingerprint()
        broker.journal.close()
