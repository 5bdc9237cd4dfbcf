import math

import pytest

from tests.execution.scene import CALL_100, CALL_105, NOW_NS, SHAPES, quote
from trading.errors import JournalError
from trading.execution.events import (
    AccountOpened,
    DecisionMade,
    Ending,
    Event,
    MarginChanged,
    OrderAccepted,
    OrderFilled,
    SessionClosed,
    Settled,
)
from trading.execution.holdings import marked
from trading.execution.orders import Fill, Intent, Leg, LegFill, Order
from trading.execution.portfolio import Account

CREDIT = SHAPES["bear_call_credit"]


def order(number: int, intent: Intent, legs: tuple[Leg, ...], units: int = 2) -> OrderAccepted:
    made = Order(f"paper-{number}", NOW_NS, "SPY", "bear_call_credit", intent, legs, units)
    return OrderAccepted(NOW_NS, made)


def fill(
    accepted: OrderAccepted, prices: tuple[float, float], fees: float = 3.0, units: int = 2
) -> OrderFilled:
    legs = tuple(
        LegFill(leg.symbol, leg.ratio * units, price)
        for leg, price in zip(accepted.order.legs, prices, strict=True)
    )
    premium = -sum(leg.quantity * leg.price for leg in legs) * 100.0
    order_id = accepted.order.order_id
    done = Fill(f"{order_id}/1", order_id, NOW_NS, "SPY", units, legs, round(premium, 6), fees)
    return OrderFilled(NOW_NS, done)


def opened() -> list[Event]:
    entry = order(1, Intent.OPEN, CREDIT)
    return [AccountOpened(NOW_NS, "paper", 10_000.0), entry, fill(entry, (3.0, 1.1))]


def folded(events: list[Event]) -> Account:
    account = Account()
    for event in events:
        account.apply(event)
    return account


def test_short_vertical_reserves_its_width() -> None:
    account = folded(opened())
    assert account.cash == 10_000.0 + 380.0 - 3.0
    assert account.margin_used == 1000.0
    assert account.buying_power == 9377.0
    assert account.positions[CALL_100].quantity == -2
    assert account.positions[CALL_105].quantity == 2


def test_profit_is_booked_when_the_strategy_is_closed_after_all_fees() -> None:
    exit_ = order(2, Intent.CLOSE, tuple(Leg(leg.symbol, -leg.ratio) for leg in CREDIT))
    account = folded([*opened(), exit_, fill(exit_, (2.0, 0.5))])
    assert account.realised_pnl == 380.0 - 300.0 - 6.0
    assert account.cash == 10_000.0 + account.realised_pnl
    assert (account.closed_trades, account.winning_trades, account.win_rate) == (1, 1, 1.0)
    assert (account.fills, account.fees_paid) == (2, 6.0)
    assert not account.positions
    assert not account.strategies


def test_a_profit_that_fees_eat_is_no_win() -> None:
    exit_ = order(2, Intent.CLOSE, tuple(Leg(leg.symbol, -leg.ratio) for leg in CREDIT))
    account = folded([*opened(), exit_, fill(exit_, (2.38, 0.5), fees=2.0)])
    assert account.realised_pnl == -1.0
    assert account.win_rate == 0.0


def test_settlement_of_the_last_leg_books_the_strategy() -> None:
    account = folded(opened())
    account.apply(Settled(NOW_NS, CALL_100, -2, 4.0, -800.0, 104.0))
    assert account.closed_trades == 0
    account.apply(Settled(NOW_NS, CALL_105, 2, 0.0, 0.0, 104.0))
    assert account.closed_trades == 1
    assert account.realised_pnl == 380.0 - 3.0 - 800.0
    assert account.cash == 10_000.0 + account.realised_pnl


def test_applying_history_twice_changes_nothing_but_the_first_event_is_refused() -> None:
    decision = DecisionMade(NOW_NS, "SPY", 1, "close", 0, 0.0, 0.25)
    settled = Settled(NOW_NS, CALL_100, -2, 4.0, -800.0, 104.0)
    events = [*opened(), decision, settled]
    account = folded(events)
    before = account.fingerprint()
    for event in events[1:]:
        account.apply(event)
    assert account.fingerprint() == before
    with pytest.raises(JournalError, match="one journal holds one"):
        account.apply(events[0])


