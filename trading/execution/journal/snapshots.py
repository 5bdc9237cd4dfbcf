"""The account as it stood at a session's close, so that a start folds one session and not a year.

A snapshot repeats what the events before it say and decides nothing: it is read only by the program
whose fold made it, and where it is damaged or another program's, all events are folded.
"""

import importlib
import sqlite3
from collections.abc import Iterator
from enum import Enum
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trading.errors import JournalError
from trading.execution.journal.schema import UNREADABLE, as_text, checksum

if TYPE_CHECKING:
    from trading.execution.portfolio import Account

SNAPSHOTS_KEPT = 3

_PACKAGE = __name__.partition(".")[0]
_INSERT = "INSERT OR REPLACE INTO snapshots (seq, fold, state, sum) VALUES (?, ?, ?, ?)"
_FORGET = """
DELETE FROM snapshots
    WHERE seq NOT IN (SELECT seq FROM snapshots ORDER BY seq DESC LIMIT ?)
"""


@cache
def fold_digest() -> str:
    """Return what the fold of this program depends on: the sources of its package."""
    digest = blake2b(digest_size=16)
    package = Path(__file__).parents[1]
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def keep_snapshot(connection: sqlite3.Connection, seq: int, account: "Account") -> None:
    """Write the account after event `seq`, and forget all but the newest snapshots."""
    state = msgspec.json.encode(_plain(vars(account)), order="sorted").decode()
    fold = fold_digest()
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_INSERT, (seq, fold, state, checksum(seq, 0, fold, state)))
        connection.execute(_FORGET, (SNAPSHOTS_KEPT,))
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def forget_snapshots(connection: sqlite3.Connection) -> None:
    """Remove every snapshot; the next start folds all events."""
    connection.execute("DELETE FROM snapshots")


def snapshots(connection: sqlite3.Connection) -> "Iterator[tuple[int, Account]]":
    """Whole snapshots of this program's fold, newest first."""
    rows = connection.execute("SELECT seq, fold, state, sum FROM snapshots ORDER BY seq DESC")
    for seq, fold, state, summed in rows:
        if as_text(fold) == fold_digest() and checksum(seq, 0, fold, state) == summed:
            yield seq, _account(state)


def damaged_snapshot(connection: sqlite3.Connection) -> str:
    """Which snapshot is not as it was written; empty when all are."""
    try:
        for seq, fold, state, summed in connection.execute(
            "SELECT seq, fold, state, sum FROM snapshots"
        ):
            if checksum(seq, 0, fold, state) != summed:
                return f"the snapshot after event {seq} is damaged"
    except UNREADABLE as error:
        return f"the snapshots cannot be read: {error}"
    return ""


def _account(state: str | bytes) -> "Account":
    from trading.execution.portfolio import Account

    account = Account()
    restored = _typed(msgspec.json.decode(state))
    if restored.keys() != vars(account).keys():
        raise JournalError("a snapshot of this program's fold does not fit its account")
    vars(account).update(restored)
    return account


def _plain(value: Any) -> Any:
    """Return a value as JSON that says what JSON cannot.

    A list that begins with the type's name.
    """
    if isinstance(value, Enum):
        return ["enum", _name(type(value)), value.value]
    if isinstance(value, msgspec.Struct):
        fields = {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
        return ["struct", _name(type(value)), fields]
    if isinstance(value, dict):
        if all(type(key) is str for key in value):
            return {key: _plain(each) for key, each in value.items()}
        return ["dict", [[_plain(key), _plain(each)] for key, each in value.items()]]
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            ordered = sorted(value) if kind in (set, frozenset) else value
            return [kind.__name__, [_plain(each) for each in ordered]]
    return value


def _typed(value: Any) -> Any:
    """Return what `_plain` was given."""
    if isinstance(value, dict):
        return {key: _typed(each) for key, each in value.items()}
    if not isinstance(value, list):
        return value
    kind, *parts = value
    if kind == "enum":
        return _class(parts[0])(parts[1])
    if kind == "struct":
        return _class(parts[0])(**_typed(parts[1]))
    if kind == "dict":
        return {_typed(key): _typed(each) for key, each in parts[0]}
    collection = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind]
    return collection(_typed(each) for each in parts[0])


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _class(name: str) -> Any:
    module, _, qualname = name.partition(":")
    if module.partition(".")[0] != _PACKAGE:
        raise JournalError(f"a snapshot names {name}, which is no type of this program")
    return getattr(importlib.import_module(module), qualname)
