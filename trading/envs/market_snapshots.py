"""What a closed bar shows of a market to every account alike.

A snapshot holds the market's part of the observation and, for every opening action, the contracts
it would trade and what one unit of it costs. What depends on an account is in
`trading.envs.account_view`. Live trading fills one snapshot a bar, a simulation one for each
market, and a recorded history has all of its snapshots on disk.
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
from trading.envs.rules import NO_LEG, STOCK_LEG, STOCK_LOTS, TradingRules, stock_touch
from trading.execution.exposure import usd_greeks
from trading.execution.fees import FeeSchedule
from trading.execution.margin.formulas import payoff_range
from trading.execution.margin.reg_t import shape_sells_short
from trading.execution.matching import fill_cash, fill_price, net_price
from trading.market.calendar import DAY_NS
from trading.market.chain import F64, I64, ChainColumns, is_tradable, is_tradable_at

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
_SELLS_SHORT = np.array(
    [shape_sells_short([(leg.right, leg.ratio) for leg in a.legs]) for a in ACTIONS]
)
ABOVE_ROUNDING = 1.0 + 1e-9
"""So that what is allowed here does not exceed, by rounding, what the broker allows."""
_HAS_STOCK = np.array(
    [k for k, a in enumerate(ACTIONS) if any(leg.choice is LegChoice.STOCK for leg in a.legs)]
)
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

_BEYOND, _PAIR, _MIRROR = int(LegChoice.BEYOND), int(LegChoice.PAIR), int(LegChoice.MIRROR)
_STOCK_CHOICE = int(LegChoice.STOCK)


class MarketSnapshots(NamedTuple):
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
    """[K, MARKET_FEATURE_COUNT], and behind them those of a user's own."""
    legs: I32
    """[K, N, MAX_LEGS]: contract indices of every opening action, STOCK_LEG, or NO_LEG."""
    most_units: F64
    """[K, N]: units that the displayed sizes and the limits of one order allow; 0: no order."""
    unit_cost: F64
    """[K, N]: buying power that one unit takes, fees included, USD."""
    unit_need: F64
    """[K, N]: equity that one unit needs under the risk fraction and the greek limits, USD."""


def empty_snapshots(count: int, own: int = 0) -> MarketSnapshots:
    """Snapshots to be filled by `fill_snapshot`, with room for so many features of a user's own."""
    return MarketSnapshots(
        now_ns=np.zeros(count, dtype=np.int64),
        open_ns=np.zeros(count, dtype=np.int64),
        close_ns=np.zeros(count, dtype=np.int64),
        spot=np.full(count, np.nan),
        spot_ns=np.zeros(count, dtype=np.int64),
        features=np.zeros((count, MARKET_FEATURE_COUNT + own), dtype=np.float32),
        legs=np.full((count, ACTION_COUNT, MAX_LEGS), NO_LEG, dtype=np.int32),
        most_units=np.zeros((count, ACTION_COUNT)),
        unit_cost=np.ones((count, ACTION_COUNT)),
        unit_need=np.ones((count, ACTION_COUNT)),
    )


class Scratch(NamedTuple):
    """Working arrays of `fill_snapshot`; one set serves any number of calls."""

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
    ratio: I64


def scratch() -> Scratch:
    """Working arrays for `fill_snapshot`."""
    return Scratch(
        np.zeros(len(BUCKETS), dtype=np.int64),
        np.full((len(BUCKETS), 2, _N_DELTAS), NO_LEG, dtype=np.int64),
        np.zeros((2, _N_DELTAS)),
        np.zeros(MAX_LEGS, dtype=np.int8),
        np.zeros(MAX_LEGS),
        np.zeros(MAX_LEGS),
        np.zeros(MAX_LEGS, dtype=np.int64),
    )


@njit(cache=True, error_model="numpy")
def _find_buckets(chain: ChainColumns, now_ns: int, group: I64) -> None:
    """Write the expiry group of each bucket, or -1 where no expiry has a readable volatility."""
    iv, group_start = chain.iv, chain.group_start
    for b in range(len(_BUCKET_TARGET)):
        group[b] = -1
        best = np.inf
        for g in range(len(chain.forward)):
            first, last = group_start[g], group_start[g + 1]
            days = (chain.expiry_ns[first] - now_ns) / DAY_NS
            distance = abs(days - _BUCKET_TARGET[b])
            if days < _BUCKET_MIN[b] or days >= _BUCKET_MAX[b] or distance >= best:
                continue
            i = first
            while i < last and np.isnan(iv[i]):
                i += 1
            if i < last:
                best = distance
                group[b] = g


