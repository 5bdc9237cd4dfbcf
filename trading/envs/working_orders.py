"""Orders of B accounts that work: the batch twin of `trading.execution.working_orders`.

An account has one at most. While it works, holding lets it work on, and so does the action that it
came from, in any size; another opening takes the place of one to open, and closing cancels that. An
order to close is not taken back.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.account_view import AccountBalances, AccountViews
from trading.envs.catalogue import CLOSE, HOLD, MAX_LEGS
from trading.envs.features import ORDER_FEATURES
from trading.envs.market_snapshots import MarketSnapshots
from trading.envs.rules import NO_LEG, STOCK_LEG, TradingRules
from trading.envs.size_levels import of_full_size
from trading.execution.fees import FeeSchedule
from trading.execution.margin.formulas import buying_power_effect, held_per_unit, payoff_margin
from trading.execution.matching import (
    LIMIT_TOLERANCE,
    FillStyle,
    fill_cash,
    net_price,
    price_at_share,
    working_share,
)
from trading.execution.money import round_usd
from trading.market.chain import F64, I64

_FEATURES = len(ORDER_FEATURES)


class WorkingOrders(NamedTuple):
    """What B accounts have working, [B] each unless it says otherwise; HOLD: nothing."""

    action: I64
    """CLOSE, or the opening of the catalogue at full size; the rest is of no meaning where HOLD."""
    units: I64
    step: I64
    legs: I64
    """[B, MAX_LEGS]: contract indices, as in `Holdings`."""
    limits: F64
    """[B, MAX_LEGS]: what each leg pays or receives at the limit, USD a share."""
    held: F64
    """Buying power that each unit holds, USD; 0 where nothing works."""


def no_orders(count: int) -> WorkingOrders:
    """Return orders of accounts that have none."""
    return WorkingOrders(
        action=np.full(count, HOLD, dtype=np.int64),
        units=np.zeros(count, dtype=np.int64),
        step=np.zeros(count, dtype=np.int64),
        legs=np.full((count, MAX_LEGS), NO_LEG, dtype=np.int64),
        limits=np.zeros((count, MAX_LEGS)),
        held=np.zeros(count),
    )


def is_working(rules: TradingRules) -> bool:
    """Return whether orders of the policy work."""
    return rules.fill_style == FillStyle.WORKING


@njit(cache=True, error_model="numpy")
def replaces(action: int, works: int, whole: int) -> bool:
    """Return whether an action ends an order that works; `works` is its own at full size.

    `whole` is how many actions there are at full size.
    """
    keeps = action == HOLD or works == CLOSE or of_full_size(action, whole) == works
    return not keeps


@njit(cache=True, error_model="numpy")
def write_limits(
    bid: F64,
    ask: F64,
    lots: I64,
    n_legs: int,
    first_leg: int,
    rules: TradingRules,
    step: int,
    limits: F64,
) -> None:
    """Write what each leg pays or receives at a step, USD a share, by the quotes of now."""
    share = working_share(step, rules.working_steps)
    is_stock = n_legs == 1 and first_leg == STOCK_LEG
    for leg in range(n_legs):
        limits[leg] = price_at_share(
            bid[leg], ask[leg], lots[leg] > 0, rules.slippage, share, n_legs, is_stock
        )


@njit(cache=True, error_model="numpy")
def comes_to(lots: I64, touch: F64, limits: F64, n_legs: int) -> bool:
    """Return whether the touches of all legs together have come to the limit."""
    net = net_price(lots, touch, n_legs)
    return bool(net <= net_price(lots, limits, n_legs) + LIMIT_TOLERANCE)


@njit(cache=True, error_model="numpy")
def power_of_order(
    limits: F64,
    margin: float,
    units: int,
    rules: TradingRules,
    fees: FeeSchedule,
    n_legs: int,
    lots: I64,
    right: NDArray[np.int8],
) -> float:
    """Buying power that `units` of an order take at its limits, USD.

    `margin` is what a unit holds back once it is filled, below 0 where it frees that.
    """
    _, fee = fill_cash(right, lots, limits, n_legs, units, rules.multiplier, fees)
    net = net_price(lots, limits, n_legs)
    return float(round_usd(buying_power_effect(net, margin, units, rules.multiplier, fee)))


@njit(cache=True, error_model="numpy")
def margin_of_order(
    opening: int,
    margin_per_unit: float,
    rules: TradingRules,
    n_legs: int,
    lots: I64,
    right: NDArray[np.int8],
    strike: F64,
) -> float:
    """Margin that a unit of an order holds back, or frees where it closes what has this one."""
    if opening == CLOSE:
        return -margin_per_unit
    return float(payoff_margin(right, strike, lots, n_legs, rules.multiplier))


@njit(cache=True, error_model="numpy")
def place_order(
    orders: WorkingOrders,
    balances: AccountBalances,
    b: int,
    opening: int,
    wanted: int,
    margin_per_unit: float,
    held: int,
    rules: TradingRules,
    fees: FeeSchedule,
    n_legs: int,
    legs: I64,
    lots: I64,
    right: NDArray[np.int8],
    strike: F64,
    touch: F64,
) -> bool:
    """Let an order of account `b` work from its limits on, as `PaperBroker.submit` does.

    Returns False where the touches have come to them: then there is nothing to wait for.
    """
    limits = orders.limits[b]
    if comes_to(lots, touch, limits, n_legs):
        return False
    margin = margin_of_order(opening, margin_per_unit, rules, n_legs, lots, right, strike)
    effect = power_of_order(limits, margin, wanted, rules, fees, n_legs, lots, right)
    orders.action[b], orders.units[b], orders.step[b] = opening, wanted, 0
    for leg in range(MAX_LEGS):
        orders.legs[b, leg] = legs[leg] if leg < n_legs else NO_LEG
    hold_back(orders, balances, b, held_per_unit(effect, wanted), margin_per_unit * held)
    return True


@njit(cache=True, error_model="numpy")
def hold_back(
    orders: WorkingOrders, balances: AccountBalances, b: int, each: float, in_position: float
) -> None:
    """Hold back buying power for the order that waits, `each` USD a unit, beside the position's."""
    reserved, opens = each * orders.units[b], orders.action[b] != CLOSE
    orders.held[b] = each
    balances.order_opens[b], balances.order_hold[b] = opens, reserved if opens else 0.0
    balances.open_positions[b] = 1
    balances.margin_used[b] = in_position + reserved


