"""What happens to an order, and the account that it belongs to."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.execution.broker import PaperBroker as PaperBroker
    from trading.execution.commands import Command as Command
    from trading.execution.fees import FeeSchedule as FeeSchedule
    from trading.execution.fees import order_fees as order_fees
    from trading.execution.lease import AccountLease as AccountLease
    from trading.execution.lease import wait_for_lease as wait_for_lease
    from trading.execution.matching import FillStyle as FillStyle
    from trading.execution.orders import Fill as Fill
    from trading.execution.orders import Intent as Intent
    from trading.execution.orders import Leg as Leg
    from trading.execution.orders import Order as Order
    from trading.execution.orders import OrderType as OrderType
    from trading.execution.orders import Rejection as Rejection
    from trading.execution.orders import RejectReason as RejectReason
    from trading.execution.orders import TimeInForce as TimeInForce
    from trading.execution.portfolio import Account as Account
    from trading.execution.risk import RiskLimits as RiskLimits
    from trading.execution.states import TradingState as TradingState

_PLACES = {
    "PaperBroker": "broker",
    "Command": "commands",
    "FeeSchedule": "fees",
    "order_fees": "fees",
    "AccountLease": "lease",
    "wait_for_lease": "lease",
    "FillStyle": "matching",
    "Fill": "orders",
    "Intent": "orders",
    "Leg": "orders",
    "Order": "orders",
    "OrderType": "orders",
    "RejectReason": "orders",
    "Rejection": "orders",
    "TimeInForce": "orders",
    "Account": "portfolio",
    "RiskLimits": "risk",
    "TradingState": "states",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
