"""Market data: what was kept in a catalogue, and what a stream tells now."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self, TypeAlias

from trading.closing import Closing
from trading.config import MassiveSettings, Settings
from trading.data.catalog import Catalog
from trading.data.massive.client.connection import ConnectionHealth
from trading.data.massive.client.stream import StreamClient, StreamSettings
from trading.data.massive.wire import (
    Aggregate,
    EventDecoder,
    PriceBand,
    Quote,
    SecondAggregate,
    Status,
    TapeClock,
    Trade,
)

MarketEvent: TypeAlias = Quote | Trade | Aggregate | SecondAggregate | PriceBand
_POLL_S = 0.25


def open_catalog(source: str | Path | Settings) -> Catalog:
    """Open a catalogue of recorded market data.

    Parameters
    ----------
    source
        Its folder, or settings, whose `paths.state_dir` holds it.

    Returns
    -------
    A catalogue. `partitions()` says what it holds, `read(kind, underlying, day)` gives the rows of
    a day, and these `to_pandas()` or `to_arrow()`.

    Examples
    --------
    >>> from datetime import date
    >>> import trading as td
    >>> catalog = td.open_catalog("var/catalog")
    >>> bars = catalog.read("stock_bars", "SPY", date(2026, 1, 5))
    >>> bars.to_pandas().close.tolist()
    [2.5, 1.5]
    >>> bars.to_arrow().column_names[:3]
    ['symbol', 'start_ns', 'open']
    """
    if isinstance(source, Settings):
        source = source.paths.state_dir / "catalog"
    return Catalog(Path(source))


class EventFeed(Closing):
    """Events of the vendor's stream, or of anything that speaks its protocol, one by one.

    Iterating waits for events, and reconnects where a connection is lost. A feed may be iterated
    from one thread at a time.

    Parameters
    ----------
    url, key, names, ends
        As in `connect`.
    """

    def __init__(
        self, url: str, key: str, names: Mapping[str, Iterable[str]], ends: bool = False
    ) -> None:
        silence_s = MassiveSettings().silence_timeout_s
        settings = StreamSettings(url, key, silence_s, stop_on_close=ends, block_when_full=ends)
        self._client = StreamClient(settings)
        self._names = {asset_class: list(each) for asset_class, each in names.items()}
        self._decoder = EventDecoder()

    def __enter__(self) -> Self:
        self._client.start()
        try:
            for asset_class, names in self._names.items():
                self._client.subscribe(asset_class, names)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End the stream."""
        self._client.close()

    def __iter__(self) -> Iterator[MarketEvent]:
        """Every event from here on; ends with the stream where `ends` says that it has an end.

        Raises
        ------
        AuthenticationFailed
            The vendor refused the key.
        StreamError
            A connection failed in a way that reconnecting does not mend.
        """
        while True:
            for frame in self._client.frames(_POLL_S):
                for event in self._decoder.decode(frame.data):
                    if not isinstance(event, Status | TapeClock):
                        yield event
            if self._client.finished:
                return

    def health(self) -> dict[str, ConnectionHealth]:
        """State and counts of each connection, by asset class."""
        return self._client.health()


def connect(
    url: str, key: str, names: Mapping[str, Iterable[str]], *, ends: bool = False
) -> EventFeed:
    """Connect to a stream of market events: the vendor's, a `trading feed`, a `trading market`.

    Parameters
    ----------
    url
        Address without the asset class, as in `wss://socket.massive.com` or `ws://127.0.0.1:8765`.
    key
        API key, or the feed's key.
    names
        What to subscribe to by asset class (`options`, `stocks`, `indices`), as the vendor names
        it: `AM.SPY` minute bars, `Q.O:SPY260116C00600000` quotes.
    ends
        Whether a server that closes is at its end, as one that tells a recorded day, and may be
        kept waiting; else it is connected to again, and the oldest events go when this is too slow.

    Returns
    -------
    A feed to be used in a `with` block and iterated. Events are `Quote`, `Trade`, `Aggregate`,
    `SecondAggregate` and `PriceBand` of `trading.data.massive.wire`, with the vendor's field names.

    Raises
    ------
    StreamError
        The address is none.
    AuthenticationFailed
        The key is empty or malformed.

    Examples
    --------
    >>> import trading as td
    >>> names = {"stocks": ["AM.AAA"]}
    >>> with td.connect(address, "key-of-the-test", names, ends=True) as feed:
    ...     bar = next(iter(feed))
    >>> bar.sym, bar.c > 0.0
    ('AAA', True)
    """
    return EventFeed(url, key, names, ends)
