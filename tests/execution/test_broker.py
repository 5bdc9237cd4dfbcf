import math
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.execution.scene import (
    CALL_100,
    CALL_105,
    NOW_NS,
    QQQ_CALL_100,
    SECOND_NS,
    close_order,
    market,
    new_broker,
    open_order,
    quote,
    trade_bar,
)
from tests.usual import fee_schedule, risk_limits
from trading.errors import DataError, JournalError, OrderError
from trading.execution.broker import PaperBroker
from trading.execution.events import DecisionMade, MarginChanged, OrderCancelled, OrderRejected
from trading.execution.exposure import Greeks
from trading.execution.journal import Journal
from trading.execution.matching import FillStyle
from trading.execution.orders import Fill, Leg, Rejection, RejectReason
from trading.execution.states import TradingState


def fill(broker: PaperBroker, shape: str, units: int = 1) -> Fill:
    result = broker.submit(open_order(broker, shape, units), market(), True, NOW_NS)
    assert isinstance(result, Fill)
    return result


def rejected(result: Fill | Rejection | None) -> RejectReason:
    assert isinstance(result, Rejection)
    return result.reason


def test_market_order_fills_at_the_opposite_touch(broker: PaperBroker) -> None:
    filled = fill(broker, "bull_call_debit", 2)
    assert [(leg.quantity, leg.price) for leg in filled.legs] == [(2, 3.1), (-2, 1.0)]
    assert filled.premium == -420.0
    assert broker.account.cash == 9_580.0
    assert broker.account.buying_power == 9_580.0


def test_fees_and_slippage_are_charged(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, schedule=fee_schedule(), slippage=0.01)
    filled = fill(broker, "long_call")
    assert filled.premium == -311.0
    assert filled.fees == pytest.approx(0.65 + 0.03 + 0.03)
    assert broker.account.cash == 10_000.0 - 311.0 - 0.71


def test_credit_vertical_keeps_its_credit_in_cash_and_reserves_its_width(
    broker: PaperBroker,
) -> None:
    fill(broker, "bear_call_credit", 2)
    assert broker.account.cash == 10_380.0
    assert broker.account.buying_power == 9_380.0


def test_iron_condor_reserves_the_larger_side_alone(broker: PaperBroker) -> None:
    fill(broker, "iron_condor")
    assert broker.account.margin_used == 500.0


def test_closing_books_the_loss_of_the_spread_crossed(broker: PaperBroker) -> None:
    fill(broker, "bull_call_debit", 2)
    broker.submit(close_order(broker), market(), True, NOW_NS)
    assert broker.account.realised_pnl == pytest.approx(-40.0)
    assert broker.account.cash == 9_960.0
    assert broker.account.closed_trades == 1
    assert not broker.account.positions


def test_immediate_order_takes_what_is_displayed_and_cancels_the_rest(broker: PaperBroker) -> None:
    order = open_order(broker, "long_call", 9)
    result = broker.submit(order, market(size=4.0), True, NOW_NS)
    assert isinstance(result, Fill)
    assert result.units == 4
    assert not broker.account.working_orders
    assert isinstance(list(broker.journal.events())[-1], OrderCancelled)


def test_partial_close_leaves_the_other_units_open(broker: PaperBroker) -> None:
    fill(broker, "bear_call_credit", 4)
    broker.submit(close_order(broker), market(size=3.0), True, NOW_NS)
    assert broker.account.strategies["SPY"].units == 1
    assert broker.account.margin_used == 500.0
    assert broker.account.closed_trades == 0
    broker.submit(close_order(broker), market(), True, NOW_NS)
    assert broker.account.closed_trades == 1
    assert broker.account.cash == 10_000.0 + broker.account.realised_pnl


