"""A trader that decides from its account alone, so that it can be killed and started again."""

import sys
from pathlib import Path

from tests.execution.scene import (
    NOW_NS,
    SECOND_NS,
    SHAPES,
    close_order,
    market,
    new_broker,
    open_order,
)
from tests.usual import fee_schedule


def trade(folder: Path, orders: int) -> None:
    """Open and close strategies in turn until the account has submitted `orders` orders.

    Prints the number of each order once the broker has answered.
    """
    broker = new_broker(folder, 100_000.0, schedule=fee_schedule())
    account = broker.account
    while account.orders < orders:
        now_ns = NOW_NS + account.orders * 60 * SECOND_NS
        if account.strategies:
            order = close_order(broker, ts_ns=now_ns)
        else:
            shape = sorted(SHAPES)[account.orders % len(SHAPES)]
            order = open_order(broker, shape, 1 + account.orders % 3, ts_ns=now_ns)
        broker.submit(order, market(now_ns), True, now_ns)
        print(account.orders, flush=True)
    broker.journal.close()


if __name__ == "__main__":
    trade(Path(sys.argv[1]), int(sys.argv[2]))
