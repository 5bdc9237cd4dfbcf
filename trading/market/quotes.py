"""Quotes that the simulated market makers show."""

from enum import IntEnum
from math import ceil, exp, inf, log, pow

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.market.model import MarketModel
from trading.market.pricing import YEAR_NS, black_price
from trading.market.surface import smile_iv, term_iv, variance_years

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I8 = NDArray[np.int8]

_MILLISECOND_NS = 1_000_000
_PENNY = 0.01


class TickClass(IntEnum):
    """How finely, and so how tightly, a class of options is quoted."""

    PENNY = 0
    """A cent at every price: SPY, QQQ and IWM."""
    PENNY_PROGRAM = 1
    """A cent below 3 dollars, five above."""
    STANDARD = 2
    """Five cents below 3 dollars, ten above."""


_CLASS_PENNY = int(TickClass.PENNY)
_CLASS_PROGRAM = int(TickClass.PENNY_PROGRAM)


@njit(cache=True, error_model="numpy")
def tick_cents(price: float, tick_class: int) -> int:
    """Smallest price increment in cents at `price`, USD per share."""
    if tick_class == _CLASS_PENNY:
        return 1
    if tick_class == _CLASS_PROGRAM:
        return 1 if price < 3.0 else 5
    return 5 if price < 3.0 else 10


@njit(cache=True, error_model="numpy")
def median_spread(price: float, intrinsic: float, tick_class: int) -> float:
    """Median quoted spread, USD per share, before rounding to ticks.

    A power of the price plus a share of the intrinsic value, fitted by eye to medians of real
    sessions: penny classes to SPY, penny-program classes to TWX, standard ones to GOOG.
    """
    if tick_class == _CLASS_PENNY:
        return 0.008 * pow(price, 0.5) + 0.03 * intrinsic
    if tick_class == _CLASS_PROGRAM:
        return 0.06 * pow(price, 0.78) + 0.02 * intrinsic
    return 0.3 * pow(price, 0.6) + 0.02 * intrinsic


@njit(cache=True, error_model="numpy")
def _round_up(cents: float, tick_class: int) -> float:
    tick = tick_cents(cents * _PENNY + 1e-9, tick_class)
    return float(ceil(cents / tick - 1e-9) * tick)


@njit(cache=True, error_model="numpy")
def _display(
    model: MarketModel,
    rng: np.random.Generator,
    fair: float,
    intrinsic: float,
    stress: float,
    tick_class: int,
) -> tuple[float, float, float, float]:
    """A fresh (bid, ask, bid size, ask size); an absent side is 0, 0."""
    width = median_spread(fair, intrinsic, tick_class) * stress
    width *= exp(model.spread_noise * rng.standard_normal())
    mid = max(fair + model.quote_noise * width * rng.standard_normal(), 0.0)
    tick = tick_cents(mid, tick_class)
    ticks = max(np.rint(100.0 * width / tick), 1.0)
    bid_cents = max(np.rint(100.0 * mid / tick - 0.5 * ticks), 0.0) * tick
    ask_cents = _round_up(bid_cents + ticks * tick, tick_class)
    size = model.size_mean / (1.0 + tick_class)
    bid_size = 1.0 + np.floor(size * rng.standard_exponential())
    ask_size = 1.0 + np.floor(size * rng.standard_exponential())
    bid, ask = bid_cents / 100.0, ask_cents / 100.0
    if bid <= 0.0 or rng.random() < model.missing_side:
        bid, bid_size = 0.0, 0.0
    if rng.random() < model.missing_side:
        ask, ask_size = 0.0, 0.0
    return bid, ask, bid_size, ask_size


@njit(cache=True, error_model="numpy")
def quote_chain(
    model: MarketModel,
    rng: np.random.Generator,
    spot: float,
    atm_iv: float,
    skew: float,
    now_ns: int,
    strike: F64,
    expiry_ns: I64,
    right: I8,
    bid: F64,
    ask: F64,
    bid_size: F64,
    ask_size: F64,
    quote_ns: I64,
    tick_class: int,
    requote_prob: float,
    changed: NDArray[np.bool_],
) -> int:
    """Bring the quotes of one chain to `now_ns` in place; returns how many changed.

    A quote is renewed when its fair value has left the quoted market, when it was never given,
    and otherwise with probability `requote_prob`; the rest grow stale. Fair value is Black's at
    `model.rate` on the surface, in variance time; dividends and early exercise are left out.
    After its expiry a contract's quote stays as it was.

    Parameters
    ----------
    strike, expiry_ns, right : [N], the contracts; fastest when sorted by expiry
    bid, ask, bid_size, ask_size, quote_ns : [N], overwritten where a quote changes; an absent
        side is 0, and `quote_ns` is 0 before the first quote
    tick_class : TickClass of the whole chain
    changed : bool[N], set to which quotes changed
    """
    n_changed = 0
    last_expiry = -1
    discount = t = forward = term = 0.0
    stress = min(max(pow(atm_iv / model.calm_vol, model.spread_stress), 0.7), 3.0)
    for i in range(len(strike)):
        if expiry_ns[i] != last_expiry:
            last_expiry = expiry_ns[i]
            calendar_years = max(last_expiry - now_ns, 0) / YEAR_NS
            discount = exp(-model.rate * calendar_years)
            forward = spot / discount
            t = variance_years(model, now_ns, last_expiry)
            term = term_iv(model, t, atm_iv)
        if last_expiry < now_ns:
            changed[i] = False
            continue
        iv = smile_iv(model, log(strike[i] / forward), t, term, skew)
        fair = black_price(right[i], forward, strike[i], t, discount, iv)
        holds = quote_ns[i] > 0 and bid[i] <= fair <= (ask[i] if ask[i] > 0.0 else inf)
        changed[i] = rng.random() < requote_prob or not holds
        if changed[i]:
            intrinsic = max(right[i] * (spot - strike[i]), 0.0)
            bid[i], ask[i], bid_size[i], ask_size[i] = _display(
                model, rng, fair, intrinsic, stress, tick_class
            )
            lag_ms = int(model.quote_lag_ms * rng.random())
            quote_ns[i] = max(now_ns - lag_ms * _MILLISECOND_NS, quote_ns[i])
            n_changed += 1
    return n_changed
