"""What every trial of a search learns from, and which sessions it is scored on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from trading.app.held_out import HeldOutDays, HeldOutMarkets, held_out_seed
from trading.config import Settings
from trading.envs.history import History, history_of_days, single_days
from trading.evaluation.backtest import history_episodes, simulated_episodes
from trading.evaluation.return_statistics import FEWEST_RETURNS
from trading.evaluation.walk_forward import FoldsError, walk_forward
from trading.learning.champion.gate import Returns, SessionTrader
from trading.live.assembly import fee_schedule, own_features, trading_rules
from trading.live.simulated_world import simulated_world

TradeSessions: TypeAlias = Callable[[SessionTrader], Returns]
"""Trades sessions that nothing is trained on, as the gate has them trade."""


class TrialFold(NamedTuple):
    """One policy of a trial."""

    seed: int
    learns_from: Path | None
    """A history; None: simulated markets."""
    trade: TradeSessions
    """What it is scored on."""


@dataclass(frozen=True)
class SearchPlan:
    """The same for every trial but for its point."""

    settings: Settings
    folds: tuple[TrialFold, ...]
    last: TradeSessions
    """Sessions that no trial is scored on, for the winner."""
    told: str
    """For people: what is learnt from and traded. A search is gone on with by the same one."""
    notes: tuple[str, ...]
    """For people: what to know of scores and intervals."""


def plan_of_days(
    settings: Settings,
    history: Path,
    work: Path,
    *,
    folds: int,
    test_days: int,
    purge: int,
    embargo: int,
    last_days: int,
) -> SearchPlan:
    """Folds of a walk forward over a history, whose last days no trial is scored on.

    Raises
    ------
    DataError
        There is no history, or it was written for other rules.
    FoldsError
        It has too few days.
    """
    history = history.resolve()
    rules, fees, features = trading_rules(settings), fee_schedule(settings), own_features(settings)
    opened = History(history, rules, fees, features)
    days = opened.dates
    if not 0 < last_days < len(days):
        raise FoldsError(
            f"--last-days {last_days} of the {len(days)} days of {history}: take fewer"
        )
    known, last = days[:-last_days], days[-last_days:]
    made = walk_forward(known, folds=folds, test_days=test_days, purge=purge, embargo=embargo)

    def traded(folder: Path) -> HeldOutDays:
        return HeldOutDays(folder, rules, fees, settings.env.sessions_per_episode, features)

    found = []
    for number, fold in enumerate(made, 1):
        train, test = work / f"fold-{number}" / "train", work / f"fold-{number}" / "test"
        history_of_days(history, train, fold.train)
        history_of_days(history, test, fold.test)
        found.append(TrialFold(settings.seed, train, traded(test)))
    history_of_days(history, work / "last", last)
    told = (
        f"{folds} folds of {test_days} days each, of {history}; the winner trades its last "
        f"{last_days}, {last[0]} to {last[-1]}"
    )
    per_episode = settings.env.sessions_per_episode
    kept = History(work / "last", rules, fees, features)
    _, begun = history_episodes(kept, per_episode, rules.underlyings_per_account)
    episodes, single = len(begun), single_days(opened, per_episode)
    notes = [single] if single else []
    if episodes < FEWEST_RETURNS:
        notes.append(_few(episodes, f"the last {last_days} days", "--last-days"))
    return SearchPlan(settings, tuple(found), traded(work / "last"), told, tuple(notes))


def _few(episodes: int, what: str, option: str) -> str:
    return (
        f"{what} are {episodes} episode{'s' * (episodes > 1)} of sessions in a row, and fewer than "
        f"{FEWEST_RETURNS} have no interval: give more by {option}, or make episodes shorter "
        "(env.sessions_per_episode)"
    )


def plan_of_markets(settings: Settings, sessions: int, *, folds: int) -> SearchPlan:
    """Folds that learn in simulated markets, each of a seed of its own, and trade others.

    There are at least so many `sessions` in each fold, and as many that no trial is scored on.
    """
    rules, fees, features = trading_rules(settings), fee_schedule(settings), own_features(settings)
    distribution = simulated_world(settings.market).distribution

    def traded(number: int) -> HeldOutMarkets:
        seed = held_out_seed(settings.seed, number)
        return HeldOutMarkets(sessions, seed, rules, fees, distribution, per_episode, features)

    per_episode = settings.env.sessions_per_episode
    episodes, in_a_row = simulated_episodes(sessions, per_episode)
    whole = episodes * in_a_row
    made = tuple(TrialFold(settings.seed + number, None, traded(number)) for number in range(folds))
    told = (
        f"{folds} folds that learn in simulated markets and trade {whole} held-out sessions "
        f"each; the winner trades {whole} others"
    )
    notes = []
    if in_a_row > 1:
        notes.append(
            f"{whole} sessions are {episodes} of {in_a_row} in a row, and each counts once"
        )
    if episodes < FEWEST_RETURNS:
        notes.append(_few(episodes, f"{whole} sessions", "--simulated"))
    return SearchPlan(settings, made, traded(folds), told, tuple(notes))
