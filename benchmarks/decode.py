"""What a quote costs from the vendor's frame to the chain, beside the vendor's own client.

    python benchmarks/decode.py
    python benchmarks/decode.py --flat-files FOLDER --day 2015-12-24 --underlying GOOG
    python benchmarks/decode.py --profile                   # where our time goes, instead

Frames are JSON arrays as the vendor sends them, of a simulated session, or of the quotes of a flat
file of the vendor. Everybody gets the same frames in the same order, in this process; they take
turns, and the median of the rounds counts, in seconds of the processor. Ours decodes a frame, holds
each quote against the clock and the order of its contract, and writes it into the chain. That is
all that is done for each quote; prices are judged once a bar, which `scaling.py` has in its
milliseconds for a bar. The vendor's client parses: what a program does with it comes on top.
"""

import argparse
import cProfile
import json
import logging
import pstats
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from time import process_time
from typing import NamedTuple

import msgspec
import numpy as np
from figures import Figures, add_json, publish

from trading.config import load_settings
from trading.data.flatfiles import load_quotes
from trading.data.massive.columns import Quotes
from trading.data.massive.encoding import encode_quotes, frames
from trading.data.massive.server.source import SimulationSource
from trading.data.massive.wire import EventDecoder
from trading.envs.live_env import LiveEnv
from trading.execution.broker import PaperBroker
from trading.execution.journal import Journal
from trading.live import assembly
from trading.live.bar_clock import Bar, BarClock
from trading.market.calendar import MINUTE_NS, ExchangeCalendar, Session
from trading.market.contracts import OptionContract, parse_symbol
from trading.market.simulator import SimulatedExchange, UnderlyingSpec

SIMULATED_DAY = date(2026, 1, 5)
NAMES = ("AAA", "BBB", "CCC")


class Day(NamedTuple):
    """Frames of one session, and what is listed in it."""

    session: Session
    underlyings: tuple[str, ...]
    contracts: list[OptionContract]
    frames: list[bytes]
    events: int


def simulated(events: int, in_a_frame: int) -> Day:
    """So many quotes of three underlyings from the open on."""
    specs = [UnderlyingSpec(name, 100.0, 0.25, n_strikes=42) for name in NAMES]
    exchange = SimulatedExchange(specs, SIMULATED_DAY, seed=1, step_seconds=5)
    open_ns = exchange.calendar.session_on(SIMULATED_DAY).open_ns
    source = SimulationSource(exchange, open_ns)
    encoded: list[bytes] = []
    for step in source.steps():
        rows = np.flatnonzero(step.quotes.ts_ns > open_ns)
        encoded += encode_quotes(step.quotes, rows, source.listing.symbols)
        if len(encoded) >= events:
            break
    packed = list(frames(encoded[:events], in_a_frame))
    listing = source.listing
    return Day(listing.session, NAMES, list(listing.contracts), packed, len(encoded[:events]))


def recorded(folder: Path, day: date, underlying: str, events: int, in_a_frame: int) -> Day:
    """The first quotes of a session in the vendor's flat file."""
    table = load_quotes(folder, day, [underlying])
    session = ExchangeCalendar().session_on(day)
    within = (table.ts_ns > session.open_ns) & (table.ts_ns < session.close_ns)
    quotes = Quotes(
        table.contract.astype(np.int64),
        table.bid,
        table.ask,
        table.bid_size,
        table.ask_size,
        table.ts_ns,
        table.sequence,
    )
    encoded = encode_quotes(quotes, np.flatnonzero(within)[:events], table.symbols)
    contracts = [parse_symbol(symbol) for symbol in table.symbols]
    return Day(session, (underlying,), contracts, list(frames(encoded, in_a_frame)), len(encoded))


@contextmanager
def clock_of(day: Day) -> Iterator[BarClock]:
    """A live market's clock, before its first quote, whose bar lasts for the session."""
    settings = load_settings(None, [f"symbols=[{', '.join(day.underlyings)}]"], {})
    fees = assembly.fee_schedule(settings)
    with (
        tempfile.TemporaryDirectory() as folder,
        Journal(Path(folder) / "journal.sqlite") as journal,
    ):
        account = journal.open_account("paper", 100_000.0, day.session.open_ns)
        broker = PaperBroker(journal, account, fees, assembly.risk_limits(settings))
        rules = assembly.trading_rules(settings)
        env = LiveEnv(day.underlyings, rules, fees, ExchangeCalendar(), broker)
        env.begin_session(day.session)
        listed = defaultdict(list)
        for contract in day.contracts:
            listed[contract.underlying].append(contract)
        for underlying, contracts in listed.items():
            env.list_contracts(underlying, contracts)
        yield BarClock(env, Bar(day.session, day.session.close_ns), MINUTE_NS)


