"""A report's figures are those of the account's fold, to the cent, whatever happened."""

from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from tests.execution.machine import TradingMachine
from tests.execution.scene import (
    CALL_100,
    NOW_NS,
    SECOND_NS,
    SPOT,
    close_order,
    market,
    new_broker,
    open_order,
    quote,
)
from tests.usual import fee_schedule, risk_limits
from trading.execution.commands import Command
from trading.execution.events import CashMoved, DecisionMade, OwnerCommand
from trading.execution.money import round_usd
from trading.execution.orders import Fill, Order
from trading.execution.owner import execute_command
from trading.execution.portfolio import Account
from trading.live.profit_parts import OF_A_TRADE
from trading.market.corporate_actions import SpinOff
from trading.reporting.ledger import PARTS, Ledger, Trade, read_ledger
from trading.reporting.report import make_report
from trading.reporting.sheet import report_page
from trading.reporting.tables import JournalTables

DAY_NS = 24 * 3600 * SECOND_NS


def agrees(ledger: Ledger, account: Account) -> None:
    """The report of a whole journal against the account that the journal tells."""
    report = make_report(ledger, ledger.between(None, None))
    assert ledger.account.fingerprint() == account.fingerprint()
    assert report.summary["realised"] == account.realised_pnl
    assert report.summary["trades"] == account.closed_trades
    assert report.summary["won"] == account.winning_trades
    assert {trade.underlying for trade in report.open} == set(account.strategies)
    assert all(
        trade.net_cash == account.strategies[trade.underlying].net_cash for trade in report.open
    )
    fees = round_usd(sum(trade.fees for trade in [*report.trades, *report.open]))
    late = round_usd(sum(note.amount for note in report.late))
    for groups in (report.by_underlying, report.by_strategy, report.by_day, report.by_hour):
        assert sum(group.trades for group in groups) == account.closed_trades
        assert round_usd(sum(group.profit for group in groups) + late) == account.realised_pnl
    assert fees == account.fees_paid


class ReportedMachine(TradingMachine):
    """Reads the report of every account that the machine of all events made."""

    def teardown(self) -> None:
        if hasattr(self, "broker"):
            agrees(read_ledger(self.broker.journal.events()), self.broker.account)
            self.close_everything()
            ledger = read_ledger(self.broker.journal.events())
            agrees(ledger, self.broker.account)
        super().teardown()


