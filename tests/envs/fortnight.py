"""Ten sessions of a simulated exchange, told to the live environment and written as a history."""

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.usual import risk_limits
from trading.data.recorded_session import RecordedBars, RecordedQuotes, RecordedSession, bar_ends
from trading.envs.catalogue import CLOSE, HOLD, action_names
from trading.envs.live_env import LiveEnv
from trading.envs.rules import TradingRules
from trading.envs.vector_env import OptionsVectorEnv
from trading.execution.broker import PaperBroker
from trading.execution.events import DividendPaid, Event, MarginChanged, Settled
from trading.execution.fees import FeeSchedule
from trading.execution.journal import Journal
from trading.execution.matching import FillStyle
from trading.execution.orders import Intent
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

Choose = Callable[[np.ndarray], list[int]]
"""Actions by the masks [U, N]."""


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


def keeps(seed: int, *names: str, closing: float = 0.03) -> Callable[[np.ndarray], int]:
    """Opens what has such a name wherever it may, at random, and closes hardly ever."""
    rng = np.random.default_rng(seed)

    def choose(mask: np.ndarray) -> int:
        draws = rng.random(2)
        called = enumerate(action_names(len(mask)))
        wanted = [k for k, name in called if k > CLOSE and any(n in name for n in names)]
        opening = [action for action in wanted if mask[action]]
        if mask[CLOSE] and draws[0] < closing:
            return CLOSE
        return opening[int(draws[1] * len(opening))] if opening else HOLD

    return choose


def for_each(choose: Callable[[np.ndarray], int]) -> Choose:
    """One choice for each underlying, by its own mask, in their order."""
    return lambda masks: [choose(mask) for mask in masks]


class Seen(NamedTuple):
    """What an account saw at a decision, was given for the one before, and has."""

    observations: bytes
    masks: bytes
    rewards: bytes
    equity: float
    cash: float
    margin_used: float
    day_start: float
    peak: float
    open_positions: int


class Lived(NamedTuple):
    """A run of sessions of one account."""

    seen: list[Seen]
    actions: list[list[int]]
    """Of each underlying."""
    events: list[Event]


def live(
    folder: Path,
    told: Sequence[tuple[RecordedSession, ...]],
    rules: TradingRules,
    fees: FeeSchedule,
    choose: Choose,
    dividends: Iterable[Dividend] = (),
) -> Lived:
    """Trade sessions through the live environment, the broker and the journal.

    `told` are those of each day, one of each underlying.
    """
    lived = Lived([], [], [])
    with Journal(folder / "journal.sqlite") as journal:
        first_ns = told[0][0].session.open_ns
        account = journal.open_account("paper", rules.initial_capital, first_ns)
        limits = risk_limits(
            max_positions=rules.max_positions,
            max_contracts_per_order=rules.max_contracts,
            max_order_notional=rules.max_notional,
            max_daily_loss_pct=100.0 * rules.max_daily_loss,
            max_drawdown_pct=100.0 * rules.max_drawdown,
            max_delta_pct=100.0 * rules.max_delta,
            max_gamma_pct=100.0 * rules.max_gamma,
            max_vega_pct=100.0 * rules.max_vega,
            max_orders_per_minute=100,
        )
        broker = PaperBroker(
            journal,
            account,
            fees,
            limits,
            rules.slippage,
            rules.max_quote_age_ns,
            style=FillStyle(rules.fill_style),
            working_steps=rules.working_steps,
        )
        symbols = tuple(each.underlying for each in told[0])
        env = LiveEnv(symbols, rules, fees, CALENDAR, broker, dividends)
        carried = np.zeros(len(symbols), np.float32)
        for together in told:
            carried = _live_session(env, together, choose, carried, lived)
        lived.events.extend(journal.events())
    return lived


def _live_session(
    env: LiveEnv,
    together: tuple[RecordedSession, ...],
    choose: Choose,
    carried: np.ndarray,
    lived: Lived,
) -> np.ndarray:
    session = together[0].session
    env.begin_session(session)
    for each in together:
        env.list_contracts(each.underlying, each.contracts)
    for bar, end_ns in enumerate(together[0].bar_end_ns.tolist()):
        for each in together:
            _tell(env, each, bar)
        seen = env.close_bar(end_ns, session)
        if end_ns == session.close_ns:
            env.close_session(end_ns, session, float(seen.rewards.sum()))
            return seen.rewards
        account = env.broker.account
        waiting = (each.order for each in account.working_orders.values())
        opening = {each.underlying for each in waiting if each.intent is Intent.OPEN}
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
                len(account.strategies.keys() | opening),
            )
        )
        carried = np.zeros(len(together), np.float32)
        lived.actions.append(choose(seen.action_mask))
        env.trade(end_ns, lived.actions[-1])
    raise AssertionError("the session was not recorded to its close")


def _tell(env: LiveEnv, recorded: RecordedSession, bar: int) -> None:
    """Tell what a feed told of an underlying in one bar."""
    quotes, bars = recorded.quotes, recorded.bars
    first, last = np.searchsorted(quotes.bar, [bar, bar + 1])
    for contract, *quote in zip(*(c[first:last].tolist() for c in quotes[:7]), strict=True):
        env.apply_quote(OptionQuote(recorded.contracts[contract].symbol, *quote))
    first, last = np.searchsorted(bars.bar, [bar, bar + 1])
    for each in bars.stock_bars(recorded.underlying)[first:last]:
        env.apply_bar(each)


def in_batch(env: OptionsVectorEnv, choose: Choose) -> Lived:
    """The same of the only account of a vector environment."""
    lived, rows = Lived([], [], []), env.num_envs
    assert rows == env.rows
    accounts, balances = env._accounts, env._accounts.balances
    observation, _ = env.reset()
    reward, truncated = np.zeros(rows, np.float32), np.zeros(rows, np.bool_)
    while not truncated[0]:
        for name in ("equity", "cash", "margin_used", "open_positions"):
            column = getattr(balances, name)
            assert (column == column[0]).all(), name
        lived.seen.append(
            Seen(
                observation["observations"].tobytes(),
                observation["action_mask"].tobytes(),
                reward.tobytes(),
                float(env.equity[0]),
                float(balances.cash[0]),
                float(balances.margin_used[0]),
                float(accounts.day_start[0]),
                float(accounts.peak[0]),
                int(balances.open_positions[0]),
            )
        )
        lived.actions.append(choose(observation["action_mask"]))
        observation, reward, _, truncated, _ = env.step(np.array(lived.actions[-1]))
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
