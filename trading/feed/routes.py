"""Who wants which event."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trading.feed.reader import Reader

_MOST_KNOWN = 200_000
"""Symbols after which what is known is forgotten: wildcards meet every contract there is."""


class Routes:
    """Finds the readers of an event; to be told when subscriptions change.

    Parameters
    ----------
    readers: those of one asset class; looked at whenever something changed
    """

    def __init__(self, readers: Collection[Reader]) -> None:
        self._readers = readers
        self._known: dict[tuple[str, str], tuple[Reader, ...]] = {}

    def changed(self) -> None:
        """Forget who wanted what."""
        self._known.clear()

    def readers_of(self, channel: str, symbol: str) -> tuple[Reader, ...]:
        """Those who are subscribed to it, by name or by a wildcard."""
        found = self._known.get((channel, symbol))
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = tuple(each for each in self._readers if each.protocol.wants(channel, symbol))
            self._known[channel, symbol] = found
        return found
