"""Early assignment of sold calls before a dividend, and the dividend itself."""

import math
from datetime import date

import pytest

from tests.execution.scene import (
    CALL_100,
    CALL_105,
    NOW_NS,
    PUT_100,
    close_order,
    market,
    open_order,
    quote,
)
from trading.errors import DataError, JournalError
from trading.execution.assignment import is_assigned_early, time_value
from trading.execution.broker import PaperBroker
from trading.execution.events import DividendPaid, Ending
from trading.execution.orders import Fill, Leg, QuoteView
from trading.market.contracts import parse_symbol
from trading.market.dividends import Dividend

EX_DATE = date(2026, 1, 6)
DIVIDEND = Dividend("SPY", EX_DATE, 0.80)
DEEP = {CALL_100: quote(9.9, 10.1), CALL_105: quote(5.1, 5.3), PUT_100: quote(0.05, 0.15)}
SPOT = {"SPY": 110.0}


def opened(broker: PaperBroker, shape: str, units: int = 1) -> None:
    result = broker.submit(open_order(broker, shape, units), market(), True, NOW_NS)
    assert isinstance(result, Fill)


@pytest.mark.parametrize(
    ("spot", "dividend", "left", "assigned"),
    [
        (110.0, 0.80, 0.10, True),
        (110.0, 0.80, 0.80, False),
        (110.0, 0.80, 0.79, True),
        (99.0, 0.80, 0.10, False),
        (100.0, 0.80, 0.10, False),
        (110.0, 0.80, math.nan, True),
    ],
)
def test_a_call_is_assigned_when_the_dividend_exceeds_its_time_value(
    spot: float, dividend: float, left: float, assigned: bool
) -> None:
    assert is_assigned_early(parse_symbol(CALL_100), spot, dividend, left) is assigned


@pytest.mark.parametrize("symbol", [PUT_100, "O:SPXW260116C00100000", "O:OEX260116C00100000"])
def test_puts_european_and_cash_settled_options_are_never_assigned_early(symbol: str) -> None:
    spot = 90.0 if symbol == PUT_100 else 110.0
    assert not is_assigned_early(parse_symbol(symbol), spot, 5.0, 0.0)


@pytest.mark.parametrize(
    ("quotes", "left"),
    [
        ({PUT_100: quote(0.05, 0.15), CALL_100: quote(12.0, 13.0)}, 0.10),
        ({CALL_100: quote(10.2, 10.4)}, 0.30),
        ({PUT_100: quote(0.0, 0.15), CALL_100: quote(10.2, 10.4)}, 0.30),
        ({}, math.nan),
    ],
    ids=["by the put", "by the call", "by the call where the put has no bid", "unknown"],
)
def test_time_value_is_the_price_of_the_put_or_what_the_call_costs_above_intrinsic(
    quotes: dict[str, QuoteView], left: float
) -> None:
    value = time_value(parse_symbol(CALL_100), 110.0, quotes)
    assert value == pytest.approx(left, nan_ok=True)


def test_an_assigned_vertical_keeps_its_bought_call_and_owes_the_dividend(
    broker: PaperBroker,
) -> None:
    opened(broker, "bear_call_credit", 2)
    cash, power = broker.account.cash, broker.account.buying_power
    (event,) = broker.assign_early([DIVIDEND], DEEP, SPOT, NOW_NS)
    assert (event.ending, event.lots, event.cash) == (Ending.ASSIGNED_EARLY, -2, 20_000.0)
    account = broker.account
    assert account.strategies["SPY"].legs == (Leg(CALL_105, 1), Leg("SPY", -1))
    assert (account.cash, account.buying_power) == (cash + 20_000.0, power)
    assert broker.stock_to_liquidate() == ["SPY"]
    (paid,) = broker.pay_dividends([DIVIDEND], NOW_NS + 1)
    assert paid == DividendPaid(NOW_NS + 1, "SPY", "2026-01-06", -2, 0.80, -160.0)
    assert account.cash == cash + 20_000.0 - 160.0
    assert account.strategies["SPY"].exit_cash == 20_000.0 - 160.0


def test_a_covered_call_gives_its_stock_away_and_gets_no_dividend(broker: PaperBroker) -> None:
    opened(broker, "covered_call")
    broker.assign_early([DIVIDEND], DEEP, SPOT, NOW_NS)
    assert not broker.account.positions
    (nothing,) = broker.pay_dividends([DIVIDEND], NOW_NS)
    assert (nothing.lots, nothing.cash) == (0, 0.0)
    assert broker.account.realised_pnl == broker.account.cash - 10_000.0


