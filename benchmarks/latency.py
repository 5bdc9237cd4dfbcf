"""From a quote to the order: how late, while quotes pour in and the learner runs.

    python benchmarks/latency.py                            # half a minute of each
    python benchmarks/latency.py --overload-seconds 3600    # an hour of overload

**Delay.** A market server of its own process writes the quotes of a simulated session at a steady
rate, and notes when it wrote the first one behind each bar's end. The live market, in a process of
its own with journal, chains and network, closes the bar by that quote, decides and sends its
orders; what is measured is the time from the one to the other, so with both sockets, the queue, the
barrier over all connections, and the chains. The exchange's clock runs so fast that a session has
the wanted rate, so there are several bars a second. A learner that never rests has the rest of the
cores, at the priority that it has beside a live market.

**Overload.** A vendor offers more quotes a second than anybody reads through `trading feed`: one
reader takes all that it can, another one rests between frames. The feed holds one quote for each
contract and reader at most; what is replaced is counted, and its memory must not grow. It is told
in twenty steps, so that a picture shows the line.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from feed import KEY, serving, subscribe_all
from feed import NAMES as CONTRACTS
from figures import Figures, add_json, publish
from machine import processor
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

NAMES = ("AAA", "BBB", "CCC")
DAY = date(2026, 1, 5)
STRIKES = 40
"""Of each expiry: 960 contracts of three underlyings, which one connection may carry."""
MINUTE_NS = 60_000_000_000
_WARM_UP_BARS = 3
_START_S = 300.0
_FRAME_EVENTS = 25
_REST_S = 0.05
"""Of the slow reader, after each message."""
_WARM_UP_S = 5.0
_LOOKS, _SHOWN = 100, 20
"""How often the feed is asked for its memory, and how many rows tell of it."""


class Prepared:
    """The first minutes of a simulated session, computed before anybody listens.

    Attributes
    ----------
    start_ns, listing
        As of any source.
    """

    def __init__(self, rate: float, seconds: float) -> None:
        from trading.data.massive.server.source import SimulationSource
        from trading.market.simulator import SimulatedExchange, UnderlyingSpec

        specs = [UnderlyingSpec(name, 100.0, 0.25, n_strikes=STRIKES) for name in NAMES]
        exchange = SimulatedExchange(specs, DAY, seed=1, step_seconds=1)
        session = exchange.calendar.session_on(DAY)
        assert session is not None
        source = SimulationSource(exchange, session.open_ns)
        self.start_ns, self.listing = source.start_ns, source.listing
        self._steps, events = [], 0
        for step in source.steps():
            self._steps.append(step)
            events += len(step.quotes.ts_ns)
            passed_s = (step.ts_ns - self.start_ns) / 1e9
            if passed_s > 600.0 and events > rate * seconds:
                break
            if step.ts_ns >= session.close_ns - MINUTE_NS:
                break
        self.speed = rate / (events / passed_s)
        """Exchange seconds a second at which it has the rate."""
        self.lasts_s = passed_s / self.speed

    def steps(self) -> Iterator[Any]:
        yield from self._steps


def vendor(pipe: Any, rate: float, seconds: float) -> None:
    """A market server that tells when it wrote the first step behind each minute."""
    from trading.data.massive.server.server import MarketServer
    from trading.data.massive.server.source import SourceStep

    source = Prepared(rate, seconds)
    written: dict[int, int] = {}

    class Noting(MarketServer):
        async def _publish(self, step: SourceStep) -> None:
            # Of a step each quote is later than the step before.
            written.setdefault((step.ts_ns - 1) // MINUTE_NS * MINUTE_NS, time.monotonic_ns())
            await super()._publish(step)

    async def main() -> None:
        server = Noting(source, [KEY], speed=source.speed)
        pipe.send((await server.start(), source.speed, source.lasts_s))
        await asyncio.to_thread(pipe.recv)
        await server.begin()
        await asyncio.to_thread(pipe.recv)
        pipe.send(written)
        await server.stop()

    asyncio.run(main())


def live(pipe: Any, port: int, folder: str) -> None:
    """A live market that tells when each bar's decisions and orders were in the journal."""
    from trading.config import load_settings
    from trading.execution.events import Event, PromotedBy
    from trading.learning.champion.store import AccountChampion, ChampionStore, Promotion
    from trading.learning.checkpoints import write_module_weights
    from trading.learning.policy import Policy
    from trading.live import assembly
    from trading.live.actor import LiveMarket
    from trading.live.bar_clock import Bar
    from trading.live.endpoint import Endpoint
    from trading.live.trader import Trader

    told = [f"symbols=[{', '.join(NAMES)}]", f"paths.state_dir={folder}", "log_level=ERROR"]
    settings = load_settings(None, told, {})
    champions = ChampionStore(settings.paths.checkpoints, 5)
    weights = Policy(assembly.model_config(settings), settings.seed).weights()
    champions.write(
        lambda champion: write_module_weights(champion, weights),
        Promotion(0, PromotedBy.START, "of the benchmark"),
        AccountChampion(),
    )
    ordered: dict[int, int] = {}
    booked_ns: list[int] = []

    def book(events: Sequence[Event]) -> None:
        booked_ns[:] = [time.monotonic_ns()]

    class Noting(LiveMarket):
        def on_bar(self, trader: Trader, bar: Bar, latency_s: float | None) -> None:
            # What comes behind the last order, as telling the feed what is needed, delays none.
            if latency_s is not None and booked_ns:
                ordered[bar.end_ns] = booked_ns[0]
            elif not booked_ns:
                trader.env.broker.followers.append(book)
            super().on_bar(trader, bar, latency_s)

    endpoint = Endpoint(f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}", KEY)
    market = Noting(settings, endpoint, assembly.chosen_plugins(settings))
    while not (progress := market.progress()).connected:
        if progress.phase == "failed":
            raise SystemExit(progress.failure)
        time.sleep(0.05)
    pipe.send(assembly.trader_settings(settings).grace_ns)
    pipe.recv()
    before_s, began = time.process_time(), time.monotonic()
    pipe.recv()
    busy = (time.process_time() - before_s) / (time.monotonic() - began)
    progress = market.stop()
    pipe.send((ordered, progress.events, progress.fills, busy))


