"""Trading of B accounts whose orders work: what `PaperBroker` does with those of one account.

`trade_with_working_orders` takes the place of `trading.envs.accounts.trade` where
`TradingRules.fill_style` is `FillStyle.WORKING`: it goes on with what waits, and hands over to that
kernel, which books what trades and places what is to wait.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.accounts import Accounts, Due, trade
from trading.envs.catalogue import CLOSE, HOLD, MAX_LEGS
from trading.envs.market_snapshots import MarketSnapshots
from trading.envs.quote_arrays import QuoteArrays
from trading.envs.rules import NO_LEG, STOCK_LEG, STOCK_LOTS, TradingRules, stock_touch
from trading.envs.working_orders import (
    comes_to,
    end_order,
    hold_back,
    margin_of_order,
    power_of_order,
    replaces,
    write_limits,
)
from trading.execution.fees import FeeSchedule
from trading.execution.margin.formulas import held_per_unit
from trading.execution.matching import MatchCode, match_legs
from trading.execution.money import round_usd
from trading.market.chain import I64

_FILLED = int(MatchCode.OK)


def trade_with_working_orders(
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
) -> None:
    """Go on with what works, and execute one action for each of accounts `which`.

    What the quotes have filled by then is filled before the action arrives, which then does nothing
    more. An action that keeps the order lets it go a step; another one ends it. An action places an
    order where the touches have not come to its limit at once. What an expiry or assignment left
    behind is sold at the market. Parameters are those of `trading.envs.accounts.trade`.
    """
    count, actions = len(actions), actions.copy()
    due = Due(np.zeros(count, dtype=np.int64), np.full(count, HOLD, dtype=np.int64))
    view = (quotes, snapshots, snapshot_of, rules, fees, ratios, accounts, which, actions)
    _work(*view, due)
    trade(*view, invalid, due)


@njit(cache=True, error_model="numpy")
def _work(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    fees: FeeSchedule,
    ratios: I64,
    accounts: Accounts,
    which: I64,
    actions: I64,
    due: Due,
) -> None:
    """Go on with the orders that wait, before the actions; HOLD takes the place of those done with.

    As `PaperBroker.fill_waiting` and `step` do. An order whose new limit is beyond the buying power
    is cancelled.
    """
    orders, balances, mask = accounts.orders, accounts.balances, accounts.views.mask
    lots, quote_ns = np.zeros(MAX_LEGS, np.int64), np.zeros(MAX_LEGS, np.int64)
    right, strike, touch = np.zeros(MAX_LEGS, np.int8), np.zeros(MAX_LEGS), np.zeros(MAX_LEGS)
    bid, ask = np.zeros(MAX_LEGS), np.zeros(MAX_LEGS)
    bid_size, ask_size = np.zeros(MAX_LEGS), np.zeros(MAX_LEGS)
    for b in which:
        this, f, n_legs = orders.action[b], snapshot_of[b], 0
        if this == HOLD:
            continue
        legs, limits = orders.legs[b], orders.limits[b]
        for leg in range(MAX_LEGS):
            i = legs[leg]
            if i == NO_LEG:
                break
            n_legs += 1
            lots[leg] = -accounts.holdings.ratio[b, leg] if this == CLOSE else ratios[this, leg]
            if i == STOCK_LEG:
                bid[leg], ask[leg] = stock_touch(snapshots.spot[f], rules.stock_half_spread)
                bid_size[leg] = ask_size[leg] = STOCK_LOTS
                quote_ns[leg], right[leg], strike[leg] = snapshots.spot_ns[f], 0, 0.0
                continue
            q, listed = quotes.quote_offset[f] + i, quotes.contract_offset[f] + i
            bid[leg], ask[leg], quote_ns[leg] = quotes.bid[q], quotes.ask[q], quotes.quote_ns[q]
            bid_size[leg], ask_size[leg] = quotes.bid_size[q], quotes.ask_size[q]
            right[leg], strike[leg] = quotes.right[listed], quotes.strike[listed]
        code, units = match_legs(
            lots, bid, ask, bid_size, ask_size, quote_ns, n_legs, snapshots.now_ns[f],
            orders.units[b], rules.max_quote_age_ns, rules.slippage, touch,
            rules.fill_style, n_legs == 1 and legs[0] == STOCK_LEG,
        )  # fmt: skip
        quoted, held = code == _FILLED and units >= 1, accounts.holdings.units[b]
        trades = quoted and comes_to(lots, touch, limits, n_legs)
        unit, action = accounts.margin_per_unit[b], actions[b]
        allowed = 0 <= action < mask.shape[1] and mask[b, action]
        if not trades and allowed and replaces(action, this, len(ratios)):
            end_order(orders, balances, b, held, unit * held)
            actions[b] = HOLD if action == CLOSE else action
            continue
        if allowed:
            actions[b] = HOLD
        if not quoted:
            continue
        wanted = units
        if not trades:
            orders.step[b] += 1
            write_limits(bid, ask, lots, n_legs, legs[0], rules, orders.step[b], limits)
            trades, wanted = comes_to(lots, touch, limits, n_legs), orders.units[b]
        margin = margin_of_order(this, unit, rules, n_legs, lots, right, strike)
        effect = power_of_order(limits, margin, wanted, rules, fees, n_legs, lots, right)
        # What does not trade now is cancelled or goes on at the new limit: all it held is free.
        freed = orders.held[b] * orders.units[b]
        power = round_usd(balances.cash[b] - balances.margin_used[b]) + freed
        affordable = (this == CLOSE and effect <= 0.0) or effect <= power
        if affordable and not trades:
            hold_back(orders, balances, b, held_per_unit(effect, wanted), unit * held)
            continue
        end_order(orders, balances, b, held, unit * held)
        if affordable:
            due.units[b], due.action[b] = units, this


def cancel_forbidden(accounts: Accounts, which: I64) -> None:
    """Cancel orders of accounts `which` that a limit of losses forbids, as the broker does."""
    opens = accounts.balances.order_opens[which]
    forbidden = accounts.halted[which] | (accounts.reduced[which] & opens)
    cancel_orders(accounts, which[forbidden])


def cancel_orders(accounts: Accounts, which: I64) -> None:
    """Cancel what accounts `which` have working: an order is for its session."""
    margin = accounts.margin_per_unit * accounts.holdings.units
    orders, balances = accounts.orders, accounts.balances
    gone = which[orders.action[which] != HOLD]
    balances.open_positions[gone] -= orders.action[gone] > CLOSE
    balances.order_opens[gone], balances.order_hold[gone] = False, 0.0
    orders.action[gone], orders.held[gone] = HOLD, 0.0
    balances.margin_used[gone] = margin[gone]
