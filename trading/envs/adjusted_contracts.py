"""Adjusted contracts that are held: quoted and marked beside the chain, never offered to the agent.

A chain holds standard contracts, whose kernels know one deliverable. What a corporate action has
adjusted is kept here for the few that an account holds, until they are closed or expire.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from trading.data.admission import LAST_NS, Refusal, how_far_off, is_older
from trading.data.massive.wire import MAX_PRICE
from trading.execution.deliverables import AdjustedSymbols
from trading.execution.holdings import marked
from trading.execution.orders import QuoteView
from trading.market.chain import Chain
from trading.market.option_quote import OptionQuote
from trading.market.pricing import greeks

NO_QUOTE = QuoteView(0.0, 0.0, 0.0, 0.0, 0)


@dataclass(slots=True)
class AdjustedContract:
    """The last quote of one contract; values are USD a share, NaN before the first quote."""

    quote: QuoteView = NO_QUOTE
    value: float = math.nan
    """What the quotes so far say it is worth; the next one is held against it."""
    mark: float = math.nan
    """`value` when the last bar closed."""
    sequence: int = -1
    apart: QuoteView = NO_QUOTE
    """A quote far from what the contract was worth, until another one confirms it."""


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
        self,
        told: OptionQuote,
        worth: float,
        unit: float,
        most: float = math.inf,
    ) -> Refusal | None:
        """Take over a quote, or say why not; see `trading.data.admission` for the rules.

        No chain speaks for an adjusted contract. A quote far from the value that those before it
        told (`worth` before the first one, USD a share), by more than half of it and `unit`, is
        kept apart, and the contract has no quote, until a later one says the same; but one above
        `most`, which nothing can make it worth, is not confirmed by being repeated.
        """
        held = self._held[told.symbol]
        if not 0 < told.ts_ns < LAST_NS:
            return Refusal.MISTIMED
        if is_older(told.ts_ns, told.sequence, held.quote.ts_ns, held.sequence):
            return Refusal.OLDER
        if not (0.0 <= told.bid <= MAX_PRICE and 0.0 <= told.ask <= MAX_PRICE):
            return Refusal.NOT_A_PRICE
        quote = QuoteView(told.bid, told.ask, told.bid_size, told.ask_size, told.ts_ns)
        value = worth if math.isnan(held.value) else held.value
        width = max(unit, 0.5 * value)
        beyond = quote.bid > most + unit
        if beyond or (_off(quote, value, width) and not _is_same(quote, held.apart, width)):
            held.apart, held.sequence = quote, told.sequence
            held.quote = NO_QUOTE._replace(ts_ns=told.ts_ns)
            return Refusal.OUT_OF_BOUNDS if beyond else Refusal.UNCONFIRMED
        held.quote, held.sequence, held.apart = quote, told.sequence, NO_QUOTE
        held.value = marked(quote, held.value)
        return None

    def close_bar(self) -> None:
        """Mark each contract at the value of now; within a bar no quote moves a mark."""
        for each in self._held.values():
            each.mark = each.value

    def quote(self, symbol: str) -> QuoteView:
        """Return the last quote; one without sides before the first."""
        return self._held[symbol].quote

    def mark(self, symbol: str) -> float:
        """Value in USD a share at the last bar's close, NaN before the first quote."""
        return self._held[symbol].mark


def _off(quote: QuoteView, value: float, width: float) -> bool:
    """Return whether a quote, or its middle, is off by more than `width`."""
    crossed = 0.0 < quote.ask < quote.bid
    return not crossed and bool(how_far_off(quote.bid, quote.ask, value, width) > 0.0)


def _is_same(quote: QuoteView, apart: QuoteView, width: float) -> bool:
    near = abs(quote.bid - apart.bid) <= width and abs(quote.ask - apart.ask) <= width
    return 0 < apart.ts_ns < quote.ts_ns and near


def adjusted_greeks(
    symbol: str,
    adjusted: AdjustedSymbols,
    multiplier: float,
    spot: float,
    vol: float,
    years: float,
) -> tuple[float, float, float, float]:
    """Delta, gamma, vega and theta of one adjusted contract, as in `ChainColumns` times its shares.

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
