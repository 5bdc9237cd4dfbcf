"""What the quotes of a session look like, in the figures by which two sessions are compared."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trading.market.calendar import DAY_NS, MINUTE_NS
from trading.market.chain import Chain

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_MAX_AGE_NS = 10 * MINUTE_NS
_MIN_COUNT = 30
"""Quantiles of fewer quotes are not given."""
_PRICES = (0.1, 0.5, 1.0, 3.0, 10.0, 20.0, 50.0, 1000.0)
_DISTANCES = (0.0, 1.0, 2.0, 4.0, np.inf)
_SPREAD = (0.05, 0.5, 0.95)
_AGE = (0.5, 0.75, 0.95)
_MIN_SKEW_DAYS = 5


class QuoteSamples(NamedTuple):
    """What the contracts of a `Chain` showed at S moments of a session."""

    now_ns: I64
    """[S]"""
    spot: F64
    """[S]"""
    bid: F64
    """[S, N], contracts in the order of the chain; 0 where nobody bids, and so on."""
    ask: F64
    bid_size: F64
    ask_size: F64
    quote_ns: I64


class Statistic(NamedTuple):
    """One statistic of a session."""

    group: str
    bucket: str
    measure: str
    """Which quantile, `mean` or `share`."""


Statistics = dict[Statistic, float]


def session_figures(chain: Chain, shown: QuoteSamples, rate: float) -> Statistics:
    """Return the figures of a session; a bucket without enough quotes is left out.

    Spreads by price, in and out of the money; quote ages in whole minutes and missing sides by
    distance from the money; displayed sizes; at-the-money volatility and 25-delta skew by expiry.
    Volatilities are those that `chain.refresh` implies at `rate` from quotes of up to ten minutes.
    """
    moneyness, smiles = _implied(chain, shown, rate)
    figures = _spreads(chain, shown)
    figures.update(_ages(shown, moneyness))
    figures.update(_missing(chain, shown, moneyness))
    for side, size in (("bid", shown.bid_size), ("ask", shown.ask_size)):
        figures.update(_quantiles("size, contracts", side, size[size > 0], _SPREAD))
    days = _expiry_days(chain, shown)
    with np.errstate(all="ignore"):
        level = np.array([_median(smiles[:, g, 0]) for g in range(len(days))])
        slope = np.array([_median(smiles[:, g, 1]) for g in range(len(days))])
    for g, day in enumerate(days):
        if np.isfinite(level[g]):
            figures[Statistic("at-the-money IV", f"{day} d", "median")] = float(level[g])
        if g > 0 and np.isfinite(level[g] / level[g - 1]):
            bucket = f"{days[g - 1]} to {day} d"
            step = float(level[g] / level[g - 1])
            figures[
                Statistic("at-the-money IV over that of the expiry before", bucket, "median")
            ] = step
        if np.isfinite(slope[g]) and day >= _MIN_SKEW_DAYS:
            figures[Statistic("25-delta skew over IV", f"{day} d", "median")] = float(slope[g])
    return figures


def _median(values: F64) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _expiry_days(chain: Chain, shown: QuoteSamples) -> list[int]:
    expiry_ns = chain.columns.expiry_ns[chain.columns.group_start[:-1]]
    return [int(days) for days in (expiry_ns - shown.now_ns[0]) // DAY_NS]


def _implied(chain: Chain, shown: QuoteSamples, rate: float) -> tuple[F64, F64]:
    """Log moneyness in standard deviations [S, N], and level and skew of each expiry [S, G, 2]."""
    columns = chain.columns
    groups = len(columns.forward)
    moneyness = np.full(shown.bid.shape, np.nan)
    smiles = np.full((len(shown.now_ns), groups, 2), np.nan)
    for s, now_ns in enumerate(shown.now_ns.tolist()):
        for name in ("bid", "ask", "bid_size", "ask_size", "quote_ns"):
            getattr(columns, name)[:] = getattr(shown, name)[s]
        chain.last_price = float(shown.spot[s])
        chain.refresh(now_ns, rate, _MAX_AGE_NS)
        for g in range(groups):
            group = slice(int(columns.group_start[g]), int(columns.group_start[g + 1]))
            iv, delta = columns.iv[group], columns.delta[group]
            level, put, call = (_iv_at(iv, delta, target) for target in (0.5, -0.25, 0.25))
            smiles[s, g] = level, (put - call) / level
            years = max(int(columns.expiry_ns[group][0]) - now_ns, MINUTE_NS) / (365 * DAY_NS)
            logs = np.log(columns.strike[group] / columns.forward[g])
            moneyness[s, group] = logs / (level * np.sqrt(years))
    return moneyness, smiles


def _iv_at(iv: F64, delta: F64, target: float) -> float:
    """Volatility at a delta, between the two nearest strikes of that right."""
    known = np.isfinite(iv) & (delta * target > 0.0)
    if not known.any():
        return float("nan")
    order = np.argsort(delta[known])
    x, y = delta[known][order], iv[known][order]
    return float(np.interp(target, x, y)) if x[0] <= target <= x[-1] else float("nan")


def _spreads(chain: Chain, shown: QuoteSamples) -> Statistics:
    two_sided = (shown.bid > 0.0) & (shown.ask > shown.bid)
    mid = 0.5 * (shown.bid + shown.ask)
    gain = chain.columns.right * (shown.spot[:, None] - chain.columns.strike)
    figures: Statistics = {}
    for label, chosen in (("out of", gain <= 0.0), ("in", gain > 0.0)):
        for low, high in pairwise(_PRICES):
            inside = two_sided & chosen & (mid >= low) & (mid < high)
            spread = (shown.ask - shown.bid)[inside]
            bucket = f"{low:g} to {high:g}" if high < _PRICES[-1] else f"above {low:g}"
            figures.update(_quantiles(f"spread {label} the money, USD", bucket, spread, _SPREAD))
    return figures


def _ages(shown: QuoteSamples, moneyness: F64) -> Statistics:
    age = (shown.now_ns[:, None] - shown.quote_ns) // MINUTE_NS
    figures: Statistics = {}
    for bucket, inside in _by_distance(moneyness):
        ages = age[inside & (shown.quote_ns > 0)]
        figures.update(_quantiles("quote age, minutes", bucket, ages, _AGE))
    return figures


def _missing(chain: Chain, shown: QuoteSamples, moneyness: F64) -> Statistics:
    out = chain.columns.right * moneyness >= 0.0
    figures: Statistics = {}
    for label, chosen in (("out of", out), ("in", ~out)):
        for bucket, inside in _by_distance(moneyness):
            rows = inside & chosen & (shown.quote_ns > 0)
            if rows.sum() < _MIN_COUNT:
                continue
            for side, price in (("bid", shown.bid), ("ask", shown.ask)):
                figure = Statistic(f"no {side}, {label} the money", bucket, "share")
                figures[figure] = float(np.mean(price[rows] == 0.0))
    return figures


def _by_distance(moneyness: F64) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    distance = np.abs(moneyness)
    for low, high in pairwise(_DISTANCES):
        bucket = f"{low:g} to {high:g} sd" if np.isfinite(high) else f"beyond {low:g} sd"
        yield bucket, (distance >= low) & (distance < high)


def _quantiles(group: str, bucket: str, values: F64 | I64, levels: tuple[float, ...]) -> Statistics:
    if len(values) < _MIN_COUNT:
        return {}
    found = np.quantile(values, levels)
    return {
        Statistic(group, bucket, f"{level:.0%}"): float(value)
        for level, value in zip(levels, found, strict=True)
    }
