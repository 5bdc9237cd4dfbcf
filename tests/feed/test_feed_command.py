"""`trading feed` as a process: started, killed, started again, and told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests import usual
from tests.feed.vendor import KEYS, READER_KEY, Vendor, play, reading, until
from tests.ports import free_port
from tests.usual import stream_settings
from tests.waits import WAIT_S
from trading.config import Settings, load_settings
from trading.data.massive.client.stream import StreamClient
from trading.data.massive.wire import Quote, decode
from trading.errors import AuthenticationFailed, ConfigError, StreamError
from trading.feed.feed_metrics import FeedCounts, feed_families
from trading.feed.running import feed_options, run_feed

ROOT = Path(__file__).parents[2]
NAME = "Q.O:SPY251219C00650000"
QUOTE = Quote(NAME.removeprefix("Q."), 1_766_154_600_000, 1.0, 1.1, 5, 6, 1)


class FeedProcess:
    """A `trading feed` of a vendor on a given port."""

    def __init__(self, vendor: Vendor, port: int) -> None:
        hidden = ("MASSIVE_API_KEY", "MASSIVE_API_KEYS", "FEED_KEYS", "FEED_URL")
        inherited = {name: value for name, value in os.environ.items() if name not in hidden}
        keys = {"MASSIVE_API_KEY": KEYS[0], "FEED_KEYS": f"{READER_KEY} another"}
        settings = [f"feed.port={port}", f"feed.websocket_url={vendor.url}"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trading", "feed", "--config", "configs/paper.yaml"]
            + [word for each in settings for word in ("--set", each)],
            cwd=ROOT,
            env=inherited | keys,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    async def listens(self) -> str:
        """What it says once it listens."""
        assert self.process.stdout is not None
        return await asyncio.to_thread(self.process.stdout.readline)

    async def ends(self) -> int:
        return await asyncio.to_thread(self.process.wait, WAIT_S)


def test_a_feed_that_is_killed_and_started_again_is_read_on() -> None:
    async def body() -> None:
        vendor = Vendor()
        await vendor.start()
        port = free_port()
        feed = FeedProcess(vendor, port)
        said = await feed.listens()
        assert f"127.0.0.1:{port}" in said
        settings = stream_settings(
            f"ws://127.0.0.1:{port}", READER_KEY, backoff_initial_s=0.05, backoff_max_s=0.1
        )
        with StreamClient(settings) as client:
            client.subscribe("options", [NAME])
            events: list[Any] = []

            async def read(count: int) -> None:
                while len([each for each in events if isinstance(each, Quote)]) < count:
                    for frame in await asyncio.to_thread(client.frames, 1.0):
                        events.extend(decode(frame.data))

            await until(lambda: vendor.subscribed() == {NAME})
            await vendor.send(QUOTE)
            await read(1)
            feed.process.kill()
            assert await feed.ends() == -signal.SIGKILL
            await until(lambda: not vendor.subscribed())
            again = FeedProcess(vendor, port)
            await again.listens()
            await until(lambda: vendor.subscribed() == {NAME})
            await vendor.send(QUOTE)
            await read(2)
        async with reading(port, NAME, key="another") as reader:
            # Told to stop it says so to its readers, in the way at which they connect again.
            again.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                while True:
                    await reader.read()
            assert reader.connection.close_code == 1012
        assert await again.ends() == 0
        await vendor.stop()

    play(body)


def test_without_a_key_it_does_not_start_and_says_what_to_do() -> None:
    with pytest.raises(AuthenticationFailed, match="MASSIVE_API_KEYS"):
        feed_options(Settings())


def test_others_are_not_shown_the_vendors_key() -> None:
    override = ["feed.host=0.0.0.0"]
    environment = {"MASSIVE_API_KEY": "k1"}
    with pytest.raises(ConfigError, match="FEED_KEYS"):
        feed_options(load_settings(None, override, environment))
    options = feed_options(load_settings(None, override, environment | {"FEED_KEYS": "a b"}))
    assert (options.keys, options.reader_keys) == (("k1",), ("a", "b"))


def test_a_port_that_is_taken_is_named_with_the_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = usual.feed_options(
            "ws://127.0.0.1:1", "http://127.0.0.1:1", KEYS, KEYS, port=port
        )
        with pytest.raises(StreamError, match=rf"127\.0\.0\.1:{port}.*feed\.port"):
            asyncio.run(run_feed(options, lambda _: True, lambda _: None))


def test_the_page_about_the_feed_names_every_metric() -> None:
    page = (ROOT / "docs" / "feed.md").read_text()
    names = {sample.name for family in feed_families(FeedCounts()) for sample in family.samples}
    names |= {family.name for family in feed_families(FeedCounts())}
    assert [name for name in names if name.removesuffix("_total") not in page] == []


def test_several_keys_of_the_vendor_are_used_and_hidden() -> None:
    settings = load_settings(None, [], {"MASSIVE_API_KEY": "k1", "MASSIVE_API_KEYS": "k2 k3"})
    options = feed_options(settings)
    assert (options.keys, options.reader_keys) == (("k2", "k3"), ("k2", "k3"))
    assert set(settings.credentials.values()) >= {"k1", "k2", "k3"}
    assert "k2" not in repr(options)


def test_one_setting_points_a_reader_at_a_feed() -> None:
    direct = load_settings(None, [], {}).data.massive
    assert (direct.stream_address, direct.rest_address) == (direct.websocket_url, direct.rest_url)
    massive = load_settings(None, [], {"FEED_URL": "https://feed.example"}).data.massive
    assert massive.stream_address == "wss://feed.example"
    assert massive.rest_address == "https://feed.example"