def learner(pipe: Any, folder: str) -> None:
    """Trains without a pause, at the priority of a learner beside a live market."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    from trading.app import local_ray

    local_ray.prepare(local=True)
    import ray

    from trading.config import load_settings
    from trading.learning import build
    from trading.learning.precedence import LEARNING, give_way
    from trading.live import assembly

    told = [f"symbols=[{', '.join(NAMES)}]", f"paths.state_dir={folder}"]
    settings = load_settings(None, [*told, "learning.num_env_runners=0"], {})
    local_ray.start(
        include_dashboard=False,
        log_to_driver=False,
        follow_logs=False,
        object_store_memory=100_000_000,
    )
    give_way(LEARNING)
    algorithm = build.build_algorithm(
        settings,
        assembly.model_config(settings),
        assembly.trading_rules(settings),
        assembly.fee_schedule(settings),
        build.place_learner(settings, 0.0),
    )
    algorithm.train()
    pipe.send("learns")
    updates = 0
    while not pipe.poll():
        algorithm.train()
        updates += 1
    pipe.recv()
    pipe.send(updates)
    algorithm.stop()
    ray.shutdown()


def told_by(pipe: Any, process: Any) -> Any:
    """What a process sends; an error where it has ended."""
    if not pipe.poll(_START_S):
        raise SystemExit(f"{process.name} says nothing for {_START_S:g} s")
    try:
        return pipe.recv()
    except EOFError:
        raise SystemExit(f"{process.name} has ended: see what it said") from None


def delays(rate: float, seconds: float, *, learns: bool) -> tuple[np.ndarray, dict[str, float]]:
    """Milliseconds from the quote behind a bar's end to its last order, and what was done."""
    spawn = multiprocessing.get_context("spawn")
    started: list[Any] = []

    def begun(name: str, target: Any, *arguments: Any) -> Any:
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=target, args=(theirs, *arguments), name=name)
        process.start()
        started.append(process)
        return ours, process

    with tempfile.TemporaryDirectory() as folder:
        try:
            at_learner = begun("the learner", learner, folder) if learns else None
            if at_learner is not None:
                told_by(*at_learner)
            at_vendor = begun("the market server", vendor, rate, seconds)
            port, _, lasts_s = told_by(*at_vendor)
            at_live = begun("the live market", live, port, str(Path(folder) / "live"))
            grace_ns = told_by(*at_live)
            at_live[0].send("begin")
            at_vendor[0].send("begin")
            time.sleep(min(seconds, lasts_s))
            at_live[0].send("end")
            ordered, events, fills, busy = told_by(*at_live)
            at_vendor[0].send("end")
            written = told_by(*at_vendor)
            updates = 0
            if at_learner is not None:
                at_learner[0].send("end")
                updates = told_by(*at_learner)
        finally:
            for process in started:
                process.join(30.0)
                if process.is_alive():
                    process.kill()
    assert grace_ns < 1_000_000_000, "the first step behind a bar ends later than the grace"
    ends = sorted(set(ordered) & set(written))[_WARM_UP_BARS:]
    late_ms = np.array([(ordered[end] - written[end]) / 1e6 for end in ends])
    took_s = min(seconds, lasts_s)
    done = {"events": events / took_s, "bars": len(ends) / took_s, "fills": float(fills)}
    return late_ms, done | {"updates": updates / took_s, "busy": busy}


