"""A small account whose journal a report is made of."""

from pathlib import Path

import pytest

from tests.execution.scene import (
    NOW_NS,
    SECOND_NS,
    close_order,
    market,
    new_broker,
    open_order,
)
from tests.usual import fee_schedule
from trading.execution.events import ChampionPromoted, DecisionMade, PromotedBy
from trading.execution.orders import Fill

STEP_NS = 8 * 3600 * SECOND_NS
"""Between sessions, so that all of them are before the options expire."""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """The journal of an account that traded 25 sessions, and holds a call."""
    broker = new_broker(tmp_path, 10_000.0, schedule=fee_schedule())
    for day in range(25):
        now_ns = NOW_NS + day * STEP_NS
        later_ns = now_ns + 3600 * SECOND_NS
        shape = "iron_condor" if day % 2 else "long_call"
        broker.record([DecisionMade(now_ns, "SPY", 9, f"{shape}_<near>", 1, 0.5, 0.0, profit=0.0)])
        first = open_order(broker, shape, ts_ns=now_ns)
        opened = broker.submit(first, market(now_ns), True, now_ns)
        assert isinstance(opened, Fill), opened
        earned = {first.order_id: (1.5, 0.25, -0.75, 0.5, 0.0, 0.0, -4.0)}
        broker.record([DecisionMade(later_ns, "SPY", 1, "close", 1, 0.0, 0.0, earned=earned)])
        order = close_order(broker, ts_ns=later_ns)
        broker.submit(order, market(later_ns), True, later_ns)
        broker.close_session(f"2026-01-{day + 5:02d}", broker.account.cash, later_ns + SECOND_NS)
    last_ns = NOW_NS + 26 * STEP_NS
    broker.record(
        [ChampionPromoted(last_ns, 1, 17, 0, PromotedBy.GATE, "passed <all>", broker.account.cash)]
    )
    broker.submit(open_order(broker, "long_call", ts_ns=last_ns), market(last_ns), True, last_ns)
    broker.journal.close()
    return tmp_path / "journal.db"
