"""The CLSTM and its PPO loss as compiled loops: to act, to evaluate, and to learn from a minibatch.

A step's layers follow each other while its rows are in the cache, and a whole minibatch is one call
without the interpreter's lock.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from trading.learning.kernels.lstm import (
    BoolArray,
    Layer,
    LayerWeights,
    PackedLayer,
    backward,
    exp,
    forward,
    layer,
    pack_layer,
)
from trading.learning.kernels.matrix_products import (
    FloatArray,
    Packed,
    kernel,
    multiply,
    multiply_across,
    pack,
    pack_across,
    pack_beside,
)

IntArray = npt.NDArray[np.int64]

_NORM_EPSILON = np.float32(1e-5)
"""PyTorch's default for a LayerNorm."""

_FORBIDDEN = np.finfo(np.float32).min
_ONE, _ZERO = np.float32(1.0), np.float32(0.0)


class Network(NamedTuple):
    """All weights of a CLSTM."""

    norm_weight: FloatArray
    """float32 [F]."""
    norm_bias: FloatArray
    """float32 [F]."""
    feature: LayerWeights
    actor: LayerWeights
    critic: LayerWeights
    policy_weight: FloatArray
    """float32 [N, H]."""
    policy_bias: FloatArray
    """float32 [N]."""
    value_weight: FloatArray
    """float32 [1, H]."""
    value_bias: FloatArray
    """float32 [1]."""


class PackedNetwork(NamedTuple):
    """Its matrices as forward steps take them: good until the weights change."""

    feature: PackedLayer
    actor: PackedLayer
    critic: PackedLayer
    policy: Packed
    """[H, N]."""


class CellStates(NamedTuple):
    """What B sequences carry from step to step: float32 [B, H] each."""

    feature_hidden: FloatArray
    feature_cell: FloatArray
    actor_hidden: FloatArray
    actor_cell: FloatArray
    critic_hidden: FloatArray
    critic_cell: FloatArray


class Steps(NamedTuple):
    """What is learned from: T steps of V sequences, every field [T, V, ...]."""

    observations: FloatArray
    action_mask: BoolArray
    first: BoolArray
    valid: FloatArray
    actions: IntArray
    log_probs: FloatArray
    advantages: FloatArray
    returns: FloatArray


class Coefficients(NamedTuple):
    """Of the loss."""

    clip: np.float32
    value: np.float32
    entropy: np.float32


class Gradients(NamedTuple):
    """Sums over steps, not yet divided by their number."""

    losses: npt.NDArray[np.float64]
    """float64 [6]: policy loss, value loss, entropy, KL divergence, steps clipped, steps."""
    norm_weight: FloatArray
    norm_bias: FloatArray
    policy_weight: FloatArray
    policy_bias: FloatArray
    value_weight: FloatArray
    value_bias: FloatArray
    feature: Layer
    """`seen` and the gradients of `gates`, whose product is that of the layer's weights."""
    actor: Layer
    critic: Layer


@kernel
def pack_network(network: Network) -> PackedNetwork:
    """Lay out all matrices for forward steps; twin of `torch.cat` of those of each layer."""
    none = np.empty((len(network.policy_weight), 0), np.float32)
    return PackedNetwork(
        pack_layer(network.feature),
        pack_layer(network.actor),
        pack_layer(network.critic),
        pack_across(network.policy_weight, none),
    )


@kernel
def evaluate(
    network: Network,
    packed: PackedNetwork,
    observations: FloatArray,
    action_mask: BoolArray,
    first: BoolArray,
    state: CellStates,
) -> tuple[FloatArray, FloatArray]:
    """Run T steps of B sequences.

    Twin of `trading.learning.clstm.CLSTM.forward`.

    Parameters
    ----------
    network, packed
        The weights, and what `pack_network` made of them.
    observations : float32 [T, B, F]
    action_mask : bool [T, B, N]
        True where the action is allowed.
    first : bool [T, B]
        True where the state is zeroed before the step.
    state
        Before the first step; becomes that after the last.

    Returns
    -------
    tuple[FloatArray, FloatArray]
        Logits float32 [T, B, N], `finfo.min` where not allowed, and values float32 [T, B].
    """
    steps, rows = first.shape
    logits = np.empty(action_mask.shape, np.float32)
    values = np.empty((steps, rows), np.float32)
    normed = np.empty((rows, observations.shape[2]), np.float32)
    scaled = np.empty_like(normed)
    feature = layer(1, state.feature_hidden, state.feature_cell, packed.feature)
    actor = layer(1, state.actor_hidden, state.actor_cell, packed.actor)
    critic = layer(1, state.critic_hidden, state.critic_cell, packed.critic)
    for t in range(steps):
        _normalise(observations[t], network, normed, scaled)
        forward(feature, 0, scaled, first[t])
        forward(actor, 0, feature.hidden, first[t])
        forward(critic, 0, feature.hidden, first[t])
        multiply(actor.hidden, packed.policy, logits[t])
        for row in range(rows):
            values[t, row] = _value(critic.hidden[row], network)
            _mask(logits[t, row], network.policy_bias, action_mask[t, row])
    return logits, values


