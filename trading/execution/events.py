"""Everything that can happen to an account, one frozen struct each.

Events are what the journal stores and what `Account.apply` folds. They carry no wall clock and no
random identifier: `ts_ns` is exchange time, UTC nanoseconds. Amounts are USD.
"""

from typing import TypeAlias

import msgspec

from trading.execution.orders import Fill, Order, Rejection
from trading.execution.risk import TradingState


class AccountOpened(msgspec.Struct, frozen=True, tag_field="kind", tag="account_opened"):
    """The first event of every journal: the account and its initial cash."""

    ts_ns: int
    account_id: str
    cash: float
    multiplier: float = 100.0
    """Shares that one contract delivers."""


class DecisionMade(msgspec.Struct, frozen=True, tag_field="kind", tag="decision_made"):
    """The policy chose an action for one underlying at one bar.

    `reward` is the one that the previous decision of this underlying earned, `value` the policy's
    estimate at this one, `masked` says that the action was not allowed and became a hold, and
    `fragment` numbers the rollout fragment that the decision belongs to.
    """

    ts_ns: int
    underlying: str
    action: int
    action_name: str
    weights_version: int
    value: float
    reward: float
    masked: bool = False
    fragment: int = 0


class OrderAccepted(msgspec.Struct, frozen=True, tag_field="kind", tag="order_accepted"):
    """An order passed every check; each unit that waits holds `reserved_per_unit` USD back."""

    ts_ns: int
    order: Order
    reserved_per_unit: float = 0.0


class OrderRejected(msgspec.Struct, frozen=True, tag_field="kind", tag="order_rejected"):
    """An order was refused and has no effect."""

    ts_ns: int
    rejection: Rejection


class OrderFilled(msgspec.Struct, frozen=True, tag_field="kind", tag="order_filled"):
    """Units of an accepted order traded."""

    ts_ns: int
    fill: Fill


class OrderCancelled(msgspec.Struct, frozen=True, tag_field="kind", tag="order_cancelled"):
    """What is left of an accepted order will not trade; `reason` is for people."""

    ts_ns: int
    order_id: str
    reason: str


class Settled(msgspec.Struct, frozen=True, tag_field="kind", tag="settled"):
    """A contract expired: exercised, assigned or worthless, settled in cash.

    `quantity` is the signed position that ends, `price` its intrinsic value in USD a share,
    `cash` the change of cash.
    """

    ts_ns: int
    symbol: str
    quantity: int
    price: float
    cash: float
    underlying_price: float


class SessionClosed(msgspec.Struct, frozen=True, tag_field="kind", tag="session_closed"):
    """A session ended; `date` is YYYY-MM-DD in New York, `equity` the next daily-loss base.

    `reward` is what the last decisions of the session earned, all underlyings together.
    """

    ts_ns: int
    date: str
    equity: float
    reward: float = 0.0


class StateChanged(msgspec.Struct, frozen=True, tag_field="kind", tag="state_changed"):
    """What the account may trade has changed."""

    ts_ns: int
    trading_state: TradingState
    reason: str


class WeightsAdopted(msgspec.Struct, frozen=True, tag_field="kind", tag="weights_adopted"):
    """From here on the policy decides with these weights; `digest` identifies their content."""

    ts_ns: int
    version: int
    digest: str


Event: TypeAlias = (
    AccountOpened
    | DecisionMade
    | OrderAccepted
    | OrderRejected
    | OrderFilled
    | OrderCancelled
    | Settled
    | SessionClosed
    | StateChanged
    | WeightsAdopted
)
