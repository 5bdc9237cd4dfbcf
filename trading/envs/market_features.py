"""The market's part of the observation: what every account sees alike.

Everything is known at decision time: bars that have closed and quotes that have arrived.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.catalogue import BUCKETS
from trading.market.calendar import DAY_NS
from trading.market.chain import F64, I64, ChainColumns

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


MARKET_FEATURES: tuple[Feature, ...] = (
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
)
MARKET_FEATURE_COUNT = len(MARKET_FEATURES)


class Bars(NamedTuple):
    """The last closed bars, oldest first: [HISTORY_BARS] of which the first `filled` are set."""

    high: F64
    low: F64
    close: F64
    log_close: F64
    """Natural logarithm of `close`, see `log_price`."""
    filled: int
    """Bars that are set."""


@njit(cache=True, error_model="numpy")
def log_price(price: float) -> float:
    """Return the logarithm that bar histories keep.

    One function, so that all of them hold equal bits.
    """
    return float(np.log(price))


@njit(cache=True, error_model="numpy")
def _log_return(bars: Bars, horizon: int) -> float:
    log_close, n = bars.log_close, bars.filled
    if n <= horizon:
        return 0.0
    return float(log_close[n - 1] - log_close[n - 1 - horizon])


@njit(cache=True, error_model="numpy")
def _realised_vol(bars: Bars, window: int) -> float:
    """Annualised, from log returns of the last `window` bars; NaN before three bars."""
    log_close, n = bars.log_close, bars.filled
    count = min(window, n - 1)
    if count < 2:
        return np.nan
    total = 0.0
    for i in range(n - count, n):
        r = log_close[i] - log_close[i - 1]
        total += r * r
    return float(np.sqrt(total / count * _BARS_A_YEAR))


@njit(cache=True, error_model="numpy")
def _rsi(bars: Bars) -> float:
    close, n = bars.close, bars.filled
    window = min(14, n - 1)
    if window < 2:
        return 0.0
    up = 0.0
    down = 0.0
    for i in range(n - window, n):
        change = close[i] - close[i - 1]
        up += change if change > 0.0 else 0.0
        down -= 0.0 if change > 0.0 else change
    return (up - down) / (up + down) if up + down > 0.0 else 0.0


@njit(cache=True, error_model="numpy")
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


# One loop for all of them: each waits for its own last value, and while it waits the others go on.
# Conditions are combined without branches, which random prices would mispredict every other time.
@njit(cache=True, error_model="numpy")
def _averages(bars: Bars) -> tuple[float, float, float]:
    """Return MACD, MACD less its signal, and Wilder's average directional index as a fraction.

    The index is over 14 bars, and 0 before three bars.
    """
    high, low, close, n = bars.high, bars.low, bars.close, bars.filled
    fast = close[0]
    slow = close[0]
    signal = 0.0
    macd = 0.0
    weight = 1.0 / 14.0
    plus = 0.0
    minus = 0.0
    true_range = 0.0
    index = 0.0
    for i in range(1, n):
        fast += (close[i] - fast) * (2.0 / 13.0)
        slow += (close[i] - slow) * (2.0 / 27.0)
        macd = fast - slow
        signal += (macd - signal) * (2.0 / 10.0)
        up = high[i] - high[i - 1]
        down = low[i - 1] - low[i]
        plus += ((up if (up > down) & (up > 0.0) else 0.0) - plus) * weight
        minus += ((down if (down > up) & (down > 0.0) else 0.0) - minus) * weight
        span = max(high[i], close[i - 1]) - min(low[i], close[i - 1])
        true_range += (span - true_range) * weight
        both = plus + minus
        directional = abs(plus - minus) / (both if both > 0.0 else 1.0)
        index += ((directional if both > 0.0 else 0.0) - index) * weight
    known = (n >= 3) & (true_range > 0.0)
    return macd, macd - signal, index if known else 0.0


@njit(cache=True, error_model="numpy")
def _range_position(bars: Bars) -> float:
    high, low, close, n = bars.high, bars.low, bars.close, bars.filled
    top = high[n - 1]
    bottom = low[n - 1]
    for i in range(max(0, n - 60), n):
        top = max(top, high[i])
        bottom = min(bottom, low[i])
    return 2.0 * (close[n - 1] - bottom) / (top - bottom) - 1.0 if top > bottom else 0.0


@njit(cache=True, error_model="numpy")
def put(out: F32, row: int, k: int, value: float) -> int:
    """Write entry `k` of a row, clipped, and 0 where it is unknown; return the next index."""
    out[row, k] = min(max(value, -LIMIT), LIMIT) if np.isfinite(value) else 0.0
    return k + 1


@njit(cache=True, error_model="numpy")
def _observe_bars(bars: Bars, out: F32, row: int, k: int) -> int:
    if bars.filled == 0:
        out[row, k : k + 12] = 0.0
        return k + 12
    last = bars.close[bars.filled - 1]
    for horizon in (1, 5, 15, 60):
        k = put(out, row, k, _log_return(bars, horizon) * 1000.0 / np.sqrt(horizon))
    k = put(out, row, k, _realised_vol(bars, 15))
    k = put(out, row, k, _realised_vol(bars, 60))
    macd, above_signal, directional = _averages(bars)
    k = put(out, row, k, macd / last * 1000.0)
    k = put(out, row, k, above_signal / last * 1000.0)
    k = put(out, row, k, _rsi(bars))
    k = put(out, row, k, _cci(bars) / 200.0)
    k = put(out, row, k, directional)
    put(out, row, k, _range_position(bars))
    return k + 1


@njit(cache=True, error_model="numpy")
def _observe_bucket(
    chain: ChainColumns,
    g: int,
    atm_call: int,
    wing_call: int,
    wing_put: int,
    now_ns: int,
    max_age_ns: int,
    realised_vol: float,
    out: F32,
    row: int,
    k: int,
) -> float:
    """Write the seven entries of one expiry bucket from `out[k]`; return its at-the-money IV."""
    if g < 0:
        out[row, k : k + 7] = 0.0
        return np.nan
    atm = skew = spread = age = np.nan
    if atm_call >= 0:
        atm = chain.iv[atm_call]
        bid, ask = chain.bid[atm_call], chain.ask[atm_call]
        spread = (ask - bid) / (0.5 * (ask + bid))
        age = (now_ns - chain.quote_ns[atm_call]) / max_age_ns
    if wing_put >= 0 and wing_call >= 0:
        skew = chain.iv[wing_put] - chain.iv[wing_call]
    k = put(out, row, k, 1.0 if atm_call >= 0 else 0.0)
    k = put(out, row, k, (chain.expiry_ns[chain.group_start[g]] - now_ns) / DAY_NS / 30.0)
    k = put(out, row, k, atm)
    k = put(out, row, k, skew * 10.0)
    k = put(out, row, k, atm - realised_vol)
    k = put(out, row, k, spread * 10.0)
    put(out, row, k, age)
    return atm


@njit(cache=True, error_model="numpy")
def observe_market(
    chain: ChainColumns,
    now_ns: int,
    session_open_ns: int,
    session_close_ns: int,
    bars: Bars,
    max_age_ns: int,
    group: I64,
    atm_call: I64,
    wing_call: I64,
    wing_put: I64,
    out: F32,
    row: int,
) -> None:
    """Write row `row` of out[K, MARKET_FEATURE_COUNT].

    Parameters
    ----------
    group : [BUCKETS], expiry group of each bucket, or -1
    atm_call, wing_call, wing_put : [BUCKETS], tradable contracts nearest 50, 25 and 25 delta, or -1
    """
    k = _observe_bars(bars, out, row, 0)
    k = put(out, row, k, (now_ns - session_open_ns) / (session_close_ns - session_open_ns))
    k = put(out, row, k, (session_close_ns - now_ns) / (6.5 * 3600e9))
    realised = _realised_vol(bars, 60)
    near = far = np.nan
    for b in range(_N_BUCKETS):
        far = _observe_bucket(
            chain, group[b], atm_call[b], wing_call[b], wing_put[b], now_ns, max_age_ns, realised,
            out, row, k,
        )  # fmt: skip
        k += 7
        if b == 0:
            near = far
    put(out, row, k, (far - near) * 10.0)
