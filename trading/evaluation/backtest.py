"""Sessions traded from the open to the close by a policy or a baseline, in the training markets."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trading.envs.common_days import CommonDays
from trading.envs.history import HistoricalMarkets, History, sessions_left
from trading.envs.own_features import OwnFeatures
from trading.envs.rules import TradingRules
from trading.envs.simulated_markets import SESSION_BARS, SimulatedMarkets
from trading.envs.structures import Structure
from trading.envs.vector_env import Observation, OptionsVectorEnv
from trading.evaluation.baselines import HeldToClose
from trading.evaluation.simulated_history import SIMULATED
from trading.evaluation.watched_env import WatchedBar, WatchedEnv
from trading.execution.fees import FeeSchedule
from trading.learning.policy import Policy
from trading.market.chain import F64, I64
from trading.market.randomisation import DEFAULT_DISTRIBUTION, MarketDistribution
from trading.plugins.plugin_registry import SessionTrader

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Backtest:
    """What D sessions came to; nothing is compounded.

    Each begins with the initial capital, or goes on from the one before it in the same account: one
    episode, whose sessions lie in a row. Bars are those at whose start a decision was made; the
    last one of a session that another follows goes through the night to that one's first bar. A
    session shorter than T bars is NaN, or 0 where no NaN can be, after its close.
    """

    names: tuple[str, ...]
    """[D], what each session was."""
    capital: float
    """USD that every episode begins with."""
    returns: F64
    """[D], change of equity from open to close, as a fraction of the initial capital.

    Of a session that another follows to that one's first bar.
    """
    trades: I64
    """[D], fills."""
    equity: F64
    """[D, T], USD after each bar: the capital, and what was gained since the session's open."""
    actions: I64
    """[N], how often each action was taken and allowed."""
    parts: F64
    """[D, T, COMPONENTS], USD: what each bar's change of equity was made of, see `attribution`."""
    traded: F64
    """[D], USD of options and stock that changed hands."""
    position: I64
    """[D, T], index into `watched_env.position_names` of what was held; -1 after the close."""
    contracts: F64
    """[D, T], option contracts held, sold ones counted too."""
    delta: F64
    """[D, T], delta of the position in USD, over equity."""
    exits: F64
    """[D], what closing everything at the touch, fees paid, changes the return of the last session
    of an episode by, as a fraction of the initial capital; 0 in the others."""
    episode: I64
    """[D], which episode each session is of."""
    underlyings: int = 1
    """How many an account trades; what is held is then that of the first one that holds something,
    and the rest is of all together."""
    structures: tuple[Structure, ...] = ()
    """Those of a user's own, whose actions and positions stand behind the others."""

    @property
    def closed_returns(self) -> F64:
        """`returns` with everything closed at the touch where an episode ends, [D]."""
        return self.returns + self.exits

    def frame(self) -> "pd.DataFrame":
        """Return a table with a row for each session.

        Its columns are `session`, what it was; `return` and `closed_return`, as the fields;
        `fills`; `traded` and `equity`, USD, of it and at its end; and `episode`.
        """
        import pandas as pd

        last = np.isfinite(self.equity).sum(axis=1) - 1
        return pd.DataFrame(
            {
                "session": self.names,
                "return": self.returns,
                "closed_return": self.closed_returns,
                "fills": self.trades,
                "traded": self.traded,
                "equity": self.equity[np.arange(len(last)), last],
                "episode": self.episode,
            }
        )


