"""Option chains as columns: listing, quotes, and what the quotes imply.

`refresh` is the one place where quotes become forwards, implied volatilities, greeks and marks.
The live market calls it on one chain, the vectorised environment on a slice of a batch.
"""

from collections.abc import Collection, Sequence
from datetime import date
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.errors import DataError
from trading.market.contracts import OptionContract
from trading.market.fair_value import fast_exp, fast_log, normal_cdf
from trading.market.implied import total_deviations
from trading.market.pricing import YEAR_NS, IvReason, implied_volatility, refusal

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I8 = NDArray[np.int8]

_OK = int(IvReason.OK)
_DENSITY_AT_0 = 1.0 / np.sqrt(2.0 * np.pi)
_LANES = 8
"""Numbers in the widest vector."""

MIN_TIME_VALUE = 0.005
"""USD a share: half a penny tick; a smaller time value is noise, not volatility."""


@njit(cache=True)
def is_tradable(bid: float, ask: float, quote_ns: int, now_ns: int, max_age_ns: int) -> bool:
    """Return whether a quote is two-sided, finite, uncrossed, unlocked and fresh: the one rule.

    A quote that is dated ahead of `now_ns` is not fresh.
    """
    # Without branches, so that a loop over quotes compiles to vector instructions.
    fresh = (quote_ns > 0) & (quote_ns <= now_ns) & (now_ns - quote_ns <= max_age_ns)
    return (bid > 0.0) & (ask > bid) & (ask < np.inf) & fresh


