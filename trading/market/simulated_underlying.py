"""One underlying of a simulated exchange: its price, its contracts, and how they are quoted."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from math import log, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, SECOND_NS, ExchangeCalendar, Session
from trading.market.companies import AdjustedSeries, Company, ListedStrikes, company_at_open
from trading.market.contracts import OptionContract, Right
from trading.market.factors import (
    CALM,
    OWN_SHOCKS,
    Factors,
    FactorState,
    overnight,
    simulate_factors,
)
from trading.market.listing import UnderlyingSpec, listing_expiries, listing_strikes
from trading.market.model import MarketModel
from trading.market.products import main_root
from trading.market.quotes import ChainQuotes, quote_chain
from trading.market.rare_events import (
    NOTHING_RARE,
    BadPrint,
    Halt,
    HaltNews,
    Misprint,
    RareEvents,
    bad_prints_of,
    halt_of,
)

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_PATH, _QUOTES, _NIGHT, _HALTS, _PRINTS = 0, 1, 2, 4, 5
COMPANY = 18
"""By it the default world meets every kind of corporate action within its first year."""
_COMMON = zlib.crc32(b"what underlyings share")
_HOUR_NS = 3600 * SECOND_NS
_REACH = 2.0
"""New strikes reach this many calm standard deviations of the expiry to either side."""


class Comovement(NamedTuple):
    """What the underlyings of one world have in common; nothing by default."""

    correlation: float = 0.0
    """Of the diffusive returns of any two underlyings, 0 to 1."""
    regimes: bool = False
    """Whether calm and stress come to all of them at once."""
    news_every_days: int = 0
    """Calendar days between two news of an underlying, each its own days; 0: as the model says."""

    @property
    def any(self) -> bool:
        """Whether the moves of one say anything of another's."""
        return self.correlation > 0.0 or self.regimes


INDEPENDENT = Comovement()


class UnderlyingAtOpen(NamedTuple):
    """One underlying at a session's open; `listing` is of its standard contracts."""

    state: FactorState
    listing: ListedStrikes
    company: Company


@dataclass(frozen=True)
class Underlying:
    """One underlying's rules: pure functions of the seed, the session and the opening."""

    spec: UnderlyingSpec
    model: MarketModel
    calendar: ExchangeCalendar
    seed: int
    step_seconds: int
    rare: RareEvents = NOTHING_RARE
    comovement: Comovement = INDEPENDENT

    def model_on(self, session: Session) -> MarketModel:
        """Return the model with the news that are next at a session's open."""
        every = self.comovement.news_every_days
        if not every:
            return self.model
        day = session.date + timedelta(
            days=(zlib.crc32(self.spec.symbol.encode()) - session.date.toordinal()) % every
        )
        # News of a day without a session come after the last one before it.
        dated = self.calendar.session_on(day)
        while dated is None:
            day -= timedelta(days=1)
            dated = self.calendar.session_on(day)
        return self.model._replace(event_ns=float(dated.close_ns + _HOUR_NS))

    def shared(self, day: date, stream: int, count: int) -> NDArray[np.float64]:
        """Return the shocks that all underlyings of the world share, see `simulate_path`."""
        if not self.comovement.any:
            return OWN_SHOCKS
        rng = np.random.default_rng([self.seed, _COMMON, day.toordinal(), stream])
        switches = rng.random(count)
        if not self.comovement.regimes:
            switches[:] = np.nan
        return np.stack([rng.standard_normal(count), switches])

    def rng(self, day: date, stream: int) -> np.random.Generator:
        name = zlib.crc32(self.spec.symbol.encode())
        return np.random.default_rng([self.seed, name, day.toordinal(), stream])

    def first(self, day: date) -> UnderlyingAtOpen:
        state = FactorState(self.spec.spot, log(self.spec.annual_vol), self.model.calm_skew, CALM)
        company = Company(self.spec.symbol)
        company, _, _ = self._morning(company, day, self.spec.spot, self.spec.spot, {})
        return UnderlyingAtOpen(state, self._listed(day, self.spec.spot, {}), company)

    def _morning(
        self, company: Company, day: date, spot: float, close: float, listing: ListedStrikes
    ) -> tuple[Company, float, ListedStrikes]:
        if not self.rare.any:
            return company, spot, listing
        rng = self.rng(day, COMPANY)
        home = self.spec.symbol
        return company_at_open(
            company, self.rare, home, day, spot, close, listing, rng, self.calendar
        )

    def halt(self, session: Session) -> Halt | None:
        """When nothing trades in a session."""
        if not self.rare.any:
            return None
        return halt_of(self.rare, self.spec.symbol, session, self.rng(session.date, _HALTS))

    def bad_prints(self, session: Session) -> list[BadPrint]:
        """Return what is printed wrong in a session."""
        if not self.rare.any:
            return []
        rng, step_ns = self.rng(session.date, _PRINTS), self.step_seconds * SECOND_NS
        return bad_prints_of(self.rare, self.spec.symbol, session, step_ns, rng)

    def next(
        self, session: Session, following: date, opening: UnderlyingAtOpen
    ) -> UnderlyingAtOpen:
        """Return the opening on the session after `session`, a night later."""
        paths = self.paths(session, opening)
        close = FactorState(
            float(paths.spot[0, -1]),
            log(paths.atm_iv[0, -1]),
            float(paths.skew[0, -1]),
            int(paths.regime[0, -1]),
            float(paths.gap[0, -1]),
        )
        rng = self.rng(session.date, _NIGHT)
        shared, loading = self.shared(session.date, _NIGHT, 1), sqrt(self.comovement.correlation)
        open_ns = self.calendar.next_session(session.date).open_ns
        event_ns, close_ns = float(self.model_on(session).event_ns), session.close_ns
        state = FactorState(
            *overnight(self.model, rng, close, close_ns, open_ns, event_ns, shared, loading)
        )
        halt = self.halt(session)
        company = opening.company
        if not company.listed or (halt is not None and halt.start_ns == session.open_ns):
            company = company.closed_at(session.date, round(close.spot, 2))
        company, spot, listing = self._morning(
            company, following, state.spot, close.spot, opening.listing
        )
        if company.listed:
            listing = self._listed(following, spot, listing)
        return UnderlyingAtOpen(state._replace(spot=spot), listing, company)

    def paths(self, session: Session, opening: UnderlyingAtOpen) -> Factors:
        """Return the session's factors as one market, B = 1."""
        spot, log_iv, skew, regime, gap = opening.state
        n_steps = (session.close_ns - session.open_ns) // (self.step_seconds * SECOND_NS)
        return simulate_factors(
            self.model,
            np.array([spot]),
            np.array([log_iv]),
            np.array([regime], dtype=np.int8),
            n_steps,
            float(self.step_seconds),
            self.rng(session.date, _PATH),
            skew0=np.array([skew]),
            gap0=np.array([gap]),
            shared=self.shared(session.date, _PATH, n_steps),
            loading=sqrt(self.comovement.correlation),
        )

    def _listed(self, day: date, spot: float, before: ListedStrikes) -> ListedStrikes:
        """Return what was listed and has not expired, with the strikes that this open adds."""
        listing = {expiry: strikes for expiry, strikes in before.items() if expiry >= day}
        for expiry in listing_expiries(day, self.calendar):
            years = max((expiry - day).days, 1) / 365
            coverage = _REACH * self.spec.annual_vol * sqrt(years)
            fresh = listing_strikes(spot, self.spec.n_strikes, coverage)
            strikes = {round(1000 * strike) for strike in fresh}
            listing[expiry] = tuple(sorted(strikes.union(listing.get(expiry, ()))))
        return listing


