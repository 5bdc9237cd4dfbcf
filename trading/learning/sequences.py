"""A rollout as whole sequences on a device: arranged to learn from, and evaluated."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trading.learning.clstm import CLSTM, TensorState
from trading.learning.compiled import forward_without_gradients, supports
from trading.learning.rollout import (
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


class Experience(NamedTuple):
    """All that the passes go over."""

    batch: Batch
    state: TensorState
    """The state [layers, V, hidden] before the sequences."""

    def state_of(self, columns: Tensor) -> TensorState:
        """Return a copy of the state before the sequences int64 [...]."""
        return {key: tensor.index_select(1, columns) for key, tensor in self.state.items()}


def arrange(
    rollout: Rollout,
    cut: Sequences,
    advantages: FloatArray,
    returns: FloatArray,
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
    return Experience(batch, _initial_state(rollout, cut, device))


@torch.no_grad()
def evaluated(module: CLSTM, rollout: Rollout, device: torch.device) -> Rollout:
    """Return the rollout with the values and log probabilities of `module` in place of its own.

    `final_values` and `last_values` stay: what they are of is not in the rollout.
    """
    whole = supports(module)
    cut = whole_columns(rollout.shape) if whole else cut_at_episodes(rollout.first)
    logits, values, _ = forward_without_gradients(
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
