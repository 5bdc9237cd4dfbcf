"""Collects what the policy lives through into fragments that the learner can learn from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trading.learning.policy import Decision
from trading.learning.rollout import BoolArray, FloatArray, Rollout, State


@dataclass(slots=True)
class _Step:
    """One decision per underlying, completed by the reward that follows it."""

    observations: FloatArray
    action_mask: BoolArray
    decision: Decision
    first: BoolArray
    rewards: FloatArray
    truncated: BoolArray
    final_values: FloatArray


class FragmentBuilder:
    """Builds one rollout of T steps and U sequences after another.

    Parameters
    ----------
    decisions
        A fragment is full with at least so many decisions, counted over all underlyings.

    Every step is begun by `decide`, and completed by `reward` when the next bar closes.
    """

    def __init__(self, decisions: int) -> None:
        self.number = 0
        self._decisions = decisions
        self._steps: list[_Step] = []
        self._initial_state: State = {}
        self._version = 0

    @property
    def full(self) -> bool:
        """Whether the completed steps hold enough decisions."""
        return sum(len(step.decision.actions) for step in self._steps) >= self._decisions

    def decide(
        self,
        observations: FloatArray,
        action_mask: BoolArray,
        decision: Decision,
        first: BoolArray,
        state: State,
        weights_version: int,
    ) -> None:
        """Begin a step; `state` is the recurrent state before it."""
        if not self._steps:
            self._initial_state = {key: array.copy() for key, array in state.items()}
            self._version = weights_version
        zeros = np.zeros(len(decision.actions), dtype=np.float32)
        self._steps.append(
            _Step(
                observations,
                action_mask,
                decision,
                first.copy(),
                rewards=zeros,
                truncated=zeros.astype(np.bool_),
                final_values=zeros,
            )
        )

    def reward(self, rewards: FloatArray) -> None:
        """Complete the last step with the reward f32[U] that it earned."""
        if self._steps:
            self._steps[-1].rewards = rewards

    def truncate(self, final_values: FloatArray) -> None:
        """The episode of the last step was cut by the close; `final_values` f32[U] follow it."""
        if self._steps:
            self._steps[-1].truncated = np.ones(len(final_values), dtype=np.bool_)
            self._steps[-1].final_values = final_values

    def take(self, last_values: FloatArray) -> Rollout:
        """Return the fragment and begin the next; `last_values` f32[U] follow its last step."""
        steps, self._steps = self._steps, []
        self.number += 1
        truncated = np.stack([step.truncated for step in steps])
        return Rollout(
            observations=np.stack([step.observations for step in steps]),
            action_mask=np.stack([step.action_mask for step in steps]),
            actions=np.stack([step.decision.actions for step in steps]),
            log_probs=np.stack([step.decision.log_probs for step in steps]),
            values=np.stack([step.decision.values for step in steps]),
            rewards=np.stack([step.rewards for step in steps]),
            first=np.stack([step.first for step in steps]),
            terminated=np.zeros_like(truncated),
            truncated=truncated,
            final_values=np.stack([step.final_values for step in steps]),
            last_values=_float32(last_values),
            valid=np.ones_like(truncated),
            initial_state=self._initial_state,
            weights_version=self._version,
        )


def _float32(values: NDArray[np.generic]) -> FloatArray:
    return np.asarray(values, dtype=np.float32)
