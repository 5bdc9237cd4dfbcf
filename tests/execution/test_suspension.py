"""One underlying that is suspended: it neither trades nor moves in value, all others go on."""

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.execution.scene import (
    CALL_100,
    NOW_NS,
    QQQ_CALL_100,
    close_order,
    market,
    new_broker,
    open_order,
    quote,
)
from trading.errors import JournalError
from trading.execution.broker import PaperBroker
from trading.execution.events import AccountOpened, UnderlyingReinstated, UnderlyingSuspended
from trading.execution.orders import Fill, Leg, Order, Rejection, RejectReason
from trading.execution.portfolio import Account
from trading.execution.states import TradingState

QQQ = (Leg(QQQ_CALL_100, 1),)


def submit(broker: PaperBroker, order: Order) -> object:
    return broker.submit(order, market(), True, NOW_NS)


def folded(broker: PaperBroker) -> Account:
    account = Account()
    for event in broker.journal.events():
        account.apply(event)
    return account


def test_a_suspended_underlying_takes_neither_openings_nor_closings_and_others_do(
    broker: PaperBroker,
) -> None:
    assert isinstance(submit(broker, open_order(broker, "long_call")), Fill)
    broker.suspend("SPY", "no listing", NOW_NS)
    for order in (close_order(broker), open_order(broker, "long_put")):
        refused = submit(broker, replace_id(broker, order))
        assert isinstance(refused, Rejection)
        assert refused.reason is RejectReason.SUSPENDED
        assert "SPY is suspended: no listing" in refused.detail
    other = open_order(broker, "long_call", underlying="QQQ", legs=QQQ)
    assert isinstance(submit(broker, other), Fill)
    assert broker.account.trading_state is TradingState.ACTIVE
    broker.reinstate("SPY", "listed again", NOW_NS)
    assert broker.account.suspended == {}
    assert isinstance(submit(broker, close_order(broker)), Fill)


def replace_id(broker: PaperBroker, order: Order) -> Order:
    return msgspec.structs.replace(order, order_id=broker.next_order_id())


def test_its_holdings_keep_their_last_value_over_a_restart_until_it_is_reinstated(
    tmp_path: Path,
) -> None:
    broker = new_broker(tmp_path)
    submit(broker, open_order(broker, "long_call"))
    broker.on_bar(market() | {CALL_100: quote(4.0, 4.2)}, NOW_NS)
    before = broker.equity()
    broker.suspend("SPY", "unexplained gap", NOW_NS)
    broker.on_bar(market() | {CALL_100: quote(0.4, 0.5)}, NOW_NS)
    assert broker.equity() == before
    broker.journal.close()
    broker = new_broker(tmp_path)
    assert broker.account.suspended == {"SPY": "unexplained gap"}
    broker.on_bar(market() | {CALL_100: quote(0.4, 0.5)}, NOW_NS)
    assert broker.equity() == before
    broker.reinstate("SPY", "its owner's word", NOW_NS)
    broker.on_bar(market() | {CALL_100: quote(3.9, 4.0)}, NOW_NS)
    assert broker.equity() == pytest.approx(before - 15.0)
    broker.journal.close()


def test_marks_that_are_given_are_those_that_a_suspension_keeps(broker: PaperBroker) -> None:
    submit(broker, open_order(broker, "long_call"))
    broker.on_bar(market(), NOW_NS, marks={CALL_100: 3.5, "ELSE": 1.0})
    assert broker.marks == {CALL_100: 3.5}
    broker.suspend("SPY", "halted", NOW_NS)
    broker.on_bar(market(), NOW_NS)
    assert broker.account.equity(broker.marks) == broker.account.cash + 350.0


def test_waiting_orders_end_with_the_suspension_and_only_those_on_it(broker: PaperBroker) -> None:
    submit(broker, open_order(broker, "long_call", limit=1.0, day=True))
    submit(
        broker,
        open_order(broker, "long_call", limit=1.0, day=True, underlying="QQQ", legs=QQQ),
    )
    broker.suspend("SPY", "halted", NOW_NS)
    assert [each.order.underlying for each in broker.account.working_orders.values()] == ["QQQ"]


