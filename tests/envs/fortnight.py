"""Ten sessions of a simulated exchange, told to the live environment and written as a history."""

from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.usual import risk_limits
from trading.data.recorded_session import RecordedBars, RecordedQuotes, RecordedSession, bar_ends
from trading.envs.live_env import LiveEnv
from trading.envs.rules import TradingRules
from trading.envs.vector_env import OptionsVectorEnv
from trading.execution.broker import PaperBroker
from trading.execution.events import DividendPaid, Event, MarginChanged, Settled
from trading.execution.fees import FeeSchedule
from trading.execution.journal import Journal
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, ExchangeCalendar
from trading.market.dividends import Dividend
from trading.market.model import DEFAULT_MODEL
from trading.market.option_quote import OptionQuote
from trading.market.simulator import SimulatedExchange, UnderlyingSpec

CALENDAR = ExchangeCalendar()
FIRST = date(2026, 1, 5)
SYMBOL = "AAA"
BAR_NS = 65 * MINUTE_NS

Choose = Callable[[np.ndarray], int]
"""An action by the mask [N]."""


def days(count: int) -> list[date]:
    """The first sessions of the world, in order."""
    found = [FIRST]
    while len(found) < count:
        found.append(CALENDAR.next_session(found[-1]).date)
    return found


def recorded_sessions(
    count: int, seed: int, spot: float = 95.0, vol: float = 0.35, symbol: str = SYMBOL
) -> list[RecordedSession]:
    """What a feed told in each of the first sessions of a world of one underlying."""
    spec = UnderlyingSpec(symbol, spot, vol, n_strikes=9)
    model = DEFAULT_MODEL._replace(requote_per_bar=0.2)
    exchange = SimulatedExchange([spec], FIRST, seed, model, CALENDAR, 60)
    return [_recorded(exchange, day, symbol) for day in days(count)]


def _recorded(exchange: SimulatedExchange, day: date, symbol: str) -> RecordedSession:
    told = exchange.session(day)
    columns: list[list[np.ndarray]] = [[] for _ in range(6)]
    stock: list[StockBar] = []
    for step in told.steps():
        parts = (step.index, step.bid, step.ask, step.bid_size, step.ask_size, step.quote_ns)
        for column, part in zip(columns, parts, strict=True):
            column.append(part)
        stock += step.bars
    index, bid, ask, bid_size, ask_size, ts_ns = (np.concatenate(each) for each in columns)
    ends = bar_ends(told.session, BAR_NS)
    order = np.argsort(np.searchsorted(ends, ts_ns), kind="stable")
    known_ns = np.array([each.start_ns + MINUTE_NS for each in stock])
    quotes = RecordedQuotes(
        index[order],
        bid[order],
        ask[order],
        bid_size[order],
        ask_size[order],
        ts_ns[order],
        np.arange(len(order)),
        np.searchsorted(ends, ts_ns[order]),
    )
    return RecordedSession(
        symbol,
        told.session,
        list(told.contracts),
        RecordedBars.of([]),
        quotes,
        RecordedBars.of(stock, np.searchsorted(ends, known_ns)),
        ends,
    )


class Seen(NamedTuple):
    """What an account saw at a decision, what it was given for the one before, and its worth."""

    observation: bytes
    mask: bytes
    reward: bytes
    equity: float
    cash: float
    margin_used: float
    day_start: float
    peak: float


class Lived(NamedTuple):
    """A run of sessions of one account."""

    seen: list[Seen]
    actions: list[int]
    events: list[Event]


