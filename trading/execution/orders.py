"""Orders, fills and rejections: the values that the broker takes and gives.

All are frozen. Times are UTC nanoseconds, prices USD a share, sizes contracts. Stock is named by
its plain ticker (`GOOG`) and counts in round lots of the account's multiplier (100 shares), in
ratios, quantities and displayed sizes alike, so that cash is quantity x multiplier x price for any
leg.
"""

from enum import StrEnum
from typing import NamedTuple

import msgspec

from trading.errors import OrderError


class OrderType(StrEnum):
    """At which price an order trades."""

    MARKET = "market"
    LIMIT = "limit"


class TimeInForce(StrEnum):
    """What becomes of units that do not trade at once."""

    IOC = "ioc"
    """Cancelled."""
    DAY = "day"
    """They wait until the end of the session."""


class Intent(StrEnum):
    """Whether an order opens a strategy or closes the one held."""

    OPEN = "open"
    CLOSE = "close"


class RejectReason(StrEnum):
    """Why an order was refused or what is left of it was cancelled."""

    BUYING_POWER = "buying_power"
    MAX_POSITIONS = "max_positions"
    MAX_CONTRACTS = "max_contracts"
    MAX_NOTIONAL = "max_notional"
    MAX_DELTA = "max_delta"
    MAX_GAMMA = "max_gamma"
    MAX_VEGA = "max_vega"
    MIN_EQUITY = "min_equity"
    """Selling short needs more equity than there is."""
    DAILY_LOSS = "daily_loss"
    MAX_DRAWDOWN = "max_drawdown"
    MARGIN_CALL = "margin_call"
    """Margin that moves with the market exceeds the cash: no order's, but the account's state."""
    CHAMPION_DRAWDOWN = "champion_drawdown"
    """The account lost too much under one champion: no order's, but the account's state."""
    ORDER_RATE = "order_rate"
    HALTED = "halted"
    REDUCING = "reducing"
    SUSPENDED = "suspended"
    """Nothing on this underlying trades for now, see `Account.suspended`."""
    STALE_QUOTE = "stale_quote"
    ONE_SIDED = "one_sided"
    CROSSED = "crossed"
    NO_SIZE = "no_size"
    LIMIT_NOT_MARKETABLE = "limit_not_marketable"
    OUTSIDE_SESSION = "outside_session"
    UNDEFINED_RISK = "undefined_risk"
    NOT_A_NUMBER = "not_a_number"
    UNKNOWN_CONTRACT = "unknown_contract"
    POSITION_EXISTS = "position_exists"
    """The underlying already has an open strategy or a working order."""
    NO_POSITION = "no_position"
    """There is no such strategy to close."""


class QuoteView(NamedTuple):
    """Best bid and offer of one contract or stock; sizes are contracts, or round lots of stock."""

    bid: float
    ask: float
    bid_size: float
    ask_size: float
    ts_ns: int


class Leg(msgspec.Struct, frozen=True):
    """One instrument of an order; `ratio` is signed, a unit: +1 buys one, -1 sells one.

    One contract of an option (`O:GOOG...`), one round lot of a stock (`GOOG`).
    """

    symbol: str
    ratio: int


class Order(msgspec.Struct, frozen=True):
    """A multi-leg order; every unit trades all its legs or none.

    Parameters
    ----------
    order_id : str
        The account's next id, `PaperBroker.next_order_id()`.
    units : int
        How many times the legs are wanted, >= 1.
    limit_price : float or None
        Net price of one unit in USD a share, a debit positive, a credit negative; only with
        `OrderType.LIMIT`.
    leg_limits : tuple of float
        Of an order that works toward the touch: what each leg pays or receives of the limit, USD a
        share. It trades at these prices and no better ones; the rest is cancelled then. Else empty.

    Raises
    ------
    OrderError
        No legs, a leg twice, a ratio of zero, fewer than one unit, or a limit price that is
        missing or superfluous, in all or of a leg.
    """

    order_id: str
    ts_ns: int
    underlying: str
    strategy: str
    intent: Intent
    legs: tuple[Leg, ...]
    units: int
    order_type: OrderType = OrderType.MARKET
    time_in_force: TimeInForce = TimeInForce.IOC
    limit_price: float | None = None
    leg_limits: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        symbols = {leg.symbol for leg in self.legs}
        if not symbols or len(symbols) != len(self.legs):
            raise OrderError(
                f"order {self.order_id} has legs {self.legs}: give one leg for each contract"
            )
        for leg in self.legs:
            if leg.ratio == 0:
                raise OrderError(
                    f"order {self.order_id} has ratio 0 for {leg.symbol}: buy (+) or sell (-)"
                )
        if self.units < 1:
            raise OrderError(f"order {self.order_id} wants {self.units} units: ask for 1 or more")
        if (self.limit_price is None) is (self.order_type is OrderType.LIMIT):
            raise OrderError(
                f"{self.order_type} order {self.order_id} has limit price {self.limit_price}: "
                "limit orders need one, market orders take none"
            )
        if self.leg_limits and (self.limit_price is None or len(self.leg_limits) != len(self.legs)):
            raise OrderError(
                f"order {self.order_id} has limits {self.leg_limits} of {len(self.legs)} legs: "
                "give one for each leg of a limit order, or none"
            )

    @property
    def contracts_per_unit(self) -> int:
        """Option contracts of one unit, all legs together; stock is none."""
        return sum(abs(leg.ratio) for leg in self.legs if leg.symbol.startswith("O:"))


class LegFill(msgspec.Struct, frozen=True):
    """What one leg traded: signed contracts or round lots (+ bought) at USD a share."""

    symbol: str
    quantity: int
    price: float


class Fill(msgspec.Struct, frozen=True):
    """Units of an order that traded together.

    `premium` is the change of cash before fees in USD (+ received); `fees` is >= 0.
    """

    fill_id: str
    order_id: str
    ts_ns: int
    underlying: str
    units: int
    legs: tuple[LegFill, ...]
    premium: float
    fees: float


class Rejection(msgspec.Struct, frozen=True):
    """An order that was refused; `detail` is for people."""

    order_id: str
    ts_ns: int
    reason: RejectReason
    detail: str
