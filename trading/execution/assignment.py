"""Calls that are assigned early: their holders take the stock for its dividend.

A call in the money is best exercised right before the ex-date when the dividend is worth more than
the time value given up; at no other time (Merton 1973; Hull, Options, Futures and Other
Derivatives, section 15.12). By put-call parity the time value is the price of the put with the
same strike and expiry, interest aside, which is quoted better than a deep call: it is used where it
is quoted.
"""

import math
from collections.abc import Mapping

import msgspec

from trading.execution.deliverables import STANDARD, AdjustedSymbols
from trading.execution.endings import dividend_is_worth_it
from trading.execution.events import Ending, Settled
from trading.execution.holdings import Position, marked
from trading.execution.legs import is_stock
from trading.execution.orders import QuoteView
from trading.execution.settlement import closing_price, settled
from trading.market.closes import CloseSource
from trading.market.contracts import OptionContract, Right, parse_symbol
from trading.market.dividends import Dividend
from trading.market.products import product_of


def is_assigned_early(
    contract: OptionContract, spot: float, dividend: float, time_value: float
) -> bool:
    """Return whether a sold call is assigned when the stock goes ex-dividend at the next session.

    Parameters
    ----------
    spot, dividend, time_value : float
        Closing price of the underlying, dividend, and `time_value`, USD a share. An unknown time
        value (NaN) counts as none, which is the worse case for the seller.
    """
    product = product_of(contract.root)
    if contract.right is not Right.CALL or product.european or product.cash_settled:
        return False
    return bool(
        dividend_is_worth_it(float(spot), contract.strike, float(dividend), float(time_value))
    )


def time_value(contract: OptionContract, spot: float, quotes: Mapping[str, QuoteView]) -> float:
    """Return what a call is worth above its intrinsic value, USD a share; NaN when nothing says it.

    The mid of the put with the same strike and expiry, or of the call less intrinsic value.
    """
    put = OptionContract(contract.root, contract.expiry, Right.PUT, contract.strike_milli)
    value = _mid(quotes.get(put.symbol))
    if not math.isnan(value):
        return value
    return _mid(quotes.get(contract.symbol)) - max(0.0, spot - contract.strike)


def early_assignments(
    positions: Mapping[str, Position],
    dividend: Dividend,
    quotes: Mapping[str, QuoteView],
    spot: float,
    multiplier: float,
    now_ns: int,
    adjusted: AdjustedSymbols = STANDARD,
    source: CloseSource = CloseSource.OFFICIAL,
) -> list[Settled]:
    """Return the sold calls that are assigned at the close before a dividend's ex-date.

    Those that expire before the ex-date are left to expiry.

    Raises
    ------
    DataError
        Calls are sold and `spot` is no positive number.
    """
    assigned = []
    for position in positions.values():
        if position.underlying != dividend.underlying or position.quantity > 0:
            continue
        if is_stock(position.symbol):
            continue
        contract = parse_symbol(position.symbol)
        closing_price(position, {dividend.underlying: spot})
        left = time_value(contract, spot, quotes)
        value, amount = spot, dividend.amount
        delivered = adjusted.deliverables.get(position.symbol)
        if delivered is not None:
            if delivered.others or not delivered.shares:
                continue
            value = delivered.value(spot) / multiplier
            amount *= delivered.shares / multiplier
            left = _mid(quotes.get(contract.symbol)) - max(0.0, value - contract.strike)
        if contract.expiry >= dividend.ex_date and is_assigned_early(contract, value, amount, left):
            event = settled(position, position.quantity, spot, multiplier, now_ns, adjusted, source)
            assigned.append(msgspec.structs.replace(event, ending=Ending.ASSIGNED_EARLY))
    return assigned


def _mid(quote: QuoteView | None) -> float:
    """Return the mid of a quote with both sides; NaN where one of them says nothing."""
    if quote is None or not 0.0 < quote.bid <= quote.ask < math.inf:
        return math.nan
    return marked(quote, math.nan)
