"""Adjusted contracts that are held: quoted and marked beside the chain, never offered to the agent.

A chain holds standard contracts, whose kernels know one deliverable. What a corporate action has
adjusted is kept here for the few that an account holds, until they are closed or expire.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trading.data.admission import LAST_NS, Refusal, is_older
from trading.data.massive.wire import MAX_PRICE
from trading.execution.deliverables import Adjusted
from trading.execution.holdings import marked
from trading.execution.orders import QuoteView
from trading.market.chain import Chain
from trading.market.pricing import black_price, greeks

NO_QUOTE = QuoteView(0.0, 0.0, 0.0, 0.0, 0)


class Worth(NamedTuple):
    """What a contract may cost, USD a share as it is quoted; NaN where it is not known."""

    least: float = math.nan
    """What its exercise brings."""
    value: float = math.nan
    """By the volatility of the nearest listed contract."""
    most: float = math.nan
    """What it delivers (call), or its strike (put)."""
    room: float = math.nan
    """How far a price may be off, at least."""

    def refusal(self, quote: QuoteView, before: QuoteView) -> Refusal | None:
        """Why a quote is not taken over; `before` is the one that was kept apart last.

        As in `trading.data.admission`: nothing is worth more than it delivers, or to be had for
        less than it brings, and what is far from its worth needs a second quote that says so.
        """
        bid, ask = quote.bid, quote.ask
        if bid > self.most + self.room or (ask > 0.0 and ask < self.least - self.room):
            return Refusal.OUT_OF_BOUNDS
        width = max(self.room, 0.5 * self.value)
        off = bid > self.value + width or (0.0 < ask < self.value - width)
        again = (
            0 < before.ts_ns < quote.ts_ns
            and abs(bid - before.bid) <= width
            and abs(ask - before.ask) <= width
        )
        return Refusal.UNCONFIRMED if off and not again else None


@dataclass(slots=True)
class AdjustedContract:
    """The last quote of one contract; `mark` is USD a share, NaN before the first quote."""

    quote: QuoteView = NO_QUOTE
    mark: float = math.nan
    sequence: int = -1
    apart: QuoteView = NO_QUOTE
    """The last quote that nothing supports."""


class AdjustedContracts:
    """What is held of adjusted contracts, by symbol."""

    def __init__(self) -> None:
        self._held: dict[str, AdjustedContract] = {}

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._held

    def keep(self, symbols: Iterable[str]) -> None:
        """Hold exactly these; quotes of those held before are kept."""
        self._held = {symbol: self._held.get(symbol, AdjustedContract()) for symbol in symbols}

    def begin_session(self) -> None:
        """Forget the sequence numbers of quotes: they start over with each session."""
        for each in self._held.values():
            each.sequence = -1

    def apply_quote(
        self, symbol: str, quote: QuoteView, sequence: int, worth: Worth | None = None
    ) -> Refusal | None:
        """Take over a quote; or the reason why it is refused, as those of listed contracts are."""
        held = self._held[symbol]
        if not 0 < quote.ts_ns < LAST_NS:
            return Refusal.MISTIMED
        if is_older(quote.ts_ns, sequence, held.quote.ts_ns, held.sequence):
            return Refusal.OLDER
        if not (0.0 <= quote.bid <= MAX_PRICE and 0.0 <= quote.ask <= MAX_PRICE):
            return Refusal.NOT_A_PRICE
        reason = (worth or Worth()).refusal(quote, held.apart)
        if reason is None:
            held.quote, held.sequence = quote, sequence
            held.mark = marked(quote, held.mark)
            held.apart = NO_QUOTE
        else:
            # Neither traded nor marked by it, and nothing older counts as a quote of now.
            held.quote = QuoteView(0.0, 0.0, 0.0, 0.0, quote.ts_ns)
            held.sequence, held.apart = sequence, quote
        return reason

    def quote(self, symbol: str) -> QuoteView:
        """The last quote; one without sides before the first."""
        return self._held[symbol].quote

    def mark(self, symbol: str) -> float:
        """Value in USD a share, NaN before the first quote."""
        return self._held[symbol].mark


def adjusted_worth(
    symbol: str,
    adjusted: Adjusted,
    multiplier: float,
    spot: float,
    vol: float,
    years: float,
) -> Worth:
    """What one adjusted contract may cost; without a price (NaN) nothing is known.

    Without a volatility (NaN) only the bounds are.
    """
    terms = adjusted.terms(symbol, multiplier)
    hundredths = adjusted.shares(symbol, multiplier) / multiplier
    if not spot > 0.0 or not hundredths > 0.0:
        return Worth()
    least = hundredths * max(terms.right * (spot - terms.strike), 0.0)
    most = hundredths * (max(spot, spot - terms.strike) if terms.right > 0 else terms.strike)
    value = least
    if terms.strike > 0.0:
        value = hundredths * black_price(terms.right, spot, terms.strike, max(years, 0.0), 1.0, vol)
    return Worth(least, value, max(most, 0.0), _ROOM * hundredths * spot)


_ROOM = 0.03
"""Share of what is delivered: spot and volatility are those of the bar before."""


def adjusted_greeks(
    symbol: str,
    adjusted: Adjusted,
    multiplier: float,
    spot: float,
    vol: float,
    years: float,
) -> tuple[float, float, float, float]:
    """Delta, gamma, vega and theta of one adjusted contract, as in `Columns` times its shares.

    It is as `shares / 100` standard contracts at another strike, see `Deliverable`. Without a
    volatility (NaN) its delta is that of its intrinsic value.
    """
    terms = adjusted.terms(symbol, multiplier)
    shares = adjusted.shares(symbol, multiplier)
    if terms.strike <= 0.0:  # Cash beyond the strike: a call is as its shares, a put is nothing.
        return (shares if terms.right > 0 else 0.0), 0.0, 0.0, 0.0
    if not math.isfinite(terms.strike) or not spot > 0.0:
        return 0.0, 0.0, 0.0, 0.0
    known = 0.0 if math.isnan(vol) else vol
    each = greeks(terms.right, spot, spot, terms.strike, max(years, 0.0), 1.0, known)
    delta, gamma, vega, theta = (shares * float(value) for value in each)
    return delta, gamma, vega, theta


def nearest_volatility(chain: Chain, strike: float, expiry_ns: int) -> float:
    """Implied volatility of the listed contract that is nearest in expiry, then in strike."""
    columns = chain.columns
    known = np.flatnonzero(np.isfinite(columns.iv))
    if not len(known):
        return math.nan
    apart_ns = np.abs(columns.expiry_ns[known] - expiry_ns)
    order = np.lexsort((np.abs(columns.strike[known] - strike), apart_ns))
    return float(columns.iv[known[order[0]]])
