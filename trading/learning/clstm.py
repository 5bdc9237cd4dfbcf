"""The cascaded LSTM: one recurrent feature extractor that feeds a recurrent actor and critic.

Architecture after Zou et al., "A Novel Deep Reinforcement Learning Based Automated Stock Trading
System Using Cascaded LSTM Networks" (2022): a first LSTM turns the observations into time-series
features; the policy and the value function each read those features through an LSTM of their own.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from trading.errors import LearningError

STATE_KEYS = ("feature_h", "feature_c", "actor_h", "actor_c", "critic_h", "critic_c")

TensorState = dict[str, Tensor]


@dataclass(frozen=True)
class CLSTMConfig:
    """The shape of a `CLSTM`.

    Raises:
        LearningError: A size is not a positive integer.
    """

    observation_size: int
    """Features in one observation, F."""
    action_count: int
    """Actions in the discrete action space, N."""
    feature_hidden: int = 64
    """Units of the feature LSTM."""
    actor_hidden: int = 64
    """Units of the actor LSTM."""
    critic_hidden: int = 64
    """Units of the critic LSTM."""
    feature_layers: int = 1
    """Stacked layers of the feature LSTM."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or value < 1:
                raise LearningError(f"CLSTM {name} is {value!r}; it must be a positive integer")

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, for a model config or a checkpoint's metadata."""
        return asdict(self)

    @property
    def state_shapes(self) -> dict[str, tuple[int, int]]:
        """Shape of each state tensor without its batch axis: key -> (layers, hidden)."""
        feature = (self.feature_layers, self.feature_hidden)
        actor, critic = (1, self.actor_hidden), (1, self.critic_hidden)
        return dict(zip(STATE_KEYS, (feature, feature, actor, actor, critic, critic), strict=True))


class CLSTM(nn.Module):
    """Observation and action mask in, masked logits and value out, one state per sequence.

    All time-major tensors are [T, B, ...]. The state is a dict of six tensors [layers, B, hidden]
    under `STATE_KEYS`.

    Example:
        >>> model = CLSTM(CLSTMConfig(observation_size=3, action_count=2))
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
        self.feature = nn.LSTM(
            config.observation_size, config.feature_hidden, config.feature_layers
        )
        self.actor = nn.LSTM(config.feature_hidden, config.actor_hidden)
        self.critic = nn.LSTM(config.feature_hidden, config.critic_hidden)
        self.policy_head = nn.Linear(config.actor_hidden, config.action_count)
        self.value_head = nn.Linear(config.critic_hidden, 1)
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
        """The state at the start of an episode: zeros, six tensors [layers, batch_size, hidden]."""
        like = self.value_head.weight
        return {
            key: like.new_zeros(layers, batch_size, hidden)
            for key, (layers, hidden) in self.config.state_shapes.items()
        }

    def forward(
        self, observations: Tensor, action_mask: Tensor, state: TensorState, first: Tensor
    ) -> tuple[Tensor, Tensor, TensorState]:
        """Evaluates T steps of B sequences.

        Args:
            observations: float32 [T, B, F].
            action_mask: bool [T, B, N], True where the action is allowed.
            state: Six tensors [layers, B, hidden] before the first step.
            first: bool [T, B], True where an episode starts: that sequence's state is zeroed
                before that step.

        Returns:
            Logits float32 [T, B, N] with `finfo.min` where not allowed, values float32 [T, B],
            and the state after the last step.
        """
        hidden = self.input_norm(observations)
        new_state: TensorState = {}
        segments = list(_segments(first))
        features = self._run("feature", self.feature, hidden, state, segments, new_state)
        actor = self._run("actor", self.actor, features, state, segments, new_state)
        critic = self._run("critic", self.critic, features, state, segments, new_state)
        logits = self.policy_head(actor)
        logits = logits.masked_fill(~action_mask, torch.finfo(logits.dtype).min)
        return logits, self.value_head(critic).squeeze(-1), new_state

    @staticmethod
    def _run(
        name: str,
        lstm: nn.LSTM,
        inputs: Tensor,
        state: TensorState,
        segments: list[tuple[int, int, Tensor | None]],
        new_state: TensorState,
    ) -> Tensor:
        """Runs one LSTM over every segment; the state is zeroed at a segment's resets."""
        h, c = state[f"{name}_h"], state[f"{name}_c"]
        outputs = []
        for start, end, reset in segments:
            if reset is not None:
                h, c = h.masked_fill(reset, 0.0), c.masked_fill(reset, 0.0)
            if end - start == 1 and not torch.is_grad_enabled():
                output, h, c = _single_step(lstm, inputs[start], h, c)
            else:
                output, (h, c) = lstm(inputs[start:end], (h, c))
            outputs.append(output)
        new_state[f"{name}_h"], new_state[f"{name}_c"] = h, c
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _single_step(
    lstm: nn.LSTM, inputs: Tensor, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step by the cell kernel: for acting, half the cost of the sequence kernel.

    Args:
        lstm: The layers to run.
        inputs: float32 [B, I].
        h: float32 [layers, B, hidden].
        c: float32 [layers, B, hidden].

    Returns:
        The output [1, B, hidden] and the new h and c.
    """
    hidden, cells = [], []
    for layer, weights in enumerate(lstm.all_weights):
        inputs, cell = torch.lstm_cell(inputs, (h[layer], c[layer]), *weights)
        hidden.append(inputs)
        cells.append(cell)
    return inputs.unsqueeze(0), torch.stack(hidden), torch.stack(cells)


def _segments(first: Tensor) -> Iterator[tuple[int, int, Tensor | None]]:
    """Cuts [0, T) where any sequence starts an episode.

    Yields (start, end, reset): `reset` is None when nothing resets at `start`, else bool [B, 1].
    """
    resets = first.any(dim=1).nonzero().flatten().tolist()
    cuts = sorted({0, *resets, first.shape[0]})
    for start, end in pairwise(cuts):
        yield start, end, first[start].unsqueeze(-1) if start in resets else None
