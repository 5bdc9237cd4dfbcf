"""Quotes that the simulated market makers show."""

from enum import IntEnum
from math import exp, inf, pow, sqrt
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.market.draws import bits_at, draw_key, exponential_of, normal_of, uniform_of
from trading.market.fair_value import fair_values
from trading.market.model import MarketModel

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I8 = NDArray[np.int8]
U64 = NDArray[np.uint64]

_MILLISECOND_NS = 1_000_000
_COARSE_FROM = 3.0
_MAX_SPREAD = 5.0
"""USD per share; exchanges bound the width of market makers' quotes by it in usual times."""


class TickClass(IntEnum):
    """How finely, and so how tightly, a class of options is quoted."""

    PENNY = 0
    """A cent at every price: SPY, QQQ and IWM."""
    PENNY_PROGRAM = 1
    """A cent below 3 dollars, five above."""
    STANDARD = 2
    """Five cents below 3 dollars, ten above."""


class ChainQuotes(NamedTuple):
    """Contracts of one chain and their quotes, [N] each."""

    strike: F64
    """USD a share."""
    expiry_ns: I64
    right: I8
    bid: F64
    """USD a share; an absent side is 0."""
    ask: F64
    bid_size: F64
    ask_size: F64
    quote_ns: I64
    """0 before the first quote."""


_CLASS_PENNY = int(TickClass.PENNY)
_CLASS_PROGRAM = int(TickClass.PENNY_PROGRAM)


@njit(cache=True, error_model="numpy")
def _ticks_of(tick_class: int) -> tuple[float, float]:
    """Smallest price increments in cents below and from 3 dollars."""
    if tick_class == _CLASS_PENNY:
        return 1.0, 1.0
    return (1.0, 5.0) if tick_class == _CLASS_PROGRAM else (5.0, 10.0)


@njit(cache=True, error_model="numpy")
def tick_cents(price: float, tick_class: int) -> int:
    """Smallest price increment in cents at `price`, USD per share."""
    fine, coarse = _ticks_of(tick_class)
    return int(fine if price < _COARSE_FROM else coarse)


@njit(cache=True, error_model="numpy")
def _spread_shape(tick_class: int) -> tuple[float, float, float, float]:
    """Weights of price ** 0.5, price ** 0.75 and intrinsic value, and where the last one levels."""
    if tick_class == _CLASS_PENNY:
        return 0.008, 0.0, 0.04, 60.0
    return (0.0, 0.063, 0.025, 60.0) if tick_class == _CLASS_PROGRAM else (0.28, 0.0, 0.1, 15.0)


@njit(cache=True, error_model="numpy")
def median_spread(price: float, intrinsic: float, tick_class: int) -> float:
    """Median quoted spread, USD per share, before rounding to ticks.

    Powers of the price, whose exponents are those that square roots reach, plus a share of the
    intrinsic value that levels off. Fitted by eye to medians of real sessions: penny classes to
    SPY, penny-program classes to TWX, standard ones to GOOG.
    """
    root_weight, steep_weight, inner_weight, levelling = _spread_shape(tick_class)
    root = sqrt(price)
    inner = inner_weight * intrinsic * levelling / (levelling + intrinsic)
    return float(root * (root_weight + steep_weight * sqrt(root)) + inner)


@njit(cache=True, error_model="numpy")
def _exp(x: float) -> float:
    """Exponential to within 1e-5 of itself for |x| up to 4, in a few multiplications."""
    u = x * 0.0625
    y = 1.0 + u * (1.0 + u * (0.5 + u * (1.0 / 6.0 + u * (1.0 / 24.0 + u * (1.0 / 120.0)))))
    y *= y
    y *= y
    y *= y
    return y * y


# The loops below write at most two columns and read a few: beyond eight pairs of arrays that
# might overlap the compiler gives up on vector instructions.


@njit(cache=True, error_model="numpy")
def _draw(key: np.uint64, price_bits: U64, size_bits: U64) -> None:
    """Random bits of each contract: those that shape its prices, and those of sides and sizes."""
    for i in range(len(price_bits)):
        price_bits[i] = bits_at(key, 2 * i)
        size_bits[i] = bits_at(key, 2 * i + 1)


@njit(cache=True, error_model="numpy")
def _choose(
    probability: float,
    quiet_wings: float,
    fair: F64,
    distance: F64,
    bits: U64,
    bid: F64,
    ask: F64,
    quote_ns: I64,
    changed: NDArray[np.bool_],
) -> None:
    """Which quotes are renewed: by chance, or because they do not hold."""
    for i in range(len(fair)):
        quiet = 1.0 + quiet_wings * distance[i] * distance[i]
        chosen = uniform_of(bits[i], 40, 24) * quiet < probability
        inside = (bid[i] <= fair[i]) & ((fair[i] <= ask[i]) | (ask[i] <= 0.0))
        changed[i] = chosen | (quote_ns[i] <= 0) | (not inside)


@njit(cache=True, error_model="numpy")
def _widths(
    spot: float,
    widening: float,
    noise: float,
    tick_class: int,
    strike: F64,
    right: I8,
    fair: F64,
    bits: U64,
    width: F64,
) -> None:
    """Spread of each contract before rounding, USD per share."""
    for i in range(len(fair)):
        intrinsic = max(right[i] * (spot - strike[i]), 0.0)
        median = median_spread(fair[i], intrinsic, tick_class)
        width[i] = widening * min(median * _exp(noise * normal_of(bits[i], 0)), _MAX_SPREAD)


