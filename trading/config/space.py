"""What `trading tune` searches: settings by dotted key, each with its choices or a range."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from pydantic import ValidationError

from trading.config.layer import SettingsLayer
from trading.config.problems import problem_line, problem_lines
from trading.config.settings import Settings
from trading.config.tree import nested, section_keys, settings_by_key
from trading.errors import ConfigError

SPACE = "tune.space"
_SEARCHED = ("learning", "model", "policy")
_COMMON = {"market", "execution", "data", "env", "risk", "account", "symbols", "seed"}
_TRIALS_OWN = {
    "learning.pretrain_steps": "it is what each trial learns: set it outside, or by --steps",
    "learning.history": "every trial learns from the folds' days: name them by --history",
}
_WITHOUT_EFFECT = {"policy.trader"} | {
    f"learning.{name}"
    for name in (
        *("online", "update_frequency", "save_frequency", "keep_checkpoints", "lockstep"),
        *("pretrain_save_frequency", "rehearsal_share", "gate", "num_env_runners", "overlap"),
        *("num_learners", "threads", "gpus_per_learner", "learner_resource", "answer_timeout_s"),
        "compile",
    )
}
_DRAWS = 100
"""Tries for a point that is not there yet."""


class Choices(NamedTuple):
    """One of these values."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        """Each is as likely as any other."""
        return self.values[int(rng.integers(len(self.values)))]


class SearchRange(NamedTuple):
    """A number from `low` to `high`, both of them among it."""

    low: float
    high: float
    is_log: bool = False
    """Whether factors, and not differences, are equally likely."""
    is_whole: bool = False

    def draw(self, rng: np.random.Generator) -> int | float:
        """Any is as likely as any other, or its logarithm is."""
        if self.is_log:
            # A whole number has the width of half a unit to each side.
            half = 0.5 if self.is_whole else 0.0
            low, high = math.log(self.low - half), math.log(self.high + half)
            return self.within(math.exp(rng.uniform(low, high)))
        if self.is_whole:
            return int(rng.integers(int(self.low), int(self.high), endpoint=True))
        return self.within(rng.uniform(self.low, self.high))

    def within(self, value: float) -> int | float:
        """Return the number of the range that is nearest to `value`."""
        bounded = min(max(value, self.low), self.high)
        return round(bounded) if self.is_whole else float(bounded)


Dimension: TypeAlias = Choices | SearchRange
Space: TypeAlias = dict[str, Dimension]
Point: TypeAlias = dict[str, Any]
"""A value for each key of a space."""


def read_space(found: Mapping[str, Any], origin: str) -> Space:
    """Return the space that a mapping tells, by dotted keys or by sections; it may be empty.

    Each choice, and both ends of a range, must be what the setting allows.

    Raises
    ------
    ConfigError
        It is none; holds one line for each mistake.
    """
    mistakes: list[str] = []
    layer = SettingsLayer(mistakes, f"{SPACE}.", _refused)
    for key, value in found.items():
        layer.add(str(key), value, origin)
    space: Space = {}
    for key, value in layer.values.items():
        dimension = _Reader(key, origin, mistakes).dimension(value)
        if dimension is not None:
            space[key] = dimension
    if mistakes:
        raise ConfigError(mistakes)
    return space


def points(space: Space, count: int, given: Point, rng: np.random.Generator) -> list[Point]:
    """At most so many different points, the given one first; fewer where there are no more."""
    found = [given]
    for _ in range(count - 1):
        for _ in range(_DRAWS):
            point = {key: dimension.draw(rng) for key, dimension in space.items()}
            if point not in found:
                found.append(point)
                break
        else:
            break
    return found


def with_point(settings: Settings, point: Point) -> Settings:
    """Return the settings with a point's values in place of theirs."""
    changed: Settings = _with(settings, nested(dict(point)))
    return changed


def _with(section: Any, changes: Mapping[str, Any]) -> Any:
    update = {
        name: _with(getattr(section, name), value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return section.model_copy(update=update)


def _refused(key: str) -> str:
    """Why a setting is not searched; empty where it may be, or where there is no such setting."""
    section = key.partition(".")[0]
    if key not in settings_by_key() and key not in section_keys():
        return ""
    if section in _COMMON:
        return (
            "every trial trades the same markets by the same rules, or their scores could not be "
            f"compared: set it outside of {SPACE}"
        )
    if key in _TRIALS_OWN:
        return _TRIALS_OWN[key]
    gate = key == "learning.gate" or key.startswith("learning.gate.")
    if section not in _SEARCHED or gate or key in _WITHOUT_EFFECT:
        return f"no trial depends on it: leave it out, or set it outside of {SPACE}"
    return ""


class _Reader:
    """Reads what is said of one key, and tells what is wrong with it."""

    def __init__(self, key: str, origin: str, mistakes: list[str]) -> None:
        self._key, self._origin, self._mistakes = key, origin, mistakes
        self._setting = settings_by_key()[key]

    def dimension(self, value: object) -> Dimension | None:
        if isinstance(value, list):
            return self._choices(value)
        if isinstance(value, dict):
            return self._range(value)
        self._tell(
            value, "must be a list of choices, or a range as in {low: 1e-5, high: 1e-2, scale: log}"
        )
        return None

    def _choices(self, values: list[Any]) -> Choices | None:
        checked = [right for value in values for right in self._checked(value)]
        if not values:
            self._tell(values, "must have at least one choice")
        elif any(value in checked[:place] for place, value in enumerate(checked)):
            self._tell(values, "must name each choice once")
        return Choices(tuple(checked)) if checked else None

    def _range(self, told: dict[Any, Any]) -> SearchRange | None:
        low: Any = told.get("low")
        high: Any = told.get("high")
        scale = told.get("scale", "linear")
        if not self._setting.numeric:
            self._tell(told, "no number: give a list of choices in place of a range")
        elif set(told) - {"low", "high", "scale"} or not (_is_number(low) and _is_number(high)):
            self._tell(told, "must have the numbers low and high, and may have scale")
        elif scale not in ("linear", "log"):
            self._tell(told, "scale must be one of 'linear', 'log'")
        elif not low < high:
            self._tell(told, "low must be less than high; give a list for one value")
        elif scale == "log" and low <= 0:
            self._tell(told, "low must be greater than 0 where scale is log")
        else:
            ends = [*self._checked(low), *self._checked(high)]
            if len(ends) == 2:
                return SearchRange(ends[0], ends[1], scale == "log", self._setting.whole)
        return None

    def _checked(self, value: Any) -> list[Any]:
        """Return the value as the setting has it; none where it is not allowed, which is told."""
        try:
            settings = Settings.model_validate(nested({self._key: value}))
        except ValidationError as error:
            lines = problem_lines(error, {self._key: self._origin})
            self._mistakes.extend(f"{SPACE}.{line}" for line in lines)
            return []
        return [settings.flat()[self._key]]

    def _tell(self, value: object, allowed: str) -> None:
        key = f"{SPACE}.{self._key}"
        self._mistakes.append(problem_line(key, value, self._origin, allowed))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