@njit(cache=True, error_model="numpy")
def _find_nearest(chain: ChainColumns, now_ns: int, max_age_ns: int, s: Scratch) -> None:
    """Find the tradable contracts of each bucket nearest every delta target, within tolerance."""
    delta, right = chain.delta, chain.right
    bid, ask, quote_ns = chain.bid, chain.ask, chain.quote_ns
    nearest, distance = s.nearest, s.distance
    for b in range(len(_BUCKET_TARGET)):
        nearest[b, :, :] = NO_LEG
        distance[:, :] = DELTA_TOLERANCE
        g = s.group[b]
        if g < 0:
            continue
        for i in range(chain.group_start[g], chain.group_start[g + 1]):
            size = abs(delta[i])
            if np.isnan(size) or not is_tradable(bid[i], ask[i], quote_ns[i], now_ns, max_age_ns):
                continue
            side = _CALLS if right[i] > 0 else _PUTS
            for slot in range(_N_DELTAS):
                miss = abs(size - _DELTAS[slot])
                if miss < distance[side, slot]:
                    distance[side, slot] = miss
                    nearest[b, side, slot] = i


@njit(cache=True, error_model="numpy")
def _nearest_beyond(
    chain: ChainColumns,
    g: int,
    right: int,
    target: float,
    before: float,
    now_ns: int,
    max_age_ns: int,
) -> int:
    """As `_find_nearest`, among strikes further out of the money than the strike `before`."""
    best = DELTA_TOLERANCE
    found = NO_LEG
    for i in range(chain.group_start[g], chain.group_start[g + 1]):
        if chain.right[i] != right or not right * (chain.strike[i] - before) > 0.0:
            continue
        miss = abs(abs(chain.delta[i]) - target)
        if miss < best and is_tradable_at(chain, i, now_ns, max_age_ns):
            best = miss
            found = i
    return found


@njit(cache=True, error_model="numpy")
def _mirrored(
    chain: ChainColumns, g: int, right: int, wing: float, body: float, now_ns: int, max_age_ns: int
) -> int:
    """Return the contract as far from the strike `body` as `wing` is, to the other side.

    The nearest listed strike serves, up to half the width away.
    """
    target = 2.0 * body - wing
    best = 0.5 * abs(wing - body)
    found = NO_LEG
    for i in range(chain.group_start[g], chain.group_start[g + 1]):
        miss = abs(chain.strike[i] - target)
        if chain.right[i] == right and miss < best and is_tradable_at(chain, i, now_ns, max_age_ns):
            best = miss
            found = i
    return found


@njit(cache=True, error_model="numpy")
def _choose_legs(chain: ChainColumns, now_ns: int, max_age_ns: int, s: Scratch, legs: I32) -> None:
    """Write the contracts of every opening action to legs[N, MAX_LEGS].

    An action whose contracts are not all to be had gets NO_LEG for its first one.
    """
    strike, pair = chain.strike, chain.pair
    bid, ask, quote_ns = chain.bid, chain.ask, chain.quote_ns
    group, nearest = s.group, s.nearest
    for a in range(CLOSE + 1, ACTION_COUNT):
        b = _BUCKET[a]
        for leg in range(MAX_LEGS):
            legs[a, leg] = NO_LEG
        for leg in range(_N_LEGS[a]):
            right, slot, choice = _RIGHT[a, leg], _SLOT[a, leg], _CHOICE[a, leg]
            i = NO_LEG
            if choice == _STOCK_CHOICE:
                i = STOCK_LEG
            elif choice == _PAIR:
                j = pair[legs[a, leg - 1]]
                if j >= 0 and is_tradable(bid[j], ask[j], quote_ns[j], now_ns, max_age_ns):
                    i = j
            elif choice == _MIRROR:
                wing, body = strike[legs[a, leg - 1]], strike[legs[a, leg - 2]]
                i = _mirrored(chain, group[b], right, wing, body, now_ns, max_age_ns)
            else:
                i = nearest[b, _CALLS if right > 0 else _PUTS, slot]
                before = strike[legs[a, leg - 1]] if choice == _BEYOND else -right * np.inf
                if i >= 0 and not right * (strike[i] - before) > 0.0:
                    delta = _DELTAS[slot]
                    i = _nearest_beyond(chain, group[b], right, delta, before, now_ns, max_age_ns)
            if i == NO_LEG:
                legs[a, 0] = NO_LEG
                break
            legs[a, leg] = i


