"""Where several strategies find the learner that they share, and which of them do."""

from collections.abc import Mapping
from typing import NamedTuple

from trading.config import SHARED_LEARNER, Settings, shared_learner_checkpoints


class SharedLearnerAddress(NamedTuple):
    """Name of the learner's actor, and the Ray namespace that the strategies have in common."""

    namespace: str
    name: str = SHARED_LEARNER


def sharing(strategies: Mapping[str, Settings]) -> list[str]:
    """Name the strategies that share a learner."""
    return [name for name, each in strategies.items() if each.learner == "shared"]


def shared_settings(common: Settings, strategies: Mapping[str, Settings]) -> Settings:
    """Make the settings that a shared learner goes by: the first strategy's, of those that share.

    It trains and judges in markets by that one's rules, and on its recorded days. Its checkpoints
    have a folder of their own.
    """
    first = strategies[sharing(strategies)[0]]
    checkpoints = shared_learner_checkpoints(common)
    paths = first.paths.model_copy(update={"checkpoint_dir": checkpoints})
    return first.model_copy(update={"paths": paths})
