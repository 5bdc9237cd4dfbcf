"""The one door for market data: what every event must pass before it moves a clock, chain or bar.

Live trading, replay, simulation and the making of histories all go through here. The reasons are
`Refusal`; the rules are

- *bytes*: `trading.data.massive.wire` reads a frame event by event and never raises;
- *time*: an event ahead of the clock is refused (`trading.live.bar_clock`, which has the clock);
- *order*: `is_older`, and bars by the minute that they are of;
- *price*: `is_price` for each event by itself, and at each bar's close `vet` for quotes and
  `gap_is_confirmed` for the price of an underlying, which look at the whole chain.

A price that nothing else supports is kept apart: its contract has no quote meanwhile, so that it
is neither traded nor marked by it, and an underlying keeps its last price. The rest of the chain,
or a second event that says the same, lets it in.
"""

import math
from collections import UserDict
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.data.massive.wire import MAX_PRICE
from trading.market.bars import StockBar
from trading.market.borrowed import borrowed
from trading.market.chain import F64, I64, ChainColumns, is_tradable
from trading.market.pricing import YEAR_NS

_MANY = 10
"""Quotes of which most tell how far a tape has run."""
LAST_NS = 4_102_444_800_000_000_000
"""The year 2100: a later time is no time."""


class Refusal(StrEnum):
    """Why an event was not taken over as it came: the one table of reasons."""

    MALFORMED = "malformed"
    """Its bytes are no event, or a field that is needed is absent or of another kind."""
    UNKNOWN_KIND = "unknown_kind"
    """Its kind (`ev`) is unknown."""
    UNKNOWN_CONTRACT = "unknown_contract"
    """Its contract is not listed here."""
    OVERSIZE = "oversize"
    """Its frame is larger than any that the vendor sends."""
    MISTIMED = "mistimed"
    """Its time is none, or a bar's window ends before it begins."""
    AHEAD = "ahead"
    """It is dated ahead of the clock."""
    OLDER = "older"
    """A newer quote of its contract is held."""
    LATE_BAR = "late_bar"
    """A newer bar is held: it corrected the history at most."""
    NOT_A_PRICE = "not_a_price"
    """A price is not finite, negative, zero where it must be positive, or beyond any sense."""
    OUT_OF_BOUNDS = "out_of_bounds"
    """A quote that could be exercised at once with a profit; kept apart."""
    UNCONFIRMED = "unconfirmed"
    """Far from what the rest of the chain implies; kept apart until something confirms it."""


class Refusals(UserDict[str, int]):
    """How many events were refused, by reason; every reason is there, 0 at first."""

    def __init__(self) -> None:
        super().__init__({str(reason): 0 for reason in Refusal})

    def count(self, reason: Refusal, events: int = 1) -> None:
        """Add `events` that were refused for `reason`."""
        self.data[reason] += events


class Bands(NamedTuple):
    """How far a price may lie from what the rest of the chain implies; see the settings."""

    spreads: float = 10.0
    """Typical spreads of the contracts around it, for a quote."""
    percent: float = 1.0
    """Percent of the underlying's price, for a quote; the wider of the two counts."""
    jump_percent: float = 10.0
    """Percent of the last price, for the underlying itself."""


class AdmissionState(NamedTuple):
    """What admission keeps of each contract of a chain, [N] each."""

    seen_ns: I64
    """The last quote that was looked at: time and sides, as they came."""
    seen_bid: F64
    seen_ask: F64
    apart_ns: I64
    """The quote that is kept apart; 0 where there is none."""
    apart_bid: F64
    apart_ask: F64
    apart_bid_size: F64
    apart_ask_size: F64


def new_admission_state(count: int) -> AdmissionState:
    """Return the state of `count` contracts that nothing was heard of."""
    times = (np.zeros(count, np.int64) for _ in range(2))
    values = (np.zeros(count) for _ in range(6))
    seen_ns, apart_ns = times
    return AdmissionState(seen_ns, next(values), next(values), apart_ns, *values)


