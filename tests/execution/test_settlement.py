"""Expiry: what is paid, exercised, assigned, and what stock it leaves."""

import math

import pytest
from msgspec.structs import replace

from tests.execution.scene import (
    CALL_100,
    CALL_105,
    LATER_CALL_100,
    NOW_NS,
    PUT_95,
    PUT_100,
    SECOND_NS,
    SHAPES,
    close_order,
    market,
    open_order,
)
from trading.errors import DataError, OrderError
from trading.execution.broker import PaperBroker
from trading.execution.events import Ending, Event, MarginChanged, Settled
from trading.execution.holdings import Position
from trading.execution.orders import Fill, Leg, Rejection, RejectReason
from trading.execution.settlement import settlements
from trading.execution.states import TradingState

EXPIRING = [PUT_95, PUT_100, CALL_100, CALL_105]
SPX_CALL = "O:SPXW260116C05000000"


def held(**quantities: int) -> dict[str, Position]:
    return {symbol: Position(symbol, "SPY", n, 1.0) for symbol, n in quantities.items()}


def ended(positions: dict[str, int], spot: float) -> dict[str, tuple[Ending, int, float]]:
    events = settlements(held(**positions), EXPIRING, {"SPY": spot}, 100.0, NOW_NS)
    return {event.symbol: (event.ending, event.lots, event.cash) for event in events}


def test_out_of_the_money_is_worthless() -> None:
    assert ended({CALL_100: 1, PUT_95: -2}, 99.0) == {
        CALL_100: (Ending.WORTHLESS, 0, 0.0),
        PUT_95: (Ending.WORTHLESS, 0, 0.0),
    }


def test_bought_options_in_the_money_are_paid_their_intrinsic_value() -> None:
    assert ended({CALL_100: 2}, 103.0) == {CALL_100: (Ending.CASH, 0, 600.0)}
    assert ended({PUT_100: 1}, 96.5) == {PUT_100: (Ending.CASH, 0, 350.0)}


def test_sold_options_in_the_money_are_assigned_stock_at_the_strike() -> None:
    assert ended({CALL_100: -2}, 103.0) == {CALL_100: (Ending.ASSIGNED, -2, 20_000.0)}
    assert ended({PUT_100: -1}, 96.5) == {PUT_100: (Ending.ASSIGNED, 1, -10_000.0)}


def test_bought_options_are_exercised_against_what_sold_ones_deliver() -> None:
    assert ended({CALL_105: 2, CALL_100: -2}, 110.0) == {
        CALL_100: (Ending.ASSIGNED, -2, 20_000.0),
        CALL_105: (Ending.EXERCISED, 2, -21_000.0),
    }


def test_only_as_many_are_exercised_as_offset_and_the_others_are_paid() -> None:
    assert ended({CALL_100: -1, CALL_105: 3}, 110.0) == {
        CALL_100: (Ending.ASSIGNED, -1, 10_000.0),
        CALL_105: (Ending.EXERCISED, 1, -10_500.0 + 1_000.0),
    }


def test_held_stock_is_delivered_and_a_protective_put_sells_it() -> None:
    assert ended({"SPY": 1, CALL_100: -1}, 103.0)[CALL_100] == (Ending.ASSIGNED, -1, 10_000.0)
    assert ended({"SPY": 1, PUT_100: 2}, 90.0)[PUT_100] == (
        Ending.EXERCISED, -1, 10_000.0 + 1_000.0,
    )  # fmt: skip


@pytest.mark.parametrize(("spot", "exercised"), [(100.009, False), (100.01, True)])
def test_a_cent_in_the_money_is_exercised(spot: float, exercised: bool) -> None:
    ending, lots, _ = ended({CALL_100: -1}, spot)[CALL_100]
    assert (ending is Ending.ASSIGNED, lots) == (exercised, -1 if exercised else 0)


def test_index_options_are_settled_in_cash_whoever_holds_them() -> None:
    positions = {SPX_CALL: Position(SPX_CALL, "SPX", -1, 20.0)}
    (event,) = settlements(positions, [SPX_CALL], {"SPX": 5_010.0}, 100.0, NOW_NS)
    assert (event.ending, event.lots, event.cash) == (Ending.CASH, 0, -1_000.0)