class ChainColumns(NamedTuple):
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
def row(batch: ChainColumns, b: int) -> ChainColumns:
    """View of chain `b` of a batch."""
    return ChainColumns(
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
def first_of(chain: ChainColumns, contracts: int, expiries: int) -> ChainColumns:
    """View of the first contracts and expiries of a chain."""
    return ChainColumns(
        chain.group_start[: expiries + 1],
        chain.strike[:contracts],
        chain.expiry_ns[:contracts],
        chain.right[:contracts],
        chain.pair[:contracts],
        chain.bid[:contracts],
        chain.ask[:contracts],
        chain.bid_size[:contracts],
        chain.ask_size[:contracts],
        chain.quote_ns[:contracts],
        chain.forward[:expiries],
        chain.iv[:contracts],
        chain.delta[:contracts],
        chain.gamma[:contracts],
        chain.vega[:contracts],
        chain.theta[:contracts],
        chain.mark[:contracts],
    )


@njit(cache=True)
def is_tradable_at(chain: ChainColumns, i: int, now_ns: int, max_age_ns: int) -> bool:
    """`is_tradable` of contract `i`."""
    return bool(is_tradable(chain.bid[i], chain.ask[i], chain.quote_ns[i], now_ns, max_age_ns))


@njit(cache=True)
def tradable_share(chain: ChainColumns, now_ns: int, max_age_ns: int) -> float:
    """Share of the chain's contracts that could be traded now, 0 for an empty chain."""
    n = len(chain.bid)
    count = 0
    for i in range(n):
        if is_tradable_at(chain, i, now_ns, max_age_ns):
            count += 1
    return count / n if n else 0.0


@njit(cache=True, error_model="numpy")
def _read_mids(bid: F64, ask: F64, quote_ns: I64, now_ns: int, max_age_ns: int, mid: F64) -> None:
    """Fill `mid` [N], NaN where a quote cannot be traded on."""
    for i in range(len(mid)):
        tradable = is_tradable(bid[i], ask[i], quote_ns[i], now_ns, max_age_ns)
        mid[i] = 0.5 * (bid[i] + ask[i]) if tradable else np.nan


MARKS = 3
"""Version of the rule below; a history holds what came of it."""

MARKS_READ = (2, 3)
"""Versions of histories that are opened: in those of 2 a bid alone did not raise a mark."""


@njit(cache=True)
def mark_value(bid: float, ask: float, quote_ns: int, intrinsic: float, last: float) -> float:
    """Value in the books, USD a share: the one rule, of environment, broker and margin.

    The mid, or the last value as far as the sides that are quoted allow it: a side that goes
    missing for a while says nothing of what an option is worth. `last` is the value before; where
    there is none (NaN) it is half the ask, or the bid, and without either `intrinsic`, which may
    be NaN too. A side counts when its price is above zero and finite and the quote has a time, both
    only when they do not cross.
    """
    value = intrinsic if np.isnan(last) else last
    bids = quote_ns > 0 and 0.0 < bid < np.inf
    asks = quote_ns > 0 and 0.0 < ask < np.inf
    if bids and asks:
        value = 0.5 * (bid + ask) if ask >= bid else value
    elif asks:
        value = 0.5 * ask if np.isnan(last) else min(last, ask)
    elif bids:
        value = value if value > bid else bid
    return value


@njit(cache=True, error_model="numpy")
def _imply_forwards(
    chain: ChainColumns, mid: F64, now_ns: int, spot: float, rate: float, carry: F64
) -> float:
    """Fill `forward` by the call and put of each expiry whose mids are closest; return the spot.

    `carry` [G] is how the last forward that was read had grown over its spot, a year.
    """
    right, strike, pair = chain.right, chain.strike, chain.pair
    for g in range(len(chain.forward)):
        chain.forward[g] = np.nan
        first, last = chain.group_start[g], chain.group_start[g + 1]
        t = (chain.expiry_ns[first] - now_ns) / YEAR_NS
        if t <= 0.0:
            continue
        discount = np.exp(-rate * t)
        closest, nearest = np.inf, -1
        for i in range(first, last):
            j = pair[i]
            if right[i] != 1 or j < 0:
                continue
            apart = abs(mid[i] - mid[j])
            nearest = i if apart < closest else nearest
            closest = apart if apart < closest else closest
        if nearest >= 0:
            call, put = mid[nearest], mid[pair[nearest]]
            chain.forward[g] = strike[nearest] + (call - put) / discount
        if np.isnan(spot):
            spot = chain.forward[g] * discount
    for g in range(len(chain.forward)):
        t = (chain.expiry_ns[chain.group_start[g]] - now_ns) / YEAR_NS
        if not t > 0.0:
            continue
        if np.isnan(chain.forward[g]):
            growth = rate if np.isnan(carry[g]) else carry[g]
            chain.forward[g] = spot * np.exp(growth * t)
        elif chain.forward[g] > 0.0 and spot > 0.0:
            carry[g] = np.log(chain.forward[g] / spot) / t
    return spot


@njit(cache=True, error_model="numpy")
def _mark_all(chain: ChainColumns, spot: float) -> None:
    """Fill `mark`, and forget what was implied before."""
    strike, right, bid, ask = chain.strike, chain.right, chain.bid, chain.ask
    quote_ns, mark = chain.quote_ns, chain.mark
    for i in range(len(strike)):
        intrinsic = max(right[i] * (spot - strike[i]), 0.0) if spot > 0.0 else np.nan
        mark[i] = mark_value(bid[i], ask[i], quote_ns[i], intrinsic, mark[i])
    for column in (chain.iv, chain.delta, chain.gamma, chain.vega, chain.theta):
        column[:] = np.nan


@njit(cache=True, error_model="numpy")
def _read_strikes(
    chain: ChainColumns, mid: F64, now_ns: int, rate: float, start: I64, line: I64, lines: F64
) -> int:
    """Choose what each strike's volatility is read from; returns how many have a price to read.

    `line` is the contract that is read, out of the money unless only its pair is quoted. Of `lines`
    row 0 is its price, row 1 its undiscounted time value, and row 2 the strike. Those of expiry g
    are `start[g]` to `start[g + 1]`, filled up to whole vectors by the last one, with `line` -1.
    """
    strike, right, pair = chain.strike, chain.right, chain.pair
    count = 0
    for g in range(len(chain.forward)):
        start[g] = count
        first, last = chain.group_start[g], chain.group_start[g + 1]
        t = (chain.expiry_ns[first] - now_ns) / YEAR_NS
        forward = chain.forward[g]
        if not t > 0.0 or np.isnan(forward):
            continue
        discount = np.exp(-rate * t)
        for i in range(first, last):
            j = pair[i]
            above = right[i] * (forward - strike[i])
            if j >= 0 and not (above < 0.0 or (above == 0.0 and right[i] > 0)):
                continue
            source = j if np.isnan(mid[i]) and j >= 0 else i
            price = mid[source]
            reason = refusal(price, right[source], forward, strike[i], t, discount, MIN_TIME_VALUE)
            if reason != _OK:
                continue
            line[count] = source
            lines[0, count] = price
            lines[1, count] = price / discount - max(right[source] * (forward - strike[i]), 0.0)
            lines[2, count] = strike[i]
            count += 1
        while count > start[g] and count % _LANES:
            line[count] = -1
            for row_of in range(3):
                lines[row_of, count] = lines[row_of, count - 1]
            count += 1
    start[len(chain.forward)] = count
    return count


# The loops below write at most two columns and read a few: beyond eight pairs of arrays that
# might overlap the compiler gives up on vector instructions.


@njit(cache=True, error_model="numpy")
def _scale(forward: float, strike: F64, value: F64, x: F64, target: F64) -> None:
    """Write what `total_deviations` solves, for strikes of one expiry and their time values."""
    for k in range(len(strike)):
        x[k] = -abs(fast_log(forward / strike[k]))
        target[k] = value[k] / np.sqrt(forward * strike[k])


@njit(cache=True, error_model="numpy")
def _probabilities(
    forward: float, discount: float, root_t: float, strike: F64, vol: F64, d1: F64, density: F64
) -> None:
    """Write d1 of Black's formula, and its density times the discounted forward."""
    for k in range(len(strike)):
        deviation = vol[k] * root_t
        d1[k] = fast_log(forward / strike[k]) / deviation + 0.5 * deviation
        density[k] = discount * forward * _DENSITY_AT_0 * fast_exp(-0.5 * d1[k] * d1[k])


@njit(cache=True, error_model="numpy")
def _calls(
    spot: float, share: float, discount: float, root_t: float,
    strike: F64, vol: F64, d1: F64, delta: F64, price: F64,
) -> None:  # fmt: skip
    """Write deltas and prices of calls; `d1` may be `price`."""
    for k in range(len(strike)):
        below = normal_cdf(d1[k] - vol[k] * root_t)
        delta[k] = share * normal_cdf(d1[k])
        price[k] = spot * delta[k] - discount * strike[k] * below


@njit(cache=True, error_model="numpy")
def _write_greeks(
    chain: ChainColumns,
    now_ns: int,
    spot: float,
    rate: float,
    start: I64,
    line: I64,
    work: F64,
) -> None:
    """Fill iv and greeks of both rights of each strike whose volatility can be found.

    `work` begins with the three rows of `_read_strikes`; the other three are scratch.
    """
    right, pair = chain.right, chain.pair
    iv, delta, gamma, vega, theta = chain.iv, chain.delta, chain.gamma, chain.vega, chain.theta
    price, value, strike, x, target, vol = work[0], work[1], work[2], work[3], work[4], work[5]
    count = start[len(chain.forward)]
    for g in range(len(chain.forward)):
        a, b = start[g], start[g + 1]
        _scale(chain.forward[g], strike[a:b], value[a:b], x[a:b], target[a:b])
    total_deviations(x[:count], target[:count], vol[:count])
    for g in range(len(chain.forward)):
        a, b = start[g], start[g + 1]
        if a == b:
            continue
        t = (chain.expiry_ns[chain.group_start[g]] - now_ns) / YEAR_NS
        discount, root_t, forward = np.exp(-rate * t), np.sqrt(t), chain.forward[g]
        growth = forward / spot
        carry, share = np.log(growth) / t, discount * growth
        for k in range(a, b):
            vol[k] = vol[k] / root_t
            if np.isnan(vol[k]):
                if line[k] >= 0:
                    vol[k], _ = implied_volatility(
                        price[k], right[line[k]], forward, strike[k], t, discount, MIN_TIME_VALUE
                    )
                if np.isnan(vol[k]):
                    line[k], vol[k] = -1, 1.0
        _probabilities(forward, discount, root_t, strike[a:b], vol[a:b], x[a:b], target[a:b])
        _calls(spot, share, discount, root_t, strike[a:b], vol[a:b], x[a:b], value[a:b], price[a:b])
        for k in range(a, b):
            i = line[k]
            if i < 0:
                continue
            deviation, density = vol[k] * root_t, target[k]
            call, call_delta = price[k], value[k]
            decay = 0.5 * density * deviation / t
            call_theta = rate * call - carry * spot * call_delta - decay
            paid = discount * (forward - strike[k])
            put_theta = rate * (call - paid) - carry * spot * (call_delta - share) - decay
            for leg in range(2):
                j = i if leg == 0 else pair[i]
                if j < 0:
                    continue
                is_call = right[j] > 0
                iv[j], vega[j] = vol[k], density * root_t
                gamma[j] = density / (spot * spot * deviation)
                delta[j] = call_delta if is_call else call_delta - share
                theta[j] = call_theta if is_call else put_theta


# Arrays are taken out of `chain` once: each pass of the tuple to a function counts references.
@njit(cache=True, error_model="numpy")
def refresh(
    chain: ChainColumns,
    now_ns: int,
    spot: float,
    rate: float,
    max_age_ns: int,
    grown: F64 | None = None,
) -> float:
    """Fill forward, iv, greeks and mark in place; return the spot price that was used.

    The forward comes from put-call parity. Where no pair can be read it is `spot` grown as the last
    one that was read had grown, dividends included: `grown` [G] remembers that from call to call
    (NaN before the first). Where nothing is remembered it grows at `rate`. An unknown (NaN) `spot`
    is implied from the nearest forward. A volatility is read from the out-of-the-money contract of
    each strike and serves both rights. For marks see `mark_value`. Unknown values are NaN.
    """
    n, expiries = len(chain.strike), len(chain.forward)
    known = np.full(expiries, np.nan) if grown is None else grown
    most = n + _LANES * expiries
    work = np.empty((7, most))
    line, start = np.empty(most, np.int64), np.empty(expiries + 1, np.int64)
    mid = work[6, :n]
    _read_mids(chain.bid, chain.ask, chain.quote_ns, now_ns, max_age_ns, mid)
    spot = _imply_forwards(chain, mid, now_ns, spot, rate, known)
    _mark_all(chain, spot)
    _read_strikes(chain, mid, now_ns, rate, start, line, work)
    _write_greeks(chain, now_ns, spot, rate, start, line, work)
    return spot


class Chain:
    """All contracts of one underlying, as columns sorted by expiry, strike and right.

    Parameters
    ----------
    underlying
        Ticker of the stock or ETF.
    contracts
        What is listed. Adjusted contracts are refused: their deliverable is not 100 shares.
    expiry_ns
        Last trading instant of each contract, UTC ns, in the order of `contracts`.
    held
        Symbols that are listed whatever they are, since they are held: they are marked and closed.

    Contracts that are never opened (adjusted ones, index options that settle at the opening) come
    last, and have no `iv`: so no strategy is made of them.

    Raises
    ------
    DataError
        For an adjusted or duplicate contract, or one of another underlying.
    """

    def __init__(
        self,
        underlying: str,
        contracts: Sequence[OptionContract],
        expiry_ns: Sequence[int],
        held: Collection[str] = (),
    ) -> None:
        def group(i: int) -> tuple[bool, int, date, str]:
            contract = contracts[i]
            shut = bool(contract.refusal) or not contract.is_on(underlying)
            return shut, expiry_ns[i], contract.expiry, contract.root

        groups = [group(i) for i in range(len(contracts))]
        order = sorted(
            range(len(contracts)),
            key=lambda i: (*groups[i], contracts[i].strike_milli, -int(contracts[i].right)),
        )
        self.underlying = underlying
        self.contracts = [contracts[i] for i in order]
        for contract in self.contracts:
            usual = contract.is_on(underlying) and not contract.is_adjusted
            if not usual and contract.symbol not in held:
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
        number = {each: k for k, each in enumerate(sorted(set(groups)))}
        kind = np.array([number[groups[i]] for i in order], dtype=np.int64)
        self.columns = empty_columns(expiries, strike, right, kind)
        self._open = len(contracts) - sum(shut for shut, *_ in groups)
        self._groups = number
        """Position of each group among the columns of groups."""
        self.carry: F64 = np.full(len(number), np.nan)
        """[G]: growth of the last forward that was read over its spot, a year."""
        self.sequence: I64 = np.full(n, -1, dtype=np.int64)
        """Sequence number of the quote held, -1 where there is none of this session."""
        self.last_price = float("nan")
        """Last traded price of the underlying, NaN without a stock feed."""
        self.last_price_ns = 0
        """When it was known; 0 before the first."""
        self.spot = float("nan")
        """Price that the greeks use: `last_price`, else what put-call parity implies."""

    def __len__(self) -> int:
        return len(self.symbols)

    def positions(self, in_other: "Chain") -> I64:
        """Return where each contract is in another chain, [N]; -1 where it is not."""
        return np.array([in_other.index.get(each, -1) for each in self.symbols], dtype=np.int64)

    def adopt_quotes(self, previous: "Chain") -> None:
        """Take over quotes and marks of the contracts that `previous` also listed."""
        mine = [i for i, symbol in enumerate(self.symbols) if symbol in previous.index]
        theirs = [previous.index[self.symbols[i]] for i in mine]
        for name in ("bid", "ask", "bid_size", "ask_size", "quote_ns", "mark"):
            getattr(self.columns, name)[mine] = getattr(previous.columns, name)[theirs]
        self.sequence[mine] = previous.sequence[theirs]
        for group, g in self._groups.items():
            if group in previous._groups:
                self.carry[g] = previous.carry[previous._groups[group]]
        self.last_price, self.spot = previous.last_price, previous.spot
        self.last_price_ns = previous.last_price_ns

    def refresh(self, now_ns: int, rate: float, max_age_ns: int) -> None:
        """Recompute forwards, implied volatilities, greeks and marks as of `now_ns`."""
        price, carry = self.last_price, self.carry
        self.spot = float(refresh(self.columns, now_ns, price, rate, max_age_ns, carry))
        self.columns.iv[self._open :] = np.nan


def group_and_pair(
    expiry_ns: I64, strike: F64, right: I8, kind: I64 | None = None
) -> tuple[I64, I64]:
    """Expiry groups (bounds [G + 1]) and, per contract, its opposite right at the same strike.

    The columns must be sorted by group, then strike. Contracts of one group expire at one instant
    and have the same `kind` [N], where that is given: two expiry dates that stop at one instant,
    as around a holiday, are two groups. A contract without a partner gets -1.
    """
    n = len(expiry_ns)
    kind = expiry_ns if kind is None else kind
    apart = [expiry_ns[i] != expiry_ns[i - 1] or kind[i] != kind[i - 1] for i in range(1, n)]
    bounds = [0, *(i for i in range(1, n) if apart[i - 1]), n]
    pair = np.full(n, -1, dtype=np.int64)
    for i in range(1, n):
        if not apart[i - 1] and strike[i] == strike[i - 1]:
            pair[i], pair[i - 1] = i - 1, i
    starts = bounds if n else [0]
    return np.array(starts, dtype=np.int64), pair


def empty_columns(expiry_ns: I64, strike: F64, right: I8, kind: I64 | None = None) -> ChainColumns:
    """Columns of a listing without any quote; contracts sorted as for `group_and_pair`."""
    n = len(expiry_ns)
    group_start, pair = group_and_pair(expiry_ns, strike, right, kind)

    def unknown(size: int) -> F64:
        return np.full(size, np.nan)

    return ChainColumns(
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