class QuotedUnderlying:
    """The quotes of one underlying's chain through one session."""

    def __init__(self, rules: Underlying, session: Session, opening: UnderlyingAtOpen) -> None:
        self.company = opening.company
        self.contracts, strikes, shares = _contracts(opening)
        n = len(self.contracts)
        self.paths = rules.paths(session, opening)
        self.halt = rules.halt(session) if self.company.listed else None
        self._rules, self._model = rules, rules.model_on(session)
        self._rng = rules.rng(session.date, _QUOTES)
        self._strike, self._share = np.array(strikes), np.array(shares)
        self._is_adjusted = bool((self._share != 1.0).any())
        self._right = np.array([int(contract.right) for contract in self.contracts], dtype=np.int8)
        expiries = {c.expiry: rules.calendar.expiry_ns(c.expiry) for c in self.contracts}
        self._expiry_ns = np.array([expiries[c.expiry] for c in self.contracts], dtype=np.int64)
        self._bid, self._ask, self._bid_size, self._ask_size = np.zeros((4, n))
        self._quote_ns = np.zeros(n, dtype=np.int64)
        self._quotes = ChainQuotes(
            self._strike, self._expiry_ns, self._right,
            self._bid, self._ask, self._bid_size, self._ask_size, self._quote_ns,
        )  # fmt: skip
        self._changed = np.zeros(n, dtype=np.bool_)
        prints = rules.bad_prints(session) if self.company.listed else []
        self._bad_quotes = _by_time(each for each in prints if each.misprint != Misprint.WILD_BAR)
        self._bad_bars = _by_time(each for each in prints if each.misprint == Misprint.WILD_BAR)
        self._to_correct: list[int] = []
        self._was_halted = False

    def requote(self, step: int, now_ns: int, probability: float) -> "QuoteChanges":
        """Return the quotes that changed."""
        self._was_halted, was_halted = self._is_halted(now_ns), self._was_halted
        if self._was_halted or not self.contracts:
            nothing = np.empty(0, np.int64)
            none = np.empty(0)
            return QuoteChanges(nothing, none, none, none, none, nothing)
        quote_chain(
            self._model,
            self._rng,
            float(self.paths.spot[0, step]),
            float(self.paths.atm_iv[0, step]),
            float(self.paths.skew[0, step]),
            now_ns,
            self._quotes,
            int(self._rules.spec.tick_class),
            1.0 if was_halted else probability,
            self._changed,
        )
        bad = self._bad_quotes.get(now_ns, [])
        wrong = [int(each.pick * len(self.contracts)) for each in bad]
        self._changed[[*wrong, *self._to_correct]] = True
        k = np.flatnonzero(self._changed)
        self._quote_ns[[*wrong, *self._to_correct]] = now_ns
        self._to_correct = wrong
        bid, ask = self._bid[k], self._ask[k]
        if self._is_adjusted:
            # The whole contract, told by the hundredth; see `AdjustedSeries`.
            bid, ask = np.round(bid * self._share[k], 2), np.round(ask * self._share[k], 2)
            ask = np.where((bid > 0.0) & (ask > 0.0), np.maximum(ask, bid + 0.01), ask)
        for each, position in zip(bad, wrong, strict=True):
            at = int(np.searchsorted(k, position))
            bid[at], ask[at] = _misprinted(each, float(bid[at]), float(ask[at]))
        return QuoteChanges(k, bid, ask, self._bid_size[k], self._ask_size[k], self._quote_ns[k])

    def _is_halted(self, now_ns: int) -> bool:
        return self.halt is not None and self.halt.holds(now_ns)

    def bars(self, first: int, last: int, start_ns: int) -> list[StockBar]:
        """Return the bar over steps `first` to `last`, where trading was not halted."""
        end_ns = start_ns + MINUTE_NS
        if not self.company.listed or self._is_halted(start_ns) or self._is_halted(end_ns - 1):
            return []
        bar = self.bar(first, last, start_ns)
        for each in self._bad_bars.get(start_ns, ()):
            price = max(round(bar.close * each.factor, 2), 0.01)
            bar = bar._replace(close=price, high=max(bar.high, price), low=min(bar.low, price))
        return [bar]

    def halt_news(self, now_ns: int) -> list[HaltNews]:
        """Return what the exchange tells of a halt at a step.

        Its begin, its end, and every minute.
        """
        if self.halt is None:
            return []
        is_minute = (now_ns - self.halt.start_ns) % MINUTE_NS == 0
        if self.halt.holds(now_ns) and is_minute:
            return [HaltNews(self.company.symbol, now_ns, True)]
        return [HaltNews(self.company.symbol, now_ns, False)] * (now_ns == self.halt.end_ns)

    def bar(self, first: int, last: int, start_ns: int) -> StockBar:
        """Return the bar over steps `first` to `last`, the last one excluded, in whole cents."""
        paths = self.paths
        volume = paths.volume[0, first:last]
        closes = paths.spot[0, first + 1 : last + 1]
        highs, lows = paths.high[0, first:last], paths.low[0, first:last]
        total = float(volume.sum())
        typical = (highs + lows + closes) / 3.0
        vwap = float(volume @ typical) / total if total > 0.0 else float(closes[-1])
        return StockBar(
            self.company.symbol,
            start_ns,
            round(float(paths.spot[0, first]), 2),
            round(float(highs.max()), 2),
            round(float(lows.min()), 2),
            round(float(closes[-1]), 2),
            total,
            round(vwap, 4),
        )


