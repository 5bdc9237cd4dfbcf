"""Cuts the stream of market events into bars of exchange time."""

from collections import defaultdict
from typing import NamedTuple

from trading.data.massive.wire import (
    Aggregate,
    Event,
    EventDecoder,
    Quote,
    SecondAggregate,
    event_ns,
)
from trading.envs.live_env import LiveEnv
from trading.market.bars import StockBar
from trading.market.calendar import ExchangeCalendar, Session


class Bar(NamedTuple):
    """One decision time: `end_ns` within its session; `last` when it ends the session."""

    session: Session
    end_ns: int

    @property
    def last(self) -> bool:
        """Whether the session ends with this bar."""
        return self.end_ns >= self.session.close_ns


def first_bar_after(ts_ns: int, calendar: ExchangeCalendar, bar_ns: int) -> Bar:
    """The earliest bar that ends strictly after `ts_ns`."""
    session = calendar.session_at(ts_ns)
    if session is None or ts_ns >= session.close_ns:
        day = calendar.date_of(ts_ns)
        today = calendar.session_on(day)
        session = today if today and ts_ns < today.open_ns else calendar.next_session(day)
        ts_ns = session.open_ns
    end_ns = session.open_ns + ((ts_ns - session.open_ns) // bar_ns + 1) * bar_ns
    return Bar(session, min(end_ns, session.close_ns))


class BarClock:
    """Applies the events of the current bar and keeps those of later bars for their time.

    Events are cut by their own time, not by arrival: what a bar sees does not depend on how frames
    were packed or sockets scheduled. A bar is due when an event later than its end plus the grace
    has arrived. Later events wait in slices of `slice_ns`, so that a long backlog is looked
    through once and not at every bar.

    Attributes
    ----------
    quotes, bars
        Events applied, by kind.
    unknown, late
        Events of contracts that are not listed; events that came after their bar had closed.
    watermark_ns
        Latest event time seen.
    new_contracts, new_underlyings
        What was heard of for the first time; the reader empties them.
    """

    def __init__(self, env: LiveEnv, bar: Bar, slice_ns: int, grace_ns: int = 0) -> None:
        self.bar = bar
        self.quotes = 0
        self.bars = 0
        self.unknown = 0
        self.late = 0
        self.watermark_ns = 0
        self.decoder = EventDecoder()
        self.new_contracts: list[str] = []
        self.new_underlyings: list[str] = []
        self._heard: set[str] = set()
        self._env = env
        self._grace_ns = grace_ns
        self._closed_ns = 0
        self._slice_ns = slice_ns
        self._waiting: defaultdict[int, list[tuple[int, Event]]] = defaultdict(list)

    @property
    def due(self) -> bool:
        """Whether the current bar can be closed."""
        return self.watermark_ns > self.bar.end_ns + self._grace_ns

    @property
    def complete(self) -> bool:
        """Whether events have reached the end of the current bar; enough once the stream ended."""
        return self.watermark_ns >= self.bar.end_ns

    def take(self, frame: bytes | str) -> None:
        """Decode one frame; apply what belongs to the current bar, keep what is later."""
        end_ns = self.bar.end_ns
        for event in self.decoder.decode(frame):
            if isinstance(event, Quote):
                ts_ns = event_ns(event.t)
            elif isinstance(event, Aggregate):
                ts_ns = event_ns(event.e)
            else:
                continue
            self.watermark_ns = max(self.watermark_ns, ts_ns)
            if ts_ns <= end_ns:
                self._apply(ts_ns, event)
            else:
                self._waiting[ts_ns // self._slice_ns].append((ts_ns, event))

    def advance(self, bar: Bar) -> None:
        """Go on to the next bar and apply what has already arrived for it."""
        self._closed_ns, self.bar = self.bar.end_ns, bar
        last = bar.end_ns // self._slice_ns
        for part in sorted(part for part in self._waiting if part <= last):
            later = []
            for ts_ns, event in self._waiting.pop(part):
                if ts_ns <= bar.end_ns:
                    self._apply(ts_ns, event)
                else:
                    later.append((ts_ns, event))
            if later:
                self._waiting[part] = later

    def _apply(self, ts_ns: int, event: Event) -> None:
        if ts_ns <= self._closed_ns:
            self.late += 1
        if isinstance(event, Quote):
            self.quotes += 1
            if event.sym not in self._heard:
                self._heard.add(event.sym)
                self.new_contracts.append(event.sym)
            if not self._env.apply_quote(
                event.sym, event.bp, event.ap, event.bs, event.as_, ts_ns, event.q
            ):
                self.unknown += 1
        elif isinstance(event, Aggregate) and not isinstance(event, SecondAggregate):
            self.bars += 1
            if event.sym not in self._heard:
                self._heard.add(event.sym)
                self.new_underlyings.append(event.sym)
            self._env.apply_bar(stock_bar(event))


def stock_bar(event: Aggregate) -> StockBar:
    """The bar that an aggregate event describes."""
    return StockBar(
        event.sym, event_ns(event.s), event.o, event.h, event.l, event.c, event.v, event.vw
    )
