"""Corporate actions: positions convert, equity stays, and nothing is converted twice."""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.execution.scene import (
    CALL_100,
    CALL_105,
    NOW_NS,
    PUT_95,
    PUT_100,
    QQQ_CALL_100,
    QQQ_PUT_100,
    SHAPES,
    close_order,
    market,
    new_broker,
    open_order,
    quote,
)
from tests.usual import fee_schedule, risk_limits
from trading.errors import DataError
from trading.execution.broker import PaperBroker
from trading.execution.deliverables import Deliverable, OtherShares
from trading.execution.events import (
    CorporateActionApplied,
    Ending,
    OrderCancelled,
    Settled,
)
from trading.execution.orders import Fill, Leg, Rejection
from trading.market.closes import CloseSource
from trading.market.contracts import parse_symbol
from trading.market.corporate_actions import (
    CorporateAction,
    Merger,
    Rename,
    SpecialDividend,
    SpinOff,
    Split,
)
from trading.market.dividends import Dividend

EX_DATE = date(2026, 1, 6)
LATER_NS = NOW_NS + 86_400_000_000_000
MARKS = {"SPY": 100.5, CALL_100: 3.05, CALL_105: 1.05, PUT_100: 2.55, PUT_95: 0.95}


@contextmanager
def account_with(shape: str, units: int = 1, cash: float = 1e6) -> Iterator[PaperBroker]:
    with tempfile.TemporaryDirectory() as folder:
        limits = risk_limits(
            max_order_notional=1e7, max_contracts_per_order=10_000, allow_naked_shorts=True
        )
        broker = new_broker(Path(folder), cash, limits=limits)
        order = open_order(broker, shape, units)
        result = broker.submit(order, market(size=1e6), True, NOW_NS)
        assert isinstance(result, Fill), result
        broker.mark(market())
        yield broker
        broker.journal.close()


def apply(broker: PaperBroker, action: CorporateAction) -> CorporateActionApplied:
    booked = broker.apply_action(action, LATER_NS, spot=MARKS["SPY"])
    assert booked is not None
    return booked


def held(broker: PaperBroker) -> dict[str, int]:
    return {symbol: each.quantity for symbol, each in broker.account.positions.items()}


def split(new: int, old: int, ex_date: date = EX_DATE) -> Split:
    return Split("SPY", ex_date, new, old)


def test_a_whole_split_multiplies_contracts_and_divides_strikes() -> None:
    with account_with("covered_call", 5) as broker:
        before = broker.equity()
        apply(broker, split(10, 1))
        assert held(broker) == {"SPY": 50, "O:SPY260116C00010500": -50}
        assert broker.equity() == pytest.approx(before, abs=0.005)
        assert broker.account.adjusted.deliverables == {}
        strategy = broker.account.strategies["SPY"]
        assert (strategy.units, strategy.delivered) == (50, False)
        assert strategy.legs == (Leg("SPY", 1), Leg("O:SPY260116C00010500", -1))


def test_a_split_rounds_strikes_to_the_cent() -> None:
    with account_with("long_put", 2) as broker:
        apply(broker, split(3, 1))
        assert held(broker) == {"O:SPY260116P00033330": 6}


@pytest.mark.parametrize(
    ("new", "old", "shares", "stock"),
    [(3, 2, 150.0, 450), (1, 10, 10.0, 30), (7, 4, 175.0, 525), (5, 4, 125.0, 375)],
)
def test_other_splits_change_what_a_contract_delivers(
    new: int, old: int, shares: float, stock: int
) -> None:
    with account_with("covered_call", 3) as broker:
        before = broker.equity()
        booked = apply(broker, split(new, old))
        adjusted = "O:SPY1260116C00105000"
        assert broker.account.shares_held("SPY") == stock
        assert held(broker)[adjusted] == -3
        assert broker.account.deliverables == {adjusted: Deliverable("SPY", shares)}
        assert (booked.cash, booked.cash_in_lieu) == (0.0, 0.0)
        assert broker.equity() == pytest.approx(before, abs=0.005)
        # As covered as before: the stock that is left delivers every call.
        assert broker.account.margin_used == 0.0


