"""Reads the settings tree: defaults, then a YAML file, then the environment, then `--set`.

What none of them gives of the `market` section comes from the file that `market.file` names.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from trading.config.layer import OVERRIDE, SettingsLayer, contradictions, missing
from trading.config.problems import printable, problem_line, problem_lines
from trading.config.settings import Origin, Settings
from trading.config.space import SPACE, Space, read_space
from trading.config.strategies import (
    SECTION,
    differing_learners,
    refused,
    settings_of,
    shared_checkpoints,
    shared_ports,
)
from trading.config.tree import nested, settings_by_key
from trading.config.yaml_values import YamlProblem, parse_yaml
from trading.errors import ConfigError


def load_settings(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read and check all settings. A later source wins: defaults, file, environment, overrides.

    The file that `market.file` names comes before them, after the defaults.

    With `strategy` set, in any of them, the settings are that strategy's own: what it changes, in
    the section `strategies` of the file, goes before file and environment. Without, each of the
    strategies is checked as well.

    Parameters
    ----------
    path
        YAML file; None: no file.
    overrides
        `section.key=value` texts; each value is YAML.
    environ
        Environment variables by name; None: the process's own. An empty one is unset.

    Raises
    ------
    ConfigError
        Anything is wrong; holds one line for each mistake found, not just the first.

    Examples
    --------
    >>> import trading as td
    >>> settings = td.load_settings(overrides=["account.max_positions=3", "symbols=SPY,QQQ"])
    >>> settings.account.max_positions, settings.symbols
    (3, ('SPY', 'QQQ'))
    """
    sources = _Sources()
    path = Path(path) if isinstance(path, str) else path
    if path is not None:
        sources.add_file(path)
    variables = os.environ if environ is None else environ
    sources.add_environment(variables)
    sources.add_overrides(overrides)
    sources.add_market_files()
    settings = sources.settings()
    plain = {s.environment for s in settings_by_key().values() if s.environment and not s.secret}
    settings._origin = Origin(
        path and path.resolve(),
        overrides,
        {name: variables[name] for name in plain if name in variables},
    )
    return settings


def load_space(path: Path) -> Space:
    """Return the space of a file: a mapping of what the setting `tune.space` holds.

    Raises
    ------
    ConfigError
        The file cannot be read, or is no space; holds one line for each mistake.
    """
    sources = _Sources()
    content = sources.content(path)
    if sources.mistakes:
        raise ConfigError(sources.mistakes)
    return read_space(content, str(path))


def environment_names() -> dict[str, str]:
    """Return the environment variables that are read, and the dotted key that each one sets."""
    return {s.environment: s.key for s in settings_by_key().values() if s.environment}


_MOST_BYTES = 1 << 20
"""Of a file of settings, whose comments are the most of it."""
_MARKET_FILE = "market.file"


class _NoSettings(Exception):
    """The file cannot be one of settings."""


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise _NoSettings(f"holds more than {_MOST_BYTES:,} bytes: name a YAML file of settings")
    return content.decode("utf-8")


