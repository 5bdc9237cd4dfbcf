"""Sessions traded from the open to the close by a policy or a baseline, in the training markets."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trading.envs.catalogue import ACTION_COUNT, ACTIONS, HOLD
from trading.envs.history import HistoricalMarkets, History
from trading.envs.rules import TradingRules
from trading.envs.vector_env import Observation, OptionsVectorEnv, SimulatedOptionsVectorEnv
from trading.execution.fees import FeeSchedule
from trading.learning.policy import Policy
from trading.market.chain import F64, I64

Trader = Callable[[Observation, NDArray[np.bool_]], NDArray[np.int64]]
"""Chooses an action per account from observations, and where an episode begins, bool[B]."""


@dataclass(frozen=True)
class Backtest:
    """What D sessions came to, each traded with the initial capital; nothing is compounded."""

    names: tuple[str, ...]
    """[D], what each session was."""
    returns: F64
    """[D], change of equity from open to close, as a fraction of the initial capital."""
    trades: I64
    """[D], fills."""
    equity: F64
    """[D, T], USD after each bar; NaN after the close."""
    actions: I64
    """[N], how often each action was taken and allowed."""


class EveryDay(HistoricalMarkets):
    """One account on each day of a history, from its first bar to its last."""

    def __init__(self, history: History) -> None:
        super().__init__(len(history.days), history, np.random.default_rng(0))

    def start_all(self) -> None:
        """Begin every day at its open."""
        self.restart(np.arange(len(self.frame_of)))

    def restart(self, accounts: I64) -> None:
        """Begin the accounts' own days again."""
        self.frame_of[accounts] = self._first[accounts]
        self._ends[accounts] = self._last[accounts]


def backtest_history(
    folder: Path, rules: TradingRules, fees: FeeSchedule, trader: Trader
) -> Backtest:
    """Trade every day of a history.

    Raises:
        DataError: There is no history in the folder, or it was written for other rules.
    """
    history = History(folder, rules, fees)
    env = OptionsVectorEnv(len(history.days), rules, fees, EveryDay(history))
    names = tuple(f"{day.underlying} {day.date}" for day in history.days)
    return _run(env, names, rules.initial_capital, trader, skip=0)


def backtest_simulation(
    sessions: int, seed: int, rules: TradingRules, fees: FeeSchedule, trader: Trader
) -> Backtest:
    """Trade whole simulated sessions; equal seeds show every trader the same markets."""
    env = SimulatedOptionsVectorEnv(sessions, rules, fees, seed=seed)
    names = tuple(f"simulated {i + 1}" for i in range(sessions))
    # First episodes begin in the middle of a session.
    return _run(env, names, rules.initial_capital, trader, skip=1)


def hold(observation: Observation, first: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Keep the cash."""
    return np.full(len(first), HOLD, dtype=np.int64)


def open_and_keep(action_name: str) -> Trader:
    """Take one action at the first bar that allows it, and keep the position to the close."""
    action = next(i for i, each in enumerate(ACTIONS) if each.name == action_name)
    taken = np.zeros(0, dtype=np.bool_)

    def trader(observation: Observation, first: NDArray[np.bool_]) -> NDArray[np.int64]:
        nonlocal taken
        taken = np.zeros(len(first), np.bool_) if len(taken) != len(first) else taken & ~first
        now = observation["action_mask"][:, action] & ~taken
        taken = taken | now
        return np.where(now, action, HOLD).astype(np.int64)

    return trader


def random_masked(seed: int) -> Trader:
    """Any allowed action, each as likely as the others."""
    rng = np.random.default_rng(seed)

    def trader(observation: Observation, first: NDArray[np.bool_]) -> NDArray[np.int64]:
        mask = observation["action_mask"]
        return np.asarray((rng.random(mask.shape) * mask).argmax(axis=1), dtype=np.int64)

    return trader


def learnt(policy: Policy) -> Trader:
    """The policy's most likely action."""
    state = policy.initial_state(0)

    def trader(observation: Observation, first: NDArray[np.bool_]) -> NDArray[np.int64]:
        nonlocal state
        if next(iter(state.values())).shape[1] != len(first):
            state = policy.initial_state(len(first))
        decision, state = policy.act(
            observation["observations"], observation["action_mask"], state, first, greedy=True
        )
        return decision.actions

    return trader


def _run(
    env: OptionsVectorEnv, names: tuple[str, ...], capital: float, trader: Trader, skip: int
) -> Backtest:
    """Step until every account has finished the episode after its first `skip` ones."""
    count = env.num_envs
    finished, trades = np.zeros(count, np.int64), np.zeros(count, np.int64)
    final, taken = np.full(count, np.nan), np.zeros(ACTION_COUNT, np.int64)
    curves: list[list[float]] = [[] for _ in range(count)]
    observation, _ = env.reset()
    first = np.ones(count, dtype=np.bool_)
    while (finished <= skip).any():
        actions = trader(observation, first)
        observation, _, _, first, info = env.step(actions)
        counted = finished == skip
        allowed = counted & ~info["invalid_action"]
        taken += np.bincount(actions[allowed], minlength=ACTION_COUNT)
        equity = env.equity.copy()
        if first.any():
            equity[first] = info["episode"]["equity"][first]
            ended = counted & first
            final[ended] = equity[ended]
            trades[ended] = info["episode"]["trades"][ended]
        for account in np.flatnonzero(counted).tolist():
            curves[account].append(float(equity[account]))
        finished += first
    curve = np.full((count, max(map(len, curves))), np.nan)
    for row, values in enumerate(curves):
        curve[row, : len(values)] = values
    return Backtest(names, final / capital - 1.0, trades, curve, taken)
