"""What is wrong with an order before prices matter."""

from collections.abc import Mapping

from trading.errors import ContractError
from trading.execution.legs import is_stock, terms_of
from trading.execution.orders import Intent, Order, QuoteView, RejectReason
from trading.execution.portfolio import Account
from trading.execution.risk import Broken
from trading.market.contracts import parse_symbol
from trading.market.products import is_index


def validation_errors(
    order: Order, account: Account, quotes: Mapping[str, QuoteView], session_open: bool
) -> Broken:
    """Yield why an order is refused whatever the prices, the first reason first."""
    if not session_open:
        yield RejectReason.OUTSIDE_SESSION, f"{order.underlying} does not trade now"
    for leg in order.legs:
        closes = order.intent is Intent.CLOSE
        fault = leg_fault(leg.symbol, order.underlying, quotes, held=closes)
        if fault:
            yield RejectReason.UNKNOWN_CONTRACT, fault
    fault = mixture_fault(order)
    if fault and order.intent is Intent.OPEN:
        yield RejectReason.UNKNOWN_CONTRACT, fault
    for waiting in account.working_orders.values():
        if waiting.order.underlying == order.underlying:
            detail = f"order {waiting.order.order_id} waits on {order.underlying}"
            yield RejectReason.POSITION_EXISTS, detail
    if order.intent is Intent.OPEN:
        yield from _not_openable(order, account)
    else:
        yield from _not_closable(order, account)


def leg_fault(
    symbol: str, underlying: str, quotes: Mapping[str, QuoteView], *, held: bool = False
) -> str:
    """Return why a contract or stock cannot be ordered; empty when it can.

    What is `held` may be closed whatever it is.
    """
    if is_stock(symbol):
        if symbol != underlying:
            return f"{symbol} is neither an option symbol (O:...) nor the stock of {underlying}"
        if is_index(symbol):
            return f"{symbol} is an index, which has no shares"
    else:
        try:
            contract = parse_symbol(symbol)
        except ContractError as error:
            return str(error)
        if contract.refusal and not held:
            return f"{symbol} is not opened: {contract.refusal}"
    if symbol not in quotes:
        return f"{symbol} has no quote"
    return ""


def mixture_fault(order: Order) -> str:
    """Return why the legs cannot be one order; empty when they can."""
    # The stock BRK.B has options with the root BRKB.
    roots = {terms_of(leg.symbol).root.replace(".", "") for leg in order.legs}
    if len(roots) > 1:
        return f"legs on {', '.join(sorted(roots))} do not cover each other: order them apart"
    return ""


def _not_openable(order: Order, account: Account) -> Broken:
    held = account.strategies.get(order.underlying)
    if held is not None:
        detail = f"{held.strategy} is open on {order.underlying}: close it first"
        yield RejectReason.POSITION_EXISTS, detail


def _not_closable(order: Order, account: Account) -> Broken:
    held = account.strategies.get(order.underlying)
    units = held.units if held else 0
    if order.units > units:
        detail = f"{order.units} units to close, {units} are open on {order.underlying}"
        yield RejectReason.NO_POSITION, detail
    legs = {leg.symbol: leg.ratio for leg in held.legs} if held else {}
    if {leg.symbol: -leg.ratio for leg in order.legs} != legs:
        detail = f"the legs open on {order.underlying} are {legs}: close them together"
        yield RejectReason.NO_POSITION, detail
