"""The algorithm on the running cluster, as trading and training both begin with it."""

from contextlib import ExitStack
from typing import NamedTuple

import ray

from trading.config import Settings
from trading.display import Display
from trading.learning import build
from trading.learning.checkpoints import CheckpointStore
from trading.learning.ppo import CLSTMPPO
from trading.live import assembly


class OpenAlgorithm(NamedTuple):
    """A built algorithm and where it is checkpointed."""

    algorithm: CLSTMPPO
    store: CheckpointStore
    origin: str | None
    """Where its weights come from; None when they are new."""
    pretrain_left: int
    """Decisions of pre-training still to do before the first trade."""


def open_algorithm(settings: Settings, display: Display, stack: ExitStack) -> OpenAlgorithm:
    """Place and build the algorithm, and resume what was learnt; the stack stops it.

    Raises
    ------
    CheckpointError
        The checkpoint or the model does not fit the settings.
    """
    placement = build.place_learner(settings, ray.cluster_resources().get("GPU", 0.0))
    display.note(placement.describe())
    algorithm = build.build_algorithm(
        settings,
        assembly.model_config(settings),
        assembly.trading_rules(settings),
        assembly.fee_schedule(settings),
        placement,
    )
    stack.callback(algorithm.stop)
    store = CheckpointStore(settings.paths.checkpoints, settings.learning.keep_checkpoints)
    origin, left = build.warm_start(algorithm, store, settings.paths.model_path)
    if origin is None:
        left = settings.learning.pretrain_steps
    return OpenAlgorithm(algorithm, store, origin, left)
