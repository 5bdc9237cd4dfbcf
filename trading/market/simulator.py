"""A simulated exchange: the same world for every observer, whenever they arrive.

The world is a pure function of the seed and the time. Each symbol and session draws from its own
random streams, so neither the other symbols nor the moment of joining changes what is seen.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from math import exp, log, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trading.errors import CalendarError, ConfigError
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, SECOND_NS, ExchangeCalendar, Session
from trading.market.companies import Company, Listing, alias_of, morning
from trading.market.contracts import OptionContract, Right
from trading.market.factors import (
    CALM,
    SESSIONS_PER_YEAR,
    Factors,
    State,
    advance,
    simulate_factors,
)
from trading.market.listing import (
    UnderlyingSpec,
    default_spec,
    listing_expiries,
    listing_strikes,
)
from trading.market.model import DEFAULT_MODEL, MarketModel
from trading.market.products import main_root
from trading.market.quotes import TickClass, quote_chain
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
from trading.market.surface import surface_iv, variance_years

__all__ = [
    "DEFAULT_MODEL",
    "Factors",
    "MarketModel",
    "MarketStep",
    "SimulatedExchange",
    "SimulatedSession",
    "TickClass",
    "UnderlyingSpec",
    "default_spec",
    "listing_expiries",
    "listing_strikes",
    "quote_chain",
    "simulate_factors",
    "surface_iv",
    "variance_years",
]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_PATH, _QUOTES, _NIGHT, _HALTS, _PRINTS = 0, 1, 2, 4, 5
_COMPANY = 18
"""By it the default world meets every kind of corporate action within its first year."""
_REACH = 2.0
"""New strikes reach this many calm standard deviations of the expiry to either side."""


@dataclass(frozen=True, slots=True, eq=False)
class MarketStep:
    """What happened on the exchange up to and including `ts_ns`; arrays are the reader's own."""

    ts_ns: int
    index: I64
    """[K], positions in `SimulatedSession.contracts` of the quotes that changed, rising."""
    bid: F64
    """[K], USD per share; 0 where nobody bids, and likewise `ask`."""
    ask: F64
    bid_size: F64
    """[K], contracts."""
    ask_size: F64
    quote_ns: I64
    """[K], when the quote was made, whole milliseconds, at most `ts_ns`."""
    bars: list[StockBar]
    """Minute bars whose window ended at `ts_ns`."""
    halts: list[HaltNews] = field(default_factory=list)
    """Halts that began or ended, and every minute those that go on."""


class _Opening(NamedTuple):
    """One underlying at a session's open; `listing` is of its standard contracts."""

    state: State
    listing: Listing
    company: Company


