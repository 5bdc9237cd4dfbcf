"""A feed inside another process, for applications that read the vendor several times."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread

from trading.config import Settings
from trading.config.settings import Origin
from trading.errors import StreamError
from trading.feed.running import feed_options, market_hours
from trading.feed.server import FeedServer

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
    massive, credentials = settings.data.massive, settings.credentials
    own_key = credentials.massive_api_key
    options = replace(
        feed_options(settings),
        websocket_url=massive.websocket_url,
        rest_url=massive.rest_url,
        reader_keys=(own_key.get_secret_value(),) if own_key else credentials.vendor_keys,
        host="127.0.0.1",
        port=0,
    )
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()

    async def serve() -> None:
        feed = FeedServer(options, market_hours(), settings.seed)
        stop = asyncio.Event()
        try:
            port = await feed.start()
        except BaseException as error:
            feed.rest.close()
            started.set_exception(error)
            raise
        started.set_result((asyncio.get_running_loop(), stop, port))
        try:
            await stop.wait()
        finally:
            await feed.stop()

    thread = Thread(target=lambda: asyncio.run(serve()), name="feed", daemon=True)
    thread.start()
    try:
        loop, stop, port = started.result(_START_TIMEOUT_S)
    except (OSError, TimeoutError) as error:
        raise StreamError(f"the embedded feed did not start: {error!r}") from error
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(_STOP_TIMEOUT_S)


def reading_from(settings: Settings, url: str) -> Settings:
    """The settings with a feed at `url` in place of the vendor."""
    massive = settings.data.massive.model_copy(update={"feed_url": url})
    data = settings.data.model_copy(update={"massive": massive})
    told = settings.model_copy(update={"data": data})
    origin = settings.origin
    # So that settings that are read again say the same.
    told._origin = Origin(origin.path, origin.overrides, {**origin.environment, "FEED_URL": url})
    return told