def test_options_left_when_their_stock_was_called_away_are_not_liquidated(
    broker: PaperBroker,
) -> None:
    collar = (Leg("SPY", 1), Leg(CALL_105, -1), Leg(PUT_100, 1))
    order = open_order(broker, "collar", legs=collar)
    broker.account.cash = 20_000.0
    assert isinstance(broker.submit(order, market(), True, NOW_NS), Fill)
    broker.assign_early([DIVIDEND], DEEP, SPOT, NOW_NS)
    assert broker.account.strategies["SPY"].legs == (Leg(PUT_100, 1),)
    assert broker.stock_to_liquidate() == []


def test_stock_bought_on_the_ex_date_gets_no_dividend_after_a_restart(
    broker: PaperBroker,
) -> None:
    broker.pay_dividends([DIVIDEND], NOW_NS)
    opened(broker, "covered_call")
    before = broker.account.fingerprint()
    assert broker.pay_dividends([DIVIDEND], NOW_NS + 60) == []
    assert broker.account.fingerprint() == before


def test_stock_held_into_the_ex_date_gets_the_dividend_once(broker: PaperBroker) -> None:
    opened(broker, "covered_call")
    quotes = DEEP | {"O:SPY260116P00105000": quote(0.9, 1.1)}
    assert broker.assign_early([DIVIDEND], quotes, SPOT, NOW_NS) == []
    cash = broker.account.cash
    assert broker.pay_dividends([DIVIDEND], NOW_NS)[0].cash == 80.0
    assert broker.pay_dividends([DIVIDEND], NOW_NS + 5) == []
    assert broker.account.cash == cash + 80.0
    other = Dividend("SPY", date(2026, 4, 6), 0.80)
    assert len(broker.pay_dividends([other], NOW_NS)) == 1


@pytest.mark.parametrize(
    ("dividends", "assigned"),
    [
        ([Dividend("SPY", EX_DATE, 4.0, special=True)], False),
        # Below 12.50 USD a contract strikes stay as they are.
        ([Dividend("SPY", EX_DATE, 0.12, special=True)], True),
        ([Dividend("SPY", EX_DATE, 0.08, special=True)] * 2, False),
        ([Dividend("SPY", EX_DATE, 4.0, special=True), DIVIDEND], True),
        ([Dividend("SPY", EX_DATE, 4.0, special=True), Dividend("SPY", EX_DATE, 0.04)], False),
    ],
)
def test_nobody_exercises_for_a_dividend_that_lowers_the_strike(
    broker: PaperBroker, dividends: list[Dividend], assigned: bool
) -> None:
    opened(broker, "covered_call")
    quotes = DEEP | {CALL_105: quote(5.0, 5.1)}
    assert bool(broker.assign_early(dividends, quotes, SPOT, NOW_NS)) is assigned


def test_calls_that_expire_before_the_ex_date_are_left_to_expiry(broker: PaperBroker) -> None:
    opened(broker, "covered_call")
    late = Dividend("SPY", date(2026, 1, 20), 0.80)
    assert broker.assign_early([late], DEEP, SPOT, NOW_NS) == []


def test_assignment_cancels_the_orders_that_wait_on_the_call(broker: PaperBroker) -> None:
    opened(broker, "covered_call")
    order = close_order(broker, limit=-200.0, day=True)
    assert broker.submit(order, market(), True, NOW_NS) is None
    broker.assign_early([DIVIDEND], DEEP, SPOT, NOW_NS)
    assert not broker.account.working_orders


def test_without_a_closing_price_nothing_is_assigned(broker: PaperBroker) -> None:
    opened(broker, "bear_call_credit")
    with pytest.raises(DataError, match="closing price of SPY is nan"):
        broker.assign_early([DIVIDEND], DEEP, {}, NOW_NS)
    assert "SPY" not in broker.account.positions


def test_a_dividend_on_stock_that_is_not_held_contradicts_the_journal(
    broker: PaperBroker,
) -> None:
    with pytest.raises(JournalError, match="does not match the 0 held"):
        broker.account.apply(DividendPaid(NOW_NS, "SPY", "2026-01-06", 1, 0.8, 80.0))


@pytest.mark.parametrize("amount", [0.0, -1.0, math.nan, math.inf])
def test_a_dividend_that_pays_nothing_is_refused(amount: float) -> None:
    with pytest.raises(DataError, match="give USD a share, above 0"):
        Dividend("SPY", EX_DATE, amount)
