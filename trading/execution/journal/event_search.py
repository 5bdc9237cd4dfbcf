"""Finds rows of a journal's file by time, order, symbol and kind, the newest first.

For who looks on: it reads by a connection of its own, changes nothing, and is bounded in rows and
time. What it has not looked at yet, a further search from where it stopped does.
"""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from trading.errors import JournalError
from trading.execution.journal.lines import describe_event
from trading.execution.journal.schema import (
    DECODER,
    UNDECODABLE,
    UNREADABLE,
    as_text,
    open_reader,
    real,
)

MOST_ROWS = 200
"""Of one answer."""
LONGEST_S = 2.0
"""That one search looks for; what it found by then is its answer."""
_LATER_ROWS = 50_000
"""Looked at at once."""


class Query(NamedTuple):
    """What is looked for; each condition that is set must hold."""

    since_ns: int | None = None
    """Exchange time, likewise `until_ns`; both ends included."""
    until_ns: int | None = None
    order: str = ""
    """An order's id; its fills have it too."""
    symbol: str = ""
    """An underlying, or a contract."""
    kind: str = ""
    """As in `trading journal tail`."""
    before: int | None = None
    """Only rows of lower numbers."""
    most: int = 50


class SearchResult(NamedTuple):
    """Rows, the newest first."""

    rows: list[dict[str, Any]]
    """`seq`, `ts_ns`, `kind`, `said` for people, and `event` as the journal has it."""
    before: int | None
    """Where a further search goes on; None where there is nothing left to look at."""


def search(path: str | Path, query: Query) -> SearchResult:
    """Look through the journal at `path`.

    Raises
    ------
    JournalError
        It is not there, or cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise JournalError(f"there is no journal at {path} on the machine that answers")
    try:
        with closing(open_reader(real(path))) as connection:
            return _search(connection, query)
    except UNREADABLE as error:
        raise JournalError(f"journal {path} cannot be read now: {error}") from error


def _search(connection: sqlite3.Connection, query: Query) -> SearchResult:
    newest = connection.execute("SELECT max(seq) FROM events").fetchone()[0] or 0
    at = newest + 1 if query.before is None else min(query.before, newest + 1)
    most = max(1, min(query.most, MOST_ROWS))
    deadline = time.monotonic() + LONGEST_S
    conditions, values = _conditions(query)
    sql = (
        f"SELECT seq, ts_ns, kind, payload FROM events WHERE seq < ? AND seq >= ?{conditions} "
        "ORDER BY seq DESC LIMIT ?"
    )
    rows: list[dict[str, Any]] = []
    # By stretches, so that a search which is cut short says how far it has come.
    while at > 1 and len(rows) < most and time.monotonic() < deadline:
        low = max(1, at - _LATER_ROWS)
        left = most - len(rows)
        found = connection.execute(sql, (at, low, *values, left)).fetchall()
        rows += [_told(*row) for row in found]
        at = found[-1][0] if len(found) == left else low
    return SearchResult(rows, at if at > 1 else None)


def _conditions(query: Query) -> tuple[str, list[object]]:
    """Return SQL beside the numbers, and its values."""
    parts: list[str] = []
    values: list[object] = []

    def add(condition: str, *which: object) -> None:
        parts.append(f" AND {condition}")
        values.extend(which)

    if query.since_ns is not None:
        add("ts_ns >= ?", query.since_ns)
    if query.until_ns is not None:
        add("ts_ns <= ?", query.until_ns)
    if query.kind:
        add("kind = ?", query.kind)
    if query.order:
        add("instr(payload, ?) > 0", f'"order_id":{_quoted(query.order)}')
    if query.symbol:
        name = _quoted(query.symbol)
        places = [f'"underlying":{name}', f'"symbol":{name}', f'"into":{name}']
        add(f"({' OR '.join(['instr(payload, ?) > 0'] * len(places))})", *places)
    return "".join(parts), values


def _quoted(text: str) -> str:
    """As the journal's JSON has it."""
    return msgspec.json.encode(text).decode()


def _told(seq: int, ts_ns: int, kind: bytes, payload: bytes) -> dict[str, Any]:
    try:
        said = describe_event(DECODER.decode(payload))
        event = msgspec.json.decode(payload)
    except UNDECODABLE as error:
        said, event = f"damaged: {error}", None
    return {"seq": seq, "ts_ns": ts_ns, "kind": as_text(kind), "said": said, "event": event}
