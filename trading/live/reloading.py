"""What of the settings can change while trading: read again from where they came."""

import os
from typing import NamedTuple

from trading.config import Settings, absolute_paths, load_settings
from trading.errors import ConfigError, OwnerRefused

TAKEN_UP = ("risk.", "account.max_positions", "learning.gate.max_drawdown_pct")
"""Keys, or beginnings of keys, that take effect at once."""
_OWN = ("paths.", "data.replay.", "credentials.")
"""Not compared: paths were made absolute, and secrets are not told."""


class ReloadedSettings(NamedTuple):
    """Settings with what can change now, and the changes in words."""

    settings: Settings
    taken_up: list[str]
    need_restart: list[str]


def reload(settings: Settings) -> ReloadedSettings:
    """Read the settings again, and take up what can change while trading.

    Raises
    ------
    OwnerRefused
        They are wrong now; what was read before stays.
    """
    origin = settings.origin
    try:
        new = absolute_paths(
            load_settings(origin.path, origin.overrides, {**os.environ, **origin.environment})
        )
    except ConfigError as error:
        raise OwnerRefused("; ".join(error.lines)) from None
    before, after = settings.flat(), new.flat()
    changed = [key for key in after if before.get(key) != after[key] and not key.startswith(_OWN)]
    taken = [key for key in changed if key.startswith(TAKEN_UP)]
    told = {key: f"{key}: {before.get(key)} -> {after[key]}" for key in changed}
    gate = settings.learning.gate.model_copy(
        update={"max_drawdown_pct": new.learning.gate.max_drawdown_pct}
    )
    account = settings.account.model_copy(update={"max_positions": new.account.max_positions})
    learning = settings.learning.model_copy(update={"gate": gate})
    merged = settings.model_copy(
        update={"risk": new.risk, "account": account, "learning": learning}
    )
    return ReloadedSettings(
        merged,
        [told[key] for key in taken],
        [told[key] for key in changed if key not in taken],
    )