@pytest.mark.parametrize(
    ("bid", "ask", "size", "age_s", "reason"),
    [
        (0.0, 1.0, 10.0, 0, RejectReason.ONE_SIDED),
        (1.0, 1.0, 10.0, 0, RejectReason.CROSSED),
        (1.0, 1.1, 10.0, 91, RejectReason.STALE_QUOTE),
        (1.0, 1.1, 0.0, 0, RejectReason.NO_SIZE),
    ],
)
def test_a_bad_quote_rejects_the_whole_order(
    broker: PaperBroker, bid: float, ask: float, size: float, age_s: int, reason: RejectReason
) -> None:
    quotes = market()
    quotes[CALL_105] = quote(bid, ask, size, NOW_NS - age_s * SECOND_NS)
    order = open_order(broker, "bull_call_debit")
    assert rejected(broker.submit(order, quotes, True, NOW_NS)) is reason
    assert broker.account.cash == 10_000.0
    assert broker.account.trading_state is TradingState.ACTIVE


def test_nothing_trades_outside_the_session(broker: PaperBroker) -> None:
    order = open_order(broker, "long_call")
    assert rejected(broker.submit(order, market(), False, NOW_NS)) is RejectReason.OUTSIDE_SESSION
    broker.submit(open_order(broker, "long_call", limit=3.0, day=True), market(), True, NOW_NS)
    cheaper = market() | {CALL_100: quote(2.8, 2.9)}
    broker.on_bar(cheaper, NOW_NS)
    assert broker.account.fills == 0
    assert len(trade_bar(broker, cheaper)) == 1


@pytest.mark.parametrize("symbol", ["QQQ", "O:SPY260116C00999000", "O:SPY1260116C00100000"])
def test_unknown_unquoted_and_adjusted_contracts_are_refused(
    broker: PaperBroker, symbol: str
) -> None:
    quotes = market() | {"O:SPY1260116C00100000": quote(1.0, 1.1)}
    order = open_order(broker, "long_call", legs=(Leg(symbol, 1),))
    assert rejected(broker.submit(order, quotes, True, NOW_NS)) is RejectReason.UNKNOWN_CONTRACT


def test_uncovered_calls_and_covers_that_expire_first_are_undefined_risk(
    broker: PaperBroker,
) -> None:
    order = open_order(broker, "short_call")
    assert rejected(broker.submit(order, market(), True, NOW_NS)) is RejectReason.UNDEFINED_RISK
    early = "O:SPY260109C00100000"
    order = open_order(broker, "calendar", legs=(Leg(early, 1), Leg(CALL_100, -1)))
    quotes = market() | {early: quote(1.0, 1.1)}
    assert rejected(broker.submit(order, quotes, True, NOW_NS)) is RejectReason.UNDEFINED_RISK


def test_buying_power_covers_premium_reserve_and_fees_to_the_cent(tmp_path: Path) -> None:
    schedule = fee_schedule()
    for cash, accepted in ((310.71, True), (310.70, False)):
        broker = new_broker(tmp_path / str(cash), cash, schedule=schedule)
        broker.account.day_start_equity = 0.0
        result = broker.submit(open_order(broker, "long_call"), market(), True, NOW_NS)
        assert isinstance(result, Fill) is accepted
        assert broker.account.buying_power >= 0.0


def test_one_strategy_is_open_for_each_underlying(broker: PaperBroker) -> None:
    fill(broker, "long_call")
    order = open_order(broker, "long_put")
    assert rejected(broker.submit(order, market(), True, NOW_NS)) is RejectReason.POSITION_EXISTS
    legs = (Leg(QQQ_CALL_100, 1),)
    order = open_order(broker, "long_call", underlying="QQQ", legs=legs)
    assert isinstance(broker.submit(order, market(), True, NOW_NS), Fill)


def test_only_what_is_held_can_be_closed_and_only_together(broker: PaperBroker) -> None:
    fill(broker, "bull_call_debit", 2)
    closing = close_order(broker)
    for wrong in (
        replace(closing, legs=closing.legs[:1]),
        replace(closing, units=3),
        replace(closing, underlying="QQQ"),
    ):
        order = replace(wrong, order_id=broker.next_order_id())
        assert rejected(broker.submit(order, market(), True, NOW_NS)) is RejectReason.NO_POSITION


def test_order_ids_follow_each_other_so_that_nothing_is_submitted_twice(
    broker: PaperBroker,
) -> None:
    order = open_order(broker, "long_call")
    broker.submit(order, market(), True, NOW_NS)
    with pytest.raises(OrderError, match="next id is 'paper-2'"):
        broker.submit(order, market(), True, NOW_NS)


