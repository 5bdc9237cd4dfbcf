"""Sessions traded from the open to the close by a policy or a baseline, in the training markets."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trading.envs.catalogue import ACTION_COUNT
from trading.envs.history import HistoricalMarkets, History
from trading.envs.rules import TradingRules
from trading.envs.simulated_markets import SimulatedMarkets
from trading.envs.vector_env import Observation, OptionsVectorEnv
from trading.evaluation.baselines import Standing, Trader
from trading.evaluation.simulated_history import SIMULATED
from trading.evaluation.watched_env import WatchedBar, WatchedEnv
from trading.execution.fees import FeeSchedule
from trading.learning.policy import Policy
from trading.market.chain import F64, I64
from trading.market.randomisation import DEFAULT_FAMILY, Family


@dataclass(frozen=True)
class Backtest:
    """What D sessions came to, each traded with the initial capital; nothing is compounded.

    Bars are those at whose start a decision was made; a session shorter than T bars is NaN, or 0
    where no NaN can be, after its close.
    """

    names: tuple[str, ...]
    """[D], what each session was."""
    capital: float
    """USD that every session begins with."""
    returns: F64
    """[D], change of equity from open to close, as a fraction of the initial capital."""
    trades: I64
    """[D], fills."""
    equity: F64
    """[D, T], USD after each bar."""
    actions: I64
    """[N], how often each action was taken and allowed."""
    parts: F64
    """[D, T, COMPONENTS], USD: what each bar's change of equity was made of, see `attribution`."""
    traded: F64
    """[D], USD of options and stock that changed hands."""
    position: I64
    """[D, T], index into `watched_env.POSITIONS` of what was held; -1 after the close."""
    contracts: F64
    """[D, T], option contracts held, sold ones counted too."""
    delta: F64
    """[D, T], delta of the position in USD, over equity."""


class EveryDay(HistoricalMarkets):
    """One account on each day of a history, from its first bar to its last."""

    def __init__(self, history: History) -> None:
        super().__init__(len(history.days), history, np.random.default_rng(0))

    def start_all(self) -> None:
        """Begin every day at its open."""
        self.restart(np.arange(len(self.frame_of)))

    def restart(self, accounts: I64) -> None:
        """Begin the accounts' own days again."""
        self._begin(accounts, accounts)


class FromTheOpen(SimulatedMarkets):
    """Simulated markets whose first episodes begin at the open, as all others do."""

    def start_all(self) -> None:
        """Begin a session in every market."""
        self.restart(np.arange(len(self.frame_of)))


def backtest_history(
    folder: Path, rules: TradingRules, fees: FeeSchedule, trader: Trader
) -> Backtest:
    """Trade every day of a history.

    Raises:
        DataError: There is no history in the folder, or it was written for other rules.
    """
    history = History(folder, rules, fees)
    underlyings = [day.underlying for day in history.days]
    env = WatchedEnv(
        len(underlyings), rules, fees, EveryDay(history), underlyings, _standing(trader)
    )
    names = tuple(f"{day.underlying} {day.date}" for day in history.days)
    return _run(env, names, rules.initial_capital, trader)


def backtest_simulation(
    sessions: int,
    seed: int,
    rules: TradingRules,
    fees: FeeSchedule,
    trader: Trader,
    family: Family = DEFAULT_FAMILY,
) -> Backtest:
    """Trade whole simulated sessions; equal seeds show every trader the same markets."""
    markets = _simulated(sessions, seed, rules, fees, family)
    env = WatchedEnv(sessions, rules, fees, markets, [SIMULATED] * sessions, _standing(trader))
    names = tuple(f"simulated {i + 1}" for i in range(sessions))
    return _run(env, names, rules.initial_capital, trader)


