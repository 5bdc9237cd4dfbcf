"""Whole sessions traded by a trader of one's own, a registered one, or a policy."""

from pathlib import Path
from typing import TypeAlias

from trading.config import Settings, load_settings
from trading.envs.history import History, tell_single_days
from trading.envs.structures import Structure
from trading.errors import ConfigError
from trading.evaluation.backtest import Backtest, backtest_history, backtest_simulation, learnt
from trading.learning.policy import Policy
from trading.live.assembly import (
    fee_schedule,
    own_features,
    rule_based,
    trading_rules,
)
from trading.live.simulated_world import simulated_world
from trading.plugins.discovery import load_plugins
from trading.plugins.plugin_registry import SessionTrader, unregistered
from trading.plugins.rule_based import RuleBased

Tradable: TypeAlias = "str | SessionTrader | Policy"


def backtest(
    trader: Tradable,
    settings: Settings | None = None,
    *,
    simulated: int | None = None,
    history: str | Path | None = None,
) -> Backtest:
    """Trade whole sessions, as `trading backtest` does.

    Parameters
    ----------
    trader
        A function `act(observation, first)` as of `register_trader`; the name of a registered
        trader; or a policy.
    settings
        Rules, fees, market and seed; None: `load_settings()`. Equal seeds show every trader the
        same markets.
    simulated
        Trade at least so many simulated sessions: whole episodes of `env.sessions_per_episode`, or
        one of so many where they are fewer.
    history
        Trade every day of the history in this folder instead (`trading history`).

    Returns
    -------
    What each session came to, as arrays; `frame()` makes a table of the sessions.

    Raises
    ------
    ConfigError
        Neither `simulated` nor `history` is given, or both are.
    DataError
        There is no history in the folder, or it was written for other rules.
    PluginError
        No trader is called so, or it fails, or it acts outside of the mask.

    Examples
    --------
    >>> import numpy as np
    >>> import trading as td
    >>> straddle = td.action("long_straddle_far_d50")
    >>> def act(observation, first):
    ...     may = observation["action_mask"][:, straddle]
    ...     return np.where(may, straddle, td.HOLD)
    >>> result = td.backtest(act, simulated=20)
    >>> result.frame().columns.tolist()
    ['session', 'return', 'closed_return', 'fills', 'traded', 'equity', 'episode']
    >>> bool(result.trades.sum() >= 1)
    True
    """
    if (simulated is None) == (history is None):
        raise ConfigError(["give either simulated=SESSIONS or history=FOLDER"])
    settings = load_settings() if settings is None else settings
    load_plugins(settings)
    rules, fees, in_a_row = (
        trading_rules(settings),
        fee_schedule(settings),
        settings.env.sessions_per_episode,
    )
    acting, features = _acting(trader, settings, rules.structures), own_features(settings)
    if history is not None:
        folder = Path(history)
        tell_single_days(History(folder, rules, fees, features), in_a_row, "the backtest")
        return backtest_history(folder, rules, fees, acting, in_a_row, features)
    sessions = 1 if simulated is None else simulated
    if sessions < 1:
        raise ConfigError([f"simulated: {simulated}: must be 1 session or more"])
    distribution = simulated_world(settings.market).distribution
    made_for = (rules, fees, acting, distribution, in_a_row, features)
    return backtest_simulation(sessions, settings.seed, *made_for)


def _acting(
    trader: Tradable, settings: Settings, structures: tuple[Structure, ...]
) -> SessionTrader:
    if isinstance(trader, str):
        return rule_based(settings, settings.seed, trader)
    if isinstance(trader, Policy):
        return learnt(trader)
    return RuleBased(unregistered(trader), settings.seed, structures, settings.env.features)