@pytest.mark.parametrize("spot", [math.nan, 0.0, -1.0, math.inf])
def test_a_price_that_is_none_settles_nothing(spot: float) -> None:
    with pytest.raises(DataError, match="closing price of SPY"):
        ended({CALL_100: 1}, spot)


def opened(broker: PaperBroker, shape: str, units: int = 1) -> None:
    result = broker.submit(open_order(broker, shape, units), market(), True, NOW_NS)
    assert isinstance(result, Fill)


def test_an_assigned_spread_leaves_stock_under_its_strategy_until_it_is_closed(
    broker: PaperBroker,
) -> None:
    opened(broker, "iron_condor")
    cash = broker.account.cash
    broker.settle(EXPIRING, {"SPY": 103.0}, NOW_NS)
    account = broker.account
    assert account.positions == {"SPY": Position("SPY", "SPY", -1, 103.0)}
    assert account.strategies["SPY"].legs == (Leg("SPY", -1),)
    assert account.cash == cash + 10_000.0
    assert broker.equity() == cash + 10_000.0 - 10_300.0
    assert account.strategies["SPY"].margin_per_unit == 15_450.0
    assert broker.stock_to_liquidate() == ["SPY"]
    order = broker.liquidation("SPY", NOW_NS + SECOND_NS)
    assert isinstance(broker.submit(order, market(), True, NOW_NS), Fill)
    assert not account.positions
    assert broker.stock_to_liquidate() == []
    assert account.buying_power == account.cash == round(10_000.0 + account.realised_pnl, 6)


def test_stock_that_liquidates_in_parts_stays_to_liquidate(broker: PaperBroker) -> None:
    opened(broker, "short_put")
    broker.settle([PUT_100], {"SPY": 99.0}, NOW_NS)
    thin = market(size=50.0) | {"SPY": market(size=0.5)["SPY"]}
    refused = broker.submit(broker.liquidation("SPY", NOW_NS), thin, True, NOW_NS)
    assert isinstance(refused, Rejection)
    assert refused.reason is RejectReason.NO_SIZE
    assert broker.stock_to_liquidate() == ["SPY"]
    broker.set_trading_state(TradingState.HALTED, "operator", NOW_NS)
    assert broker.stock_to_liquidate() == []
    with pytest.raises(OrderError, match="nothing is open on QQQ"):
        broker.liquidation("QQQ", NOW_NS)


def test_a_covered_call_that_is_assigned_delivers_its_stock(broker: PaperBroker) -> None:
    opened(broker, "covered_call")
    assert broker.account.margin_used == 0.0
    broker.settle(EXPIRING, {"SPY": 110.0}, NOW_NS)
    assert not broker.account.strategies
    assert broker.account.cash == 10_000.0 - 10_055.0 + 100.0 + 10_500.0
    assert broker.account.realised_pnl == 545.0


def test_stock_left_by_a_covered_call_that_expired_is_to_be_liquidated(
    broker: PaperBroker,
) -> None:
    opened(broker, "covered_call")
    assert broker.stock_to_liquidate() == []
    broker.settle(EXPIRING, {"SPY": 101.0}, NOW_NS)
    assert broker.account.strategies["SPY"].legs == (Leg("SPY", 1),)
    assert broker.stock_to_liquidate() == ["SPY"]


def test_a_calendar_goes_on_with_its_later_leg(broker: PaperBroker) -> None:
    opened(broker, "calendar", 2)
    broker.settle(EXPIRING, {"SPY": 99.0}, NOW_NS)
    assert broker.account.strategies["SPY"].legs == (Leg(LATER_CALL_100, 1),)
    assert broker.account.strategies["SPY"].units == 2
    assert broker.stock_to_liquidate() == []
    assert isinstance(broker.submit(close_order(broker), market(), True, NOW_NS), Fill)


