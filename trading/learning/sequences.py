"""A rollout as whole sequences on a device: arranged to learn from, evaluated, burnt in."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trading.errors import LearningError
from trading.learning.clstm import CLSTM, TensorState
from trading.learning.compiled import evaluate, supports
from trading.learning.rollout import (
    BoolArray,
    FloatArray,
    Rollout,
    Sequences,
    cut_at_episodes,
    whole_columns,
)
from trading.learning.shards import Moments


class Batch(NamedTuple):
    """L steps of V sequences, and what is learned from them. Every field is [L, V, ...]."""

    observations: Tensor
    action_mask: Tensor
    first: Tensor
    valid: Tensor
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    returns: Tensor

    def select(self, columns: Tensor) -> "Batch":
        """Return the sequences int64 [...] alone."""
        return Batch(*(tensor.index_select(1, columns) for tensor in self))


class BurnIn(NamedTuple):
    """The N steps before sequences that go on with an episode, of all B columns of the rollout."""

    observations: Tensor
    """float32 [N, B, F]."""
    action_mask: Tensor
    """bool [N, B, A]."""
    column: Tensor
    """int64 [V]: the column that a sequence is a part of."""


class Experience(NamedTuple):
    """All that the passes go over."""

    batch: Batch
    state: TensorState
    """The state [layers, V, hidden] before the sequences, or before their burn-in."""
    burn_in: BurnIn | None
    """None when every sequence is learned from as it begins."""

    def state_of(self, columns: Tensor) -> TensorState:
        """Return a copy of the state before the sequences int64 [...]."""
        return {key: tensor.index_select(1, columns) for key, tensor in self.state.items()}


def learned_from(
    rollout: Rollout, burn_in: int, whole: bool = False
) -> tuple[Sequences, BoolArray]:
    """Return the sequences of a rollout, and bool [T, B]: which of its steps are learned from.

    They are cut where episodes start, or are whole columns without a burn-in where `whole`.

    Raises
    ------
    LearningError
        `burn_in` leaves no step to learn from.
    """
    whole = whole and not burn_in
    cut = whole_columns(rollout.shape) if whole else cut_at_episodes(rollout.first, burn_in)
    counted = np.zeros(rollout.valid.size, np.bool_)
    counted[cut.steps[cut.inside]] = True
    counted = counted.reshape(rollout.shape) & rollout.valid
    if not counted.any():
        raise LearningError(
            f"the rollout's {rollout.shape[0]} steps are all burn-in; nothing is left to learn "
            f"from: use a burn_in below {burn_in}, or longer rollouts"
        )
    return cut, counted


def arrange(
    rollout: Rollout,
    cut: Sequences,
    advantages: FloatArray,
    returns: FloatArray,
    burn_in: int,
    device: torch.device,
) -> Experience:
    """Place the rollout's sequences on `device`, in fresh memory (Ray's own is read-only)."""
    inside = torch.from_numpy(cut.inside).to(device, torch.float32)
    batch = Batch(
        observations=_placed(rollout.observations, cut, device),
        action_mask=_placed(rollout.action_mask, cut, device),
        first=_placed_first(rollout, cut, device),
        valid=_placed(rollout.valid, cut, device) * inside,
        actions=_placed(rollout.actions, cut, device),
        log_probs=_placed(rollout.log_probs, cut, device),
        advantages=_placed(advantages, cut, device),
        returns=_placed(returns, cut, device),
    )
    before = None
    if burn_in:
        before = BurnIn(
            observations=torch.from_numpy(rollout.observations[:burn_in].copy()).to(device),
            action_mask=torch.from_numpy(rollout.action_mask[:burn_in].copy()).to(device),
            column=torch.from_numpy(cut.column).to(device),
        )
    return Experience(batch, _initial_state(rollout, cut, device), before)


@torch.no_grad()
def evaluated(module: CLSTM, rollout: Rollout, device: torch.device) -> Rollout:
    """Return the rollout with the values and log probabilities of `module` in place of its own.

    `final_values` and `last_values` stay: what they are of is not in the rollout.
    """
    whole = supports(module)
    cut = whole_columns(rollout.shape) if whole else cut_at_episodes(rollout.first)
    logits, values, _ = evaluate(
        module,
        _placed(rollout.observations, cut, device),
        _placed(rollout.action_mask, cut, device),
        _initial_state(rollout, cut, device),
        _placed_first(rollout, cut, device),
    )
    actions = _placed(rollout.actions, cut, device).unsqueeze(-1)
    log_probs = torch.log_softmax(logits, dim=-1).gather(-1, actions).squeeze(-1)

    def as_rollout(placed: Tensor) -> FloatArray:
        flat = np.zeros(rollout.values.size, np.float32)
        flat[cut.steps[cut.inside]] = placed.cpu().numpy()[cut.inside]
        return flat.reshape(rollout.shape)

    return replace(rollout, values=as_rollout(values), log_probs=as_rollout(log_probs))


@torch.no_grad()
def refresh(
    module: CLSTM, state: TensorState, burn_in: BurnIn, columns: Tensor, first: Tensor
) -> None:
    """Run the burn-in of sequences that do not begin with an episode; change `state` in place.

    Older weights left the state that was carried into them (Kapturowski et al. 2019, "Recurrent
    experience replay in distributed reinforcement learning", section 3).
    """
    places = (~first).nonzero().flatten()
    if not len(places):
        return
    column = burn_in.column[columns[places]]
    observations = burn_in.observations.index_select(1, column)
    _, _, refreshed = evaluate(
        module,
        observations,
        burn_in.action_mask.index_select(1, column),
        {key: tensor.index_select(1, places) for key, tensor in state.items()},
        torch.zeros(observations.shape[:2], dtype=torch.bool, device=observations.device),
    )
    for key, tensor in state.items():
        tensor.index_copy_(1, places, refreshed[key])


def normalised(advantages: FloatArray, over: Moments) -> FloatArray:
    """Bring advantages to mean 0 and standard deviation 1 over the steps that are learned from."""
    mean, deviation = np.float32(over.mean), np.float32(over.deviation)
    result: FloatArray = (advantages - mean) / (deviation + np.float32(1e-8))
    return result


def _placed(array: npt.NDArray[np.generic], cut: Sequences, device: torch.device) -> Tensor:
    """Return steps [T, B, ...] at their places in the sequences, [L, V, ...]."""
    flat = array.reshape(-1, *array.shape[2:])
    return torch.from_numpy(flat[cut.steps]).to(device)


def _placed_first(rollout: Rollout, cut: Sequences, device: torch.device) -> Tensor:
    """`first` at its places, False behind a sequence's end."""
    first = _placed(rollout.first, cut, device)
    first[1:] &= torch.from_numpy(cut.inside[1:]).to(device)
    return first


def _initial_state(rollout: Rollout, cut: Sequences, device: torch.device) -> TensorState:
    return {
        key: torch.from_numpy(array[:, cut.column]).to(device)
        for key, array in rollout.initial_state.items()
    }
