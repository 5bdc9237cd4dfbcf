"""Rollouts and networks for the learning tests."""

from dataclasses import replace

import numpy as np
import torch

from tests.usual import clstm_config
from trading.learning.clstm import CLSTM, CLSTMConfig
from trading.learning.policy import seeded_clstm
from trading.learning.rollout import RecurrentState, Rollout

SMALL = clstm_config(observation_size=5, action_count=4, feature_hidden=8, actor_hidden=6,
                    critic_hidden=7)  # fmt: skip


OPTIONS = {
    "plain": SMALL,
    "layer norm": replace(SMALL, layer_norm=True),
}
"""Every option of the network, alone and together."""


def small_network(seed: int = 0, config: CLSTMConfig = SMALL) -> CLSTM:
    return seeded_clstm(config, seed)


def random_state(rng: np.random.Generator, config: CLSTMConfig, sequences: int) -> RecurrentState:
    """What a network may carry, from the middle of an episode."""
    return {
        key: rng.normal(scale=0.3, size=(layers, sequences, hidden)).astype(np.float32)
        for key, (layers, hidden) in config.state_shapes.items()
    }


def random_rollout(
    seed: int = 0,
    steps: int = 12,
    sequences: int = 6,
    config: CLSTMConfig = SMALL,
    ends: float = 0.15,
    network: CLSTM | None = None,
) -> Rollout:
    """Consistent random experience; log probabilities and values are those of `network`."""
    rng = np.random.default_rng(seed)
    shape = (steps, sequences)
    mask = rng.random((*shape, config.action_count)) < 0.6
    mask[..., 0] = True
    actions = np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=-1)
    done = rng.random(shape) < ends
    truncated = done & (rng.random(shape) < 0.5)
    first = np.zeros(shape, np.bool_)
    first[1:] = done[:-1]
    noise = rng.normal(size=(3, *shape)).astype(np.float32)
    state = random_state(rng, config, sequences)
    rollout = Rollout(
        observations=rng.normal(size=(*shape, config.observation_size)).astype(np.float32),
        action_mask=mask,
        actions=actions,
        log_probs=np.full(shape, -1.0, np.float32),
        values=noise[0],
        rewards=noise[1],
        first=first,
        terminated=done & ~truncated,
        truncated=truncated,
        final_values=np.where(truncated, noise[2], np.float32(0)),
        last_values=rng.normal(size=sequences).astype(np.float32),
        valid=np.ones(shape, np.bool_),
        initial_state=state,
        weights_version=seed,
    )
    return rollout if network is None else acted_by(network, rollout)


@torch.no_grad()
def acted_by(network: CLSTM, rollout: Rollout) -> Rollout:
    logits, values, _ = network(
        torch.from_numpy(rollout.observations),
        torch.from_numpy(rollout.action_mask),
        {key: torch.from_numpy(array) for key, array in rollout.initial_state.items()},
        torch.from_numpy(rollout.first),
    )
    chosen = torch.from_numpy(rollout.actions).unsqueeze(-1)
    log_probs = torch.log_softmax(logits, -1).gather(-1, chosen).squeeze(-1)
    return replace(rollout, log_probs=log_probs.numpy(), values=values.numpy())
