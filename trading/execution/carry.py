"""Interest on cash and fees for borrowed stock, booked at each session's close."""

from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

from trading.execution.events import Carried
from trading.execution.legs import is_stock
from trading.execution.money import round_usd
from trading.execution.portfolio import Account

DAYS_OF_YEAR = 365.0


class CarryRates(NamedTuple):
    """What a year costs or earns, as fractions; a broker's choice, nothing by default."""

    cash_interest: float = 0.0
    """Of cash above zero."""
    borrow_fee: float = 0.0
    """Of the value of stock that is held short."""


NO_CARRY = CarryRates()


def carried(
    account: Account,
    rates: CarryRates,
    prices: Mapping[str, float],
    today: date,
    through: date,
    now_ns: int,
) -> Carried | None:
    """Return what the days up to `through`, the next session, earn and cost.

    None where that is nothing.

    They begin where the last booking ended, or `today`: days on which nothing ran are made up for.
    Stock without a price (USD a share) in `prices` counts at what was paid for it.
    """
    first = date.fromisoformat(account.carried_through) if account.carried_through else today
    days = (through - first).days
    if rates == NO_CARRY or days <= 0:
        return None
    years = days / DAYS_OF_YEAR
    fees = {}
    for symbol, position in account.positions.items():
        if is_stock(symbol) and position.quantity < 0:
            price = prices.get(symbol, position.average_price)
            worth = -position.quantity * account.size(symbol) * price
            fees[symbol] = float(round_usd(worth * rates.borrow_fee * years))
    interest = float(round_usd(max(account.cash, 0.0) * rates.cash_interest * years))
    return Carried(now_ns, today.isoformat(), through.isoformat(), interest, fees)