def test_fractions_of_shares_are_paid_and_shown() -> None:
    with account_with("covered_call", 1) as broker:
        before = broker.equity()
        booked = apply(broker, split(1, 7))
        assert broker.account.shares_held("SPY") == 14
        lieu = float(Fraction(2, 7)) * 100.5 * 7
        assert booked.cash_in_lieu == booked.cash == pytest.approx(lieu, abs=1e-6)
        (delivered,) = broker.account.deliverables.values()
        assert (delivered.shares, delivered.cash) == (14.0, pytest.approx(lieu, abs=1e-6))
        assert broker.equity() == pytest.approx(before, abs=0.005)


def test_a_fraction_without_a_price_waits_and_changes_nothing() -> None:
    with account_with("short_call", 1) as broker:
        before = broker.account.fingerprint()
        with pytest.raises(DataError, match="1 for 7 on 2026-01-06 needs a price of SPY"):
            broker.apply_action(split(1, 7), LATER_NS)
        assert broker.account.fingerprint() == before
        assert broker.apply_action(split(10, 1), LATER_NS) is not None


def test_adjusted_contracts_are_closed_with_their_stock_and_never_opened() -> None:
    with account_with("covered_call", 2) as broker:
        apply(broker, split(5, 4))
        adjusted = "O:SPY1260116C00105000"
        assert broker.stock_to_liquidate() == ["SPY"]
        quotes = {"SPY": quote(80.3, 80.5, 1e6), adjusted: quote(1.0, 1.1)}
        cash = broker.account.cash
        result = broker.submit(broker.liquidation("SPY", NOW_NS), quotes, True, NOW_NS)
        assert isinstance(result, Fill), result
        # 250 shares at the bid, two calls at the ask.
        assert broker.account.cash - cash == pytest.approx(250 * 80.3 - 2 * 110.0)
        assert held(broker) == {}
        assert (broker.account.deliverables, broker.account.stock_lots) == ({}, {})
        order = open_order(broker, "adjusted", legs=(Leg(adjusted, 1),))
        refused = broker.submit(order, quotes, True, NOW_NS)
        assert isinstance(refused, Rejection)
        assert "is not opened" in refused.detail


def test_fees_of_stock_in_shares_are_those_of_its_shares(tmp_path: Path) -> None:
    from trading.execution.fees import order_fees

    with account_with("long_stock", 1) as broker:
        broker.schedule = fee_schedule()
        apply(broker, split(5, 4))
        order = broker.liquidation("SPY", NOW_NS)
        fill = broker.submit(order, {"SPY": quote(80.3, 80.5, 1e6)}, True, NOW_NS)
        assert isinstance(fill, Fill), fill
        assert fill.premium == pytest.approx(125 * 80.3)
        expected = order_fees(fee_schedule(), 0, 0, 0.0, 0.0, 125.0, 125 * 80.3)
        assert fill.fees == pytest.approx(expected)


def test_an_adjusted_call_is_assigned_the_shares_that_it_delivers() -> None:
    with account_with("covered_call", 2) as broker:
        apply(broker, split(3, 2))
        (symbol,) = broker.account.deliverables
        # 150 shares at 80 are worth more than 100 times the strike of 105.
        (ended,) = broker.settle([symbol], {"SPY": 80.0}, LATER_NS)
        assert (ended.ending, ended.lots, ended.lot) == (Ending.ASSIGNED, -300, 1.0)
        assert ended.cash == 2 * 105.0 * 100.0
        assert held(broker) == {}
        assert broker.account.strategies == {}


