"""What a closing fill gained, as the panel and the status page tell it."""

from pathlib import Path

import pytest

from tests.execution.scene import NOW_NS, SECOND_NS, close_order, market, new_broker, open_order
from tests.usual import fee_schedule
from trading.execution.holdings import profit_of_close
from trading.execution.orders import Fill
from trading.live.status import fill_line


@pytest.mark.parametrize("shape", ["iron_condor", "long_call", "bull_put_credit"])
def test_the_fill_that_ends_a_strategy_tells_what_is_booked(tmp_path: Path, shape: str) -> None:
    broker = new_broker(tmp_path, 10_000.0, schedule=fee_schedule())
    account = broker.account
    opened = broker.submit(open_order(broker, shape), market(), True, NOW_NS)
    assert isinstance(opened, Fill)
    held, positions = account.strategies["SPY"], dict(account.positions)
    later_ns = NOW_NS + SECOND_NS
    fill = broker.submit(close_order(broker, ts_ns=later_ns), market(later_ns), True, later_ns)
    assert isinstance(fill, Fill)
    profit = profit_of_close(held, positions, fill, account.size)
    assert profit == account.realised_pnl
    assert profit < 0.0, "both spreads and all fees were paid"
    assert f"profit {profit:+,.2f} USD" in fill_line(fill.ts_ns, fill, "close", profit)
    verb = "received" if opened.premium - opened.fees > 0.0 else "paid"
    assert f"{verb} {abs(opened.premium - opened.fees):,.2f} USD" in fill_line(
        NOW_NS, opened, shape
    )


def test_a_part_is_measured_against_the_average_opening_price(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, 10_000.0, schedule=fee_schedule())
    account = broker.account
    broker.submit(open_order(broker, "long_call", units=3), market(), True, NOW_NS)
    held, positions = account.strategies["SPY"], dict(account.positions)
    later_ns = NOW_NS + SECOND_NS
    order = close_order(broker, units=1, ts_ns=later_ns)
    fill = broker.submit(order, market(later_ns), True, later_ns)
    assert isinstance(fill, Fill) and account.strategies["SPY"].units == 2
    # Bought at the offer, sold at the bid ten cents below it.
    expected = round(-0.10 * 100.0 - fill.fees, 2)
    assert profit_of_close(held, positions, fill, account.size) == expected
