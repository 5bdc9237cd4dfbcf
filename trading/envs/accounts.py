"""B paper accounts, each trading one market: the batch twin of `PaperBroker` and its account.

Fills, fees, reserves and rounding are the broker's own kernels in the broker's own order, so an
account here and one in the journal hold the same dollars to the last bit.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.board import Board, position_value
from trading.envs.catalogue import ACTION_COUNT, CLOSE, MAX_LEGS
from trading.envs.features import FEATURE_COUNT, observe
from trading.envs.frames import RATIO, Frames
from trading.envs.market_features import F32
from trading.envs.rules import NO_LEG, STOCK, Funds, Position, TradingRules
from trading.envs.sizing import Mask, Units, leg_quote, size_actions
from trading.execution.fees import FeeSchedule
from trading.execution.margin import reserve_per_unit
from trading.execution.matching import MatchCode, fill_cash, match_legs
from trading.execution.money import usd
from trading.market.chain import F64, I64

_FILLED = int(MatchCode.OK)


class Accounts(NamedTuple):
    """The state of B accounts; about 1 KB each with what they see. Amounts are USD."""

    cash: F64
    net_cash: F64
    """All that trading has paid and received, after fees."""
    entry_cash: F64
    """Of the open strategy, and likewise the next five."""
    exit_cash: F64
    fees: F64
    unit_reserve: F64
    opened_ns: I64
    held: I64
    """Units of the open strategy."""
    legs: I64
    """[B, MAX_LEGS]"""
    ratio: I64
    """[B, MAX_LEGS]"""
    equity: F64
    """At the last mark."""
    profit: F64
    """`net_cash` and the value of the position, at the last mark."""
    day_start: F64
    """Equity that the daily loss counts from."""
    halted: NDArray[np.bool_]
    """The daily loss limit was broken; nothing trades until the session ends."""
    trades: I64
    """Fills of this episode."""
    observations: F32
    """[B, F]"""
    units: Units
    """[B, N]: units of every action that may be ordered now."""
    mask: Mask
    """[B, N]"""


def new_accounts(count: int) -> Accounts:
    """Accounts to be opened by `open_accounts`."""

    def usd_column() -> F64:
        return np.zeros(count)

    def counts(*shape: int) -> I64:
        return np.zeros((count, *shape), dtype=np.int64)

    return Accounts(
        cash=usd_column(),
        net_cash=usd_column(),
        entry_cash=usd_column(),
        exit_cash=usd_column(),
        fees=usd_column(),
        unit_reserve=usd_column(),
        opened_ns=counts(),
        held=counts(),
        legs=np.full((count, MAX_LEGS), NO_LEG, dtype=np.int64),
        ratio=counts(MAX_LEGS),
        equity=usd_column(),
        profit=usd_column(),
        day_start=usd_column(),
        halted=np.zeros(count, dtype=np.bool_),
        trades=counts(),
        observations=np.zeros((count, FEATURE_COUNT), dtype=np.float32),
        units=np.zeros((count, ACTION_COUNT), dtype=np.int32),
        mask=np.zeros((count, ACTION_COUNT), dtype=np.bool_),
    )


def open_accounts(accounts: Accounts, which: I64, cash: float) -> None:
    """Open accounts `which` anew with nothing but cash."""
    for name in ("cash", "equity", "day_start"):
        getattr(accounts, name)[which] = cash
    for name in (
        "net_cash",
        "entry_cash",
        "exit_cash",
        "fees",
        "unit_reserve",
        "opened_ns",
        "held",
        "ratio",
        "profit",
        "halted",
        "trades",
    ):
        getattr(accounts, name)[which] = 0
    accounts.legs[which] = NO_LEG


@njit(cache=True, error_model="numpy")
def trade(
    board: Board,
    frames: Frames,
    frame_of: I64,
    rules: TradingRules,
    fees: FeeSchedule,
    accounts: Accounts,
    actions: I64,
    invalid: NDArray[np.bool_],
) -> None:
    """Execute one action per account in its frame; one that is masked out is a hold.

    Parameters
    ----------
    frame_of : [B], frame that each account is in
    actions : [B]
    invalid : [B], set where an action was masked out
    """
    order = _empty_order()
    for b in range(len(actions)):
        action = actions[b]
        allowed = 0 <= action < ACTION_COUNT and accounts.mask[b, action]
        invalid[b] = not allowed
        if allowed and action > 0:
            _execute(board, frames, frame_of[b], rules, fees, accounts, b, action, order)


class _Order(NamedTuple):
    """Working arrays of one order, [MAX_LEGS] each."""

    legs: I64
    ratio: I64
    right: NDArray[np.int8]
    strike: F64
    bid: F64
    ask: F64
    bid_size: F64
    ask_size: F64
    quote_ns: I64
    price: F64


@njit(cache=True, error_model="numpy")
def _empty_order() -> _Order:
    return _Order(
        np.zeros(MAX_LEGS, dtype=np.int64),
        np.zeros(MAX_LEGS, dtype=np.int64),
        np.zeros(MAX_LEGS, dtype=np.int8),
        np.zeros(MAX_LEGS),
        np.zeros(MAX_LEGS),
        np.zeros(MAX_LEGS),
        np.zeros(MAX_LEGS),
        np.zeros(MAX_LEGS),
        np.zeros(MAX_LEGS, dtype=np.int64),
        np.zeros(MAX_LEGS),
    )


@njit(cache=True, error_model="numpy")
def _write_order(
    board: Board,
    frames: Frames,
    f: int,
    rules: TradingRules,
    accounts: Accounts,
    b: int,
    action: int,
    order: _Order,
) -> int:
    """Fill in the legs of an action with their quotes; return how many there are."""
    for leg in range(MAX_LEGS):
        if action == CLOSE:
            i, ratio = accounts.legs[b, leg], -accounts.ratio[b, leg]
        else:
            i, ratio = np.int64(frames.legs[f, action, leg]), RATIO[action, leg]
        if i == NO_LEG:
            return leg
        order.legs[leg], order.ratio[leg] = i, ratio
        bid, ask, bid_size, ask_size, quote_ns = leg_quote(board, frames, f, rules, i)
        order.bid[leg], order.ask[leg] = bid, ask
        order.bid_size[leg], order.ask_size[leg] = bid_size, ask_size
        order.quote_ns[leg] = quote_ns
        if i == STOCK:
            order.right[leg], order.strike[leg] = 0, 0.0
        else:
            listed = board.listed_at[f] + i
            order.right[leg], order.strike[leg] = board.right[listed], board.strike[listed]
    return MAX_LEGS


@njit(cache=True, error_model="numpy")
def _execute(
    board: Board,
    frames: Frames,
    f: int,
    rules: TradingRules,
    fees: FeeSchedule,
    accounts: Accounts,
    b: int,
    action: int,
    order: _Order,
) -> None:
    """Send the order of an allowed action and book its fill."""
    n_legs = _write_order(board, frames, f, rules, accounts, b, action, order)
    code, units = match_legs(
        order.ratio, order.bid, order.ask, order.bid_size, order.ask_size, order.quote_ns, n_legs,
        frames.now_ns[f], accounts.units[b, action], rules.max_quote_age_ns, rules.slippage,
        order.price,
    )  # fmt: skip
    if code != _FILLED or units < 1:
        return
    premium, fee = fill_cash(
        order.right, order.ratio, order.price, n_legs, units, rules.multiplier, fees
    )
    accounts.cash[b] = usd(accounts.cash[b] + (premium - fee))
    accounts.net_cash[b] = usd(accounts.net_cash[b] + (premium - fee))
    accounts.trades[b] += 1
    if action == CLOSE:
        accounts.held[b] -= units
        accounts.exit_cash[b] = usd(accounts.exit_cash[b] + premium)
        accounts.fees[b] = usd(accounts.fees[b] + fee)
        return
    accounts.held[b] = units
    accounts.entry_cash[b], accounts.exit_cash[b] = usd(premium), 0.0
    accounts.fees[b] = usd(fee)
    accounts.opened_ns[b] = frames.now_ns[f]
    accounts.unit_reserve[b] = reserve_per_unit(
        order.right, order.strike, order.ratio, n_legs, rules.multiplier
    )
    for leg in range(MAX_LEGS):
        used = leg < n_legs
        accounts.legs[b, leg] = order.legs[leg] if used else NO_LEG
        accounts.ratio[b, leg] = order.ratio[leg] if used else 0


@njit(cache=True, error_model="numpy")
def mark_and_observe(
    board: Board,
    frames: Frames,
    frame_of: I64,
    rules: TradingRules,
    accounts: Accounts,
    which: I64,
    rewards: F64,
) -> None:
    """Mark accounts `which` in their frames, halt on a daily loss, observe and size.

    `rewards[b]` is set to the change of profit since the last mark over the initial capital,
    scaled as the rules say.
    """
    for b in which:
        f = frame_of[b]
        position = Position(
            accounts.legs[b],
            accounts.ratio[b],
            accounts.held[b],
            usd(accounts.entry_cash[b] + accounts.exit_cash[b] - accounts.fees[b]),
            accounts.opened_ns[b],
        )
        value = position_value(board, frames, f, rules.multiplier, position)
        profit = accounts.net_cash[b] + value
        rewards[b] = (profit - accounts.profit[b]) / rules.initial_capital * rules.reward_scale
        accounts.profit[b] = profit
        equity = accounts.cash[b] + value
        accounts.equity[b] = equity
        floor = accounts.day_start[b] * (1.0 - rules.max_daily_loss)
        if not equity >= floor:
            accounts.halted[b] = True
        is_open = accounts.held[b] > 0
        reserved = accounts.unit_reserve[b] * accounts.held[b] if is_open else 0.0
        funds = Funds(equity, accounts.cash[b], reserved, 1 if is_open else 0)
        may_trade = not accounts.halted[b]
        size_actions(
            board, frames, f, rules, funds, position, may_trade, may_trade, accounts.units[b],
            accounts.mask[b],
        )  # fmt: skip
        observe(board, frames, f, rules, funds, position, accounts.observations[b])
