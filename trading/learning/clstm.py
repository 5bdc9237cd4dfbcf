"""The cascaded LSTM: one recurrent feature extractor that feeds a recurrent actor and critic.

Architecture after Zou et al., "A Novel Deep Reinforcement Learning Based Automated Stock Trading
System Using Cascaded LSTM Networks" (2022): a first LSTM turns the observations into time-series
features; the policy and the value function each read those features through an LSTM of their own.

The recurrent state is carried from step to step, without a limit to what is remembered, where the
paper's network sees the last 30 observations only: docs/learner.md has what was measured.
"""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from trading.errors import LearningError
from trading.learning.uncompiled import tell_the_compiler

TensorState = dict[str, Tensor]

_NOT_COMPILED = ("_segments", "_run")
"""Methods of the network that torch.compile leaves alone."""


@dataclass(frozen=True)
class CLSTMConfig:
    """The shape of a `CLSTM`.

    Raises
    ------
    LearningError
        A size is not a positive integer, or a switch not a bool.
    """

    observation_size: int
    """Features in one observation, F."""
    action_count: int
    """Actions in the discrete action space, N."""
    feature_hidden: int
    """Units of the feature LSTM."""
    actor_hidden: int
    """Units of the actor LSTM."""
    critic_hidden: int
    """Units of the critic LSTM."""
    layer_norm: bool
    """Whether the features are normalised."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name == "layer_norm":
                if not isinstance(value, bool):
                    raise LearningError(f"CLSTM {name} is {value!r}; it must be true or false")
            elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise LearningError(f"CLSTM {name} is {value!r}; it must be a positive integer")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for a model config or a checkpoint's metadata."""
        return asdict(self)

    def architecture(self) -> dict[str, Any]:
        """`to_dict` without the two sizes that come from the environment's spaces."""
        sizes = ("observation_size", "action_count")
        return {name: value for name, value in self.to_dict().items() if name not in sizes}

    @property
    def state_shapes(self) -> dict[str, tuple[int, int]]:
        """Shape of each carried tensor without its batch axis: key -> (layers, hidden)."""
        sizes = {
            "feature": (1, self.feature_hidden),
            "actor": (1, self.actor_hidden),
            "critic": (1, self.critic_hidden),
        }
        return {f"{name}_{part}": shape for name, shape in sizes.items() for part in "hc"}


@dataclass(frozen=True, eq=False)
class _Segments:
    """Pieces of [0, T) that no sequence starts an episode inside of.

    A list of its own would have torch.compile make another network for every pattern of cuts; it
    does not look into this.
    """

    pieces: list[tuple[int, int, Tensor | None]]
    """(start, end, reset): `reset` is None when nothing resets at `start`, else bool [B, 1]."""


