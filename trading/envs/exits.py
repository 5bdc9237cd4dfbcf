"""What accounts would be worth if everything they hold were closed at the touch, fees paid."""

import numpy as np
from numba import njit

from trading.envs.accounts import Accounts
from trading.envs.board import Board
from trading.envs.catalogue import MAX_LEGS
from trading.envs.frames import Frames
from trading.envs.rules import NO_LEG, STOCK, TradingRules, stock_touch
from trading.execution.endings import exercised
from trading.execution.fees import FeeSchedule
from trading.execution.matching import fill_cash, touch_price
from trading.market.chain import F64, I64


@njit(cache=True, error_model="numpy")
def closed_equity(
    board: Board,
    frames: Frames,
    frame_of: I64,
    rules: TradingRules,
    fees: FeeSchedule,
    accounts: Accounts,
    which: I64,
    out: F64,
) -> None:
    """Write to `out[b]` the equity of accounts `which` with everything closed in their frames, USD.

    What expires with the bar is paid what it is worth, without a fee. All else trades at the touch,
    whatever size is displayed: what nobody bids for is sold for nothing, and what nobody offers is
    bought back at its mark.
    """
    holdings, purses = accounts.holdings, accounts.purses
    right, price = np.zeros(MAX_LEGS, np.int8), np.zeros(MAX_LEGS)
    lots = np.zeros(MAX_LEGS, np.int64)
    for b in which:
        f, units, n, paid = frame_of[b], holdings.units[b], 0, 0.0
        spot = frames.spot[f]
        for leg in range(MAX_LEGS):
            i = holdings.legs[b, leg]
            if i == NO_LEG or units == 0:
                break
            ratio = holdings.ratio[b, leg]
            if i == STOCK:
                bid, ask = stock_touch(spot, rules.stock_half_spread)
                right[n] = 0
            else:
                q, listed = board.quoted_at[f] + i, board.listed_at[f] + i
                right[n] = board.right[listed]
                if board.expiry_ns[listed] <= frames.now_ns[f]:
                    worth = exercised(np.int64(right[n]), board.strike[listed], spot)
                    paid += ratio * units * rules.multiplier * worth
                    continue
                bid = max(board.bid[q], 0.0)
                ask = board.ask[q] if board.ask[q] > 0.0 else board.mark[q]
            lots[n] = -ratio
            price[n] = touch_price(bid, ask, ratio < 0, rules.slippage)
            n += 1
        out[b] = purses.cash[b] + paid
        if n > 0:
            premium, fee = fill_cash(right, lots, price, n, units, rules.multiplier, fees)
            out[b] += premium - fee
