"""What the journal tells of the session at hand and of those before, read from its file.

It is read by a connection of its own, on whatever thread asks; no writer waits for it.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from trading.execution.events import (
    AccountOpened,
    CashMoved,
    ChallengerRejected,
    ChampionPromoted,
    ChampionRolledBack,
    CorporateActionApplied,
    DecisionMade,
    DividendPaid,
    Event,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OwnerCommanded,
    SessionClosed,
    Settled,
    StateChanged,
    UnderlyingReinstated,
    UnderlyingSuspended,
)
from trading.execution.journal.schema import DECODER, UNDECODABLE, UNREADABLE, open_reader, real
from trading.logs import get_logger
from trading.market.calendar import NEW_YORK

log = get_logger(__name__)

SHOWN = (
    OrderAccepted,
    OrderFilled,
    OrderRejected,
    OrderCancelled,
    SessionClosed,
    Settled,
    DividendPaid,
    CorporateActionApplied,
    CashMoved,
    StateChanged,
    OwnerCommanded,
    UnderlyingSuspended,
    UnderlyingReinstated,
    ChampionPromoted,
    ChallengerRejected,
    ChampionRolledBack,
)
"""Events that a day is told by."""

_MOST_EVENTS = 1_000
_MOST_DECISIONS = 100_000
_LOOKED_AT = 1_000_000
"""Rows, from the newest one on."""
_SESSIONS = 260
_MOVES = 200


class SessionHistory(NamedTuple):
    """A day as its journal has it."""

    session: str = ""
    """Date of the newest decision, YYYY-MM-DD in New York; empty where none is known."""
    base: float = float("nan")
    """What its profit is measured from, USD."""
    bars: tuple[tuple[int, float], ...] = ()
    """Exchange time and equity (USD) of its decisions."""
    events: tuple[tuple[int, Event], ...] = ()
    """Numbers and events of the kinds `SHOWN`, oldest first."""


def read_history(path: Path, seq: int) -> SessionHistory:
    """Return what the journal at `path` tells up to its event `seq`.

    Nothing where it cannot be read.
    """
    try:
        with closing(open_reader(real(path))) as connection:
            return _load_history(connection, seq)
    except (*UNREADABLE, *UNDECODABLE) as error:
        log.error("the day so far is not recalled from the journal", reason=str(error))
        return SessionHistory()


def _load_history(connection: sqlite3.Connection, seq: int) -> SessionHistory:
    sessions = _newest(connection, seq, _tags(SessionClosed), _SESSIONS)
    moves = _newest(connection, seq, _tags(CashMoved), _MOVES)
    noted = _tags(*(kind for kind in SHOWN if kind not in (SessionClosed, CashMoved)))
    events = sorted(
        [*_newest(connection, seq, noted, _MOST_EVENTS), *sessions, *moves], key=_number
    )
    since, base, profits = 0, float("nan"), {}
    if sessions:
        since, last = sessions[0]
        assert isinstance(last, SessionClosed)
        base, profits = last.equity, dict(last.profits)
    else:
        for _, first in _newest(connection, 1, _tags(AccountOpened), 1):
            assert isinstance(first, AccountOpened)
            base = first.cash
    moved = {at: event.amount for at, event in events if isinstance(event, CashMoved)}
    decided = _newest(connection, seq, _tags(DecisionMade), _MOST_DECISIONS, since)
    bars: list[tuple[int, float]] = []
    earned, day = dict(profits), ""
    for number, event in reversed(decided):
        assert isinstance(event, DecisionMade)
        if event.profit is None:
            continue
        earned[event.underlying] = event.profit
        paid_in = sum(amount for at, amount in moved.items() if since < at < number)
        made = sum(earned.values()) - sum(profits.values())
        if bars and bars[-1][0] == event.ts_ns:
            bars.pop()
        bars.append((event.ts_ns, base + made + paid_in))
        day = datetime.fromtimestamp(event.ts_ns / 1e9, UTC).astimezone(NEW_YORK).date().isoformat()
    base += sum(amount for at, amount in moved.items() if at > since)
    return SessionHistory(day, base, tuple(bars), tuple(events))


def _tags(*kinds: type[msgspec.Struct]) -> list[str]:
    return [str(kind.__struct_config__.tag) for kind in kinds]


def _newest(
    connection: sqlite3.Connection, seq: int, kinds: Sequence[str], most: int, since: int = 0
) -> list[tuple[int, Event]]:
    """Return the newest events of some kinds after `since` and up to `seq`, newest first."""
    places = ",".join("?" * len(kinds))
    rows = connection.execute(
        f"SELECT seq, payload FROM events WHERE seq > ? AND seq <= ? AND kind IN ({places}) "
        "ORDER BY seq DESC LIMIT ?",
        (max(since, seq - _LOOKED_AT), seq, *kinds, most),
    )
    return [(number, DECODER.decode(payload)) for number, payload in rows]


def _number(row: tuple[int, Event]) -> int:
    return row[0]