@kernel
def learn(
    network: Network,
    steps: Steps,
    columns: IntArray,
    state: CellStates,
    coefficients: Coefficients,
) -> Gradients:
    """Gradients of the summed PPO loss over some of the sequences.

    Twin of what `torch.Tensor.backward` makes of that loss.

    The loss is that of `trading.learning.ppo_update.ppo_loss`, times the number of valid steps.

    Parameters
    ----------
    network
        The weights.
    steps
        Of all sequences.
    columns : int64 [B]
        The sequences to learn from.
    state
        Of those sequences [B, H] before their first step; it is changed.
    coefficients
        Of the loss.
    """
    length, rows = len(steps.first), len(columns)
    features, actions = steps.observations.shape[2], steps.action_mask.shape[2]
    packed = pack_network(network)
    feature = layer(length, state.feature_hidden, state.feature_cell, packed.feature)
    actor = layer(length, state.actor_hidden, state.actor_cell, packed.actor)
    critic = layer(length, state.critic_hidden, state.critic_cell, packed.critic)
    normed = np.empty((length, rows, features), np.float32)
    begins = np.empty((length, rows), np.bool_)
    d_logits = np.empty((length, rows, actions), np.float32)
    d_values = np.empty((length, rows), np.float32)
    actor_out = np.empty((length, rows, actor.hidden.shape[1]), np.float32)
    critic_out = np.empty((length, rows, critic.hidden.shape[1]), np.float32)
    losses = np.zeros(6)

    observed = np.empty((rows, features), np.float32)
    scaled = np.empty((rows, features), np.float32)
    for t in range(length):
        for row in range(rows):
            observed[row] = steps.observations[t, columns[row]]
            begins[t, row] = steps.first[t, columns[row]]
        _normalise(observed, network, normed[t], scaled)
        forward(feature, t, scaled, begins[t])
        forward(actor, t, feature.hidden, begins[t])
        forward(critic, t, feature.hidden, begins[t])
        actor_out[t] = actor.hidden
        critic_out[t] = critic.hidden
        multiply(actor.hidden, packed.policy, d_logits[t])
        for row in range(rows):
            column = columns[row]
            mask = steps.action_mask[t, column]
            _mask(d_logits[t, row], network.policy_bias, mask)
            value = _value(critic.hidden[row], network)
            d_values[t, row] = _loss(
                steps, t, column, d_logits[t, row], value, coefficients, losses
            )

    d_norm_weight = np.zeros(features, np.float32)
    d_norm_bias = np.zeros(features, np.float32)
    by_feature = _zeros(feature, network.feature)
    by_actor, by_critic = _zeros(actor, network.actor), _zeros(critic, network.critic)
    from_logits = pack(network.policy_weight)
    for t in range(length - 1, -1, -1):
        _add_product(by_actor.d_hidden, d_logits[t], from_logits, by_actor.spare)
        for row in range(rows):
            d_hidden, d_value = by_critic.d_hidden[row], d_values[t, row]
            for j in range(len(d_hidden)):
                d_hidden[j] += d_value * network.value_weight[0, j]
        _back(actor, t, begins[t], by_actor)
        _back(critic, t, begins[t], by_critic)
        _add(by_feature.d_hidden, by_actor.d_seen)
        _add(by_feature.d_hidden, by_critic.d_seen)
        _back(feature, t, begins[t], by_feature)
        for row in range(rows):
            d_scaled, unit = by_feature.d_seen[row], normed[t, row]
            for j in range(features):
                d_norm_weight[j] += d_scaled[j] * unit[j]
                d_norm_bias[j] += d_scaled[j]

    flat = d_logits.reshape(length * rows, actions)
    d_value = d_values.reshape(length * rows, 1)
    return Gradients(
        losses,
        d_norm_weight,
        d_norm_bias,
        multiply_across(flat, actor_out.reshape(length * rows, -1)),
        flat.sum(axis=0),
        multiply_across(d_value, critic_out.reshape(length * rows, -1)),
        np.array([d_value.sum()], np.float32),
        feature,
        actor,
        critic,
    )


