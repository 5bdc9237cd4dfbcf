"""How expiring options end: in cash, worthless, or as stock.

OCC Rule 805: what is a cent or more in the money at the close is exercised. Products that settle in
cash pay their intrinsic value. Otherwise sold options in the money are assigned: stock changes
hands at the strike. Bought options in the money are exercised for stock only as far as that offsets
stock which is held, delivered or owed; the others are paid their intrinsic value, since who
exercised them would sell the stock at once. Index options that settle at the opening are settled
at the close here, like all others. Adjusted contracts deliver what they deliver; those that deliver
shares of several companies are settled in cash, at the same value.
"""

import math
from collections.abc import Iterable, Mapping

from trading.errors import DataError
from trading.execution.deliverables import STANDARD, AdjustedSymbols
from trading.execution.endings import (
    EXERCISE_THRESHOLD,
    cash_at_end,
    contracts_delivered,
    exercised,
)
from trading.execution.events import Ending, Settled
from trading.execution.holdings import Position
from trading.execution.legs import is_stock
from trading.market.closes import CloseSource
from trading.market.contracts import OptionContract, parse_symbol
from trading.market.products import product_of

__all__ = ["EXERCISE_THRESHOLD", "closing_price", "settled", "settlement_price", "settlements"]
__all__ += ["value_at_expiry"]


def settlement_price(contract: OptionContract, spot: float) -> float:
    """Return what a contract is worth when it expires at `spot`, USD a share."""
    return _exercised(contract, spot)


def value_at_expiry(
    symbol: str, spot: float, multiplier: float, adjusted: AdjustedSymbols
) -> float:
    """Return what a held contract, adjusted or not, is worth when it expires at `spot`.

    USD a share of the standard deliverable: its price times `multiplier` is its value.
    """
    delivered = adjusted.deliverables.get(symbol)
    value = spot if delivered is None else delivered.value(spot) / multiplier
    return _exercised(parse_symbol(symbol), value)


def _exercised(contract: OptionContract, value: float) -> float:
    return float(exercised(int(contract.right), contract.strike, float(value)))


def settlements(
    positions: Mapping[str, Position],
    symbols: Iterable[str],
    underlying_prices: Mapping[str, float],
    multiplier: float,
    now_ns: int,
    adjusted: AdjustedSymbols = STANDARD,
    sources: Mapping[str, CloseSource] | None = None,
) -> list[Settled]:
    """Return what the end of `symbols` does to an account, sold options first.

    Parameters
    ----------
    positions : mapping of symbol to Position
        All that the account holds, stock too; of `symbols` only the options held count.
    underlying_prices : mapping of underlying to float
        Closing prices, USD a share.
    adjusted : AdjustedSymbols
        Which holdings are not standard.
    sources : mapping of underlying to CloseSource, optional
        Where its closing price comes from; the official figure by default.

    Raises
    ------
    DataError
        An underlying's closing price is missing or no positive number.
    """
    held = [
        positions[symbol]
        for symbol in dict.fromkeys(symbols)
        if symbol in positions and not is_stock(symbol)
    ]
    ended: list[Settled] = []
    stock: dict[str, float] = {}
    told = sources or {}
    # Sold ones first: what they deliver is what bought ones are exercised against.
    for position in sorted(held, key=lambda each: each.quantity > 0):
        spot = closing_price(position, underlying_prices)
        ticker = position.underlying
        if ticker not in stock:
            quantity = positions[ticker].quantity if ticker in positions else 0
            stock[ticker] = quantity * adjusted.size(ticker, multiplier)
        contracts = _delivered(position, spot, stock[ticker], multiplier, adjusted)
        source = told.get(ticker, CloseSource.OFFICIAL)
        event = settled(position, contracts, spot, multiplier, now_ns, adjusted, source)
        stock[ticker] += event.lots * (event.lot or multiplier)
        ended.append(event)
    return ended


def settled(
    position: Position,
    contracts: int,
    spot: float,
    multiplier: float,
    now_ns: int,
    adjusted: AdjustedSymbols = STANDARD,
    source: CloseSource = CloseSource.OFFICIAL,
) -> Settled:
    """Return the end of a position: signed `contracts` are delivered, the others paid in cash."""
    contract = parse_symbol(position.symbol)
    delivered = adjusted.deliverables.get(position.symbol)
    price = value_at_expiry(position.symbol, spot, multiplier, adjusted)
    sign = contracts * int(contract.right)
    lots, lot = sign, 0.0
    # What changes hands in cash for each contract that is delivered.
    aggregate = multiplier * contract.strike
    if delivered is not None:
        lots, lot = sign * round(delivered.shares), 1.0
        aggregate -= delivered.cash
    cash = float(
        cash_at_end(position.quantity, contracts, int(contract.right), price, multiplier, aggregate)
    )
    if contracts:
        ending = Ending.ASSIGNED if contracts < 0 else Ending.EXERCISED
    else:
        ending = Ending.CASH if price else Ending.WORTHLESS
    return Settled(
        now_ns,
        position.symbol,
        position.quantity,
        price,
        cash,
        spot,
        lots=lots,
        ending=ending,
        source=source,
        lot=lot if lots else 0.0,
    )


def closing_price(position: Position, underlying_prices: Mapping[str, float]) -> float:
    """Price that a position's underlying settles at; raises DataError where it is unusable."""
    spot = underlying_prices.get(position.underlying, math.nan)
    if not 0.0 < spot < math.inf:
        raise DataError(
            f"cannot settle {position.symbol}: the closing price of {position.underlying} is {spot}"
        )
    return spot


def _delivered(
    position: Position, spot: float, shares: float, multiplier: float, adjusted: AdjustedSymbols
) -> int:
    """Signed contracts that turn into stock, where `shares` of it are held so far."""
    contract = parse_symbol(position.symbol)
    delivered = adjusted.deliverables.get(position.symbol)
    in_cash = product_of(contract.root).cash_settled
    if delivered is not None and (delivered.others or not delivered.shares):
        in_cash = True
    price = value_at_expiry(position.symbol, spot, multiplier, adjusted)
    each = adjusted.shares(position.symbol, multiplier)
    right = int(contract.right)
    return int(
        contracts_delivered(position.quantity, right, price, float(shares), float(each), in_cash)
    )