@njit(cache=True, error_model="numpy")
def end_order(
    orders: WorkingOrders, balances: AccountBalances, b: int, held: int, in_position: float
) -> None:
    """Let nothing wait; what a position of `held` units holds back stays."""
    orders.action[b], orders.held[b] = HOLD, 0.0
    balances.order_opens[b], balances.order_hold[b] = False, 0.0
    balances.open_positions[b] = 1 if held > 0 else 0
    balances.margin_used[b] = in_position


@njit(cache=True, error_model="numpy")
def observe_orders(
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    balances: AccountBalances,
    orders: WorkingOrders,
    which: I64,
    views: AccountViews,
) -> None:
    """Show accounts `which` what they have working, and let them cancel what opens.

    After `observe_accounts`, which allows the openings that may take an order's place.
    """
    out, mask, action = views.observations, views.mask, orders.action
    first = out.shape[1] - _FEATURES
    for b in which:
        opens, closes = action[b] > CLOSE, action[b] == CLOSE
        out[b, first] = 1.0 if opens else 0.0
        out[b, first + 1] = 1.0 if closes else 0.0
        out[b, first + 2] = orders.step[b] / rules.working_steps if opens or closes else 0.0
        f = snapshot_of[b]
        if opens and balances.may_close[b] and snapshots.now_ns[f] < snapshots.close_ns[f]:
            mask[b, CLOSE] = True
