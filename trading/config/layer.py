"""Values of a settings tree by dotted key, each with where it came from."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trading.config.fields import horizon_of
from trading.config.gone import gone
from trading.config.problems import problem_line
from trading.config.settings import Settings
from trading.config.tree import section_keys, settings_by_key, suggestion

OVERRIDE = "--set"
"""Where overrides on the command line come from."""


class SettingsLayer:
    """Values by dotted key, and where each came from.

    Parameters
    ----------
    mistakes
        Where what is no setting is told.
    prefix
        What mistakes put before each key.
    refused
        Why a key may not be set here; empty: it may.
    """

    def __init__(
        self,
        mistakes: list[str],
        prefix: str = "",
        refused: Callable[[str], str] = lambda _: "",
    ) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.prefix = prefix
        self._mistakes = mistakes
        self._refused = refused

    def add(self, key: str, value: object, origin: str) -> None:
        """Set one key, or all that a section holds; a later value replaces an earlier one."""
        setting = settings_by_key().get(key)
        if setting is not None and setting.secret and value is not None:
            allowed = f"a secret is read only from the environment variable {setting.environment}"
            self._tell(key, value, origin, allowed)
        elif reason := self._refused(key):
            self._tell(key, value, origin, reason)
        elif setting is not None:
            self.values[key] = value
            self.origins[key] = origin
        elif key not in section_keys():
            self._tell(key, value, origin, gone(key) or f"unknown key; {suggestion(key)}")
        elif isinstance(value, dict):
            for name, each in value.items():
                self.add(f"{key}.{name}", each, origin)
        elif value is not None:
            names = ", ".join(_names_within(key))
            self._tell(key, value, origin, f"must be a section with any of the keys {names}")

    def _tell(self, key: str, value: object, origin: str, allowed: str) -> None:
        self._mistakes.append(problem_line(self.prefix + key, value, origin, allowed))


def missing(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield what the chosen data source needs and is not set, a line each."""
    source = values.get("data.source")

    def needed(key: str, example: str) -> str:
        origin = f"needed by data.source = {source}"
        return problem_line(prefix + key, None, origin, f"set it to {example}")

    if source == "massive" and not values.get("credentials.massive_api_key"):
        yield needed("credentials.massive_api_key", "the variable MASSIVE_API_KEY")
    if source == "replay":
        for key, example in (("folder", "a folder of flat files"), ("date", "YYYY-MM-DD")):
            if values.get(f"data.replay.{key}") is None:
                yield needed(f"data.replay.{key}", example)


def contradictions(
    settings: Settings, origins: Mapping[str, str], prefix: str = ""
) -> Iterator[str]:
    """Yield a line where the discount is set in both of its forms."""
    learning = settings.learning
    if learning.gamma is None or "horizon" not in learning.model_fields_set:
        return
    allowed = "learning.horizon is set as well: keep one of the two"
    same = horizon_of(learning.gamma, settings.data.bar_seconds)
    if same is not None:
        allowed += f"; this is learning.horizon = {same}"
    key = "learning.gamma"
    yield problem_line(prefix + key, learning.gamma, origins.get(key, "default"), allowed)


def _names_within(section: str) -> list[str]:
    prefix = f"{section}."
    keys = [*settings_by_key(), *section_keys()]
    names = {key.removeprefix(prefix).partition(".")[0] for key in keys if key.startswith(prefix)}
    return sorted(names)
