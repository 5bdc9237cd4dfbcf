"""The feed of a Ray cluster: one actor holds the connection, applications of all nodes read it.

Applications that would show the vendor the same keys find one another by the actor's name. The
first makes it, each says every few seconds that it still reads it, and with the last it ends.
"""

import errno
import hashlib
import hmac
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

from pydantic import SecretStr

from trading.app.driver import CALL_TIMEOUT_S, SMALL_SHARE, actor_place, without_secrets
from trading.app.handles import FeedHandle
from trading.app.holders import FORGOTTEN_S, HELD_EVERY_S, Holders
from trading.app.waiting import StoppedOr, StopRequested, unless_stopped
from trading.config import MassiveSettings, Settings
from trading.config.settings import CredentialSettings
from trading.errors import ConfigError, StreamError, TradingError
from trading.feed.embedded import FeedThread, reading_from, vendor_feed
from trading.logs import configure_logging, get_logger

log = get_logger(__name__)

FEED_NAMESPACE = "trading-feed"
"""Ray namespace of the actors, which accounts have in common."""
_START_TIMEOUT_S = 300.0
_PORT_WAIT_S = 15.0
"""For the process that listened there before, which may live some seconds longer."""
_PORT_LOOK_S = 0.5


class FeedAddress(NamedTuple):
    """Where the feed listens."""

    url: str
    node: str
    """Ray's name of its node."""

    @property
    def port(self) -> int:
        """The port of `url`."""
        return int(self.url.rpartition(":")[2])


def reads_the_vendor(settings: Settings) -> bool:
    """Whether an application with these settings would connect to the vendor itself."""
    vendor = MassiveSettings().stream_address
    return settings.data.source == "massive" and settings.data.massive.stream_address == vendor


def reader_key(settings: Settings) -> str:
    """Return what readers of a cluster's feed show it.

    Of FEED_KEYS, else made of the vendor's keys.

    Who knows the vendor's keys knows it; from it they are not to be had.
    """
    credentials = settings.credentials
    if credentials.feed_keys is not None:
        return credentials.reader_keys[0]
    keys = " ".join(credentials.vendor_keys).encode()
    return hmac.new(keys, b"trading feed", hashlib.sha256).hexdigest()


def feed_name(settings: Settings) -> str:
    """Name of the actor: the same for applications with the same vendor and the same keys."""
    massive = settings.data.massive
    what = f"{massive.websocket_url} {massive.rest_url} {reader_key(settings)}"
    return f"feed-{hashlib.sha256(what.encode()).hexdigest()[:8]}"


class StartFailure(NamedTuple):
    """Why the feed did not begin to listen."""

    port: int
    at_s: float
    """By the monotonic clock."""
    reason: str


class FeedEnding(StreamError):
    """The last application has let go of it just now: the next feed is another actor."""


class FeedActor:
    """Runs the feed, on an actor that Ray starts again when it dies.

    Parameters
    ----------
    settings
        Those of the application that makes it, without secrets.
    host
        Gives the address to listen on.
    end
        Ends the actor for good; called when no application has been heard of for a while.
    forgotten_s
        So long.
    port_wait_s
        How long a port that is taken is waited for.
    """

    def __init__(
        self,
        settings: Settings,
        host: Callable[[], str],
        end: Callable[[], None],
        forgotten_s: float = FORGOTTEN_S,
        port_wait_s: float = _PORT_WAIT_S,
    ) -> None:
        self._settings = settings
        self._host = host
        self._port_wait_s = port_wait_s
        self._feed: FeedThread | None = None
        self._url = ""
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        """Held while it begins to listen, which may take as long as a port is waited for."""
        self._failure: StartFailure | None = None
        self._readers = Holders(end, forgotten_s)

    def hold(self, reader: str, credentials: CredentialSettings | None, port: int) -> str:
        """Listen, unless it does; note that an application reads it.

        Parameters
        ----------
        reader
            Name of the application.
        credentials
            The vendor's keys; None where it should have them already.
        port
            Where it listened before it was started again, or is to; 0: any free one. One that is
            taken is waited for; then another one is taken, unless `feed.port` asks for it.

        Returns
        -------
        str
            Its address; empty where it has to be given the keys.

        Raises
        ------
        TradingError
            It cannot start, or the port that `feed.port` asks for stays taken.
        """
        asked_s = time.monotonic()
        if (url := self._held(reader)) or credentials is None:
            return url
        with self._starting:
            if url := self._held(reader):
                return url
            self._check_failure(port, asked_s)
            host = self._host()
            try:
                settings = self._settings.model_copy(update={"credentials": credentials})
                feed = self._listen(settings, host, port)
            except TradingError as error:
                self._failure = StartFailure(port, time.monotonic(), str(error))
                raise
            with self._lock:
                self._feed, self._url = feed, f"http://{host}:{feed.port}"
        return self._held(reader)

    def _held(self, reader: str) -> str:
        """Note that an application reads it and return its address; empty: it does not listen."""
        with self._lock:
            if self._feed is None:
                return ""
            if not self._readers.hear(reader):
                raise FeedEnding("it is ending")
            return self._url

    def _check_failure(self, port: int, asked_s: float) -> None:
        """Raise what another application was told while this one waited for the same port.

        Each of them in turn would wait for it as long again, and the last give up on the feed.
        """
        failure = self._failure
        if failure is not None and failure.port == port and failure.at_s >= asked_s:
            raise StreamError(failure.reason)

    def _listen(self, settings: Settings, host: str, port: int) -> FeedThread:
        """Listen at a port, or at a free one where nobody asks for that and it stays taken."""
        deadline = time.monotonic() + self._port_wait_s
        while True:
            options = vendor_feed(settings, (reader_key(settings),), host, port)
            try:
                return FeedThread(options, settings.seed)
            except StreamError as error:
                if not _port_is_taken(error):
                    raise
                if time.monotonic() < deadline:
                    log.warning("the feed's port is taken, and waited for", host=host, port=port)
                    time.sleep(_PORT_LOOK_S)
                elif port == settings.feed.port and "port" in settings.feed.model_fields_set:
                    raise StreamError(
                        f"port {port} of {host}, where feed.port has the cluster's feed listen, is "
                        f"still taken after {self._port_wait_s:g} s: end what listens there, or "
                        "set feed.port=0, which is any free one"
                    ) from error
                else:
                    log.warning("the feed listens elsewhere: its port is taken", port=port)
                    port = 0

    def let_go(self, reader: str) -> bool:
        """Note that an application reads no more; return whether that was the last one."""
        return self._readers.let_go(reader)

    def close(self) -> None:
        """End the feed in order: its readers are told."""
        with self._lock:
            feed, self._feed = self._feed, None
        if feed is not None:
            feed.stop()


