"""A feed inside of an application."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack

import pytest

from tests.feed.vendor import KEYS, Vendor, play, until
from trading.config import Settings, load_settings
from trading.data.massive.client.stream import StreamClient
from trading.data.massive.wire import Quote, decode
from trading.errors import AuthenticationFailed
from trading.feed.embedded import embedded_feed, reading_from
from trading.live import assembly
from trading.live.endpoint import Endpoint

NAME = "Q.O:SPY251219C00650000"
QUOTE = Quote(NAME.removeprefix("Q."), 1_766_154_600_000, 1.0, 1.1, 5, 6, 1)


def client_of(settings: Settings) -> StreamClient:
    """The stream as a live market with these settings reads it."""
    massive, key = settings.data.massive, settings.credentials.massive_api_key
    assert key is not None
    endpoint = Endpoint(massive.stream_address, massive.rest_address, key.get_secret_value())
    return StreamClient(assembly.stream_settings(settings, endpoint))


def test_two_accounts_of_one_application_read_one_connection() -> None:
    async def body() -> None:
        vendor = Vendor(keys=KEYS[:1])
        await vendor.start()
        addresses = [f"data.massive.websocket_url={vendor.url}", "data.source=massive"]
        environment = {"MASSIVE_API_KEY": KEYS[0], "FEED_KEYS": "of another feed"}
        settings = load_settings(None, addresses, environment)
        with ExitStack() as stack:
            url = await asyncio.to_thread(stack.enter_context, embedded_feed(settings))
            told = reading_from(settings, url)
            assert told.data.massive.rest_address == url
            assert told.symbols == settings.symbols
            clients = [stack.enter_context(client_of(told)) for _ in range(2)]
            for client in clients:
                client.subscribe("options", [NAME])
            await until(
                lambda: all(
                    client.health().get("options", {}).get("acknowledged") for client in clients
                )
            )
            await vendor.send(QUOTE)
            for client in clients:
                frames = await asyncio.to_thread(client.frames, 60.0)
                assert [event for each in frames for event in decode(each.data)] == [QUOTE]
            assert vendor.attempts == 1
            for client in clients:
                client.close()
            await asyncio.to_thread(stack.close)
        assert "feed" not in {thread.name for thread in threading.enumerate()}
        await vendor.stop()

    play(body)


def test_without_a_key_it_says_so_before_anything_starts() -> None:
    with pytest.raises(AuthenticationFailed, match="MASSIVE_API_KEY"), embedded_feed(Settings()):
        pass
