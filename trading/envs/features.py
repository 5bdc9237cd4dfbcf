"""What the agent sees: one fixed-length float32 vector per underlying and decision.

Everything is known at decision time: bars that have closed, quotes that have arrived, and the
account. `FEATURES` names the entries in order; `observe` writes them.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.actions import (
    BUCKETS,
    DAY_NS,
    MAX_LEGS,
    Funds,
    Position,
    TradingRules,
    nearest_delta,
)
from trading.market.chain import F64, I64, Columns

F32 = NDArray[np.float32]

HISTORY_BARS = 64
"""Bars kept for the price indicators; shorter histories give neutral values."""
LIMIT = 5.0
"""Every feature is clipped to ±LIMIT."""

_N_BUCKETS = len(BUCKETS)
_BARS_A_YEAR = 252.0 * 390.0


class Feature(NamedTuple):
    """Name of an observation entry and what it means, with its scale."""

    name: str
    meaning: str


FEATURES: tuple[Feature, ...] = (
    Feature("return_1", "log return over 1 bar, in 0.1 %"),
    Feature("return_5", "log return over 5 bars, in 0.1 % times sqrt(5)"),
    Feature("return_15", "log return over 15 bars, in 0.1 % times sqrt(15)"),
    Feature("return_60", "log return over 60 bars, in 0.1 % times sqrt(60)"),
    Feature("realised_vol_15", "annualised volatility of the last 15 bar returns"),
    Feature("realised_vol_60", "annualised volatility of the last 60 bar returns"),
    Feature("macd", "EMA(12) - EMA(26) of closes, in 0.1 % of the price"),
    Feature("macd_signal", "MACD less its EMA(9), in 0.1 % of the price"),
    Feature("rsi", "relative strength index over 14 bars, from -1 to 1"),
    Feature("cci", "commodity channel index over 20 bars, in 200"),
    Feature("adx", "average directional index over 14 bars, from 0 to 1"),
    Feature("range_position", "close within the range of the last 60 bars, from -1 to 1"),
    Feature("session_elapsed", "share of the session that has passed, from 0 to 1"),
    Feature("session_left", "hours to the close, in 6.5 hours"),
    *(
        feature
        for bucket in BUCKETS
        for feature in (
            Feature(f"{bucket.name}_known", "1 if the expiry bucket has a readable surface"),
            Feature(f"{bucket.name}_days", "days to expiry of the bucket, in 30 days"),
            Feature(f"{bucket.name}_atm_iv", "at-the-money implied volatility"),
            Feature(f"{bucket.name}_skew", "25-delta put less 25-delta call volatility, times 10"),
            Feature(f"{bucket.name}_iv_less_rv", "at-the-money implied less realised volatility"),
            Feature(f"{bucket.name}_spread", "relative spread at the money, times 10"),
            Feature(f"{bucket.name}_quote_age", "age of that quote in the greatest allowed age"),
        )
    ),
    Feature("term_slope", "far less near at-the-money volatility, times 10"),
    Feature("equity", "equity over initial capital less 1, times 10"),
    Feature("buying_power", "buying power over equity"),
    Feature("reserved", "margin reserved over equity"),
    Feature("slots_used", "open strategies over the most allowed"),
    Feature("position_open", "1 if a strategy is open on this underlying"),
    Feature("position_delta", "position delta in USD per 1 % of spot, in 1 % of equity"),
    Feature("position_gamma", "change of that delta per 1 % of spot, in 1 % of equity"),
    Feature("position_vega", "position vega in USD per volatility point, in 0.1 % of equity"),
    Feature("position_theta", "position theta in USD a day, in 0.1 % of equity"),
    Feature("position_value", "mark value of the position, in 5 % of equity"),
    Feature("position_pnl", "profit of the open strategy after fees so far, in 1 % of equity"),
    Feature("position_days", "days to expiry of the position, in 30 days"),
    Feature("position_age", "time the position has been held, in days"),
)
FEATURE_COUNT = len(FEATURES)


class Bars(NamedTuple):
    """The last closed bars, oldest first: [HISTORY_BARS] of which the first `filled` are set."""

    high: F64
    low: F64
    close: F64
    filled: int
    """Bars that are set."""


@njit(cache=True)
def _log_return(bars: Bars, horizon: int) -> float:
    close, n = bars.close, bars.filled
    if n <= horizon:
        return 0.0
    return float(np.log(close[n - 1] / close[n - 1 - horizon]))


@njit(cache=True)
def _realised_vol(bars: Bars, window: int) -> float:
    """Annualised, from log returns of the last `window` bars; NaN before three bars."""
    close, n = bars.close, bars.filled
    count = min(window, n - 1)
    if count < 2:
        return np.nan
    total = 0.0
    for i in range(n - count, n):
        r = np.log(close[i] / close[i - 1])
        total += r * r
    return float(np.sqrt(total / count * _BARS_A_YEAR))


@njit(cache=True)
def _macd(bars: Bars) -> tuple[float, float]:
    close, n = bars.close, bars.filled
    fast = close[0]
    slow = close[0]
    signal = 0.0
    macd = 0.0
    for i in range(1, n):
        fast += (close[i] - fast) * (2.0 / 13.0)
        slow += (close[i] - slow) * (2.0 / 27.0)
        macd = fast - slow
        signal += (macd - signal) * (2.0 / 10.0)
    return macd, macd - signal


@njit(cache=True)
def _rsi(bars: Bars) -> float:
    close, n = bars.close, bars.filled
    window = min(14, n - 1)
    if window < 2:
        return 0.0
    up = 0.0
    down = 0.0
    for i in range(n - window, n):
        change = close[i] - close[i - 1]
        if change > 0.0:
            up += change
        else:
            down -= change
    return (up - down) / (up + down) if up + down > 0.0 else 0.0


@njit(cache=True)
def _cci(bars: Bars) -> float:
    high, low, close, n = bars.high, bars.low, bars.close, bars.filled
    window = min(20, n)
    if window < 2:
        return 0.0
    mean = 0.0
    for i in range(n - window, n):
        mean += (high[i] + low[i] + close[i]) / 3.0
    mean /= window
    deviation = 0.0
    for i in range(n - window, n):
        deviation += abs((high[i] + low[i] + close[i]) / 3.0 - mean)
    deviation /= window
    typical = (high[n - 1] + low[n - 1] + close[n - 1]) / 3.0
    return (typical - mean) / (0.015 * deviation) if deviation > 0.0 else 0.0


@njit(cache=True)
def _adx(bars: Bars) -> float:
    """Wilder's average directional index over 14 bars, as a fraction; 0 before three bars."""
    high, low, close, n = bars.high, bars.low, bars.close, bars.filled
    if n < 3:
        return 0.0
    weight = 1.0 / 14.0
    plus = 0.0
    minus = 0.0
    true_range = 0.0
    index = 0.0
    for i in range(1, n):
        up = high[i] - high[i - 1]
        down = low[i - 1] - low[i]
        plus += ((up if up > down and up > 0.0 else 0.0) - plus) * weight
        minus += ((down if down > up and down > 0.0 else 0.0) - minus) * weight
        span = max(high[i], close[i - 1]) - min(low[i], close[i - 1])
        true_range += (span - true_range) * weight
        directional = abs(plus - minus) / (plus + minus) if plus + minus > 0.0 else 0.0
        index += (directional - index) * weight
    return index if true_range > 0.0 else 0.0


