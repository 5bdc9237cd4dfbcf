"""One PPO update of a recurrent policy: advantages, minibatches of whole sequences, clipped loss.

Proximal policy optimisation after Schulman et al. 2017 (arXiv:1707.06347). A minibatch is a set of
whole sequences, each from the start of its episode or from the state it was acted from, so
backpropagation through time sees what the policy saw.

Experience of older weights is corrected: advantages are V-trace's, with the values of the weights
that learn, and the clipped ratio is taken to these weights instead of those that acted. That is the
decoupled objective of Hilton et al. 2021 (arXiv:2110.00641): V-trace's rho stands for its weight of
the old behaviour.
"""

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache, partial
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from trading.config import LearningSettings
from trading.errors import LearningError
from trading.learning.clstm import CLSTM
from trading.learning.compiled import CompiledNetwork, supports
from trading.learning.kernels import network
from trading.learning.minibatch_threads import shared_out, single_threaded
from trading.learning.prepared import Found, Prepared, prepared_for
from trading.learning.rollout import Rollout
from trading.learning.sequences import Experience, arrange, normalised
from trading.learning.shards import Replica

Precision = Literal["fp32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_TINY, _HUGE = sys.float_info.min, sys.float_info.max
_RANGES: dict[str, tuple[float, float, str]] = {
    **dict.fromkeys(("gamma", "gae_lambda"), (0.0, 1.0, "lie in 0..1")),
    **dict.fromkeys(("learning_rate", "clip", "max_grad_norm"), (_TINY, _HUGE, "be positive")),
    **dict.fromkeys(("entropy_coefficient", "value_coefficient"), (0.0, _HUGE, "not be negative")),
    **dict.fromkeys(("epochs", "minibatches"), (1.0, _HUGE, "be at least 1")),
}
"""Lowest and highest value of a setting, and the rule that these stand for."""


@dataclass(frozen=True)
class PPOSettings:
    """Hyperparameters of the update.

    Raises
    ------
    LearningError
        A value is outside its range.
    """

    gamma: float
    """Discount per decision, 0..1."""
    gae_lambda: float
    """Weight of longer advantage estimates, 0..1: lower is less variance and more bias."""
    learning_rate: float
    """Step size of Adam."""
    clip: float
    """A probability ratio counts only within 1 ± clip of the policy that acted."""
    epochs: int
    """Passes over each rollout."""
    minibatches: int
    """Parts that the sequences of a rollout are split into for each pass."""
    entropy_coefficient: float
    """Weight of the entropy bonus, which keeps the policy from collapsing to one action."""
    value_coefficient: float
    """Weight of the value loss beside the policy loss."""
    max_grad_norm: float
    """Gradients are scaled down to this Euclidean norm."""
    precision: Precision
    """Arithmetic of the network: tf32 differs from fp32 on NVIDIA GPUs only, bf16 everywhere."""
    compile: bool
    """Whether network and loss go through torch.compile; LSTMs keep their own kernels."""

    @classmethod
    def of(cls, learning: LearningSettings, gamma: float) -> "PPOSettings":
        """Return the hyperparameters that the settings tell, with this discount per decision."""
        names = [field.name for field in fields(cls) if field.name != "gamma"]
        return cls(gamma=gamma, **{name: getattr(learning, name) for name in names})

    def __post_init__(self) -> None:
        for name, (low, high, rule) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise LearningError(f"{name} is {value}; it must {rule}")
        if self.precision not in PRECISIONS:
            raise LearningError(
                f"precision is {self.precision!r}; it must be one of {', '.join(PRECISIONS)}"
            )


class LossParts(NamedTuple):
    """Scalars of one minibatch, all without gradient."""

    loss: Tensor
    policy_loss: Tensor
    value_loss: Tensor
    entropy: Tensor
    kl: Tensor
    clip_fraction: Tensor


def ppo_loss(
    logits: Tensor,
    values: Tensor,
    actions: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    returns: Tensor,
    valid: Tensor,
    settings: PPOSettings,
) -> tuple[Tensor, LossParts]:
    """Return the clipped surrogate loss, averaged over valid steps (arXiv:1707.06347, eq. 7 and 9).

    Parameters
    ----------
    logits : float32 [T, B, N]
        Masked.
    values : float32 [T, B]
    actions : int64 [T, B]
    old_log_probs : float32 [T, B]
        When the actions were taken.
    advantages : float32 [T, B]
    returns : float32 [T, B]
        The target of `values`.
    valid : float32 [T, B]
        1 where the step counts, 0 for padding.
    settings
        Coefficients.

    Returns
    -------
    tuple[Tensor, LossParts]
        The loss to minimise and its parts. The KL divergence from the old policy is estimated by
        mean((r - 1) - log r), r the probability ratio (http://joschu.net/blog/kl-approx.html).
    """
    weight = valid / valid.sum().clamp(min=1.0)
    log_probs = torch.log_softmax(logits, dim=-1)
    log_ratio = log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1) - old_log_probs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - settings.clip, 1.0 + settings.clip)
    policy_loss = -(weight * torch.minimum(ratio * advantages, clipped * advantages)).sum()
    value_loss = 0.5 * (weight * (values - returns).square()).sum()
    entropy = -(weight * (log_probs.exp() * log_probs).sum(dim=-1)).sum()
    loss = (
        policy_loss
        + settings.value_coefficient * value_loss
        - settings.entropy_coefficient * entropy
    )
    with torch.no_grad():
        kl = (weight * (ratio - 1.0 - log_ratio)).sum()
        clip_fraction = (weight * ((ratio - 1.0).abs() > settings.clip)).sum()
    parts = (loss, policy_loss, value_loss, entropy, kl, clip_fraction)
    return loss, LossParts(*(part.detach() for part in parts))


