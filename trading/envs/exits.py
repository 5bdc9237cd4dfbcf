"""What accounts would be worth if everything they hold were closed at the touch, fees paid."""

import numpy as np
from numba import njit

from trading.envs.accounts import Accounts
from trading.envs.catalogue import MAX_LEGS
from trading.envs.market_snapshots import MarketSnapshots
from trading.envs.quote_arrays import QuoteArrays
from trading.envs.rules import NO_LEG, STOCK_LEG, TradingRules, stock_touch
from trading.execution.endings import exercised
from trading.execution.fees import FeeSchedule
from trading.execution.matching import fill_cash, touch_price
from trading.market.chain import F64, I64


@njit(cache=True, error_model="numpy")
def closed_equity(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    fees: FeeSchedule,
    accounts: Accounts,
    which: I64,
    out: F64,
) -> None:
    """Write to `out[b]` the equity in USD of accounts `which` with everything closed.

    What expires with the bar is paid what it is worth, without a fee. All else trades at the touch,
    whatever size is displayed: what nobody bids for is sold for nothing, and what nobody offers is
    bought back at its mark. `which` has all rows of each account.
    """
    holdings, balances = accounts.holdings, accounts.balances
    right, price = np.zeros(MAX_LEGS, np.int8), np.zeros(MAX_LEGS)
    lots = np.zeros(MAX_LEGS, np.int64)
    rows = rules.underlyings_per_account
    for at in range(len(which)):
        b, first = which[at], which[at - at % rows]
        f, units, n, paid = snapshot_of[b], holdings.units[b], 0, 0.0
        spot = snapshots.spot[f]
        for leg in range(MAX_LEGS):
            i = holdings.legs[b, leg]
            if i == NO_LEG or units == 0:
                break
            ratio = holdings.ratio[b, leg]
            if i == STOCK_LEG:
                bid, ask = stock_touch(spot, rules.stock_half_spread)
                right[n] = 0
            else:
                q, listed = quotes.quote_offset[f] + i, quotes.contract_offset[f] + i
                right[n] = quotes.right[listed]
                if quotes.expiry_ns[listed] <= snapshots.now_ns[f]:
                    worth = exercised(np.int64(right[n]), quotes.strike[listed], spot)
                    paid += ratio * units * rules.multiplier * worth
                    continue
                bid = max(quotes.bid[q], 0.0)
                ask = quotes.ask[q] if quotes.ask[q] > 0.0 else quotes.mark[q]
            lots[n] = -ratio
            price[n] = touch_price(bid, ask, ratio < 0, rules.slippage)
            n += 1
        out[first] = (balances.cash[b] if b == first else out[first]) + paid
        if n > 0:
            premium, fee = fill_cash(right, lots, price, n, units, rules.multiplier, fees)
            out[first] += premium - fee
        for row in range(first + 1, b + 1):
            out[row] = out[first]
