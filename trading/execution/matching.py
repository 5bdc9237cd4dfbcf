"""Fills of multi-leg orders against displayed quotes.

One kernel for live trading and training: every leg crosses the spread, to the opposite touch or the
share of it that `FillStyle` says, all legs of a unit trade together or none does, and no more units
trade than every touch displays. An order that works at a limit, between mid and touch, trades at
that limit once the touches of all its legs together have come to it.

A leg is an option (`right` +1 call, -1 put) or stock (`right` 0). Stock counts in round lots of
`multiplier` shares, its displayed sizes too, so that quantity x multiplier x price is the cash of
either.
"""

from enum import IntEnum

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.execution.fees import FeeSchedule, order_fees
from trading.execution.money import round_usd
from trading.market.chain import is_tradable
from trading.market.quotes import TickClass, tick_cents

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I8 = NDArray[np.int8]

MINIMUM_PRICE = 0.01
"""USD a share: the smallest tick of a listed option; slippage takes no sale below it."""


class FillStyle(IntEnum):
    """How much of the spread a fill pays."""

    TOUCH = 0
    """All of it: the opposite touch."""
    SHARE_OF_SPREAD = 1
    """Less the more legs an order has, see `SHARES`, in the ticks of the contract's class."""
    WORKING = 2
    """A limit at mid that steps to the touch, see `working_share`; market orders pay the touch."""


LIMIT_TOLERANCE = 1e-9
"""USD a share; in binary, 1.10 - 1.00 lies above a limit of 0.10."""

SHARES = np.array([0.75, 0.66, 0.56, 0.53])
"""Share of the quoted spread that an order of 1, 2, 3 and of 4 or more legs pays: a purchase trades
at bid + share x (ask - bid), a sale at ask - share x (ask - bid). As ORATS publishes them for its
backtests, https://docs.orats.io/backtest-api-guide/backtester-methodology.html#slippage."""


class MatchCode(IntEnum):
    """Why an order can or cannot trade now."""

    OK = 0
    NOT_A_NUMBER = 1
    ONE_SIDED = 2
    CROSSED = 3
    STALE = 4
    NO_SIZE = 5
    INVALID_ORDER = 6


_SHARE_OF_SPREAD = int(FillStyle.SHARE_OF_SPREAD)
_TICK_CLASSES = (int(TickClass.STANDARD), int(TickClass.PENNY_PROGRAM))
_PENNY = int(TickClass.PENNY)
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
def shown_class(bid: float, ask: float) -> int:
    """Return the coarsest `TickClass` whose ticks both sides of a quote keep to.

    A feed does not tell the class of a contract; its quotes keep to its ticks. Where a quote would
    do in a coarser class by chance, the coarser one is assumed, which fills worse.
    """
    for tick_class in _TICK_CLASSES:
        keeps = True
        for price in (bid, ask):
            cents = np.rint(price * 100.0)
            keeps &= abs(price * 100.0 - cents) < 1e-6
            keeps &= int(cents) % tick_cents(price, tick_class) == 0
        if keeps:
            return tick_class
    return _PENNY


@njit(cache=True)
def working_share(step: int, steps: int) -> float:
    """Share of the spread that the limit of a working order pays: a half, the mid, at step 0.

    It grows by equal parts; at `steps` it is all of the spread, the touch.
    """
    return 0.5 + 0.5 * min(step / steps, 1.0)


@njit(cache=True)
def price_at_share(
    bid: float,
    ask: float,
    buys: bool,
    slippage: float,
    share: float,
    n_legs: int,
    is_stock: bool,
) -> float:
    """Price of a leg that pays a share of its spread in an order of `n_legs`, in USD a share.

    An order of one option trades in the ticks of its class. Legs of a complex order, and stock,
    trade in cents, so that its net does. Prices are rounded against the order, never past the
    touch; slippage is paid beyond.
    """
    kept = (1.0 - share) * (ask - bid)
    price = ask - kept if buys else bid + kept
    tick = 1
    if n_legs == 1 and not is_stock:
        tick = tick_cents(price, shown_class(bid, ask))
    ticks = price * 100.0 / tick
    if buys:
        return float(min(np.ceil(ticks - 1e-6) * tick / 100.0, ask) + slippage)
    floor = max(np.floor(ticks + 1e-6) * tick / 100.0, bid)
    return float(max(floor - slippage, min(bid, MINIMUM_PRICE)))


@njit(cache=True)
def share_price(
    bid: float, ask: float, buys: bool, slippage: float, n_legs: int, is_stock: bool
) -> float:
    """`price_at_share` of what an order of `n_legs` pays by `SHARES`, in USD a share."""
    share = SHARES[min(n_legs, len(SHARES)) - 1]
    return float(price_at_share(bid, ask, buys, slippage, share, n_legs, is_stock))


@njit(cache=True)
def fill_price(
    bid: float, ask: float, buys: bool, slippage: float, style: int, n_legs: int, is_stock: bool
) -> float:
    """Price of one leg of an order by a `FillStyle`, in USD a share."""
    if style == _SHARE_OF_SPREAD:
        return float(share_price(bid, ask, buys, slippage, n_legs, is_stock))
    return float(touch_price(bid, ask, buys, slippage))


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
    style: int = 0,
    is_stock: bool = False,
) -> tuple[int, int]:
    """Price each leg and count the units that can trade now.

    At the touch a purchase pays ask + slippage; a sale receives bid - slippage, at least
    `MINIMUM_PRICE` (or the bid itself where that is lower); see `share_price` of the other style.
    Nothing trades on a quote that is not finite, has an
    absent side (price <= 0), is locked or crossed (bid >= ask), has no time (<= 0), is older than
    `max_quote_age_ns`, or displays less than one unit on the side that is hit.

    Parameters
    ----------
    ratio, bid, ask, bid_size, ask_size, quote_ns : arrays [L], L >= n_legs
        Signed contracts a unit (+ buys, - sells); USD a share; contracts; UTC nanoseconds.
    units : int
        Units wanted, >= 1.
    slippage_per_leg : float
        USD a share beyond the style's price, >= 0.
    leg_price_out : f64[L]
        Receives the price of each leg in USD a share; meaningful only with `MatchCode.OK`.
    style : int
        `FillStyle`.
    is_stock : bool
        Whether the order is of stock alone, which has no class of ticks.

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
        leg_price_out[leg] = fill_price(
            bid[leg], ask[leg], buys, slippage_per_leg, style, n_legs, is_stock
        )
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
    """Return what `units` of an order change in cash: `(premium_usd, fees_usd)`.

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
    premium = round_usd(-net_price(ratio, leg_price, n_legs) * multiplier * units) + 0.0
    fees = order_fees(schedule, bought, sold, sale, shares_bought, shares_sold, stock_sale)
    return float(premium), float(fees)
