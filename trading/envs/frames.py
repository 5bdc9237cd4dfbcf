"""What a closed bar shows of a market to every account alike.

A frame holds the market's part of the observation and, for every opening action, the contracts it
would trade and what one unit of it costs. What depends on an account is in `trading.envs.sizing`
and `trading.envs.features`. Live trading fills one frame a bar, a simulation one for each market,
and a recorded history has all of its frames on disk.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.catalogue import (
    ACTION_COUNT,
    ACTIONS,
    BUCKETS,
    CLOSE,
    MAX_LEGS,
    SECURED,
    LegChoice,
)
from trading.envs.market_features import F32, MARKET_FEATURE_COUNT, Bars, observe_market
from trading.envs.rules import NO_LEG, STOCK, STOCK_LOTS, TradingRules, stock_touch
from trading.execution.fees import FeeSchedule
from trading.execution.margin import best_payoff, worst_payoff
from trading.execution.matching import fill_cash, net_price, touch_price
from trading.market.chain import F64, I64, Columns, is_tradable_at

DAY_NS = 86_400_000_000_000
DELTA_TOLERANCE = 0.15
"""A leg whose delta is further than this from its target is not that leg."""

I32 = NDArray[np.int32]

_DELTAS = np.array(sorted({leg.abs_delta for a in ACTIONS for leg in a.legs if leg.abs_delta}))
_N_DELTAS = len(_DELTAS)
_CALLS, _PUTS = 0, 1
ATM_SLOT = int(np.searchsorted(_DELTAS, 0.50))
WING_SLOT = int(np.searchsorted(_DELTAS, 0.25))

_N_LEGS = np.array([len(a.legs) for a in ACTIONS], dtype=np.int64)
_BUCKET = np.array([a.bucket for a in ACTIONS], dtype=np.int64)
_IS_SECURED = np.array([a.strategy in SECURED for a in ACTIONS])
_HAS_STOCK = np.array([any(leg.choice is LegChoice.STOCK for leg in a.legs) for a in ACTIONS])
_RIGHT = np.zeros((ACTION_COUNT, MAX_LEGS), dtype=np.int8)
RATIO = np.zeros((ACTION_COUNT, MAX_LEGS), dtype=np.int64)
"""[N, MAX_LEGS]: signed contracts of one unit of every opening action."""
_SLOT = np.zeros((ACTION_COUNT, MAX_LEGS), dtype=np.int64)
_CHOICE = np.zeros((ACTION_COUNT, MAX_LEGS), dtype=np.int64)
for _a, _action in enumerate(ACTIONS):
    for _l, _leg in enumerate(_action.legs):
        _RIGHT[_a, _l], RATIO[_a, _l], _CHOICE[_a, _l] = _leg.right, _leg.ratio, _leg.choice
        _SLOT[_a, _l] = np.searchsorted(_DELTAS, _leg.abs_delta)
_BUCKET_TARGET = np.array([b.target_days for b in BUCKETS])
_BUCKET_MIN = np.array([b.min_days for b in BUCKETS])
_BUCKET_MAX = np.array([b.max_days for b in BUCKETS])

_DELTA, _BEYOND, _PAIR, _MIRROR = (
    int(LegChoice.DELTA),
    int(LegChoice.BEYOND),
    int(LegChoice.PAIR),
    int(LegChoice.MIRROR),
)


class Frames(NamedTuple):
    """K closed bars of any markets; unknown prices are NaN."""

    now_ns: I64
    """[K]: when the bar closed."""
    open_ns: I64
    """[K]: of its session."""
    close_ns: I64
    spot: F64
    """[K]: last price of the underlying, USD."""
    spot_ns: I64
    """[K]: when that price was known."""
    features: F32
    """[K, MARKET_FEATURE_COUNT]"""
    legs: I32
    """[K, N, MAX_LEGS]: contract indices of every opening action, STOCK, or NO_LEG."""
    most_units: F64
    """[K, N]: units that the displayed sizes and the limits of one order allow; 0: no order."""
    unit_cost: F64
    """[K, N]: buying power that one unit takes, fees included, USD."""
    unit_need: F64
    """[K, N]: equity that one unit needs under the risk fraction and the greek limits, USD."""


def empty_frames(count: int) -> Frames:
    """Frames to be filled by `fill_frame`."""
    return Frames(
        now_ns=np.zeros(count, dtype=np.int64),
        open_ns=np.zeros(count, dtype=np.int64),
        close_ns=np.zeros(count, dtype=np.int64),
        spot=np.full(count, np.nan),
        spot_ns=np.zeros(count, dtype=np.int64),
        features=np.zeros((count, MARKET_FEATURE_COUNT), dtype=np.float32),
        legs=np.full((count, ACTION_COUNT, MAX_LEGS), NO_LEG, dtype=np.int32),
        most_units=np.zeros((count, ACTION_COUNT)),
        unit_cost=np.ones((count, ACTION_COUNT)),
        unit_need=np.ones((count, ACTION_COUNT)),
    )


class Scratch(NamedTuple):
    """Working arrays of `fill_frame`; one set serves any number of calls."""

    group: I64
    """[BUCKETS]: expiry group of each bucket, or -1."""
    nearest: I64
    """[BUCKETS, 2, DELTAS]: contract nearest each delta target, calls then puts, or NO_LEG."""
    distance: F64
    """[2, DELTAS]"""
    right: NDArray[np.int8]
    """[MAX_LEGS], and likewise the rest."""
    strike: F64
    price: F64


def scratch() -> Scratch:
    """Working arrays for `fill_frame`."""
    return Scratch(
        np.zeros(len(BUCKETS), dtype=np.int64),
        np.full((len(BUCKETS), 2, _N_DELTAS), NO_LEG, dtype=np.int64),
        np.zeros((2, _N_DELTAS)),
        np.zeros(MAX_LEGS, dtype=np.int8),
        np.zeros(MAX_LEGS),
        np.zeros(MAX_LEGS),
    )


@njit(cache=True)
def find_buckets(chain: Columns, now_ns: int, group: I64) -> None:
    """Write the expiry group of each bucket, or -1 where no expiry has a readable volatility."""
    for b in range(len(_BUCKET_TARGET)):
        group[b] = -1
        best = np.inf
        for g in range(len(chain.forward)):
            first, last = chain.group_start[g], chain.group_start[g + 1]
            days = (chain.expiry_ns[first] - now_ns) / DAY_NS
            if days < _BUCKET_MIN[b] or days >= _BUCKET_MAX[b]:
                continue
            distance = abs(days - _BUCKET_TARGET[b])
            if distance < best and _is_readable(chain, first, last):
                best = distance
                group[b] = g


@njit(cache=True)
def _is_readable(chain: Columns, first: int, last: int) -> bool:
    return not np.isnan(chain.iv[first:last]).all()


@njit(cache=True)
def _find_nearest(chain: Columns, g: int, now_ns: int, max_age_ns: int, s: Scratch, b: int) -> None:
    """Find the tradable contracts of expiry `g` nearest every delta target, within tolerance."""
    s.nearest[b, :, :] = NO_LEG
    if g < 0:
        return
    s.distance[:, :] = DELTA_TOLERANCE
    for i in range(chain.group_start[g], chain.group_start[g + 1]):
        delta = abs(chain.delta[i])
        if np.isnan(delta) or not is_tradable_at(chain, i, now_ns, max_age_ns):
            continue
        side = _CALLS if chain.right[i] > 0 else _PUTS
        for slot in range(_N_DELTAS):
            distance = abs(delta - _DELTAS[slot])
            if distance < s.distance[side, slot]:
                s.distance[side, slot] = distance
                s.nearest[b, side, slot] = i


@njit(cache=True)
def _nearest_beyond(
    chain: Columns, g: int, right: int, slot: int, before: int, now_ns: int, max_age_ns: int
) -> int:
    """As `_find_nearest`, among strikes further out of the money than contract `before`."""
    best = DELTA_TOLERANCE
    found = NO_LEG
    for i in range(chain.group_start[g], chain.group_start[g + 1]):
        if chain.right[i] != right or np.isnan(chain.delta[i]):
            continue
        if right * (chain.strike[i] - chain.strike[before]) <= 0.0:
            continue
        distance = abs(abs(chain.delta[i]) - _DELTAS[slot])
        if distance < best and is_tradable_at(chain, i, now_ns, max_age_ns):
            best = distance
            found = i
    return found


@njit(cache=True)
def _mirrored(
    chain: Columns, g: int, right: int, wing: int, body: int, now_ns: int, max_age_ns: int
) -> int:
    """The contract as far from `body` as `wing` is, to the other side, within half that width."""
    width = chain.strike[wing] - chain.strike[body]
    target = chain.strike[body] - width
    best = 0.5 * abs(width)
    found = NO_LEG
    for i in range(chain.group_start[g], chain.group_start[g + 1]):
        distance = abs(chain.strike[i] - target)
        if chain.right[i] != right or distance > best or (distance == best and found >= 0):
            continue
        if is_tradable_at(chain, i, now_ns, max_age_ns):
            best = distance
            found = i
    return found


@njit(cache=True)
def _choose_legs(
    chain: Columns, a: int, now_ns: int, max_age_ns: int, s: Scratch, legs: I32
) -> bool:
    """Choose the contracts of action `a`; False when one of them is not to be had."""
    b = _BUCKET[a]
    g = s.group[b]
    for leg in range(_N_LEGS[a]):
        right, slot, choice = _RIGHT[a, leg], _SLOT[a, leg], _CHOICE[a, leg]
        side = _CALLS if right > 0 else _PUTS
        if right == 0:
            legs[leg] = STOCK
            continue
        i = NO_LEG
        if choice in (_DELTA, _BEYOND):
            i = s.nearest[b, side, slot]
        if choice == _BEYOND and i >= 0:
            before = legs[leg - 1]
            if right * (chain.strike[i] - chain.strike[before]) <= 0.0:
                i = _nearest_beyond(chain, g, right, slot, before, now_ns, max_age_ns)
        elif choice == _PAIR:
            i = chain.pair[legs[leg - 1]]
            if i >= 0 and not is_tradable_at(chain, i, now_ns, max_age_ns):
                i = NO_LEG
        elif choice == _MIRROR:
            i = _mirrored(chain, g, right, legs[leg - 1], legs[leg - 2], now_ns, max_age_ns)
        if i < 0:
            return False
        legs[leg] = i
    return True


@njit(cache=True)
def _greek_need(chain: Columns, a: int, legs: I32, spot: float, rules: TradingRules) -> float:
    """Equity at which one unit alone reaches the first of the greek limits, USD."""
    delta = gamma = vega = 0.0
    for leg in range(_N_LEGS[a]):
        i = legs[leg]
        shares = RATIO[a, leg] * rules.multiplier
        if i == STOCK:
            delta += shares
        else:
            delta += shares * chain.delta[i]
            gamma += shares * chain.gamma[i]
            vega += shares * chain.vega[i]
    return max(
        abs(delta * spot) / rules.max_delta,
        abs(gamma * spot * spot * 0.01) / rules.max_gamma,
        abs(vega * 0.01) / rules.max_vega,
    )


@njit(cache=True)
def _price_unit(
    chain: Columns,
    frames: Frames,
    k: int,
    a: int,
    rules: TradingRules,
    fees: FeeSchedule,
    s: Scratch,
) -> None:
    """Write what one unit of action `a` costs and needs, and how many units could trade."""
    legs = frames.legs[k, a]
    n_legs = _N_LEGS[a]
    spot = frames.spot[k]
    gross = 0.0
    contracts = 0
    displayed = np.inf
    for leg in range(n_legs):
        i = legs[leg]
        ratio = RATIO[a, leg]
        if i == STOCK:
            bid, ask = stock_touch(spot, rules.stock_half_spread)
            bid_size = ask_size = STOCK_LOTS
            s.strike[leg] = 0.0
        else:
            bid, ask = chain.bid[i], chain.ask[i]
            bid_size, ask_size = chain.bid_size[i], chain.ask_size[i]
            s.strike[leg] = chain.strike[i]
        s.right[leg] = _RIGHT[a, leg]
        s.price[leg] = touch_price(bid, ask, ratio > 0, rules.slippage)
        gross += abs(ratio) * s.price[leg]
        contracts += abs(ratio)
        displayed = min(displayed, np.floor((ask_size if ratio > 0 else bid_size) / abs(ratio)))
    debit = net_price(RATIO[a], s.price, n_legs)
    worst = worst_payoff(s.right, s.strike, RATIO[a], n_legs)
    loss = (debit - worst) * rules.multiplier
    gain = (best_payoff(s.right, s.strike, RATIO[a], n_legs) - debit) * rules.multiplier
    if not (0.0 < loss < np.inf and gain > 0.0):
        return
    _, fee = fill_cash(s.right, RATIO[a], s.price, n_legs, 1, rules.multiplier, fees)
    cost = (debit + max(0.0, -worst)) * rules.multiplier + fee
    at_risk = (loss + fee) / rules.risk_fraction
    need = cost / rules.secured_fraction if _IS_SECURED[a] else at_risk
    frames.unit_cost[k, a] = cost
    frames.unit_need[k, a] = max(need, _greek_need(chain, a, legs, spot, rules))
    frames.most_units[k, a] = min(
        np.floor(rules.max_contracts / contracts),
        np.floor(rules.max_notional / (gross * rules.multiplier)),
        displayed,
    )


@njit(cache=True)
def fill_frame(
    chain: Columns,
    frames: Frames,
    k: int,
    bars: Bars,
    rules: TradingRules,
    fees: FeeSchedule,
    s: Scratch,
) -> None:
    """Fill frame `k`, whose times and spot are set, from a refreshed chain and its closed bars."""
    now_ns, age = frames.now_ns[k], rules.max_quote_age_ns
    find_buckets(chain, now_ns, s.group)
    for b in range(len(_BUCKET_TARGET)):
        _find_nearest(chain, s.group[b], now_ns, age, s, b)
    observe_market(
        chain, now_ns, frames.open_ns[k], frames.close_ns[k], bars, age, s.group,
        s.nearest[:, _CALLS, ATM_SLOT], s.nearest[:, _CALLS, WING_SLOT],
        s.nearest[:, _PUTS, WING_SLOT], frames.features[k],
    )  # fmt: skip
    frames.legs[k, :, :] = NO_LEG
    frames.most_units[k, :] = 0.0
    ends_soon = frames.close_ns[k] - now_ns <= rules.no_open_ns
    stock_is_fresh = now_ns - frames.spot_ns[k] <= age
    for a in range(CLOSE + 1, ACTION_COUNT):
        if ends_soon or s.group[_BUCKET[a]] < 0 or (_HAS_STOCK[a] and not stock_is_fresh):
            continue
        if _choose_legs(chain, a, now_ns, age, s, frames.legs[k, a]):
            _price_unit(chain, frames, k, a, rules, fees, s)
