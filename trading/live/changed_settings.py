"""What an account trades by, held against what its journal says it traded by before."""

import hashlib
from collections.abc import Mapping

from trading.config import Settings
from trading.envs.catalogue import ACTIONS
from trading.envs.features import FEATURES
from trading.errors import ConfigError
from trading.execution.portfolio import Account
from trading.live.assembly import chosen_plugins

_SETTINGS = (
    "data.bar_seconds",
    "account.max_positions",
    "env.",
    "execution.",
    "model.",
    "policy.trader",
    "risk.",
)
"""Keys, or beginnings of keys, of the settings that belong to it."""
_ONCE_FIXED = {
    "execution.style": "touch",
    "execution.working_steps": "4",
    "env.risk_aversion": "0.0",
    "env.features": "()",
    "env.reward": "None",
    "env.size_levels": "1",
    "env.underlyings_per_account": "1",
    "env.structures": "()",
}
"""What was no setting when older journals were written."""
_SHAPES = ("actions", "features", "model.", "env.features", "env.size_levels", "env.structures")
"""Where these differ, weights that were learned before cannot be loaded."""
_SEVERAL = "env.underlyings_per_account"
"""This too, where it was 1 or is 1 now."""


def trading_settings(settings: Settings) -> dict[str, str]:
    """Return what trading goes by.

    Settings by their dotted key, and digests of actions and features.

    What a plug-in registered stands there with the digest of its code.
    """
    terms = {key: str(value) for key, value in settings.flat().items() if key.startswith(_SETTINGS)}
    for name, parts in (("actions", ACTIONS), ("features", FEATURES)):
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()
        terms[name] = f"{len(parts)} ({digest[:12]})"
    return terms | chosen_plugins(settings)


def changed_settings(settings: Settings, account: Account) -> list[str]:
    """Return what has changed since the account last traded, in words, and what no longer fits.

    Nothing for a new account, and nothing of what a journal of an older version does not hold.

    Raises
    ------
    ConfigError
        The initial capital is not the account's: cash comes and goes by its owner's word.
    """
    if not account.account_id:
        return []
    capital = settings.account.initial_capital
    if capital != account.initial_cash:
        difference = round(capital - account.paid_in, 2)
        move = "deposit" if difference > 0 else "withdraw"
        way = f"`trading account {move} {abs(difference):.2f}`" if difference else "nothing else"
        raise ConfigError(
            [
                f"account.initial_capital: {capital:.2f} is not the {account.initial_cash:.2f} USD "
                f"that account {account.account_id} was opened with, and never changes it: set it "
                f"back to {account.initial_cash:.2f}, and move cash with {way}; or trade another "
                "account with account.id"
            ]
        )
    return _differences(account.terms, trading_settings(settings))


def _told(value: str) -> str:
    """Return a value for people: the journal has it as Python writes it."""
    return "unset" if value in ("None", "()") else value


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    lines = []
    known = _ONCE_FIXED | {**before} if before else {}
    for key, value in now.items():
        old = known.get(key)
        if old is None or old == value:
            continue
        line = f"{key} was {_told(old)} when the account last traded, and is {_told(value)}"
        if key == "data.bar_seconds":
            line += (
                f": the policy learned from bars of {old} s, and what was recorded has them; "
                "train again, or set it back"
            )
        elif (
            key.startswith(_SHAPES)
            or (key == _SEVERAL and "1" in (old, value))
            or (key == "execution.style" and "working" in (old, value))
        ):
            line += ": checkpoints and models made before do not fit"
        lines.append(line)
    return lines
