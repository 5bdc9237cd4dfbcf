"""One client of the market server, and which rows of a step it wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

from trading.data.massive.protocol import FeedProtocol
from trading.data.massive.server.source import Listing


@dataclass(slots=True, eq=False)
class Subscriber:
    """An authenticated connection, with its subscriptions resolved to rows of a listing."""

    connection: ServerConnection
    protocol: FeedProtocol
    _listing: Listing | None = None
    _revision: int = -1
    _masks: dict[str, NDArray[np.bool_]] | None = None

    @property
    def is_open(self) -> bool:
        """Whether events can still be written."""
        return self.connection.state is State.OPEN

    def is_same_account(self, feed: FeedProtocol) -> bool:
        """Whether `feed` has the same key and asset class."""
        return (self.protocol.asset_class, self.protocol.key) == (feed.asset_class, feed.key)

    def rows(self, channel: str, listing: Listing, contract: NDArray[np.int64]) -> NDArray[np.intp]:
        """Positions in the column `contract` that this client wants on `channel`."""
        if self._masks is None or (self._listing, self._revision) != (
            listing,
            self.protocol.revision,
        ):
            self._masks = {}
            self._listing, self._revision = listing, self.protocol.revision
        mask = self._masks.get(channel)
        if mask is None:
            wants = self.protocol.wants
            mask = np.array([wants(channel, symbol) for symbol in listing.symbols], np.bool_)
            self._masks[channel] = mask
        return np.flatnonzero(mask[contract])


def union_of_rows(rows: Sequence[NDArray[np.intp]]) -> NDArray[np.intp]:
    """Sorted rows that at least one subscriber wants."""
    if len(rows) == 1:
        return rows[0]
    return np.unique(np.concatenate(rows)) if rows else np.empty(0, np.intp)


def pick_rows(events: list[bytes], rows: NDArray[np.intp], wanted: NDArray[np.intp]) -> list[bytes]:
    """Of `events`, which encode the sorted `rows`, those of the `wanted` rows among them."""
    if len(wanted) == len(rows):
        return events
    return [events[position] for position in np.searchsorted(rows, wanted).tolist()]
