"""Greeks of what is held, also while its quotes are stale or no volatility can be read of them.

A limit on greeks must not open because a quote is late: what is not known now is what it was, moved
with the underlying, and what was never known is NaN, which leaves no room below any limit. One
kernel reads them for the live account and for the batch.
"""

from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numba import njit

from trading.envs.quote_arrays import QuoteArrays
from trading.market.chain import F64, MIN_TIME_VALUE

NO_TIME_VALUE = 10.0 * MIN_TIME_VALUE
"""USD a share: an option quoted with no more above its intrinsic value moves as at its expiry."""
KEPT = 5
"""Numbers that are kept of a holding: its greeks as last read, and the price of the underlying
then, which is 0 before."""


class GreeksSource(StrEnum):
    """Where the greeks of a holding come from."""

    QUOTE = "quote"
    """Its quotes now."""
    LAST = "last"
    """Its last readable quotes, the delta moved by what the underlying did since."""
    UNKNOWN = "unknown"
    """Nothing: every limit on greeks is taken up."""


_SOURCES = tuple(GreeksSource)
_QUOTE, _LAST, _UNKNOWN = (_SOURCES.index(each) for each in GreeksSource)


class Sensitivities(NamedTuple):
    """Of one share, as in `trading.market.chain.ChainColumns`; NaN: not known."""

    delta: float
    gamma: float
    vega: float
    theta: float


UNKNOWN = Sensitivities(np.nan, np.nan, np.nan, np.nan)


class HeldGreeks:
    """Remembers the last readable greeks of each contract that is held."""

    def __init__(self) -> None:
        self._last: dict[str, F64] = {}

    def keep(self, symbols: set[str]) -> None:
        """Forget all but these."""
        self._last = {name: last for name, last in self._last.items() if name in symbols}

    def of(
        self, symbol: str, quotes: QuoteArrays, i: int, spot: float, now_ns: int, max_age_ns: int
    ) -> tuple[Sensitivities, GreeksSource]:
        """Return the greeks of contract `i` of the only snapshot, and where they come from.

        `spot` is the price of the underlying, USD a share.
        """
        kept = self._last.get(symbol)
        if kept is None:
            kept = np.zeros(KEPT)
        *greeks, source = held_greeks(quotes, 0, i, spot, now_ns, max_age_ns, kept)
        if kept[-1] > 0.0:
            self._last[symbol] = kept
        known = UNKNOWN if source == _UNKNOWN else Sensitivities(*greeks)
        return known, _SOURCES[source]


@njit(cache=True, error_model="numpy")
def held_greeks(
    quotes: QuoteArrays, f: int, i: int, spot: float, now_ns: int, max_age_ns: int, kept: F64
) -> tuple[float, float, float, float, int]:
    """Return the greeks of contract `i` of snapshot `f` that is held, and the number of the source.

    `kept` [KEPT] is what was last read of it, and becomes what is read now.
    """
    right = np.float64(quotes.right[quotes.contract_offset[f] + i])
    if np.isfinite(spot):
        q = quotes.quote_offset[f] + i
        delta, gamma, vega, theta = (
            quotes.delta[q],
            quotes.gamma[q],
            quotes.vega[q],
            quotes.theta[q],
        )
        if not np.isfinite(delta + gamma + vega + theta):
            delta = _delta_without_time_value(quotes, f, i, spot, now_ns, max_age_ns)
            gamma = vega = theta = 0.0
        if np.isfinite(delta):
            kept[0], kept[1], kept[2], kept[3], kept[4] = delta, gamma, vega, theta, spot
            return delta, gamma, vega, theta, _QUOTE
    if kept[4] == 0.0:
        return np.nan, np.nan, np.nan, np.nan, _UNKNOWN
    moved = kept[0]
    if np.isfinite(spot):
        low = min(right, 0.0)
        moved = min(max(kept[0] + kept[1] * (spot - kept[4]), low), low + 1.0)
    return moved, kept[1], kept[2], kept[3], _LAST


@njit(cache=True, error_model="numpy")
def _delta_without_time_value(
    quotes: QuoteArrays, f: int, i: int, spot: float, now_ns: int, max_age_ns: int
) -> float:
    """Delta of an option that is quoted at hardly more than its intrinsic value; else NaN.

    By put-call parity the time value of an option in the money is the price of the opposite one.
    """
    at, first = quotes.contract_offset[f] + i, quotes.quote_offset[f]
    right = np.float64(quotes.right[at])
    intrinsic = max(right * (spot - quotes.strike[at]), 0.0)
    source = i
    for step in (1, -1) if intrinsic > 0.0 else (0, 0):
        # The opposite right of a strike stands beside it.
        pair = at + step
        if (
            0 <= pair < len(quotes.strike)
            and quotes.right[pair] == -quotes.right[at]
            and quotes.strike[pair] == quotes.strike[at]
            and quotes.expiry_ns[pair] == quotes.expiry_ns[at]
        ):
            source = i + step
    q = first + source
    if not 0 <= now_ns - quotes.quote_ns[q] <= max_age_ns:
        return np.nan
    bid, ask = quotes.bid[q], quotes.ask[q]
    value = 0.5 * (bid + ask) if 0.0 < bid < ask else ask
    above = value - intrinsic if source == i else value
    if not 0.0 < ask < np.inf or above > NO_TIME_VALUE:
        return np.nan
    return right if intrinsic > 0.0 else 0.0
