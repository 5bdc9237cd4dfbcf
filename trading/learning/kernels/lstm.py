"""One step of an LSTM, forward and backward, as compiled loops for processors.

Matrix products are those of `kernels.matrix_products`, the rest is vector loops. A sequence's state
is zeroed on the way where an episode starts, so sequences need no cuts and no padding. The
interpreter's lock is not held.

Gates are in the order of `torch.nn.LSTM`: input, forget, candidate, output.
"""

from math import log
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from trading.learning.kernels.matrix_products import (
    FloatArray,
    Packed,
    kernel,
    multiply,
    pack_across,
)

BoolArray = npt.NDArray[np.bool_]

_HALF, _ONE, _ZERO = np.float32(0.5), np.float32(1.0), np.float32(0.0)
_SATURATED = np.float32(7.90531110763549805)
_ODD = (
    np.float32(-2.76076847742355e-16),
    np.float32(2.00018790482477e-13),
    np.float32(-8.60467152213735e-11),
    np.float32(5.12229709037114e-08),
    np.float32(1.48572235717979e-05),
    np.float32(6.37261928875436e-04),
    np.float32(4.89352455891786e-03),
)
_EVEN = (
    np.float32(1.19825839466702e-06),
    np.float32(1.18534705686654e-04),
    np.float32(2.26843463243900e-03),
    np.float32(4.89352518554385e-03),
)


_PER_LOG_2 = np.float32(1.0 / log(2.0))
_LOG_2_HIGH, _LOG_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_TO_WHOLE = np.float32(1.5 * 2.0**23)
"""Added to a number, it leaves the nearest whole one in the lowest bits."""
_LOWEST, _HIGHEST = np.float32(-87.0), np.float32(88.0)
_EXPONENT_BIAS, _MANTISSA_BITS = np.int32(127), np.int32(23)
_SERIES = (
    np.float32(1.9875691500e-4),
    np.float32(1.3981999507e-3),
    np.float32(8.3334519073e-3),
    np.float32(4.1665795894e-2),
    np.float32(1.6666665459e-1),
    np.float32(5.0000001201e-1),
)


class LayerWeights(NamedTuple):
    """Of an `nn.LSTM` with I inputs and H units, as it keeps them."""

    inputs: FloatArray
    """float32 [4H, I]."""
    recurrent: FloatArray
    """float32 [4H, H]."""
    inputs_bias: FloatArray
    """float32 [4H]."""
    recurrent_bias: FloatArray
    """float32 [4H]."""


class PackedLayer(NamedTuple):
    """The same as forward steps take them: good until the weights change."""

    weights: Packed
    """[I + H, 4H]: what inputs and hidden state are multiplied with."""
    bias: FloatArray
    """float32 [4H]: both biases added up."""


class Layer(NamedTuple):
    """An LSTM that runs over T steps of B sequences, and what its backward pass needs."""

    packed: PackedLayer
    hidden: FloatArray
    """float32 [B, H]: runs with the steps."""
    cell: FloatArray
    """float32 [B, H], likewise."""
    seen: FloatArray
    """float32 [T, B, I + H]: inputs and hidden state that a step works on."""
    gates: FloatArray
    """float32 [T, B, 4H]: their activations; `backward` turns them into gradients."""
    before: FloatArray
    """float32 [T, B, H]: the cells before the step."""
    squashed: FloatArray
    """float32 [T, B, H]: tanh of the cells after it."""


@kernel
def pack_layer(weights: LayerWeights) -> PackedLayer:
    """Lay out a layer's weights for its forward steps; twin of `torch.cat` and `torch.add`."""
    return PackedLayer(
        pack_across(weights.inputs, weights.recurrent),
        weights.inputs_bias + weights.recurrent_bias,
    )


@kernel
def layer(steps: int, hidden: FloatArray, cell: FloatArray, packed: PackedLayer) -> Layer:
    """Prepare a layer before its first step, from the state [B, H]; it changes that state.

    Twin of one layer of `torch.nn.LSTM` with its `h_0` and `c_0`.
    """
    rows, units = hidden.shape
    columns, terms = len(packed.bias), packed.weights.panels.shape[1]
    return Layer(
        packed,
        hidden,
        cell,
        np.empty((steps, rows, terms), np.float32),
        np.empty((steps, rows, columns), np.float32),
        np.empty((steps, rows, units), np.float32),
        np.empty((steps, rows, units), np.float32),
    )


@kernel
def forward(layer: Layer, t: int, inputs: FloatArray, begins: BoolArray) -> None:
    """Take a step: `inputs` [B, I] to `layer.hidden`, from zeros in rows that begin.

    Twin of `torch.lstm_cell`.

    Parameters
    ----------
    layer
        What it needs later is kept at `t`.
    t
        The step's place.
    inputs : float32 [B, I]
    begins : bool [B]
        Where an episode starts.
    """
    seen, before, gates = layer.seen[t], layer.before[t], layer.gates[t]
    width = inputs.shape[1]
    for row in range(len(begins)):
        seen[row, :width] = inputs[row]
        if begins[row]:
            seen[row, width:] = _ZERO
            before[row] = _ZERO
        else:
            seen[row, width:] = layer.hidden[row]
            before[row] = layer.cell[row]
    multiply(seen, layer.packed.weights, gates)
    _open(gates, layer.packed.bias, before, layer.cell, layer.squashed[t], layer.hidden)


