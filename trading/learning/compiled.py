"""A CLSTM on the processor by compiled loops: equal to PyTorch's operations, and faster.

They cover the network as it is by default, in float32. The rest, and other devices, is PyTorch's.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trading.learning.clstm import CLSTM, TensorState
from trading.learning.kernels import lstm, network
from trading.learning.kernels.matrix_products import FloatArray, multiply_across
from trading.learning.rollout import BoolArray, RecurrentState

_KEYS = ("feature_h", "feature_c", "actor_h", "actor_c", "critic_h", "critic_c")
"""Of a state, in the order of `network.CellStates`."""


def supports(module: CLSTM) -> bool:
    """Whether the compiled network runs this one."""
    config = module.config
    return (
        type(module) is CLSTM  # one that was derived may compute something else
        and not config.layer_norm
        and module.value_head.weight.device.type == "cpu"
    )


@torch.no_grad()
def forward_without_gradients(
    module: CLSTM, observations: Tensor, action_mask: Tensor, state: TensorState, first: Tensor
) -> tuple[Tensor, Tensor, TensorState]:
    """As the module's `forward`, without gradients; by its compiled twin where it has one."""
    if not supports(module):
        result: tuple[Tensor, Tensor, TensorState] = module(observations, action_mask, state, first)
        return result
    logits, values, after = CompiledNetwork(module).forward(
        observations.numpy(),
        action_mask.numpy(),
        {key: tensor.numpy() for key, tensor in state.items()},
        first.numpy(),
    )
    new_state = {key: torch.from_numpy(array) for key, array in after.items()}
    return torch.from_numpy(logits), torch.from_numpy(values), new_state


class CompiledNetwork:
    """The compiled twin of a network that it supports.

    They look at the module's weights themselves: what PyTorch changes in place is seen at once, but
    a weight must not be put in another place, nor written by way of its `data` or its array. What
    forward steps multiply with is laid out once for all calls until then.
    """

    def __init__(self, module: CLSTM) -> None:
        norm, policy, value = module.input_norm, module.policy_head, module.value_head
        self._network = network.Network(
            _view(norm.weight),
            _view(norm.bias),
            _weights(module.feature),
            _weights(module.actor),
            _weights(module.critic),
            _view(policy.weight),
            _view(policy.bias),
            _view(value.weight),
            _view(value.bias),
        )
        self._parameters = tuple(module.parameters())
        self._packed: tuple[tuple[int, ...], network.PackedNetwork] | None = None

    def _packed_now(self) -> network.PackedNetwork:
        """Return the weights as forward steps take them, laid out anew where one has changed."""
        versions = tuple([each._version for each in self._parameters])
        if self._packed is None or self._packed[0] != versions:
            self._packed = versions, network.pack_network(self._network)
        return self._packed[1]

    def forward(
        self,
        observations: FloatArray,
        action_mask: BoolArray,
        state: RecurrentState,
        first: BoolArray,
    ) -> tuple[FloatArray, FloatArray, RecurrentState]:
        """T steps of B sequences.

        Parameters
        ----------
        observations : float32 [T, B, F]
        action_mask : bool [T, B, N]
            True where the action is allowed.
        state : float32 [1, B, hidden]
            Before the first step; it is kept.
        first : bool [T, B]
            True where an episode starts.

        Returns
        -------
        tuple[FloatArray, FloatArray, RecurrentState]
            Masked logits float32 [T, B, N], values float32 [T, B], and the state after the last
            step.
        """
        after = network.CellStates(*(state[key][0].copy() for key in _KEYS))
        logits, values = network.evaluate(
            self._network,
            self._packed_now(),
            _plain(observations),
            _plain(action_mask),
            _plain(first),
            after,
        )
        new_state = {key: array[None] for key, array in zip(_KEYS, after, strict=True)}
        return logits, values, new_state

    def gradients(
        self,
        steps: network.Steps,
        columns: Tensor,
        state: TensorState,
        coefficients: network.Coefficients,
    ) -> tuple[FloatArray, FloatArray]:
        """Return the PPO loss of some sequences and its gradient, summed over valid steps.

        Parameters
        ----------
        steps
            Of all sequences.
        columns : int64 [B]
            Those to learn from.
        state : float32 [1, B, hidden]
            Before their first step; it is kept.
        coefficients
            Of the loss.

        Returns
        -------
        tuple[FloatArray, FloatArray]
            Policy loss, value loss, entropy, KL divergence, steps clipped and steps, float32 [6];
            and the gradient by all parameters of the module, one after another.
        """
        before = network.CellStates(*(state[key][0].numpy().copy() for key in _KEYS))
        found = network.learn(self._network, steps, columns.numpy(), before, coefficients)
        layers = (found.feature, found.actor, found.critic)
        parts = (
            found.norm_weight,
            found.norm_bias,
            *(part for layer in layers for part in _by_weights(layer)),
            found.policy_weight,
            found.policy_bias,
            found.value_weight,
            found.value_bias,
        )
        flat = np.concatenate([part.ravel() for part in parts])
        return found.losses.astype(np.float32), flat


def _by_weights(layer: lstm.Layer) -> list[FloatArray]:
    """Gradients of an LSTM's weights and biases, from those of its gates."""
    steps, rows, units = layer.before.shape
    gates = layer.gates.reshape(steps * rows, 4 * units)
    both = multiply_across(gates, layer.seen.reshape(steps * rows, -1))
    bias = gates.sum(axis=0)
    return [both[:, :-units], both[:, -units:], bias, bias]


def _weights(layer: nn.LSTM) -> lstm.LayerWeights:
    return lstm.LayerWeights(*map(_view, layer.all_weights[0]))


def _view(parameter: Tensor) -> FloatArray:
    """Return the parameter's own memory.

    Raises
    ------
    ValueError
        It is not contiguous, so there is no such array.
    """
    array: FloatArray = parameter.detach().numpy()
    if not array.flags.c_contiguous:
        raise ValueError(f"a parameter of shape {array.shape} is not contiguous")
    return array


def _plain(array: Any) -> Any:
    """Return the array, or a copy where it is read-only or strided.

    Those would be compiled for anew.
    """
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable else array.copy(order="C")
