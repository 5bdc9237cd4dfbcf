"""Greeks of what is held, also while its quotes are stale or no volatility can be read of them.

A limit on greeks must not open because a quote is late: what is not known now is what it was, moved
with the underlying, and what was never known is NaN, which leaves no room below any limit.
"""

from enum import StrEnum
from typing import NamedTuple

import numpy as np

from trading.market.chain import MIN_TIME_VALUE, ChainColumns

NO_TIME_VALUE = 10.0 * MIN_TIME_VALUE
"""USD a share: an option quoted with no more above its intrinsic value moves as at its expiry."""


class GreeksSource(StrEnum):
    """Where the greeks of a holding come from."""

    QUOTE = "quote"
    """Its quotes now."""
    LAST = "last"
    """Its last readable quotes, the delta moved by what the underlying did since."""
    UNKNOWN = "unknown"
    """Nothing: every limit on greeks is taken up."""


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
        self._last: dict[str, tuple[Sensitivities, float]] = {}

    def keep(self, symbols: set[str]) -> None:
        """Forget all but these."""
        self._last = {name: last for name, last in self._last.items() if name in symbols}

    def of(
        self, symbol: str, columns: ChainColumns, i: int, spot: float, now_ns: int, max_age_ns: int
    ) -> tuple[Sensitivities, GreeksSource]:
        """Return the greeks of contract `i` at `spot` (USD a share), and where they come from."""
        if np.isfinite(spot):
            read = _read(columns, i)
            if read is None:
                read = _without_time_value(columns, i, spot, now_ns, max_age_ns)
            if read is not None:
                self._last[symbol] = (read, spot)
                return read, GreeksSource.QUOTE
        last = self._last.get(symbol)
        if last is None:
            return UNKNOWN, GreeksSource.UNKNOWN
        kept, spot_then = last
        if not np.isfinite(spot):
            return kept, GreeksSource.LAST
        moved = kept.delta + kept.gamma * (spot - spot_then)
        bounds = (0.0, 1.0) if columns.right[i] > 0 else (-1.0, 0.0)
        return kept._replace(delta=min(max(moved, bounds[0]), bounds[1])), GreeksSource.LAST


def _read(columns: ChainColumns, i: int) -> Sensitivities | None:
    values = columns.delta[i], columns.gamma[i], columns.vega[i], columns.theta[i]
    return Sensitivities(*map(float, values)) if np.isfinite(values).all() else None


def _without_time_value(
    columns: ChainColumns, i: int, spot: float, now_ns: int, max_age_ns: int
) -> Sensitivities | None:
    """Those of an option that is quoted at hardly more than its intrinsic value; else None.

    By put-call parity the time value of an option in the money is the price of the opposite one.
    """
    right = int(columns.right[i])
    intrinsic = max(right * (spot - float(columns.strike[i])), 0.0)
    source = int(columns.pair[i]) if intrinsic > 0.0 else i
    if source < 0:
        source = i
    if not 0 <= now_ns - columns.quote_ns[source] <= max_age_ns:
        return None
    bid, ask = float(columns.bid[source]), float(columns.ask[source])
    value = 0.5 * (bid + ask) if 0.0 < bid < ask else ask
    above = value - intrinsic if source == i else value
    if not 0.0 < ask < np.inf or above > NO_TIME_VALUE:
        return None
    return Sensitivities(float(right) if intrinsic > 0.0 else 0.0, 0.0, 0.0, 0.0)
