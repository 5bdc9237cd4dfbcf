"""What a session's close, the night and the next open do to B accounts.

The batch twin of `Clearing` for standard contracts: early assignment, expiry, delivery, dividends
and the bases of the limits on losses, by the broker's own rules (`trading.execution.endings`) in
the broker's own order. `tests/envs/test_nights.py` ties the two to the last bit, and
`tests/envs/test_shared_accounts.py` does for accounts of several rows: each event is booked for one
row of every account at a time, and what they share is brought up to date after it.
"""

from datetime import UTC, datetime

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.accounts import Accounts, in_order_of_opening, share
from trading.envs.catalogue import MAX_LEGS
from trading.envs.market_snapshots import MarketSnapshots
from trading.envs.quote_arrays import QuoteArrays
from trading.envs.rules import NO_LEG, STOCK_LEG, TradingRules
from trading.execution.endings import (
    cash_at_end,
    contracts_delivered,
    dividend_is_worth_it,
    exercised,
)
from trading.execution.margin.formulas import payoff_margin
from trading.execution.margin.maintenance import cents_up, is_material
from trading.execution.margin.reg_t import reg_t_margin
from trading.execution.money import round_usd
from trading.execution.orders import Leg
from trading.market.chain import F64, I64
from trading.market.contracts import OptionContract, Right

_UNDERLYING = "A"
"""Any ticker: who asks for a margin names contracts, which here have none."""


@njit(cache=True, error_model="numpy")
def _mid(bid: float, ask: float, quote_ns: int) -> float:
    """Return the mid of a quote with both sides, as `trading.execution.assignment` reads it."""
    if not 0.0 < bid <= ask < np.inf or quote_ns <= 0:
        return np.nan
    return 0.5 * (bid + ask)


@njit(cache=True, error_model="numpy")
def _time_value(quotes: QuoteArrays, f: int, i: int, spot: float) -> float:
    """Return what call `i` is worth above its intrinsic value; NaN where nothing says it."""
    listed, q = quotes.contract_offset[f] + i, quotes.quote_offset[f] + i
    strike, put = quotes.strike[listed], listed + 1
    if (
        put < len(quotes.strike)
        and quotes.right[put] < 0
        and quotes.strike[put] == strike
        and quotes.expiry_ns[put] == quotes.expiry_ns[listed]
    ):
        value = _mid(quotes.bid[q + 1], quotes.ask[q + 1], quotes.quote_ns[q + 1])
        if not np.isnan(value):
            return float(value)
    value = _mid(quotes.bid[q], quotes.ask[q], quotes.quote_ns[q])
    return float(value - max(0.0, spot - strike))


@njit(cache=True, error_model="numpy")
def _greatest_common_divisor(one: int, other: int) -> int:
    while other:
        one, other = other, one % other
    return one


@njit(cache=True, error_model="numpy")
def _pay(
    quotes: QuoteArrays,
    f: int,
    spot: float,
    multiplier: float,
    in_cash: bool,
    early: bool,
    ends: NDArray[np.bool_],
    accounts: Accounts,
    b: int,
) -> tuple[int, bool]:
    """Book the end of the marked legs; returns the stock held then, in lots, and whether it moved.

    Sold ones first, see `trading.execution.settlement`; `early` ones are assigned whole.
    """
    holdings, balances, listed = accounts.holdings, accounts.balances, quotes.contract_offset[f]
    legs, ratio, units = holdings.legs, holdings.ratio, holdings.units[b]
    stock, moved = 0, False
    for leg in range(MAX_LEGS):
        if legs[b, leg] == STOCK_LEG:
            stock = ratio[b, leg] * units
    for sold in (True, False):
        for leg in range(MAX_LEGS):
            quantity = ratio[b, leg] * units
            if not ends[leg] or (quantity < 0) != sold:
                continue
            i = listed + legs[b, leg]
            right, strike = np.int64(quotes.right[i]), quotes.strike[i]
            price, contracts = exercised(right, strike, spot), quantity
            if not early:
                contracts = contracts_delivered(
                    quantity, right, price, stock * multiplier, multiplier, in_cash
                )
            aggregate = multiplier * strike
            cash = cash_at_end(quantity, contracts, right, price, multiplier, aggregate)
            balances.cash[b] = round_usd(balances.cash[b] + cash)
            accounts.net_cash[b] = round_usd(accounts.net_cash[b] + cash)
            accounts.exit_cash[b] = round_usd(accounts.exit_cash[b] + cash)
            stock += contracts * right
            moved = moved or contracts != 0
    return stock, moved


