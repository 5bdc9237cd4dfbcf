"""A priced chain at one instant, for the tests of menus and features."""

from datetime import date

import numpy as np

from trading.envs.actions import (
    BUCKETS,
    MAX_LEGS,
    Funds,
    Menu,
    Position,
    build_menu,
    empty_menu,
    find_buckets,
)
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.market.calendar import ExchangeCalendar
from trading.market.chain import Chain
from trading.market.contracts import OptionContract, Right
from trading.market.pricing import YEAR_NS, black_price

SESSION_DAY = date(2026, 1, 5)
CALENDAR = ExchangeCalendar()
_SESSION = CALENDAR.session_on(SESSION_DAY)
assert _SESSION is not None
SESSION_OPEN_NS, SESSION_CLOSE_NS = _SESSION.open_ns, _SESSION.close_ns
NOW_NS = SESSION_OPEN_NS + 3_600_000_000_000
SPOT = 100.0
IV = 0.25
EXPIRIES = (date(2026, 1, 13), date(2026, 2, 6))


def priced_chain(spot: float = SPOT, iv: float = IV, spread: float = 0.02) -> Chain:
    """Strikes 80 to 120 in two expiries, quoted around Black's price, 10 contracts a side."""
    contracts = [
        OptionContract("XYZ", expiry, right, strike * 1000)
        for expiry in EXPIRIES
        for strike in range(80, 121)
        for right in Right
    ]
    chain = Chain("XYZ", contracts, [CALENDAR.expiry_ns(c.expiry) for c in contracts])
    columns = chain.columns
    for i in range(len(chain)):
        t = (columns.expiry_ns[i] - NOW_NS) / YEAR_NS
        discount = float(np.exp(-DEFAULT_RULES.rate * t))
        forward = spot / discount
        price = black_price(int(columns.right[i]), forward, columns.strike[i], t, discount, iv)
        columns.bid[i] = max(price - spread / 2, 0.0)
        columns.ask[i] = price + spread / 2
    columns.bid_size[:] = columns.ask_size[:] = 10.0
    columns.quote_ns[:] = NOW_NS
    chain.last_price = spot
    return chain


def flat() -> Position:
    """No position."""
    legs = np.full(MAX_LEGS, -1, dtype=np.int64)
    return Position(legs, np.zeros(MAX_LEGS, dtype=np.int64), 0, 0.0, 0)


def funds(cash: float = 100_000.0, reserved: float = 0.0, open_positions: int = 0) -> Funds:
    """An account of cash only."""
    return Funds(cash, cash, reserved, open_positions)


def buckets(chain: Chain) -> np.ndarray:
    """The expiry group of each bucket at NOW_NS."""
    group = np.full(len(BUCKETS), -1, dtype=np.int64)
    find_buckets(chain.columns, NOW_NS, group)
    return group


def menu_for(
    chain: Chain,
    *,
    funds: Funds = Funds(100_000.0, 100_000.0, 0.0, 0),  # noqa: B008
    position: Position | None = None,
    session_close_ns: int = SESSION_CLOSE_NS,
    may_open: bool = True,
    may_close: bool = True,
) -> Menu:
    """The menu of the chain at NOW_NS, refreshed first."""
    chain.refresh(NOW_NS, DEFAULT_RULES.rate, DEFAULT_RULES.max_quote_age_ns)
    menu = empty_menu()
    build_menu(
        chain.columns,
        NOW_NS,
        session_close_ns,
        DEFAULT_RULES,
        DEFAULT_FEES,
        funds,
        position or flat(),
        may_open,
        may_close,
        buckets(chain),
        menu,
    )
    return menu