def test_an_assigned_calendar_is_liquidated_together_with_what_covers_it(
    broker: PaperBroker,
) -> None:
    opened(broker, "calendar")
    broker.settle(EXPIRING, {"SPY": 103.0}, NOW_NS)
    assert broker.account.strategies["SPY"].legs == (Leg(LATER_CALL_100, 1), Leg("SPY", -1))
    assert broker.account.margin_used == 10_000.0
    order = broker.liquidation("SPY", NOW_NS)
    assert {leg.symbol: leg.ratio for leg in order.legs} == {LATER_CALL_100: -1, "SPY": 1}
    assert isinstance(broker.submit(order, market(), True, NOW_NS), Fill)


def test_all_of_a_settlement_is_one_transaction_with_its_margin(broker: PaperBroker) -> None:
    opened(broker, "iron_condor", 2)
    before = broker.journal.last_seq
    broker.close_session(
        "2026-01-16", broker.equity(), NOW_NS, expiring=EXPIRING, underlying_prices={"SPY": 103.5}
    )
    events: list[Event] = list(broker.journal.events(after=before))
    kinds = [type(event).__name__ for event in events]
    assert kinds == [*["Settled"] * 4, "MarginChanged", "SessionClosed", "StateChanged"]
    assert isinstance(events[4], MarginChanged)
    assert events[4].reserve_per_unit == 15_525.0
    ends = broker.journal._ends
    assert before + 6 in ends
    assert not set(range(before + 1, before + 6)) & set(ends)


def test_stock_that_the_cash_cannot_carry_calls_for_margin_until_it_is_closed(
    broker: PaperBroker,
) -> None:
    opened(broker, "iron_condor", 5)
    broker.settle(EXPIRING, {"SPY": 101.0}, NOW_NS)
    account = broker.account
    assert account.buying_power < 0.0
    assert account.trading_state is TradingState.REDUCING
    assert account.state_reason == RejectReason.MARGIN_CALL
    assert isinstance(
        broker.submit(broker.liquidation("SPY", NOW_NS), market(), True, NOW_NS), Fill
    )
    broker.on_bar(market(), NOW_NS)
    assert account.trading_state is TradingState.ACTIVE


def test_settlement_is_the_same_in_any_order_of_symbols() -> None:
    positions = held(**{CALL_100: -2, CALL_105: 2, PUT_100: 1, "SPY": 1})
    one = settlements(positions, EXPIRING, {"SPY": 107.0}, 100.0, NOW_NS)
    other = settlements(positions, EXPIRING[::-1], {"SPY": 107.0}, 100.0, NOW_NS)
    total = [(sum(e.cash for e in events), sum(e.lots for e in events)) for events in (one, other)]
    assert total[0] == total[1]


def test_a_second_settlement_of_the_same_expiry_does_nothing(broker: PaperBroker) -> None:
    opened(broker, "iron_condor")
    assert len(broker.settle(EXPIRING, {"SPY": 103.0}, NOW_NS)) == 4
    before = broker.account.fingerprint()
    assert broker.settle(EXPIRING, {"SPY": 103.0}, NOW_NS + 1) == []
    for event in broker.journal.events():
        if isinstance(event, Settled):
            broker.account.apply(event)
            broker.account.apply(replace(event))
    assert broker.account.fingerprint() == before


def test_every_shape_settles_at_any_price_to_what_it_was_worth(broker: PaperBroker) -> None:
    broker.account.cash = 1_000_000.0
    for number, shape in enumerate(sorted(SHAPES)):
        order = open_order(broker, shape, 2, underlying="SPY")
        if isinstance(broker.submit(order, market(), True, NOW_NS), Rejection):
            continue
        broker.settle([*EXPIRING, LATER_CALL_100], {"SPY": 92.0 + number}, NOW_NS + number)
        for _ in broker.stock_to_liquidate():
            broker.submit(broker.liquidation("SPY", NOW_NS), market(), True, NOW_NS)
        if "SPY" in broker.account.strategies:
            broker.submit(close_order(broker), market(), True, NOW_NS)
        assert not broker.account.positions, shape
