"""What an account sees and may do in a snapshot: observation, units and mask of every action.

One kernel serves the live account and the batch. It is long because it is hot: a few hundred
nanoseconds an account, of which each call that took arrays would cost tens.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.catalogue import ACTION_COUNT, CLOSE, HOLD, MAX_LEGS, action_count
from trading.envs.features import FEATURE_COUNT
from trading.envs.market_features import F32, MARKET_FEATURE_COUNT, put
from trading.envs.market_snapshots import ABOVE_ROUNDING, MarketSnapshots
from trading.envs.quote_arrays import QuoteArrays
from trading.envs.rules import NO_LEG, STOCK_LEG, STOCK_LOTS, TradingRules, stock_touch
from trading.envs.size_levels import allow_parts
from trading.execution.exposure import headroom, usd_greeks
from trading.market.calendar import DAY_NS
from trading.market.chain import F64, I64, is_tradable


class Holdings(NamedTuple):
    """The open strategies of B accounts in their markets; `units` is 0 where there is none."""

    legs: I64
    """[B, MAX_LEGS]: contract indices, STOCK_LEG, or NO_LEG where unused."""
    ratio: I64
    """[B, MAX_LEGS]: signed contracts or round lots of one unit."""
    units: I64
    """[B]"""
    net_cash: F64
    """[B]: cash flow of the strategy so far after fees, negative when paid, USD."""
    opened_ns: I64
    """[B]"""
    known: F64
    """[B, MAX_LEGS, 5]: delta, gamma, vega and theta of each option as they could last be read, and
    the underlying's price then; 0 before."""


class AccountBalances(NamedTuple):
    """What B accounts have to trade with, [B] each; amounts are USD."""

    equity: F64
    cash: F64
    margin_used: F64
    """Cash set aside for what open positions may still cost."""
    open_positions: I64
    may_open: NDArray[np.bool_]
    """The state of trading lets positions be opened, and likewise closed."""
    may_close: NDArray[np.bool_]
    order_opens: NDArray[np.bool_]
    """An order to open works here; it is one of the open positions."""
    order_hold: F64
    """What of `margin_used` it holds: another opening that takes its place may spend it."""


class AccountViews(NamedTuple):
    """What B accounts see."""

    observations: F32
    """[B, F]"""
    units: NDArray[np.int32]
    """[B, N]: units of every action that may be ordered now."""
    mask: NDArray[np.bool_]
    """[B, N]: whether an action is allowed."""


def no_holdings(count: int) -> Holdings:
    """Return holdings of accounts that hold nothing."""
    return Holdings(
        legs=np.full((count, MAX_LEGS), NO_LEG, dtype=np.int64),
        ratio=np.zeros((count, MAX_LEGS), dtype=np.int64),
        units=np.zeros(count, dtype=np.int64),
        net_cash=np.zeros(count),
        opened_ns=np.zeros(count, dtype=np.int64),
        known=np.zeros((count, MAX_LEGS, 5)),
    )


def empty_balances(count: int) -> AccountBalances:
    """Balances without money that may trade."""
    return AccountBalances(
        equity=np.zeros(count),
        cash=np.zeros(count),
        margin_used=np.zeros(count),
        open_positions=np.zeros(count, dtype=np.int64),
        may_open=np.ones(count, dtype=np.bool_),
        may_close=np.ones(count, dtype=np.bool_),
        order_opens=np.zeros(count, dtype=np.bool_),
        order_hold=np.zeros(count),
    )


def empty_views(
    count: int, size_levels: int = 1, added: int = 0, actions: int = ACTION_COUNT
) -> AccountViews:
    """Return views to be filled by `observe_accounts`, with room for so many features behind.

    `actions` are those of full size.
    """
    sizes = action_count(size_levels, actions)
    return AccountViews(
        np.zeros((count, FEATURE_COUNT + added), dtype=np.float32),
        np.zeros((count, sizes), dtype=np.int32),
        np.zeros((count, sizes), dtype=np.bool_),
    )


@njit(cache=True, error_model="numpy")
def keep_greeks(quotes: QuoteArrays, q: int, spot: float, known: F64) -> None:
    """Write the greeks of quote `q` and the underlying's price to a row of `Holdings.known`.

    Where they cannot be read nothing is known. `observe_accounts` does the same at every bar.
    """
    known[:] = 0.0
    if not np.isnan(quotes.delta[q]):
        known[0], known[1] = quotes.delta[q], quotes.gamma[q]
        known[2], known[3] = quotes.vega[q], quotes.theta[q]
        known[4] = spot


