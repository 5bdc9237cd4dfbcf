"""The settings that a checkpoint was learnt with, and what a later start has changed of them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trading.config import Settings
from trading.config.gone import GONE, in_effect
from trading.errors import CheckpointError
from trading.learning.checkpoints import BEGIN_ANEW, MANIFEST, verify

_SECTIONS = {"learning", "model", "policy", "env", "execution", "risk", "market"}
_SINGLE = {"seed", "symbols", "data.bar_seconds", "account.initial_capital"}
_NOT_NOTED = {"market.file", "learning.horizon"}
"""Where a setting came from, and another word for one that is noted."""
_ALWAYS_USUAL = (
    "execution.style",
    "execution.working_steps",
    "env.features",
    "env.reward",
    "env.risk_",
    "env.size_levels",
    "env.structures",
    "env.underlyings_per_account",
    "market.",
)
"""What was not a setting once, and was as its default says."""
NOTED = "settings"
"""Of a checkpoint's metadata."""
_ROUNDED = 1e-4
"""Discounts that differ by less are one horizon, which is written with few digits."""


def noted_settings(settings: Settings) -> dict[str, Any]:
    """Return what learning depends on, as JSON values by dotted name; a horizon as its discount.

    A reward of one's own stands there with a digest of its code.

    Raises
    ------
    PluginError
        It is missing.
    """
    noted = {
        name: value
        for name, value in _leaves("", settings.model_dump(mode="json", exclude={"credentials"}))
        if name in _SINGLE or (name.partition(".")[0] in _SECTIONS and name not in _NOT_NOTED)
    }
    if settings.env.reward is not None:
        from trading.envs.features import FEATURE_COUNT, shown_last
        from trading.plugins.own_reward import KEY, registered_reward

        works = settings.execution.style == "working"
        last = shown_last(settings.env.underlyings_per_account, works)
        width = FEATURE_COUNT + len(settings.env.features) + len(last)
        noted[KEY] = str(registered_reward(settings, width))
    return noted | {"learning.gamma": round(settings.discount, 9)}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each setting that both know and that has changed.

    A checkpoint that does not know a style of fills, a market or risk in its rewards was learnt at
    the touch, in the default one and without, which is all there was.
    """
    usual = noted_settings(Settings())
    lost = [
        f"{name} is gone; the checkpoint was learnt with {shown(then[name])}"
        for name in GONE
        if in_effect(name, then.get(name))
    ]
    then = {name: usual[name] for name in usual if name.startswith(_ALWAYS_USUAL)} | {**then}
    return lost + [
        f"{name} is {shown(now[name])}; the checkpoint was learnt with {shown(then[name])}"
        for name in sorted(then.keys() & now.keys())
        if then[name] != now[name] and not _same_discount(name, then[name], now[name])
    ]


def check_options(path: Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Check that a checkpoint's network has no option that is gone.

    Parameters
    ----------
    path
        Its folder or file; a file of weights does not tell.
    metadata
        What its manifest says, where that is known; None: it is read.

    Raises
    ------
    CheckpointError
        It has one; the message names it.
    """
    if metadata is None:
        metadata = verify(path) if (path / MANIFEST).is_file() else {}
    noted = metadata.get(NOTED, {})
    for name in GONE:
        if name.startswith("model.") and in_effect(name, noted.get(name)):
            raise CheckpointError(
                f"{path} was learnt with {name}={shown(noted[name])}, which there is no more: use "
                f"the program that it was learnt with, {BEGIN_ANEW}"
            )


def _same_discount(name: str, then: Any, now: Any) -> bool:
    """Whether two discounts differ by no more than a horizon that was rounded to write it down."""
    return name == "learning.gamma" and abs(then - now) < _ROUNDED


def _leaves(prefix: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value


def shown(value: Any) -> str:
    """Return a value as `--set` takes it."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "unset" if value is None else str(value)
