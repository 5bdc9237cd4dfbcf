"""The append-only log of an account's events: the one truth about it."""

from trading.execution.journal.journal import Journal

__all__ = ["Journal"]
