"""The option chains at the last bar, for who looks at them: quotes, volatilities, term structure.

The trading thread copies the columns; they become JSON on the thread that asks.
"""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from trading.envs.live_env import LiveEnv
from trading.live.status_updates import as_json
from trading.market.chain import F64, I64, Chain
from trading.market.pricing import YEAR_NS

MOST_EXPIRIES = 16
MOST_STRIKES = 41
"""Of an expiry: those nearest to its forward."""
_DAY_YEARS = 1.0 / 365.0


class ChainSnapshot(NamedTuple):
    """One chain at the end of a bar."""

    chain: Chain
    """For what is listed, which does not change within one."""
    spot: float
    bid: F64
    ask: F64
    iv: F64
    delta: F64
    quote_ns: I64
    forward: F64


class ChainSnapshots(NamedTuple):
    """All chains at the end of a bar."""

    ts_ns: int
    chains: dict[str, ChainSnapshot]


def snapshot_chains(env: LiveEnv, ts_ns: int) -> ChainSnapshots:
    """Copy what the chains show now; on the trading thread."""
    seen = {}
    for underlying in env.underlyings:
        market = env.market(underlying)
        c = market.chain.columns
        seen[underlying] = ChainSnapshot(
            market.chain,
            market.spot,
            c.bid.copy(),
            c.ask.copy(),
            c.iv.copy(),
            c.delta.copy(),
            c.quote_ns.copy(),
            c.forward.copy(),
        )
    return ChainSnapshots(ts_ns, seen)


def chains_as_json(seen: ChainSnapshots) -> dict[str, bytes]:
    """Each chain as a JSON object; money in USD a share, volatilities a year."""
    return {name: as_json(_written(chain, seen.ts_ns)) for name, chain in seen.chains.items()}


def _written(seen: ChainSnapshot, now_ns: int) -> dict[str, Any]:
    columns = seen.chain.columns
    starts = columns.group_start.tolist()
    groups = [
        _expiry(seen, g, first, last, now_ns)
        for g, (first, last) in enumerate(pairwise(starts))
        if last > first and columns.expiry_ns[first] > now_ns
    ]
    return {
        "underlying": seen.chain.underlying,
        "t": now_ns // 1_000_000_000,
        "spot": _rounded(seen.spot, 4),
        "listed": len(seen.chain),
        "expiries": groups[:MOST_EXPIRIES],
    }


def _expiry(seen: ChainSnapshot, g: int, first: int, last: int, now_ns: int) -> dict[str, Any]:
    columns = seen.chain.columns
    expiry_ns, forward = int(columns.expiry_ns[first]), float(seen.forward[g])
    strikes = np.unique(columns.strike[first:last])
    centre = forward if np.isfinite(forward) else seen.spot
    if len(strikes) > MOST_STRIKES and np.isfinite(centre):
        nearest = np.argsort(np.abs(strikes - centre), kind="stable")[:MOST_STRIKES]
        strikes = np.sort(strikes[nearest])
    shown = set(strikes[:MOST_STRIKES].tolist())
    rows: dict[float, dict[str, Any]] = {}
    for i in range(first, last):
        strike = float(columns.strike[i])
        if strike not in shown:
            continue
        row = rows.setdefault(strike, {"strike": strike})
        age_s = (now_ns - int(seen.quote_ns[i])) / 1e9 if seen.quote_ns[i] else np.nan
        row["call" if columns.right[i] > 0 else "put"] = [
            _rounded(seen.bid[i], 2),
            _rounded(seen.ask[i], 2),
            _rounded(seen.delta[i], 3),
            _rounded(age_s, 0),
        ]
        if np.isfinite(seen.iv[i]):
            row["iv"] = _rounded(seen.iv[i], 4)
    known = [row for row in rows.values() if "iv" in row]
    at_money = min(known, key=lambda row: abs(row["strike"] - centre), default=None)
    return {
        "expiry": datetime.fromtimestamp(expiry_ns / 1e9, UTC).date().isoformat(),
        "root": seen.chain.contracts[first].root,
        "days": round((expiry_ns - now_ns) / YEAR_NS / _DAY_YEARS, 2),
        "forward": _rounded(forward, 4),
        "iv": at_money["iv"] if at_money else None,
        "rows": list(rows.values()),
    }


def _rounded(value: float, places: int) -> float | None:
    return round(float(value), places) if np.isfinite(value) else None