def offering(pipe: Any, rate: int, readers: int) -> None:
    """Offer so many quotes a second, whoever reads them: what cannot be written in time is late."""
    frames = [
        "["
        + ",".join(
            f'{{"ev":"Q","sym":"{CONTRACTS[(first + each) % len(CONTRACTS)][2:]}","bx":302,'
            f'"bp":1.1,"bs":5,"ax":302,"ap":1.2,"as":7,"t":1766154600000,"q":{first + each}}}'
            for each in range(_FRAME_EVENTS)
        )
        + "]"
        for first in range(0, len(CONTRACTS), _FRAME_EVENTS)
    ]

    async def main() -> None:
        async with serving(readers) as (port, ready, begin):
            pipe.send(port)
            await begin.wait()
            loop = asyncio.get_running_loop()
            start, count, offered = loop.time(), 0, itertools.cycle(frames)
            while not pipe.poll():
                due = rate * (loop.time() - start)
                if count >= due:
                    await asyncio.sleep((count - due) / rate)
                for _ in range(40):
                    frame = next(offered)
                    for connection in ready:
                        with suppress(ConnectionClosed):
                            await connection.send(frame)
                    count += _FRAME_EVENTS
            pipe.recv()
            pipe.send((count, loop.time() - start))

    asyncio.run(main())


def overloaded_feed(pipe: Any, vendor_port: int) -> None:
    """A feed of that vendor; tells its memory and its counters as often as it is asked."""
    from trading.config import Settings
    from trading.feed.feed_server import FeedServer
    from trading.feed.running import feed_options

    async def main() -> None:
        vendor = {"websocket_url": f"ws://127.0.0.1:{vendor_port}", "port": 0}
        told = {"feed": vendor, "credentials": {"massive_api_key": KEY}}
        server = FeedServer(feed_options(Settings.model_validate(told)))
        pipe.send(await server.start())
        while await asyncio.to_thread(pipe.recv):
            figures = server.figures()
            pipe.send((resident_mb(), figures.events, figures.replaced))
        await server.stop()

    asyncio.run(main())


def slow_reader(port: int, rest_s: float) -> None:
    """Subscribe to everything, and rest after each message."""

    async def main() -> None:
        url = f"ws://127.0.0.1:{port}/options"
        async with connect(url, compression=None, max_size=None, max_queue=4) as connection:
            await subscribe_all(connection)
            async for _ in connection:
                if rest_s:
                    await asyncio.sleep(rest_s)

    with suppress(OSError, KeyboardInterrupt):
        asyncio.run(main())