@njit(cache=True, error_model="numpy")
def _keep(ends: NDArray[np.bool_], stock: int, accounts: Accounts, b: int) -> int:
    """Write what is left as units of the same legs, see `as_units`; returns how many legs."""
    holdings = accounts.holdings
    legs, ratio = holdings.legs, holdings.ratio
    left, count = np.full(MAX_LEGS, NO_LEG), np.zeros(MAX_LEGS, np.int64)
    kept = accounts.kept
    n, units, is_new = 0, 0, stock != 0
    for leg in range(MAX_LEGS):
        i = legs[b, leg]
        if i == STOCK_LEG:
            is_new = False
        if i == NO_LEG or ends[leg] or (i == STOCK_LEG and stock == 0):
            continue
        left[n] = i
        kept[b, n] = kept[b, leg]
        count[n] = stock if i == STOCK_LEG else ratio[b, leg] * holdings.units[b]
        n += 1
    if is_new:
        left[n], count[n] = STOCK_LEG, stock
        n += 1
    for leg in range(n):
        units = _greatest_common_divisor(units, abs(count[leg]))
    for leg in range(MAX_LEGS):
        legs[b, leg] = left[leg]
        ratio[b, leg] = count[leg] // units if leg < n else 0
    holdings.units[b] = units
    return n


@njit(cache=True, error_model="numpy")
def _end_legs(
    quotes: QuoteArrays,
    f: int,
    spot: float,
    multiplier: float,
    in_cash: bool,
    early: bool,
    ends: NDArray[np.bool_],
    accounts: Accounts,
    b: int,
) -> None:
    """End the marked legs of account `b` at a closing price, and go on with what is left."""
    holdings, listed = accounts.holdings, quotes.contract_offset[f]
    before = accounts.margin_per_unit[b] * holdings.units[b]
    stock, moved = _pay(quotes, f, spot, multiplier, in_cash, early, ends, accounts, b)
    n = _keep(ends, stock, accounts, b)
    net_cash = accounts.entry_cash[b] + accounts.exit_cash[b] - accounts.fees[b]
    holdings.net_cash[b] = round_usd(net_cash)
    holdings.known[b] = 0.0
    right, strike, options = np.zeros(MAX_LEGS, np.int8), np.zeros(MAX_LEGS), False
    for leg in range(n):
        i = holdings.legs[b, leg]
        if i != STOCK_LEG:
            right[leg], strike[leg] = quotes.right[listed + i], quotes.strike[listed + i]
            options = True
    accounts.delivered[b] = stock != 0 and (accounts.delivered[b] or moved or not options)
    accounts.margin_per_unit[b] = 0.0
    if n == 0:
        accounts.margin_moves[b] = False
        return
    margin = payoff_margin(right, strike, holdings.ratio[b], n, multiplier)
    accounts.margin_moves[b] = accounts.margin_moves[b] or not np.isfinite(margin)
    accounts.margin_per_unit[b] = before / holdings.units[b] if accounts.margin_moves[b] else margin


@njit(cache=True, error_model="numpy")
def _assign_early(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    accounts: Accounts,
    which: I64,
    dividend: F64,
    in_cash: NDArray[np.bool_],
    changed: NDArray[np.bool_],
) -> None:
    """Assign sold calls that are worth less than the dividend; sets whose legs ended."""
    holdings = accounts.holdings
    legs, ratio, held = holdings.legs, holdings.ratio, holdings.units
    ends = np.zeros(MAX_LEGS, np.bool_)
    for k in range(len(which)):
        b = which[k]
        f = snapshot_of[b]
        spot, now_ns, listed = snapshots.spot[f], snapshots.now_ns[f], quotes.contract_offset[f]
        if held[b] == 0:
            legs[b] = NO_LEG
        if held[b] > 0 and dividend[k] > 0.0 and not in_cash[k]:
            for leg in range(MAX_LEGS):
                i = legs[b, leg]
                ends[leg] = False
                if i >= 0 and ratio[b, leg] < 0 and quotes.right[listed + i] > 0:
                    ends[leg] = quotes.expiry_ns[listed + i] > now_ns and dividend_is_worth_it(
                        spot,
                        quotes.strike[listed + i],
                        dividend[k],
                        _time_value(quotes, f, i, spot),
                    )
            if ends.any():
                changed[k] = True
                _end_legs(quotes, f, spot, rules.multiplier, False, True, ends, accounts, b)