def live(
    folder: Path,
    sessions: Iterable[RecordedSession],
    rules: TradingRules,
    fees: FeeSchedule,
    choose: Choose,
    dividends: Iterable[Dividend] = (),
) -> Lived:
    """Trade sessions through the live environment, the broker and the journal."""
    told = list(sessions)
    lived = Lived([], [], [])
    with Journal(folder / "journal.sqlite") as journal:
        account = journal.open_account("paper", rules.initial_capital, told[0].session.open_ns)
        limits = risk_limits(
            max_positions=rules.max_positions,
            max_contracts_per_order=rules.max_contracts,
            max_order_notional=rules.max_notional,
            max_daily_loss_pct=100.0 * rules.max_daily_loss,
            max_drawdown_pct=100.0 * rules.max_drawdown,
            max_orders_per_minute=100,
        )
        broker = PaperBroker(
            journal, account, fees, limits, max_quote_age_ns=rules.max_quote_age_ns
        )
        env = LiveEnv((SYMBOL,), rules, fees, CALENDAR, broker, dividends)
        carried = np.zeros(1, np.float32)
        for recorded in told:
            carried = _live_session(env, recorded, choose, carried, lived)
        lived.events.extend(journal.events())
    return lived


def _live_session(
    env: LiveEnv, recorded: RecordedSession, choose: Choose, carried: np.ndarray, lived: Lived
) -> np.ndarray:
    env.begin_session(recorded.session)
    env.list_contracts(SYMBOL, recorded.contracts)
    symbols = [each.symbol for each in recorded.contracts]
    rows = zip(*(column.tolist() for column in recorded.quotes[:7]), strict=True)
    stock = recorded.bars.stock_bars(SYMBOL)
    quotes, bars = recorded.quotes.bar.tolist(), recorded.bars.bar.tolist()
    told = shown = 0
    for bar, end_ns in enumerate(recorded.bar_end_ns.tolist()):
        while told < len(quotes) and quotes[told] <= bar:
            contract, *quote = next(rows)
            env.apply_quote(OptionQuote(symbols[contract], *quote))
            told += 1
        while shown < len(bars) and bars[shown] <= bar:
            env.apply_bar(stock[shown])
            shown += 1
        seen = env.close_bar(end_ns, recorded.session)
        if end_ns == recorded.session.close_ns:
            env.close_session(end_ns, recorded.session, float(seen.rewards.sum()))
            return seen.rewards
        account = env.broker.account
        lived.seen.append(
            Seen(
                seen.observations.tobytes(),
                seen.action_mask.tobytes(),
                (carried + seen.rewards).astype(np.float32).tobytes(),
                env.equity(),
                account.cash,
                account.margin_used,
                account.day_start_equity,
                account.peak_equity,
            )
        )
        carried = np.zeros(1, np.float32)
        lived.actions.append(choose(seen.action_mask[0]))
        env.trade(end_ns, [lived.actions[-1]])
    raise AssertionError("the session was not recorded to its close")


def in_batch(env: OptionsVectorEnv, choose: Choose, account: int = 0) -> Lived:
    """The same of one account of a vector environment; all of them act alike."""
    lived = Lived([], [], [])
    accounts = env._accounts
    observation, _ = env.reset()
    reward, truncated = np.zeros(env.num_envs, np.float32), np.zeros(env.num_envs, np.bool_)
    while not truncated[account]:
        lived.seen.append(
            Seen(
                observation["observations"][account].tobytes(),
                observation["action_mask"][account].tobytes(),
                reward[account].tobytes(),
                float(env.equity[account]),
                float(accounts.balances.cash[account]),
                float(accounts.balances.margin_used[account]),
                float(accounts.day_start[account]),
                float(accounts.peak[account]),
            )
        )
        lived.actions.append(choose(observation["action_mask"][account]))
        actions = np.full(env.num_envs, lived.actions[-1])
        observation, reward, _, truncated, _ = env.step(actions)
    return lived


def kinds(events: Iterable[Event]) -> dict[str, int]:
    """How often things happened that only nights bring."""
    found: dict[str, int] = {}
    for event in events:
        name = ""
        if isinstance(event, Settled):
            name = str(event.ending)
        elif isinstance(event, DividendPaid) and event.lots:
            name = "dividend"
        elif isinstance(event, MarginChanged):
            name = "margin"
        if name:
            found[name] = found.get(name, 0) + 1
    return found
