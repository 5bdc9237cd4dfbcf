"""A market server that speaks the vendor's protocol: WebSocket and REST on one port.

It stands in for the vendor in tests, in the embedded default and in replays, so that live code
meets the same messages everywhere.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Final, Literal

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from trading.data.massive import protocol
from trading.data.massive.encoding import (
    encode_bar,
    encode_halt,
    encode_quotes,
    encode_trades,
    frames,
)
from trading.data.massive.protocol import AssetClass, FeedProtocol
from trading.data.massive.server import handshake
from trading.data.massive.server.market_state import MarketState
from trading.data.massive.server.rest_api import RestApi
from trading.data.massive.server.source import EventSource, Listing, SourceStep
from trading.data.massive.server.subscriber import Subscriber, pick_rows, union_of_rows
from trading.data.massive.wire import TapeClock, encode
from trading.errors import StreamError
from trading.logs import get_logger
from trading.market.bars import StockBar
from trading.market.corporate_actions import CorporateAction
from trading.market.dividends import Dividend
from trading.market.rates import YieldCurve

SlowReader = Literal["cut", "wait"]

_NORMAL_CLOSURE: Final = 1000
_GOING_AWAY: Final = 1001
_POLICY_VIOLATION: Final = 1008
_INTERNAL_ERROR: Final = 1011
_PING_INTERVAL_S: Final = 20.0
_LISTING_TIMEOUT_S: Final = 30.0
_PORT_RETRY_S: Final = 0.25
_LISTING_POLL_S: Final = 0.001

log = get_logger(__name__)


class MarketServer:
    """Streams a source's events to subscribed clients at the pace of an exchange clock.

    The clock stands at the source's start until `begin`. For each step the stock bars are
    written before any later option event, so a client that has read every connection up to an
    option event of time t has the stock bars that ended before t. At speed 0 the clock stands at a
    session's first step until the clients that said so before (see `ClientAction`) have listed and
    subscribed to what it trades: they would miss the quotes of new contracts else.

    Parameters
    ----------
    source: the market's events
    keys: API keys that may connect
    host, port: where to listen; port 0 lets the system choose
    speed: exchange seconds per wall second; 0 is as fast as clients read
    max_quote_contracts: contracts of `Q` per connection
    slow_reader: `cut` disconnects a client with more than `max_buffered_bytes` unread, `wait`
        holds the clock for it; by default `wait` at speed 0, else `cut`
    max_frame_events: events in one WebSocket message
    auth_timeout_s: how long a connection may stay unauthenticated
    close_timeout_s: how long a cut or stopped client has to close its side
    dividends, treasury_yields, actions: what is told of them by REST; the market itself knows none

    Attributes
    ----------
    state: the market at the exchange clock's time
    rest: its REST side, where corporate actions and official closes may be told
    finished: set when the source has ended and every connection is closed, or after `stop`

    Raises
    ------
    StreamError
        `speed` is negative, a bound is not positive, or there is no key.
    """

    def __init__(
        self,
        source: EventSource,
        keys: Collection[str],
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 1.0,
        *,
        max_quote_contracts: int = 1000,
        slow_reader: SlowReader | None = None,
        max_frame_events: int = 500,
        max_buffered_bytes: int = 8 << 20,
        auth_timeout_s: float = 10.0,
        close_timeout_s: float = 5.0,
        dividends: Iterable[Dividend] = (),
        treasury_yields: Iterable[YieldCurve] = (),
        actions: Iterable[CorporateAction] = (),
    ) -> None:
        if not speed >= 0.0:
            raise StreamError(f"server speed {speed} is negative: use 0 for as fast as possible")
        if min(max_quote_contracts, max_frame_events, max_buffered_bytes) < 1 or not keys:
            raise StreamError("market server needs at least one key and bounds of at least 1")
        self._start_ns = source.start_ns
        self._steps = source.steps()
        self._next: SourceStep | None = None
        self._host = host
        self._port = port
        self._speed = speed
        self._max_quote_contracts = max_quote_contracts
        self._cuts = (slow_reader or ("wait" if speed == 0.0 else "cut")) == "cut"
        self._max_frame_events = max_frame_events
        self._max_buffered_bytes = max_buffered_bytes
        self._auth_timeout_s = auth_timeout_s
        self._close_timeout_s = close_timeout_s
        self._keys = frozenset(keys)
        self.state = MarketState(source)
        self.rest = self._rest = RestApi(
            self.state, self._keys, dividends, treasury_yields, actions=actions
        )
        self._clients: list[Subscriber] = []
        self._connections: set[ServerConnection] = set()
        self._server: Server | None = None
        self._pacing: asyncio.Task[None] | None = None
        self._cutting: set[asyncio.Task[None]] = set()
        self.finished = asyncio.Event()

    @property
    def now_ns(self) -> int:
        """The exchange clock."""
        return self.state.now_ns

    @property
    def subscriptions(self) -> set[tuple[AssetClass, str, str]]:
        """What open connections are subscribed to: asset class, channel, symbol."""
        return {
            (client.protocol.asset_class, channel, symbol)
            for client in self._clients
            if client.is_open
            for channel, symbols in client.protocol.symbols.items()
            for symbol in symbols
        }

    async def start(self, port_wait_s: float = 0.0) -> int:
        """Return listens, with the clock standing still, and returns the port.

        The session's past, if the source begins within one, is known from here on.

        Parameters
        ----------
        port_wait_s
            How long a port that is taken is waited for, in seconds. One of a server that was killed
            may be held for a moment: by its process, or by a client that came back too early and
            was given that very port by the system.

        Raises
        ------
        OSError
            The port is taken.
        """
        # A source may compute for seconds at the start of a session: never on this loop.
        await asyncio.to_thread(self._apply_past)
        deadline_s = time.monotonic() + port_wait_s
        while self._server is None:
            try:
                self._server = await self._listen()
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline_s:
                    raise
                await asyncio.sleep(_PORT_RETRY_S)
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    async def _listen(self) -> Server:
        return await serve(
            self._serve,
            self._host,
            self._port,
            process_request=self._process_request,
            compression=None,
            # A client that is waited for may leave pings unanswered as long as it likes.
            ping_interval=_PING_INTERVAL_S if self._cuts else None,
            close_timeout=self._close_timeout_s if self._cuts else None,
            # Cutting looks at the buffer itself, so writing must never block on it.
            write_limit=4 * self._max_buffered_bytes if self._cuts else 1 << 16,
        )

    async def begin(self) -> None:
        """Start the exchange clock; do nothing when it already runs."""
        if self._pacing is None:
            self._pacing = asyncio.create_task(self._pace())

    async def wait_finished(self) -> None:
        """Wait for the end of the source.

        Raises
        ------
        TradingError
            Whatever the source raised.
        """
        await self.finished.wait()
        if self._pacing is not None and not self._pacing.cancelled():
            self._pacing.result()

    async def stop(self) -> None:
        """Stop the clock, close every connection (1001) and the port."""
        if self._pacing is not None:
            self._pacing.cancel()
            await asyncio.wait([self._pacing])
        if self._server is not None:
            self._server.close(close_connections=False)
            await self._close_all(_GOING_AWAY, self._close_timeout_s)
            await self._server.wait_closed()
        if self._cutting:
            await asyncio.wait(self._cutting)
        self.finished.set()

    def _apply_past(self) -> None:
        for step in self._steps:
            if step.ts_ns >= self._start_ns:
                self._next = step
                break
            self.state.apply(step)
        self.state.now_ns = self._start_ns

    async def _pace(self) -> None:
        pacer = _Pacer(self._speed, self._start_ns)
        code = _INTERNAL_ERROR
        listing = self.state.listing
        try:
            while (step := self._next) is not None:
                await pacer.wait_for(step)
                await self._publish(step)
                if step.listing is not listing:
                    listing = step.listing
                    await self._await_listed(listing)
                self._next = await asyncio.to_thread(next, self._steps, None)
            code = _NORMAL_CLOSURE
        except Exception:
            log.exception("market server stopped: its source failed")
            raise
        finally:
            if not _cancelling():
                await self._close_all(code, self._close_timeout_s if self._cuts else None)
                self.finished.set()

    async def _await_listed(self, listing: Listing) -> None:
        """Wait, at speed 0, until the clients that say so have listed the session that begins."""
        if self._cuts or self._speed > 0.0:
            return
        today, loop = listing.session.date.isoformat(), asyncio.get_running_loop()
        deadline = loop.time() + _LISTING_TIMEOUT_S
        while any(
            client.is_open and "" < client.protocol.opened < today for client in self._clients
        ):
            if loop.time() > deadline:
                log.warning("a client has not listed the session: going on", date=today)
                return
            await asyncio.sleep(_LISTING_POLL_S)

    async def _publish(self, step: SourceStep) -> None:
        self.state.apply(step)
        await self._publish_halts(step)
        stock_bars = [bar for bar in step.bars if not bar.symbol.startswith("O:")]
        option_bars = [bar for bar in step.bars if bar.symbol.startswith("O:")]
        await self._publish_bars("stocks", stock_bars)
        await self._publish_options(step)
        await self._publish_bars("options", option_bars)

    async def _publish_bars(self, asset_class: AssetClass, bars: Sequence[StockBar]) -> None:
        clients = self._open_clients(asset_class)
        if not bars or not clients:
            return
        encoded = [
            encode_bar(bar, self.state.now_ns, self.state.totals[bar.symbol]) for bar in bars
        ]
        for client in clients:
            wants = client.protocol.wants
            pairs = zip(bars, encoded, strict=True)
            await self._send(client, [event for bar, event in pairs if wants("AM", bar.symbol)])

    async def _publish_halts(self, step: SourceStep) -> None:
        for client in self._open_clients("stocks") if step.halts else ():
            wanted = [news for news in step.halts if client.protocol.wants("LULD", news.symbol)]
            await self._send(client, [encode_halt(news) for news in wanted])

    async def _publish_options(self, step: SourceStep) -> None:
        clients = self._open_clients("options")
        quote_rows = [client.rows("Q", step.listing, step.quotes.contract) for client in clients]
        trade_rows = [client.rows("T", step.listing, step.trades.contract) for client in clients]
        symbols = step.listing.symbols
        quote_union = union_of_rows(quote_rows)
        trade_union = union_of_rows(trade_rows)
        quotes = encode_quotes(step.quotes, quote_union, symbols)
        trades = encode_trades(step.trades, trade_union, symbols)
        for client, quoted, traded in zip(clients, quote_rows, trade_rows, strict=True):
            events = pick_rows(quotes, quote_union, quoted) + pick_rows(trades, trade_union, traded)
            await self._send(client, events)

    def _open_clients(self, asset_class: AssetClass) -> list[Subscriber]:
        return [
            client
            for client in self._clients
            if client.protocol.asset_class == asset_class and client.is_open
        ]

    async def _send(self, client: Subscriber, events: Sequence[bytes]) -> None:
        """Write `events` to the socket; with `wait`, return once the client caught up."""
        for piece in frames(events, self._max_frame_events):
            frame = piece
            if client.protocol.tells_time:
                # The events of a step are no later than the step itself.
                clock = encode([TapeClock(self.state.now_ns // 1_000_000)])
                frame = clock[:-1] + b"," + piece[1:]
            transport = client.connection.transport
            if self._cuts and transport.get_write_buffer_size() > self._max_buffered_bytes:
                self._drop(client)
                task = asyncio.create_task(self._cut(client.connection))
                self._cutting.add(task)
                task.add_done_callback(self._cutting.discard)
                return
            with suppress(ConnectionClosed):
                await client.connection.send(frame, text=True)

    def _drop(self, client: Subscriber) -> None:
        if client in self._clients:
            self._clients.remove(client)

    async def _cut(self, connection: ServerConnection) -> None:
        log.warning("client reads too slowly and is cut", address=str(connection.remote_address))
        with suppress(ConnectionClosed):
            await handshake.send_statuses(connection, [protocol.slow_consumer()])
        await handshake.close(connection, _POLICY_VIOLATION, "slow consumer", self._close_timeout_s)

    async def _close_all(self, code: int, timeout_s: float | None) -> None:
        connections = list(self._connections)
        await asyncio.gather(*(handshake.close(each, code, "", timeout_s) for each in connections))

    async def _serve(self, connection: ServerConnection) -> None:
        """One connection's life."""
        self._connections.add(connection)
        try:
            with suppress(ConnectionClosed):
                await handshake.send_statuses(connection, [protocol.connected()])
                client = await self._admit(connection)
                if client is not None:
                    await self._converse(client)
        finally:
            self._connections.discard(connection)

    async def _converse(self, client: Subscriber) -> None:
        """Answer a client until its connection closes."""
        try:
            async for message in client.connection:
                reply = client.protocol.receive(message)
                await handshake.send_statuses(
                    client.connection, reply.statuses, self._max_frame_events
                )
                if reply.refused:
                    await handshake.refuse(client.connection, self._close_timeout_s)
        finally:
            self._drop(client)

    async def _admit(self, connection: ServerConnection) -> Subscriber | None:
        """Return the authenticated client, or None after the connection was refused and closed."""
        feed = FeedProtocol(
            handshake.asset_class_of(connection),
            self._keys,
            max_quote_contracts=self._max_quote_contracts,
        )
        if not await handshake.authenticate(
            connection, feed, self._auth_timeout_s, self._close_timeout_s
        ):
            return None
        if any(other.is_open and other.is_same_account(feed) for other in self._clients):
            await handshake.send_statuses(connection, [protocol.max_connections()])
            await handshake.refuse(connection, self._close_timeout_s)
            return None
        if self.finished.is_set():
            await handshake.close(connection, _NORMAL_CLOSURE, "", self._close_timeout_s)
            return None
        client = Subscriber(connection, feed)
        self._clients.append(client)
        return client

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer REST; None lets a WebSocket handshake go on."""
        if handshake.is_stream(request):
            return None
        reply = self._rest.get(request.path, request.headers)
        return handshake.response(reply.status, reply.body)


class _Pacer:
    """Maps exchange time to wall time, anew from each session's first step.

    The first session is paced from the clock's start; later ones begin at once, since nothing
    is written between sessions.
    """

    def __init__(self, speed: float, start_ns: int) -> None:
        self._speed = speed
        self._anchor_ns = start_ns
        self._anchor_wall = asyncio.get_running_loop().time()
        self._listing: Listing | None = None

    async def wait_for(self, step: SourceStep) -> None:
        """Wait until the wall clock reaches the step's time."""
        if self._speed == 0.0:
            return
        loop = asyncio.get_running_loop()
        if self._listing is not None and step.listing is not self._listing:
            self._anchor_ns, self._anchor_wall = step.ts_ns, loop.time()
        self._listing = step.listing
        due = self._anchor_wall + (step.ts_ns - self._anchor_ns) / 1e9 / self._speed
        await asyncio.sleep(max(0.0, due - loop.time()))


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
