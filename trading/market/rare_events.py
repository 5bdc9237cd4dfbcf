"""What a simulated exchange does rarely: how often, and what of it happens within a session.

Corporate actions are in `trading.market.companies`. Everything is drawn from random streams of its
own: a world without rare events is the same world, and so is one that was joined later.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from trading.market.calendar import MINUTE_NS, Session
from trading.market.factors import SESSIONS_PER_YEAR


class RareKind(StrEnum):
    """Which rare event."""

    SPLIT = "split"
    """Forward, reverse or uneven, whatever the price asks for."""
    UNEVEN_SPLIT = "uneven_split"
    """3 for 2, which leaves adjusted contracts; only where it is planned."""
    SPECIAL_DIVIDEND = "special_dividend"
    RENAME = "rename"
    DELISTING = "delisting"
    HALT = "halt"
    """For minutes, to the close, or for a whole session."""
    WHOLE_SESSION_HALT = "whole_session_halt"
    """Only where it is planned."""
    BAD_PRINTS = "bad_prints"
    """Crossed and absurd quotes and prices."""


@dataclass(frozen=True)
class RareEvents:
    """How often each kind happens, a year and underlying.

    Parameters
    ----------
    splits, special_dividends, renames, delistings, halts, bad_prints
        Mean number a year and underlying. One company's actions keep a quarter of a year between
        them, so there are fewer than four of these a year.
    planned
        What happens in any case, by symbol and session (of an action: its ex-date).
    """

    splits: float = 0.0
    special_dividends: float = 0.0
    renames: float = 0.0
    delistings: float = 0.0
    halts: float = 0.0
    bad_prints: float = 0.0
    planned: Mapping[tuple[str, date], RareKind] = field(default_factory=dict)

    @property
    def any(self) -> bool:
        """Whether anything rare can happen at all."""
        return bool(self.planned) or self.actions_a_year + self.halts + self.bad_prints > 0.0

    @property
    def actions_a_year(self) -> float:
        """Corporate actions a year and underlying."""
        return self.splits + self.special_dividends + self.renames + self.delistings

    def drawn_action(self, uniform: float) -> RareKind | None:
        """Return the action that a session's draw, uniform on [0, 1), stands for."""
        left = uniform * SESSIONS_PER_YEAR
        for kind, rate in (
            (RareKind.SPLIT, self.splits),
            (RareKind.SPECIAL_DIVIDEND, self.special_dividends),
            (RareKind.RENAME, self.renames),
            (RareKind.DELISTING, self.delistings),
        ):
            if left < rate:
                return kind
            left -= rate
        return None


NOTHING_RARE = RareEvents()


class Halt(NamedTuple):
    """Nothing of an underlying trades from `start_ns` on, and again from `end_ns` on."""

    start_ns: int
    end_ns: int

    def holds(self, ts_ns: int) -> bool:
        """Return whether nothing trades at a time."""
        return self.start_ns <= ts_ns < self.end_ns


class HaltNews(NamedTuple):
    """Whether a stock is halted, as the exchange tells it."""

    symbol: str
    ts_ns: int
    halted: bool


class Misprint(StrEnum):
    """How a print is bad."""

    CROSSED = "crossed"
    """A bid above the ask."""
    WILD_QUOTE = "wild_quote"
    """A quote at many times the worth, or at a cent."""
    WILD_BAR = "wild_bar"
    """A price of the stock that nothing else supports."""


class BadPrint(NamedTuple):
    """One print that is wrong; the next step has the right one again."""

    ts_ns: int
    misprint: Misprint
    pick: float
    """Uniform on [0, 1): which contract."""
    factor: float
    """What the right price is multiplied with."""


_LONGEST_PAUSE = 30
_OPENING, _CLOSING = 2 * MINUTE_NS, 5 * MINUTE_NS
_BURST = 6
"""Bad prints come in bursts: a feed is ill for a while."""


def halt_of(
    events: RareEvents, symbol: str, session: Session, rng: np.random.Generator
) -> Halt | None:
    """Return the halt of an underlying in a session; most last for minutes, some for all of it."""
    chance, when, how_long = rng.random(3).tolist()
    planned = events.planned.get((symbol, session.date))
    whole = Halt(session.open_ns, session.close_ns + 1)
    if planned is RareKind.WHOLE_SESSION_HALT:
        return whole
    if planned is not RareKind.HALT and chance >= events.halts / SESSIONS_PER_YEAR:
        return None
    minutes = (session.close_ns - session.open_ns) // MINUTE_NS
    start_ns = session.open_ns + int((0.05 + 0.8 * when) * minutes) * MINUTE_NS
    if how_long < 0.7 or planned is RareKind.HALT:
        pause = 5 + int(how_long * (_LONGEST_PAUSE - 5))
        return Halt(start_ns, start_ns + pause * MINUTE_NS)
    return Halt(start_ns, session.close_ns + 1) if how_long < 0.9 else whole


def bad_prints_of(
    events: RareEvents, symbol: str, session: Session, step_ns: int, rng: np.random.Generator
) -> list[BadPrint]:
    """Return an underlying's bad prints of a session in order of time, on steps of `step_ns`."""
    chance = rng.random()
    planned = events.planned.get((symbol, session.date)) is RareKind.BAD_PRINTS
    if not planned and chance >= events.bad_prints / SESSIONS_PER_YEAR:
        return []
    misprints = list(Misprint)
    room = session.close_ns - session.open_ns - _OPENING - _CLOSING
    found = []
    for number in range(_BURST):
        when, pick, size = rng.random(3).tolist()
        ts_ns = session.open_ns + _OPENING + int(when * room) // step_ns * step_ns
        misprint = misprints[number % len(misprints)]
        if misprint is Misprint.WILD_BAR:
            ts_ns -= (ts_ns - session.open_ns) % MINUTE_NS
            factor = (1.35 + 3.0 * size) if size < 0.5 else (0.02 + 0.6 * (size - 0.5))
        else:
            factor = (3.0 + 20.0 * size) if size < 0.5 else 0.0
        found.append(BadPrint(ts_ns, misprint, pick, factor))
    return sorted(found)
