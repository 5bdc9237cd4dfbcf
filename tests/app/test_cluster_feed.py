"""The feed of a Ray cluster: one connection to the vendor, whichever applications read it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import pytest

from tests.feed.vendor import KEYS, Vendor, play
from tests.ports import free_port
from tests.waits import WAIT_S
from trading.app import cluster_feed as module
from trading.app.cluster_feed import (
    FEED_NAMESPACE,
    ClusterFeed,
    FeedActor,
    FeedEnding,
    StoppedOrMoved,
    cluster_feed,
    feed_moved,
    feed_name,
    reader_key,
    reads_the_vendor,
)
from trading.app.driver import without_secrets
from trading.config import Settings, load_settings
from trading.data.massive.client.stream import StreamClient
from trading.data.massive.wire import Quote, decode
from trading.errors import StreamError
from trading.feed.embedded import FeedThread, reading_from
from trading.live import assembly
from trading.live.endpoint import Endpoint

NAME = "Q.O:SPY251219C00650000"


def settings_of(vendor_url: str = "ws://127.0.0.1:1", **environment: str) -> Settings:
    lines = ["data.source=massive", f"data.massive.websocket_url={vendor_url}"]
    return load_settings(None, lines, {"MASSIVE_API_KEY": KEYS[0], **environment})


def quote(price: float) -> Quote:
    return Quote(NAME.removeprefix("Q."), 1_766_154_600_000, price, price + 0.1, 5, 6, 1)


def client_of(settings: Settings, url: str, key: str) -> StreamClient:
    """The stream as a live market reads it, that shows `key`."""
    massive = reading_from(settings, url).data.massive
    endpoint = Endpoint(massive.stream_address, massive.rest_address, key)
    return StreamClient(assembly.stream_settings(settings, endpoint))


def actor_of(settings: Settings, end: Callable[[], None] = lambda: None) -> FeedActor:
    return FeedActor(without_secrets(settings), lambda: "127.0.0.1", end)


def test_readers_share_one_connection_and_find_the_feed_again_where_it_was() -> None:
    async def body() -> None:
        vendor = Vendor(keys=KEYS[:1])
        await vendor.start()
        settings = settings_of(vendor.url)
        first = actor_of(settings)
        hold = (settings.credentials, 0)
        url = await asyncio.to_thread(first.hold, "a", *hold)
        assert await asyncio.to_thread(first.hold, "b", *hold) == url
        clients = [client_of(settings, url, reader_key(settings)) for _ in range(2)]

        async def both_see(price: float) -> None:
            for each in clients:
                seen: list[object] = []
                while quote(price) not in seen:
                    # Until a connection is lost it counts as acknowledged what it was.
                    await vendor.send(quote(price))
                    frames = await asyncio.to_thread(each.frames, 0.2)
                    seen += [event for frame in frames for event in decode(frame.data)]

        for each in clients:
            each.start()
            each.subscribe("options", [NAME])
        await both_see(1.0)
        assert vendor.attempts == 1
        # Ray starts it again: it knows nothing, and an application says where it was.
        await asyncio.to_thread(first.close)
        again = actor_of(settings)
        port = int(url.rpartition(":")[2])
        assert await asyncio.to_thread(again.hold, "b", settings.credentials, port) == url
        await both_see(2.0)
        for each in clients:
            each.close()
        await asyncio.to_thread(again.close)
        await vendor.stop()

    play(body)


def test_the_vendors_key_opens_nothing_and_the_readers_key_does_not_tell_it() -> None:
    settings = settings_of()
    feed = actor_of(settings)
    assert feed.hold("a", None, 0) == "", "it asks for the keys that it has not"
    url = feed.hold("a", settings.credentials, 0)
    assert feed.hold("a", None, 0) == url, "and for none that it has"
    asked = f"{url}/v3/reference/options/contracts"
    answer = httpx.get(asked, headers={"Authorization": f"Bearer {KEYS[0]}"}, timeout=WAIT_S)
    assert answer.status_code == 401
    feed.close()
    assert KEYS[0] not in reader_key(settings)
    assert reader_key(settings_of(FEED_KEYS="ours theirs")) == "ours"


def test_it_ends_with_the_last_reader_and_when_none_is_heard_of() -> None:
    settings, ended = settings_of(), threading.Event()
    feed = actor_of(settings)
    for reader in ("a", "b"):
        feed.hold(reader, settings.credentials, 0)
    assert (feed.let_go("a"), feed.let_go("b")) == (False, True)
    with pytest.raises(FeedEnding):
        feed.hold("c", None, 0)
    feed.close()
    feed = FeedActor(without_secrets(settings), lambda: "127.0.0.1", ended.set, forgotten_s=1.0)
    feed.hold("a", settings.credentials, 0)
    assert ended.wait(WAIT_S)
    feed.close()


def test_the_name_is_of_the_vendor_and_the_keys() -> None:
    same = [settings_of(), settings_of(SYMBOLS="QQQ")]
    others = [settings_of("ws://127.0.0.1:2"), settings_of(MASSIVE_API_KEYS=" ".join(KEYS))]
    assert len({feed_name(each) for each in same}) == 1
    assert len({feed_name(each) for each in [*same, *others]}) == 3


class Moving(ClusterFeed):
    """A feed whose address a test sets."""

    def __init__(self, at: str) -> None:
        self.at = at

    @property
    def url(self) -> str:
        return self.at


def test_what_reads_it_ends_when_it_has_moved_or_is_told_to() -> None:
    feed, stop = Moving("http://10.0.0.1:8765"), threading.Event()
    either = StoppedOrMoved(stop, feed)
    assert not either.wait(0.0) and not either.is_set()
    threading.Timer(0.05, stop.set).start()
    assert either.wait() and either.is_set()
    stop.clear()
    assert not either.is_set()
    feed.at = "http://10.0.0.2:8765"
    assert either.wait(WAIT_S)


@contextmanager
def gone(name: str) -> Iterator[None]:
    """No actor of that name is there before, nor afterwards."""
    import ray

    def there() -> bool:
        try:
            ray.get_actor(name, namespace=FEED_NAMESPACE)
        except ValueError:
            return False
        return True

    assert not there()
    yield
    deadline = time.monotonic() + WAIT_S
    while there():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_applications_of_a_cluster_have_one_feed_that_comes_back_where_it_was() -> None:
    import ray

    settings = load_settings(
        None,
        ["data.source=massive", f"feed.port={free_port()}"],
        {"MASSIVE_API_KEY": KEYS[0]},
    )
    assert reads_the_vendor(settings)
    with gone(feed_name(settings)), cluster_feed(settings) as ours:
        told = ours.reading(settings)
        assert not reads_the_vendor(told)
        assert told.data.massive.rest_address == ours.url
        key = told.credentials.massive_api_key
        assert key is not None and key.get_secret_value() == reader_key(settings)
        with cluster_feed(settings) as theirs:
            assert theirs.url == ours.url
        actor = ray.get_actor(feed_name(settings), namespace=FEED_NAMESPACE)
        process = ray.get(actor.process.remote())
        os.kill(process, signal.SIGKILL)
        deadline = time.monotonic() + WAIT_S
        while True:
            assert time.monotonic() < deadline
            try:
                if ray.get(actor.process.remote(), timeout=WAIT_S) != process and httpx.get(
                    f"{ours.url}/status", timeout=WAIT_S
                ):
                    break
            except (httpx.HTTPError, ray.exceptions.RayActorError):
                time.sleep(0.1)
        assert ours.url == f"http://127.0.0.1:{settings.feed.port}"


def test_a_feed_that_is_ending_is_left_for_the_next_one_and_one_that_hangs_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    made: list[str] = []
    killed: list[object] = []

    def feed_actor(_: Settings) -> object:
        made.append(f"feed {len(made) + 1}")
        calls = {
            name: SimpleNamespace(remote=lambda *_, of=(made[-1], name): of)
            for name in ("where", "let_go", "close")
        }
        return SimpleNamespace(**calls)

    def get(asked: tuple[str, str], timeout: float) -> object:
        feed, method = asked
        if feed == "feed 1":
            raise ray.exceptions.RayTaskError("where", "", FeedEnding("it is ending"))
        if method == "close":
            raise ray.exceptions.GetTimeoutError("no answer")
        return True if method == "let_go" else ("http://10.0.0.1:8765", "a node")

    here = SimpleNamespace(get_node_id=lambda: "a node")
    monkeypatch.setattr(module, "_feed_actor", feed_actor)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: here)
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "kill", lambda actor, **_: killed.append(actor))
    with cluster_feed(settings_of()) as feed:
        assert feed.url == "http://10.0.0.1:8765" and made == ["feed 1", "feed 2"]
    assert len(killed) == 1


@contextmanager
def listening() -> Iterator[socket.socket]:
    """Something else that has a port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other


