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

from trading.envs.action_tables import CATALOGUE_DELTAS, ActionTables, action_tables
from trading.envs.catalogue import ACTION_COUNT, BUCKETS, CLOSE, MAX_LEGS, LegChoice
from trading.envs.market_features import F32, MARKET_FEATURE_COUNT, Bars, observe_market
from trading.envs.rules import NO_LEG, STOCK_LEG, STOCK_LOTS, TradingRules, stock_touch
from trading.envs.structures import Structure
from trading.execution.exposure import usd_greeks
from trading.execution.fees import FeeSchedule
from trading.execution.margin.formulas import payoff_range
from trading.execution.matching import fill_cash, fill_price, net_price
from trading.market.calendar import DAY_NS
from trading.market.chain import F64, I64, ChainColumns, is_tradable, is_tradable_at

DELTA_TOLERANCE = 0.15
"""A leg whose delta is further than this from its target is not that leg."""

_SAME = 0.005
"""USD: strikes that are nearer to each other than this are one."""

I32 = NDArray[np.int32]

_CALLS, _PUTS = 0, 1
ATM_SLOT = CATALOGUE_DELTAS.index(0.50)
WING_SLOT = CATALOGUE_DELTAS.index(0.25)

ABOVE_ROUNDING = 1.0 + 1e-9
"""So that what is allowed here does not exceed, by rounding, what the broker allows."""
_BUCKET_TARGET = np.array([b.target_days for b in BUCKETS])
_BUCKET_MIN = np.array([b.min_days for b in BUCKETS])
_BUCKET_MAX = np.array([b.max_days for b in BUCKETS])

_BEYOND, _PAIR, _MIRROR = int(LegChoice.BEYOND), int(LegChoice.PAIR), int(LegChoice.MIRROR)
_STOCK_CHOICE, _WIDTH = int(LegChoice.STOCK), int(LegChoice.WIDTH)
_SAME_STRIKE = int(LegChoice.SAME_STRIKE)


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


def empty_snapshots(count: int, own: int = 0, actions: int = ACTION_COUNT) -> MarketSnapshots:
    """Snapshots of so many `actions` to be filled by `fill_snapshot`.

    They have room for so many features of a user's `own`.
    """
    return MarketSnapshots(
        now_ns=np.zeros(count, dtype=np.int64),
        open_ns=np.zeros(count, dtype=np.int64),
        close_ns=np.zeros(count, dtype=np.int64),
        spot=np.full(count, np.nan),
        spot_ns=np.zeros(count, dtype=np.int64),
        features=np.zeros((count, MARKET_FEATURE_COUNT + own), dtype=np.float32),
        legs=np.full((count, actions, MAX_LEGS), NO_LEG, dtype=np.int32),
        most_units=np.zeros((count, actions)),
        unit_cost=np.ones((count, actions)),
        unit_need=np.ones((count, actions)),
    )


class Scratch(NamedTuple):
    """The actions, and working arrays of `fill_snapshot`; one set serves any number of calls."""

    tables: ActionTables
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


