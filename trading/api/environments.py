"""Markets as Gymnasium environments, with the rules, fees and market of the settings."""

from pathlib import Path

import numpy as np

from trading.config import Settings, load_settings
from trading.envs.history import History, tell_single_days
from trading.envs.single_env import SimulatedOptionsEnv
from trading.envs.vector_env import (
    HistoricalOptionsVectorEnv,
    OptionsVectorEnv,
    SimulatedOptionsVectorEnv,
)
from trading.errors import ConfigError
from trading.live.assembly import fee_schedule, own_features, own_reward, trading_rules
from trading.live.simulated_world import simulated_world


def make_env(settings: Settings | None = None) -> SimulatedOptionsEnv:
    """One account in one simulated market, as an ordinary Gymnasium environment.

    Parameters
    ----------
    settings
        Rules, fees and market; None: `load_settings()`.

    Returns
    -------
    An environment whose observation is a dict of `observations`, float32 [F], and `action_mask`,
    bool [N]. It starts over with `reset(seed=...)`.

    Raises
    ------
    PluginError
        The settings name a plug-in that is missing or wrong.

    Examples
    --------
    >>> import trading as td
    >>> env = td.make_env()
    >>> observation, _ = env.reset(seed=1)
    >>> bool(observation["action_mask"][td.HOLD])
    True
    >>> _, reward, _, _, _ = env.step(td.HOLD)
    >>> reward
    0.0
    """
    settings = load_settings() if settings is None else settings
    distribution = simulated_world(settings.market).distribution
    return SimulatedOptionsEnv(
        trading_rules(settings),
        fee_schedule(settings),
        distribution.ranges,
        distribution.initial_conditions,
        settings.env.sessions_per_episode,
        own_reward(settings),
        own_features(settings),
    )


def make_vector_env(
    num_envs: int,
    settings: Settings | None = None,
    *,
    history: str | Path | None = None,
    seed: int | None = None,
) -> OptionsVectorEnv:
    """Many accounts stepped at once, as a Gymnasium vector environment (SAME_STEP autoreset).

    Parameters
    ----------
    num_envs
        How many, B.
    settings
        Rules, fees and market; None: `load_settings()`.
    history
        Folder of a history (`trading history`) whose days are traded; None: simulated markets.
    seed
        Of the markets, or of the choice of days; None: the settings' one.

    Returns
    -------
    An environment whose observation is a dict of `observations`, float32 [B, F], and `action_mask`,
    bool [B, N]; its actions are int64 [B].

    Raises
    ------
    ConfigError
        The number of environments is none.
    DataError
        There is no history in the folder, or it was written for other rules.
    PluginError
        The settings name a plug-in that is missing or wrong.

    Examples
    --------
    >>> import numpy as np
    >>> import trading as td
    >>> env = td.make_vector_env(4, seed=1)
    >>> observation, _ = env.reset()
    >>> observation["action_mask"].shape == (4, len(td.ACTIONS))
    True
    >>> env.step(np.full(4, td.HOLD))[1].tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    if not isinstance(num_envs, int | np.integer) or isinstance(num_envs, bool) or num_envs < 1:
        raise ConfigError([f"num_envs: {num_envs!r}: must be a whole number, 1 or more"])
    num_envs = int(num_envs)
    settings = load_settings() if settings is None else settings
    rules, fees, in_a_row = (
        trading_rules(settings),
        fee_schedule(settings),
        settings.env.sessions_per_episode,
    )
    seed = settings.seed if seed is None else seed
    reward, features = own_reward(settings), own_features(settings)
    if history is not None:
        opened = History(Path(history), rules, fees, features)
        tell_single_days(opened, in_a_row, "the environment")
        made_for = (rules, fees, history, seed, in_a_row, reward, features)
        return HistoricalOptionsVectorEnv(num_envs, *made_for)
    distribution = simulated_world(settings.market).distribution
    return SimulatedOptionsVectorEnv(
        num_envs,
        rules,
        fees,
        distribution.ranges,
        seed,
        initial_conditions=distribution.initial_conditions,
        sessions_per_episode=in_a_row,
        reward=reward,
        features=features,
    )
