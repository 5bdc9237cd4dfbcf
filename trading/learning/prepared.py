"""Rollouts before an update's passes: checked, with advantages, and what they all come to."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from trading.errors import LearningError
from trading.learning.clstm import CLSTM
from trading.learning.rollout import (
    FloatArray,
    Rollout,
    Sequences,
    cut_at_episodes,
    vtrace,
    whole_columns,
)
from trading.learning.sequences import evaluated
from trading.learning.shards import Moments, Replica

if TYPE_CHECKING:
    from trading.learning.ppo_update import PPOSettings


class Prepared(NamedTuple):
    """A rollout that can be learned from."""

    rollout: Rollout
    """With the values and log probabilities of the weights that learn."""
    advantages: FloatArray
    returns: FloatArray
    behaviour_kl: float
    """Nats, mean over its steps."""
    cut: Sequences
    """Where episodes start, or whole columns."""


def prepared_for(
    module: CLSTM,
    rollout: Rollout,
    settings: "PPOSettings",
    version: int | None,
    device: torch.device,
    *,
    whole: bool,
) -> Prepared:
    """Check a rollout and estimate its advantages; raises LearningError where it is unusable."""
    rollout.validate()
    if rollout.steps == 0:
        raise LearningError("the rollout holds no valid step; there is nothing to learn from")
    _check_fits(module, rollout)
    ratios, behaviour_kl = None, 0.0
    if version is not None and rollout.weights_version != version:
        current = evaluated(module, rollout, device)
        ratios, behaviour_kl = _importance(rollout, current)
        rollout = current
    advantages, returns = vtrace(rollout, settings.gamma, settings.gae_lambda, ratios)
    cut = whole_columns(rollout.shape) if whole else cut_at_episodes(rollout.first)
    return Prepared(rollout, advantages, returns, behaviour_kl, cut)


class Found(NamedTuple):
    """What the rollouts of all learners come to."""

    steps: float
    """Valid ones."""
    sequences: int
    advantages: Moments
    explained_variance: float
    behaviour_kl: float

    @classmethod
    def of(cls, own: Prepared | None, replica: Replica, device: torch.device) -> "Found":
        """Add up what every learner has; at least one has something."""
        nothing = np.zeros(0, np.float32)
        steps, sequences, kl = 0, 0, 0.0
        counted = target = guess = nothing
        if own is not None:
            steps, sequences, kl = own.rollout.steps, len(own.cut.column), own.behaviour_kl
            counted = own.advantages[own.rollout.valid]
            target, guess = own.returns[own.rollout.valid], own.rollout.values[own.rollout.valid]
        told = replica.total(device, float(steps), float(sequences), kl * steps)
        advantages = Moments.of(counted, replica, device)
        spread, error = (
            Moments.of(each, replica, device).deviation ** 2 for each in (target, target - guess)
        )
        # NaN where returns are constant: then there is nothing to explain.
        explained = 1.0 - float(error) / float(spread) if spread > 0.0 else float("nan")
        mean_kl = kl if replica.size == 1 else told[2] / told[0]
        return cls(told[0], int(told[1]), advantages, explained, mean_kl)


def _check_fits(module: CLSTM, rollout: Rollout) -> None:
    config = module.config
    if rollout.observations.shape[2] != config.observation_size:
        raise LearningError(
            f"rollout.observations have {rollout.observations.shape[2]} features; "
            f"the model wants {config.observation_size}"
        )
    if rollout.action_mask.shape[2] != config.action_count:
        raise LearningError(
            f"rollout.action_mask has {rollout.action_mask.shape[2]} actions; "
            f"the model has {config.action_count}"
        )
    sequences = rollout.shape[1]
    want = {k: (layers, sequences, h) for k, (layers, h) in config.state_shapes.items()}
    have = {key: array.shape for key, array in rollout.initial_state.items()}
    if have != want:
        raise LearningError(f"rollout.initial_state has shapes {have}; the model wants {want}")


def _importance(acted: Rollout, current: Rollout) -> tuple[FloatArray, float]:
    """Probability ratios float32 [T, B] of the same actions, and the KL divergence they estimate.

    A ratio that overflows is infinite; V-trace clips it.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        log_ratio = current.log_probs - acted.log_probs
        ratios: FloatArray = np.exp(log_ratio)
        kl = (ratios - 1.0 - log_ratio)[acted.valid].mean()
    return ratios, float(kl)