def test_a_day_limit_waits_for_its_price_and_holds_its_buying_power(broker: PaperBroker) -> None:
    order = open_order(broker, "bull_call_debit", 3, limit=2.0, day=True)
    assert broker.submit(order, market(), True, NOW_NS) is None
    assert broker.account.buying_power == 10_000.0 - 600.0
    assert trade_bar(broker, market()) == []
    cheaper = market() | {CALL_100: quote(2.8, 2.9, size=2.0)}
    (first,) = trade_bar(broker, cheaper)
    assert (first.units, first.premium) == (2, -380.0)
    assert broker.account.buying_power == 10_000.0 - 380.0 - 200.0
    (second,) = trade_bar(broker, cheaper)
    assert (second.units, second.fill_id) == (1, "paper-1/3")
    assert broker.account.strategies["SPY"].units == 3
    assert broker.account.buying_power == broker.account.cash == 10_000.0 - 570.0


def test_an_immediate_limit_that_is_not_marketable_is_rejected(broker: PaperBroker) -> None:
    order = open_order(broker, "bull_call_debit", limit=2.09)
    reason = rejected(broker.submit(order, market(), True, NOW_NS))
    assert reason is RejectReason.LIMIT_NOT_MARKETABLE
    order = open_order(broker, "bull_call_debit", limit=2.10)
    assert isinstance(broker.submit(order, market(), True, NOW_NS), Fill)


def test_a_credit_limit_is_negative(broker: PaperBroker) -> None:
    order = open_order(broker, "bear_call_credit", limit=-1.95)
    reason = rejected(broker.submit(order, market(), True, NOW_NS))
    assert reason is RejectReason.LIMIT_NOT_MARKETABLE
    order = open_order(broker, "bear_call_credit", limit=-1.90)
    assert isinstance(broker.submit(order, market(), True, NOW_NS), Fill)


def test_limits_are_net_prices_of_the_style_of_fills(broker: PaperBroker) -> None:
    """Two legs a dime wide pay 66 % of it each: 3.07 and 1.03 in cents, against the order."""
    broker.style = FillStyle.SHARE_OF_SPREAD
    order = open_order(broker, "bull_call_debit", limit=2.03)
    reason = rejected(broker.submit(order, market(), True, NOW_NS))
    assert reason is RejectReason.LIMIT_NOT_MARKETABLE
    order = open_order(broker, "bull_call_debit", limit=2.03, day=True)
    assert broker.submit(order, market(), True, NOW_NS) is None
    locked = market() | {CALL_100: quote(3.0, 3.0)}
    assert trade_bar(broker, locked) == []
    assert trade_bar(broker, market()) == []
    narrower = market() | {CALL_100: quote(2.97, 3.03)}
    (fill,) = trade_bar(broker, narrower)
    assert [leg.price for leg in fill.legs] == [3.01, 1.03]
    assert fill.premium == -198.0


def test_waiting_orders_expire_with_the_session_and_can_be_cancelled(broker: PaperBroker) -> None:
    def close_session(now_ns: int) -> None:
        broker.close_session("2026-01-05", broker.equity(), now_ns)

    for release in (close_session, lambda ts_ns: broker.cancel("paper-2", ts_ns)):
        order = open_order(broker, "long_call", limit=1.0, day=True)
        broker.submit(order, market(), True, NOW_NS)
        assert broker.account.buying_power == 9_900.0
        release(NOW_NS)
        assert broker.account.buying_power == 10_000.0
    with pytest.raises(OrderError, match="does not wait"):
        broker.cancel("paper-1", NOW_NS)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("day", [False, True])
def test_a_quote_that_is_no_number_rejects_and_suspends_its_underlying_alone(
    broker: PaperBroker, bad: float, day: bool
) -> None:
    quotes = market() | {CALL_105: quote(bad, 1.1)}
    order = open_order(broker, "bull_call_debit", limit=2.5 if day else None, day=day)
    assert rejected(broker.submit(order, quotes, True, NOW_NS)) is RejectReason.NOT_A_NUMBER
    assert broker.account.suspended == {"SPY": RejectReason.NOT_A_NUMBER}
    assert broker.account.trading_state is TradingState.ACTIVE


