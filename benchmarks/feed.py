"""How much later readers get quotes through `trading feed` than straight from the vendor.

A vendor of its own process writes quotes at a steady rate, each with the instant at which it was
written. In one and the same run readers get them straight and through a feed, each in a process of
its own; what is compared is the delay from the instant of writing to that of reading.
"""

import argparse
import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import numpy as np
from figures import Figures, add_json, publish
from machine import processor
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from trading.config import Settings
from trading.data.massive import protocol
from trading.data.massive.protocol import FeedProtocol
from trading.data.massive.server import handshake
from trading.data.massive.wire import encode_action
from trading.feed.feed_server import FeedServer
from trading.feed.running import feed_options

KEY = "key-of-the-benchmark"
NAMES = [f"Q.O:SPY261219C{number:08d}" for number in range(1000)]
_FRAME_EVENTS = 25
_WARM_UP_S = 1.0
_MARGIN_S = 3.0
"""For which the vendor writes on, so that readers that began late have their time."""


class Written(msgspec.Struct):
    """What is read of a quote: when it was written, in nanoseconds of the machine's clock."""

    ev: str
    ns: int = 0


@asynccontextmanager
async def serving(
    readers: int,
) -> AsyncIterator[tuple[int, list[ServerConnection], asyncio.Event]]:
    """A vendor's port, the connections that have all contracts, and whether `readers` have them."""
    ready: list[ServerConnection] = []
    begin = asyncio.Event()

    async def converse(connection: ServerConnection) -> None:
        feed = FeedProtocol("options", {KEY}, len(NAMES))
        await handshake.send_statuses(connection, [protocol.connected()])
        await handshake.authenticate(connection, feed, 60.0, 5.0)
        with suppress(ConnectionClosed):
            async for message in connection:
                await handshake.send_statuses(connection, feed.receive(message).statuses)
                if len(feed.symbols.get("Q", ())) == len(NAMES):
                    ready.append(connection)
                    if len(ready) == readers:
                        begin.set()

    async with serve(converse, "127.0.0.1", 0, compression=None) as server:
        yield next(iter(server.sockets)).getsockname()[1], ready, begin


async def subscribe_all(connection: ClientConnection) -> None:
    """Ask for the quotes of all contracts."""
    await connection.send(encode_action("auth", KEY))
    for begin in range(0, len(NAMES), 200):
        names = ",".join(NAMES[begin : begin + 200])
        await connection.send(encode_action("subscribe", names))


def vendor(ports: Any, rate: int, seconds: float, readers: int) -> None:
    """Write quotes of all contracts in turn once everybody has subscribed, then close."""

    async def main() -> None:
        async with serving(readers) as (port, ready, begin):
            ports.put(port)
            await begin.wait()
            await asyncio.sleep(2.0)
            loop = asyncio.get_running_loop()
            start, count = loop.time(), 0
            while (now := loop.time() - start) < seconds + _MARGIN_S:
                if count >= rate * now:
                    await asyncio.sleep(max(0.0, count / rate - now))
                events = ",".join(
                    f'{{"ev":"Q","sym":"{NAMES[(count + each) % len(NAMES)][2:]}","bx":302,'
                    f'"bp":1.1,"bs":5,"ax":302,"ap":1.2,"as":7,"t":1766154600000,"q":{count},'
                    f'"ns":{time.monotonic_ns()}}}'
                    for each in range(_FRAME_EVENTS)
                )
                count += _FRAME_EVENTS
                for connection in ready:
                    with suppress(ConnectionClosed):
                        await connection.send(f"[{events}]")

    asyncio.run(main())


def feed(ports: Any, vendor_port: int, stop: Any) -> None:
    """A feed of that vendor."""

    async def main() -> None:
        vendor = {"websocket_url": f"ws://127.0.0.1:{vendor_port}", "port": 0}
        told = {"feed": vendor, "credentials": {"massive_api_key": KEY}}
        server = FeedServer(feed_options(Settings.model_validate(told)))
        ports.put(await server.start())
        while not server.figures().events:
            await asyncio.sleep(0.01)
        began, before_s = server.figures().events, time.process_time()
        await asyncio.to_thread(stop.wait)
        figures = server.figures()
        each_us = (time.process_time() - before_s) / max(figures.events - began, 1) * 1e6
        ports.put((figures.events, figures.replaced, each_us))
        await server.stop()

    asyncio.run(main())


def read(port: int, way: str, seconds: float, results: Any) -> None:
    """Subscribe to everything, and note how late each quote comes."""

    async def main() -> None:
        decode = msgspec.json.Decoder(list[Written]).decode
        late: list[int] = []
        async with connect(
            f"ws://127.0.0.1:{port}/options", compression=None, max_size=None
        ) as connection:
            await subscribe_all(connection)
            first = 0
            try:
                async with asyncio.timeout(seconds + 60.0):
                    while True:
                        events = decode(await connection.recv(decode=False))
                        now = time.monotonic_ns()
                        quotes = [each.ns for each in events if each.ev == "Q"]
                        if quotes:
                            first = first or now
                            if now - first > _WARM_UP_S * 1e9:
                                late += [now - ns for ns in quotes]
                            if now - first > seconds * 1e9:
                                break
            except (TimeoutError, OSError):
                pass
        results.put((way, np.array(late) / 1e6))

    asyncio.run(main())


def measure(rate: int, readers: int, seconds: float) -> dict[str, Any]:
    """Delays in milliseconds of one reader straight and of `readers` through the feed."""
    spawn = multiprocessing.get_context("spawn")
    ports, results, stop = spawn.Queue(), spawn.Queue(), spawn.Event()
    at_vendor = spawn.Process(target=vendor, args=(ports, rate, seconds, 2))
    at_vendor.start()
    vendor_port = ports.get()
    between = spawn.Process(target=feed, args=(ports, vendor_port, stop))
    between.start()
    feed_port = ports.get()
    ways = [("straight", vendor_port), *[("through the feed", feed_port)] * readers]
    clients = [spawn.Process(target=read, args=(port, way, seconds, results)) for way, port in ways]
    for client in clients:
        client.start()
    found = [results.get() for _ in clients]
    stop.set()
    events, replaced, each_us = ports.get()
    for process in (*clients, between, at_vendor):
        process.join()
    delays = {way: np.concatenate([each for name, each in found if name == way]) for way, _ in ways}
    return {"delays": delays, "events": events, "replaced": replaced, "each_us": each_us}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", default="2000,10000,30000", help="quotes a second")
    parser.add_argument("--readers", default="1,3", help="readers through the feed")
    parser.add_argument("--seconds", type=float, default=8.0)
    add_json(parser)
    options = parser.parse_args()
    delays = ("straight, p50 ms", "straight, p99 ms", "by feed, p50 ms", "by feed, p99 ms")
    columns = {**dict.fromkeys(delays, "{:.2f}"), "ratio of p50": "{:.2f} x"}
    columns |= {"quotes left out": "{}", "feed's CPU µs a quote": "{:.1f}"}
    table = Figures("quotes/s, readers", columns, title=processor())
    for rate in map(int, options.rates.split(",")):
        for readers in map(int, options.readers.split(",")):
            found = measure(rate, readers, options.seconds)
            straight, through = (
                np.percentile(found["delays"][way], [50, 99])
                for way in ("straight", "through the feed")
            )
            table.add(
                f"{rate:,}, {readers}",
                *straight,
                *through,
                through[0] / straight[0],
                f"{found['replaced']:,} of {found['events'] * readers:,}",
                found["each_us"],
            )
    publish(options, [table], width=140)


if __name__ == "__main__":
    main()