@dataclass(frozen=True, slots=True, eq=False)
class QuoteChanges:
    """Quotes of one chain that changed; see `MarketStep`."""

    index: I64
    bid: F64
    ask: F64
    bid_size: F64
    ask_size: F64
    quote_ns: I64


def _contracts(opening: UnderlyingAtOpen) -> tuple[list[OptionContract], list[float], list[float]]:
    """Return what is listed, with the strike and the share of a contract it is quoted as.

    An adjusted contract is a share of a standard one with another strike, see `Deliverable`.
    """
    root, series = main_root(opening.company.symbol), opening.company.adjusted
    contracts = [
        OptionContract(root, expiry, right, strike)
        for expiry, strikes in opening.listing.items()
        for strike in strikes
        for right in Right
    ]
    terms = {each: (each.strike, 1.0) for each in contracts}
    if series is not None:
        for adjusted in _adjusted_contracts(series):
            theirs = (100.0 * adjusted.strike - series.cash) / series.shares
            terms[adjusted] = (theirs, series.shares / 100.0)
    listed = sorted(terms)
    return listed, [terms[each][0] for each in listed], [terms[each][1] for each in listed]


def _adjusted_contracts(series: AdjustedSeries) -> list[OptionContract]:
    return [
        OptionContract(series.root, expiry, right, strike)
        for expiry, strikes in series.listing.items()
        for strike in strikes
        for right in Right
    ]


def _by_time(prints: Iterable[BadPrint]) -> dict[int, list[BadPrint]]:
    found: dict[int, list[BadPrint]] = {}
    for each in prints:
        found.setdefault(each.ts_ns, []).append(each)
    return found


def _misprinted(bad: BadPrint, bid: float, ask: float) -> tuple[float, float]:
    """Return a quote as it is printed wrongly."""
    if bad.misprint is Misprint.CROSSED:
        return ask + 0.05, max(bid, 0.05)
    if bad.factor == 0.0:
        return 0.0, 0.01
    return max(round(bid * bad.factor, 2), 5.0), max(round(ask * bad.factor, 2), 5.5)