def test_less_than_a_cent_in_the_money_is_not_exercised(broker: PaperBroker) -> None:
    fill(broker, "long_call")
    assert broker.settle([CALL_100], {"SPY": 100.009}, NOW_NS)[0].cash == 0.0


@pytest.mark.parametrize("prices", [{}, {"SPY": math.nan}, {"SPY": 0.0}])
def test_settlement_waits_for_a_price(broker: PaperBroker, prices: dict[str, float]) -> None:
    fill(broker, "long_call")
    with pytest.raises(DataError, match=f"cannot settle {CALL_100}"):
        broker.settle([CALL_100], prices, NOW_NS)
    assert broker.account.positions


def test_settlement_cancels_the_orders_that_wait_on_the_contract(broker: PaperBroker) -> None:
    fill(broker, "long_call")
    broker.submit(close_order(broker, limit=-9.0, day=True), market(), True, NOW_NS)
    broker.settle([CALL_100], {"SPY": 101.0}, NOW_NS)
    assert not broker.account.working_orders


def test_a_daily_loss_halts_trading_until_the_session_closes(broker: PaperBroker) -> None:
    fill(broker, "long_call", 3)
    crash = market() | {CALL_100: quote(1.0, 1.1)}
    broker.on_bar(crash, NOW_NS)
    assert broker.account.trading_state is TradingState.HALTED
    assert rejected(broker.submit(close_order(broker), crash, True, NOW_NS)) is RejectReason.HALTED
    broker.close_session("2026-01-05", broker.equity(), NOW_NS)
    assert broker.account.trading_state is TradingState.ACTIVE
    assert isinstance(broker.submit(close_order(broker), crash, True, NOW_NS), Fill)


def test_an_equity_that_is_no_number_halts_for_good(broker: PaperBroker) -> None:
    order = open_order(broker, "long_call")
    reason = rejected(broker.submit(order, market(), True, NOW_NS, equity=math.nan))
    assert reason is RejectReason.NOT_A_NUMBER
    broker.close_session("2026-01-05", 10_000.0, NOW_NS)
    assert broker.account.trading_state is TradingState.HALTED
    broker.set_trading_state(TradingState.ACTIVE, "operator", NOW_NS)
    assert isinstance(broker.submit(open_order(broker, "long_call"), market(), True, NOW_NS), Fill)


NAKED = risk_limits(allow_naked_shorts=True)


def test_a_covered_call_opens_and_closes_as_one_order(broker: PaperBroker) -> None:
    filled = fill(broker, "covered_call")
    assert [(leg.symbol, leg.quantity) for leg in filled.legs] == [("SPY", 1), (CALL_105, -1)]
    assert filled.premium == -9_955.0
    assert broker.account.buying_power == 45.0
    broker.mark(market())
    assert broker.equity() == 10_000.0 - 10.0
    broker.submit(close_order(broker), market(), True, NOW_NS)
    assert broker.account.cash == 9_980.0


@pytest.mark.parametrize(
    ("underlying", "symbols", "detail"),
    [
        ("SPY", ("QQQ",), "neither an option symbol .* nor the stock of SPY"),
        ("SPX", ("SPX",), "an index, which has no shares"),
        ("SPY", ("SPY", QQQ_CALL_100), "do not cover each other"),
    ],
)
def test_stock_of_another_name_covers_nothing(
    broker: PaperBroker, underlying: str, symbols: tuple[str, ...], detail: str
) -> None:
    legs = tuple(Leg(symbol, 1 - 2 * number) for number, symbol in enumerate(symbols))
    order = open_order(broker, "covered_call", underlying=underlying, legs=legs)
    quotes = market() | {"SPX": quote(5_000.0, 5_001.0)}
    result = broker.submit(order, quotes, True, NOW_NS)
    assert rejected(result) is RejectReason.UNKNOWN_CONTRACT
    assert isinstance(result, Rejection)
    assert re.search(detail, result.detail)


