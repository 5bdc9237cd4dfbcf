"""A report's figures are those of the account's fold, to the cent, whatever happened."""

from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.execution.machine import TradingMachine
from tests.execution.scene import (
    NOW_NS,
    SECOND_NS,
    close_order,
    market,
    new_broker,
    open_order,
)
from trading.execution.events import CashMoved, DecisionMade
from trading.execution.fees import FeeSchedule
from trading.execution.money import round_usd
from trading.execution.portfolio import Account
from trading.reporting.ledger import Ledger, read_ledger
from trading.reporting.report import make_report

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
    broker = new_broker(tmp_path, 10_000.0, schedule=FeeSchedule())
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