@njit(cache=True, error_model="numpy")
def observe_accounts(  # noqa: PLR0912 - one hot body
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    holdings: Holdings,
    balances: AccountBalances,
    which: I64,
    views: AccountViews,
    orders_work: bool | None = None,
) -> None:
    """Write what accounts `which` see in their snapshots, and what they may order.

    Holding is always allowed; closing when every leg of the position can be traded, as far as the
    displayed sizes go; opening when no position is open on the underlying, as far as the risk
    fraction, the greek limits, the buying power and the snapshot allow. Greeks that cannot be read
    now are seen as they were last, the delta moved by what the underlying did since.

    Where `orders_work` an opening may take the place of the one that waits, and spend what that
    holds; with None the compiler leaves this out.
    """
    legs, ratio, held, known = holdings.legs, holdings.ratio, holdings.units, holdings.known
    out, units, mask = views.observations, views.units, views.mask
    most_units, unit_cost, unit_need = (
        snapshots.most_units,
        snapshots.unit_cost,
        snapshots.unit_need,
    )
    market_features = snapshots.features
    multiplier, max_age_ns, levels = rules.multiplier, rules.max_quote_age_ns, rules.size_levels
    whole = most_units.shape[1]
    for b in which:
        f = snapshot_of[b]
        now_ns, spot = snapshots.now_ns[f], snapshots.spot[f]
        equity, cash = balances.equity[b], balances.cash[b]
        buying_power = cash - balances.margin_used[b]

        value = net_delta = net_gamma = net_vega = net_theta = 0.0
        expiry_ns = 0
        closable = float(held[b])
        for leg in range(MAX_LEGS):
            i = legs[b, leg]
            if i == NO_LEG or held[b] == 0:
                break
            shares = ratio[b, leg] * held[b] * multiplier
            if i == STOCK_LEG:
                bid, ask = stock_touch(spot, rules.stock_half_spread)
                size, quote_ns = STOCK_LOTS, snapshots.spot_ns[f]
                value += shares * spot
                net_delta += shares
            else:
                q = quotes.quote_offset[f] + i
                bid, ask, quote_ns = quotes.bid[q], quotes.ask[q], quotes.quote_ns[q]
                size = quotes.bid_size[q] if shares > 0.0 else quotes.ask_size[q]
                value += shares * quotes.mark[q]
                ends_ns = quotes.expiry_ns[quotes.contract_offset[f] + i]
                expiry_ns = min(expiry_ns, ends_ns) if expiry_ns else ends_ns
                if not np.isnan(quotes.delta[q]):
                    known[b, leg, 0], known[b, leg, 1] = quotes.delta[q], quotes.gamma[q]
                    known[b, leg, 2], known[b, leg, 3] = quotes.vega[q], quotes.theta[q]
                    known[b, leg, 4] = spot
                delta, low = (
                    known[b, leg, 0],
                    min(quotes.right[quotes.contract_offset[f] + i], 0) * 1.0,
                )
                moved = delta + known[b, leg, 1] * (spot - known[b, leg, 4])
                net_delta += shares * min(max(moved, min(low, delta)), max(low + 1.0, delta))
                net_gamma += shares * known[b, leg, 1]
                net_vega += shares * known[b, leg, 2]
                net_theta += shares * known[b, leg, 3]
            lots = np.floor(size / abs(ratio[b, leg]))
            alive = is_tradable(bid, ask, quote_ns, now_ns, max_age_ns)
            closable = min(closable, lots) if alive else 0.0

        for k in range(MARKET_FEATURE_COUNT):
            out[b, k] = market_features[f, k]
        worth = max(equity, 1.0)
        k = put(out, b, MARKET_FEATURE_COUNT, (equity / rules.initial_capital - 1.0) * 10.0)
        k = put(out, b, k, buying_power / worth)
        k = put(out, b, k, balances.margin_used[b] / worth)
        k = put(out, b, k, balances.open_positions[b] / rules.max_positions)
        if held[b] > 0:
            days = (expiry_ns - now_ns) / DAY_NS if expiry_ns else np.nan
            k = put(out, b, k, 1.0)
            delta, gamma, vega = usd_greeks(net_delta, net_gamma, net_vega, spot)
            k = put(out, b, k, delta / worth)
            k = put(out, b, k, gamma / worth)
            k = put(out, b, k, vega / (0.001 * worth))
            k = put(out, b, k, net_theta / 365.0 / (0.001 * worth))
            k = put(out, b, k, value / (0.05 * worth))
            k = put(out, b, k, (value + holdings.net_cash[b]) / (0.01 * worth))
            k = put(out, b, k, days / 30.0)
            k = put(out, b, k, (now_ns - holdings.opened_ns[b]) / DAY_NS)
        while k < FEATURE_COUNT:
            k = put(out, b, k, 0.0)

        trades = now_ns < snapshots.close_ns[f] and balances.may_close[b]
        opens = trades and held[b] == 0 and balances.may_open[b] and equity > 0.0
        spendable, others = buying_power, balances.open_positions[b]
        if orders_work is not None:
            spendable += balances.order_hold[b]
            others -= 1 if balances.order_opens[b] else 0
        opens = opens and others < rules.max_positions
        for a in range(whole):
            n = 0.0
            if opens and a > CLOSE:
                by_equity = np.floor(equity / unit_need[f, a])
                by_cash = np.floor(spendable / unit_cost[f, a])
                n = min(most_units[f, a], by_equity, by_cash)
            units[b, a] = np.int32(max(n, 0.0))
            mask[b, a] = n >= 1.0
        allow_parts(b, levels, whole, units, mask)
        mask[b, HOLD] = True
        if trades and held[b] > 0:
            units[b, CLOSE] = np.int32(closable)
            mask[b, CLOSE] = closable >= 1.0