@dataclass(frozen=True)
class _Underlying:
    """One underlying's rules: pure functions of the seed, the session and the opening."""

    spec: UnderlyingSpec
    model: MarketModel
    calendar: ExchangeCalendar
    seed: int
    step_seconds: int
    rare: RareEvents = NOTHING_RARE

    def rng(self, day: date, stream: int) -> np.random.Generator:
        name = zlib.crc32(self.spec.symbol.encode())
        return np.random.default_rng([self.seed, name, day.toordinal(), stream])

    def first(self, day: date) -> _Opening:
        state = State(self.spec.spot, log(self.spec.annual_vol), self.model.calm_skew, CALM)
        company = Company(self.spec.symbol)
        company, _, _ = self._morning(company, day, self.spec.spot, self.spec.spot, {})
        return _Opening(state, self._listed(day, self.spec.spot, {}), company)

    def _morning(
        self, company: Company, day: date, spot: float, close: float, listing: Listing
    ) -> tuple[Company, float, Listing]:
        if not self.rare.any:
            return company, spot, listing
        rng = self.rng(day, _COMPANY)
        home = self.spec.symbol
        return morning(company, self.rare, home, day, spot, close, listing, rng, self.calendar)

    def halt(self, session: Session) -> Halt | None:
        """When nothing trades in a session."""
        if not self.rare.any:
            return None
        return halt_of(self.rare, self.spec.symbol, session, self.rng(session.date, _HALTS))

    def bad_prints(self, session: Session) -> list[BadPrint]:
        """What is printed wrong in a session."""
        if not self.rare.any:
            return []
        rng, step_ns = self.rng(session.date, _PRINTS), self.step_seconds * SECOND_NS
        return bad_prints_of(self.rare, self.spec.symbol, session, step_ns, rng)

    def next(self, session: Session, following: date, opening: _Opening) -> _Opening:
        """The opening on the session after `session`, a night later."""
        paths = self.paths(session, opening)
        close = State(
            float(paths.spot[0, -1]),
            log(paths.atm_iv[0, -1]),
            float(paths.skew[0, -1]),
            int(paths.regime[0, -1]),
        )
        years = self.model.overnight_share / SESSIONS_PER_YEAR
        rng = self.rng(session.date, _NIGHT)
        state, _, _ = advance(self.model, rng, close, years, 0.0)
        open_ns = self.calendar.next_session(session.date).open_ns
        if session.close_ns < self.model.event_ns <= open_ns:
            state = state._replace(
                spot=state.spot * exp(self.model.event_move * rng.standard_normal())
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
        return _Opening(state._replace(spot=spot), listing, company)

    def paths(self, session: Session, opening: _Opening) -> Factors:
        """The session's factors as one market, B = 1."""
        spot, log_iv, skew, regime = opening.state
        return simulate_factors(
            self.model,
            np.array([spot]),
            np.array([log_iv]),
            np.array([regime], dtype=np.int8),
            (session.close_ns - session.open_ns) // (self.step_seconds * SECOND_NS),
            float(self.step_seconds),
            self.rng(session.date, _PATH),
            skew0=np.array([skew]),
        )

    def _listed(self, day: date, spot: float, before: Listing) -> Listing:
        """What was listed and has not expired, with the strikes that this open adds."""
        listing = {expiry: strikes for expiry, strikes in before.items() if expiry >= day}
        for expiry in listing_expiries(day, self.calendar):
            years = max((expiry - day).days, 1) / 365
            coverage = _REACH * self.spec.annual_vol * sqrt(years)
            fresh = listing_strikes(spot, self.spec.n_strikes, coverage)
            strikes = {round(1000 * strike) for strike in fresh}
            listing[expiry] = tuple(sorted(strikes.union(listing.get(expiry, ()))))
        return listing


class _Book:
    """The quotes of one underlying's chain through one session."""

    def __init__(self, rules: _Underlying, session: Session, opening: _Opening) -> None:
        self.company = opening.company
        self.contracts, strikes, shares = _contracts(opening)
        n = len(self.contracts)
        self.paths = rules.paths(session, opening)
        self.halt = rules.halt(session) if self.company.listed else None
        self._rules = rules
        self._rng = rules.rng(session.date, _QUOTES)
        self._strike, self._share = np.array(strikes), np.array(shares)
        self._is_adjusted = bool((self._share != 1.0).any())
        self._right = np.array([int(contract.right) for contract in self.contracts], dtype=np.int8)
        expiries = {c.expiry: rules.calendar.expiry_ns(c.expiry) for c in self.contracts}
        self._expiry_ns = np.array([expiries[c.expiry] for c in self.contracts], dtype=np.int64)
        self._bid, self._ask, self._bid_size, self._ask_size = np.zeros((4, n))
        self._quote_ns = np.zeros(n, dtype=np.int64)
        self._changed = np.zeros(n, dtype=np.bool_)
        prints = rules.bad_prints(session) if self.company.listed else []
        self._bad_quotes = _by_time(each for each in prints if each.misprint != Misprint.WILD_BAR)
        self._bad_bars = _by_time(each for each in prints if each.misprint == Misprint.WILD_BAR)
        self._to_correct: list[int] = []
        self._was_halted = False

    def requote(self, step: int, now_ns: int, probability: float) -> "_Requoted":
        """The quotes that changed."""
        self._was_halted, was_halted = self._is_halted(now_ns), self._was_halted
        if self._was_halted or not self.contracts:
            nothing = np.empty(0, np.int64)
            return _Requoted(nothing, *np.empty((4, 0)), nothing)
        quote_chain(
            self._rules.model,
            self._rng,
            float(self.paths.spot[0, step]),
            float(self.paths.atm_iv[0, step]),
            float(self.paths.skew[0, step]),
            now_ns,
            self._strike,
            self._expiry_ns,
            self._right,
            self._bid,
            self._ask,
            self._bid_size,
            self._ask_size,
            self._quote_ns,
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
        for each, position in zip(bad, wrong, strict=True):
            at = int(np.searchsorted(k, position))
            bid[at], ask[at] = _misprinted(each, float(bid[at]), float(ask[at]))
        return _Requoted(k, bid, ask, self._bid_size[k], self._ask_size[k], self._quote_ns[k])

    def _is_halted(self, now_ns: int) -> bool:
        return self.halt is not None and self.halt.holds(now_ns)

    def bars(self, first: int, last: int, start_ns: int) -> list[StockBar]:
        """The bar over steps `first` to `last`, where trading was not halted."""
        end_ns = start_ns + MINUTE_NS
        if not self.company.listed or self._is_halted(start_ns) or self._is_halted(end_ns - 1):
            return []
        bar = self.bar(first, last, start_ns)
        for each in self._bad_bars.get(start_ns, ()):
            price = max(round(bar.close * each.factor, 2), 0.01)
            bar = bar._replace(close=price, high=max(bar.high, price), low=min(bar.low, price))
        return [bar]

    def halt_news(self, now_ns: int) -> list[HaltNews]:
        """What the exchange tells of a halt at a step: its begin, its end, and every minute."""
        if self.halt is None:
            return []
        is_minute = (now_ns - self.halt.start_ns) % MINUTE_NS == 0
        if self.halt.holds(now_ns) and is_minute:
            return [HaltNews(self.company.symbol, now_ns, True)]
        return [HaltNews(self.company.symbol, now_ns, False)] * (now_ns == self.halt.end_ns)

    def bar(self, first: int, last: int, start_ns: int) -> StockBar:
        """The bar over steps `first` to `last`, the last one excluded, in whole cents."""
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


class _Requoted(NamedTuple):
    """Quotes of one chain that changed; see `MarketStep`."""

    index: I64
    bid: F64
    ask: F64
    bid_size: F64
    ask_size: F64
    quote_ns: I64


def _contracts(opening: _Opening) -> tuple[list[OptionContract], list[float], list[float]]:
    """What is listed, and of each the strike and the share of a contract that it is quoted as.

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
    for expiry, strikes in series.listing.items() if series else ():
        for strike, right in ((strike, right) for strike in strikes for right in Right):
            adjusted = OptionContract(series.root, expiry, right, strike)
            theirs = (100.0 * adjusted.strike - series.cash) / series.shares
            terms[adjusted] = (theirs, series.shares / 100.0)
    listed = sorted(terms)
    return listed, [terms[each][0] for each in listed], [terms[each][1] for each in listed]


def _by_time(prints: Iterable[BadPrint]) -> dict[int, list[BadPrint]]:
    found: dict[int, list[BadPrint]] = {}
    for each in prints:
        found.setdefault(each.ts_ns, []).append(each)
    return found


def _misprinted(bad: BadPrint, bid: float, ask: float) -> tuple[float, float]:
    """A quote as it is printed wrongly."""
    if bad.misprint is Misprint.CROSSED:
        return ask + 0.05, max(bid, 0.05)
    if bad.factor == 0.0:
        return 0.0, 0.01
    return max(round(bid * bad.factor, 2), 5.0), max(round(ask * bad.factor, 2), 5.5)


class SimulatedSession:
    """One session of a simulated exchange.

    Attributes
    ----------
    session : Session
    contracts : list[OptionContract]
        Everything listed in the session, all underlyings, in the order that steps index.
    companies : list[Company]
        Where each company stands at the open, and what it has announced.
    """

    def __init__(
        self, session: Session, rules: Sequence[_Underlying], openings: Sequence[_Opening]
    ) -> None:
        self.session = session
        self._rules = rules
        self._openings = openings
        self.companies = [opening.company for opening in openings]
        self.contracts = [contract for book in self._books() for contract in book.contracts]

    def _books(self) -> list[_Book]:
        pairs = zip(self._rules, self._openings, strict=True)
        return [_Book(rules, self.session, opening) for rules, opening in pairs]

    def steps(self, from_ns: int | None = None) -> Iterator[MarketStep]:
        """The session from its open, where everything is quoted, to its close, both included.

        With `from_ns`, only the steps at or after it; they equal those that an observer from the
        open sees. Every call starts over.
        """
        books = self._books()
        step_seconds = self._rules[0].step_seconds
        step_ns = step_seconds * SECOND_NS
        per_bar = MINUTE_NS // step_ns
        renewal = 1.0 - (1.0 - self._rules[0].model.requote_per_bar) ** (step_seconds / 60)
        for step, ts_ns in enumerate(
            range(self.session.open_ns, self.session.close_ns + 1, step_ns)
        ):
            changes = [book.requote(step, ts_ns, renewal if step else 1.0) for book in books]
            if from_ns is not None and ts_ns < from_ns:
                continue
            bars = []
            if step and step % per_bar == 0:
                first, start_ns = step - per_bar, ts_ns - MINUTE_NS
                bars = [bar for book in books for bar in book.bars(first, step, start_ns)]
            halts = [news for book in books for news in book.halt_news(ts_ns)]
            yield _gather(ts_ns, books, changes, bars, halts)


def _gather(
    ts_ns: int,
    books: Sequence[_Book],
    changes: Sequence[_Requoted],
    bars: list[StockBar],
    halts: list[HaltNews],
) -> MarketStep:
    sizes = [len(book.contracts) for book in books]
    offsets = np.cumsum([0, *sizes[:-1]])
    moved = [
        each._replace(index=each.index + offset)
        for each, offset in zip(changes, offsets, strict=True)
    ]
    columns = [np.concatenate(column) for column in zip(*moved, strict=True)]
    return MarketStep(ts_ns, *columns, bars, halts)


class SimulatedExchange:
    """Underlyings and their options in a world that begins at `first_session`.

    Underlyings move independently of each other. A contract stays listed from the session that
    adds it until it expires. Prices, volatility, skew and regime carry over nights, which bring a
    gap; asking for a later session first walks through all the earlier ones.

    Parameters
    ----------
    specs : the underlyings, at least one, each once
    first_session : date of the first session in New York
    seed : the world; equal seeds give equal worlds
    model : shared by all underlyings, except that each has its own volatility level
    calendar : the exchange's hours
    step_seconds : exchange time between steps; a divisor of 60
    rare : corporate actions, halts and bad prints; nothing of the kind by default

    Raises
    ------
    ConfigError
        `specs` is empty or repeats a symbol, or `step_seconds` does not divide a minute.
    CalendarError
        `first_session` is no session, or a session before it is asked for.
    """

    def __init__(
        self,
        specs: Sequence[UnderlyingSpec],
        first_session: date,
        seed: int,
        model: MarketModel = DEFAULT_MODEL,
        calendar: ExchangeCalendar | None = None,
        step_seconds: int = 5,
        rare: RareEvents = NOTHING_RARE,
    ) -> None:
        symbols = [spec.symbol for spec in specs]
        if not symbols or len(set(symbols)) < len(symbols):
            raise ConfigError([f"simulated symbols {symbols}: name at least one, each once"])
        if step_seconds < 1 or 60 % step_seconds:
            raise ConfigError([f"step_seconds {step_seconds}: use a divisor of 60, as in 5"])
        self.calendar = calendar or ExchangeCalendar()
        self._rules = [
            _Underlying(spec, _level(model, spec), self.calendar, seed, step_seconds, rare)
            for spec in specs
        ]
        names = [*symbols, *map(alias_of, symbols)]
        self._rules = [
            # A name that is taken is no name to change to.
            replace(each, rare=replace(rare, renames=0.0))
            if names.count(alias_of(each.spec.symbol)) > 1
            else each
            for each in self._rules
        ]
        self._first = self._session_on(first_session)
        first = tuple(rules.first(first_session) for rules in self._rules)
        self._openings: dict[date, tuple[_Opening, ...]] = {first_session: first}
        self._latest = self._first

    def session(self, day: date) -> SimulatedSession:
        """The session of a New York date.

        Raises
        ------
        CalendarError
            The exchange is shut that day, or the day is before the first session.
        """
        session = self._session_on(day)
        if day < self._first.date:
            raise CalendarError(
                f"simulated session {day} lies before the world's first session "
                f"{self._first.date}: ask for a later one, or begin earlier"
            )
        while self._latest.date < day:
            self._pass_night()
        return SimulatedSession(session, self._rules, self._openings[day])

    def _session_on(self, day: date) -> Session:
        session = self.calendar.session_on(day)
        if session is None:
            following = self.calendar.next_session(day - timedelta(days=1)).date
            raise CalendarError(f"no session on {day}: the next one is {following}")
        return session

    def _pass_night(self) -> None:
        today = self._latest
        following = self.calendar.next_session(today.date)
        self._openings[following.date] = tuple(
            rules.next(today, following.date, opening)
            for rules, opening in zip(self._rules, self._openings[today.date], strict=True)
        )
        self._latest = following


def _level(model: MarketModel, spec: UnderlyingSpec) -> MarketModel:
    """The model at the volatility level of one underlying."""
    scale = log(spec.annual_vol / model.calm_vol)
    return model._replace(
        calm_vol=spec.annual_vol, stressed_vol=float(model.stressed_vol * exp(scale))
    )
