"""Where a bar's profit came from: the greeks at its start, what trading cost, and the rest.

By Taylor's series (Hull, Options, Futures, and Other Derivatives, chapter 19) a leg of q shares
changes in value by

    q (delta dS + gamma dS^2 / 2 + theta dt + vega dIV)

with the delta, gamma and theta that it had when the bar began, and the mean vega of both ends: the
volatilities of noisy quotes jump to and fro, and convexity left out of such jumps piles up. The
greeks are those of Black's formula at the volatility that the leg's own mark implies, under a
forward that grows from the spot at the risk-free rate: so the mark is a function of spot, time and
that volatility alone, and what is left is of higher order. The chain's own volatilities will not do
here. They are read under the forward that put-call parity implies, which jumps with every quote of
the pair that it is read from while the mark of the leg stands still. A mark that does not follow
the spot, because nobody quoted anew, shows as delta against vega.

A leg that at either end has no two-sided quote, or no time value to imply a volatility by, is
marked by rules instead of a mid; what its greeks do not explain is `quotes`.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.account_view import Holdings
from trading.envs.catalogue import MAX_LEGS
from trading.envs.market_snapshots import MarketSnapshots
from trading.envs.quote_arrays import QuoteArrays
from trading.envs.rules import NO_LEG, STOCK_LEG, TradingRules
from trading.market.chain import F64, I64, MIN_TIME_VALUE
from trading.market.pricing import YEAR_NS, greeks, implied_volatility

COMPONENTS = (
    *("delta", "gamma", "theta", "vega", "quotes", "unexplained", "spread", "fees"),
    "endings",
)
"""What a profit is made of, USD; `spread` is what fills paid beyond the marks.

`endings` is what closes and nights brought in which something was settled or a dividend paid.
"""

_QUOTES, UNEXPLAINED, SPREAD, FEES, ENDINGS = range(4, 9)
"""Places in `COMPONENTS`."""


class PositionGreeks(NamedTuple):
    """The legs of B accounts in their snapshots; [B, L] unless it says otherwise."""

    now_ns: I64
    """[B]"""
    spot: F64
    """[B], USD."""
    quantity: F64
    """Signed shares that the leg stands for; 0 where there is no leg."""
    mark: F64
    """USD a share, and likewise the greeks; theta is a year's. Unknown ones are NaN."""
    delta: F64
    gamma: F64
    vega: F64
    theta: F64
    iv: F64
    """Implied by the mark where that is a mid, else NaN; 0 for stock."""

    @property
    def value(self) -> F64:
        """What each account's position is worth, USD, [B]."""
        return np.asarray((self.quantity * self.mark).sum(axis=1))

    @property
    def delta_usd(self) -> F64:
        """Value of the stock that each position moves like, USD, [B]; unknown deltas count 0."""
        return np.asarray(np.nansum(self.quantity * self.delta, axis=1) * self.spot)


def greeks_of_holdings(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    holdings: Holdings,
    rules: TradingRules,
) -> PositionGreeks:
    """Return marks and greeks of all that is held, as the snapshots show them."""
    shape = len(snapshot_of), MAX_LEGS
    reading = PositionGreeks(
        snapshots.now_ns[snapshot_of],
        snapshots.spot[snapshot_of],
        *(np.zeros(shape) for _ in range(7)),
    )
    _read(quotes, snapshots, snapshot_of, holdings, rules, reading)
    return reading


@njit(cache=True, error_model="numpy")
def greeks_of_mark(
    mark: float,
    bid: float,
    ask: float,
    right: int,
    strike: float,
    t: float,
    spot: float,
    rate: float,
) -> tuple[float, float, float, float, float]:
    """Volatility that a leg's mark implies, and its delta, gamma, vega and theta; NaN if unknown.

    `t` is in years, and so is theta.
    """
    discount = np.exp(-rate * t)
    forward = spot / discount
    iv = np.nan
    if bid > 0.0 and ask > bid:
        iv, _ = implied_volatility(mark, right, forward, strike, t, discount, MIN_TIME_VALUE)
    if not iv > 0.0:
        return iv, np.nan, np.nan, np.nan, np.nan
    delta, gamma, vega, theta = greeks(right, forward, spot, strike, t, discount, iv)
    return iv, delta, gamma, vega, theta


@njit(cache=True, error_model="numpy")
def _read(
    quotes: QuoteArrays,
    snapshots: MarketSnapshots,
    snapshot_of: I64,
    holdings: Holdings,
    rules: TradingRules,
    reading: PositionGreeks,
) -> None:
    for b in range(len(snapshot_of)):
        f, units = snapshot_of[b], holdings.units[b]
        spot, now_ns = snapshots.spot[f], snapshots.now_ns[f]
        for leg in range(MAX_LEGS):
            i = holdings.legs[b, leg]
            if i == NO_LEG or units == 0:
                break
            reading.quantity[b, leg] = holdings.ratio[b, leg] * units * rules.multiplier
            if i == STOCK_LEG:
                reading.mark[b, leg], reading.delta[b, leg] = spot, 1.0
                continue
            q, listed = quotes.quote_offset[f] + i, quotes.contract_offset[f] + i
            mark = reading.mark[b, leg] = quotes.mark[q]
            iv, delta, gamma, vega, theta = greeks_of_mark(
                mark,
                quotes.bid[q],
                quotes.ask[q],
                quotes.right[listed],
                quotes.strike[listed],
                (quotes.expiry_ns[listed] - now_ns) / YEAR_NS,
                spot,
                rules.rate,
            )
            reading.iv[b, leg] = iv
            reading.delta[b, leg], reading.gamma[b, leg] = delta, gamma
            reading.vega[b, leg], reading.theta[b, leg] = vega, theta


def explain(before: PositionGreeks, after: PositionGreeks, paid: F64, fees: F64) -> F64:
    """Split the profit of one bar, USD, [B, len(COMPONENTS)]; each row sums to that profit.

    Parameters
    ----------
    before, after : PositionGreeks
        The same legs, when the bar began (after its order) and when it closed.
    paid : f64[B]
        What the order cost against the marks it met, fees included, USD; below zero where a fill
        was better than the mark.
    fees : f64[B]
        Of the order, USD.
    """
    spot_move = (after.spot - before.spot)[:, None]
    years = ((after.now_ns - before.now_ns) / YEAR_NS)[:, None]
    terms: tuple[NDArray[np.float64], ...] = (
        before.delta * spot_move,
        0.5 * before.gamma * spot_move**2,
        before.theta * years,
        0.5 * (before.vega + after.vega) * (after.iv - before.iv),
    )
    parts = np.zeros((len(paid), len(COMPONENTS)))
    left = before.quantity * (after.mark - before.mark)
    for k, term in enumerate(terms):
        moved = np.where(np.isfinite(term), before.quantity * term, 0.0)
        parts[:, k] = moved.sum(axis=1)
        left -= moved
    readable = np.isfinite(before.iv) & np.isfinite(after.iv)
    parts[:, _QUOTES] = np.where(readable, 0.0, left).sum(axis=1)
    parts[:, UNEXPLAINED] = np.where(readable, left, 0.0).sum(axis=1)
    parts[:, SPREAD], parts[:, FEES] = fees - paid, -fees
    return parts
