"""A small market and orders for it, shared by the tests of the execution package."""

from collections.abc import Mapping
from pathlib import Path

from tests.usual import risk_limits
from trading.execution.broker import PaperBroker
from trading.execution.events import Fill
from trading.execution.fees import NO_FEES, FeeSchedule
from trading.execution.journal import Journal
from trading.execution.matching import FillStyle
from trading.execution.orders import Intent, Leg, Order, OrderType, QuoteView, TimeInForce
from trading.execution.risk import RiskLimits

SECOND_NS = 1_000_000_000
NOW_NS = 1_767_625_200 * SECOND_NS  # 2026-01-05 10:00 New York
CALL_100 = "O:SPY260116C00100000"
CALL_105 = "O:SPY260116C00105000"
PUT_100 = "O:SPY260116P00100000"
PUT_95 = "O:SPY260116P00095000"
QQQ_CALL_100 = "O:QQQ260116C00100000"
QQQ_PUT_100 = "O:QQQ260116P00100000"
LATER_CALL_100 = "O:SPY260220C00100000"
SPOT = 100.5
"""Price of both stocks in `market`, USD a share."""

SHAPES: dict[str, tuple[Leg, ...]] = {
    "long_call": (Leg(CALL_100, 1),),
    "long_put": (Leg(PUT_100, 1),),
    "bull_call_debit": (Leg(CALL_100, 1), Leg(CALL_105, -1)),
    "bear_call_credit": (Leg(CALL_100, -1), Leg(CALL_105, 1)),
    "bull_put_credit": (Leg(PUT_100, -1), Leg(PUT_95, 1)),
    "long_straddle": (Leg(CALL_100, 1), Leg(PUT_100, 1)),
    "iron_condor": (Leg(PUT_95, 1), Leg(PUT_100, -1), Leg(CALL_100, -1), Leg(CALL_105, 1)),
    "short_call": (Leg(CALL_100, -1),),
    "short_put": (Leg(PUT_100, -1),),
    "short_straddle": (Leg(CALL_100, -1), Leg(PUT_100, -1)),
    "covered_call": (Leg("SPY", 1), Leg(CALL_105, -1)),
    "calendar": (Leg(LATER_CALL_100, 1), Leg(CALL_100, -1)),
    "iron_butterfly_sold_twice": (Leg(PUT_95, 2), Leg(PUT_100, -2), Leg(CALL_105, 1)),
    "long_stock": (Leg("SPY", 1),),
    "short_stock": (Leg("SPY", -1),),
    "protected_short_stock": (Leg("SPY", -1), Leg(CALL_105, 1)),
}


def quote(bid: float, ask: float, size: float = 50.0, ts_ns: int = NOW_NS) -> QuoteView:
    return QuoteView(bid, ask, size, size, ts_ns)


def market(ts_ns: int = NOW_NS, size: float = 50.0) -> dict[str, QuoteView]:
    """Quotes of all contracts and stocks, ten cents wide; the stocks are at `SPOT`."""
    mids = {
        CALL_100: 3.05,
        CALL_105: 1.05,
        PUT_100: 2.55,
        PUT_95: 0.95,
        LATER_CALL_100: 4.55,
        "SPY": SPOT,
        QQQ_CALL_100: 4.05,
        QQQ_PUT_100: 3.55,
        "QQQ": SPOT,
    }
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
    working_steps: int = 0,
) -> PaperBroker:
    """With `working_steps` its orders may work from mid to the touch."""
    journal = Journal(folder / "journal.db")
    account = journal.open_account("paper", cash, NOW_NS)
    style = FillStyle.WORKING if working_steps else FillStyle.TOUCH
    return PaperBroker(
        journal,
        account,
        schedule,
        limits or risk_limits(),
        slippage,
        style=style,
        working_steps=max(working_steps, 1),
    )


def trade_bar(
    broker: PaperBroker,
    quotes: Mapping[str, QuoteView],
    now_ns: int = NOW_NS,
    spots: Mapping[str, float] | None = None,
) -> list[Fill]:
    """What a bar fills of the orders that wait, once the account is watched at its quotes."""
    broker.on_bar(quotes, now_ns, spots=spots)
    return broker.fill_waiting(quotes, now_ns, spots)