class EveryDay(HistoricalMarkets):
    """All days of a history, each traded once, from its first bar to its last.

    An account trades at most `sessions_per_episode` sessions in a row, each of so many
    `underlyings`; `episodes` are the first of its `common` days.
    """

    def __init__(
        self, history: History, sessions_per_episode: int = 1, underlyings: int = 1
    ) -> None:
        common, self.episodes = history_episodes(history, sessions_per_episode, underlyings)
        rng, rows = np.random.default_rng(0), len(self.episodes) * underlyings
        super().__init__(rows, history, rng, sessions_per_episode, common)

    def start_all(self) -> None:
        """Begin every episode at its open."""
        self.restart(np.arange(len(self.snapshot_of)))

    def restart(self, accounts: I64) -> None:
        """Begin the accounts' own episodes again."""
        self._begin(accounts, self.episodes[accounts[:: self._rows] // self._rows])


class FromTheOpen(SimulatedMarkets):
    """Simulated markets whose first episodes begin at the open, as all others do."""

    def start_all(self) -> None:
        """Begin a session in every market."""
        self.restart(np.arange(len(self.snapshot_of)))


def backtest_history(
    folder: Path,
    rules: TradingRules,
    fees: FeeSchedule,
    trader: SessionTrader,
    sessions_per_episode: int = 1,
    features: OwnFeatures | None = None,
    progress: Callable[[int], None] | None = None,
) -> Backtest:
    """Trade every day of a history, at most so many in a row by one account.

    `progress` is called with how many sessions' worth of bars have been traded.

    Raises
    ------
    DataError
        There is no history in the folder, or it was written for other rules.
    """
    history = History(folder, rules, fees, features)
    markets = EveryDay(history, sessions_per_episode, rules.underlyings_per_account)
    days, common = history.days, markets.common
    underlyings = [days[k].underlying for k in common.days[markets.episodes].ravel().tolist()]
    env = WatchedEnv(len(underlyings), rules, fees, markets, underlyings, _held_to_close(trader))

    def named(episode: int, session: int) -> str:
        k = int(markets.episodes[episode])
        for _ in range(session):
            k = int(common.following[k])
        together = [days[day] for day in common.days[k].tolist()]
        return f"{'+'.join(day.underlying for day in together)} {together[0].date}"

    bars = sum(days[day].bars for day in common.days[:, 0].tolist())
    work = _Work(len(common.days), bars, progress)
    return _run(env, named, rules, trader, work)


def backtest_simulation(
    sessions: int,
    seed: int,
    rules: TradingRules,
    fees: FeeSchedule,
    trader: SessionTrader,
    distribution: MarketDistribution = DEFAULT_DISTRIBUTION,
    sessions_per_episode: int = 1,
    features: OwnFeatures | None = None,
    progress: Callable[[int], None] | None = None,
) -> Backtest:
    """Trade whole simulated sessions; equal seeds show every trader the same markets.

    There are at least so many `sessions`, see `simulated_episodes`. `progress` is called with how
    many sessions' worth of bars have been traded.
    """
    episodes, sessions_per_episode = simulated_episodes(sessions, sessions_per_episode)
    markets = _simulated(episodes, seed, rules, fees, distribution, sessions_per_episode, features)
    rows = len(markets.snapshot_of)
    env = WatchedEnv(rows, rules, fees, markets, [SIMULATED] * rows, _held_to_close(trader))

    def named(episode: int, session: int) -> str:
        later = f", session {session + 1}" if sessions_per_episode > 1 else ""
        return f"simulated {episode + 1}{later}"

    count = episodes * sessions_per_episode
    work = _Work(count, count * SESSION_BARS, progress)
    return _run(env, named, rules, trader, work)


def simulated_episodes(sessions: int, sessions_per_episode: int) -> tuple[int, int]:
    """Return how many episodes, and of how many sessions, simulate at least so many sessions."""
    in_a_row = min(sessions, sessions_per_episode)
    return -(-sessions // in_a_row), in_a_row


def history_episodes(
    history: History, sessions_per_episode: int, underlyings: int
) -> tuple[CommonDays, I64]:
    """Return what accounts trade of a whole history, and the days [E] on which episodes begin.

    These are places in the former. Episodes are of at most so many sessions, each day in one.

    Raises
    ------
    DataError
        No date has so many underlyings.
    """
    common = history.common_days(underlyings, each_once=True)
    following = common.following
    first = np.setdiff1d(np.arange(len(following)), following)
    begun = []
    for day in first.tolist():
        row = [day]
        while (after := int(following[row[-1]])) >= 0:
            row.append(after)
        begun += row[::sessions_per_episode]
    return common, np.array(sorted(begun), dtype=np.int64)


def history_returns(
    folder: Path,
    rules: TradingRules,
    fees: FeeSchedule,
    trader: SessionTrader,
    sessions_per_episode: int = 1,
    features: OwnFeatures | None = None,
) -> F64:
    """Return what each episode of `backtest_history` returns, [E], without a note of every bar.

    Fractions of the initial capital a session. Episodes of several sessions are closed at the
    touch, and count as the mean of their sessions, of which each depends on the one before.
    `trader` acts: a `HeldToClose` position is no action, and is not opened here.

    Raises
    ------
    DataError
        There is no history in the folder, or it was written for other rules.
    """
    history = History(folder, rules, fees, features)
    markets = EveryDay(history, sessions_per_episode, rules.underlyings_per_account)
    env = OptionsVectorEnv(len(markets.snapshot_of), rules, fees, markets)
    sessions = np.minimum(
        sessions_left(markets.common.following)[markets.episodes] + 1, sessions_per_episode
    )
    return _returns(env, rules.initial_capital, trader, sessions)


def simulation_returns(
    sessions: int,
    seed: int,
    rules: TradingRules,
    fees: FeeSchedule,
    trader: SessionTrader,
    distribution: MarketDistribution = DEFAULT_DISTRIBUTION,
    sessions_per_episode: int = 1,
    features: OwnFeatures | None = None,
) -> F64:
    """Return what each episode of `backtest_simulation` returns, [E], as `history_returns`."""
    episodes, sessions_per_episode = simulated_episodes(sessions, sessions_per_episode)
    markets = _simulated(episodes, seed, rules, fees, distribution, sessions_per_episode, features)
    env = OptionsVectorEnv(len(markets.snapshot_of), rules, fees, markets)
    return _returns(env, rules.initial_capital, trader, np.full(episodes, sessions_per_episode))


def learnt(policy: Policy) -> SessionTrader:
    """Return the policy, acting as it trades live; its random numbers begin again."""
    state = policy.initial_state(0)
    policy.draw_again()

    def trader(observation: Observation, first: NDArray[np.bool_]) -> NDArray[np.int64]:
        nonlocal state
        if next(iter(state.values())).shape[1] != len(first):
            state = policy.initial_state(len(first))
        seen, mask = observation["observations"], observation["action_mask"]
        decision, state = policy.act(seen, mask, state, first)
        return decision.actions

    return trader


def _held_to_close(trader: SessionTrader) -> HeldToClose | None:
    return trader if isinstance(trader, HeldToClose) else None


def _simulated(
    episodes: int,
    seed: int,
    rules: TradingRules,
    fees: FeeSchedule,
    distribution: MarketDistribution,
    sessions: int,
    features: OwnFeatures | None,
) -> FromTheOpen:
    rng = np.random.default_rng(seed)
    conditions = distribution.initial_conditions
    return FromTheOpen(
        episodes * rules.underlyings_per_account,
        1,
        rules,
        fees,
        distribution.ranges,
        rng,
        conditions,
        sessions,
        features,
    )


class _Step(NamedTuple):
    """One bar of B accounts that trade their first episode."""

    actions: I64
    running: NDArray[np.bool_]
    """[B], whose episode has not ended before."""
    ended: NDArray[np.bool_]
    """[B], whose episode ends with it."""
    info: dict[str, Any]


def _play(env: OptionsVectorEnv, trader: SessionTrader) -> Iterator[_Step]:
    """Step until every account has ended its first episode."""
    observation, _ = env.reset()
    first, running = np.ones(env.num_envs, np.bool_), np.ones(env.num_envs, np.bool_)
    while running.any():
        actions = trader(observation, first)
        observation, _, _, first, info = env.step(actions)
        yield _Step(actions, running, running & first, info)
        running = running & ~first


class _Work(NamedTuple):
    """What there is to do, and who is told how much of it is done."""

    sessions: int
    bars: int
    """Of all sessions."""
    progress: Callable[[int], None] | None

    def tell(self, bars: int) -> None:
        """So many bars were traded."""
        if self.progress is not None:
            self.progress(min(bars * self.sessions // max(self.bars, 1), self.sessions))


def _run(
    env: WatchedEnv,
    named: Callable[[int, int], str],
    rules: TradingRules,
    trader: SessionTrader,
    work: _Work,
) -> Backtest:
    length, taken = np.zeros(env.num_envs, np.int64), np.zeros(env.single_action_space.n, np.int64)
    closed = np.zeros(env.num_envs)
    for step in _play(env, trader):
        allowed = step.running & ~step.info["invalid_action"]
        taken += np.bincount(step.actions[allowed], minlength=len(taken))
        length += step.running
        work.tell(int(length[:: env.rows].sum()))
        if step.ended.any():
            closed[step.ended] = step.info["episode"]["closed_equity"][step.ended]
    work.tell(work.bars)
    rows = env.rows
    bars = [bar.of_accounts(rows) for bar in env.bars]
    return _gathered(bars, length[::rows], named, rules, taken, closed[::rows])


def _returns(env: OptionsVectorEnv, capital: float, trader: SessionTrader, sessions: I64) -> F64:
    """[E], fractions of the capital a session; closed at the touch where there are nights."""
    equity, marked = np.full(len(sessions), np.nan), sessions == 1
    for step in _play(env, trader):
        ended = step.ended[:: env.rows]
        if ended.any():
            told = step.info["episode"]
            worth = np.where(
                marked, told["equity"][:: env.rows], told["closed_equity"][:: env.rows]
            )
            equity[ended] = worth[ended]
    gained: F64 = (equity / capital - 1.0) / sessions
    return gained


def _gathered(
    bars: list[WatchedBar],
    length: I64,
    named: Callable[[int, int], str],
    rules: TradingRules,
    actions: I64,
    closed: F64,
) -> Backtest:
    """Return the bars of each account's first `length` steps, session by session."""

    def column(name: str) -> NDArray[np.float64]:
        return np.stack([getattr(bar, name) for bar in bars], axis=1).astype(np.float64)

    capital = rules.initial_capital
    session = column("session").astype(np.int64)
    rows = [
        (b, k, np.flatnonzero(session[b, :n] == k))
        for b, n in enumerate(length.tolist())
        for k in range(int(session[b, n - 1]) + 1)
    ]
    count, most = len(rows), max(len(taken) for _, _, taken in rows)

    def cut(name: str, missing: float) -> NDArray[np.float64]:
        """[D, T], of each session its bars."""
        whole = column(name)
        found = np.full((count, most, *whole.shape[2:]), missing)
        for d, (b, _, taken) in enumerate(rows):
            found[d, : len(taken)] = whole[b, taken]
        return found

    equity, trades = cut("equity", np.nan), cut("trades", 0.0)
    episode = np.array([b for b, _, _ in rows], dtype=np.int64)
    last = np.array([len(taken) - 1 for _, _, taken in rows])
    ends = equity[np.arange(count), last]
    fills = trades[np.arange(count), last]
    follows = np.append(False, episode[1:] == episode[:-1])
    begins = np.where(follows, np.roll(ends, 1), capital)
    fills -= np.where(follows, np.roll(fills, 1), 0.0)
    is_last = np.append(episode[1:] != episode[:-1], True)
    # Where nothing goes before, the equity itself, to the last bit.
    equity = np.where(follows[:, None], capital + (equity - begins[:, None]), equity)
    returns = equity[np.arange(count), last] / capital - 1.0
    return Backtest(
        names=tuple(named(b, k) for b, k, _ in rows),
        capital=capital,
        returns=returns,
        trades=fills.astype(np.int64),
        equity=equity,
        actions=actions,
        parts=cut("parts", 0.0),
        traded=cut("traded", 0.0).sum(axis=1),
        position=cut("position", -1.0).astype(np.int64),
        contracts=cut("contracts", np.nan),
        delta=cut("delta", np.nan),
        exits=np.where(is_last, (closed[episode] - ends) / capital, 0.0),
        episode=episode,
        underlyings=rules.underlyings_per_account,
        structures=rules.structures,
    )