def test_a_port_that_is_still_taken_is_waited_for() -> None:
    settings = settings_of()
    actor = actor_of(settings)
    with listening() as other:
        port = other.getsockname()[1]
        held: list[str] = []
        thread = threading.Thread(
            target=lambda: held.append(actor.hold("a", settings.credentials, port))
        )
        thread.start()
        thread.join(1.5)
        assert thread.is_alive() and not held
    thread.join(WAIT_S)
    assert held == [f"http://127.0.0.1:{port}"]
    actor.close()


def test_a_port_that_stays_taken_is_given_up_where_nobody_asked_for_it() -> None:
    settings = settings_of()
    actor = FeedActor(without_secrets(settings), lambda: "127.0.0.1", lambda: None, port_wait_s=0.2)
    with listening() as other:
        port = other.getsockname()[1]
        url = actor.hold("a", settings.credentials, port)
        assert url.startswith("http://127.0.0.1:") and not url.endswith(f":{port}")
        assert httpx.get(f"{url}/health").is_success
    actor.close()


def test_a_port_that_the_settings_ask_for_is_named_when_it_stays_taken() -> None:
    with listening() as other:
        port = other.getsockname()[1]
        lines = ["data.source=massive", f"feed.port={port}"]
        settings = load_settings(None, lines, {"MASSIVE_API_KEY": KEYS[0]})
        actor = FeedActor(
            without_secrets(settings), lambda: "127.0.0.1", lambda: None, port_wait_s=0.2
        )
        with pytest.raises(StreamError, match=rf"port {port} of 127.0.0.1.* set feed.port=0"):
            actor.hold("a", settings.credentials, port)
    assert actor.hold("a", settings.credentials, port).endswith(f":{port}"), "once it is free"
    actor.close()


