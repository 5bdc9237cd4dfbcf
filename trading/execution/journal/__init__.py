"""The append-only log of an account's events: the one truth about it."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.execution.journal.event_search import Query as Query
    from trading.execution.journal.event_search import SearchResult as SearchResult
    from trading.execution.journal.integrity import Integrity as Integrity
    from trading.execution.journal.integrity import Repair as Repair
    from trading.execution.journal.integrity import inspect_journal as inspect_journal
    from trading.execution.journal.journal import Journal as Journal

_PLACES = {
    "Integrity": "integrity",
    "Repair": "integrity",
    "inspect_journal": "integrity",
    "Journal": "journal",
    "SearchResult": "event_search",
    "Query": "event_search",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
