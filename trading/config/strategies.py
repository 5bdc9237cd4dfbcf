"""Strategies: named accounts, each the one settings tree with changes of its own."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trading.config.fields import SHARED_LEARNER
from trading.config.layer import OVERRIDE, SettingsLayer, contradictions, missing
from trading.config.problems import problem_line, problem_lines
from trading.config.settings import Settings
from trading.config.tree import nested

SECTION = "strategies"
_COMMON = {
    "strategy",
    "strategies",
    "credentials",
    "log_level",
    "ray",
    "serving",
    "feed",
    "plugins",
    "tune",
}
"""What strategies of one application share: settings and sections."""


def refused(key: str) -> str:
    """Why a strategy may not change a setting; empty where it may."""
    if key.partition(".")[0] in _COMMON:
        return "all strategies of one application have it in common: set it outside of them"
    if key == "paths.state_dir":
        return "the state of a strategy is the folder of its name below the common one"
    return ""


def settings_of(
    name: str, own: SettingsLayer, tree: SettingsLayer
) -> tuple[Settings | None, list[str]]:
    """Return the settings of one strategy, and a line for each mistake in what it changes.

    Its changes go before the file and the environment, and `--set` goes before them. Its account
    is named after it, and its state lies in a folder of its own below `paths.state_dir`.
    """
    forced = {key for key, origin in tree.origins.items() if origin == OVERRIDE}
    changes = {
        key: value
        for key, value in own.values.items()
        if key not in forced or own.origins[key] == OVERRIDE
    }
    values = {"account.id": name, **_without_account(tree.values), **changes, "strategy": name}
    lines: list[str] = []
    if any(key.startswith("data.") for key in changes):
        lines += missing(values, own.prefix)
    try:
        settings = Settings.model_validate(nested(values))
    except ValidationError as error:
        # Mistakes of the tree are told once, as such.
        for line, key in zip(problem_lines(error, own.origins), _keys(error), strict=True):
            if key in changes:
                lines.append(own.prefix + line)
            elif key == "strategy":
                lines.append(problem_line(f"{SECTION}.{name}", name, "its name", _after(line)))
        return None, lines
    if {"learning.gamma", "learning.horizon"} & {*changes}:
        lines += contradictions(settings, {**tree.origins, **own.origins}, own.prefix)
    paths = settings.paths.model_copy(
        update={
            "state_dir": settings.paths.state_dir / name,
            "checkpoint_dir": _checkpoints(settings, name, changes),
        }
    )
    return settings.model_copy(update={"paths": paths}), lines


def shared_ports(tree: SettingsLayer, strategies: Mapping[str, SettingsLayer]) -> Iterator[str]:
    """Yield a line for each strategy whose market server would listen where another one's does."""
    key = "data.server.port"
    taken: dict[object, str] = {}
    for name, own in strategies.items():
        port = own.values.get(key, tree.values.get(key, 0))
        source = own.values.get("data.source", tree.values.get("data.source"))
        if not port or source == "massive":
            continue
        if port in taken:
            origin = own.origins.get(key) or tree.origins.get(key, "default")
            allowed = f"the strategy {taken[port]} has it already; 0 is any free port"
            yield problem_line(own.prefix + key, port, origin, allowed)
        taken.setdefault(port, name)


def shared_checkpoints(
    tree: SettingsLayer,
    strategies: Mapping[str, SettingsLayer],
    common: Settings | None,
    found: Mapping[str, Settings],
) -> Iterator[str]:
    """Yield a line for each strategy whose folder of checkpoints is another one's.

    The learner that strategies share has a folder as well, which `common` says.
    """
    key = "paths.checkpoint_dir"
    taken: dict[Path, str] = {}
    if common is not None and any(each.learner == "shared" for each in found.values()):
        taken[shared_learner_checkpoints(common).resolve()] = "the learner that strategies share"
    for name, settings in found.items():
        folder, own = settings.paths.checkpoints.resolve(), strategies[name]
        if folder in taken:
            origin = own.origins.get(key) or tree.origins.get(key, "default")
            allowed = (
                f"{taken[folder]} has its checkpoints there, and champions are each account's own: "
                "name a folder for each, or leave it out"
            )
            yield problem_line(own.prefix + key, str(folder), origin, allowed)
        taken.setdefault(folder, f"the strategy {name}")


def shared_learner_checkpoints(common: Settings) -> Path:
    """Folder of the checkpoints of the learner that strategies of one application share."""
    return common.paths.checkpoints / SHARED_LEARNER


def differing_learners(
    tree: SettingsLayer, strategies: Mapping[str, SettingsLayer], found: Mapping[str, Settings]
) -> Iterator[str]:
    """Yield a line for each setting that keeps a strategy from sharing the others' learner.

    One policy has one network, one set of actions and observations, one objective and one way to
    learn. Symbols, money, limits, costs and seeds are each account's own.
    """
    key = "learner"
    if not strategies and tree.values.get(key) == "shared":
        allowed = "strategies share a learner, and the settings have no section strategies"
        yield problem_line(key, "shared", tree.origins[key], allowed)
    first: tuple[str, dict[str, Any]] | None = None
    for name, settings in found.items():
        if settings.learner != "shared":
            continue
        own, flat = strategies[name], settings.flat()

        def line(
            key: str, allowed: str, own: SettingsLayer = own, flat: dict[str, Any] = flat
        ) -> str:
            origin = own.origins.get(key) or tree.origins.get(key, "default")
            return problem_line(own.prefix + key, flat[key], origin, allowed)

        if not settings.learning.online:
            yield line("learning.online", "must be true where learner = shared")
        if settings.policy.trader is not None:
            yield line("policy.trader", "rules learn nothing: say learner: own")
        if first is None:
            first = (name, flat)
            continue
        other, theirs = first
        for each in flat:
            if is_of_the_learner(each) and flat[each] != theirs[each]:
                yield line(
                    each,
                    f"must be {theirs[each]!r} as of the strategy {other}, with which it shares a "
                    "learner; or say learner: own",
                )
        if (flat[_STYLE] == _WORKING) != (theirs[_STYLE] == _WORKING):
            yield line(
                _STYLE,
                f"working orders are part of what the network sees, and the strategy {other}, with "
                f"which it shares a learner, has {theirs[_STYLE]!r}: all of them take working, or "
                "none; or say learner: own",
            )


_STYLE, _WORKING = "execution.style", "working"
_OF_THE_LEARNER = ("model.", "env.", "policy.", "learning.", "market.")
_OF_THE_ACCOUNT = ("learning.gate.max_drawdown_pct", "market.file", "learning.online")


def is_of_the_learner(key: str) -> bool:
    """Whether a setting must be the same for all that share a learner."""
    return key == "data.bar_seconds" or (
        key.startswith(_OF_THE_LEARNER) and key not in _OF_THE_ACCOUNT and key != "policy.trader"
    )


def _without_account(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "account.id"}


def _checkpoints(settings: Settings, name: str, changes: Mapping[str, Any]) -> Any:
    folder = settings.paths.checkpoint_dir
    return folder if folder is None or "paths.checkpoint_dir" in changes else folder / name


def _keys(error: ValidationError) -> list[str]:
    return [
        ".".join(part for part in details["loc"] if isinstance(part, str))
        for details in error.errors(include_url=False)
    ]


def _after(line: str) -> str:
    return line.rpartition("): ")[2]
