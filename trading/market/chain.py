"""Option chains as columns: listing, quotes, and what the quotes imply.

`refresh` is the one place where quotes become forwards, implied volatilities, greeks and marks.
The live market calls it on one chain, the vectorised environment on a slice of a batch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.errors import DataError
from trading.market.contracts import OptionContract
from trading.market.pricing import YEAR_NS, implied_volatility, pair_greeks

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I8 = NDArray[np.int8]

MIN_TIME_VALUE = 0.005
"""USD a share: half a penny tick; a smaller time value is noise, not volatility."""


@njit(cache=True)
def is_tradable(bid: float, ask: float, quote_ns: int, now_ns: int, max_age_ns: int) -> bool:
    """Whether a quote is two-sided, finite, uncrossed, unlocked and fresh: the one rule."""
    fresh = quote_ns > 0 and now_ns - quote_ns <= max_age_ns
    return bid > 0.0 and ask > bid and ask < np.inf and fresh


class Columns(NamedTuple):
    """The columns of one chain: [N] per contract, sorted by expiry, then strike; [G] per expiry.

    A batch of B chains holds the same columns with a leading axis B; `row` views one of them.
    """

    group_start: I64
    """[G + 1]: contracts `group_start[g]:group_start[g + 1]` share an expiry."""
    strike: F64
    expiry_ns: I64
    right: I8
    pair: I64
    """Index of the opposite right at the same strike and expiry, or -1."""
    bid: F64
    """USD a share; 0 when nobody bids."""
    ask: F64
    bid_size: F64
    ask_size: F64
    quote_ns: I64
    """Exchange time of the quote; 0 before the first."""
    forward: F64
    """[G]: forward price of the underlying at each expiry."""
    iv: F64
    delta: F64
    gamma: F64
    vega: F64
    theta: F64
    mark: F64
    """USD a share: what the contract is worth in the books."""


@njit(cache=True)
def row(batch: Columns, b: int) -> Columns:
    """View of chain `b` of a batch."""
    return Columns(
        batch.group_start[b],
        batch.strike[b],
        batch.expiry_ns[b],
        batch.right[b],
        batch.pair[b],
        batch.bid[b],
        batch.ask[b],
        batch.bid_size[b],
        batch.ask_size[b],
        batch.quote_ns[b],
        batch.forward[b],
        batch.iv[b],
        batch.delta[b],
        batch.gamma[b],
        batch.vega[b],
        batch.theta[b],
        batch.mark[b],
    )


@njit(cache=True)
def is_tradable_at(chain: Columns, i: int, now_ns: int, max_age_ns: int) -> bool:
    """`is_tradable` of contract `i`."""
    return bool(is_tradable(chain.bid[i], chain.ask[i], chain.quote_ns[i], now_ns, max_age_ns))


@njit(cache=True)
def tradable_share(chain: Columns, now_ns: int, max_age_ns: int) -> float:
    """Share of the chain's contracts that could be traded now, 0 for an empty chain."""
    n = len(chain.bid)
    count = 0
    for i in range(n):
        if is_tradable_at(chain, i, now_ns, max_age_ns):
            count += 1
    return count / n if n else 0.0


@njit(cache=True)
def _mid(bid: float, ask: float, quote_ns: int, now_ns: int, max_age_ns: int) -> float:
    return 0.5 * (bid + ask) if is_tradable(bid, ask, quote_ns, now_ns, max_age_ns) else np.nan


@njit(cache=True)
def _marked(bid: float, ask: float, quote_ns: int, intrinsic: float, last: float) -> float:
    """Value in the books, USD a share; `last` is the one before, `intrinsic` may be NaN."""
    if bid > 0.0 and ask >= bid:
        return 0.5 * (bid + ask)
    if bid == 0.0 and ask > 0.0 and quote_ns > 0:
        return 0.5 * ask
    return intrinsic if np.isnan(last) else last


