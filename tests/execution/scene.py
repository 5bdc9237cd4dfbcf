"""A small market and orders for it, shared by the tests of the execution package."""

from pathlib import Path

from trading.execution.broker import PaperBroker
from trading.execution.fees import NO_FEES, FeeSchedule
from trading.execution.journal import Journal
from trading.execution.orders import Intent, Leg, Order, OrderType, QuoteView, TimeInForce
from trading.execution.risk import RiskLimits

SECOND_NS = 1_000_000_000
NOW_NS = 1_767_625_200 * SECOND_NS  # 2026-01-05 10:00 New York
CALL_100 = "O:SPY260116C00100000"
CALL_105 = "O:SPY260116C00105000"
PUT_100 = "O:SPY260116P00100000"
PUT_95 = "O:SPY260116P00095000"
QQQ_CALL_100 = "O:QQQ260116C00100000"

SHAPES: dict[str, tuple[Leg, ...]] = {
    "long_call": (Leg(CALL_100, 1),),
    "long_put": (Leg(PUT_100, 1),),
    "bull_call_debit": (Leg(CALL_100, 1), Leg(CALL_105, -1)),
    "bear_call_credit": (Leg(CALL_100, -1), Leg(CALL_105, 1)),
    "bull_put_credit": (Leg(PUT_100, -1), Leg(PUT_95, 1)),
    "long_straddle": (Leg(CALL_100, 1), Leg(PUT_100, 1)),
    "iron_condor": (Leg(PUT_95, 1), Leg(PUT_100, -1), Leg(CALL_100, -1), Leg(CALL_105, 1)),
    "short_call": (Leg(CALL_100, -1),),
}


def quote(bid: float, ask: float, size: float = 50.0, ts_ns: int = NOW_NS) -> QuoteView:
    return QuoteView(bid, ask, size, size, ts_ns)


def market(ts_ns: int = NOW_NS, size: float = 50.0) -> dict[str, QuoteView]:
    """Quotes of all contracts, ten cents wide."""
    mids = {CALL_100: 3.05, CALL_105: 1.05, PUT_100: 2.55, PUT_95: 0.95, QQQ_CALL_100: 4.05}
    return {
        symbol: quote(round(mid - 0.05, 2), round(mid + 0.05, 2), size, ts_ns)
        for symbol, mid in mids.items()
    }


def open_order(
    broker: PaperBroker,
    shape: str,
    units: int = 1,
    *,
    limit: float | None = None,
    day: bool = False,
    underlying: str = "SPY",
    legs: tuple[Leg, ...] | None = None,
    ts_ns: int = NOW_NS,
) -> Order:
    return Order(
        order_id=broker.next_order_id(),
        ts_ns=ts_ns,
        underlying=underlying,
        strategy=shape,
        intent=Intent.OPEN,
        legs=legs or SHAPES[shape],
        units=units,
        order_type=OrderType.MARKET if limit is None else OrderType.LIMIT,
        time_in_force=TimeInForce.DAY if day else TimeInForce.IOC,
        limit_price=limit,
    )


def close_order(
    broker: PaperBroker,
    units: int | None = None,
    *,
    limit: float | None = None,
    day: bool = False,
    underlying: str = "SPY",
    ts_ns: int = NOW_NS,
) -> Order:
    held = broker.account.strategies[underlying]
    return Order(
        order_id=broker.next_order_id(),
        ts_ns=ts_ns,
        underlying=underlying,
        strategy=held.strategy,
        intent=Intent.CLOSE,
        legs=tuple(Leg(leg.symbol, -leg.ratio) for leg in held.legs),
        units=held.units if units is None else units,
        order_type=OrderType.MARKET if limit is None else OrderType.LIMIT,
        time_in_force=TimeInForce.DAY if day else TimeInForce.IOC,
        limit_price=limit,
    )


def new_broker(
    folder: Path,
    cash: float = 10_000.0,
    *,
    limits: RiskLimits | None = None,
    schedule: FeeSchedule = NO_FEES,
    slippage: float = 0.0,
) -> PaperBroker:
    journal = Journal(folder / "journal.db")
    account = journal.open_account("paper", cash, NOW_NS)
    return PaperBroker(journal, account, schedule, limits or RiskLimits(), slippage)
