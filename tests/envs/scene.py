"""A priced chain at one instant, for the tests of menus and features."""

from datetime import date
from typing import NamedTuple

import numpy as np

from trading.envs.account_view import (
    AccountBalances,
    Holdings,
    empty_balances,
    empty_views,
    no_holdings,
    observe_accounts,
)
from trading.envs.action_tables import action_tables
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.market_features import HISTORY_BARS, Bars
from trading.envs.market_snapshots import (
    MarketSnapshots,
    empty_snapshots,
    fill_snapshot,
    scratch,
)
from trading.envs.quote_arrays import quote_arrays
from trading.envs.rules import NO_LEG, TradingRules
from trading.envs.structures import all_actions
from trading.evaluation.baselines import MarketView, _symbol, quote_of
from trading.execution.fees import FeeSchedule
from trading.execution.matching import FillStyle
from trading.execution.order_matching import MatchResult, match_order
from trading.execution.orders import Intent, Leg, Order
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


def balances_of(
    cash: float = 100_000.0, margin_used: float = 0.0, open_positions: int = 0
) -> AccountBalances:
    """An account of cash only."""
    balances = empty_balances(1)
    balances.equity[0] = balances.cash[0] = cash
    balances.margin_used[0], balances.open_positions[0] = margin_used, open_positions
    return balances


class Menu(NamedTuple):
    """What one account may order in a snapshot, with the snapshot and the quotes it is about."""

    snapshots: MarketSnapshots
    observation: np.ndarray
    units: np.ndarray
    mask: np.ndarray
    ratios: np.ndarray

    def legs(self, action: int) -> list[int]:
        """Contract indices of an opening action; STOCK_LEG for the underlying."""
        return [int(i) for i in self.snapshots.legs[0, action] if i != NO_LEG]

    def position(self, action: int, units: int, net_cash: float = -100.0) -> Holdings:
        """The position that an opening action leads to."""
        holdings = no_holdings(1)
        holdings.legs[0] = self.snapshots.legs[0, action]
        holdings.ratio[0] = self.ratios[action]
        holdings.units[0], holdings.net_cash[0] = units, net_cash
        holdings.opened_ns[0] = NOW_NS
        return holdings


def flat_bars(price: float = SPOT) -> Bars:
    """A full history without any move."""
    column = np.full(HISTORY_BARS, price)
    return Bars(column, column, column, np.log(column), HISTORY_BARS)


def snapshot_of(
    chain: Chain,
    *,
    bars: Bars | None = None,
    session_close_ns: int = SESSION_CLOSE_NS,
    rules: TradingRules = DEFAULT_RULES,
    fees: FeeSchedule = DEFAULT_FEES,
) -> MarketSnapshots:
    """The snapshot that a chain shows at NOW_NS, refreshed first."""
    chain.refresh(NOW_NS, rules.rate, rules.max_quote_age_ns)
    snapshots = empty_snapshots(1, actions=len(all_actions(rules.structures)))
    snapshots.now_ns[0] = snapshots.spot_ns[0] = NOW_NS
    snapshots.open_ns[0], snapshots.close_ns[0] = SESSION_OPEN_NS, session_close_ns
    snapshots.spot[0] = chain.spot
    space = scratch(rules.structures)
    fill_snapshot(chain.columns, snapshots, 0, bars or flat_bars(), rules.numbers, fees, space)
    return snapshots


def menu_for(
    chain: Chain,
    *,
    bars: Bars | None = None,
    balances: AccountBalances | None = None,
    position: Holdings | None = None,
    session_close_ns: int = SESSION_CLOSE_NS,
    rules: TradingRules = DEFAULT_RULES,
    may_open: bool = True,
    may_close: bool = True,
) -> Menu:
    """What an account sees and may order of the chain at NOW_NS."""
    snapshots = snapshot_of(chain, bars=bars, session_close_ns=session_close_ns, rules=rules)
    ratios = action_tables(rules.structures).ratio
    views = empty_views(1, actions=len(ratios))
    held, money = position or no_holdings(1), balances or balances_of()
    money.may_open[0], money.may_close[0] = may_open, may_close
    first = np.zeros(1, dtype=np.int64)
    observe_accounts(
        quote_arrays(chain.columns), snapshots, first, rules.numbers, held, money, first, views
    )
    return Menu(snapshots, views.observations[0], views.units[0], views.mask[0], ratios)


def offered(
    view: MarketView, b: int, legs: list[int], ratio: list[int], units: int, rules: TradingRules
) -> tuple[Order, MatchResult]:
    """An order of account `b`, and what the broker's match says of it."""
    f, ticker = int(view.snapshot_of[b]), view.underlyings[b]
    symbols = [_symbol(view, f, leg, ticker) for leg in legs]
    order = Order(
        "o-1", int(view.snapshots.now_ns[f]), ticker, "case", Intent.OPEN,
        tuple(Leg(symbol, each) for symbol, each in zip(symbols, ratio, strict=True)), units,
    )  # fmt: skip
    quotes = {s: quote_of(view, b, leg, rules) for s, leg in zip(symbols, legs, strict=True)}
    matched = match_order(
        order, units, quotes, order.ts_ns, rules.max_quote_age_ns, rules.slippage,
        style=FillStyle(rules.fill_style),
    )  # fmt: skip
    return order, matched
