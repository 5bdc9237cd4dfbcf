"""A feed by the settings, from its start to its end in order."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

from trading.config import Settings
from trading.data.massive.urls import is_loopback
from trading.errors import AuthenticationFailed, ConfigError, StreamError
from trading.feed.feed_server import FeedOptions, FeedServer
from trading.market.calendar import ExchangeCalendar


def feed_options(settings: Settings) -> FeedOptions:
    """Return what the settings ask of a feed.

    Raises
    ------
    AuthenticationFailed
        There is no key of the vendor's.
    ConfigError
        Others than this machine would be shown the vendor's key, or the feed would read itself.
    """
    feed, credentials = settings.feed, settings.credentials
    if not credentials.vendor_keys:
        raise AuthenticationFailed(
            "a feed needs the vendor's key: export MASSIVE_API_KEY, or several in MASSIVE_API_KEYS "
            "with blanks between"
        )
    if credentials.feed_keys is None and not is_loopback(f"ws://{_bracketed(feed.host)}"):
        raise ConfigError(
            [
                f"feed.host is {feed.host}, which others than this machine reach, and readers "
                "would show the vendor's key in clear: export FEED_KEYS, keys for the readers "
                "alone, or use feed.host=127.0.0.1"
            ]
        )
    return FeedOptions(
        feed.websocket_url,
        feed.rest_url,
        credentials.vendor_keys,
        credentials.reader_keys,
        host=feed.host,
        port=feed.port,
        max_quotes=feed.max_quote_contracts,
        max_readers=feed.max_readers,
        max_waiting_events=feed.max_waiting_events,
        rest_keep_s=feed.rest_keep_s,
        rest_live_s=feed.rest_live_s,
        rest_max_bytes=feed.rest_kept_mb * 2**20,
        silence_timeout_s=settings.data.massive.silence_timeout_s,
    )


def market_hours() -> Callable[[int], bool]:
    """Whether the options market is open at a time, UTC nanoseconds."""
    calendar = ExchangeCalendar()
    # The calendar takes a second to load, which is not to be the event loop's.
    calendar.session_at(time.time_ns())
    return lambda ts_ns: calendar.session_at(ts_ns) is not None


async def run_feed(
    options: FeedOptions,
    expects_data: Callable[[int], bool],
    listening: Callable[[int], None],
    seed: int = 0,
) -> None:
    """Serve until SIGINT or SIGTERM; `listening` is told the port.

    Raises
    ------
    StreamError
        The port is taken.
    """
    feed = FeedServer(options, expects_data, seed)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        port = await feed.start()
    except OSError as error:
        feed.rest.close()
        raise StreamError(
            f"the feed cannot listen on {options.host}:{options.port}: {error.strerror}: end what "
            "uses it (is a feed running already?), or choose another feed.port"
        ) from error
    try:
        listening(port)
        await stop.wait()
    finally:
        await feed.stop()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