@njit(cache=True, error_model="numpy")
def _imply_forwards(
    chain: Columns, now_ns: int, spot: float, rate: float, max_age_ns: int
) -> float:
    """Fill `forward` by the call and put of each expiry whose mids are closest; return the spot."""
    bid, ask, quote_ns, pair = chain.bid, chain.ask, chain.quote_ns, chain.pair
    for g in range(len(chain.forward)):
        chain.forward[g] = np.nan
        first, last = chain.group_start[g], chain.group_start[g + 1]
        t = (chain.expiry_ns[first] - now_ns) / YEAR_NS
        if t <= 0.0:
            continue
        discount = np.exp(-rate * t)
        closest = np.inf
        for i in range(first, last):
            j = pair[i]
            if chain.right[i] != 1 or j < 0:
                continue
            call = _mid(bid[i], ask[i], quote_ns[i], now_ns, max_age_ns)
            put = _mid(bid[j], ask[j], quote_ns[j], now_ns, max_age_ns)
            if abs(call - put) < closest:
                closest = abs(call - put)
                chain.forward[g] = chain.strike[i] + (call - put) / discount
        if np.isnan(spot):
            spot = chain.forward[g] * discount
    for g in range(len(chain.forward)):
        t = (chain.expiry_ns[chain.group_start[g]] - now_ns) / YEAR_NS
        if t > 0.0 and np.isnan(chain.forward[g]):
            chain.forward[g] = spot * np.exp(rate * t)
    return spot


# Arrays are taken out of `chain` once: each pass of the tuple to a function counts references.
@njit(cache=True, error_model="numpy")
def refresh(chain: Columns, now_ns: int, spot: float, rate: float, max_age_ns: int) -> float:
    """Fill forward, iv, greeks and mark in place; return the spot price that was used.

    The forward comes from put-call parity, else from `spot` grown at `rate`; an unknown (NaN)
    `spot` is implied from the nearest forward. A volatility is read from the out-of-the-money
    contract of each strike and serves both rights. A mark is the mid of the last two-sided quote;
    half the ask when nobody bids; intrinsic value before the first quote. Unknown values are NaN.
    """
    spot = _imply_forwards(chain, now_ns, spot, rate, max_age_ns)
    strike, right, pair = chain.strike, chain.right, chain.pair
    bid, ask, quote_ns, mark = chain.bid, chain.ask, chain.quote_ns, chain.mark
    iv, delta, gamma, vega, theta = chain.iv, chain.delta, chain.gamma, chain.vega, chain.theta
    for g in range(len(chain.forward)):
        first, last = chain.group_start[g], chain.group_start[g + 1]
        t = (chain.expiry_ns[first] - now_ns) / YEAR_NS
        discount = np.exp(-rate * t)
        forward = chain.forward[g]
        for i in range(first, last):
            intrinsic = max(right[i] * (spot - strike[i]), 0.0) if spot > 0.0 else np.nan
            mark[i] = _marked(bid[i], ask[i], quote_ns[i], intrinsic, mark[i])
            iv[i] = delta[i] = gamma[i] = vega[i] = theta[i] = np.nan
        for i in range(first, last):
            j = pair[i]
            out_of_the_money = right[i] * (forward - strike[i]) <= 0.0
            if not t > 0.0 or np.isnan(forward) or not (out_of_the_money or j < 0):
                continue
            source = i
            price = _mid(bid[i], ask[i], quote_ns[i], now_ns, max_age_ns)
            if np.isnan(price) and j >= 0:
                source = j
                price = _mid(bid[j], ask[j], quote_ns[j], now_ns, max_age_ns)
            vol, _ = implied_volatility(
                price, right[source], forward, strike[i], t, discount, MIN_TIME_VALUE
            )
            if np.isnan(vol):
                continue
            call_delta, put_delta, each_gamma, each_vega, call_theta, put_theta = pair_greeks(
                forward, spot, strike[i], t, discount, vol
            )
            is_call = right[i] > 0
            iv[i], gamma[i], vega[i] = vol, each_gamma, each_vega
            delta[i] = call_delta if is_call else put_delta
            theta[i] = call_theta if is_call else put_theta
            if j >= 0:
                iv[j], gamma[j], vega[j] = vol, each_gamma, each_vega
                delta[j] = put_delta if is_call else call_delta
                theta[j] = put_theta if is_call else call_theta
    return spot