@njit(cache=True)
def _range_position(bars: Bars) -> float:
    high, low, close, n = bars.high, bars.low, bars.close, bars.filled
    top = high[n - 1]
    bottom = low[n - 1]
    for i in range(max(0, n - 60), n):
        top = max(top, high[i])
        bottom = min(bottom, low[i])
    return 2.0 * (close[n - 1] - bottom) / (top - bottom) - 1.0 if top > bottom else 0.0


@njit(cache=True)
def _put(out: F32, k: int, value: float) -> int:
    out[k] = min(max(value, -LIMIT), LIMIT) if np.isfinite(value) else 0.0
    return k + 1


@njit(cache=True)
def _observe_bars(bars: Bars, out: F32, k: int) -> int:
    if bars.filled == 0:
        out[k : k + 12] = 0.0
        return k + 12
    last = bars.close[bars.filled - 1]
    for horizon in (1, 5, 15, 60):
        k = _put(out, k, _log_return(bars, horizon) * 1000.0 / np.sqrt(horizon))
    k = _put(out, k, _realised_vol(bars, 15))
    k = _put(out, k, _realised_vol(bars, 60))
    macd, above_signal = _macd(bars)
    k = _put(out, k, macd / last * 1000.0)
    k = _put(out, k, above_signal / last * 1000.0)
    k = _put(out, k, _rsi(bars))
    k = _put(out, k, _cci(bars) / 200.0)
    k = _put(out, k, _adx(bars))
    _put(out, k, _range_position(bars))
    return k + 1