def scratch(structures: tuple[Structure, ...] = ()) -> Scratch:
    """Working arrays for `fill_snapshot`, with structures of a user's own among the actions."""
    tables = action_tables(structures)
    deltas = len(tables.deltas)
    return Scratch(
        tables,
        np.zeros(len(BUCKETS), dtype=np.int64),
        np.full((len(BUCKETS), 2, deltas), NO_LEG, dtype=np.int64),
        np.zeros((2, deltas)),
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
    nearest, distance, deltas = s.nearest, s.distance, s.tables.deltas
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
            for slot in range(len(deltas)):
                miss = abs(size - deltas[slot])
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
def _nearest_strike(
    chain: ChainColumns,
    g: int,
    right: int,
    target: float,
    reach: float,
    now_ns: int,
    max_age_ns: int,
) -> int:
    """Return the tradable contract whose strike is nearest `target` and closer than `reach`.

    Of expiry group `g`; -1 has none.
    """
    best = reach
    found = NO_LEG
    if g < 0:
        return found
    for i in range(chain.group_start[g], chain.group_start[g + 1]):
        miss = abs(chain.strike[i] - target)
        if chain.right[i] == right and miss < best and is_tradable_at(chain, i, now_ns, max_age_ns):
            best = miss
            found = i
    return found


@njit(cache=True, error_model="numpy")
def _choose_legs(
    chain: ChainColumns, spot: float, now_ns: int, max_age_ns: int, s: Scratch, legs: I32
) -> None:
    """Write the contracts of every opening action to legs[N, MAX_LEGS].

    An action whose contracts are not all to be had, or not all different, gets NO_LEG for its first
    one. A strike that is asked for by its place serves as far as half the distance away.
    """
    strike, pair = chain.strike, chain.pair
    bid, ask, quote_ns = chain.bid, chain.ask, chain.quote_ns
    group, nearest, t = s.group, s.nearest, s.tables
    for a in range(CLOSE + 1, len(t.n_legs)):
        for leg in range(MAX_LEGS):
            legs[a, leg] = NO_LEG
        for leg in range(t.n_legs[a]):
            right, choice, b = t.right[a, leg], t.choice[a, leg], t.bucket[a, leg]
            slot, of = t.slot[a, leg], t.of[a, leg]
            i = NO_LEG
            if choice == _STOCK_CHOICE:
                i = STOCK_LEG
            elif choice == _PAIR:
                j = pair[legs[a, of]]
                if j >= 0 and is_tradable(bid[j], ask[j], quote_ns[j], now_ns, max_age_ns):
                    i = j
            elif choice == _MIRROR:
                wing, body = strike[legs[a, of]], strike[legs[a, leg - 2]]
                target, reach = 2.0 * body - wing, 0.5 * abs(wing - body)
                i = _nearest_strike(chain, group[b], right, target, reach, now_ns, max_age_ns)
            elif choice in (_WIDTH, _SAME_STRIKE):
                width = right * t.reach[a, leg] * spot
                reach = 0.5 * abs(width) if choice == _WIDTH else _SAME
                target = strike[legs[a, of]] + width
                i = _nearest_strike(chain, group[b], right, target, reach, now_ns, max_age_ns)
            else:
                i = nearest[b, _CALLS if right > 0 else _PUTS, slot]
                before = strike[legs[a, of]] if choice == _BEYOND else -right * np.inf
                if i >= 0 and not right * (strike[i] - before) > 0.0:
                    delta = t.deltas[slot]
                    i = _nearest_beyond(chain, group[b], right, delta, before, now_ns, max_age_ns)
            taken = False
            for earlier in range(leg):
                taken = taken or legs[a, earlier] == i
            if i == NO_LEG or taken:
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
    right, strike, price, ratio, t = s.right, s.strike, s.price, s.ratio, s.tables
    spot = snapshots.spot[k]
    stock_bid, stock_ask = stock_touch(spot, rules.stock_half_spread)
    for a in range(CLOSE + 1, len(t.n_legs)):
        most_units[k, a] = 0.0
        if legs[k, a, 0] == NO_LEG:
            continue
        n_legs = t.n_legs[a]
        gross = net_delta = net_gamma = net_vega = 0.0
        contracts = 0
        displayed = np.inf
        for leg in range(n_legs):
            i = legs[k, a, leg]
            ratio[leg] = t.ratio[a, leg]
            right[leg] = t.right[a, leg]
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
        if t.outlasts[a]:
            best = np.inf
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
            tied_up if t.secured[a] else at_risk,
            exposure * ABOVE_ROUNDING,
            rules.min_short_equity if t.sells_short[a] else 0.0,
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
    opens: bool = True,
) -> None:
    """Fill snapshot `k`, whose times and spot are set, from a refreshed chain and closed bars.

    Where nobody `opens` a position, as everybody who trades the market holds one, no opening
    action has legs or units: that spares half of the work.
    """
    now_ns, age = snapshots.now_ns[k], rules.max_quote_age_ns
    _find_buckets(chain, now_ns, s.group)
    _find_nearest(chain, now_ns, age, s)
    observe_market(
        chain, now_ns, snapshots.open_ns[k], snapshots.close_ns[k], bars, age, s.group,
        s.nearest[:, _CALLS, ATM_SLOT], s.nearest[:, _CALLS, WING_SLOT],
        s.nearest[:, _PUTS, WING_SLOT], snapshots.features, k,
    )  # fmt: skip
    if not opens or snapshots.close_ns[k] - now_ns <= rules.no_open_ns:
        snapshots.legs[k, :, :] = NO_LEG
        snapshots.most_units[k, :] = 0.0
        return
    _choose_legs(chain, snapshots.spot[k], now_ns, age, s, snapshots.legs[k])
    if now_ns - snapshots.spot_ns[k] > age:
        for a in s.tables.with_stock:
            snapshots.legs[k, a, 0] = NO_LEG
    _price_units(chain, snapshots, k, rules, fees, s)