@njit(cache=True, error_model="numpy")
def _prices(
    model: MarketModel, tick_class: int, fair: F64, width: F64, bits: U64, bid: F64, ask: F64
) -> None:
    """Bid and ask on the grid of the tick, at least a tick apart; nearly worthless: only an ask."""
    fine, coarse = _ticks_of(tick_class)
    fine_per_dollar, coarse_per_dollar, per_coarse = 100.0 / fine, 100.0 / coarse, 1.0 / coarse
    worth_bidding = model.worthless_ticks * fine / 100.0
    last_offer = np.rint(model.worthless_ask_ticks) * fine
    noise = model.quote_noise
    for i in range(len(fair)):
        mid = max(fair[i] + noise * width[i] * normal_of(bits[i], 10), 0.0)
        tick = fine if mid < _COARSE_FROM else coarse
        per_dollar = fine_per_dollar if mid < _COARSE_FROM else coarse_per_dollar
        ticks = max(np.rint(width[i] * per_dollar), 1.0)
        bid_cents = max(np.rint(mid * per_dollar - 0.5 * ticks), 0.0) * tick
        ask_cents = bid_cents + ticks * tick
        worthless = fair[i] < worth_bidding
        bid_cents = 0.0 if worthless else bid_cents
        ask_cents = max(ask_cents, last_offer) if worthless else ask_cents
        rounded = np.ceil(ask_cents * per_coarse - 1e-9) * coarse
        bid[i] = bid_cents / 100.0
        ask[i] = (ask_cents if ask_cents < 100.0 * _COARSE_FROM else rounded) / 100.0


@njit(cache=True, error_model="numpy")
def _show_side(
    changed: NDArray[np.bool_],
    price: F64,
    mean_size: float,
    missing: float,
    bits: U64,
    first_bit: int,
    shown: F64,
    size: F64,
) -> None:
    """Put one side of the renewed quotes on display; an absent side has neither price nor size."""
    for i in range(len(price)):
        absent = (uniform_of(bits[i], first_bit, 20) < missing) | (price[i] <= 0.0)
        contracts = 1.0 + np.floor(mean_size * exponential_of(bits[i], first_bit + 20))
        shown[i] = (0.0 if absent else price[i]) if changed[i] else shown[i]
        size[i] = (0.0 if absent else contracts) if changed[i] else size[i]


@njit(cache=True, error_model="numpy")
def _stamp(now_ns: int, lag_ms: float, changed: NDArray[np.bool_], bits: U64, quote_ns: I64) -> int:
    """Date the renewed quotes up to `lag_ms` before now, never backwards; returns how many."""
    n_changed = 0
    for i in range(len(changed)):
        lag_ns = np.int64(lag_ms * uniform_of(bits[i], 20, 20)) * _MILLISECOND_NS
        quote_ns[i] = max(now_ns - lag_ns, quote_ns[i]) if changed[i] else quote_ns[i]
        n_changed += changed[i]
    return n_changed


@njit(cache=True, error_model="numpy")
def quote_chain(
    model: MarketModel,
    rng: np.random.Generator,
    spot: float,
    atm_iv: float,
    skew: float,
    now_ns: int,
    quotes: ChainQuotes,
    tick_class: int,
    requote_prob: float,
    changed: NDArray[np.bool_],
) -> int:
    """Bring the quotes of one chain to `now_ns` in place; returns how many changed.

    A quote is renewed when its fair value has left the quoted market, when it was never given,
    and otherwise with a probability of `requote_prob` at the money, which falls towards the wings
    and varies from call to call as the model says; the rest grow stale. At 1 all are renewed.
    Fair value is Black's at `model.rate` on the surface, in variance time; dividends and early
    exercise are left out. After its expiry a contract's quote stays as it was. One number is drawn
    from `rng`, whatever the chain.

    Parameters
    ----------
    quotes : the contracts, fastest when sorted by expiry, then strike; a quote is overwritten where
        it changes
    tick_class : TickClass of the whole chain
    changed : bool[N], set to which quotes changed
    """
    strike, expiry_ns, right = quotes.strike, quotes.expiry_ns, quotes.right
    bid, ask, quote_ns = quotes.bid, quotes.ask, quotes.quote_ns
    bid_size, ask_size = quotes.bid_size, quotes.ask_size
    key = draw_key(rng)
    n = len(strike)
    work = np.empty((5, n))
    fair, distance, width, new_bid, new_ask = work[0], work[1], work[2], work[3], work[4]
    price_bits, size_bits = np.empty(n, np.uint64), np.empty(n, np.uint64)
    stress = pow(atm_iv / model.calm_vol, model.spread_stress)
    widening = model.spread_scale * min(max(stress, 0.7), 3.0)
    mean_size = model.size_mean / (1.0 + tick_class)
    probability = inf
    if requote_prob < 1.0:
        probability = requote_prob * exp(model.activity_noise * normal_of(bits_at(key, -1), 0))

    fair_values(model, spot, atm_iv, skew, now_ns, strike, expiry_ns, right, fair, distance)
    _draw(key, price_bits, size_bits)
    _choose(probability, model.quiet_wings, fair, distance, price_bits, bid, ask, quote_ns, changed)
    for i in range(n):
        changed[i] &= expiry_ns[i] >= now_ns
    _widths(spot, widening, model.spread_noise, tick_class, strike, right, fair, price_bits, width)
    _prices(model, tick_class, fair, width, price_bits, new_bid, new_ask)
    _show_side(changed, new_bid, mean_size, model.missing_side, size_bits, 0, bid, bid_size)
    _show_side(changed, new_ask, mean_size, model.missing_side, size_bits, 30, ask, ask_size)
    return int(_stamp(now_ns, model.quote_lag_ms, changed, price_bits, quote_ns))