class _Sources:
    """The one tree, what each strategy changes of it, and the mistakes met on the way."""

    def __init__(self) -> None:
        self.mistakes: list[str] = []
        self.tree = SettingsLayer(self.mistakes)
        self.strategies: dict[str, SettingsLayer] = {}

    def add_file(self, path: Path) -> None:
        for name, value in self.content(path).items():
            self._add(str(name), value, str(path))

    def content(self, path: Path) -> Mapping[str, object]:
        """Return what a YAML file maps; nothing where it is empty, or wrong, which is told."""
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
                return content
            if content is not None:
                found = type(content).__name__
                self.mistakes.append(f"{path}: must be a mapping of settings, is a {found}")
        return {}

    def add_environment(self, environ: Mapping[str, str]) -> None:
        for setting in settings_by_key().values():
            text = environ.get(setting.environment) if setting.environment else None
            if text:
                value = _number(text) if setting.numeric else text
                self.tree.values[setting.key] = value
                self.tree.origins[setting.key] = str(setting.environment)

    def add_overrides(self, overrides: Sequence[str]) -> None:
        for item in overrides:
            key, equals, text = (part.strip() for part in item.partition("="))
            if not key or not equals:
                self.mistakes.append(
                    f"--set {printable(key, item)}: must be written section.key=value"
                )
                continue
            try:
                value = parse_yaml(text)
            except YamlProblem as error:
                self.mistakes.append(problem_line(key, text, OVERRIDE, f"is not YAML: {error}"))
                continue
            self._add(key, value, OVERRIDE)

    def add_market_files(self) -> None:
        """Fill in what no other source gives of a `market` section, a strategy's own included."""
        for layer in (self.tree, *self.strategies.values()):
            self._add_market_file(layer)

    def _add_market_file(self, tree: SettingsLayer) -> None:
        named = tree.values.get(_MARKET_FILE)
        if not isinstance(named, str) or not named.strip():
            return
        theirs = _Sources()
        theirs.add_file(Path(named).expanduser())
        for key, value in theirs.tree.values.items():
            origin = theirs.tree.origins[key]
            if not key.startswith("market.") or key == _MARKET_FILE:
                allowed = (
                    "market.file names a file of nothing but a market section; move this to the "
                    "file of all settings"
                )
                theirs.mistakes.append(problem_line(key, value, origin, allowed))
            elif key not in tree.values:
                tree.values[key], tree.origins[key] = value, origin
        if not theirs.tree.values and not theirs.mistakes:
            allowed = "holds no market section: begin it with `market:`"
            origin = tree.origins[_MARKET_FILE]
            theirs.mistakes.append(problem_line(_MARKET_FILE, named, origin, allowed))
        self.mistakes += theirs.mistakes

    def settings(self) -> Settings:
        lines = list(self.mistakes)
        strategies = {name: nested(layer.values) for name, layer in self.strategies.items()}
        name = self.tree.values.get("strategy")
        values = self.tree.values | ({"strategies": strategies} if strategies else {})
        found: Settings | None = None
        try:
            found = Settings.model_validate(nested(values))
        except ValidationError as error:
            lines += problem_lines(error, self.tree.origins)
        else:
            lines += contradictions(found, self.tree.origins)
        lines += missing(values)
        lines += self._mistakes_of_space()
        if name is not None and name not in strategies:
            there = f"one of {', '.join(strategies)}" if strategies else "left out"
            why = "" if strategies else ": the settings have no section strategies"
            origin = self.tree.origins["strategy"]
            lines.append(problem_line("strategy", name, origin, f"must be {there}{why}"))
        common, known = found, dict[str, Settings]()
        for each, layer in self.strategies.items():
            strategy, wrong = settings_of(each, layer, self.tree)
            lines += wrong
            found = strategy if each == name else found
            if strategy is not None:
                known[each] = strategy
        lines += differing_learners(self.tree, self.strategies, known)
        lines += shared_ports(self.tree, self.strategies)
        lines += shared_checkpoints(self.tree, self.strategies, common, known)
        if lines or found is None:
            raise ConfigError(lines)
        return found

    def _mistakes_of_space(self) -> Sequence[str]:
        space = self.tree.values.get(SPACE)
        if isinstance(space, dict):
            try:
                read_space(space, self.tree.origins[SPACE])
            except ConfigError as error:
                return error.lines
        return ()

    def _add(self, key: str, value: object, origin: str) -> None:
        """Add a value to the tree, or what it says of a strategy to that one's."""
        section, _, rest = key.partition(".")
        if section != SECTION:
            self.tree.add(key, value, origin)
            return
        name, _, own = rest.partition(".")
        if not name:
            if isinstance(value, dict):
                for each, changes in value.items():
                    self._add(f"{SECTION}.{each}", changes, origin)
            elif value is not None:
                allowed = "must be a section of strategies, each with what it changes"
                self.mistakes.append(problem_line(key, value, origin, allowed))
            return
        if name not in self.strategies:
            self.strategies[name] = SettingsLayer(self.mistakes, f"{SECTION}.{name}.", refused)
        layer = self.strategies[name]
        if own:
            layer.add(own, value, origin)
        elif isinstance(value, dict):
            for each, change in value.items():
                layer.add(str(each), change, origin)
        elif value is not None:
            allowed = "must be a section with what the strategy changes of the settings"
            self.mistakes.append(problem_line(key, value, origin, allowed))


def _number(text: str) -> object:
    try:
        return parse_yaml(text)
    except YamlProblem:
        return text


def absolute_paths(settings: Settings) -> Settings:
    """Return the same settings with every path absolute: workers have other working directories."""
    paths = settings.paths.model_copy(
        update={
            "state_dir": settings.paths.state_dir.resolve(),
            "checkpoint_dir": settings.paths.checkpoints.resolve(),
            "model_path": settings.paths.model_path and settings.paths.model_path.resolve(),
        }
    )
    replay = settings.data.replay
    if replay.folder is not None:
        replay = replay.model_copy(update={"folder": replay.folder.resolve()})
    files = {
        name: path and path.resolve()
        for name in ("dividends", "corporate_actions")
        for path in [getattr(settings.data, name)]
    }
    data = settings.data.model_copy(update={"replay": replay, **files})
    history = settings.learning.history and settings.learning.history.resolve()
    held_out = settings.learning.gate.history and settings.learning.gate.history.resolve()
    gate = settings.learning.gate.model_copy(update={"history": held_out})
    learning = settings.learning.model_copy(update={"history": history, "gate": gate})
    plugins = tuple(each.resolve() for each in settings.plugins)
    return settings.model_copy(
        update={"paths": paths, "data": data, "learning": learning, "plugins": plugins}
    )
