"""Orders that the broker works from mid to the touch: prices, what ends them, and the journal."""

import contextlib
import sqlite3
from datetime import date
from pathlib import Path

import pytest

from tests.execution.scene import (
    CALL_100,
    CALL_105,
    NOW_NS,
    PUT_95,
    SECOND_NS,
    close_order,
    market,
    new_broker,
    open_order,
    quote,
)
from trading.execution.broker import PaperBroker
from trading.execution.events import (
    CashMoved,
    OrderCancelled,
    OrderFilled,
    OrderRepriced,
    Settled,
)
from trading.execution.journal import Journal
from trading.execution.journal import schema as journal_schema
from trading.execution.orders import Fill, Leg, Order, QuoteView
from trading.market.corporate_actions import Split

MINUTE_NS = 60 * SECOND_NS
SPREAD = "bull_call_debit"
"""Mid 2.00, touch 2.10 in `market`."""


def worked(broker: PaperBroker, order: Order, quotes: dict[str, QuoteView] | None = None) -> Order:
    """An order sent as one that works, which then waits."""
    quotes = quotes or market(order.ts_ns)
    patient = broker.patient(order, quotes, order.ts_ns)
    assert patient.leg_limits
    assert broker.submit(patient, quotes, True, order.ts_ns) is None
    return patient


def held(folder: Path, steps: int = 4) -> PaperBroker:
    """An account that holds a spread, bought at the touch, whose closing works."""
    broker = new_broker(folder, working_steps=steps)
    bought = broker.submit(open_order(broker, SPREAD, units=2), market(), True, NOW_NS)
    assert isinstance(bought, Fill)
    worked(broker, close_order(broker, ts_ns=NOW_NS + MINUTE_NS))
    return broker


def test_a_complex_order_works_at_a_net_price_and_trades_when_its_legs_together_come(
    tmp_path: Path,
) -> None:
    broker = new_broker(tmp_path, working_steps=4)
    order = worked(broker, open_order(broker, SPREAD, units=2))
    assert order.leg_limits == (3.05, 1.05)
    assert order.limit_price == pytest.approx(2.0)
    later_ns = NOW_NS + MINUTE_NS
    apart = market(later_ns) | {
        CALL_100: quote(3.30, 3.40, ts_ns=later_ns),
        CALL_105: quote(1.30, 1.40, ts_ns=later_ns),
    }
    assert broker.fill_waiting(apart, later_ns) == [], "2.10 net: the touch of one leg is no other"
    together = apart | {CALL_105: quote(1.45, 1.55, ts_ns=later_ns)}
    (fill,) = broker.fill_waiting(together, later_ns)
    assert tuple(leg.price for leg in fill.legs) == order.leg_limits
    assert fill.premium == pytest.approx(-2 * 200.0)
    assert not broker.account.working_orders


def test_a_single_option_works_in_the_ticks_of_its_class(tmp_path: Path) -> None:
    """Nickels below three dollars and dimes from there, where the quotes keep to them."""
    broker = new_broker(tmp_path, working_steps=4)
    dimes = open_order(broker, "long_call")
    assert broker.patient(dimes, market(), NOW_NS) is dimes, "no tick lies between 3.00 and 3.10"
    nickels = open_order(broker, "one_put", legs=(Leg(PUT_95, 1),))
    assert broker.patient(nickels, market(), NOW_NS).limit_price == pytest.approx(0.95)
    cents = market() | {PUT_95: quote(0.91, 0.98)}
    assert broker.patient(nickels, cents, NOW_NS).limit_price == pytest.approx(0.95)
    wide = market() | {PUT_95: quote(0.85, 1.00)}
    assert broker.patient(nickels, wide, NOW_NS).limit_price == pytest.approx(0.95)