@pytest.mark.parametrize(
    "event",
    [
        fill(order(9, Intent.OPEN, CREDIT), (3.0, 1.0)),
        order(7, Intent.OPEN, CREDIT),
        Settled(NOW_NS, CALL_100, -1, 0.0, 0.0, 90.0),
    ],
    ids=["fill of an unknown order", "order out of sequence", "settlement of another quantity"],
)
def test_an_event_that_contradicts_history_is_refused_and_changes_nothing(event: Event) -> None:
    account = folded(opened())
    before = account.fingerprint()
    with pytest.raises(JournalError):
        account.apply(event)
    assert account.fingerprint() == before


def test_changes_of_margin_are_applied_once_and_in_their_order() -> None:
    account = folded(opened())
    changes = [MarginChanged(NOW_NS, 1, "SPY", 600.0), MarginChanged(NOW_NS, 2, "SPY", 700.0)]
    with pytest.raises(JournalError, match="change of margin 2 follows number 0"):
        account.apply(changes[1])
    for change in (*changes, *changes):
        account.apply(change)
    assert account.margin_used == 1400.0
    with pytest.raises(JournalError, match="where nothing is open"):
        account.apply(MarginChanged(NOW_NS, 3, "QQQ", 1.0))


def test_delivered_stock_nets_with_what_is_held() -> None:
    account = folded(opened())
    account.apply(Settled(NOW_NS, CALL_100, -2, 4.0, 20_000.0, 104.0, -2, Ending.ASSIGNED))
    assert account.positions["SPY"].quantity == -2
    assert account.strategies["SPY"].delivered
    account.apply(Settled(NOW_NS, CALL_105, 2, 0.0, -21_000.0, 106.0, 2, Ending.EXERCISED))
    assert not account.positions
    assert account.cash == 10_000.0 + 380.0 - 3.0 - 1_000.0


def test_nothing_happens_to_an_account_that_is_not_open() -> None:
    with pytest.raises(JournalError, match="opens first"):
        Account().apply(SessionClosed(NOW_NS, "2026-01-05", 1.0))


def test_equity_needs_a_mark_for_every_position() -> None:
    account = folded(opened())
    assert account.equity({CALL_100: 3.0, CALL_105: 1.0}) == pytest.approx(10_377.0 - 400.0)
    assert math.isnan(account.equity({CALL_100: 3.0}))


def test_equity_adds_up_in_the_order_of_the_legs_bit_by_bit() -> None:
    account = folded(opened())
    marks = {CALL_100: 3.1400000000000006, CALL_105: 1.0700000000000003}
    value = 0.0
    for leg in account.strategies["SPY"].legs:
        value += leg.ratio * 2 * 100.0 * marks[leg.symbol]
    assert account.equity(marks) == account.cash + value
    assert account.contribution("SPY", marks) == account.net_cash["SPY"] + value


def test_contributions_of_the_underlyings_add_up_to_the_profit() -> None:
    account = folded(opened())
    marks = {CALL_100: 2.0, CALL_105: 0.7}
    profit = account.contribution("SPY", marks) + account.contribution("QQQ", marks)
    assert account.initial_cash + profit == pytest.approx(account.equity(marks))


def test_decisions_and_rewards_are_counted_once_for_each_bar_and_underlying() -> None:
    account = folded(opened())
    for ts_ns in (1, 2, 2, 1, 3):
        account.apply(DecisionMade(ts_ns, "SPY", 0, "hold", 0, 0.0, 0.5))
    account.apply(DecisionMade(3, "QQQ", 0, "hold", 0, 0.0, -0.25))
    assert (account.decisions, account.reward_total) == (4, 1.25)


def test_many_small_amounts_do_not_drift() -> None:
    account = folded([AccountOpened(NOW_NS, "paper", 0.1)])
    for _ in range(10_000):
        account._book_cash("SPY", 0.1)
    assert account.cash == 1000.1


@pytest.mark.parametrize(
    ("bid", "ask", "value"),
    [
        (1.0, 1.2, 1.1),
        (0.0, 0.8, 0.8),
        (0.0, 2.0, 1.5),
        (2.0, 0.0, 2.0),
        (1.0, 0.0, 1.5),
        (0.0, 0.0, 1.5),
        (3.0, 2.0, 1.5),
        (math.nan, 2.0, 1.5),
        (math.nan, math.nan, 1.5),
    ],
)
def test_mark_is_the_mid_or_the_last_value_within_the_sides_quoted(
    bid: float, ask: float, value: float
) -> None:
    assert marked(quote(bid, ask), 1.5) == pytest.approx(value)