class Chain:
    """All tradable contracts of one underlying, as columns sorted by expiry, strike and right.

    Parameters
    ----------
    underlying
        Ticker of the stock or ETF.
    contracts
        What is listed. Adjusted contracts are refused: their deliverable is not 100 shares.
    expiry_ns
        Last trading instant of each contract, UTC ns, in the order of `contracts`.

    Raises
    ------
    DataError
        For an adjusted or duplicate contract, or one of another underlying.
    """

    def __init__(
        self, underlying: str, contracts: Sequence[OptionContract], expiry_ns: Sequence[int]
    ) -> None:
        order = sorted(
            range(len(contracts)),
            key=lambda i: (expiry_ns[i], contracts[i].strike_milli, -int(contracts[i].right)),
        )
        self.underlying = underlying
        self.contracts = [contracts[i] for i in order]
        for contract in self.contracts:
            if contract.is_adjusted or contract.underlying != underlying:
                raise DataError(
                    f"contract {contract.symbol} cannot be in the chain of {underlying}: "
                    "only standard contracts of that underlying are traded"
                )
        self.symbols = [contract.symbol for contract in self.contracts]
        self.index = {symbol: i for i, symbol in enumerate(self.symbols)}
        if len(self.index) != len(self.symbols):
            raise DataError(f"chain of {underlying} lists a contract twice")
        n = len(self.contracts)
        strike = np.array([c.strike for c in self.contracts], dtype=np.float64)
        expiries = np.array([expiry_ns[i] for i in order], dtype=np.int64)
        right = np.array([int(c.right) for c in self.contracts], dtype=np.int8)
        self.columns = empty_columns(expiries, strike, right)
        self.sequence: I64 = np.full(n, -1, dtype=np.int64)
        self.last_price = float("nan")
        """Last traded price of the underlying, NaN without a stock feed."""
        self.last_price_ns = 0
        """When it was known; 0 before the first."""
        self.spot = float("nan")
        """Price that the greeks use: `last_price`, else what put-call parity implies."""

    def __len__(self) -> int:
        return len(self.symbols)

    def adopt_quotes(self, previous: "Chain") -> None:
        """Take over quotes and marks of the contracts that `previous` also listed."""
        mine = [i for i, symbol in enumerate(self.symbols) if symbol in previous.index]
        theirs = [previous.index[self.symbols[i]] for i in mine]
        for name in ("bid", "ask", "bid_size", "ask_size", "quote_ns", "mark"):
            getattr(self.columns, name)[mine] = getattr(previous.columns, name)[theirs]
        self.sequence[mine] = previous.sequence[theirs]
        self.last_price, self.spot = previous.last_price, previous.spot
        self.last_price_ns = previous.last_price_ns

    def refresh(self, now_ns: int, rate: float, max_age_ns: int) -> None:
        """Recompute forwards, implied volatilities, greeks and marks as of `now_ns`."""
        self.spot = float(refresh(self.columns, now_ns, self.last_price, rate, max_age_ns))


def group_and_pair(expiry_ns: I64, strike: F64, right: I8) -> tuple[I64, I64]:
    """Expiry groups (bounds [G + 1]) and, per contract, its opposite right at the same strike.

    The columns must be sorted by expiry, then strike. A contract without a partner gets -1.
    """
    n = len(expiry_ns)
    bounds = [0, *(i for i in range(1, n) if expiry_ns[i] != expiry_ns[i - 1]), n]
    pair = np.full(n, -1, dtype=np.int64)
    for i in range(1, n):
        if expiry_ns[i] == expiry_ns[i - 1] and strike[i] == strike[i - 1]:
            pair[i], pair[i - 1] = i - 1, i
    starts = bounds if n else [0]
    return np.array(starts, dtype=np.int64), pair


def empty_columns(expiry_ns: I64, strike: F64, right: I8) -> Columns:
    """Columns of a listing without any quote; contracts sorted by expiry, then strike."""
    n = len(expiry_ns)
    group_start, pair = group_and_pair(expiry_ns, strike, right)

    def unknown(size: int) -> F64:
        return np.full(size, np.nan)

    return Columns(
        group_start=group_start,
        strike=strike,
        expiry_ns=expiry_ns,
        right=right,
        pair=pair,
        bid=np.zeros(n),
        ask=np.zeros(n),
        bid_size=np.zeros(n),
        ask_size=np.zeros(n),
        quote_ns=np.zeros(n, dtype=np.int64),
        forward=unknown(len(group_start) - 1),
        iv=unknown(n),
        delta=unknown(n),
        gamma=unknown(n),
        vega=unknown(n),
        theta=unknown(n),
        mark=unknown(n),
    )
