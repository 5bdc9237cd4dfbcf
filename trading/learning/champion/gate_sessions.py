"""How many simulated sessions the gate trades, and whether they are enough to show anything."""

from trading.config import Settings
from trading.errors import ConfigError

ENOUGH_SESSIONS = 20
"""Fewer returns bear no bound."""


def half_of_sessions(settings: Settings) -> int:
    """Return how many sessions are always the same; as many are others at each judgement."""
    return -(-settings.learning.gate.sessions // 2)


def check_enough(settings: Settings) -> None:
    """Refuse a gate whose bounds nothing bears, before anything starts; each episode counts once.

    Raises
    ------
    ConfigError
        `learning.gate.sessions` are too few episodes, and something learns.
    """
    per_episode = settings.env.sessions_per_episode
    episodes = 2 * -(-half_of_sessions(settings) // per_episode)
    if settings.learns and episodes < ENOUGH_SESSIONS:
        raise ConfigError(
            [
                f"learning.gate.sessions: {settings.learning.gate.sessions} sessions, "
                f"{per_episode} in a row (env.sessions_per_episode), are {episodes} episodes, and "
                f"fewer than {ENOUGH_SESSIONS} show nothing: take at least "
                f"{ENOUGH_SESSIONS * per_episode}, or shorter episodes"
            ]
        )
