"""A policy learnt anew for every fold of a walk forward."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from trading.app.algorithm import open_algorithm
from trading.app.display import Display
from trading.config import Settings
from trading.errors import LearningError
from trading.evaluation.evaluate import PolicyOfFold
from trading.learning.build import pretrain
from trading.learning.policy import Policy, Weights
from trading.live import assembly


def retrained(settings: Settings, display: Display, stopped: Callable[[], bool]) -> PolicyOfFold:
    """Policies that learn `learning.pretrain_steps` decisions of a fold's training days.

    Each begins with an algorithm of its own, from `paths.model_path` where that is set and else
    from the seed's new weights, and leaves its checkpoint in the fold's state folder. Ray must run.
    """

    def policy_of(train: Path, state: Path) -> Policy:
        of_fold = settings_of_fold(settings, train, state)
        learning = of_fold.learning
        with ExitStack() as stack:
            algorithm, store, _, _ = open_algorithm(of_fold, display, stack, stopped)
            pretrain(
                algorithm,
                store,
                learning.pretrain_steps,
                learning.pretrain_save_frequency,
                display.phase,
                stopped,
            )
            if stopped():
                raise LearningError("the evaluation was stopped before its last fold was traded")
            return acting_policy(settings, algorithm.weights())

    return policy_of


def settings_of_fold(settings: Settings, train: Path | None, state: Path) -> Settings:
    """Return the settings of one fold.

    It learns from the history `train`, or from simulated markets.

    Its checkpoints lie in `state`.
    """
    paths = settings.paths.model_copy(
        update={"state_dir": state, "checkpoint_dir": state / "checkpoints"}
    )
    learning = settings.learning.model_copy(update={"history": train})
    return settings.model_copy(update={"paths": paths, "learning": learning})


def acting_policy(settings: Settings, weights: Weights) -> Policy:
    """Return the policy of these weights, acting as it trades live."""
    model, acting = assembly.model_config(settings), settings.policy.act
    policy = Policy(model, settings.seed, acting=acting)
    policy.load_weights(weights)
    return policy
