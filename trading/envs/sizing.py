"""How much of every action an account may order now; what it may not order is masked."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.board import Board
from trading.envs.catalogue import ACTION_COUNT, CLOSE, HOLD, MAX_LEGS
from trading.envs.frames import Frames
from trading.envs.rules import (
    NO_LEG,
    STOCK,
    STOCK_LOTS,
    Funds,
    Position,
    TradingRules,
    stock_touch,
)
from trading.market.chain import F64, is_tradable

Units = NDArray[np.int32]
Mask = NDArray[np.bool_]


@njit(cache=True, error_model="numpy")
def leg_quote(
    board: Board, frames: Frames, f: int, rules: TradingRules, i: int
) -> tuple[float, float, float, float, int]:
    """Bid, ask, bid size, ask size and time of a leg in frame `f`, STOCK included."""
    if i == STOCK:
        bid, ask = stock_touch(frames.spot[f], rules.stock_half_spread)
        return bid, ask, STOCK_LOTS, STOCK_LOTS, frames.spot_ns[f]
    q = board.quoted_at[f] + i
    return board.bid[q], board.ask[q], board.bid_size[q], board.ask_size[q], board.quote_ns[q]


@njit(cache=True, error_model="numpy")
def _size_closing(
    board: Board, frames: Frames, f: int, rules: TradingRules, position: Position
) -> int:
    """Units that the displayed sizes let close at once; 0 when any leg cannot be traded."""
    units = float(position.units)
    for leg in range(MAX_LEGS):
        i = position.legs[leg]
        if i == NO_LEG:
            break
        bid, ask, bid_size, ask_size, quote_ns = leg_quote(board, frames, f, rules, i)
        if not is_tradable(bid, ask, quote_ns, frames.now_ns[f], rules.max_quote_age_ns):
            return 0
        size = bid_size if position.ratio[leg] > 0 else ask_size
        units = min(units, np.floor(size / abs(position.ratio[leg])))
    return int(units)


@njit(cache=True, error_model="numpy")
def size_actions(
    board: Board,
    frames: Frames,
    f: int,
    rules: TradingRules,
    funds: Funds,
    position: Position,
    may_open: bool,
    may_close: bool,
    units: Units,
    mask: Mask,
) -> None:
    """Write the units and the mask of every action, [N], for one account in frame `f`.

    `may_open` and `may_close` are the state of trading. Holding is always allowed; closing when
    every leg of the position can be traded; opening when no position is open on this underlying,
    as far as the risk fraction, the greek limits, the buying power and the frame allow.
    """
    units[:] = 0
    mask[:] = False
    mask[HOLD] = True
    if frames.now_ns[f] >= frames.close_ns[f] or not may_close:
        return
    if position.units > 0:
        units[CLOSE] = _size_closing(board, frames, f, rules, position)
        mask[CLOSE] = units[CLOSE] > 0
        return
    if not may_open or funds.open_positions >= rules.max_positions or not funds.equity > 0.0:
        return
    _size_openings(
        frames.most_units[f], frames.unit_cost[f], frames.unit_need[f],
        funds.equity, funds.cash - funds.reserved, units, mask,
    )  # fmt: skip


@njit(cache=True, error_model="numpy")
def _size_openings(
    most: F64, cost: F64, need: F64, equity: float, buying_power: float, units: Units, mask: Mask
) -> None:
    for a in range(CLOSE + 1, ACTION_COUNT):
        by_equity = np.floor(equity / need[a])
        by_cash = np.floor(buying_power / cost[a])
        n = min(most[a], by_equity, by_cash)
        units[a] = np.int32(max(n, 0.0))
        mask[a] = n >= 1.0
