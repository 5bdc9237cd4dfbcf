"""Where several strategies find the learner that they share, and which of them do."""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from trading.config import (
    SHARED_LEARNER,
    Settings,
    is_of_the_learner,
    load_settings,
    shared_learner_checkpoints,
)
from trading.errors import ConfigError

APART = (
    "learner = shared: --strategy and --place run one strategy on a Ray of its own, where the "
    "others that share its learner do not reach it: run all of them in one application (without "
    "these), each as a job of one Ray cluster (--address; KubeRay), or say learner: own"
)
_NAMESPACE = "trading-strategies"


class SharedLearnerAddress(NamedTuple):
    """Name of the learner's actor, and the Ray namespace that the strategies have in common."""

    namespace: str
    terms: str
    """Digest of what the strategies there expect the learner to go by, see `terms_digest`."""
    name: str = SHARED_LEARNER


def fleet_name(common: Settings) -> str:
    """Name what belongs to the strategies of one state folder together, on their cluster."""
    folder = common.paths.state_dir.resolve()
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    return f"{_NAMESPACE}-{digest}"


def sharing(strategies: Mapping[str, Settings]) -> list[str]:
    """Name the strategies that share a learner."""
    return [name for name, each in strategies.items() if each.learner == "shared"]


def claimed_together(strategies: Mapping[str, Settings]) -> dict[str, list[str]]:
    """Return what a replica takes at once, by the first strategy of each.

    Those that share a learner are one; each of the others is one by itself.
    """
    together = sharing(strategies)
    return {
        name: together if name in together else [name]
        for name in strategies
        if name not in together[1:]
    }


def shared_settings(common: Settings, strategies: Mapping[str, Settings]) -> Settings:
    """Make the settings that a shared learner goes by: the first strategy's, of those that share.

    It trains and judges in markets by that one's rules, and on its recorded days. Its checkpoints
    have a folder of their own.
    """
    first = strategies[sharing(strategies)[0]]
    checkpoints = shared_learner_checkpoints(common)
    paths = first.paths.model_copy(update={"checkpoint_dir": checkpoints})
    return first.model_copy(update={"paths": paths})


def learner_terms(settings: Settings) -> dict[str, Any]:
    """Return what must be alike for all that share a learner, by key."""
    terms = {key: value for key, value in settings.flat().items() if is_of_the_learner(key)}
    # The network sees working orders; what else the style says is each account's own.
    terms["execution.style is working"] = settings.execution.style == "working"
    return terms


def terms_digest(terms: Mapping[str, Any]) -> str:
    """Return what differs where `learner_terms` differ."""
    return hashlib.sha256(repr(sorted(terms.items())).encode()).hexdigest()[:16]


def with_the_others(settings: Settings) -> tuple[Settings, dict[str, Settings]]:
    """Read one strategy's settings again: the common ones, and those of each strategy by its name.

    Raises
    ------
    ConfigError
        The strategy's state is not where that of the others is, as in a replay.
    """
    origin, name = settings.origin, settings.strategy
    chosen = [each for each in origin.overrides if each.partition("=")[0].strip() != "strategy"]
    variables = {key: text for key, text in origin.environment.items() if key != "STRATEGY"}
    common = load_settings(origin.path, chosen, variables)
    strategies = {
        each: load_settings(origin.path, [*chosen, f"strategy={each}"], variables)
        for each in common.strategies
    }
    own = strategies.get(name or "")
    if own is None or own.paths.state_dir.resolve() != settings.paths.state_dir.resolve():
        raise ConfigError(
            [
                f"learner = shared: the state of {name} is in {settings.paths.state_dir}, apart "
                "from that of the strategies with which it would share a learner, as in a replay "
                "of one of them: leave out --strategy, or say learner: own"
            ]
        )
    return common, strategies
