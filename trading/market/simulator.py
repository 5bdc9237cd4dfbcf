"""A simulated exchange: the same world for every observer, whenever they arrive.

The world is a pure function of the seed and the time. Each symbol and session draws from its own
random streams, so neither the other symbols nor the moment of joining changes what is seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from trading.errors import CalendarError, ConfigError
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, SECOND_NS, ExchangeCalendar, Session
from trading.market.companies import alias_of
from trading.market.factors import (
    Factors,
    simulate_factors,
)
from trading.market.listing import (
    UnderlyingSpec,
    default_spec,
    listing_expiries,
    listing_strikes,
)
from trading.market.model import DEFAULT_MODEL, MarketModel
from trading.market.quotes import TickClass, quote_chain
from trading.market.rare_events import (
    NOTHING_RARE,
    HaltNews,
    RareEvents,
)
from trading.market.simulated_underlying import (
    INDEPENDENT,
    Comovement,
    QuoteChanges,
    QuotedUnderlying,
    Underlying,
    UnderlyingAtOpen,
)
from trading.market.surface import surface_iv, variance_years

__all__ = [
    "DEFAULT_MODEL",
    "Comovement",
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
        self, session: Session, rules: Sequence[Underlying], openings: Sequence[UnderlyingAtOpen]
    ) -> None:
        self.session = session
        self._rules = rules
        self._openings = openings
        self.companies = [opening.company for opening in openings]
        self.contracts = [contract for book in self._books() for contract in book.contracts]

    def _books(self) -> list[QuotedUnderlying]:
        pairs = zip(self._rules, self._openings, strict=True)
        return [QuotedUnderlying(rules, self.session, opening) for rules, opening in pairs]

    def steps(self, from_ns: int | None = None) -> Iterator[MarketStep]:
        """Yield the session from its open, where everything is quoted, to its close, both included.

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
    books: Sequence[QuotedUnderlying],
    changes: Sequence[QuoteChanges],
    bars: list[StockBar],
    halts: list[HaltNews],
) -> MarketStep:
    sizes = [len(book.contracts) for book in books]
    offsets = np.cumsum([0, *sizes[:-1]])
    moved = [each.index + offset for each, offset in zip(changes, offsets, strict=True)]
    return MarketStep(
        ts_ns,
        np.concatenate(moved),
        np.concatenate([each.bid for each in changes]),
        np.concatenate([each.ask for each in changes]),
        np.concatenate([each.bid_size for each in changes]),
        np.concatenate([each.ask_size for each in changes]),
        np.concatenate([each.quote_ns for each in changes]),
        bars,
        halts,
    )


class SimulatedExchange:
    """Underlyings and their options in a world that begins at `first_session`.

    Underlyings move independently of each other, but for what `comovement` says. A contract stays
    listed from the session that adds it until it expires. Prices, volatility, skew and regime carry
    over nights, which bring a gap; asking for a later session first walks through all the earlier
    ones.

    Parameters
    ----------
    specs : the underlyings, at least one, each once
    first_session : date of the first session in New York
    seed : the world; equal seeds give equal worlds
    model : shared by all underlyings, except that each has its own volatility level
    calendar : the exchange's hours
    step_seconds : exchange time between steps; a divisor of 60
    rare : corporate actions, halts and bad prints; nothing of the kind by default
    comovement : correlation, regimes and news of the underlyings; they share nothing by default

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
        comovement: Comovement = INDEPENDENT,
    ) -> None:
        symbols = [spec.symbol for spec in specs]
        if not symbols or len(set(symbols)) < len(symbols):
            raise ConfigError([f"simulated symbols {symbols}: name at least one, each once"])
        if step_seconds < 1 or 60 % step_seconds:
            raise ConfigError([f"step_seconds {step_seconds}: use a divisor of 60, as in 5"])
        self.calendar = calendar or ExchangeCalendar()
        self._rules = [
            Underlying(
                spec, _level(model, spec), self.calendar, seed, step_seconds, rare, comovement
            )
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
        self._openings: dict[date, tuple[UnderlyingAtOpen, ...]] = {first_session: first}
        self._latest = self._first

    def session(self, day: date) -> SimulatedSession:
        """Return the session of a New York date.

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
    """Return the model at the volatility level of one underlying."""
    scale = log(spec.annual_vol / model.calm_vol)
    return model._replace(
        calm_vol=spec.annual_vol,
        stressed_vol=float(model.stressed_vol * exp(scale)),
        event_move=float(model.event_move * exp(scale)),
    )