def seconds(take: Callable[[bytes], object], day: Day) -> float:
    """Of the processor, for all frames."""
    start = process_time()
    for frame in day.frames:
        take(frame)
    return process_time() - start


def applied(day: Day) -> float:
    """Decode, admit and apply, into an account's chains that hold nothing yet."""
    with clock_of(day) as clock:
        spent = seconds(clock.take, day)
        refused = {reason: count for reason, count in clock.refused().items() if count}
        assert clock.quotes == day.events, (clock.quotes, day.events)
        assert sum(refused.values()) < 0.01 * day.events, refused
    return spent


def vendors_client() -> Callable[[bytes], object]:
    """What its `connect` does with a message before the caller's function gets it."""
    from massive import WebSocketClient
    from massive.websocket import parse
    from massive.websocket.models import Market

    logger = logging.getLogger("massive")
    client = WebSocketClient("no-key", market=Market.Options, secure=False)

    def take(frame: bytes) -> object:
        events = json.loads(frame)
        for event in events:
            if event["ev"] == "status":
                logger.debug("status: %s", event["message"])
        client._log_server_statuses(events)
        return parse(events, logger, client.market)

    return take


APPLIED = "this project: decode, admit, apply"
DECODED = "this project: decode alone"
VENDORS = "the vendor's client: parse alone"


def compare(day: Day, rounds: int) -> Figures:
    contenders: dict[str, Callable[[], float]] = {
        APPLIED: partial(applied, day),
        DECODED: partial(seconds, EventDecoder().decode, day),
        VENDORS: partial(seconds, vendors_client(), day),
        "json.loads, for scale": partial(seconds, json.loads, day),
        "msgspec to dicts, for scale": partial(seconds, msgspec.json.decode, day),
    }
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    for work in contenders.values():
        work()
    for _ in range(rounds):
        for name, work in contenders.items():
            spent[name].append(work())
    rates = {name: day.events / statistics.median(each) for name, each in spent.items()}
    columns = {"events/CPU-s": "{:,.0f}", "spread": "{:.0%}", "µs an event": "{:.2f}"}
    figures = Figures("of a frame", columns | {"we apply at": "{:.2f} x"})
    for name, rate in rates.items():
        spread = (max(spent[name]) - min(spent[name])) / statistics.median(spent[name])
        figures.add(name, rate, spread, 1e6 / rate, rates[APPLIED] / rate)
    figures.note = (
        f"{day.events:,} quotes of {len(day.contracts):,} contracts, "
        f"{day.events / len(day.frames):.0f} in a frame, {len(day.frames[0]):,} bytes each."
    )
    return figures


def profile(day: Day) -> Figures:
    """Functions by the time that is spent in themselves; the profiler slows calls of Python."""
    with clock_of(day) as clock:
        profiler = cProfile.Profile(process_time)
        profiler.runcall(seconds, clock.take, day)
    found = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in found.values())
    figures = Figures("function", {"calls": "{:,}", "µs an event": "{:.3f}", "share": "{:.0%}"})
    for (file, _, name), (_, calls, own, _, _) in sorted(
        found.items(), key=lambda item: -item[1][2]
    )[:12]:
        figures.add(f"{Path(file).stem} {name}", calls, 1e6 * own / day.events, own / total)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--in-a-frame", type=int, default=25, help="events")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flat-files", type=Path, help="folder of the vendor's, for real quotes")
    parser.add_argument("--day", type=date.fromisoformat, help="of the flat file")
    parser.add_argument("--underlying", help="of the flat file")
    parser.add_argument("--profile", action="store_true", help="where our time goes, instead")
    add_json(parser)
    options = parser.parse_args()
    if options.flat_files is None:
        day = simulated(options.events, options.in_a_frame)
    elif options.day is None or options.underlying is None:
        parser.error("--flat-files needs --day and --underlying")
    else:
        source = (options.flat_files, options.day, options.underlying)
        day = recorded(*source, options.events, options.in_a_frame)
    publish(options, [profile(day) if options.profile else compare(day, options.rounds)])


if __name__ == "__main__":
    main()
