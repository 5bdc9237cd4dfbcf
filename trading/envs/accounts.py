"""B paper accounts, each trading one market: the batch twin of `PaperBroker` and its account.

Fills, fees, margin and rounding are the broker's own kernels in the broker's own order, so an
account here and one in the journal hold the same dollars to the last bit. Where an account trades
several markets, it has a row for each, see `trading.envs.shared_accounts`.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.account_view import (
    AccountBalances,
    AccountViews,
    Holdings,
    empty_balances,
    empty_views,
    keep_greeks,
    no_holdings,
)
from trading.envs.catalogue import ACTION_COUNT, CLOSE, HOLD, MAX_LEGS
from trading.envs.held_greeks import KEPT
from trading.envs.market_snapshots import MarketSnapshots
from trading.envs.quote_arrays import QuoteArrays
from trading.envs.rewards import reward_of
from trading.envs.rules import NO_LEG, STOCK_LEG, STOCK_LOTS, TradingRules, stock_touch
from trading.envs.size_levels import of_full_size
from trading.envs.working_orders import WorkingOrders, no_orders, place_order, write_limits
from trading.execution.exposure import loss_floor
from trading.execution.fees import FeeSchedule
from trading.execution.margin.formulas import payoff_margin
from trading.execution.matching import MatchCode, fill_cash, match_legs
from trading.execution.money import round_usd
from trading.market.chain import F64, I64

_FILLED = int(MatchCode.OK)
SUMS = ("net_cash", "entry_cash", "exit_cash", "fees", "margin_per_unit", "profit")
FLAGS = ("halted", "reduced", "delivered", "margin_moves")


class Accounts(NamedTuple):
    """The state of B accounts, less than 1 KB each; amounts are USD."""

    holdings: Holdings
    balances: AccountBalances
    views: AccountViews
    net_cash: F64
    """[B]: all that trading has paid and received, after fees, and likewise the rest."""
    entry_cash: F64
    """Of the open strategy, and likewise the next three."""
    exit_cash: F64
    fees: F64
    margin_per_unit: F64
    profit: F64
    """`net_cash` and the value of the position, at the last mark."""
    day_start: F64
    """Equity that the daily loss counts from."""
    trades: I64
    """Fills of this episode."""
    peak: F64
    """Equity that the drawdown counts from."""
    halted: NDArray[np.bool_]
    """[B]: the daily loss leaves nothing to be traded until the session closes."""
    reduced: NDArray[np.bool_]
    """[B]: the drawdown leaves only closing."""
    delivered: NDArray[np.bool_]
    """[B]: what is held is to be closed: stock that an expiry or assignment left."""
    margin_moves: NDArray[np.bool_]
    """[B]: the margin follows the market, see `StrategyPosition.margin_moves`."""
    kept: F64
    """[B, MAX_LEGS, KEPT]: what `held_greeks` was last read of, for accounts that share."""
    orders: WorkingOrders
    last_action: I64
    """[B]: what the last fill was of, at full size; of no meaning before the first."""
    last_price: F64
    """[B, MAX_LEGS]: at which price each leg of it traded, USD a share."""


def new_accounts(
    count: int, size_levels: int = 1, added: int = 0, actions: int = ACTION_COUNT
) -> Accounts:
    """Accounts to be opened by `open_accounts`, that see so many features behind the usual ones.

    They choose among so many `actions` of full size.
    """
    columns: dict[str, Any] = {name: np.zeros(count) for name in (*SUMS, "day_start", "peak")}
    columns |= {name: np.zeros(count, dtype=np.bool_) for name in FLAGS}
    return Accounts(
        holdings=no_holdings(count),
        balances=empty_balances(count),
        views=empty_views(count, size_levels, added, actions),
        trades=np.zeros(count, dtype=np.int64),
        kept=np.zeros((count, MAX_LEGS, KEPT)),
        orders=no_orders(count),
        last_action=np.full(count, HOLD, dtype=np.int64),
        last_price=np.zeros((count, MAX_LEGS)),
        **columns,
    )


def open_accounts(accounts: Accounts, which: I64, cash: float) -> None:
    """Open accounts `which` anew with nothing but cash."""
    holdings, balances = accounts.holdings, accounts.balances
    for column in (holdings.ratio, holdings.units, holdings.net_cash, holdings.opened_ns):
        column[which] = 0
    holdings.legs[which] = NO_LEG
    holdings.known[which] = accounts.kept[which] = 0.0
    balances.equity[which] = balances.cash[which] = accounts.day_start[which] = cash
    accounts.peak[which] = cash
    balances.margin_used[which] = balances.open_positions[which] = 0
    balances.order_opens[which], balances.order_hold[which] = False, 0.0
    accounts.orders.action[which], accounts.orders.held[which] = HOLD, 0.0
    balances.may_open[which] = balances.may_close[which] = True
    for name in (*SUMS, "trades"):
        getattr(accounts, name)[which] = 0
    for name in FLAGS:
        getattr(accounts, name)[which] = False


class Due(NamedTuple):
    """What trades now at its limit, of orders that work; see `trading.envs.working_trades`."""

    units: I64
    """[B]: 0 where nothing does."""
    action: I64
    """[B]: CLOSE, or the opening of the catalogue at full size."""


# What is booked here `Account` books for a live account (`portfolio.py`: `_opened`, `_reduced`),
# tied to it by `tests/live/test_parity.py` and `tests/envs/test_fill_styles.py`, and
# `trading.evaluation.baselines` for positions outside of the catalogue, by its tests.
# One loop body, as in `observe_accounts`: a call that takes the arrays of an account costs more
# than the fill, also one that is compiled inline. What only working orders need is left out by the
# compiler where there is nothing `due`.
@njit(cache=True, error_model="numpy")
def trade(  # noqa: PLR0912 - one body, see above
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    fees: FeeSchedule,
    ratios: I64,
    accounts: Accounts,
    which: I64,
    actions: I64,
    invalid: NDArray[np.bool_],
    due: Due | None = None,
) -> None:
    """Execute one action for each of accounts `which` in its snapshot; a masked one is a hold.

    What an expiry or assignment left behind is closed whatever the action.

    Parameters
    ----------
    snapshot_of : [B], snapshot that each account is in
    ratios : [N, MAX_LEGS], signed contracts of one unit of every action, of the `ActionTables`
    actions : [B]
    invalid : [B], set where an action was masked out
    due : what trades at its limit instead, where orders work; actions place orders then. See
        `trading.envs.working_trades`, which is to be called there.
    """
    holdings, balances, views = accounts.holdings, accounts.balances, accounts.views
    chosen, legs, ratio = np.zeros(MAX_LEGS, np.int64), holdings.legs, holdings.ratio
    known, delivered, halted = holdings.known, accounts.delivered, accounts.halted
    lots, quote_ns = np.zeros(MAX_LEGS, np.int64), np.zeros(MAX_LEGS, np.int64)
    right, strike, price = np.zeros(MAX_LEGS, np.int8), np.zeros(MAX_LEGS), np.zeros(MAX_LEGS)
    bid, ask = np.zeros(MAX_LEGS), np.zeros(MAX_LEGS)
    bid_size, ask_size = np.zeros(MAX_LEGS), np.zeros(MAX_LEGS)
    orders, at_limit = accounts.orders, False
    for b in which:
        action = actions[b]
        allowed = 0 <= action < views.mask.shape[1] and views.mask[b, action]
        invalid[b] = not allowed
        if due is not None:
            at_limit = due.units[b] > 0
            if at_limit:
                allowed, action = True, due.action[b]
        liquidates = delivered[b] and not halted[b]
        if liquidates:
            action = CLOSE
        elif not allowed or action == HOLD:
            continue

        f, closes, n_legs = snapshot_of[b], action == CLOSE, 0
        opening = of_full_size(action, len(ratios))
        for leg in range(MAX_LEGS):
            i = legs[b, leg] if closes else np.int64(snapshots.legs[f, opening, leg])
            if at_limit:
                i = orders.legs[b, leg]
            if i == NO_LEG:
                break
            n_legs += 1
            chosen[leg] = i
            lots[leg] = -ratio[b, leg] if closes else ratios[opening, leg]
            if i == STOCK_LEG:
                bid[leg], ask[leg] = stock_touch(snapshots.spot[f], rules.stock_half_spread)
                bid_size[leg] = ask_size[leg] = STOCK_LOTS
                quote_ns[leg], right[leg], strike[leg] = snapshots.spot_ns[f], 0, 0.0
                continue
            q, listed = quotes.quote_offset[f] + i, quotes.contract_offset[f] + i
            bid[leg], ask[leg], quote_ns[leg] = quotes.bid[q], quotes.ask[q], quotes.quote_ns[q]
            bid_size[leg], ask_size[leg] = quotes.bid_size[q], quotes.ask_size[q]
            right[leg], strike[leg] = quotes.right[listed], quotes.strike[listed]

        wanted = holdings.units[b] if liquidates else np.int64(views.units[b, action])
        if at_limit:
            wanted = orders.units[b]
        code, units = match_legs(
            lots, bid, ask, bid_size, ask_size, quote_ns, n_legs, snapshots.now_ns[f],
            wanted, rules.max_quote_age_ns, rules.slippage, price,
            rules.fill_style, n_legs == 1 and chosen[0] == STOCK_LEG,
        )  # fmt: skip
        if code != _FILLED or units < 1:
            continue
        if due is not None:
            if at_limit:
                price[:] = orders.limits[b]
            elif not liquidates:
                unit, open_units = accounts.margin_per_unit[b], holdings.units[b]
                write_limits(bid, ask, lots, n_legs, chosen[0], rules, 0, orders.limits[b])
                if place_order(
                    orders, balances, b, opening, wanted, unit, open_units, rules, fees, n_legs,
                    chosen, lots, right, strike, price,
                ):  # fmt: skip
                    continue
        premium, fee = fill_cash(right, lots, price, n_legs, units, rules.multiplier, fees)

        balances.cash[b] = round_usd(balances.cash[b] + (premium - fee))
        accounts.net_cash[b] = round_usd(accounts.net_cash[b] + (premium - fee))
        accounts.trades[b] += 1
        accounts.last_action[b] = opening
        for leg in range(n_legs):
            accounts.last_price[b, leg] = price[leg]
        if closes:
            holdings.units[b] -= units
            delivered[b] = delivered[b] and holdings.units[b] > 0
            accounts.exit_cash[b] = round_usd(accounts.exit_cash[b] + premium)
            accounts.fees[b] = round_usd(accounts.fees[b] + fee)
        else:
            holdings.units[b], holdings.opened_ns[b] = units, snapshots.now_ns[f]
            accounts.entry_cash[b], accounts.exit_cash[b], accounts.fees[b] = premium, 0.0, fee
            margin = payoff_margin(right, strike, lots, n_legs, rules.multiplier)
            accounts.margin_per_unit[b] = margin
            accounts.margin_moves[b] = False
            for leg in range(MAX_LEGS):
                legs[b, leg] = chosen[leg] if leg < n_legs else NO_LEG
                ratio[b, leg] = lots[leg] if leg < n_legs else 0
                known[b, leg] = accounts.kept[b, leg] = 0.0
                if leg < n_legs and chosen[leg] != STOCK_LEG:
                    q = quotes.quote_offset[f] + chosen[leg]
                    keep_greeks(quotes, q, snapshots.spot[f], known[b, leg])
        net_cash = accounts.entry_cash[b] + accounts.exit_cash[b] - accounts.fees[b]
        holdings.net_cash[b] = round_usd(net_cash)
        balances.open_positions[b] = 1 if holdings.units[b] > 0 else 0
        balances.margin_used[b] = accounts.margin_per_unit[b] * holdings.units[b]


@njit(cache=True, error_model="numpy")
def mark(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    accounts: Accounts,
    which: I64,
    rewards: F64,
) -> None:
    """Mark accounts `which` in their snapshots and restrict those that broke a limit of losses.

    `rewards[b]` is set to what the change of profit since the last mark earns, see `reward_of`.
    Accounts of several rows are marked whole: `which` has all of each, one after the other.
    """
    legs, ratio, held = accounts.holdings.legs, accounts.holdings.ratio, accounts.holdings.units
    balances, delivered = accounts.balances, accounts.delivered
    halted, reduced = accounts.halted, accounts.reduced
    scale, aversion, measure = rules.reward_scale, rules.risk_aversion, rules.risk_measure
    rows = rules.underlyings_per_account
    order, values = np.zeros(rows, np.int64), np.zeros(rows)
    for at in range(0, len(which), rows):
        first, total = which[at], 0.0
        if rows > 1:
            in_order_of_opening(accounts, first, order)
        for n in range(rows):
            b, value = first + order[n], 0.0
            f = snapshot_of[b]
            for leg in range(MAX_LEGS):
                i = legs[b, leg]
                if i == NO_LEG or held[b] == 0:
                    break
                price = (
                    snapshots.spot[f] if i == STOCK_LEG else quotes.mark[quotes.quote_offset[f] + i]
                )
                worth = ratio[b, leg] * held[b] * rules.multiplier * price
                value += worth
                # Leg by leg, as `Account.equity` adds them.
                total += worth
            values[order[n]] = value
        for b in range(first, first + rows):
            balances.equity[b] = balances.cash[b] + total
            profit = accounts.net_cash[b] + values[b - first]
            change = (profit - accounts.profit[b]) / rules.initial_capital
            below = (accounts.peak[b] - balances.equity[b]) / rules.initial_capital
            rewards[b] = reward_of(change, below, scale, aversion, measure)
            accounts.profit[b] = profit
            if not balances.equity[b] >= loss_floor(accounts.day_start[b], rules.max_daily_loss):
                halted[b] = True
            if not balances.equity[b] >= loss_floor(accounts.peak[b], rules.max_drawdown):
                reduced[b] = True
            balances.may_close[b] = not (halted[b] or delivered[b])
            balances.may_open[b] = balances.may_close[b] and not reduced[b]


@njit(cache=True, error_model="numpy")
def in_order_of_opening(accounts: Accounts, first: int, order: I64) -> int:
    """Write the rows of an account in the order of its books, and return how many are open.

    `order` [rows] counts from its `first` row. Those with an open strategy stand in the order in
    which these were opened, as in `Account.strategies`, of which sums depend to the last bit; the
    others follow.
    """
    held, opened_ns = accounts.holdings.units, accounts.holdings.opened_ns
    rows = len(order)
    n = 0
    for row in range(rows):
        if held[first + row] == 0:
            continue
        k = n
        while k > 0 and opened_ns[first + order[k - 1]] > opened_ns[first + row]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = row
        n += 1
    last = n
    for row in range(rows):
        if held[first + row] == 0:
            order[last] = row
            last += 1
    return n


@njit(cache=True, error_model="numpy")
def share(accounts: Accounts, which: I64, rows: int) -> None:
    """Let the other rows of their accounts know what rows `which` have paid, hold back and opened.

    `rows` are those of an account; of each one row at most is in `which`.
    """
    if rows == 1:
        return
    balances, order = accounts.balances, np.zeros(rows, np.int64)
    for b in which:
        first, margin = b - b % rows, 0.0
        count = in_order_of_opening(accounts, first, order)
        for n in range(count):
            row = first + order[n]
            margin += accounts.margin_per_unit[row] * accounts.holdings.units[row]
        for row in range(first, first + rows):
            balances.cash[row] = balances.cash[b]
            balances.margin_used[row] = margin
            balances.open_positions[row] = count