def test_uncovered_sales_need_the_setting_and_a_price_of_the_underlying(tmp_path: Path) -> None:
    strict, free = new_broker(tmp_path / "a"), new_broker(tmp_path / "b", limits=NAKED)
    unpriced = {symbol: view for symbol, view in market().items() if symbol != "SPY"}
    for broker, quotes in ((strict, market()), (free, unpriced)):
        order = open_order(broker, "short_straddle")
        reason = rejected(broker.submit(order, quotes, True, NOW_NS))
        assert reason is RejectReason.UNDEFINED_RISK
    order = open_order(free, "short_straddle")
    spots = {"SPY": 100.5}
    assert isinstance(free.submit(order, unpriced, True, NOW_NS, spots=spots), Fill)


def test_uncovered_straddle_holds_back_the_larger_side_and_the_value_of_the_other(
    tmp_path: Path,
) -> None:
    broker = new_broker(tmp_path, limits=NAKED)
    fill(broker, "short_straddle")
    # Call at 3.00 and 20 % of 100.50; the put is 0.50 out of the money and worth 2.50.
    assert broker.account.margin_used == pytest.approx(300.0 + 2_010.0 + 250.0)
    assert broker.account.cash == 10_550.0
    assert broker.account.strategies["SPY"].margin_moves
    broker.submit(close_order(broker), market(), True, NOW_NS)
    assert broker.account.margin_used == 0.0


def test_short_stock_holds_back_half_its_value_beyond_the_proceeds(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, limits=NAKED)
    fill(broker, "short_stock")
    assert broker.account.cash == 20_045.0
    assert broker.account.buying_power == 20_045.0 - 15_075.0


def test_margin_that_moves_is_written_down_and_survives_a_restart(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, limits=NAKED)
    fill(broker, "short_stock")
    events = broker.journal.last_seq
    broker.on_bar(market(), NOW_NS, spots={"SPY": 100.6})
    assert broker.journal.last_seq == events
    broker.on_bar(market(), NOW_NS, spots={"SPY": 110.0})
    assert list(broker.journal.events(after=events)) == [MarginChanged(NOW_NS, 1, "SPY", 16_500.0)]
    before = broker.account.fingerprint()
    broker.journal.close()
    again = new_broker(tmp_path, limits=NAKED)
    assert again.account.fingerprint() == before
    assert again.account.buying_power == 20_045.0 - 16_500.0


def test_a_margin_call_leaves_only_closing_until_it_is_met(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, limits=NAKED)
    fill(broker, "short_stock")
    broker.on_bar(market(), NOW_NS, equity=9_900.0, spots={"SPY": 134.0})
    account = broker.account
    assert account.buying_power == 20_045.0 - 20_100.0
    assert (account.trading_state, account.state_reason) == ("reducing", "margin_call")
    legs = (Leg(QQQ_CALL_100, 1),)
    order = open_order(broker, "long_call", underlying="QQQ", legs=legs)
    assert rejected(broker.submit(order, market(), True, NOW_NS)) is RejectReason.REDUCING
    broker.on_bar(market(), NOW_NS, spots={"SPY": 133.6})
    assert account.buying_power == 5.0
    assert account.trading_state is TradingState.ACTIVE


def test_a_margin_call_does_not_lift_what_an_operator_ordered(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, limits=NAKED)
    fill(broker, "short_stock")
    broker.set_trading_state(TradingState.REDUCING, "operator", NOW_NS)
    for spot in (134.0, 100.0):
        broker.on_bar(market(), NOW_NS, equity=9_900.0, spots={"SPY": spot})
        assert (broker.account.trading_state, broker.account.state_reason) == (
            "reducing", "operator",
        )  # fmt: skip


def test_a_waiting_uncovered_sale_is_charged_the_margin_of_its_fill(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, limits=NAKED)
    order = open_order(broker, "short_call", 2, limit=-3.2, day=True)
    assert broker.submit(order, market(), True, NOW_NS) is None
    dearer = market() | {CALL_100: quote(3.3, 3.4, size=1.0)}
    for spot in (101.0, 103.0):
        assert len(trade_bar(broker, dearer, spots={"SPY": spot})) == 1
    held = broker.account.strategies["SPY"]
    assert held.units == 2
    # The first at its value of 3.35 in the second bar, the second at the 3.30 that it brought.
    assert held.margin == pytest.approx(335.0 + 2_060.0 + 330.0 + 2_060.0, abs=0.02)


