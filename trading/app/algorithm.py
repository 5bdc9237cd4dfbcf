"""The algorithm on the running cluster, as trading and training both begin with it."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import ray

from trading.app.display import Display
from trading.app.waiting import StopRequested, await_room, unless_stopped
from trading.config import Settings
from trading.envs.market_features import LIMIT
from trading.envs.rewards import largest_reward
from trading.learning import build
from trading.learning.champion.card import LEARNT_FROM, describe_training_markets
from trading.learning.checkpoints import BEGIN_ANEW, CheckpointStore
from trading.learning.noted_catalogue import CATALOGUE
from trading.learning.noted_settings import NOTED, differences, noted_settings
from trading.learning.online import OnlineRules
from trading.learning.ppo import CLSTMPPO
from trading.live import assembly
from trading.live.simulated_world import simulated_world
from trading.logs import get_logger

log = get_logger(__name__)

_FIRST_REPLAY_S = 2.0
"""Live fragments need not wait until the cluster has made nodes for env runners; they are learned
from alone until then, and what is missing is counted."""
_REWARDS_IN_A_STEP = 2
"""At most: a session's last one earns up to the close, and from there up to the next first bar."""
_ROUNDING = 1e-6
"""Relative, of rewards added up in float32."""


class OpenAlgorithm(NamedTuple):
    """A built algorithm and where it is checkpointed."""

    algorithm: CLSTMPPO
    store: CheckpointStore
    origin: str | None
    """Where its weights come from; None when they are new."""
    pretrained: int | None
    """Decisions that its pre-training learned from so far; None where that has ended."""


class Learnt(NamedTuple):
    """An algorithm that may trade: what it learned before is resumed, pre-training is over."""

    algorithm: CLSTMPPO
    store: CheckpointStore
    origin: str
    """Where its weights come from, for people."""
    checkpoint: Path | None
    """Of the pre-training."""


def online_rules(settings: Settings) -> OnlineRules:
    """How the learner goes about it while trading."""
    learning = settings.learning
    return OnlineRules(
        save_frequency=learning.save_frequency,
        replay_share=learning.rehearsal_share,
        updates=learning.gate.updates,
        patience=learning.gate.patience,
        max_observation=LIMIT,
        max_reward=_REWARDS_IN_A_STEP
        * largest_reward(settings.env.reward_scale, settings.env.risk_aversion)
        * (1.0 + _ROUNDING),
        first_replay_s=None if settings.lockstep else _FIRST_REPLAY_S,
    )


def open_algorithm(
    settings: Settings,
    display: Display,
    stack: ExitStack,
    stopped: Callable[[], bool] = lambda: False,
) -> OpenAlgorithm:
    """Place and build the algorithm, and resume what was learnt; the stack stops it.

    All settings hold from now on, whatever the checkpoint was learnt with; what differs is told.

    Raises
    ------
    CheckpointError
        The checkpoint or the model does not fit the settings.
    StopRequested
        `stopped` said so while the learners' nodes had not come.
    """
    placement = build.place_learner(settings, ray.cluster_resources().get("GPU", 0.0))
    display.note(placement.describe())
    if placement.num_learners:
        learners = [placement.asked] * placement.num_learners
        runners = [{"CPU": 1.0}] * settings.learning.num_env_runners
        await_room("the learners' nodes", learners, runners, stopped)
    algorithm = build.build_algorithm(
        settings,
        assembly.model_config(settings),
        assembly.trading_rules(settings),
        assembly.fee_schedule(settings),
        placement,
        simulated_world(settings.market).distribution,
        assembly.own_reward(settings),
        assembly.own_features(settings),
    )
    stack.callback(_stop, algorithm)
    noted = noted_settings(settings)
    folder, keep = settings.paths.checkpoints, settings.learning.keep_checkpoints
    catalogue = assembly.catalogue_of(settings)
    told = {LEARNT_FROM: describe_training_markets(settings), CATALOGUE: catalogue}
    store = CheckpointStore(folder, keep, noted={NOTED: noted, **told})
    start = build.warm_start(algorithm, store, settings.paths.model_path, catalogue)
    if start.settings is not None:
        for line in differences(start.settings, noted):
            display.note(line)
        if settings.paths.model_path is not None:
            display.note(
                f"paths.model_path is not used: learning goes on from {start.origin}. Let it "
                f"trade by `trading checkpoints promote`, {BEGIN_ANEW}"
            )
    return OpenAlgorithm(algorithm, store, start.origin, start.pretrained)


def _stop(algorithm: CLSTMPPO) -> None:
    """Stop it; parts of it that do not answer keep nothing else from its end."""
    try:
        algorithm.stop()
    except ray.exceptions.RayError as error:
        log.warning("the algorithm did not stop in order", reason=str(error))


def learnt_algorithm(
    settings: Settings,
    display: Display,
    stack: ExitStack,
    stopped: Callable[[], bool] = lambda: False,
) -> Learnt:
    """Own the checkpoints' folder, open the algorithm, and pre-train it where it is new.

    Nothing is built while another process trains into the folder. The stack stops the algorithm,
    and lets go of the folder.

    Raises
    ------
    CheckpointError
        As of `open_algorithm`; or another process trains into the folder.
    StopRequested
        `stopped` said so before all was learned.
    """
    learning, folder = settings.learning, settings.paths.checkpoints
    stack.enter_context(CheckpointStore(folder, learning.keep_checkpoints).owned())
    display.phase("building the algorithm")

    def opened() -> tuple[OpenAlgorithm, ExitStack]:
        with ExitStack() as parts:
            return open_algorithm(settings, display, parts, stopped), parts.pop_all()

    (algorithm, store, origin, pretrained), parts = unless_stopped(
        opened, "the algorithm", stopped, lambda late: late[1].close()
    )
    stack.push(parts)
    checkpoint: Path | None = None
    if pretrained is not None and learning.pretrain_steps:
        done, checkpoint = build.pretrain(
            algorithm,
            store,
            learning.pretrain_steps,
            learning.pretrain_save_frequency,
            display.phase,
            stopped,
            pretrained,
        )
        origin = f"pre-training on {done:,} simulated decisions"
    origin = origin or "new weights"
    display.note(f"policy: {origin}")
    if stopped():
        # What has not learned to the end does not become the champion: the next start goes on.
        raise StopRequested("pre-training")
    return Learnt(algorithm, store, origin, checkpoint)