@njit(cache=True, error_model="numpy")
def unit_greeks(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    f: int,
    multiplier: float,
    ratios: I64,
    action: int,
) -> tuple[float, float, float]:
    """Delta, gamma and vega of one unit of an opening action in snapshot `f`, USD.

    `ratios` [N, MAX_LEGS] are those of the `ActionTables`.
    """
    legs = snapshots.legs[f, action]
    greeks: tuple[float, float, float] = legs_greeks(
        quotes, snapshots, f, multiplier, legs, ratios[action]
    )
    return greeks


@njit(cache=True, error_model="numpy")
def legs_greeks(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    f: int,
    multiplier: float,
    legs: NDArray[np.integer],
    ratio: NDArray[np.integer],
) -> tuple[float, float, float]:
    """Delta, gamma and vega of one unit of legs in snapshot `f`, USD.

    As `trading.execution.exposure.Greeks` counts them.
    """
    delta = gamma = vega = 0.0
    spot = snapshots.spot[f]
    for leg in range(len(legs)):
        i = legs[leg]
        if i == NO_LEG:
            break
        if i == STOCK_LEG:
            delta += ratio[leg]
            continue
        q = quotes.quote_offset[f] + i
        delta += ratio[leg] * quotes.delta[q]
        gamma += ratio[leg] * quotes.gamma[q]
        vega += ratio[leg] * quotes.vega[q]
    greeks: tuple[float, float, float] = usd_greeks(
        multiplier * delta, multiplier * gamma, multiplier * vega, spot
    )
    return greeks


@njit(cache=True, error_model="numpy")
def cap_openings(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    rules: TradingRules,
    ratios: I64,
    balances: AccountBalances,
    b: int,
    greeks: F64,
    views: AccountViews,
) -> None:
    """Lower what account `b` may open to the room that its `greeks` [3] leave below the limits.

    `observe_accounts` takes an account that opens to hold nothing elsewhere; this is for one that
    does. The greeks are counted as `trading.execution.exposure.Greeks` does.
    """
    f, base = snapshot_of[b], balances.equity[b] / ABOVE_ROUNDING
    whole = len(ratios)
    for a in range(CLOSE + 1, whole):
        if views.mask[b, a]:
            delta, gamma, vega = unit_greeks(quotes, snapshots, f, rules.multiplier, ratios, a)
            room = min(
                headroom(rules.max_delta * base, greeks[0], delta),
                headroom(rules.max_gamma * base, greeks[1], gamma),
                headroom(rules.max_vega * base, greeks[2], vega),
            )
            views.units[b, a] = np.int32(min(np.float64(views.units[b, a]), room))
            views.mask[b, a] = views.units[b, a] >= 1
    allow_parts(b, rules.size_levels, whole, views.units, views.mask)
