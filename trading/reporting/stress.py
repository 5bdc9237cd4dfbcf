"""What the open position would be worth if prices and volatilities moved at once.

Each option is read at the volatility that its mark implies and priced anew with the spot and that
volatility changed, at the same instant: American ones as American, which are never worth less than
their exercise value, those on indices as European by Black's formula. The spot grows at the
risk-free rate; dividends are left out. Where no volatility can be read from a mark, the exercise
value alone moves.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trading.errors import DataError
from trading.execution.legs import is_stock
from trading.execution.portfolio import Account
from trading.market.american import american_price, american_volatility
from trading.market.calendar import ExchangeCalendar
from trading.market.chain import MIN_TIME_VALUE
from trading.market.contracts import parse_symbol
from trading.market.pricing import YEAR_NS, black_price, implied_volatility
from trading.market.products import product_of

SPOTS = (-0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2)
VOLATILITIES = (-0.5, -0.25, 0.0, 0.25, 0.5)


@dataclass(frozen=True)
class HeldLeg:
    """A position as it stands."""

    symbol: str
    shares: float
    """Signed: contracts times the multiplier, or shares."""
    mark: float
    """USD a share."""
    spot: float
    """Of its underlying, USD."""


@dataclass(frozen=True)
class Stress:
    """Changes of the account's value, USD."""

    spots: Sequence[float]
    volatilities: Sequence[float]
    changes: list[list[float]]
    """By volatility, then spot; all underlyings move alike."""
    taken: str
    """When marks and spots were taken, ISO 8601."""


def stress(legs: Sequence[HeldLeg], now_ns: int, rate: float, taken: str = "") -> Stress:
    """Reprice the legs under every pair of changes.

    Parameters
    ----------
    rate
        Risk-free, continuously compounded, a year.
    """
    calendar = ExchangeCalendar()
    tables = [_changes(leg, now_ns, rate, calendar) for leg in legs]
    changes = [
        [sum(table[v][s] for table in tables) for s in range(len(SPOTS))]
        for v in range(len(VOLATILITIES))
    ]
    return Stress(SPOTS, VOLATILITIES, changes, taken)


def legs_of_status(status: Mapping[str, Any], account: Account) -> list[HeldLeg]:
    """Return the positions that `GET /status` tells, with the spots of their underlyings."""
    spots = {name: each["spot"] for name, each in status["market"]["underlyings"].items()}
    return [
        HeldLeg(
            leg["symbol"],
            leg["quantity"] * account.size(leg["symbol"]),
            leg["mark"],
            spots[position["underlying"]],
        )
        for position in status["positions"]
        for leg in position["legs"]
    ]


def stress_of_status(status: Mapping[str, Any], account: Account) -> Stress:
    """Stress what `GET /status` tells of an account, in the sizes that its journal has.

    Raises
    ------
    DataError
        A figure is missing, nothing is open, or an adjusted contract is held.
    """
    try:
        legs = legs_of_status(status, account)
        taken, rate = status["market"]["time"], float(status["market"]["risk_free_rate"])
        now_ns = round(datetime.fromisoformat(taken).timestamp() * 1e9)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"the status of the running application lacks a figure ({error!r}): run both in one "
            "version"
        ) from error
    if not legs:
        raise DataError("the running application holds nothing any more")
    for leg in legs:
        if leg.symbol in account.deliverables:
            raise DataError(
                f"{leg.symbol} is an adjusted contract, which does not deliver 100 shares, and no "
                "formula here prices it"
            )
        if not all(value is not None and math.isfinite(value) for value in (leg.mark, leg.spot)):
            raise DataError(f"{leg.symbol} has no mark, or its underlying no price, at the moment")
    return stress(legs, now_ns, rate, taken)


def _changes(
    leg: HeldLeg, now_ns: int, rate: float, calendar: ExchangeCalendar
) -> list[list[float]]:
    """Return changes of one leg's value, USD, by volatility, then spot."""
    if is_stock(leg.symbol):
        return [[leg.shares * leg.spot * spot for spot in SPOTS] for _ in VOLATILITIES]
    contract = parse_symbol(leg.symbol)
    t = max(0, calendar.expiry_ns(contract.expiry, contract.root) - now_ns) / YEAR_NS
    right, strike, discount = int(contract.right), contract.strike, math.exp(-rate * t)
    european = product_of(contract.root).european
    if european:
        forward = leg.spot / discount
        iv, _ = implied_volatility(leg.mark, right, forward, strike, t, discount, MIN_TIME_VALUE)
    else:
        option = (right, leg.spot, strike, t, rate, 0.0)
        iv = american_volatility(leg.mark, *option, MIN_TIME_VALUE)

    def worth(spot: float, vol: float) -> float:
        if not vol > 0.0:
            return max(0.0, right * (spot - strike))
        if european:
            return float(black_price(right, spot / discount, strike, t, discount, vol))
        return float(american_price(right, spot, strike, t, rate, 0.0, vol))

    now = worth(leg.spot, iv)
    return [
        [leg.shares * (worth(leg.spot * (1.0 + spot), iv * (1.0 + vol)) - now) for spot in SPOTS]
        for vol in VOLATILITIES
    ]
