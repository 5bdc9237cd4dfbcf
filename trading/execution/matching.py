"""Fills of multi-leg orders against displayed quotes.

One kernel for live trading and training: every leg crosses the spread to the opposite touch, all
legs of a unit trade together or none does, and no more units trade than every touch displays.

A leg is an option (`right` +1 call, -1 put) or stock (`right` 0). Stock counts in round lots of
`multiplier` shares, its displayed sizes too, so that quantity x multiplier x price is the cash of
either.
"""

from enum import IntEnum

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.execution.fees import FeeSchedule, order_fees
from trading.execution.money import usd
from trading.market.chain import is_tradable

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I8 = NDArray[np.int8]

MINIMUM_PRICE = 0.01
"""USD a share: the smallest tick of a listed option; slippage takes no sale below it."""


class MatchCode(IntEnum):
    """Why an order can or cannot trade now."""

    OK = 0
    NOT_A_NUMBER = 1
    ONE_SIDED = 2
    CROSSED = 3
    STALE = 4
    NO_SIZE = 5
    INVALID_ORDER = 6


_OK = int(MatchCode.OK)
_NOT_A_NUMBER = int(MatchCode.NOT_A_NUMBER)
_ONE_SIDED = int(MatchCode.ONE_SIDED)
_CROSSED = int(MatchCode.CROSSED)
_STALE = int(MatchCode.STALE)
_NO_SIZE = int(MatchCode.NO_SIZE)
_INVALID_ORDER = int(MatchCode.INVALID_ORDER)


@njit(cache=True)
def check_quote(bid: float, ask: float, quote_ns: int, now_ns: int, max_quote_age_ns: int) -> int:
    """`MatchCode` of one quote: OK when `is_tradable` says so, else why it does not."""
    if is_tradable(bid, ask, quote_ns, now_ns, max_quote_age_ns):
        return _OK
    code = _STALE
    if not (np.isfinite(bid) and np.isfinite(ask)):
        code = _NOT_A_NUMBER
    elif bid <= 0.0 or ask <= 0.0:
        code = _ONE_SIDED
    elif bid >= ask:
        code = _CROSSED
    return code


@njit(cache=True)
def touch_price(bid: float, ask: float, buys: bool, slippage: float) -> float:
    """Price that crosses the spread, in USD a share: ask + slippage, or bid - slippage."""
    if buys:
        return ask + slippage
    return max(bid - slippage, min(bid, MINIMUM_PRICE))


@njit(cache=True)
def match_legs(
    ratio: I64,
    bid: F64,
    ask: F64,
    bid_size: F64,
    ask_size: F64,
    quote_ns: I64,
    n_legs: int,
    now_ns: int,
    units: int,
    max_quote_age_ns: int,
    slippage_per_leg: float,
    leg_price_out: F64,
) -> tuple[int, int]:
    """Price each leg and count the units that can trade now.

    A purchase pays ask + slippage; a sale receives bid - slippage, at least `MINIMUM_PRICE` (or
    the bid itself where that is lower). Nothing trades on a quote that is not finite, has an
    absent side (price <= 0), is locked or crossed (bid >= ask), has no time (<= 0), is older than
    `max_quote_age_ns`, or displays less than one unit on the side that is hit.

    Parameters
    ----------
    ratio, bid, ask, bid_size, ask_size, quote_ns : arrays [L], L >= n_legs
        Signed contracts a unit (+ buys, - sells); USD a share; contracts; UTC nanoseconds.
    units : int
        Units wanted, >= 1.
    slippage_per_leg : float
        USD a share beyond the touch, >= 0.
    leg_price_out : f64[L]
        Receives the price of each leg in USD a share; meaningful only with `MatchCode.OK`.

    Returns
    -------
    (code, fillable_units) : (int, int)
        A `MatchCode`, and the units that trade now: 1..units with OK, else 0.
    """
    if n_legs < 1 or units < 1 or slippage_per_leg < 0.0:
        return _INVALID_ORDER, 0
    if not np.isfinite(slippage_per_leg):
        return _NOT_A_NUMBER, 0
    fillable = units
    for leg in range(n_legs):
        contracts = abs(ratio[leg])
        if contracts == 0:
            return _INVALID_ORDER, 0
        code = check_quote(bid[leg], ask[leg], quote_ns[leg], now_ns, max_quote_age_ns)
        if code != _OK:
            return code, 0
        buys = ratio[leg] > 0
        size = ask_size[leg] if buys else bid_size[leg]
        if not (np.isfinite(size) and size >= contracts):
            return _NO_SIZE, 0
        fillable = min(fillable, int(min(size // contracts, float(units))))
        leg_price_out[leg] = touch_price(bid[leg], ask[leg], buys, slippage_per_leg)
    return _OK, fillable


@njit(cache=True)
def net_price(ratio: I64, leg_price: F64, n_legs: int) -> float:
    """Net price of one unit in USD a share: positive is a debit, negative a credit."""
    net = 0.0
    for leg in range(n_legs):
        net += ratio[leg] * leg_price[leg]
    return net


@njit(cache=True)
def gross_price(ratio: I64, leg_price: F64, n_legs: int) -> float:
    """Premium that changes hands for one unit, all legs added up, in USD a share."""
    gross = 0.0
    for leg in range(n_legs):
        gross += abs(ratio[leg]) * leg_price[leg]
    return gross


@njit(cache=True)
def fill_cash(
    right: I8,
    ratio: I64,
    leg_price: F64,
    n_legs: int,
    units: int,
    multiplier: float,
    schedule: FeeSchedule,
) -> tuple[float, float]:
    """What `units` of an order change in cash: `(premium_usd, fees_usd)`.

    `premium_usd` is before fees, + received, and always computed in this order of operations, so
    that a fill in training books the same bits as one in the account. NaN prices give NaN.

    Parameters
    ----------
    right, ratio, leg_price : i8[L], i64[L], f64[L], L >= n_legs
        +1 call, -1 put, 0 stock; signed contracts or round lots a unit; USD a share.
    multiplier : float
        Shares of a contract and of a round lot.
    """
    bought = 0
    sold = 0
    shares_bought = 0.0
    shares_sold = 0.0
    sale = 0.0
    stock_sale = 0.0
    for leg in range(n_legs):
        quantity = ratio[leg] * units
        if right[leg] != 0:
            bought += max(quantity, 0)
            sold += max(-quantity, 0)
            sale += max(-quantity, 0) * multiplier * leg_price[leg]
        else:
            shares_bought += max(quantity, 0) * multiplier
            shares_sold += max(-quantity, 0) * multiplier
            stock_sale += max(-quantity, 0) * multiplier * leg_price[leg]
    # Adding zero turns -0.0 into 0.0.
    premium = usd(-net_price(ratio, leg_price, n_legs) * multiplier * units) + 0.0
    fees = order_fees(schedule, bought, sold, sale, shares_bought, shares_sold, stock_sale)
    return float(premium), float(fees)