@njit(cache=True)
def _observe_bucket(
    chain: Columns, g: int, now_ns: int, max_age_ns: int, realised_vol: float, out: F32, k: int
) -> float:
    """Write the seven entries of one expiry bucket from `out[k]`; return its at-the-money IV."""
    if g < 0:
        out[k : k + 7] = 0.0
        return np.nan
    call = nearest_delta(chain, g, 1, 0.50, np.nan, now_ns, max_age_ns)
    wing_put = nearest_delta(chain, g, -1, 0.25, np.nan, now_ns, max_age_ns)
    wing_call = nearest_delta(chain, g, 1, 0.25, np.nan, now_ns, max_age_ns)
    atm = skew = spread = age = np.nan
    if call >= 0:
        atm = chain.iv[call]
        bid, ask = chain.bid[call], chain.ask[call]
        spread = (ask - bid) / (0.5 * (ask + bid))
        age = (now_ns - chain.quote_ns[call]) / max_age_ns
    if wing_put >= 0 and wing_call >= 0:
        skew = chain.iv[wing_put] - chain.iv[wing_call]
    k = _put(out, k, 1.0 if call >= 0 else 0.0)
    k = _put(out, k, (chain.expiry_ns[chain.group_start[g]] - now_ns) / DAY_NS / 30.0)
    k = _put(out, k, atm)
    k = _put(out, k, skew * 10.0)
    k = _put(out, k, atm - realised_vol)
    k = _put(out, k, spread * 10.0)
    _put(out, k, age)
    return atm


@njit(cache=True)
def _observe_position(
    chain: Columns,
    now_ns: int,
    spot: float,
    multiplier: float,
    equity: float,
    position: Position,
    out: F32,
    k: int,
) -> None:
    if position.units <= 0:
        out[k:] = 0.0
        return
    value = net_delta = net_gamma = net_vega = net_theta = 0.0
    days = np.nan
    for leg in range(MAX_LEGS):
        i = position.legs[leg]
        if i < 0:
            continue
        shares = position.ratio[leg] * position.units * multiplier
        value += shares * chain.mark[i]
        days = (chain.expiry_ns[i] - now_ns) / DAY_NS
        if not np.isnan(chain.delta[i]):
            net_delta += shares * chain.delta[i]
            net_gamma += shares * chain.gamma[i]
            net_vega += shares * chain.vega[i]
            net_theta += shares * chain.theta[i]
    k = _put(out, k, 1.0)
    k = _put(out, k, net_delta * spot / equity)
    k = _put(out, k, net_gamma * spot * spot * 0.01 / equity)
    k = _put(out, k, net_vega * 0.01 / (0.001 * equity))
    k = _put(out, k, net_theta / 365.0 / (0.001 * equity))
    k = _put(out, k, value / (0.05 * equity))
    k = _put(out, k, (value + position.net_cash) / (0.01 * equity))
    k = _put(out, k, days / 30.0)
    _put(out, k, (now_ns - position.opened_ns) / DAY_NS)


@njit(cache=True)
def observe(
    chain: Columns,
    now_ns: int,
    session_open_ns: int,
    session_close_ns: int,
    spot: float,
    bars: Bars,
    rules: TradingRules,
    funds: Funds,
    position: Position,
    bucket_group: I64,
    out: F32,
) -> None:
    """Write the observation of one underlying to out[FEATURE_COUNT]."""
    k = _observe_bars(bars, out, 0)
    k = _put(out, k, (now_ns - session_open_ns) / (session_close_ns - session_open_ns))
    k = _put(out, k, (session_close_ns - now_ns) / (6.5 * 3600e9))
    realised = _realised_vol(bars, 60)
    atm = np.zeros(_N_BUCKETS)
    for b in range(_N_BUCKETS):
        age = rules.max_quote_age_ns
        atm[b] = _observe_bucket(chain, bucket_group[b], now_ns, age, realised, out, k)
        k += 7
    k = _put(out, k, (atm[_N_BUCKETS - 1] - atm[0]) * 10.0)
    equity = max(funds.equity, 1.0)
    k = _put(out, k, (funds.equity / rules.initial_capital - 1.0) * 10.0)
    k = _put(out, k, (funds.cash - funds.reserved) / equity)
    k = _put(out, k, funds.reserved / equity)
    k = _put(out, k, funds.open_positions / rules.max_positions)
    _observe_position(chain, now_ns, spot, rules.multiplier, equity, position, out, k)


def feature_table() -> str:
    """The observation as a Markdown table, for `docs/observation.md`."""
    rows = [f"| {k} | `{f.name}` | {f.meaning} |" for k, f in enumerate(FEATURES)]
    return "\n".join(["| index | name | meaning |", "|---|---|---|", *rows]) + "\n"