class RayFeedActor(FeedActor):
    """The actor as Ray runs it.

    Parameters
    ----------
    settings
        Those of the application that makes it, without secrets.
    beyond
        Whether other nodes are to reach it.
    """

    def __init__(self, settings: Settings, *, beyond: bool) -> None:
        import ray

        def host() -> str:
            return str(ray.util.get_node_ip_address()) if beyond else "127.0.0.1"

        def end() -> None:
            log.info("nobody reads the feed any more")
            ray.kill(ray.get_runtime_context().current_actor, no_restart=True)

        configure_logging(settings.log_level)
        super().__init__(settings, host, end)

    def where(
        self, reader: str, credentials: CredentialSettings | None, port: int
    ) -> tuple[str, str]:
        """As `hold`, with the name of the node."""
        import ray

        if credentials is not None:
            configure_logging(self._settings.log_level, credentials.values())
        return self.hold(reader, credentials, port), ray.get_runtime_context().get_node_id()

    def process(self) -> int:
        """Its process."""
        return os.getpid()


class ClusterFeed:
    """An application's hold on the feed of its cluster.

    Parameters
    ----------
    settings
        With the vendor's keys, and where the vendor is.

    Raises
    ------
    TradingError
        The feed does not start, or cannot be reached from here.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reader = uuid.uuid4().hex
        self._actor: FeedHandle | None = None
        self._stop = threading.Event()
        self._address = self._hold(settings.feed.port)
        self._check_reach()
        self._thread = threading.Thread(target=self._keep, name="feed's holder", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Address of the feed; another one after its node was lost."""
        return self._address.url

    def reading(self, settings: Settings) -> Settings:
        """Return the settings with this feed for the vendor, and the key that it asks for."""
        key = SecretStr(reader_key(self._settings))
        credentials = settings.credentials.model_copy(update={"massive_api_key": key})
        told = reading_from(settings, self.url)
        shown = told.model_copy(update={"credentials": credentials})
        shown._origin = told.origin
        return shown

    def close(self) -> None:
        """Read it no more; the last one ends it."""
        import ray

        self._stop.set()
        self._thread.join(CALL_TIMEOUT_S)
        actor = self._actor
        if actor is None:
            return  # It died, and was not made anew.
        try:
            if ray.get(actor.let_go.remote(self._reader), timeout=CALL_TIMEOUT_S):
                try:
                    ray.get(actor.close.remote(), timeout=CALL_TIMEOUT_S)
                finally:
                    # It lets nobody in any more: those that come find another one.
                    ray.kill(actor, no_restart=True)
        except ray.exceptions.RayError as error:
            log.warning("the feed did not hear the end", reason=str(error).splitlines()[0])

    def _keep(self) -> None:
        """Say again and again that this application reads it; make it anew where it is gone."""
        while not self._stop.wait(HELD_EVERY_S):
            try:
                address = self._hold(self._address.port)
            except TradingError as error:
                log.error("the feed is not held", reason=str(error))
                continue
            if address.url != self._address.url:
                log.warning("the feed has moved", before=self._address.url, now=address.url)
                self._address = address

    def _hold(self, port: int) -> FeedAddress:
        """Make the actor where there is none, and tell it of this application."""
        import ray

        credentials = None
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            if self._actor is None:
                self._actor = _feed_actor(self._settings)
            asked = self._actor.where.remote(self._reader, credentials, port)
            try:
                url, node = ray.get(asked, timeout=CALL_TIMEOUT_S)
                if url:
                    return FeedAddress(url, node)
                credentials = self._vendor_keys()
                continue
            except ray.exceptions.RayTaskError as error:
                reason: Exception = error.cause
                if not isinstance(reason, TradingError):
                    raise StreamError(f"the cluster's feed failed: {error}") from error
                if not isinstance(reason, FeedEnding):
                    raise reason from None
            except ray.exceptions.RayError as error:
                reason = error
            if isinstance(reason, FeedEnding | ray.exceptions.ActorDiedError):
                self._actor, credentials = None, None
            if self._stop.wait(0.2) or time.monotonic() > deadline:
                raise StreamError(f"the cluster's feed gives no answer: {reason}") from reason

    def _vendor_keys(self) -> CredentialSettings:
        """Return what the actor has to know of this application's secrets, and nothing else."""
        ours = self._settings.credentials
        return CredentialSettings(
            massive_api_key=ours.massive_api_key,
            massive_api_keys=ours.massive_api_keys,
            feed_keys=ours.feed_keys,
        )

    def _check_reach(self) -> None:
        import ray

        here = ray.get_runtime_context().get_node_id()
        if self._address.node != here and self.url.startswith("http://127.0.0.1"):
            if self._actor is not None:
                self._actor.let_go.remote(self._reader)
            raise ConfigError(
                [
                    f"the cluster's feed ({feed_name(self._settings)}) listens on its own node "
                    "alone, since the cluster had no other when it began: start the applications "
                    "that read it again, or run `trading feed` and name it by FEED_URL"
                ]
            )


