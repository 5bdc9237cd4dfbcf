"""What an owner may say, and what is answered: values that travel by file and by HTTP."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from trading.execution.events import OwnerCommand


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an owner wants.

    `by` is who says it and `why` the reason, for the journal. `key` makes it the same command when
    it comes again; empty: every time is another. `symbol` is the underlying that `close` closes,
    `amount` the USD of `deposit` and `withdraw`, `which` the champion, checkpoint or folder to
    `promote`. `at` is when, by the wall clock (ISO 8601, UTC).
    """

    command: OwnerCommand
    by: str
    why: str = ""
    key: str = ""
    symbol: str = ""
    amount: float = 0.0
    at: str = ""
    which: str = ""


class CommandResult(msgspec.Struct, frozen=True):
    """What became of a command: a sentence, and where the account stands after it."""

    said: str
    number: int
    repeated: bool
    """It had come before, and was not obeyed again."""
    account: dict[str, Any]


def now_utc() -> str:
    """Return the wall clock's time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