def is_price(price: float) -> bool:
    """Whether a number can be what a stock costs, USD a share."""
    return 0.0 < price <= MAX_PRICE


def is_bar(bar: StockBar) -> bool:
    """Whether the prices of a bar can be those of one minute."""
    prices = (bar.open, bar.high, bar.low, bar.close)
    return all(map(is_price, prices)) and bar.low <= bar.high


def is_older(ts_ns: int, sequence: int, held_ns: int, held_sequence: int) -> bool:
    """Whether a quote is older than the one held.

    Its own time decides; the sequence number only between equal times, and only where there is one
    (above 0): numbers start over, fall and go missing.
    """
    return ts_ns < held_ns or (ts_ns == held_ns and 0 < sequence < held_sequence)


def quoted_until(times_ns: I64, end_ns: int) -> int:
    """Return up to which time quotes of a chain are not dated ahead, when `end_ns` is reached.

    Where a tape has run ahead of its bars most of them are later: then those up to the time of nine
    in ten are not.
    """
    count = len(times_ns)
    if count < _MANY:
        return end_ns
    return max(end_ns, int(np.sort(times_ns)[count * 9 // 10 - 1]))


def is_jump(price: float, last: float, bands: Bands) -> bool:
    """Whether an underlying's price is too far from its last one to be taken over by itself."""
    return abs(math.log(price / last)) > math.log1p(bands.jump_percent / 100.0)


def cut_at_jumps(bar: StockBar, last: float, bands: Bands) -> tuple[float, float]:
    """High and low of a bar whose close is taken over, cut where they jump from last and close.

    A third of what is a jump of the price is one of an extreme: a lone print off the market leaves
    the close where it was.
    """
    reach = 1.0 + bands.jump_percent / 300.0
    anchor = bar.close if math.isnan(last) else last
    top, bottom = max(bar.close, anchor), min(bar.close, anchor)
    high = bar.high if bar.close <= bar.high <= top * reach else max(bar.open, bar.close)
    low = bar.low if bottom / reach <= bar.low <= bar.close else min(bar.open, bar.close)
    return min(high, top * reach), max(low, bottom / reach)


def gap_is_confirmed(
    columns: ChainColumns,
    candidate: float,
    last: float,
    seconded: bool,
    since_ns: int,
    now_ns: int,
    rate: float,
    max_age_ns: int,
) -> bool:
    """Whether an underlying is believed to have gone from `last` to `candidate`, USD a share.

    The chain says so when put-call parity is nearer to the candidate. A second bar (`seconded`)
    says so too, unless quotes after `since_ns`, when the first one was over, still agree with the
    last price. `last` may be NaN: then only a chain that contradicts keeps the candidate out.
    """
    implied, pairs = parity_spot(columns, now_ns, rate, max_age_ns, 0)
    if math.isnan(last):
        return pairs < _ENOUGH or not is_jump(candidate, implied, Bands())
    if pairs >= _ENOUGH and _is_nearer(implied, candidate, last):
        return True
    if not seconded:
        return False
    implied, pairs = parity_spot(columns, now_ns, rate, max_age_ns, since_ns)
    return pairs < _ENOUGH or _is_nearer(implied, candidate, last)


_ENOUGH = 3
"""Pairs of a call and a put that together say what the underlying is worth."""


def _is_nearer(value: float, candidate: float, last: float) -> bool:
    return abs(math.log(value / candidate)) < abs(math.log(value / last))


@njit(cache=True, error_model="numpy")
def parity_spot(
    chain: ChainColumns, now_ns: int, rate: float, max_age_ns: int, since_ns: int
) -> tuple[float, int]:
    """Return what put-call parity says the underlying is worth, and by how many pairs it does.

    The median over the pairs of the nearest expiry that has at least three with fresh quotes of
    both rights, dated after `since_ns`; NaN and 0 where there is none.
    """
    values = np.empty(len(chain.strike))
    for g in range(len(chain.forward)):
        first, last = chain.group_start[g], chain.group_start[g + 1]
        t = (chain.expiry_ns[first] - now_ns) / YEAR_NS if last > first else 0.0
        if t <= 0.0:
            continue
        discount = np.exp(-rate * t)
        count = 0
        for i in range(first, last):
            j = chain.pair[i]
            if chain.right[i] != 1 or j < 0:
                continue
            if min(chain.quote_ns[i], chain.quote_ns[j]) <= since_ns:
                continue
            if not _speaks(chain, i, now_ns, max_age_ns):
                continue
            if not _speaks(chain, j, now_ns, max_age_ns):
                continue
            call = 0.5 * (chain.bid[i] + chain.ask[i])
            put = 0.5 * (chain.bid[j] + chain.ask[j])
            values[count] = chain.strike[i] * discount + call - put
            count += 1
        if count >= _ENOUGH:
            spot = np.median(values[:count])
            if spot > 0.0:
                return spot, count
    return np.nan, 0


@njit(cache=True)
def _speaks(chain: ChainColumns, i: int, now_ns: int, max_age_ns: int) -> bool:
    """Whether contract `i` has a quote that says what it is worth now."""
    return bool(is_tradable(chain.bid[i], chain.ask[i], chain.quote_ns[i], now_ns, max_age_ns))


@njit(cache=True, error_model="numpy")
def _forward(
    chain: ChainColumns,
    first: int,
    last: int,
    discount: float,
    spoken: NDArray[np.bool_],
    work: F64,
) -> float:
    """Median of the forwards by put-call parity, NaN with fewer than three pairs."""
    count = 0
    for i in range(first, last):
        j = chain.pair[i]
        if chain.right[i] == 1 and j >= 0 and spoken[i] and spoken[j]:
            call = 0.5 * (chain.bid[i] + chain.ask[i])
            put = 0.5 * (chain.bid[j] + chain.ask[j])
            work[count] = chain.strike[i] + (call - put) / discount
            count += 1
    return np.median(work[:count]) if count >= _ENOUGH else np.nan


_REACH = 3
"""Strikes to each side that speak for the value of one between them."""


@njit(cache=True, error_model="numpy")
def _side(
    chain: ChainColumns,
    i: int,
    right: int,
    step: int,
    first: int,
    last: int,
    above: F64,
    spoken: NDArray[np.bool_],
    work: F64,
) -> tuple[float, float, float, int]:
    """Median value above intrinsic, mean strike and median spread of the next strikes to one side.

    Of the contracts of `right` from `i` on in direction `step`; the last entry counts them.
    """
    count, strikes = 0, 0.0
    k = i + step
    while first <= k < last and count < _REACH:
        if chain.right[k] == right and spoken[k] and chain.strike[k] != chain.strike[i]:
            work[count] = above[k]
            work[_REACH + count] = chain.ask[k] - chain.bid[k]
            strikes += chain.strike[k]
            count += 1
        k += step
    if count == 0:
        return np.nan, np.nan, np.nan, 0
    value = np.median(work[:count])
    spread = np.median(work[_REACH : _REACH + count])
    return value, strikes / count, spread, count


@njit(cache=True, error_model="numpy")
def _interpolated(
    chain: ChainColumns,
    i: int,
    right: int,
    first: int,
    last: int,
    above: F64,
    spoken: NDArray[np.bool_],
    work: F64,
) -> tuple[float, float]:
    """Value above intrinsic at the strike of `i` by contracts of `right` around it, and a spread.

    NaN with fewer than two of them.
    """
    low, k_low, s_low, n_low = _side(chain, i, right, -1, first, last, above, spoken, work)
    high, k_high, s_high, n_high = _side(chain, i, right, 1, first, last, above, spoken, work)
    if n_low + n_high < 2:
        return np.nan, np.nan
    if n_low == 0:
        return high, s_high
    if n_high == 0:
        return low, s_low
    share = (chain.strike[i] - k_low) / (k_high - k_low)
    return low + share * (high - low), max(s_low, s_high)


@njit(cache=True, error_model="numpy")
def _extended(
    chain: ChainColumns,
    i: int,
    right: int,
    step: int,
    first: int,
    last: int,
    forward: float,
    discount: float,
    above: F64,
    spoken: NDArray[np.bool_],
) -> float:
    """Return what the line through the next two strikes to one side comes to at the strike of `i`.

    Prices are convex in the strike, so that no contract is worth less. NaN with fewer than two.
    """
    near_strike = near = np.nan
    k = i + step
    while first <= k < last:
        strike = chain.strike[k]
        apart = strike != chain.strike[i] and strike != near_strike
        if chain.right[k] == right and spoken[k] and apart:
            value = above[k] + max(right * (forward - strike), 0.0) * discount
            if not np.isnan(near):
                slope = (value - near) / (strike - near_strike)
                return float(near + slope * (chain.strike[i] - near_strike))
            near_strike, near = strike, value
        k += step
    return np.nan


@njit(cache=True, error_model="numpy")
def how_far_off(bid: float, ask: float, value: float, tolerance: float) -> float:
    """How far a quote lies beyond `tolerance` of `value`, USD a share; 0 or less when it does not.

    A side is off when trading against it would pay, and the middle when it is three times as far.
    """
    off = 0.0
    if bid > 0.0:
        off = max(off, bid - value - tolerance)
    if ask > 0.0:
        off = max(off, value - ask - tolerance)
    if bid > 0.0 and ask >= bid:
        off = max(off, abs(0.5 * (bid + ask) - value) - 3.0 * tolerance)
    return off


@njit(cache=True, error_model="numpy")
def _restore(chain: ChainColumns, kept: AdmissionState) -> None:
    """Put what is kept apart back, where nothing newer came, to be looked at again."""
    for i in range(len(chain.bid)):
        alone = kept.apart_ns[i] > 0 and chain.quote_ns[i] == kept.apart_ns[i]
        if alone and chain.bid[i] == 0.0 and chain.ask[i] == 0.0 and chain.ask_size[i] == 0.0:
            chain.bid[i], chain.ask[i] = kept.apart_bid[i], kept.apart_ask[i]
            chain.bid_size[i] = kept.apart_bid_size[i]
            chain.ask_size[i] = kept.apart_ask_size[i]


@njit(cache=True, error_model="numpy")
def _is_new(chain: ChainColumns, kept: AdmissionState, i: int) -> bool:
    """Whether the quote of contract `i` has not been looked at."""
    return bool(
        chain.quote_ns[i] != kept.seen_ns[i]
        or chain.bid[i] != kept.seen_bid[i]
        or chain.ask[i] != kept.seen_ask[i]
    )


@njit(cache=True, error_model="numpy")
def _from_chain(
    chain: ChainColumns,
    kept: AdmissionState,
    i: int,
    first: int,
    last: int,
    forward: float,
    discount: float,
    unit: float,
    spreads: float,
    above: F64,
    spoken: NDArray[np.bool_],
    work: F64,
) -> tuple[float, float, float]:
    """How far contract `i` is off what the rest of its expiry says, by the nearest that says it.

    Returns that distance, the tolerance that it was held against, and what the contract is worth by
    it; NaN when nothing speaks. A pair whose quote nobody has looked at yet does not speak for one
    that had a mark before: both may be wrong alike. Between strikes far apart the value above
    intrinsic has its peak, which those around it do not show, but the lines through them do.
    """
    bid, ask, j = chain.bid[i], chain.ask[i], chain.pair[i]
    money = forward - chain.strike[i]
    intrinsic = max(chain.right[i] * money, 0.0) * discount
    off, tolerance, worth = np.inf, unit, np.nan
    for voice in range(3):
        value = spread = np.nan
        if voice < 2:
            right = chain.right[i] if voice == 0 else -chain.right[i]
            value, spread = _interpolated(chain, i, right, first, last, above, spoken, work)
            view = (first, last, forward, discount, above, spoken)
            low = _extended(chain, i, right, -1, *view)
            high = _extended(chain, i, right, 1, *view)
            if not np.isnan(low + high):
                value = max(value, min(low, high) - max(right * money, 0.0) * discount)
        elif j >= 0 and spoken[j] and not (chain.mark[i] >= 0.0 and _is_new(chain, kept, j)):
            value, spread = above[j], chain.ask[j] - chain.bid[j]
        if np.isnan(value):
            continue
        # However wide the quotes, half of its worth is more than any of them may give away.
        width = max(min(spreads * spread, 0.5 * (intrinsic + value)), unit)
        here = how_far_off(bid, ask, intrinsic + value, width)
        if here < off:
            off, tolerance, worth = here, width, intrinsic + value
    return off, tolerance, worth


@njit(cache=True, error_model="numpy")
def _keep_apart(chain: ChainColumns, kept: AdmissionState, i: int) -> bool:
    """Take the quote of contract `i` out of the chain; False when it was out before."""
    bid, ask = chain.bid[i], chain.ask[i]
    again = (
        chain.quote_ns[i] == kept.apart_ns[i]
        and bid == kept.apart_bid[i]
        and ask == kept.apart_ask[i]
    )
    kept.apart_ns[i], kept.apart_bid[i], kept.apart_ask[i] = chain.quote_ns[i], bid, ask
    kept.apart_bid_size[i], kept.apart_ask_size[i] = chain.bid_size[i], chain.ask_size[i]
    chain.bid[i] = chain.ask[i] = chain.bid_size[i] = chain.ask_size[i] = 0.0
    kept.seen_bid[i] = kept.seen_ask[i] = 0.0
    return not again


@njit(cache=True, error_model="numpy")
def _listen(
    chain: ChainColumns,
    first: int,
    last: int,
    now_ns: int,
    max_age_ns: int,
    spoken: NDArray[np.bool_],
) -> None:
    """Fill which contracts of an expiry say what they are worth."""
    fresh = 0
    for i in range(first, last):
        spoken[i] = _speaks(chain, i, now_ns, max_age_ns)
        fresh += spoken[i]
    if fresh < 2 * _ENOUGH:
        # Right after a start what is known is old: then that speaks.
        for i in range(first, last):
            spoken[i] = chain.bid[i] > 0.0 and chain.ask[i] > chain.bid[i]


_ADMITTED, _APART, _UNCONFIRMED, _OUT_OF_BOUNDS = 0, 1, 2, 3


@njit(cache=True, error_model="numpy")
def _judge(
    chain: ChainColumns,
    kept: AdmissionState,
    i: int,
    first: int,
    last: int,
    forward: float,
    discount: float,
    bands: Bands,
    above: F64,
    spoken: NDArray[np.bool_],
    work: F64,
) -> int:
    """Look at the quote of contract `i` and keep it apart unless something supports it."""
    bid, ask, apart_ns = chain.bid[i], chain.ask[i], kept.apart_ns[i]
    kept.seen_ns[i], kept.seen_bid[i], kept.seen_ask[i] = chain.quote_ns[i], bid, ask
    if chain.quote_ns[i] == 0 or max(bid, ask) == 0.0 or 0.0 < ask < bid:
        kept.apart_ns[i] = 0
        return _ADMITTED
    strike, right = chain.strike[i], chain.right[i]
    scale = forward if forward > 0.0 else strike
    unit = 0.01 * bands.percent * scale
    most = strike
    if right > 0:
        most = forward * discount if forward > 0.0 else np.inf
    mark = chain.mark[i]
    if mark >= 0.0 and how_far_off(bid, ask, mark, unit) <= 0.0 and bid <= most + unit:
        kept.apart_ns[i] = 0
        return _ADMITTED
    intrinsic = max(right * (forward - strike), 0.0) * discount
    off, tolerance, worth = 0.0, unit, np.nan
    if forward > 0.0:
        off, tolerance, worth = _from_chain(
            chain,
            kept,
            i,
            first,
            last,
            forward,
            discount,
            unit,
            bands.spreads,
            above,
            spoken,
            work,
        )
    told = not np.isnan(worth)
    if mark >= 0.0:
        width = unit if told else max(3.0 * unit, 0.5 * mark)
        here = how_far_off(bid, ask, mark, width)
        if not told or here < off:
            off, tolerance = here, width
    elif not told:
        off = intrinsic - ask - tolerance if forward > 0.0 and ask > 0.0 else 0.0
    beyond = bid - most - unit
    if off > 0.0 and ask > 0.0:
        beyond = max(beyond, intrinsic - ask - tolerance)
    if off <= 0.0 and not beyond > 0.0:
        kept.apart_ns[i] = 0
        return _ADMITTED
    absurd = right < 0 and bid > strike + unit
    if told:
        # Far beyond all that the chain allows, or a fraction of what it says.
        cheap = worth > 2.0 * tolerance and 0.0 < ask < 0.25 * worth
        absurd = absurd or cheap or off > 4.0 * tolerance + 0.05 * scale
    same = (
        abs(bid - kept.apart_bid[i]) <= 3.0 * tolerance
        and abs(ask - kept.apart_ask[i]) <= 3.0 * tolerance
    )
    if 0 < apart_ns < chain.quote_ns[i] and same and not absurd:
        kept.apart_ns[i] = 0
        return _ADMITTED
    spoken[i] = False
    if not _keep_apart(chain, kept, i):
        return _APART
    return _OUT_OF_BOUNDS if beyond > 0.0 else _UNCONFIRMED


@njit(cache=True, error_model="numpy")
def vet(
    chain: ChainColumns,
    kept: AdmissionState,
    now_ns: int,
    spot: float,
    rate: float,
    max_age_ns: int,
    bands: Bands,
) -> tuple[int, int]:
    """Keep apart the new quotes that nothing supports; count them: unconfirmed, out of bounds.

    A contract is worth what its pair says by put-call parity, what the contracts of either right at
    the strikes around it say, or its mark of the bar before; a quote near any of these is admitted.
    Where none of them speaks only the bounds are left: no option is worth more than the underlying
    (call) or the strike (put), none can be had for less than its exercise brings.

    What was kept apart is looked at again, and let in when the chain has come to it, or when
    another quote of about the same price came after it; but that is not enough far beyond what the
    chain allows. `spot` is the underlying's last price, NaN where unknown.
    """
    chain, kept = borrowed(chain), borrowed(kept)
    n = len(chain.strike)
    above, work = np.empty(n), np.empty(max(n, 2 * _REACH))
    spoken = np.zeros(n, np.bool_)
    count = np.zeros(4, np.int64)
    _restore(chain, kept)
    for g in range(len(chain.forward)):
        first, last = chain.group_start[g], chain.group_start[g + 1]
        news = 0
        for i in range(first, last):
            news += kept.apart_ns[i] > 0 or _is_new(chain, kept, i)
        if news == 0:
            continue
        t = max((chain.expiry_ns[first] - now_ns) / YEAR_NS, 0.0)
        discount = np.exp(-rate * t)
        _listen(chain, first, last, now_ns, max_age_ns, spoken)
        forward = _forward(chain, first, last, discount, spoken, work)
        if np.isnan(forward):
            forward = spot / discount
        for i in range(first, last):
            intrinsic = max(chain.right[i] * (forward - chain.strike[i]), 0.0) * discount
            above[i] = 0.5 * (chain.bid[i] + chain.ask[i]) - intrinsic
        for i in range(first, last):
            if kept.apart_ns[i] > 0 or _is_new(chain, kept, i):
                view = (forward, discount, bands, above, spoken, work)
                count[_judge(chain, kept, i, first, last, *view)] += 1
    return count[_UNCONFIRMED], count[_OUT_OF_BOUNDS]
