"""The CLSTM as an RLModule of RLlib's new API stack."""

from dataclasses import fields
from typing import Any, cast

import gymnasium as gym
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from trading.config import ModelSettings
from trading.config.gone import GONE, gone, in_effect
from trading.errors import LearningError
from trading.learning.clstm import CLSTM, CLSTMConfig
from trading.learning.rollout import ACTION_MASK, OBSERVATIONS

NETWORK = "clstm"
"""Attribute of the network in the module, so the prefix of its weights in RLlib's checkpoints."""


class CLSTMModule(TorchRLModule, ValueFunctionAPI):  # type: ignore[misc]
    """Wraps one `CLSTM`; RLlib builds, checkpoints and moves it to its device.

    The observation space is a `Dict` of `observations` Box [F] and `action_mask` [N], the action
    space `Discrete(N)`. `model_config` takes the fields of `CLSTMConfig.architecture`; other keys,
    such as RLlib's own defaults, are ignored. RLlib's batches are batch-major: [B, T, ...].

    Raises
    ------
    LearningError
        The spaces are of another kind.
    """

    clstm: CLSTM

    def setup(self) -> None:
        """Build the network from the spaces and the model config."""
        self.clstm = CLSTM(
            clstm_config(self.observation_space, self.action_space, dict(self.model_config or {}))
        )

    def get_initial_state(self) -> dict[str, Tensor]:
        """Return the unbatched start state: zeros [layers, hidden]."""
        return {k: tensor.squeeze(1) for k, tensor in self.clstm.initial_state(1).items()}

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        logits, values, state = self._evaluate(batch)
        return {
            Columns.ACTION_DIST_INPUTS: logits,
            Columns.STATE_OUT: state,
            Columns.VF_PREDS: values,
        }

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        outputs = self._forward(batch, **kwargs)
        outputs[Columns.EMBEDDINGS] = outputs[Columns.VF_PREDS]
        return outputs

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """Values [B, T]; `embeddings` are those of `forward_train`, which are the values."""
        return cast(Tensor, self._evaluate(batch)[1] if embeddings is None else embeddings)

    def _evaluate(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Batch-major RLlib tensors through the time-major network and back."""
        observations = batch[Columns.OBS][OBSERVATIONS].transpose(0, 1)
        mask = batch[Columns.OBS][ACTION_MASK].transpose(0, 1).bool()
        state = {k: v.transpose(0, 1).contiguous() for k, v in batch[Columns.STATE_IN].items()}
        first = torch.zeros(observations.shape[:2], dtype=torch.bool, device=observations.device)
        logits, values, state = self.clstm(observations, mask, state, first)
        state = {key: tensor.transpose(0, 1) for key, tensor in state.items()}
        return logits.transpose(0, 1), values.transpose(0, 1), state


def clstm_config(
    observation_space: gym.Space[Any], action_space: gym.Space[Any], model_config: dict[str, Any]
) -> CLSTMConfig:
    """Return the network's shape: sizes from the spaces, architecture from `model_config`.

    Raises
    ------
    LearningError
        The spaces are not Dict(observations [F], action_mask [N]) and Discrete(N), or the config
        has an option that is gone.
    """
    if not isinstance(action_space, gym.spaces.Discrete):
        raise LearningError(f"the action space is {action_space}; the CLSTM wants Discrete(N)")
    count = int(action_space.n)
    parts = dict(observation_space) if isinstance(observation_space, gym.spaces.Dict) else {}
    observations, mask = parts.get(OBSERVATIONS), parts.get(ACTION_MASK)
    if (
        observations is None
        or mask is None
        or len(observations.shape or ()) != 1
        or mask.shape != (count,)
    ):
        raise LearningError(
            f"the observation space is {observation_space}; the CLSTM wants "
            f"Dict({OBSERVATIONS}=Box[F], {ACTION_MASK}=[{count}])"
        )
    sizes = {
        "observation_size": int(cast(tuple[int, ...], observations.shape)[0]),
        "action_count": count,
    }
    for key in GONE:
        section, _, name = key.partition(".")
        if section == "model" and in_effect(key, model_config.get(name)):
            raise LearningError(f"the model config has {name}={model_config[name]!r}; {gone(key)}")
    names = {field.name for field in fields(CLSTMConfig)}
    given = {name: value for name, value in model_config.items() if name in names}
    return CLSTMConfig(**(ModelSettings().model_dump() | given | sizes))
