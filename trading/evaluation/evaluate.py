"""A walk forward over a history: learn from the past, trade what follows, join what was traded."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trading.envs.history import History, history_of_days
from trading.envs.own_features import OwnFeatures
from trading.envs.rules import TradingRules
from trading.errors import DataError
from trading.evaluation.backtest import Backtest, backtest_history, learnt
from trading.evaluation.baselines import baselines
from trading.evaluation.walk_forward import Fold
from trading.execution.fees import FeeSchedule
from trading.learning.policy import Policy
from trading.plugins.plugin_registry import SessionTrader

PolicyOfFold = Callable[[Path, Path], Policy]
"""Learns from the history in the first folder; may keep what it likes in the second."""


def days_of(
    history: Path, rules: TradingRules, fees: FeeSchedule, features: OwnFeatures | None = None
) -> list[date]:
    """Return the dates of a history in order, each once.

    Raises
    ------
    DataError
        There is no history in the folder, or it was written for other rules.
    """
    return History(history, rules, fees, features).dates


def check_unused(work: Path) -> None:
    """Refuse a folder that holds folds: what was learnt there may know other folds' test days.

    Raises
    ------
    DataError
        It does.
    """
    if any(work.glob("fold-*")):
        raise DataError(f"{work} holds an evaluation: remove it, or name another folder by --into")


def evaluate_folds(
    history: Path,
    folds: Sequence[Fold],
    work: Path,
    rules: TradingRules,
    fees: FeeSchedule,
    seed: int,
    policy_of: PolicyOfFold,
    progress: Callable[[str], None],
    sessions_per_episode: int = 1,
    features: OwnFeatures | None = None,
) -> dict[str, Backtest]:
    """Trade the test days of every fold by the policy of its training days, and by the baselines.

    At most `sessions_per_episode` days in a row are traded by one account. Folder `work`, see
    `check_unused`, keeps of each fold its two histories, as links, and what `policy_of` leaves.

    Raises
    ------
    DataError
        A history cannot be read or written.
    """
    own = [] if features is None else [each.name for each in features.features]
    parts: dict[str, list[Backtest]] = {}
    for number, fold in enumerate(folds, 1):
        folder = work / f"fold-{number}"
        train, test = folder / "train", folder / "test"
        history_of_days(history, train, fold.train)
        history_of_days(history, test, fold.test)
        progress(f"fold {number} of {len(folds)}: learns from {_span(fold.train)}")
        traders: dict[str, SessionTrader] = {"policy": learnt(policy_of(train, folder / "state"))}
        traders |= baselines(seed + number, rules.structures, own)
        progress(f"fold {number} of {len(folds)}: trades {_span(fold.test)}")
        for name, trader in traders.items():
            traded = backtest_history(test, rules, fees, trader, sessions_per_episode, features)
            parts.setdefault(name, []).append(traded)
    return {name: joined(results) for name, results in parts.items()}


def joined(results: Sequence[Backtest]) -> Backtest:
    """Sessions of several backtests one after the other; shorter ones end as shorter sessions do.

    All must have the same capital, the same actions and as many underlyings an account.
    """
    longest = max(result.equity.shape[1] for result in results)
    begun = np.cumsum([0, *(int(result.episode[-1]) + 1 for result in results)])[:-1]

    def rows(name: str, after: float) -> NDArray[Any]:
        padded = []
        for result in results:
            column = getattr(result, name)
            wide = np.full((len(column), longest, *column.shape[2:]), after, column.dtype)
            wide[:, : column.shape[1]] = column
            padded.append(wide)
        return np.concatenate(padded)

    return replace(
        results[0],
        names=tuple(name for result in results for name in result.names),
        returns=np.concatenate([result.returns for result in results]),
        trades=np.concatenate([result.trades for result in results]),
        equity=rows("equity", np.nan),
        actions=np.sum([result.actions for result in results], axis=0),
        parts=rows("parts", 0.0),
        traded=np.concatenate([result.traded for result in results]),
        position=rows("position", -1),
        contracts=rows("contracts", np.nan),
        delta=rows("delta", np.nan),
        exits=np.concatenate([result.exits for result in results]),
        episode=np.concatenate(
            [result.episode + before for result, before in zip(results, begun, strict=True)]
        ),
    )


def _span(days: Sequence[date]) -> str:
    return f"{len(days)} day{'s' * (len(days) > 1)}, {days[0]} to {days[-1]}"