def test_an_adjusted_contract_out_of_the_money_ends_worthless() -> None:
    with account_with("long_put", 2) as broker:
        apply(broker, split(3, 2))
        (symbol,) = broker.account.deliverables
        (ended,) = broker.settle([symbol], {"SPY": 66.67}, LATER_NS)
        assert (ended.ending, ended.cash) == (Ending.WORTHLESS, 0.0)


def test_assigned_odd_shares_join_round_lots() -> None:
    with account_with("iron_condor", 1) as broker:
        apply(broker, split(3, 2))
        symbols = list(broker.account.deliverables)
        broker.settle([s for s in symbols if "C" in s[5:] or "P" in s[5:]], {"SPY": 90.0}, LATER_NS)
        # Both calls in the money: what one delivers, the other takes.
        assert held(broker) == {}


def test_a_special_dividend_lowers_strikes_and_is_paid_on_stock() -> None:
    with account_with("covered_call", 2) as broker:
        before = broker.equity()
        apply(broker, SpecialDividend("SPY", EX_DATE, 15.0))
        broker.pay_dividends([Dividend("SPY", EX_DATE, 15.0, special=True)], LATER_NS)
        assert held(broker) == {"SPY": 2, "O:SPY260116C00090000": -2}
        assert broker.equity() == pytest.approx(before, abs=0.005)
        assert broker.marks["SPY"] == pytest.approx(85.5)


def test_a_special_dividend_above_the_strike_is_delivered_in_cash() -> None:
    with account_with("long_call", 1) as broker:
        apply(broker, SpecialDividend("SPY", EX_DATE, 100.0))
        assert list(broker.account.deliverables.values()) == [Deliverable("SPY", 100.0, 10_000.0)]


def test_a_spin_off_gives_shares_and_adds_them_to_what_contracts_deliver() -> None:
    with account_with("covered_call", 2) as broker:
        before = broker.equity()
        contributions = broker.account.contribution("SPY", broker.marks)
        apply(broker, SpinOff("SPY", EX_DATE, "NEW", Fraction(1, 4), 20.0))
        assert broker.account.shares_held("NEW") == 50
        assert broker.account.positions["NEW"].underlying == "NEW"
        (delivered,) = broker.account.deliverables.values()
        assert delivered == Deliverable("SPY", 100.0, 0.0, (OtherShares("NEW", 25.0, 20.0),))
        assert broker.marks["SPY"] == pytest.approx(95.5)
        assert broker.equity() == pytest.approx(before, abs=0.005)
        account = broker.account
        assert account.contribution("SPY", broker.marks) == pytest.approx(contributions, abs=0.005)
        assert account.contribution("NEW", broker.marks) == pytest.approx(0.0, abs=0.005)
        assert set(broker.stock_to_liquidate()) == {"SPY", "NEW"}


def test_a_merger_for_stock_and_cash_moves_everything_to_the_new_company() -> None:
    with account_with("covered_call", 2) as broker:
        before = broker.equity()
        booked = apply(broker, Merger("SPY", EX_DATE, "BUY", Fraction(1, 2), 40.0))
        assert booked.cash == 200 * 40.0
        assert held(broker) == {"BUY": 1, "O:BUY1260116C00105000": -2}
        (delivered,) = broker.account.deliverables.values()
        assert delivered == Deliverable("BUY", 50.0, 4_000.0)
        assert list(broker.account.strategies) == ["BUY"]
        assert broker.equity() == pytest.approx(before, abs=0.005)


def test_a_merger_for_cash_pays_stock_and_options_at_once() -> None:
    with account_with("covered_call", 2) as broker:
        cash = broker.account.cash
        apply(broker, Merger("SPY", EX_DATE, cash=110.0))
        assert held(broker) == {}
        assert broker.account.cash - cash == 200 * 110.0 - 2 * 500.0
        (ended,) = [each for each in broker.journal.events() if isinstance(each, Settled)]
        assert (ended.source, ended.price) == (CloseSource.ACTION, 5.0)