def resident_mb() -> float:
    """Of this process."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Look(NamedTuple):
    """At the feed while it is overloaded."""

    after_s: float
    """Since the first one."""
    mb: float
    """Memory that the feed holds."""
    read: int
    """Quotes, from the start on."""
    replaced: int
    """For the reader that rests, likewise."""


def overload(rate: int, seconds: float) -> tuple[list[Look], float]:
    """Looks at the feed from time to time, and how many quotes a second were offered."""
    spawn = multiprocessing.get_context("spawn")
    (at_vendor, theirs), (at_feed, feeds) = spawn.Pipe(), spawn.Pipe()
    processes = [spawn.Process(target=offering, args=(theirs, rate, 1), name="the vendor")]
    processes[0].start()
    try:
        vendor_port = told_by(at_vendor, processes[0])
        between = spawn.Process(target=overloaded_feed, args=(feeds, vendor_port), name="the feed")
        between.start()
        processes.append(between)
        feed_port = told_by(at_feed, between)
        for rest_s in (0.0, _REST_S):
            reader = spawn.Process(target=slow_reader, args=(feed_port, rest_s), daemon=True)
            reader.start()
            processes.append(reader)
        time.sleep(_WARM_UP_S)
        began, looks = time.monotonic(), list[Look]()
        while (after_s := time.monotonic() - began) < seconds:
            at_feed.send(True)
            looks.append(Look(after_s, *told_by(at_feed, between)))
            time.sleep(seconds / _LOOKS)
        at_vendor.send("end")
        offered, took_s = told_by(at_vendor, processes[0])
        at_feed.send(False)
    finally:
        for process in processes[2:]:
            process.terminate()
        for process in processes:
            process.join(30.0)
            if process.is_alive():
                process.kill()
    return looks, offered / took_s


def tables_of(looks: list[Look], offered: float, name: str) -> list[Figures]:
    """What an overload came to, and the line of the feed's memory."""
    memory = [look.mb for look in looks]
    third = max(1, len(memory) // 3)
    first, last = np.median(memory[:third]), np.median(memory[-third:])
    newest = looks[-1]
    passed_s = newest.after_s - looks[0].after_s
    read = (newest.read - looks[0].read) / passed_s if passed_s else 0.0
    columns = {"offered/s": "{:,.0f}", "read/s": "{:,.0f}", "replaced": "{:,.0f}"}
    columns |= {"MB, first third": "{:.1f}", "MB, last third": "{:.1f}", "growth": "{:+.1%}"}
    grown = Figures("overload of the feed", columns)
    growth = float(last / first - 1.0)
    grown.add(name, offered, read, float(newest.replaced), float(first), float(last), growth)
    line = Figures("seconds of overload", {"MB": "{:.1f}", "replaced so far": "{:,.0f}"})
    for k in np.unique(np.linspace(0, len(looks) - 1, _SHOWN).astype(int)).tolist():
        line.add(f"{looks[k].after_s:,.0f}", looks[k].mb, float(looks[k].replaced))
    return [grown, line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", type=int, nargs="*", default=[50_000], help="quotes a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each rate")
    parser.add_argument("--overload", type=int, default=200_000, help="quotes a second")
    parser.add_argument("--overload-seconds", type=float, default=30.0, help="0: none")
    add_json(parser)
    options = parser.parse_args()
    columns = dict.fromkeys(("p50 ms", "p99 ms", "p99.9 ms", "worst ms"), "{:.1f}")
    columns |= {
        "bars": "{:,.0f}",
        "events/s": "{:,.0f}",
        "updates/s": "{:.1f}",
        "its core": "{:.0%}",
    }
    table = Figures("quotes/s", columns, title=f"from quote to order; {processor()}")
    for rate in options.rates:
        for learns in (False, True):
            late_ms, done = delays(rate, options.seconds, learns=learns)
            table.add(
                f"{rate:,}, {'a learner beside it' if learns else 'alone'}",
                *np.percentile(late_ms, [50, 99, 99.9]),
                float(late_ms.max()),
                len(late_ms),
                done["events"],
                done["updates"],
                done["busy"],
            )
    figures = [table]
    if options.overload_seconds:
        name = f"{options.overload:,} quotes/s, {options.overload_seconds:,.0f} s"
        figures += tables_of(*overload(options.overload, options.overload_seconds), name)
    publish(options, figures, width=140)


if __name__ == "__main__":
    main()