def test_a_report_agrees_with_the_account_in_any_sequence_of_events() -> None:
    few = settings(
        max_examples=60,
        stateful_step_count=14,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(ReportedMachine, settings=few)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Two sessions: a condor opened and closed by the policy, cash paid in, a call left open."""
    broker = new_broker(tmp_path, 10_000.0, schedule=fee_schedule())
    broker.record([DecisionMade(NOW_NS, "SPY", 9, "iron_condor_near", 1, 0.5, 0.0, profit=0.0)])
    broker.submit(open_order(broker, "iron_condor", units=2), market(), True, NOW_NS)
    later_ns = NOW_NS + 3600 * SECOND_NS
    broker.record([DecisionMade(later_ns, "SPY", 1, "close", 1, 0.25, 0.0, profit=-40.0)])
    broker.submit(close_order(broker, ts_ns=later_ns), market(later_ns), True, later_ns)
    broker.close_session("2026-01-05", 9_950.0, later_ns + SECOND_NS)
    next_ns = NOW_NS + DAY_NS
    broker.record([CashMoved(next_ns, 1, 1_000.0, 9_950.0)])
    order = open_order(broker, "long_call", ts_ns=next_ns)
    broker.submit(order, market(next_ns), True, next_ns)
    broker.close_session("2026-01-06", 10_900.0, next_ns + SECOND_NS)
    return read_ledger(broker.journal.events())


def test_a_trade_tells_its_legs_times_fees_and_reasons(ledger: Ledger) -> None:
    (trade,) = ledger.trades
    assert trade.reason_open == "policy chose iron_condor_near, value +0.500"
    assert trade.reason_close == "policy chose close, value +0.250"
    assert (trade.units, trade.closed_ns - trade.opened_ns) == (2, 3600 * SECOND_NS)
    assert [leg.what for leg in trade.legs] == ["opened"] * 4 + ["closed"] * 4
    bought = {leg.symbol: leg.quantity for leg in trade.legs[:4]}
    assert {leg.symbol: -leg.quantity for leg in trade.legs[4:]} == bought
    cash = -sum(leg.quantity * leg.price * 100.0 for leg in trade.legs)
    assert trade.profit == pytest.approx(cash - trade.fees)


def test_a_trade_of_orders_that_worked_tells_the_decision_and_the_limit(tmp_path: Path) -> None:
    """Not the decision of the bar that filled it, which was to hold."""
    broker = new_broker(tmp_path, working_steps=2)
    minutes = [NOW_NS + k * 60 * SECOND_NS for k in range(8)]

    def decide(k: int, action: int, name: str) -> None:
        broker.record([DecisionMade(minutes[k], "SPY", action, name, 1, 0.5, 0.0, profit=0.0)])

    def send(k: int, order: Order) -> None:
        patient = broker.patient(order, market(minutes[k]), minutes[k])
        assert broker.submit(patient, market(minutes[k]), True, minutes[k]) is None

    decide(0, 9, "bull_call_debit")
    send(0, open_order(broker, "bull_call_debit"))
    for k in (1, 2):
        decide(k, 0, "hold")
        (waiting,) = broker.account.working_orders.values()
        broker.step(waiting, market(minutes[k]), minutes[k])
    assert not broker.account.working_orders
    decide(3, 1, "close")
    send(3, close_order(broker, ts_ns=minutes[3]))
    broker.cancel(next(iter(broker.account.working_orders)), minutes[4])
    decide(5, 1, "close")
    send(5, close_order(broker, ts_ns=minutes[5]))
    decide(6, 0, "hold")
    come = market(minutes[6]) | {CALL_100: quote(3.20, 3.30, ts_ns=minutes[6])}
    assert len(broker.fill_waiting(come, minutes[6])) == 1
    ledger = read_ledger(broker.journal.events())
    (trade,) = ledger.trades
    chosen = "policy chose {}, value +0.500, a limit at {} after {} steps"
    assert trade.reason_open == chosen.format("bull_call_debit", "2.10 debit", 2)
    assert trade.reason_close == chosen.format("close", "2.00 credit", 0)
    report = make_report(ledger, ledger.between(None, None))
    assert report.worked == {"placed": 3, "filled": 2, "cancelled": 1}
    assert "Orders that worked" in report_page(report)
    broker.journal.close()
    fills = JournalTables(tmp_path / "journal.db").fills
    assert fills.step.tolist() == [2, 0]
    assert fills.limit.tolist() == pytest.approx([2.10, -2.00])


def test_cash_that_is_paid_in_is_no_profit(ledger: Ledger) -> None:
    first, second = ledger.days
    assert (first.profit, first.moved) == (-50.0, 0.0)
    assert (second.profit, second.moved, second.base) == (-50.0, 1_000.0, 10_950.0)
    report = make_report(ledger, ledger.between(None, None))
    assert report.summary["profit"] == -100.0
    few = [report.summary[name] for name in ("sharpe", "sortino", "calmar", "volatility")]
    assert few == [None] * 4, "two sessions say nothing of a year"
    assert report.summary["return"] == pytest.approx((1 - 50 / 10_000) * (1 - 50 / 10_950) - 1)


def test_a_period_holds_what_falls_into_it_by_new_yorks_dates(ledger: Ledger) -> None:
    second = ledger.between(date(2026, 1, 6), None)
    assert [day.date for day in second.days] == ["2026-01-06"]
    assert second.trades == []
    assert [trade.strategy for trade in second.open] == ["long_call"]
    assert len(ledger.between(None, date(2026, 1, 5)).trades) == 1


def test_a_session_that_has_not_ended_is_told_as_such(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, 10_000.0)
    broker.record([DecisionMade(NOW_NS, "SPY", 0, "hold", 1, 0.0, 0.0, profit=12.5)])
    (day,) = read_ledger(broker.journal.events()).days
    assert (day.date, day.equity, day.profit, day.is_over) == ("2026-01-05", 10_012.5, 12.5, False)


AMOUNTS = st.floats(-1e5, 1e5).map(lambda amount: round(amount, 4))


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(
    bars=st.lists(st.tuples(*[AMOUNTS] * len(OF_A_TRADE)), max_size=5),
    profit=st.integers(-(10**8), 10**8).map(lambda cents: cents / 100.0),
    fees=st.integers(0, 10**6).map(lambda cents: cents / 100.0),
)
def test_the_parts_of_a_trade_add_up_to_its_profit_to_the_cent(
    bars: list[tuple[float, ...]], profit: float, fees: float
) -> None:
    trade = Trade("SPY", "long_call", "a-1", 1, "", 1, fees=fees, closed_ns=2, profit=profit)
    for amounts in bars:
        trade.earn(amounts)
    if not bars:
        assert trade.parts is None
        return
    assert trade.parts is not None and tuple(trade.parts) == PARTS
    assert round_usd(sum(trade.parts.values())) == profit
    assert trade.parts["fees"] == -fees
    assert all(each == round_usd(each) for each in trade.parts.values())


def test_what_comes_after_the_end_of_a_trade_is_still_its_own(tmp_path: Path) -> None:
    """The last bar of a trade is known at the decision after its close."""
    broker = new_broker(tmp_path, 10_000.0, schedule=fee_schedule())
    order = open_order(broker, "long_call")
    broker.submit(order, market(), True, NOW_NS)
    first, last = (1.0, 2.0, -3.0, 4.0, 0.0, 0.5, -6.0), (0.25, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    at_ns = [NOW_NS + bar * 60 * SECOND_NS for bar in range(1, 3)]
    earned = {order.order_id: first}
    broker.record([DecisionMade(at_ns[0], "SPY", 1, "close", 1, 0.0, 0.0, earned=earned)])
    ledger = read_ledger(broker.journal.events())
    (held,) = ledger.open.values()
    assert held.parts is not None and "rest" not in held.parts
    broker.submit(close_order(broker, ts_ns=at_ns[0]), market(at_ns[0]), True, at_ns[0])
    earned = {order.order_id: last, "unknown-1": first}
    broker.record([DecisionMade(at_ns[1], "SPY", 0, "hold", 1, 0.0, 0.0, earned=earned)])
    ledger = read_ledger(broker.journal.events())
    (trade,) = ledger.trades
    assert trade.parts is not None
    assert (trade.parts["delta"], trade.parts["vega"], trade.parts["spread"]) == (1.25, 4.0, -7.0)
    assert round_usd(sum(trade.parts.values())) == trade.profit
    report = make_report(ledger, ledger.between(None, None))
    assert report.by_part == trade.parts
    assert report.plain()["trades"][0]["parts"] == trade.parts


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_what_was_spun_off_is_a_trade_of_its_own_and_older_journals_still_tell_theirs(
    tmp_path: Path, older: bool, again: bool
) -> None:
    """Older versions noted what both earned under the one order."""
    limits = risk_limits(max_order_notional=1e7, max_contracts_per_order=10_000)
    broker = new_broker(tmp_path, 1e6, limits=limits)
    order = open_order(broker, "long_stock")
    assert isinstance(broker.submit(order, market(), True, NOW_NS), Fill)
    broker.mark(market())
    action = SpinOff("SPY", date(2026, 1, 6), "NEW", Fraction(1, 4), 20.0)
    at_ns = [NOW_NS + DAY_NS + bar * 60 * SECOND_NS for bar in range(4)]
    assert broker.apply_action(action, at_ns[0], spot=SPOT) is not None
    if again:
        undo = Command(OwnerCommand.UNDO_ACTION, "alice", "a test", symbol="SPY")
        execute_command(broker, undo, at_ns[1])
        assert set(broker.account.strategies) == {"SPY"}
        assert broker.apply_action(action, at_ns[2], spot=SPOT) is not None
    spun_off = f"{order.order_id}/SPY/spin_off/2026-01-06"
    ids = {name: held.order_id for name, held in broker.account.strategies.items()}
    assert ids == {"SPY": order.order_id, "NEW": spun_off}
    assert vars(broker.journal.fold()) == vars(broker.account)
    amounts = {"SPY": (1.0, 2.0, -3.0, 4.0, 0.0, 0.5, -6.0), "NEW": (8.0,) * len(OF_A_TRADE)}
    together = tuple(map(sum, zip(*amounts.values(), strict=True)))
    earned = (
        {order.order_id: together}
        if older
        else {order.order_id: amounts["SPY"], spun_off: amounts["NEW"]}
    )
    broker.record([DecisionMade(at_ns[3], "SPY", 0, "hold", 1, 0.0, 0.0, earned=earned)])
    ledger = read_ledger(broker.journal.events())
    agrees(ledger, broker.account)
    trades = ledger.open
    assert {name: each.order_id for name, each in trades.items()} == ids
    assert tuple(trades["SPY"].earned.values()) == (together if older else amounts["SPY"])
    assert tuple(trades["NEW"].earned.values()) == (() if older else amounts["NEW"])