def history_returns(folder: Path, rules: TradingRules, fees: FeeSchedule, trader: Trader) -> F64:
    """The `returns` of `backtest_history`, [D], without a note of every bar, which costs time.

    `trader` acts: a `Standing` position is no action, and is not opened here.

    Raises:
        DataError: There is no history in the folder, or it was written for other rules.
    """
    history = History(folder, rules, fees)
    env = OptionsVectorEnv(len(history.days), rules, fees, EveryDay(history))
    return _session_returns(env, rules.initial_capital, trader)


def simulation_returns(
    sessions: int,
    seed: int,
    rules: TradingRules,
    fees: FeeSchedule,
    trader: Trader,
    family: Family = DEFAULT_FAMILY,
) -> F64:
    """The `returns` of `backtest_simulation`, [D], as `history_returns` are of a history."""
    env = OptionsVectorEnv(sessions, rules, fees, _simulated(sessions, seed, rules, fees, family))
    return _session_returns(env, rules.initial_capital, trader)


def learnt(policy: Policy) -> Trader:
    """The policy, acting as it trades live; its random numbers begin again."""
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


def _standing(trader: Trader) -> Standing | None:
    return trader if isinstance(trader, Standing) else None


def _simulated(
    sessions: int, seed: int, rules: TradingRules, fees: FeeSchedule, family: Family
) -> FromTheOpen:
    rng = np.random.default_rng(seed)
    return FromTheOpen(sessions, 1, rules, fees, family.ranges, rng, family.beginnings)


class _Step(NamedTuple):
    """One bar of B accounts that trade their first session."""

    actions: I64
    running: NDArray[np.bool_]
    """[B], whose session has not ended before."""
    ended: NDArray[np.bool_]
    """[B], whose session ends with it."""
    info: dict[str, Any]


def _play(env: OptionsVectorEnv, trader: Trader) -> Iterator[_Step]:
    """Step until every account has ended its first session."""
    observation, _ = env.reset()
    first, running = np.ones(env.num_envs, np.bool_), np.ones(env.num_envs, np.bool_)
    while running.any():
        actions = trader(observation, first)
        observation, _, _, first, info = env.step(actions)
        yield _Step(actions, running, running & first, info)
        running = running & ~first


def _run(env: WatchedEnv, names: tuple[str, ...], capital: float, trader: Trader) -> Backtest:
    length, taken = np.zeros(env.num_envs, np.int64), np.zeros(ACTION_COUNT, np.int64)
    for step in _play(env, trader):
        allowed = step.running & ~step.info["invalid_action"]
        taken += np.bincount(step.actions[allowed], minlength=ACTION_COUNT)
        length += step.running
    return _gathered(env.bars, length, names, capital, taken)


def _session_returns(env: OptionsVectorEnv, capital: float, trader: Trader) -> F64:
    equity = np.full(env.num_envs, np.nan)
    for step in _play(env, trader):
        if step.ended.any():
            equity[step.ended] = step.info["episode"]["equity"][step.ended]
    return equity / capital - 1.0


def _gathered(
    bars: list[WatchedBar], length: I64, names: tuple[str, ...], capital: float, actions: I64
) -> Backtest:
    """The bars of each account's first `length` steps."""
    ended = np.arange(len(bars)) >= length[:, None]
    last = np.arange(len(names)), length - 1

    def column(name: str) -> NDArray[np.float64]:
        return np.stack([getattr(bar, name) for bar in bars], axis=1).astype(np.float64)

    equity, parts, traded = column("equity"), column("parts"), column("traded")
    position, delta, contracts = column("position"), column("delta"), column("contracts")
    for each in (equity, delta, contracts):
        each[ended] = np.nan
    parts[ended], traded[ended], position[ended] = 0.0, 0.0, -1
    return Backtest(
        names=names,
        capital=capital,
        returns=equity[last] / capital - 1.0,
        trades=column("trades")[last].astype(np.int64),
        equity=equity,
        actions=actions,
        parts=parts,
        traded=traded.sum(axis=1),
        position=position.astype(np.int64),
        contracts=contracts,
        delta=delta,
    )