def _port_is_taken(error: BaseException) -> bool:
    """Whether that is why a feed did not start."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE


@contextmanager
def cluster_feed(
    settings: Settings, stopped: Callable[[], bool] = lambda: False
) -> Iterator[ClusterFeed]:
    """Read the feed of this cluster while the block runs; see `ClusterFeed`.

    Raises
    ------
    StopRequested
        `stopped` said so before there was one.
    """
    begin = partial(ClusterFeed, settings)
    feed = unless_stopped(begin, "the cluster's feed", stopped, ClusterFeed.close)
    try:
        yield feed
    finally:
        feed.close()


@contextmanager
def reading_the_clusters(
    settings: Settings, stop: threading.Event
) -> Iterator[tuple[Settings, threading.Event]]:
    """Yield one strategy's settings with the cluster's feed for the vendor, and what ends it.

    Accounts that are no strategy connect to the vendor themselves.

    Raises
    ------
    StreamError
        The feed has moved: what reads it has to be started again.
    TradingError
        There is no feed to be had.
    """
    if settings.strategy is None or not reads_the_vendor(settings):
        yield settings, stop
        return
    with ExitStack() as stack:
        try:
            feed = stack.enter_context(cluster_feed(settings, stop.is_set))
        except StopRequested:
            # What would read it ends at once.
            yield settings, stop
            return
        before, until = feed.url, StoppedOrMoved(stop, feed)
        yield feed.reading(settings), until
        if feed.url != before and not stop.is_set():
            raise feed_moved(feed)


class StoppedOrMoved(StoppedOr):
    """Set with another event, or when a feed is no longer where it was."""

    def __init__(self, stop: threading.Event, feed: ClusterFeed) -> None:
        before = feed.url
        super().__init__(stop, lambda: feed.url != before)


def feed_moved(feed: ClusterFeed) -> StreamError:
    """Return what a strategy that read it fails of."""
    return StreamError(f"the cluster's feed has moved to {feed.url}")


def _feed_actor(settings: Settings) -> FeedHandle:
    """Return the actor of that name, made beside this driver where there is none."""
    import ray

    several = sum(bool(node["Alive"]) for node in ray.nodes()) > 1
    options: Mapping[str, Any] = {
        "name": feed_name(settings),
        "namespace": FEED_NAMESPACE,
        # Whoever made it may end before others that read it.
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "max_concurrency": 8,
        **actor_place(settings, SMALL_SHARE),
    }
    actor: Any = ray.remote(RayFeedActor)
    handle: FeedHandle = actor.options(**options).remote(without_secrets(settings), beyond=several)
    return handle
