"""A feed inside another process, for applications that read the vendor several times."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread

from trading.config import Settings
from trading.config.settings import Origin
from trading.errors import StreamError
from trading.feed.feed_server import FeedOptions, FeedServer
from trading.feed.running import feed_options, market_hours

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0


@contextmanager
def embedded_feed(settings: Settings) -> Iterator[str]:
    """Run a feed of the vendor that `data.massive` names, and give its address.

    It listens on this machine alone, on a port of its own, and readers show it the key that they
    would show the vendor.

    Raises
    ------
    AuthenticationFailed
        There is no key of the vendor's.
    StreamError
        It does not come up.
    """
    own_key = settings.credentials.massive_api_key
    keys = (own_key.get_secret_value(),) if own_key else settings.credentials.vendor_keys
    feed = FeedThread(vendor_feed(settings, keys), settings.seed)
    try:
        yield f"http://127.0.0.1:{feed.port}"
    finally:
        feed.stop()


def vendor_feed(
    settings: Settings, reader_keys: Sequence[str], host: str = "127.0.0.1", port: int = 0
) -> FeedOptions:
    """Return a feed of the vendor that `data.massive` names.

    Raises
    ------
    AuthenticationFailed
        There is no key of the vendor's.
    """
    massive = settings.data.massive
    return replace(
        feed_options(settings),
        websocket_url=massive.websocket_url,
        rest_url=massive.rest_url,
        reader_keys=tuple(reader_keys),
        host=host,
        port=port,
    )


class FeedThread:
    """A feed on a thread of this process.

    Raises
    ------
    StreamError
        It does not come up.
    """

    def __init__(self, options: FeedOptions, seed: int) -> None:
        self._options, self._seed = options, seed
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()
        self._thread = Thread(
            target=lambda: asyncio.run(self._serve(started)), name="feed", daemon=True
        )
        self._thread.start()
        try:
            self._loop, self._stop, self.port = started.result(_START_TIMEOUT_S)
        except (OSError, TimeoutError) as error:
            raise StreamError(
                f"the feed inside of the application did not start on {options.host}, port "
                f"{options.port} ({error!r}): end what uses the port, or choose another feed.port"
            ) from error

    def stop(self) -> None:
        """End it, and wait until it has told its readers."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_STOP_TIMEOUT_S)

    async def _serve(
        self, started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]]
    ) -> None:
        feed = FeedServer(self._options, market_hours(), self._seed)
        stop = asyncio.Event()
        try:
            port = await feed.start()
        except BaseException as error:
            feed.rest.close()
            # Who waits for it raises it.
            started.set_exception(error)
            return
        started.set_result((asyncio.get_running_loop(), stop, port))
        try:
            await stop.wait()
        finally:
            await feed.stop()


def reading_from(settings: Settings, url: str) -> Settings:
    """Return the settings with a feed at `url` in place of the vendor."""
    massive = settings.data.massive.model_copy(update={"feed_url": url})
    data = settings.data.model_copy(update={"massive": massive})
    told = settings.model_copy(update={"data": data})
    origin = settings.origin
    # So that settings that are read again say the same.
    told._origin = Origin(origin.path, origin.overrides, {**origin.environment, "FEED_URL": url})
    return told
