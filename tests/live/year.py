"""Simulated sessions with rare events, traded by a script through server, stream and journal."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from tests.live.market import Bars, await_live, champions_of, serving
from trading.config import Settings, load_settings
from trading.data.massive.client.rest import RestClient
from trading.data.massive.client.stream import StreamClient
from trading.data.massive.server.source import Listing, SimulationSource, SourceStep
from trading.envs.catalogue import ACTIONS, CLOSE, HOLD
from trading.envs.live_env import LiveEnv
from trading.execution.catch_up import unexplained_since
from trading.execution.journal import Journal
from trading.learning.policy import Decision, Policy
from trading.learning.rollout import RecurrentState
from trading.live import assembly
from trading.live.bar_clock import Bar
from trading.live.market_server import resume_ns
from trading.live.markets import MarketDirectory
from trading.live.trader import Trader
from trading.market.calendar import ExchangeCalendar
from trading.market.model import DEFAULT_MODEL
from trading.market.rare_events import RareEvents
from trading.market.simulator import SimulatedExchange, UnderlyingSpec

CALENDAR = ExchangeCalendar()
FIRST = date(2026, 1, 5)
OF_STOCK = {
    number
    for number, each in enumerate(ACTIONS)
    if each.name.startswith(("covered_call", "cash_secured_put"))
}
PATIENCE = 5
"""Sessions after which the owner explains what nothing else explains."""


def days(count: int) -> list[date]:
    """The first sessions of the world, in order."""
    found = [FIRST]
    while len(found) < count:
        found.append(CALENDAR.next_session(found[-1]).date)
    return found


def settings_for(folder: Path, symbols: tuple[str, ...], bar_seconds: int) -> Settings:
    """A simulated market at speed 0 without learning, its account free to trade."""
    return load_settings(
        None,
        [
            f"symbols=[{', '.join(symbols)}]",
            f"paths.state_dir={folder}",
            "data.source=simulation",
            "data.simulation.speed=0",
            f"data.bar_seconds={bar_seconds}",
            "learning.online=false",
            "account.initial_capital=1000000",
            f"account.max_positions={len(symbols)}",
            "risk.max_daily_loss_pct=90",
            "risk.max_drawdown_pct=99",
            "learning.gate.max_drawdown_pct=99",
            "execution.cash_interest_pct=3",
            "execution.borrow_fee_pct=2",
            "execution.max_quote_age_s=3600",
            "safety.unattended=nothing",
        ],
        {},
    )


def world(
    symbols: tuple[str, ...], rare: RareEvents, *, strikes: int, requotes: float, seed: int = 7
) -> SimulatedExchange:
    """A few contracts on each symbol, some dear and some cheap, quoted now and then."""
    prices = (310.0, 95.0, 24.0, 140.0)
    specs = [
        UnderlyingSpec(symbol, prices[i % len(prices)], 0.25 + 0.05 * (i % 3), n_strikes=strikes)
        for i, symbol in enumerate(symbols)
    ]
    model = DEFAULT_MODEL._replace(requote_per_bar=requotes)
    return SimulatedExchange(specs, FIRST, seed, model, CALENDAR, 60, rare)


class Until:
    """A simulated market from where an account is up to a time; counts what it does rarely."""

    def __init__(self, exchange: SimulatedExchange, start_ns: int, end_ns: int) -> None:
        self._source = SimulationSource(exchange, start_ns)
        self.start_ns, self.listing = self._source.start_ns, self._source.listing
        self.end_ns = end_ns
        self.seen: Counter[str] = Counter()

    def steps(self) -> Iterator[SourceStep]:
        listing: Listing | None = None
        for step in self._source.steps():
            if step.ts_ns > self.end_ns:
                return
            if step.listing is not listing:
                listing = step.listing
            self.seen["halted minutes"] += sum(news.halted for news in step.halts)
            crossed = (step.quotes.bid > step.quotes.ask) & (step.quotes.ask > 0.0)
            self.seen["crossed quotes"] += int(crossed.sum())
            yield step


class Scripted(Policy):
    """Opens anything that it may, at random, and closes at random: a script and no network."""

    def act(  # type: ignore[override]
        self,
        observations: np.ndarray,
        action_mask: np.ndarray,
        state: RecurrentState,
        first: np.ndarray,
        greedy: bool = False,
    ) -> tuple[Decision, RecurrentState]:
        rows = len(action_mask)
        draws = self._draws(2 * rows).reshape(2, rows)
        actions = np.full(rows, HOLD, np.int64)
        for row, allowed in enumerate(action_mask):
            opening = np.flatnonzero(allowed[CLOSE + 1 :]) + CLOSE + 1
            if allowed[CLOSE] and draws[0, row] < self.closing:
                actions[row] = CLOSE
            elif len(opening) and draws[0, row] < self.opening:
                chosen = opening
                if draws[0, row] < 0.5 * self.opening:
                    # Half of the time with stock, which dividends and fractions are about.
                    chosen = [each for each in opening if each in OF_STOCK] or opening
                actions[row] = chosen[int(draws[1, row] * len(chosen))]
        nothing = np.zeros(rows, np.float32)
        return Decision(actions, nothing, nothing, np.zeros_like(action_mask, np.float32)), state

    closing, opening = 0.02, 0.5


@dataclass
class Watched(Bars):
    """Checks at every bar what must always hold, and explains what waits too long."""

    problems: list[str] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)
    stop_after: int | None = None

    def __post_init__(self) -> None:
        super().__init__(self.stop_after)

    def on_bar(self, trader: Trader, bar: Bar, latency_s: float | None) -> None:
        super().on_bar(trader, bar, latency_s)
        env = trader.env
        account, marks = env.broker.account, env.marks()
        parts = account.paid_in + account.interest
        parts += sum(account.contribution(name, marks) for name in account.net_cash)
        if abs(parts - env.equity()) > 0.01:
            self.problems.append(f"{bar.end_ns}: parts {parts}, equity {env.equity()}")
        if not bar.last:
            return
        for name in list(account.suspensions):
            if unexplained_since(account, name) is None:
                self.waiting.pop(name, None)
                continue
            self.waiting[name] = self.waiting.get(name, 0) + 1
            if self.waiting[name] > PATIENCE:
                env.broker.reinstate(name, "its owner explains it", account.last_ts_ns)
                del self.waiting[name]


@dataclass
class Lived:
    """What a run left behind."""

    env: LiveEnv
    watched: Watched
    seen: Counter[str]
    equity: float
    marks: dict[str, float]
    finished: bool
    barriers_missed: int
    refused: dict[str, int]


def live(
    settings: Settings,
    exchange: SimulatedExchange,
    end_ns: int,
    *,
    stop_after: int | None = None,
    **act: Any,
) -> Lived:
    """Trade on from where the journal ended, as the live market's actor does."""
    path = assembly.journal_path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    first = CALENDAR.session_on(FIRST)
    assert first is not None
    source = Until(exchange, max(resume_ns(path), first.open_ns), end_ns)
    watched = Watched(stop_after=stop_after)
    with (
        serving(source, max_quote_contracts=10_000) as (endpoint, begin),
        RestClient(endpoint.rest_url, endpoint.api_key, max_requests_per_s=1e5) as rest,
        Journal(path) as journal,
        StreamClient(
            replace(assembly.stream_settings(settings, endpoint), stop_on_close=True)
        ) as stream,
    ):
        now_ns = rest.market_status().server_ns
        account = journal.open_account("paper", settings.account.initial_capital, now_ns)
        rules, fees = assembly.trading_rules(settings), assembly.fee_schedule(settings)
        broker = assembly.paper_broker(settings, journal, account)
        env = LiveEnv(settings.symbols, rules, fees, CALENDAR, broker)
        env.halt_indicators = assembly.halt_indicators(settings)
        directory = MarketDirectory(
            rest,
            stream,
            env,
            CALENDAR,
            10_000,
            closes=assembly.close_finder(settings, rest, CALENDAR),
            price_limits=assembly.takes_price_limits(settings),
        )
        seed = assembly.policy_seed(settings.seed, journal.last_seq)
        policy = Scripted(assembly.model_config(settings), seed)
        for name, value in act.items():
            setattr(policy, name, value)
        trader = Trader(
            assembly.trader_settings(settings),
            env,
            policy,
            CALENDAR,
            stream,
            directory,
            watched,
            now_ns,
            champions_of(settings.paths.checkpoints, policy),
        )
        trader.open()
        await_live(stream)
        begin()
        trader.run()
        return Lived(
            env,
            watched,
            source.seen,
            env.equity(),
            env.marks(),
            trader.finished,
            trader.barriers_missed,
            trader.clock.refused(),
        )
