"""A market server on a thread of its own, and a trader on the test's thread."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from tests.waits import WAIT_S
from trading.config import Settings, load_settings
from trading.data.massive.client.rest import RestClient
from trading.data.massive.client.stream import ConnectionState, StreamClient
from trading.data.massive.server.server import MarketServer
from trading.data.massive.server.source import EventSource, Listing, SimulationSource, SourceStep
from trading.data.recording import Recorder
from trading.envs.live_env import LiveEnv
from trading.execution.events import PromotedBy
from trading.execution.journal import Journal
from trading.learning.champion.store import AccountChampion, ChampionStore, Promotion
from trading.learning.checkpoints import write_module_weights
from trading.learning.policy import Policy
from trading.live import assembly
from trading.live.bar_clock import Bar
from trading.live.endpoint import Endpoint
from trading.live.markets import MarketDirectory
from trading.live.recorded import recorded_env, recorded_markets
from trading.live.rule_based import RuleBasedDecider
from trading.live.trader import Trader
from trading.market.calendar import ExchangeCalendar
from trading.market.simulator import SimulatedExchange, UnderlyingSpec

KEY = "key-of-the-test"
DAY = date(2026, 1, 5)


class FirstMinutes:
    """The first minutes of a simulated session; then the source ends."""

    def __init__(self, minutes: int, seed: int = 1, symbols: tuple[str, ...] = ("AAA", "BBB")):
        specs = [UnderlyingSpec(symbol, 100.0, 0.25, n_strikes=15) for symbol in symbols]
        exchange = SimulatedExchange(specs, DAY, seed=seed, step_seconds=20)
        session = exchange.calendar.session_on(DAY)
        assert session is not None
        self._source = SimulationSource(exchange, session.open_ns)
        self.start_ns = self._source.start_ns
        self.end_ns = session.open_ns + minutes * 60_000_000_000
        self.listing: Listing = self._source.listing

    def steps(self) -> Iterator[SourceStep]:
        for step in self._source.steps():
            if step.ts_ns > self.end_ns:
                return
            yield step


@contextmanager
def serving(
    source: EventSource, **options: object
) -> Iterator[tuple[Endpoint, Callable[[], None]]]:
    """The address of a server of `source`, and the function that starts its clock."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def wait(coroutine: object) -> object:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(WAIT_S)  # type: ignore[arg-type]

    async def make() -> MarketServer:
        return MarketServer(source, [KEY], **{"speed": 0.0, **options})

    server = wait(make())
    try:
        port = wait(server.start())
        endpoint = Endpoint(f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}", KEY)
        yield endpoint, lambda: wait(server.begin())
    finally:
        wait(server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_S)
        loop.close()


class Bars:
    """Observes a trader: what it saw at every bar."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.ends: list[int] = []
        self.equity: list[float] = []
        self._stop_after = stop_after

    def on_bar(self, trader: Trader, bar: Bar, latency_s: float | None) -> None:
        self.ends.append(bar.end_ns)
        self.equity.append(trader.env.equity())
        if len(self.ends) == self._stop_after:
            trader.stopping.set()


@dataclass
class Run:
    """What a trader left behind."""

    trader: Trader
    bars: Bars
    digest: str
    fold: str
    """Fingerprint of the account that the journal describes."""


def settings_for(folder: Path, *overrides: str) -> Settings:
    """Settings of a replayed market with state in `folder`."""
    return load_settings(
        None,
        [
            "symbols=[AAA, BBB]",
            f"paths.state_dir={folder}",
            "data.source=replay",
            f"data.replay.folder={folder}",
            f"data.replay.date={DAY}",
            "learning.online=false",
            *overrides,
        ],
        {},
    )


def await_live(stream: StreamClient) -> None:
    """Wait until every subscription got its answer."""
    deadline = time.monotonic() + WAIT_S
    while any(each["state"] is not ConnectionState.LIVE for each in stream.health().values()):
        stream.frames(0.01)
        if time.monotonic() > deadline:
            raise TimeoutError(f"the stream did not come up: {stream.health()}")


def champions_of(folder: Path, policy: Policy) -> ChampionStore:
    """Champions on disk: the policy as the first one, where there is none."""
    champions = ChampionStore(folder, 5)
    if not champions.numbers():
        why = Promotion(0, PromotedBy.START, "of the test")
        weights = policy.weights()
        champions.write(lambda to: write_module_weights(to, weights), why, AccountChampion())
    return champions


def write_first_champion(settings: Settings) -> None:
    """A policy of the settings' seed, as the first champion on disk."""
    policy = Policy(assembly.model_config(settings), settings.seed)
    champions_of(settings.paths.checkpoints, policy)


def await_that(what: str, condition: Callable[[], Any], within_s: float = WAIT_S) -> Any:
    """What the condition comes to, once it is true."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)
    return found


def trade(
    settings: Settings,
    endpoint: Endpoint,
    begin: Callable[[], None],
    *,
    bars: Bars | None = None,
    learning: bool = False,
    recorder: Recorder | None = None,
    treasury_yields: bool = False,
) -> Run:
    """Trade until the server's source ends; by default with a policy of the settings' seed."""
    bars = bars or Bars()
    calendar = ExchangeCalendar()
    settings.paths.state_dir.mkdir(parents=True, exist_ok=True)
    with (
        RestClient(endpoint.rest_url, endpoint.api_key) as rest,
        Journal(assembly.journal_path(settings)) as journal,
        StreamClient(assembly.stream_settings(settings, endpoint)) as stream,
    ):
        now_ns = rest.market_status().server_ns
        account = journal.open_account("paper", settings.account.initial_capital, now_ns)
        fees = assembly.fee_schedule(settings)
        broker = assembly.paper_broker(settings, journal, account)
        env = recorded_env(
            LiveEnv(
                settings.symbols,
                assembly.trading_rules(settings),
                fees,
                calendar,
                broker,
                reward=assembly.own_reward(settings),
                features=assembly.own_features(settings),
            ),
            recorder,
        )
        directory = recorded_markets(
            MarketDirectory(rest, stream, env, calendar, 10_000, treasury_yields=treasury_yields),
            recorder,
        )
        policy: Policy | RuleBasedDecider
        champions: ChampionStore | None = None
        if settings.policy.trader is None:
            config = assembly.model_config(settings)
            policy = Policy(config, settings.seed, acting=settings.policy.act)
            champions = champions_of(settings.paths.checkpoints, policy)
        else:
            policy = RuleBasedDecider(assembly.rule_based(settings, settings.seed))
        trader_settings = replace(
            assembly.trader_settings(settings), learning=learning, lockstep=False
        )
        trader = Trader(
            trader_settings,
            env,
            policy,
            calendar,
            stream,
            directory,
            bars,
            now_ns,
            champions,
        )
        trader.open()
        await_live(stream)
        begin()
        trader.run()
        return Run(trader, bars, journal.digest(), journal.fold().fingerprint())
