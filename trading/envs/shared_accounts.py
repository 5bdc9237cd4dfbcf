"""Accounts that trade several underlyings with one cash, one margin and one set of limits.

With `TradingRules.underlyings_per_account` K above 1, an account of the batch is K rows in a row,
one for each underlying: rows a K to a K + K - 1 are account a. Each has a strategy of its own;
cash, equity, margin, slots and restrictions are the account's and stand in every row alike.

An account decides on all its underlyings at once, and its orders trade one after the other in the
order of the rows, as those of a live account do in the order of `symbols`. So each order has what
the ones before it left: see `trade_accounts`. Live trading does the same by the same functions
(`trading.envs.live_env`), and `tests/envs/test_shared_accounts.py` ties the two to the last bit.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.account_view import AccountViews, cap_openings, observe_accounts
from trading.envs.accounts import Accounts, in_order_of_opening, share, trade
from trading.envs.catalogue import CLOSE, HOLD, MAX_LEGS
from trading.envs.features import OTHERS_COUNT
from trading.envs.held_greeks import held_greeks
from trading.envs.market_features import F32, put
from trading.envs.market_snapshots import MarketSnapshots
from trading.envs.quote_arrays import QuoteArrays
from trading.envs.rules import NO_LEG, STOCK_LEG, TradingRules
from trading.envs.size_levels import of_full_size
from trading.execution.exposure import loss_floor, usd_greeks
from trading.execution.fees import FeeSchedule
from trading.market.chain import F64, I64


@njit(cache=True, error_model="numpy")
def show_others(
    out: F32,
    row: int,
    count: int,
    greeks: F64,
    margin: float,
    profit: float,
    equity: float,
    max_positions: int,
) -> None:
    """Write what is open on an account's other underlyings to the end of an observation.

    Parameters
    ----------
    out : [B, F]
    count : strategies that are open there
    greeks : [3], delta, gamma and vega of them in USD, see `trading.execution.exposure.Greeks`
    margin, profit : what they hold back, and what they made after fees so far, USD
    equity : of the account, USD
    """
    worth, k = max(equity, 1.0), out.shape[1] - OTHERS_COUNT
    k = put(out, row, k, count / max_positions)
    k = put(out, row, k, greeks[0] / worth)
    k = put(out, row, k, greeks[1] / worth)
    k = put(out, row, k, greeks[2] / (0.001 * worth))
    k = put(out, row, k, margin / worth)
    put(out, row, k, profit / (0.01 * worth))


@njit(cache=True, error_model="numpy")
def observe_others(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    ratios: I64,
    accounts: Accounts,
    which: I64,
) -> None:
    """Show accounts `which`, all rows of each, what they hold elsewhere; mask what that forbids.

    To be called after `observe_accounts`, which takes each row to be all that the account holds.
    """
    rows = rules.underlyings_per_account
    holdings, balances, views = accounts.holdings, accounts.balances, accounts.views
    order, greeks = np.zeros(rows, np.int64), np.zeros((rows, MAX_LEGS, 3))
    value, total = np.zeros(rows), np.zeros(3)
    for at in range(0, len(which), rows):
        first = which[at]
        count = in_order_of_opening(accounts, first, order)
        _read(quotes, snapshots, snapshot_of, rules, accounts, first, order[:count], greeks, value)
        for b in range(first, first + rows):
            margin = profit = 0.0
            others = 0
            total[:] = 0.0
            for n in range(count):
                row = order[n]
                if first + row == b:
                    continue
                _add(holdings.legs[first + row], greeks[row], total)
                margin += accounts.margin_per_unit[first + row] * holdings.units[first + row]
                profit += value[row] + holdings.net_cash[first + row]
                others += 1
            show_others(
                views.observations, b, others, total, margin, profit, balances.equity[b],
                rules.max_positions,
            )  # fmt: skip
        if count == 0:
            continue
        _sum(holdings.legs, first, order[:count], greeks, total)
        for b in range(first, first + rows):
            if holdings.units[b] == 0:
                cap_openings(
                    quotes, snapshots, snapshot_of, rules, ratios, balances, b, total, views
                )


@njit(cache=True, error_model="numpy")
def account_greeks(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    accounts: Accounts,
    b: int,
) -> F64:
    """Return delta, gamma and vega in USD [3] of all that the account of row `b` holds."""
    rows = rules.underlyings_per_account
    order, greeks = np.zeros(rows, np.int64), np.zeros((rows, MAX_LEGS, 3))
    value, total = np.zeros(rows), np.zeros(3)
    first = b - b % rows
    count = in_order_of_opening(accounts, first, order)
    _read(quotes, snapshots, snapshot_of, rules, accounts, first, order[:count], greeks, value)
    _sum(accounts.holdings.legs, first, order[:count], greeks, total)
    return total


def trade_accounts(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    fees: FeeSchedule,
    ratios: I64,
    accounts: Accounts,
    actions: I64,
    invalid: NDArray[np.bool_],
    spare: AccountViews,
) -> None:
    """Execute the actions of accounts of several rows, as `trade` does of one.

    What expiries and assignments left is closed first. Then the rows trade in their order, each at
    most as much as it was shown and as is allowed after what traded before it in the account. An
    order that comes after a loss limit is broken trades no more, and restricts the account.

    Parameters
    ----------
    ratios : [N, MAX_LEGS], as of `trade`
    actions : [B]
    invalid : [B], set where an action was masked out
    spare : views of the same size, which are written over
    """
    rows, view = rules.underlyings_per_account, (quotes, snapshots, snapshot_of, rules)
    left = accounts.delivered & ~accounts.halted
    every, actions = np.arange(len(actions)), actions.copy()
    for closes in (True, False):
        for row in range(rows):
            which = every[row::rows]
            which = which[left[which] == closes]
            if not len(which):
                continue
            if row or not closes:
                acting = which[(actions[which] != HOLD) | accounts.delivered[which]]
                if len(acting):
                    _limit(*view, ratios, accounts, acting, actions, spare)
            before = accounts.trades[which]
            trade(*view, fees, ratios, accounts, which, actions, invalid)
            filled = which[accounts.trades[which] != before]
            share(accounts, filled, rows)
            _revalue(*view, accounts, filled)


@njit(cache=True, error_model="numpy")
def _limit(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    ratios: I64,
    accounts: Accounts,
    which: I64,
    actions: I64,
    spare: AccountViews,
) -> None:
    """Lower what rows `which` may order to what is left; turn what is refused into a hold.

    A loss beyond a limit is found by the order that comes after it, as the broker finds it.
    """
    rows, views = rules.underlyings_per_account, accounts.views
    balances, holdings = accounts.balances, accounts.holdings
    observe_accounts(quotes, snapshots, snapshot_of, rules, holdings, balances, which, spare)
    for b in which:
        first = b - b % rows
        if balances.open_positions[b] > 0 and holdings.units[b] == 0:
            total = account_greeks(quotes, snapshots, snapshot_of, rules, accounts, b)
            cap_openings(quotes, snapshots, snapshot_of, rules, ratios, balances, b, total, spare)
        for action in range(views.units.shape[1]):
            # A part stays as large as it was shown while there is room: it is no part of the room.
            full = of_full_size(action, len(ratios))
            views.units[b, action] = min(views.units[b, action], spare.units[b, full])
        action = actions[b]
        liquidates = accounts.delivered[b]
        opens = action > CLOSE and not liquidates
        if not liquidates and (
            not 0 <= action < views.mask.shape[1]
            or not views.mask[b, action]
            or views.units[b, action] < 1
        ):
            continue
        refused = accounts.halted[b] or (opens and accounts.reduced[b])
        if not refused:
            equity = balances.equity[b]
            if not equity >= loss_floor(accounts.day_start[b], rules.max_daily_loss):
                accounts.halted[first : first + rows] = True
                refused = True
            elif opens and not equity >= loss_floor(accounts.peak[b], rules.max_drawdown):
                accounts.reduced[first : first + rows] = True
                refused = True
        if refused:
            actions[b] = HOLD


@njit(cache=True, error_model="numpy")
def _revalue(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    accounts: Accounts,
    which: I64,
) -> None:
    """Let the accounts of rows `which` know their equity, and the greeks that were opened at."""
    rows, balances = rules.underlyings_per_account, accounts.balances
    order, greeks = np.zeros(rows, np.int64), np.zeros((rows, MAX_LEGS, 3))
    value = np.zeros(rows)
    for b in which:
        first = b - b % rows
        count = in_order_of_opening(accounts, first, order)
        total = _read(
            quotes, snapshots, snapshot_of, rules, accounts, first, order[:count], greeks, value
        )
        for row in range(first, first + rows):
            balances.equity[row] = balances.cash[row] + total


@njit(cache=True, error_model="numpy")
def _read(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    accounts: Accounts,
    first: int,
    open_rows: I64,
    greeks: F64,
    value: F64,
) -> float:
    """Write the greeks in USD of each leg of an account's open rows, and each row's value in USD.

    `greeks` is [rows, MAX_LEGS, 3], `value` [rows]. Returns the value of all, added leg by leg in
    the order of the books, as `Account.equity` adds them.
    """
    total = 0.0
    legs, ratio, units = accounts.holdings.legs, accounts.holdings.ratio, accounts.holdings.units
    for row in open_rows:
        b = first + row
        f = snapshot_of[b]
        spot, value[row] = snapshots.spot[f], 0.0
        for leg in range(MAX_LEGS):
            i = legs[b, leg]
            if i == NO_LEG:
                break
            shares = ratio[b, leg] * units[b] * rules.multiplier
            worth = shares * _mark(quotes, snapshots, f, i)
            value[row] += worth
            total += worth
            delta, gamma, vega = 1.0, 0.0, 0.0
            if i != STOCK_LEG:
                delta, gamma, vega, _, _ = held_greeks(
                    quotes, f, i, spot, snapshots.now_ns[f], rules.max_quote_age_ns,
                    accounts.kept[b, leg],
                )  # fmt: skip
            usd = usd_greeks(shares * delta, shares * gamma, shares * vega, spot)
            greeks[row, leg, 0], greeks[row, leg, 1], greeks[row, leg, 2] = usd
    return total


@njit(cache=True, error_model="numpy")
def _mark(quotes: QuoteArrays, snapshots: MarketSnapshots, f: int, i: int) -> float:
    price = snapshots.spot[f] if i == STOCK_LEG else quotes.mark[quotes.quote_offset[f] + i]
    return float(price)


@njit(cache=True, error_model="numpy")
def _add(legs: I64, greeks: F64, total: F64) -> None:
    """Add the greeks of a row's legs, one after the other."""
    for leg in range(MAX_LEGS):
        if legs[leg] == NO_LEG:
            break
        for k in range(3):
            total[k] += greeks[leg, k]


@njit(cache=True, error_model="numpy")
def _sum(legs: I64, first: int, open_rows: I64, greeks: F64, total: F64) -> None:
    """Write the account's greeks [3], leg by leg in the order of its books."""
    total[:] = 0.0
    for row in open_rows:
        _add(legs[first + row], greeks[row], total)