@njit(cache=True, error_model="numpy")
def _set_bases(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    accounts: Accounts,
    which: I64,
) -> None:
    """Let the equity of whole accounts be the base of the daily loss, and perhaps the peak.

    What expires counts at what it is paid. A halt for the daily loss ends.
    """
    holdings, balances = accounts.holdings, accounts.balances
    legs, ratio, held = holdings.legs, holdings.ratio, holdings.units
    order = np.zeros(rules.underlyings_per_account, np.int64)
    for at in range(0, len(which), len(order)):
        first, value = which[at], 0.0
        for n in range(in_order_of_opening(accounts, first, order)):
            b = first + order[n]
            f = snapshot_of[b]
            spot, now_ns, listed = snapshots.spot[f], snapshots.now_ns[f], quotes.contract_offset[f]
            for leg in range(MAX_LEGS):
                i = legs[b, leg]
                if i == NO_LEG:
                    continue
                price = spot
                if i != STOCK_LEG:
                    price = quotes.mark[quotes.quote_offset[f] + i]
                    if quotes.expiry_ns[listed + i] <= now_ns:
                        right = np.int64(quotes.right[listed + i])
                        price = exercised(right, quotes.strike[listed + i], spot)
                value += ratio[b, leg] * held[b] * rules.multiplier * price
        equity = balances.cash[first] + value
        for b in range(first, first + len(order)):
            accounts.day_start[b] = equity
            accounts.peak[b] = max(accounts.peak[b], equity)
            accounts.halted[b] = False


@njit(cache=True, error_model="numpy")
def _settle(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    accounts: Accounts,
    which: I64,
    in_cash: NDArray[np.bool_],
    changed: NDArray[np.bool_],
) -> None:
    """Pay, deliver or assign what has expired; sets whose legs ended."""
    holdings, balances = accounts.holdings, accounts.balances
    ends = np.zeros(MAX_LEGS, np.bool_)
    for k in range(len(which)):
        b = which[k]
        f = snapshot_of[b]
        spot, now_ns, listed = snapshots.spot[f], snapshots.now_ns[f], quotes.contract_offset[f]
        for leg in range(MAX_LEGS):
            i = holdings.legs[b, leg]
            ends[leg] = holdings.units[b] > 0 and i >= 0 and quotes.expiry_ns[listed + i] <= now_ns
        if ends.any():
            changed[k] = True
            _end_legs(quotes, f, spot, rules.multiplier, in_cash[k], False, ends, accounts, b)
        balances.margin_used[b] = accounts.margin_per_unit[b] * holdings.units[b]
        balances.open_positions[b] = 1 if holdings.units[b] > 0 else 0


def close_accounts(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    accounts: Accounts,
    which: I64,
    dividend: F64,
    in_cash: NDArray[np.bool_],
) -> None:
    """End a session for accounts `which`, marked in their snapshots, those of the close.

    Sold calls that are worth less than tomorrow's dividend are assigned, what has expired is paid,
    delivered or assigned, and the equity then becomes the base of the daily loss and perhaps the
    peak. A halt for the daily loss ends. `which` has all rows of each account.

    Parameters
    ----------
    dividend : [len(which)], USD a share that goes ex at the next open
    in_cash : [len(which)], whether the options settle in cash
    """
    rows, view = rules.underlyings_per_account, (quotes, snapshots, snapshot_of, rules)
    changed = np.zeros(len(which), np.bool_)
    for row in range(rows):
        each = slice(row, None, rows)
        of_row = (which[each], dividend[each], in_cash[each], changed[each])
        _assign_early(*view, accounts, *of_row)
        share(accounts, which[each], rows)
    _set_bases(*view, accounts, which)
    for row in range(rows):
        each = slice(row, None, rows)
        _settle(*view, accounts, which[each], in_cash[each], changed[each])
        share(accounts, which[each], rows)
    for b in which[changed & accounts.margin_moves[which]].tolist():
        now = _maintenance_margin(quotes, snapshots, int(snapshot_of[b]), rules, accounts, b)
        if np.isfinite(now):
            accounts.margin_per_unit[b] = now
            accounts.balances.margin_used[b] = now * accounts.holdings.units[b]
    share(accounts, which[::rows], rows)


