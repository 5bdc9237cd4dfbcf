"""A corporate action that was none is taken back exactly, at the same equity."""

from datetime import date, timedelta
from fractions import Fraction

import pytest

from tests.execution.scene import NOW_NS, market, open_order
from tests.execution.test_corporate_actions import EX_DATE, LATER_NS, MARKS, account_with, split
from trading.errors import OwnerRefused
from trading.execution.broker import PaperBroker
from trading.execution.catch_up import KnownEvents, dispute
from trading.execution.events import OwnerCommand
from trading.execution.orders import Fill
from trading.execution.owner import Command, CommandResult, execute_command
from trading.market.calendar import ExchangeCalendar, Session
from trading.market.corporate_actions import (
    CorporateAction,
    Merger,
    Rename,
    SpecialDividend,
    SpinOff,
    Split,
)
from trading.market.dividends import Dividend

UNDO_NS = LATER_NS + 60_000_000_000
ACTIONS: list[CorporateAction] = [
    split(10, 1),
    split(3, 2),
    split(1, 7),
    SpecialDividend("SPY", EX_DATE, 1.5),
    SpinOff("SPY", EX_DATE, "SPUN", Fraction(1, 3), 12.0),
    Merger("SPY", EX_DATE, "NEWCO", Fraction(5, 7), 3.25),
    Rename("SPY", EX_DATE, "NEWCO"),
]


def say(broker: PaperBroker, command: str, symbol: str, now_ns: int = UNDO_NS) -> CommandResult:
    return execute_command(
        broker, Command(OwnerCommand(command), "alice", "a test", symbol=symbol), now_ns
    )


def state(broker: PaperBroker) -> dict[str, object]:
    account = broker.account
    held = account.strategies["SPY"]
    return {
        "positions": account.positions,
        "deliverables": dict(account.deliverables),
        "lots": dict(account.stock_lots),
        "strategy": (held.strategy, held.units, held.legs, held.delivered, held.opened_ns),
        "margin": held.margin,
        "cash": account.cash,
        "actions": [name for name in account.actions if not name.startswith("undone")],
    }


def session(day: date) -> Session:
    found = ExchangeCalendar().session_on(day)
    assert found is not None
    return found


@pytest.mark.parametrize("action", ACTIONS, ids=lambda each: f"{each.kind}-{each.terms}")
@pytest.mark.parametrize("shape", ["covered_call", "iron_condor", "protected_short_stock"])
@pytest.mark.parametrize("moves", [False, True])
def test_an_action_taken_back_leaves_the_account_as_it_was(
    action: CorporateAction, shape: str, moves: bool
) -> None:
    with account_with(shape, 5) as broker:
        before = {key: dict(v) if isinstance(v, dict) else v for key, v in state(broker).items()}
        applied = broker.apply_action(action, LATER_NS, spot=MARKS["SPY"])
        assert applied is not None
        if moves:
            broker.marks = {symbol: 1.1 * mark for symbol, mark in broker.marks.items()}
        equity, parts = (
            broker.equity(),
            {
                name: broker.account.contribution(name, broker.marks)
                for name in {*broker.account.net_cash, applied.after}
            },
        )
        answer = say(broker, "undo_action", applied.after)
        assert answer.said.startswith(f"taken back: {applied.action}; held again are ")
        assert broker.equity() == pytest.approx(equity, abs=0.005)
        for name, part in parts.items():
            assert broker.account.contribution(name, broker.marks) == pytest.approx(part, abs=0.005)
        assert state(broker) == {**before, "margin": pytest.approx(before["margin"], abs=0.01)}
        assert vars(broker.journal.fold()) == vars(broker.account)
        with pytest.raises(OwnerRefused, match="no corporate action was applied"):
            say(broker, "undo_action", "SPY")
        again = broker.apply_action(action, UNDO_NS + 1, spot=MARKS["SPY"])
        assert again is not None, "the vendor may tell it again"
        assert [each.into for each in again.converted] == [each.into for each in applied.converted]


def test_what_was_traded_since_is_not_taken_back() -> None:
    with account_with("long_call", 5) as broker:
        booked = broker.apply_action(split(10, 1), LATER_NS, spot=100.5)
        assert booked is not None
        (name,) = broker.account.positions
        broker.settle([name], {"SPY": 12.0}, LATER_NS + 1)
        digest = broker.account.fingerprint()
        with pytest.raises(OwnerRefused, match="what is open on SPY: applied are SPY/split"):
            say(broker, "undo_action", "SPY")
        assert broker.account.fingerprint() == digest
    with account_with("covered_call", 5) as broker:
        broker.apply_action(split(3, 2), LATER_NS, spot=100.5)
        broker.settle(["O:SPY1260116C00105000"], {"SPY": 60.0}, LATER_NS + 1)
        with pytest.raises(OwnerRefused, match=r"O:SPY1260116C00105000 changed since; close what"):
            say(broker, "undo_action", "SPY")