def test_what_is_displayed_of_a_unit_trades_and_the_rest_is_cancelled(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, working_steps=1)
    order = worked(broker, open_order(broker, SPREAD, units=3))
    later_ns = NOW_NS + MINUTE_NS
    (waiting,) = broker.account.working_orders.values()
    fill = broker.step(waiting, market(later_ns, size=2.0), later_ns)
    assert fill is not None and fill.units == 2
    assert not broker.account.working_orders
    told = [each for each in broker.journal.events() if isinstance(each, OrderCancelled)]
    assert [(each.order_id, each.reason) for each in told] == [
        (order.order_id, "1 of 3 units were not displayed")
    ]


def test_all_that_an_order_held_is_there_for_the_part_of_it_that_trades(tmp_path: Path) -> None:
    """The rest is cancelled in the same transaction."""
    broker = new_broker(tmp_path, working_steps=4)
    order = worked(broker, open_order(broker, SPREAD, units=3))
    later_ns, account = NOW_NS + MINUTE_NS, broker.account
    broker.record([CashMoved(later_ns, 1, -account.buying_power - 1.0)])
    assert account.buying_power == pytest.approx(-1.0)
    come = market(later_ns, size=2.0) | {CALL_105: quote(1.15, 1.25, ts_ns=later_ns, size=2.0)}
    (fill,) = broker.fill_waiting(come, later_ns)
    assert (fill.order_id, fill.units) == (order.order_id, 2)
    assert not account.working_orders and account.buying_power > 0.0


def test_a_split_cancels_what_works(tmp_path: Path) -> None:
    broker = held(tmp_path)
    split = Split("SPY", date(2026, 1, 6), 2, 1)
    assert broker.apply_action(split, NOW_NS + 2 * MINUTE_NS, spot=50.25) is not None
    assert not broker.account.working_orders
    assert {name[-8:] for name in broker.account.positions} == {"00050000", "00052500"}


def test_an_expiry_ends_what_works_before_it_settles(tmp_path: Path) -> None:
    broker = held(tmp_path)
    broker.close_session(
        "2026-01-16",
        10_000.0,
        NOW_NS + 2 * MINUTE_NS,
        expiring=[CALL_100, CALL_105],
        underlying_prices={"SPY": 99.0},
    )
    assert not broker.account.working_orders and not broker.account.strategies
    kinds = [type(each) for each in broker.journal.events()]
    assert kinds.index(OrderCancelled) < kinds.index(Settled)
    assert kinds.count(OrderFilled) == 1


def test_a_step_beyond_the_buying_power_cancels_an_order(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, 565.0, working_steps=1)
    assert worked(broker, open_order(broker, "long_straddle")).limit_price == pytest.approx(5.60)
    (waiting,) = broker.account.working_orders.values()
    later_ns = NOW_NS + MINUTE_NS
    assert broker.step(waiting, market(later_ns), later_ns) is None
    assert not broker.account.working_orders and broker.account.buying_power == 565.0


def test_a_journal_of_the_version_before_is_migrated_and_an_order_works_in_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.db"
    broker = new_broker(tmp_path)
    broker.submit(open_order(broker, SPREAD), market(), True, NOW_NS)
    before = broker.account.fingerprint()
    broker.journal.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        journal_schema.keep_note(connection, "schema_version", "6")
    broker = new_broker(tmp_path, working_steps=1)
    assert broker.account.fingerprint() == before
    assert path.with_name("journal.db.version-6-1").is_file()
    worked(broker, close_order(broker, ts_ns=NOW_NS + MINUTE_NS))
    broker.journal.close()
    broker = new_broker(tmp_path, working_steps=2)
    (waiting,) = broker.account.working_orders.values()
    broker.step(waiting, market(NOW_NS + 2 * MINUTE_NS), NOW_NS + 2 * MINUTE_NS)
    state = broker.account.fingerprint()
    broker.journal.close()
    with Journal(path, read_only=True) as journal:
        assert journal.fold().fingerprint() == state
        (stepped,) = [each for each in journal.events() if isinstance(each, OrderRepriced)]
    assert (stepped.step, stepped.limit_price) == (1, pytest.approx(-1.94))