@njit(cache=True, error_model="numpy")
def _price_units(
    chain: ChainColumns,
    snapshots: MarketSnapshots,
    k: int,
    rules: TradingRules,
    fees: FeeSchedule,
    s: Scratch,
) -> None:
    """Write what one unit of every action costs and needs, and how many units could trade.

    The limits are those of `trading.execution.risk`; `tests/envs/test_sizing.py` ties the two.
    """
    legs, most_units = snapshots.legs, snapshots.most_units
    unit_cost, unit_need = snapshots.unit_cost, snapshots.unit_need
    right, strike, price, ratio = s.right, s.strike, s.price, s.ratio
    spot = snapshots.spot[k]
    stock_bid, stock_ask = stock_touch(spot, rules.stock_half_spread)
    for a in range(CLOSE + 1, ACTION_COUNT):
        most_units[k, a] = 0.0
        if legs[k, a, 0] == NO_LEG:
            continue
        n_legs = _N_LEGS[a]
        gross = net_delta = net_gamma = net_vega = 0.0
        contracts = 0
        displayed = np.inf
        for leg in range(n_legs):
            i = legs[k, a, leg]
            ratio[leg] = RATIO[a, leg]
            right[leg] = _RIGHT[a, leg]
            lots = abs(ratio[leg])
            buys = ratio[leg] > 0
            if i == STOCK_LEG:
                bid, ask, size, strike[leg] = stock_bid, stock_ask, STOCK_LOTS, 0.0
                net_delta += ratio[leg]
            else:
                bid, ask, strike[leg] = chain.bid[i], chain.ask[i], chain.strike[i]
                size = chain.ask_size[i] if buys else chain.bid_size[i]
                net_delta += ratio[leg] * chain.delta[i]
                net_gamma += ratio[leg] * chain.gamma[i]
                net_vega += ratio[leg] * chain.vega[i]
            price[leg] = fill_price(bid, ask, buys, rules.slippage, rules.fill_style, n_legs, False)
            gross += lots * price[leg]
            contracts += 0 if i == STOCK_LEG else lots
            displayed = min(displayed, np.floor(size / lots))
        debit = net_price(ratio, price, n_legs)
        worst, best = payoff_range(right, strike, ratio, n_legs)
        if not (-np.inf < worst < debit < best):
            continue
        _, fee = fill_cash(right, ratio, price, n_legs, 1, rules.multiplier, fees)
        unit_cost[k, a] = (debit + max(0.0, -worst)) * rules.multiplier + fee
        at_risk = ((debit - worst) * rules.multiplier + fee) / rules.risk_fraction
        tied_up = unit_cost[k, a] / rules.secured_fraction
        delta, gamma, vega = usd_greeks(net_delta, net_gamma, net_vega, spot)
        exposure = max(
            rules.multiplier * abs(delta) / rules.max_delta,
            rules.multiplier * abs(gamma) / rules.max_gamma,
            rules.multiplier * abs(vega) / rules.max_vega,
        )
        unit_need[k, a] = max(
            tied_up if _IS_SECURED[a] else at_risk,
            exposure * ABOVE_ROUNDING,
            rules.min_short_equity if _SELLS_SHORT[a] else 0.0,
        )
        most_units[k, a] = min(
            np.floor(rules.max_contracts / contracts),
            np.floor(rules.max_notional / (gross * rules.multiplier)),
            displayed,
        )


@njit(cache=True, error_model="numpy")
def fill_snapshot(
    chain: ChainColumns,
    snapshots: MarketSnapshots,
    k: int,
    bars: Bars,
    rules: TradingRules,
    fees: FeeSchedule,
    s: Scratch,
) -> None:
    """Fill snapshot `k`, whose times and spot are set, from a refreshed chain and closed bars."""
    now_ns, age = snapshots.now_ns[k], rules.max_quote_age_ns
    _find_buckets(chain, now_ns, s.group)
    _find_nearest(chain, now_ns, age, s)
    observe_market(
        chain, now_ns, snapshots.open_ns[k], snapshots.close_ns[k], bars, age, s.group,
        s.nearest[:, _CALLS, ATM_SLOT], s.nearest[:, _CALLS, WING_SLOT],
        s.nearest[:, _PUTS, WING_SLOT], snapshots.features, k,
    )  # fmt: skip
    if snapshots.close_ns[k] - now_ns <= rules.no_open_ns:
        snapshots.legs[k, :, :] = NO_LEG
    else:
        _choose_legs(chain, now_ns, age, s, snapshots.legs[k])
    if now_ns - snapshots.spot_ns[k] > age:
        for a in _HAS_STOCK:
            snapshots.legs[k, a, 0] = NO_LEG
    _price_units(chain, snapshots, k, rules, fees, s)