def test_a_spin_off_is_not_taken_back_once_what_came_of_it_has_paid_a_special_dividend() -> None:
    """What it paid would be lost from the account's profit."""
    with account_with("covered_call", 5) as broker:
        broker.apply_action(
            SpinOff("SPY", EX_DATE, "SPUN", Fraction(1, 3), 12.0), LATER_NS, spot=MARKS["SPY"]
        )
        paid_ns = LATER_NS + 1_000_000_000
        day = EX_DATE + timedelta(days=1)
        broker.pay_dividends([Dividend("SPUN", day, 1.5, special=True)], paid_ns)
        broker.apply_action(SpecialDividend("SPUN", day, 1.5), paid_ns, spot=12.0)
        before = broker.account.fingerprint()
        with pytest.raises(OwnerRefused, match="SPUN changed since"):
            say(broker, "undo_action", "SPY")
        assert broker.account.fingerprint() == before


def test_a_rename_is_not_taken_back_into_what_is_open_under_the_old_name() -> None:
    with account_with("long_call") as broker:
        broker.apply_action(Rename("SPY", EX_DATE, "NEWCO"), LATER_NS)
        order = open_order(broker, "long_call", ts_ns=LATER_NS)
        assert isinstance(broker.submit(order, market(LATER_NS), True, LATER_NS), Fill)
        digest = broker.account.fingerprint()
        with pytest.raises(OwnerRefused, match="something else is open on SPY: close that first"):
            say(broker, "undo_action", "NEWCO")
        assert broker.account.fingerprint() == digest


TOLD = {"SPY": date(2025, 12, 1)}


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([], "is called off"),
        ([split(5, 1)], "is told as 5 for 1 now"),
        ([Split("SPY", date(2026, 1, 20), 10, 1)], "is told for 2026-01-20 now"),
    ],
)
def test_an_action_that_is_called_off_or_corrected_suspends_until_its_owner_decides(
    told: list[CorporateAction], why: str
) -> None:
    later = session(date(2026, 1, 8))
    with account_with("covered_call", 5) as broker:
        broker.apply_action(split(10, 1), LATER_NS, spot=100.5)
        dispute(broker, KnownEvents(actions=[split(10, 1)], told_since=TOLD), session(EX_DATE))
        assert broker.account.suspended == {}
        dispute(broker, KnownEvents(actions=[], told_since={}), later)
        assert broker.account.suspended == {}, "nobody was asked"
        dispute(broker, KnownEvents(actions=told, told_since=TOLD), later)
        reason = broker.account.suspended["SPY"]
        assert reason.startswith("unexplained since 2026-01-08: the split of 2026-01-06 (10 for 1)")
        assert why in reason
        assert "trading account undo-action SPY" in reason
        number = broker.account.suspension_changes
        dispute(broker, KnownEvents(actions=told, told_since=TOLD), later)
        assert broker.account.suspension_changes == number
        equity = broker.equity()
        say(broker, "undo_action", "SPY")
        assert broker.account.suspended["SPY"] == reason, "until what was told is asked again"
        assert broker.equity() == pytest.approx(equity, abs=0.005)
        broker.mark(market(later.open_ns))
        assert broker.equity() == pytest.approx(equity, abs=0.005), "its marks are kept"
        dispute(broker, KnownEvents(actions=told, told_since=TOLD), later)
        assert broker.account.suspended == {}


def test_its_owner_may_keep_a_disputed_action() -> None:
    known = KnownEvents(actions=[], told_since=TOLD)
    with account_with("covered_call", 5) as broker:
        broker.apply_action(split(10, 1), LATER_NS, spot=100.5)
        dispute(broker, known, session(date(2026, 1, 8)))
        held = dict(broker.account.positions)
        assert "trades again" in say(broker, "reinstate", "SPY").said
        dispute(broker, known, session(date(2026, 1, 9)))
        assert broker.account.suspended == {}
        assert broker.account.positions == held


def test_a_dispute_ends_when_the_action_is_told_again() -> None:
    with account_with("covered_call", 5) as broker:
        broker.apply_action(split(10, 1), LATER_NS, spot=100.5)
        dispute(broker, KnownEvents(actions=[], told_since=TOLD), session(date(2026, 1, 8)))
        assert broker.account.suspended
        known = KnownEvents(actions=[split(10, 1)], told_since=TOLD)
        dispute(broker, known, session(date(2026, 1, 8)))
        assert broker.account.suspended == {}


def test_what_is_suspended_for_another_reason_is_not_reinstated_by_word() -> None:
    with account_with("long_call") as broker:
        with pytest.raises(OwnerRefused, match="SPY is not suspended: suspended are none"):
            say(broker, "reinstate", "SPY")
        broker.suspend("SPY", "no official close of 2026-01-05", NOW_NS)
        with pytest.raises(OwnerRefused, match="not for want of an explanation: no official close"):
            say(broker, "reinstate", "SPY")