def test_a_rename_moves_positions_to_the_new_symbol() -> None:
    with account_with("covered_call", 2) as broker:
        before, profit = broker.equity(), broker.account.contribution("SPY", broker.marks)
        apply(broker, Rename("SPY", EX_DATE, "META"))
        assert held(broker) == {"META": 2, "O:META260116C00105000": -2}
        assert broker.account.deliverables == {}
        assert not broker.account.strategies["META"].delivered
        assert broker.equity() == pytest.approx(before, abs=0.005)
        assert broker.account.contribution("SPY", {}) == pytest.approx(profit, abs=0.005)
        assert broker.account.contribution("META", broker.marks) == pytest.approx(0.0, abs=0.005)
        close = close_order(broker, underlying="META")
        quotes = {"META": quote(100.4, 100.6, 1e6), "O:META260116C00105000": quote(1.0, 1.1)}
        assert isinstance(broker.submit(close, quotes, True, NOW_NS), Fill)


def test_what_comes_at_no_worth_contributes_from_then_on() -> None:
    with account_with("long_call", 1) as broker:
        account = broker.account
        broker.marks[CALL_100] = 0.0
        assert apply(broker, Rename("SPY", EX_DATE, "META")).moved == 0.0
        marks = {"O:META260116C00100000": 2.0}
        parts = {name: account.contribution(name, marks) for name in account.net_cash}
        assert parts["META"] == 200.0
        assert account.paid_in + sum(parts.values()) == pytest.approx(account.equity(marks))
        assert broker.journal.fold().fingerprint() == account.fingerprint()


def test_an_adjusted_contract_is_renamed_with_its_digit() -> None:
    with account_with("long_call", 1) as broker:
        apply(broker, split(3, 2))
        apply(broker, Rename("SPY", EX_DATE, "META"))
        assert broker.account.deliverables == {"O:META1260116C00100000": Deliverable("META", 150.0)}


@contextmanager
def two_companies() -> Iterator[PaperBroker]:
    """A call of each."""
    with account_with("long_call", 1) as broker:
        legs = (Leg(QQQ_CALL_100, 1),)
        order = open_order(broker, "long_call", underlying="QQQ", legs=legs)
        assert isinstance(broker.submit(order, market(size=1e6), True, NOW_NS), Fill)
        broker.mark(market())
        yield broker


def test_contracts_that_deliver_different_things_keep_different_names_in_a_rename() -> None:
    with two_companies() as broker:
        apply(broker, split(3, 2))
        apply(broker, Merger("QQQ", date(2026, 1, 7), "SPY", Fraction(2), 13.0))
        before = broker.equity()
        apply(broker, Rename("SPY", date(2026, 1, 8), "META"))
        assert broker.account.deliverables == {
            "O:META1260116C00100000": Deliverable("META", 150.0),
            "O:META2260116C00100000": Deliverable("META", 200.0, 1_300.0),
        }
        assert broker.equity() == pytest.approx(before, abs=0.005)


def test_an_adjusted_contract_and_a_standard_one_stay_two_in_one_action() -> None:
    """The standard one is adjusted for the first time by what adjusts the other once more."""
    with two_companies() as broker:
        apply(broker, Split("QQQ", EX_DATE, 3, 2))
        apply(broker, Merger("QQQ", date(2026, 1, 7), "SPY", Fraction(1), 0.0))
        broker.mark(market())
        apply(broker, SpinOff("SPY", date(2026, 1, 8), "NEW", Fraction(1, 4), 20.0))
        roots = {parse_symbol(symbol).root for symbol in held(broker) if symbol[:2] == "O:"}
        assert roots == {"SPY1", "SPY2"}