def pay_dividends(
    accounts: Accounts, which: I64, dividend: F64, multiplier: float, rows: int = 1
) -> None:
    """Pay stock that is held into an ex-date, or let short stock owe it; as `Clearing` does.

    `dividend` [len(which)], USD a share, 0 where there is none; `rows` are those of an account.
    """
    holdings = accounts.holdings
    for k in np.flatnonzero(dividend):
        b, amount = which[k], round(float(dividend[k]), 6)
        lots = int((holdings.ratio[b] * (holdings.legs[b] == STOCK_LEG)).sum() * holdings.units[b])
        if not lots or not amount:
            continue
        cash = round_usd(lots * multiplier * amount)
        accounts.balances.cash[b] = round_usd(accounts.balances.cash[b] + cash)
        accounts.net_cash[b] = round_usd(accounts.net_cash[b] + cash)
        accounts.exit_cash[b] = round_usd(accounts.exit_cash[b] + cash)
        holdings.net_cash[b] = round_usd(
            accounts.entry_cash[b] + accounts.exit_cash[b] - accounts.fees[b]
        )
        share(accounts, which[k : k + 1], rows)


def watch_margin(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    accounts: Accounts,
    which: I64,
) -> None:
    """Let what strategies without a greatest loss hold back follow the market.

    As `trading.execution.margin.maintenance` does; a margin call needs nothing more, since nothing
    can be opened where buying power is below zero.
    """
    balances, holdings = accounts.balances, accounts.holdings
    rows, moving = rules.underlyings_per_account, which[accounts.margin_moves[which]]
    # Of an account in the order of its books.
    moving = moving[np.lexsort((holdings.opened_ns[moving], moving // rows))]
    for b in moving.tolist():
        units = int(holdings.units[b])
        if not units:
            accounts.margin_moves[b] = False
            continue
        now = _maintenance_margin(quotes, snapshots, int(snapshot_of[b]), rules, accounts, b)
        power = float(round_usd(balances.cash[b] - balances.margin_used[b]))
        if np.isfinite(now) and is_material(float(accounts.margin_per_unit[b]), now, units, power):
            accounts.margin_per_unit[b] = now
            held = accounts.orders.held[b] * accounts.orders.units[b]
            balances.margin_used[b] = now * units + held
            share(accounts, np.array([b]), rows)


def _maintenance_margin(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    f: int,
    rules: TradingRules,
    accounts: Accounts,
    b: int,
) -> float:
    """Return what one unit of the strategy of account `b` holds back in snapshot `f`, USD."""
    legs, marks = [], {}
    for i, ratio in zip(accounts.holdings.legs[b], accounts.holdings.ratio[b], strict=True):
        if i == NO_LEG:
            break
        symbol = _UNDERLYING
        if i != STOCK_LEG:
            listed, q = int(quotes.contract_offset[f] + i), int(quotes.quote_offset[f] + i)
            expiry = datetime.fromtimestamp(int(quotes.expiry_ns[listed]) // 10**9, UTC).date()
            right = Right(int(quotes.right[listed]))
            strike_milli = round(1000 * float(quotes.strike[listed]))
            symbol = OptionContract(_UNDERLYING, expiry, right, strike_milli).symbol
            marks[symbol] = float(quotes.mark[q])
        legs.append(Leg(symbol, int(ratio)))
    spot = float(snapshots.spot[f])
    return cents_up(reg_t_margin(tuple(legs), rules.multiplier, spot, marks))
