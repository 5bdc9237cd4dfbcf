"""Cuts the stream of market events into bars of exchange time."""

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from trading.data.admission import LAST_NS, Refusal
from trading.data.massive.wire import (
    MS_FROM,
    US_FROM,
    Aggregate,
    EventDecoder,
    FeedEvent,
    PriceBand,
    Quote,
    SecondAggregate,
    TapeClock,
    event_ns,
)
from trading.envs.live_env import LiveEnv
from trading.market.bars import StockBar
from trading.market.calendar import DAY_NS, MINUTE_NS, ExchangeCalendar, Session
from trading.market.option_quote import OptionQuote

MAX_AHEAD_NS = 2_000_000_000


class Bar(NamedTuple):
    """One decision time: `end_ns` within its session; `last` when it ends the session."""

    session: Session
    end_ns: int

    @property
    def last(self) -> bool:
        """Whether the session ends with this bar."""
        return self.end_ns >= self.session.close_ns


def first_bar_after(ts_ns: int, calendar: ExchangeCalendar, bar_ns: int) -> Bar:
    """Return the earliest bar that ends strictly after `ts_ns`."""
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

    What time it is comes from the live clock (`follow`), in replay and simulation from the market
    server, which says so in every frame. An event more than `max_ahead_ns` ahead of it is refused,
    and the watermark does not pass it. Where neither tells the time, it is what the events of two
    symbols agree on: one alone closes no bar, however many of its events are dated ahead.

    Attributes
    ----------
    quotes, bars
        Events taken, by kind.
    late
        Events that came after their bar had closed.
    watermark_ns
        Latest event time seen, no later than the clock.
    new_contracts, new_underlyings
        What was heard of for the first time; the reader empties them.
    """

    def __init__(
        self,
        env: LiveEnv,
        bar: Bar,
        slice_ns: int,
        grace_ns: int = 0,
        max_ahead_ns: int = MAX_AHEAD_NS,
    ) -> None:
        self.bar = bar
        self.quotes = 0
        self.bars = 0
        self.late = 0
        self.watermark_ns = 0
        self.tape_ns = 0
        """What the market server last said of its clock; 0 where it says nothing."""
        self.decoder = EventDecoder()
        self.new_contracts: list[str] = []
        self.new_underlyings: list[str] = []
        self._heard: set[str] = set()
        self._env = env
        self._apply_quote = env.apply_quote
        self._grace_ns = grace_ns
        self._max_ahead_ns = max_ahead_ns
        self._now_ns: Callable[[], int] | None = None
        self._newest = (0, "")
        """Time and symbol of the latest event beyond its bar, where nobody tells the time."""
        self._closed_ns = 0
        self._slice_ns = slice_ns
        self._waiting: defaultdict[int, list[tuple[int, FeedEvent]]] = defaultdict(list)

    def follow(self, now_ns: Callable[[], int]) -> None:
        """Hold every event from now on against this clock."""
        self._now_ns = now_ns

    @property
    def unknown(self) -> int:
        """Quotes of contracts that are not listed."""
        return self._env.refused[Refusal.UNKNOWN_CONTRACT]

    def refused(self) -> dict[str, int]:
        """How many events were not taken over as they came, by `Refusal`."""
        decoder = self.decoder
        return {
            **self._env.refused,
            Refusal.MALFORMED.value: decoder.malformed,
            Refusal.UNKNOWN_KIND.value: decoder.unknown,
            Refusal.MISTIMED.value: self._env.refused[Refusal.MISTIMED] + decoder.mistimed,
        }

    @property
    def due(self) -> bool:
        """Whether the current bar can be closed."""
        return self.watermark_ns > self.bar.end_ns + self._grace_ns

    @property
    def complete(self) -> bool:
        """Whether events have reached the end of the current bar; enough once the stream ended."""
        return max(self.watermark_ns, self._newest[0]) >= self.bar.end_ns

    def take(self, frame: bytes | str) -> None:
        """Decode one frame; apply what belongs to the current bar, keep what is later."""
        end_ns, newest_ns = self.bar.end_ns, 0
        now_ns = self._now_ns() if self._now_ns is not None else self.tape_ns
        limit_ns = now_ns + self._max_ahead_ns if now_ns else LAST_NS
        for event in self.decoder.decode(frame):
            # Nearly all events are quotes: what is asked of each of these is what a quote costs.
            if type(event) is Quote or type(event) is PriceBand:
                t = event.t
                ts_ns = t * 1_000_000 if MS_FROM <= t < US_FROM else event_ns(t)
            elif isinstance(event, Aggregate):
                ts_ns = event_ns(event.e)
                if not 0 <= ts_ns - event_ns(event.s) <= DAY_NS:
                    self._env.refused.count(Refusal.MISTIMED)
                    continue
            elif isinstance(event, TapeClock) and self._now_ns is None:
                now_ns = self.tape_ns = max(self.tape_ns, min(event_ns(event.t), LAST_NS))
                limit_ns = now_ns + self._max_ahead_ns
                continue
            else:
                continue
            if ts_ns > limit_ns:
                self._env.refused.count(Refusal.AHEAD if ts_ns < LAST_NS else Refusal.MISTIMED)
                continue
            newest_ns = ts_ns if ts_ns > newest_ns else newest_ns
            if ts_ns <= end_ns:
                self._apply(ts_ns, event)
            else:
                if not now_ns:
                    self._agree(ts_ns, event.sym)
                self._waiting[ts_ns // self._slice_ns].append((ts_ns, event))
        self.watermark_ns = max(self.watermark_ns, min(newest_ns, now_ns or end_ns))

    def _agree(self, ts_ns: int, symbol: str) -> None:
        """Let the watermark go where the latest events of two symbols beyond the bar both are."""
        newest_ns, newest = self._newest
        if symbol == newest or ts_ns <= newest_ns:
            agreed_ns = 0 if symbol == newest else ts_ns
            self._newest = (max(ts_ns, newest_ns), newest)
        else:
            agreed_ns, self._newest = newest_ns, (ts_ns, symbol)
        self.watermark_ns = max(self.watermark_ns, agreed_ns)

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

    def _apply(self, ts_ns: int, event: FeedEvent) -> None:
        if ts_ns <= self._closed_ns:
            self.late += 1
        if type(event) is Quote:
            self.quotes += 1
            symbol = event.sym
            accepted = self._apply_quote(
                OptionQuote(symbol, event.bp, event.ap, event.bs, event.as_, ts_ns, event.q)
            )
            if accepted and symbol not in self._heard:
                self._heard.add(symbol)
                self.new_contracts.append(symbol)
        elif isinstance(event, PriceBand):
            self._env.apply_band(event.sym, event.l, event.h, event.i, ts_ns)
        elif isinstance(event, Aggregate) and not isinstance(event, SecondAggregate):
            self.bars += 1
            if self._env.apply_bar(stock_bar(event)) and event.sym not in self._heard:
                self._heard.add(event.sym)
                self.new_underlyings.append(event.sym)


def stock_bar(event: Aggregate) -> StockBar:
    """Return the bar that an aggregate event describes.

    One of a part of a minute counts by its end.
    """
    start_ns = max(event_ns(event.s), event_ns(event.e) - MINUTE_NS)
    return StockBar(event.sym, start_ns, event.o, event.h, event.l, event.c, event.v, event.vw)