@njit(cache=True, nogil=True, error_model="numpy")  # in this order, to the last bit
def decide(
    logits: FloatArray, draws: npt.NDArray[np.float64], greedy: bool
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Choose one action per row, by the inverse of the cumulative distribution.

    Twin of `torch.softmax` and `torch.multinomial` with one sample, or of `torch.argmax`.

    A draw below 1 times a row's total stays below it, and an index is taken only where the sum
    steps over the draw, so an index of probability 0 is never drawn.

    Parameters
    ----------
    logits : float32 [B, N]
        `finfo.min` where not allowed.
    draws : float64 [B]
        Uniform in [0, 1); not looked at when `greedy`.
    greedy
        Take the most likely action, of equal ones the first.

    Returns
    -------
    tuple[IntArray, FloatArray, FloatArray]
        Actions int64 [B], their log probabilities float32 [B], and the distribution [B, N].
    """
    rows, count = logits.shape
    actions = np.empty(rows, np.int64)
    chosen = np.empty(rows, np.float32)
    probabilities = np.empty((rows, count), np.float32)
    log_probs = np.empty(count, np.float32)
    for row in range(rows):
        _log_softmax(logits[row], log_probs)
        total, best = 0.0, 0
        for j in range(count):
            probabilities[row, j] = np.exp(log_probs[j])
            total += np.float64(probabilities[row, j])
            if log_probs[j] > log_probs[best]:
                best = j
        if not greedy:
            draw = min(draws[row] * total, np.nextafter(total, 0.0))
            best, reached = 0, np.float64(probabilities[row, 0])
            while reached <= draw:
                best += 1
                reached += np.float64(probabilities[row, best])
        actions[row] = best
        chosen[row] = log_probs[best]
    return actions, chosen, probabilities


class _Backward(NamedTuple):
    """Gradients that go back through a layer's steps, see `kernels.lstm.backward`."""

    weights: Packed
    """[4H, I + H]."""
    d_hidden: FloatArray
    """float32 [B, H]."""
    d_cell: FloatArray
    """float32 [B, H]."""
    d_seen: FloatArray
    """float32 [B, I + H]."""
    spare: FloatArray
    """float32 [B, H]."""


@kernel
def _zeros(of: Layer, weights: LayerWeights) -> _Backward:
    """Begin behind the last step, where nothing follows; twin of `torch.zeros_like`."""
    rows, units = of.hidden.shape
    return _Backward(
        pack_beside(weights.inputs, weights.recurrent),
        np.zeros((rows, units), np.float32),
        np.zeros((rows, units), np.float32),
        np.empty((rows, of.seen.shape[2]), np.float32),
        np.empty((rows, units), np.float32),
    )


@kernel
def _back(of: Layer, t: int, begins: BoolArray, by: _Backward) -> None:
    """Take one step of a layer back; twin of what autograd makes of `torch.lstm_cell`."""
    backward(of, t, begins, by.weights, by.d_hidden, by.d_cell, by.d_seen)


@kernel
def _normalise(
    observations: FloatArray, network: Network, normed: FloatArray, scaled: FloatArray
) -> None:
    """Normalise each row [B, F]: `normed` before weight and bias, `scaled` after.

    Twin of `torch.nn.functional.layer_norm`.
    """
    count = np.float32(observations.shape[1])
    for row in range(len(observations)):
        seen, unit, out = observations[row], normed[row], scaled[row]
        mean = seen.sum() / count
        variance = _ZERO
        for j in range(len(seen)):
            unit[j] = seen[j] - mean
            variance += unit[j] * unit[j]
        scale = _ONE / np.sqrt(variance / count + _NORM_EPSILON)
        for j in range(len(seen)):
            unit[j] *= scale
            out[j] = unit[j] * network.norm_weight[j] + network.norm_bias[j]


@kernel
def _value(hidden: FloatArray, network: Network) -> np.float32:
    """Return the value of one row; twin of `torch.nn.functional.linear` with one output."""
    value: np.float32 = network.value_bias[0]
    for j in range(len(hidden)):
        value += hidden[j] * network.value_weight[0, j]
    return value


@kernel
def _mask(logits: FloatArray, bias: FloatArray, mask: BoolArray) -> None:
    """Add the bias in place and forbid what is masked; twin of `torch.Tensor.masked_fill`."""
    for j in range(len(logits)):
        logits[j] = logits[j] + bias[j] if mask[j] else _FORBIDDEN


@kernel
def _log_softmax(logits: FloatArray, log_probs: FloatArray) -> None:
    """Fill `log_probs` [N] of one row; twin of `torch.log_softmax`."""
    highest = logits.max()
    total = _ZERO
    for j in range(len(logits)):
        total += np.exp(logits[j] - highest)
    shift = highest + np.log(total)
    for j in range(len(logits)):
        log_probs[j] = logits[j] - shift


@kernel
def _softmax(logits: FloatArray, probabilities: FloatArray) -> np.float32:
    """Fill `probabilities` [N] of one row, of which what is forbidden may have 1e-38.

    Twin of `torch.softmax`. Returns what logits are above log probabilities.
    """
    highest = logits.max()
    for j in range(len(logits)):
        probabilities[j] = exp(logits[j] - highest)
    total = probabilities.sum()
    part = _ONE / total
    for j in range(len(logits)):
        probabilities[j] *= part
    shift: np.float32 = highest + np.log(total)
    return shift


@kernel
def _loss(
    steps: Steps,
    t: int,
    column: int,
    logits: FloatArray,
    value: np.float32,
    coefficients: Coefficients,
    losses: npt.NDArray[np.float64],
) -> np.float32:
    """Add one step's losses, turn its logits into the gradient by them; return that by value.

    Twin of `trading.learning.ppo_update.ppo_loss` and of what autograd makes of it.
    """
    weight = steps.valid[t, column]
    mask = steps.action_mask[t, column]
    action = steps.actions[t, column]
    advantage = steps.advantages[t, column]
    probabilities = np.empty_like(logits)
    shift = _softmax(logits, probabilities)
    log_ratio = logits[action] - shift - steps.log_probs[t, column]
    ratio = np.exp(log_ratio)
    clipped = min(max(ratio, _ONE - coefficients.clip), _ONE + coefficients.clip)
    entropy = _ZERO
    for j in range(len(logits)):
        entropy -= probabilities[j] * (logits[j] - shift) if mask[j] else _ZERO
    error = value - steps.returns[t, column]
    losses[0] -= weight * min(ratio * advantage, clipped * advantage)
    losses[1] += 0.5 * weight * error * error
    losses[2] += weight * entropy
    losses[3] += weight * (ratio - _ONE - log_ratio)
    losses[4] += weight * np.float32(abs(ratio - _ONE) > coefficients.clip)
    losses[5] += weight
    push = -weight * advantage * ratio if ratio * advantage <= clipped * advantage else _ZERO
    pull = coefficients.entropy * weight
    for j in range(len(logits)):
        gradient = probabilities[j] * (pull * (logits[j] - shift + entropy) - push)
        logits[j] = gradient if mask[j] else _ZERO
    logits[action] += push
    d_value: np.float32 = coefficients.value * weight * error
    return d_value


@kernel
def _add(into: FloatArray, what: FloatArray) -> None:
    """Add the first columns of `what` [B, I] to `into` [B, H]; twin of `torch.Tensor.add_`."""
    for row in range(len(into)):
        left, right = into[row], what[row]
        for j in range(len(left)):
            left[j] += right[j]


@kernel
def _add_product(into: FloatArray, left: FloatArray, right: Packed, spare: FloatArray) -> None:
    """Add the product to `into` [B, H], by way of `spare`; twin of `torch.addmm`."""
    multiply(left, right, spare)
    _add(into, spare)