def update(
    module: CLSTM,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout | None,
    settings: PPOSettings,
    generator: torch.Generator,
    replica: Replica = Replica(),  # noqa: B008 an immutable value
    version: int | None = None,
) -> dict[str, float]:
    """Improve `module` on one rollout, in place.

    With several learners each is given a rollout of its own, its share of one update's experience.
    A minibatch of all is a part of each share; gradients are averaged over `torch.distributed`.

    Parameters
    ----------
    module
        The network, on any device; equal on all learners.
    optimizer
        Over the parameters of `module`.
    rollout
        Any T and B; the module's sizes must fit. None where other learners have it all.
    settings
        Hyperparameters. The learning rate is the optimizer's own.
    generator
        Orders the sequences (CPU).
    replica
        This process among the learners.
    version
        Of the weights in `module`. A rollout of another version is evaluated once more by these
        weights and corrected by V-trace; None says that these weights acted.

    Returns
    -------
    dict[str, float]
        Means over the minibatches: `loss`, `policy_loss`, `value_loss`, `entropy`, `kl` (of the
        last pass), `clip_fraction`, `grad_norm` (before clipping); of all learners' rollouts:
        `explained_variance`, `samples`, and `behaviour_kl`, the KL divergence of these weights from
        those that acted.

    Raises
    ------
    LearningError
        A rollout is unusable, or the loss is not finite. Weights and optimizer are then what they
        were before.
    """
    if rollout is None and replica.size == 1:
        raise LearningError("there is no rollout; there is nothing to learn from")
    if settings.compile:
        module.compile()
    device = next(module.parameters()).device
    by_compiled = settings.precision != "bf16" and not settings.compile and supports(module)
    with float32_precision(device, settings.precision), bf16_kernels(device, settings.precision):

        def prepare() -> Prepared | None:
            if rollout is None:
                return None
            return prepared_for(module, rollout, settings, version, device, whole=by_compiled)

        prepared = replica.agreed(device, prepare)
        found = Found.of(prepared, replica, device)
        gradients, sequences = _no_gradients(module), 0
        if prepared is not None:
            experience = arrange(
                prepared.rollout,
                prepared.cut,
                normalised(prepared.advantages, found.advantages),
                prepared.returns,
                device,
            )
            by = _by_compiled if by_compiled else _by_autograd
            gradients, sequences = by(module, experience, settings), len(prepared.cut.column)
        minibatches = min(settings.minibatches, max(1, found.sequences // replica.size))
        with _all_or_nothing(module, optimizer), single_threaded() as cpu_threads:
            # A GPU has one stream of work, and torch.compile is not for several threads.
            threads = 1 if device.type != "cpu" or settings.compile else cpu_threads
            step = partial(
                _step, module, optimizer, gradients, settings.max_grad_norm, replica, threads
            )
            stats = _passes(step, sequences, minibatches, settings, generator, device)
    of_rollout = {
        "explained_variance": found.explained_variance,
        "behaviour_kl": found.behaviour_kl,
    }
    return {**stats, **of_rollout, "samples": found.steps}


def _passes(
    step: Callable[[Tensor], Tensor],
    sequences: int,
    minibatches: int,
    settings: PPOSettings,
    generator: torch.Generator,
    device: torch.device,
) -> dict[str, float]:
    """Take `step` over minibatches of all sequences, as often as the settings say."""
    history: list[Tensor] = []
    for _ in range(settings.epochs):
        order = torch.randperm(sequences, generator=generator)
        history += map(step, order.to(device).tensor_split(minibatches))
    every = torch.stack(history)
    stats = dict(zip((*LossParts._fields, "grad_norm"), every.mean(dim=0).tolist(), strict=True))
    last = every[-minibatches:].mean(dim=0)
    return {**stats, "kl": float(last[LossParts._fields.index("kl")])}


GradientFunction = Callable[[Tensor], Tensor]
"""Loss parts and gradients of the sequences int64 [B], one after another in one tensor.

They are weighed by the number of valid steps, which is the last element: so shares of a minibatch,
of threads or of learners, are added up and divided by the sum of their last.
"""


def _step(
    module: CLSTM,
    optimizer: torch.optim.Optimizer,
    gradients: GradientFunction,
    max_grad_norm: float,
    replica: Replica,
    threads: int,
    columns: Tensor,
) -> Tensor:
    """One gradient step on the sequences in `columns`; returns the loss parts and the norm."""
    if not len(columns):
        gradients = _no_gradients(module)
    total, *others = shared_out(gradients, columns, threads)
    for other in others:
        total += other
    if replica.size > 1:
        torch.distributed.all_reduce(total)
    mean = total[:-1] / total[-1].clamp(min=1.0)
    scalars, gradient = mean.tensor_split([len(LossParts._fields)])
    norm = torch.linalg.vector_norm(gradient)
    if not torch.isfinite(norm + scalars.sum()):
        parts = LossParts(*scalars.tolist())
        raise LearningError(
            f"the PPO loss is {parts.loss}, its KL divergence {parts.kl} and its gradient norm "
            f"{float(norm)}; the update is undone, the weights are unchanged"
        )
    gradient *= (max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
    parameters = list(module.parameters())
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, part in zip(parameters, torch.split(gradient, sizes), strict=True):
        parameter.grad = part.view_as(parameter)
    optimizer.step()
    # A fused one does not tell, and a policy keeps its weights laid out until one has changed.
    torch.autograd.graph.increment_version(parameters)
    return torch.cat([scalars, norm.reshape(1)])


def _no_gradients(module: CLSTM) -> GradientFunction:
    """Give those of no sequence: what a learner adds to a minibatch of which it has none."""
    device = next(module.parameters()).device
    size = len(LossParts._fields) + sum(each.numel() for each in module.parameters()) + 1

    def gradients(columns: Tensor) -> Tensor:
        return torch.zeros(size, device=device)

    return gradients


def _by_compiled(module: CLSTM, experience: Experience, settings: PPOSettings) -> GradientFunction:
    """By the compiled network, which takes whole columns."""
    compiled = CompiledNetwork(module)
    steps = network.Steps(*(tensor.numpy() for tensor in experience.batch))
    weights = (settings.value_coefficient, settings.entropy_coefficient)
    coefficients = network.Coefficients(*map(np.float32, (settings.clip, *weights)))

    def gradients(columns: Tensor) -> Tensor:
        state = experience.state_of(columns)
        sums, flat = compiled.gradients(steps, columns, state, coefficients)
        policy_loss, value_loss, entropy, *_ = sums
        loss = policy_loss + coefficients.value * value_loss - coefficients.entropy * entropy
        return torch.from_numpy(np.concatenate([[loss], sums[:-1], flat, sums[-1:]]))

    return gradients


def _by_autograd(module: CLSTM, experience: Experience, settings: PPOSettings) -> GradientFunction:
    """By PyTorch's operations, on any device."""
    parameters = list(module.parameters())
    loss_of = _compiled_loss() if settings.compile else ppo_loss

    def gradients(columns: Tensor) -> Tensor:
        part, state = experience.batch.select(columns), experience.state_of(columns)
        with torch.autocast(columns.device.type, torch.bfloat16, settings.precision == "bf16"):
            logits, values, _ = module(part.observations, part.action_mask, state, part.first)
        loss, parts = loss_of(
            logits,
            values,
            part.actions,
            part.log_probs,
            part.advantages,
            part.returns,
            part.valid,
            settings,
        )
        by_parameter = torch.autograd.grad(loss, parameters)
        steps = part.valid.sum().reshape(1)
        flat = torch.cat([torch.stack(parts), *(tensor.flatten() for tensor in by_parameter)])
        return torch.cat([flat * steps, steps])

    return gradients


@cache
def _compiled_loss() -> Callable[..., tuple[Tensor, LossParts]]:
    return torch.compile(ppo_loss)


@contextmanager
def float32_precision(device: torch.device, precision: Precision) -> Iterator[None]:
    """Have matrix products and cuDNN's LSTM on a GPU keep to IEEE float32, or use TF32.

    PyTorch by itself runs the LSTM in TF32 and other products in float32.
    """
    if device.type != "cuda":
        yield
        return
    before = (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
    try:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def bf16_kernels(device: torch.device, precision: Precision) -> Iterator[None]:
    """Have PyTorch compute an LSTM in bf16 itself where oneDNN has no kernel for the processor.

    oneDNN's needs AVX-512; without it, PyTorch asks for it all the same, and fails.
    """
    if device.type != "cpu" or precision != "bf16" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        yield
        return
    enabled, *_ = torch.backends.mkldnn.set_flags(_enabled=False)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=enabled)  # type: ignore[no-untyped-call]


@contextmanager
def _all_or_nothing(module: CLSTM, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put weights and optimizer back to what they were when the body raises."""
    weights = [parameter.detach().clone() for parameter in module.parameters()]
    optimizer_state = copy.deepcopy(optimizer.state_dict())
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for parameter, before in zip(module.parameters(), weights, strict=True):
                parameter.copy_(before)
        optimizer.load_state_dict(optimizer_state)
        optimizer.zero_grad(set_to_none=True)
        raise