class CLSTM(nn.Module):
    """Observation and action mask in, masked logits and value out, one state per sequence.

    All time-major tensors are [T, B, ...]. The state is a dict of tensors [layers, B, hidden], as
    `CLSTMConfig.state_shapes` lists them.

    Examples
    --------
    >>> from trading.config import ModelSettings
    >>> config = CLSTMConfig(observation_size=3, action_count=2, **ModelSettings().model_dump())
    >>> model = CLSTM(config)
    >>> logits, value, state = model(
    ...     torch.zeros(5, 4, 3),
    ...     torch.ones(5, 4, 2, dtype=torch.bool),
    ...     model.initial_state(4),
    ...     torch.zeros(5, 4, dtype=torch.bool),
    ... )
    >>> tuple(logits.shape), tuple(value.shape), tuple(state["actor_h"].shape)
    ((5, 4, 2), (5, 4), (1, 4, 64))
    """

    def __init__(self, config: CLSTMConfig) -> None:
        super().__init__()
        self.config = config
        self.input_norm = nn.LayerNorm(config.observation_size)
        self.feature = nn.LSTM(config.observation_size, config.feature_hidden)
        self.actor = nn.LSTM(config.feature_hidden, config.actor_hidden)
        self.critic = nn.LSTM(config.feature_hidden, config.critic_hidden)
        self.policy_head = nn.Linear(config.actor_hidden, config.action_count)
        self.value_head = nn.Linear(config.critic_hidden, 1)
        self.feature_norm = nn.LayerNorm(config.feature_hidden) if config.layer_norm else None
        self._initialise()

    def _initialise(self) -> None:
        """Orthogonal recurrent weights, forget gates open, a nearly uniform first policy."""
        for lstm in (self.feature, self.actor, self.critic):
            for name, parameter in lstm.named_parameters():
                if name.startswith("weight_ih"):
                    nn.init.xavier_uniform_(parameter)
                elif name.startswith("weight_hh"):
                    for gate in parameter.data.chunk(4):
                        nn.init.orthogonal_(gate)
                else:
                    nn.init.zeros_(parameter)
                    if name.startswith("bias_ih"):
                        parameter.data.chunk(4)[1].fill_(1.0)
        nn.init.orthogonal_(self.policy_head.weight, 0.01)
        nn.init.orthogonal_(self.value_head.weight, 1.0)
        nn.init.zeros_(self.policy_head.bias)
        nn.init.zeros_(self.value_head.bias)

    def initial_state(self, batch_size: int) -> TensorState:
        """Return the state at the start of an episode: zeros [layers, batch_size, hidden]."""
        like = self.value_head.weight
        return {
            key: like.new_zeros(layers, batch_size, hidden)
            for key, (layers, hidden) in self.config.state_shapes.items()
        }

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As `nn.Module.compile`, once; without the LSTMs, which torch.compile does not trace.

        They keep their own kernels, and cuts, which depend on the data, are made outside of it.
        """
        if self._compiled_call_impl is None:
            for name in _NOT_COMPILED:
                setattr(self, name, torch.compiler.disable(getattr(self, name)))  # type: ignore[no-untyped-call]
            tell_the_compiler()
            super().compile(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {name: value for name, value in state.items() if name not in _NOT_COMPILED}

    def forward(
        self, observations: Tensor, action_mask: Tensor, state: TensorState, first: Tensor
    ) -> tuple[Tensor, Tensor, TensorState]:
        """Evaluate T steps of B sequences.

        Parameters
        ----------
        observations : float32 [T, B, F]
        action_mask : bool [T, B, N]
            True where the action is allowed.
        state
            Tensors [layers, B, hidden] before the first step.
        first : bool [T, B]
            True where an episode starts: that sequence's state is zeroed before that step.

        Returns
        -------
        tuple[Tensor, Tensor, TensorState]
            Logits float32 [T, B, N] with `finfo.min` where not allowed, values float32 [T, B], and
            the state after the last step, all of float32 under autocast too.
        """
        hidden, segments = self.input_norm(observations), self._segments(first)
        actor, critic, new_state = self._cascade(hidden, state, segments)
        logits = self.policy_head(actor).float()
        logits = logits.masked_fill(~action_mask, torch.finfo(logits.dtype).min)
        new_state = {key: tensor.float() for key, tensor in new_state.items()}
        return logits, self.value_head(critic).float().squeeze(-1), new_state

    def _cascade(
        self, hidden: Tensor, state: TensorState, segments: _Segments
    ) -> tuple[Tensor, Tensor, TensorState]:
        """All three LSTMs over [T, B, F]: outputs of actor and critic, and the state after it."""
        new_state: TensorState = {}
        features = self._run("feature", self.feature, hidden, state, segments, new_state)
        if self.feature_norm is not None:
            features = self.feature_norm(features)
        actor = self._run("actor", self.actor, features, state, segments, new_state)
        critic = self._run("critic", self.critic, features, state, segments, new_state)
        return actor, critic, new_state

    @staticmethod
    def _segments(first: Tensor) -> _Segments:
        """Cut [0, T) where any sequence starts an episode."""
        resets = first.any(dim=1).nonzero().flatten().tolist()
        cuts = sorted({0, *resets, first.shape[0]})
        pieces = [
            (start, end, first[start].unsqueeze(-1) if start in resets else None)
            for start, end in pairwise(cuts)
        ]
        return _Segments(pieces)

    @staticmethod
    def _run(
        name: str,
        lstm: nn.LSTM,
        inputs: Tensor,
        state: TensorState,
        segments: _Segments,
        new_state: TensorState,
    ) -> Tensor:
        """Run one LSTM over every segment; the state is zeroed at a segment's resets."""
        h, c = state[f"{name}_h"], state[f"{name}_c"]
        outputs = []
        for start, end, reset in segments.pieces:
            if reset is not None:
                h, c = h.masked_fill(reset, 0.0), c.masked_fill(reset, 0.0)
            if end - start == 1 and not torch.is_grad_enabled():
                output, h, c = _single_step(lstm, inputs[start], h, c)
            else:
                # Autograd would copy the gradient of a slice, also of one that is everything.
                piece = inputs if end - start == len(inputs) else inputs[start:end]
                output, (h, c) = lstm(piece, (h, c))
            outputs.append(output)
        new_state[f"{name}_h"], new_state[f"{name}_c"] = h, c
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _single_step(
    lstm: nn.LSTM, inputs: Tensor, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step by the cell kernel: for acting, half the cost of the sequence kernel.

    Parameters
    ----------
    lstm
        Of one layer.
    inputs : float32 [B, I]
    h : float32 [1, B, hidden]
    c : float32 [1, B, hidden]

    Returns
    -------
    tuple[Tensor, Tensor, Tensor]
        The output [1, B, hidden] and the new h and c.
    """
    hidden, cell = torch.lstm_cell(inputs, (h[0], c[0]), *lstm.all_weights[0])
    return hidden.unsqueeze(0), hidden.unsqueeze(0), cell.unsqueeze(0)