class Watched(FeedActor):
    """A feed that begins to listen when a test lets it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, lambda: "127.0.0.1", lambda: None, port_wait_s=0.0)
        self.asked = {"a": threading.Event(), "b": threading.Event()}
        self.begins, self.goes_on = threading.Event(), threading.Event()
        self.tries = 0

    def _held(self, reader: str) -> str:
        self.asked[reader].set()
        return super()._held(reader)

    def _listen(self, settings: Settings, host: str, port: int) -> FeedThread:
        self.tries += 1
        self.begins.set()
        assert self.goes_on.wait(WAIT_S)
        return super()._listen(settings, host, port)


def test_while_a_port_is_waited_for_nobody_else_is_held_up_nor_told_another_cause() -> None:
    with listening() as other, ThreadPoolExecutor(3) as pool:
        port = other.getsockname()[1]
        lines = ["data.source=massive", f"feed.port={port}"]
        settings = load_settings(None, lines, {"MASSIVE_API_KEY": KEYS[0]})
        actor = Watched(without_secrets(settings))
        held = [pool.submit(actor.hold, "a", settings.credentials, port)]
        assert actor.begins.wait(WAIT_S)
        held.append(pool.submit(actor.hold, "b", settings.credentials, port))
        assert actor.asked["b"].wait(WAIT_S)
        actor._readers.hear("d")
        assert not pool.submit(actor.let_go, "c").result(WAIT_S)
        pool.submit(actor.close).result(WAIT_S)
        assert not any(each.done() for each in held)
        actor.goes_on.set()
        for each in held:
            assert f"port {port} of 127.0.0.1" in str(each.exception(WAIT_S))
        assert actor.tries == 1
    assert actor.hold("a", settings.credentials, port).endswith(f":{port}"), "once it is free"
    actor.close()


def test_a_feed_that_moved_is_told_without_a_guess_at_the_cause() -> None:
    """Its port may have been taken, or its node lost."""
    said = str(feed_moved(Moving("http://10.0.0.2:8765")))
    assert said == "the cluster's feed has moved to http://10.0.0.2:8765"