def test_it_is_suspended_for_each_reason_and_said_once(broker: PaperBroker) -> None:
    events = broker.journal.last_seq
    broker.suspend("SPY", "halted", NOW_NS)
    broker.suspend("SPY", "halted", NOW_NS)
    broker.suspend("SPY", "no figure", NOW_NS)
    assert broker.account.suspended == {"SPY": "halted; no figure"}
    broker.reinstate("SPY", "trading again", NOW_NS, lifts="halted")
    broker.reinstate("SPY", "trading again", NOW_NS, lifts="halted")
    assert broker.account.suspended == {"SPY": "no figure"}
    broker.reinstate("SPY", "its owner's word", NOW_NS)
    broker.reinstate("SPY", "its owner's word", NOW_NS)
    broker.reinstate("QQQ", "never was", NOW_NS)
    assert broker.account.suspended == {}
    assert broker.journal.last_seq == events + 4
    assert folded(broker).fingerprint() == broker.account.fingerprint()


def test_a_suspension_is_applied_once_and_none_may_be_missing() -> None:
    account = Account()
    broker_events = [
        UnderlyingSuspended(NOW_NS, 1, "SPY", "halted"),
        UnderlyingReinstated(NOW_NS, 2, "SPY", "over"),
    ]
    account.apply(AccountOpened(NOW_NS, "paper", 1.0))
    for event in (broker_events[0], broker_events[0], broker_events[1], broker_events[0]):
        account.apply(event)
    assert account.suspended == {}
    with pytest.raises(JournalError, match="one is missing"):
        account.apply(UnderlyingSuspended(NOW_NS, 4, "SPY", "halted"))


def test_stock_that_an_assignment_left_waits_for_the_end_of_the_suspension(
    broker: PaperBroker,
) -> None:
    submit(broker, open_order(broker, "short_put", legs=(Leg("O:SPY260116P00095000", -1),)))
    broker.settle(["O:SPY260116P00095000"], {"SPY": 90.0}, NOW_NS)
    assert broker.stock_to_liquidate() == ["SPY"]
    broker.suspend("SPY", "halted", NOW_NS)
    assert broker.stock_to_liquidate() == []


@settings(deadline=None, max_examples=25)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["suspend", "reinstate", "trade", "bar", "restart"]),
            st.sampled_from(["a", "b"]),
        ),
        max_size=12,
    )
)
def test_whatever_happens_to_one_underlying_another_trades_as_if_alone(
    steps: list[tuple[str, str]],
) -> None:
    """QQQ's cash, value and positions are the same with and without the fate of SPY."""
    assert qqq_after([("qqq", ""), *steps], with_spy=True) == qqq_after(
        [("qqq", ""), *steps], with_spy=False
    )


def qqq_after(steps: list[tuple[str, str]], *, with_spy: bool) -> object:
    with tempfile.TemporaryDirectory() as folder:
        broker = new_broker(Path(folder), 100_000.0)
        for minute, (what, why) in enumerate(steps):
            now_ns = NOW_NS + minute * 60_000_000_000
            for order in orders_of(broker, what, with_spy=with_spy, now_ns=now_ns):
                broker.submit(replace_id(broker, order), market(now_ns), True, now_ns)
            if with_spy and what == "suspend":
                broker.suspend("SPY", why, now_ns)
            elif with_spy and what == "reinstate":
                broker.reinstate("SPY", "better", now_ns, lifts=why)
            elif what == "bar":
                broker.on_bar(market(now_ns), now_ns)
            elif what == "restart":
                broker.journal.close()
                broker = new_broker(Path(folder), 100_000.0)
        account = broker.account
        seen = (account.strategies.get("QQQ"), account.net_cash.get("QQQ"), account.trading_state)
        # Order ids count the whole account's orders.
        held = seen[0] and (seen[0].units, seen[0].legs, seen[0].net_cash)
        broker.journal.close()
        return held, seen[1], seen[2]


def orders_of(broker: PaperBroker, what: str, *, with_spy: bool, now_ns: int) -> list[Order]:
    if what not in {"qqq", "trade"}:
        return []
    found = []
    for underlying, legs in (("SPY", (Leg(CALL_100, 1),)), ("QQQ", QQQ)):
        if underlying == "SPY" and not with_spy:
            continue
        if underlying in broker.account.strategies:
            found.append(close_order(broker, underlying=underlying, ts_ns=now_ns))
        else:
            found.append(
                open_order(broker, "long_call", underlying=underlying, legs=legs, ts_ns=now_ns)
            )
    return found


def test_a_limit_order_without_a_number_suspends_and_is_not_accepted(broker: PaperBroker) -> None:
    order = open_order(broker, "long_call", limit=float("nan"))
    refused = submit(broker, order)
    assert isinstance(refused, Rejection) and refused.reason is RejectReason.NOT_A_NUMBER
    assert broker.account.suspended == {"SPY": "not_a_number"}
    assert broker.account.trading_state is TradingState.ACTIVE
