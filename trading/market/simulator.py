"""A simulated exchange: the same world for every observer, whenever they arrive.

The world is a pure function of the seed and the time. Each symbol and session draws from its own
random streams, so neither the other symbols nor the moment of joining changes what is seen.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import exp, log, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trading.errors import CalendarError, ConfigError
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, SECOND_NS, ExchangeCalendar, Session
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

_PATH, _QUOTES, _NIGHT = 0, 1, 2
_REACH = 2.0
"""New strikes reach this many calm standard deviations of the expiry to either side."""

Listing = dict[date, tuple[int, ...]]


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


class _Opening(NamedTuple):
    """One underlying at a session's open; strikes in thousandths of a dollar by expiry."""

    state: State
    listing: Listing


@dataclass(frozen=True)
class _Underlying:
    """One underlying's rules: pure functions of the seed, the session and the opening."""

    spec: UnderlyingSpec
    model: MarketModel
    calendar: ExchangeCalendar
    seed: int
    step_seconds: int

    def rng(self, day: date, stream: int) -> np.random.Generator:
        name = zlib.crc32(self.spec.symbol.encode())
        return np.random.default_rng([self.seed, name, day.toordinal(), stream])

    def first(self, day: date) -> _Opening:
        state = State(self.spec.spot, log(self.spec.annual_vol), self.model.calm_skew, CALM)
        return _Opening(state, self._listed(day, self.spec.spot, {}))

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
        return _Opening(state, self._listed(following, state.spot, opening.listing))

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
        root = main_root(rules.spec.symbol)
        self.contracts = sorted(
            OptionContract(root, expiry, right, strike)
            for expiry, strikes in opening.listing.items()
            for strike in strikes
            for right in Right
        )
        n = len(self.contracts)
        self.paths = rules.paths(session, opening)
        self._rules = rules
        self._rng = rules.rng(session.date, _QUOTES)
        self._strike = np.array([contract.strike for contract in self.contracts])
        self._right = np.array([int(contract.right) for contract in self.contracts], dtype=np.int8)
        expiries = {expiry: rules.calendar.expiry_ns(expiry) for expiry in opening.listing}
        self._expiry_ns = np.array([expiries[c.expiry] for c in self.contracts], dtype=np.int64)
        self.bid, self.ask, self.bid_size, self.ask_size = np.zeros((4, n))
        self.quote_ns = np.zeros(n, dtype=np.int64)
        self._changed = np.zeros(n, dtype=np.bool_)

    def requote(self, step: int, now_ns: int, probability: float) -> I64:
        """Positions of the quotes that changed."""
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
            self.bid,
            self.ask,
            self.bid_size,
            self.ask_size,
            self.quote_ns,
            int(self._rules.spec.tick_class),
            probability,
            self._changed,
        )
        return np.flatnonzero(self._changed)

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
            self._rules.spec.symbol,
            start_ns,
            round(float(paths.spot[0, first]), 2),
            round(float(highs.max()), 2),
            round(float(lows.min()), 2),
            round(float(closes[-1]), 2),
            total,
            round(vwap, 4),
        )


class SimulatedSession:
    """One session of a simulated exchange.

    Attributes
    ----------
    session : Session
    contracts : list[OptionContract]
        Everything listed in the session, all underlyings, in the order that steps index.
    """

    def __init__(
        self, session: Session, rules: Sequence[_Underlying], openings: Sequence[_Opening]
    ) -> None:
        self.session = session
        self._rules = rules
        self._openings = openings
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
                bars = [book.bar(first, step, start_ns) for book in books]
            yield _gather(ts_ns, books, changes, bars)


def _gather(
    ts_ns: int, books: Sequence[_Book], changes: Sequence[I64], bars: list[StockBar]
) -> MarketStep:
    sizes = [len(book.contracts) for book in books]
    offsets = np.cumsum([0, *sizes[:-1]])
    pairs = list(zip(books, changes, strict=True))
    return MarketStep(
        ts_ns,
        np.concatenate([k + offset for k, offset in zip(changes, offsets, strict=True)]),
        np.concatenate([book.bid[k] for book, k in pairs]),
        np.concatenate([book.ask[k] for book, k in pairs]),
        np.concatenate([book.bid_size[k] for book, k in pairs]),
        np.concatenate([book.ask_size[k] for book, k in pairs]),
        np.concatenate([book.quote_ns[k] for book, k in pairs]),
        bars,
    )


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
    ) -> None:
        symbols = [spec.symbol for spec in specs]
        if not symbols or len(set(symbols)) < len(symbols):
            raise ConfigError([f"simulated symbols {symbols}: name at least one, each once"])
        if step_seconds < 1 or 60 % step_seconds:
            raise ConfigError([f"step_seconds {step_seconds}: use a divisor of 60, as in 5"])
        self.calendar = calendar or ExchangeCalendar()
        self._rules = [
            _Underlying(spec, _level(model, spec), self.calendar, seed, step_seconds)
            for spec in specs
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