@kernel
def backward(
    layer: Layer,
    t: int,
    begins: BoolArray,
    weights: Packed,
    d_hidden: FloatArray,
    d_cell: FloatArray,
    d_seen: FloatArray,
) -> None:
    """Step backward: gradients of the state after the step to those of the state before it.

    Twin of what autograd makes of `torch.lstm_cell`.

    Parameters
    ----------
    layer
        After `forward`; `layer.gates[t]` becomes the gradients of the gates' arguments.
    t
        The step's place.
    begins : bool [B]
        As in `forward`.
    weights : [4H, I + H]
        Those of `layer.packed` transposed.
    d_hidden : float32 [B, H]
        Of the hidden state, by later steps and by the outputs.
    d_cell : float32 [B, H]
        Of the cells.
    d_seen : float32 [B, I + H]
        Filled; its first columns are the inputs' gradients.
    """
    _close(layer.gates[t], layer.before[t], layer.squashed[t], d_hidden, d_cell)
    multiply(layer.gates[t], weights, d_seen)
    width = d_seen.shape[1] - d_hidden.shape[1]
    for row in range(len(begins)):
        if begins[row]:
            d_hidden[row] = _ZERO
            d_cell[row] = _ZERO
        else:
            d_hidden[row] = d_seen[row, width:]


@kernel
def tanh(x: np.float32) -> np.float32:
    """Hyperbolic tangent to 3e-7, as a ratio of polynomials that compilers turn into vectors.

    Twin of `torch.tanh`.

    The coefficients are Eigen's (generic_fast_tanh_float in its MathFunctionsImpl.h).
    """
    if x < -_SATURATED:
        x = -_SATURATED
    elif x > _SATURATED:
        x = _SATURATED
    y = x * x
    odd = _ODD[0]
    odd = odd * y + _ODD[1]
    odd = odd * y + _ODD[2]
    odd = odd * y + _ODD[3]
    odd = odd * y + _ODD[4]
    odd = odd * y + _ODD[5]
    odd = odd * y + _ODD[6]
    even = _EVEN[0]
    even = even * y + _EVEN[1]
    even = even * y + _EVEN[2]
    even = even * y + _EVEN[3]
    return x * odd / even


# It lives on rounding, and would take its callers' liberties if it did not refuse them.
@njit(cache=True, nogil=True, error_model="numpy", fastmath=False)
def exp(x: np.float32) -> np.float32:
    """Exponential to 2e-7 of itself from -87 to 88, beyond that of the end; twin of `torch.exp`.

    The whole powers of two, and a polynomial for the rest, whose coefficients are those of Cephes
    (expf.c).
    """
    if x < _LOWEST:
        x = _LOWEST
    elif x > _HIGHEST:
        x = _HIGHEST
    shifted = x * _PER_LOG_2 + _TO_WHOLE
    whole = shifted - _TO_WHOLE
    r = x - whole * _LOG_2_HIGH - whole * _LOG_2_LOW
    y = _SERIES[0]
    y = y * r + _SERIES[1]
    y = y * r + _SERIES[2]
    y = y * r + _SERIES[3]
    y = y * r + _SERIES[4]
    y = y * r + _SERIES[5]
    y = y * (r * r) + r + _ONE
    bits = np.int32(np.float32(shifted).view(np.int32) + _EXPONENT_BIAS) << _MANTISSA_BITS
    return y * np.int32(bits).view(np.float32)


@kernel
def _open(
    gates: FloatArray,
    bias: FloatArray,
    before: FloatArray,
    cell: FloatArray,
    squashed: FloatArray,
    hidden: FloatArray,
) -> None:
    """Activate gates [B, 4H] in place; fill new cells, their tanh, and hidden state [B, H].

    Twin of what `torch.lstm_cell` does behind its matrix products.
    """
    rows, units = cell.shape
    for row in range(rows):
        gate = gates[row]
        for j in range(2 * units):
            gate[j] = _HALF * tanh(_HALF * (gate[j] + bias[j])) + _HALF
        candidate, candidate_bias = gate[2 * units : 3 * units], bias[2 * units : 3 * units]
        for j in range(units):
            candidate[j] = tanh(candidate[j] + candidate_bias[j])
        opened, kept = gate[:units], gate[units : 2 * units]
        output, output_bias = gate[3 * units :], bias[3 * units :]
        old, new, out, flat = before[row], cell[row], hidden[row], squashed[row]
        for j in range(units):
            output[j] = _HALF * tanh(_HALF * (output[j] + output_bias[j])) + _HALF
            new[j] = kept[j] * old[j] + opened[j] * candidate[j]
        for j in range(units):
            flat[j] = tanh(new[j])
            out[j] = output[j] * flat[j]


@kernel
def _close(
    gates: FloatArray,
    before: FloatArray,
    squashed: FloatArray,
    d_hidden: FloatArray,
    d_cell: FloatArray,
) -> None:
    """Turn activations of the gates [B, 4H] to their gradients, in place; `d_cell` to that before.

    Twin of what autograd makes of that part of `torch.lstm_cell`.
    """
    rows, units = before.shape
    for row in range(rows):
        gate = gates[row]
        opened, kept = gate[:units], gate[units : 2 * units]
        candidate, output = gate[2 * units : 3 * units], gate[3 * units :]
        old, flat, d_out, d_old = before[row], squashed[row], d_hidden[row], d_cell[row]
        for j in range(units):
            i, f, g, o = opened[j], kept[j], candidate[j], output[j]
            d_new = d_old[j] + d_out[j] * o * (_ONE - flat[j] * flat[j])
            opened[j] = d_new * g * i * (_ONE - i)
            kept[j] = d_new * old[j] * f * (_ONE - f)
            candidate[j] = d_new * i * (_ONE - g * g)
            output[j] = d_out[j] * flat[j] * o * (_ONE - o)
            d_old[j] = d_new * f
