"""Reads the settings tree: defaults, then a YAML file, then the environment, then `--set`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trading.config.problems import problem_line, problem_lines, shown
from trading.config.settings import Origin, Settings
from trading.config.tree import nested, section_keys, settings_by_key, suggestion
from trading.config.yaml_values import YamlProblem, parse_yaml
from trading.errors import ConfigError


def load_settings(
    path: Path | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read and check all settings. A later source wins: defaults, file, environment, overrides.

    Parameters:
        path: YAML file; None: no file.
        overrides: `section.key=value` texts; each value is YAML.
        environ: environment variables by name; None: the process's own. An empty one is unset.

    Raises:
        ConfigError: anything is wrong; holds one line for each mistake found, not just the first.
    """
    sources = _Sources()
    if path is not None:
        sources.add_file(path)
    variables = os.environ if environ is None else environ
    sources.add_environment(variables)
    sources.add_overrides(overrides)
    settings = sources.settings()
    plain = {s.environment for s in settings_by_key().values() if s.environment and not s.secret}
    settings._origin = Origin(
        path and path.resolve(),
        overrides,
        {name: variables[name] for name in plain if name in variables},
    )
    return settings


def environment_names() -> dict[str, str]:
    """The environment variables that are read, and the dotted key that each one sets."""
    return {s.environment: s.key for s in settings_by_key().values() if s.environment}


_MOST_BYTES = 1 << 20
"""Of a file of settings, whose comments are the most of it."""


class _NoSettings(Exception):
    """The file cannot be one of settings."""


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise _NoSettings(f"holds more than {_MOST_BYTES:,} bytes: name a YAML file of settings")
    return content.decode("utf-8")


class _Sources:
    """Values by dotted key, where each came from, and the mistakes met on the way."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.mistakes: list[str] = []

    def add_file(self, path: Path) -> None:
        try:
            content = parse_yaml(_text(path))
        except FileNotFoundError:
            self.mistakes.append(f"{path}: no such file; name an existing YAML file")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            self.mistakes.append(f"{path}: cannot be read: {reason}")
        except _NoSettings as error:
            self.mistakes.append(f"{path}: {error}")
        except YamlProblem as error:
            self.mistakes.append(f"{path}: is not valid YAML: {error}")
        else:
            if isinstance(content, dict):
                self._add(content, "", str(path))
            elif content is not None:
                found = type(content).__name__
                self.mistakes.append(f"{path}: must be a mapping of settings, is a {found}")

    def add_environment(self, environ: Mapping[str, str]) -> None:
        for setting in settings_by_key().values():
            text = environ.get(setting.environment) if setting.environment else None
            if text:
                value = _number(text) if setting.numeric else text
                self.values[setting.key] = value
                self.origins[setting.key] = str(setting.environment)

    def add_overrides(self, overrides: Sequence[str]) -> None:
        for item in overrides:
            key, equals, text = (part.strip() for part in item.partition("="))
            if not key or not equals:
                self.mistakes.append(f"--set {shown(key, item)}: must be written section.key=value")
                continue
            try:
                value = parse_yaml(text)
            except YamlProblem as error:
                self.mistakes.append(problem_line(key, text, "--set", f"is not YAML: {error}"))
                continue
            self._add_one(key, value, "--set")

    def settings(self) -> Settings:
        lines = list(self.mistakes)
        try:
            settings = Settings.model_validate(nested(self.values))
        except ValidationError as error:
            lines += problem_lines(error, self.origins)
        lines += self._missing()
        if lines:
            raise ConfigError(lines)
        return settings

    def _add(self, branch: Mapping[Any, Any], prefix: str, origin: str) -> None:
        for name, value in branch.items():
            self._add_one(f"{prefix}{name}", value, origin)

    def _add_one(self, key: str, value: object, origin: str) -> None:
        setting = settings_by_key().get(key)
        if setting is not None and setting.secret and value is not None:
            allowed = f"a secret is read only from the environment variable {setting.environment}"
            self.mistakes.append(problem_line(key, value, origin, allowed))
        elif setting is not None:
            self.values[key] = value
            self.origins[key] = origin
        elif key not in section_keys():
            allowed = f"unknown key; {suggestion(key)}"
            self.mistakes.append(problem_line(key, value, origin, allowed))
        elif isinstance(value, dict):
            self._add(value, f"{key}.", origin)
        elif value is not None:
            names = ", ".join(_names_within(key))
            allowed = f"must be a section with any of the keys {names}"
            self.mistakes.append(problem_line(key, value, origin, allowed))

    def _missing(self) -> Iterator[str]:
        """What the chosen data source needs and is not set."""
        source = self.values.get("data.source")
        if source == "massive" and not self.values.get("credentials.massive_api_key"):
            yield _needed("credentials.massive_api_key", source, "the variable MASSIVE_API_KEY")
        if source == "replay":
            for key, example in (("folder", "a folder of flat files"), ("date", "YYYY-MM-DD")):
                if self.values.get(f"data.replay.{key}") is None:
                    yield _needed(f"data.replay.{key}", source, example)


def _needed(key: str, source: str, example: str) -> str:
    return problem_line(key, None, f"needed by data.source = {source}", f"set it to {example}")


def _number(text: str) -> object:
    try:
        return parse_yaml(text)
    except YamlProblem:
        return text


def _names_within(section: str) -> list[str]:
    prefix = f"{section}."
    keys = [*settings_by_key(), *section_keys()]
    names = {key.removeprefix(prefix).partition(".")[0] for key in keys if key.startswith(prefix)}
    return sorted(names)