def test_legs_that_join_are_in_the_same_order_from_a_snapshot_as_from_the_events() -> None:
    collar = (Leg("QQQ", 1), Leg(QQQ_CALL_100, -1), Leg(QQQ_PUT_100, 1))
    with account_with("bear_call_credit", 1) as broker:
        order = open_order(broker, "collar", underlying="QQQ", legs=collar)
        assert isinstance(broker.submit(order, market(size=1e6), True, NOW_NS), Fill)
        broker.mark(market())
        broker.journal.keep_snapshot(broker.account)
        apply(broker, Merger("SPY", EX_DATE, "QQQ", Fraction(2), 13.0))
        from_snapshot = broker.journal.restore().fingerprint()
        assert from_snapshot == broker.journal.fold().fingerprint()
        assert from_snapshot == broker.account.fingerprint()


def test_two_splits_in_a_row_are_two() -> None:
    with account_with("bull_call_debit", 1) as broker:
        before = broker.equity()
        apply(broker, split(2, 1))
        apply(broker, split(5, 1, date(2026, 1, 7)))
        assert held(broker) == {"O:SPY260116C00010000": 10, "O:SPY260116C00010500": -10}
        assert broker.equity() == pytest.approx(before, abs=0.005)


def test_an_action_is_applied_once() -> None:
    with account_with("covered_call", 1) as broker:
        booked = apply(broker, split(10, 1))
        assert broker.apply_action(split(10, 1), LATER_NS, spot=10.05) is None
        state = broker.account.fingerprint()
        broker.account.apply(booked)
        assert broker.account.fingerprint() == state


def test_waiting_orders_are_cancelled_by_an_action() -> None:
    with account_with("long_call", 1) as broker:
        order = close_order(broker, limit=-50.0, day=True)
        assert broker.submit(order, market(), True, NOW_NS) is None
        apply(broker, split(2, 1))
        assert broker.account.working_orders == {}
        cancelled = [e for e in broker.journal.events() if isinstance(e, OrderCancelled)]
        assert cancelled[-1].reason == "SPY: 2 for 1"


def test_what_is_suspended_stays_so_at_converted_values() -> None:
    with account_with("long_call", 1) as broker:
        broker.suspend("SPY", "halted", NOW_NS)
        before = broker.equity()
        apply(broker, split(10, 1))
        assert broker.account.suspended == {"SPY": "halted"}
        assert broker.equity() == pytest.approx(before, abs=0.005)
        reread = broker.journal.fold()
        assert reread.fingerprint() == broker.account.fingerprint()


def test_two_dividends_of_one_ex_date_add_up_and_a_late_one_is_paid_too() -> None:
    with account_with("long_stock", 5) as broker:
        regular, special = Dividend("SPY", EX_DATE, 0.1), Dividend("SPY", EX_DATE, 4.5)
        cash = broker.account.cash
        broker.pay_dividends([regular], LATER_NS)
        broker.pay_dividends([regular, special], LATER_NS)
        broker.pay_dividends([special, regular], LATER_NS)
        assert broker.account.cash - cash == pytest.approx(500 * 4.6)


def test_a_corrected_dividend_is_paid_on_what_was_held_then() -> None:
    with account_with("long_stock", 5) as broker:
        broker.pay_dividends([Dividend("SPY", EX_DATE, 0.10)], LATER_NS)
        broker.submit(close_order(broker), market(), True, NOW_NS)
        cash = broker.account.cash
        broker.pay_dividends([Dividend("SPY", EX_DATE, 0.12)], LATER_NS)
        assert broker.account.cash - cash == pytest.approx(500 * 0.02)
        assert broker.journal.fold().fingerprint() == broker.account.fingerprint()


def ratios(most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(1, most), st.integers(1, most)).filter(lambda r: r[0] != r[1])


def actions() -> st.SearchStrategy[CorporateAction]:
    fractions = st.fractions(Fraction(1, 50), 5, max_denominator=50)
    return st.one_of(
        ratios(20).map(lambda r: split(*r)),
        st.floats(0.13, 60.0).map(lambda d: SpinOff("SPY", EX_DATE, "NEW", Fraction(1, 3), d)),
        fractions.map(lambda r: SpinOff("SPY", EX_DATE, "NEW", r, 7.5)),
        fractions.map(lambda r: Merger("SPY", EX_DATE, "BUY", r, 12.25)),
        fractions.map(lambda r: Merger("SPY", EX_DATE, "BUY", r)),
        st.just(Rename("SPY", EX_DATE, "META")),
    )