def test_a_drawdown_from_the_peak_leaves_only_closing_until_its_owner_resumes(
    tmp_path: Path,
) -> None:
    broker = new_broker(tmp_path, limits=risk_limits(max_daily_loss_pct=50.0))
    fill(broker, "long_call")
    broker.close_session("2026-01-05", 16_000.0, NOW_NS)
    broker.on_bar(market(), NOW_NS, equity=12_000.0)
    assert broker.account.trading_state is TradingState.ACTIVE
    broker.on_bar(market(), NOW_NS, equity=11_990.0)
    assert broker.account.trading_state is TradingState.REDUCING
    assert broker.account.state_reason == RejectReason.MAX_DRAWDOWN
    events = broker.journal.last_seq
    broker.on_bar(market(), NOW_NS, equity=11_980.0)
    assert broker.journal.last_seq == events
    broker.close_session("2026-01-06", 11_990.0, NOW_NS)
    assert broker.account.trading_state is TradingState.REDUCING
    broker.reset_peak(11_990.0, NOW_NS)
    broker.set_trading_state(TradingState.ACTIVE, "operator", NOW_NS)
    broker.on_bar(market(), NOW_NS, equity=11_900.0)
    assert broker.account.trading_state is TradingState.ACTIVE


def test_limits_on_greeks_reject_an_opening_order(broker: PaperBroker) -> None:
    flat, unit = Greeks(0.0, 0.0, 0.0), Greeks(6_000.0, 100.0, 10.0)
    order = open_order(broker, "long_call", 4)
    result = broker.submit(
        order, market(), True, NOW_NS, equity=10_000.0, greeks=flat, unit_greeks=unit
    )
    assert rejected(result) is RejectReason.MAX_DELTA
    order = open_order(broker, "long_call", 3)
    assert isinstance(
        broker.submit(order, market(), True, NOW_NS, greeks=flat, unit_greeks=unit), Fill
    )


def test_reducing_cancels_orders_that_wait_to_open(broker: PaperBroker) -> None:
    broker.submit(open_order(broker, "long_call", limit=1.0, day=True), market(), True, NOW_NS)
    broker.set_trading_state(TradingState.REDUCING, "operator", NOW_NS)
    assert not broker.account.working_orders
    order = open_order(broker, "long_call")
    assert rejected(broker.submit(order, market(), True, NOW_NS)) is RejectReason.REDUCING


def test_every_rejection_is_in_the_journal_with_its_reason(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, limits=risk_limits(max_contracts_per_order=1))
    result = broker.submit(open_order(broker, "long_call", 2), market(), True, NOW_NS)
    assert isinstance(result, Rejection)
    assert list(broker.journal.events())[-1] == OrderRejected(NOW_NS, result)


def test_a_restart_continues_where_the_journal_ends(tmp_path: Path) -> None:
    broker = new_broker(tmp_path)
    fill(broker, "bear_call_credit")
    broker.record([DecisionMade(NOW_NS, "SPY", 3, "bear_call_credit", 1, 0.1, 0.2)])
    before = broker.account.fingerprint()
    broker.journal.close()
    again = new_broker(tmp_path)
    assert again.account.fingerprint() == before
    assert again.next_order_id() == "paper-2"
    assert isinstance(again.submit(close_order(again), market(), True, NOW_NS), Fill)


def test_when_the_journal_cannot_be_written_nothing_happens(broker: PaperBroker) -> None:
    order = open_order(broker, "long_call")
    before = broker.account.fingerprint()
    broker.journal.close()
    with pytest.raises(JournalError, match="cannot write"):
        broker.submit(order, market(), True, NOW_NS)
    assert broker.account.fingerprint() == before


def test_a_broker_needs_an_open_account(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal, pytest.raises(JournalError, match="not open"):
        PaperBroker(journal, journal.fold(), fee_schedule(), risk_limits())