@settings(deadline=None, max_examples=60)
@given(
    shape=st.sampled_from(sorted(set(SHAPES) - {"calendar"})),
    units=st.integers(1, 7),
    first=actions(),
    second=ratios(12),
)
def test_equity_contributions_and_the_fold_survive_any_action(
    shape: str, units: int, first: CorporateAction, second: tuple[int, int]
) -> None:
    with account_with(shape, units) as broker:
        account = broker.account
        before = broker.equity()
        total = account.initial_cash
        booked = apply(broker, first)
        assert broker.equity() == pytest.approx(before, abs=0.005)
        spot = broker.marks.get(booked.after, first.price_after(MARKS["SPY"]))
        after = Split(booked.after, date(2026, 1, 8), *second)
        if booked.after in account.strategies:
            broker.apply_action(after, LATER_NS, spot=spot)
        assert broker.equity() == pytest.approx(before, abs=0.005)
        names = {"SPY", "NEW", "BUY", "META"}
        parts = sum(account.contribution(name, broker.marks) for name in names)
        assert total + parts == pytest.approx(before, abs=0.005)
        for name, strategy in account.strategies.items():
            quantities = {leg.symbol: leg.ratio * strategy.units for leg in strategy.legs}
            assert quantities == {
                symbol: each.quantity
                for symbol, each in account.positions.items()
                if each.underlying == name
            }
            assert math.isfinite(strategy.margin)
        assert set(account.deliverables) <= set(account.positions)
        assert set(account.stock_lots) <= set(account.positions)
        assert broker.journal.fold().fingerprint() == account.fingerprint()


def test_a_dividend_told_late_is_paid_on_the_shares_of_its_ex_date() -> None:
    """However the stock is counted since: in round lots, in shares, or no more."""
    regular, special = Dividend("SPY", EX_DATE, 0.5), Dividend("SPY", EX_DATE, 2.0)
    with account_with("long_stock", 3) as broker:
        broker.pay_dividends([regular], LATER_NS)
        apply(broker, split(3, 2))
        assert broker.account.stock_lots == {"SPY": 1.0}
        cash = broker.account.cash
        (late,) = broker.pay_dividends([regular, special], LATER_NS)
        assert (late.lots, late.lot, late.cash) == (3, 0.0, 600.0)
        assert broker.account.cash == cash + 600.0
    with account_with("long_stock", 3) as broker:
        apply(broker, split(3, 2, date(2026, 1, 5)))
        broker.pay_dividends([regular], LATER_NS)
        sold = broker.submit(
            broker.liquidation("SPY", LATER_NS), {"SPY": quote(67.0, 67.1, 1e6)}, True, NOW_NS
        )
        assert isinstance(sold, Fill)
        (late,) = broker.pay_dividends([regular, special], LATER_NS)
        assert (late.lots, late.lot, late.cash) == (450, 1.0, 900.0)
        assert vars(broker.journal.fold()) == vars(broker.account)


def test_shares_that_join_others_leave_equity_as_it_was() -> None:
    """A merger into a stock that is held already, at a price other than its terms."""
    with account_with("long_stock", 2) as broker:
        legs = (Leg("QQQ", 1),)
        order = open_order(broker, "long_stock", 3, underlying="QQQ", legs=legs)
        assert isinstance(broker.submit(order, market(size=1e6), True, NOW_NS), Fill)
        broker.mark(market() | {"QQQ": quote(50.0, 50.2)})
        before = broker.equity()
        assert apply(broker, Merger("SPY", EX_DATE, "QQQ", Fraction(1, 2))) is not None
        assert held(broker) == {"QQQ": 4}
        assert broker.equity() == pytest.approx(before, abs=0.005)
