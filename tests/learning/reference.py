"""What the learner computes, written out one step and one column at a time."""

from dataclasses import replace

import numpy as np
import torch

from trading.learning.clstm import CLSTM
from trading.learning.ppo_update import PPOSettings
from trading.learning.rollout import Rollout


def plain_vtrace(rollout: Rollout, gamma: float, lam: float, ratios: np.ndarray) -> np.ndarray:
    """The sum of arXiv:1802.01561, eq. 1, for every step anew; v, float64 [T, B].

    v_s = V(x_s) + sum over t >= s of gamma^(t - s) * (c_s ... c_(t-1)) * delta_t, with
    delta_t = rho_t * (r_t + gamma * V(x_(t+1)) - V(x_t)), rho_t = min(1, ratio_t) and
    c_i = lam * min(1, ratio_i). The sum ends with the episode.
    """
    steps, columns = rollout.shape
    targets = np.zeros((steps, columns))
    for b in range(columns):
        times = [t for t in range(steps) if rollout.valid[t, b]]
        for i, s in enumerate(times):
            total, product = float(rollout.values[s, b]), 1.0
            for j in range(i, len(times)):
                t = times[j]
                if rollout.terminated[t, b]:
                    following = 0.0
                elif rollout.truncated[t, b]:
                    following = float(rollout.final_values[t, b])
                elif j + 1 < len(times):
                    following = float(rollout.values[times[j + 1], b])
                else:
                    following = float(rollout.last_values[b])
                error = float(rollout.rewards[t, b]) + gamma * following - rollout.values[t, b]
                delta = min(1.0, float(ratios[t, b])) * error
                total += gamma ** (j - i) * product * delta
                product *= lam * min(1.0, float(ratios[t, b]))
                if rollout.terminated[t, b] or rollout.truncated[t, b]:
                    break
            targets[s, b] = total
    return targets


def plain_evaluation(
    network: CLSTM, rollout: Rollout
) -> tuple[list[list[torch.Tensor]], list[list[torch.Tensor]]]:
    """Distributions [T][B][N] and values [T][B], one step of one column after another."""
    steps, columns = rollout.shape
    distributions = [[torch.zeros(())] * columns for _ in range(steps)]
    values = [[torch.zeros(())] * columns for _ in range(steps)]
    for b in range(columns):
        column = slice(b, b + 1)
        state = {k: torch.from_numpy(v[:, column]) for k, v in rollout.initial_state.items()}
        for t in range(steps):
            if rollout.first[t, b]:
                state = network.initial_state(1)
            logits, value, state = network(
                torch.from_numpy(rollout.observations[t : t + 1, column]),
                torch.from_numpy(rollout.action_mask[t : t + 1, column]),
                state,
                torch.zeros(1, 1, dtype=torch.bool),
            )
            allowed = rollout.action_mask[t, b].nonzero()[0].tolist()
            distribution = torch.zeros(rollout.action_mask.shape[2])
            distributions[t][b] = distribution.index_put(
                (torch.tensor(allowed),), logits[0, 0, allowed].softmax(0)
            )
            values[t][b] = value[0, 0]
    return distributions, values


def plain_loss(
    network: CLSTM, rollout: Rollout, settings: PPOSettings, stale: bool = False
) -> torch.Tensor:
    """PPO's loss; of a stale rollout by V-trace, and relative to the policy before the update."""
    steps, columns = rollout.shape
    ratios = np.ones(rollout.shape)
    if stale:
        with torch.no_grad():
            distributions, values = plain_evaluation(network, rollout)
        chosen = [
            [float(distributions[t][b][rollout.actions[t, b]]) for b in range(columns)]
            for t in range(steps)
        ]
        ratios = np.array(chosen) / np.exp(rollout.log_probs)
        rollout = replace(
            rollout,
            values=np.array([[float(v) for v in row] for row in values], np.float32),
            log_probs=np.log(np.array(chosen)).astype(np.float32),
        )
    returns = plain_vtrace(rollout, settings.gamma, settings.gae_lambda, ratios)
    advantages = returns - rollout.values
    distributions, values = plain_evaluation(network, rollout)
    counted = rollout.valid
    mean, deviation = advantages[counted].mean(), advantages[counted].std()
    total = torch.zeros(())
    for t, b in zip(*counted.nonzero(), strict=True):
        probabilities = distributions[t][b]
        ratio = probabilities[int(rollout.actions[t, b])] / np.exp(rollout.log_probs[t, b])
        advantage = float((advantages[t, b] - mean) / (deviation + 1e-8))
        clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
        gain = min(ratio * advantage, clipped * advantage)
        positive = probabilities[probabilities > 0]
        entropy = -(positive * torch.log(positive)).sum()
        error = 0.5 * (values[t][b] - float(returns[t, b])) ** 2
        total = total - gain + settings.value_coefficient * error
        total = total - settings.entropy_coefficient * entropy
    return total / int(counted.sum())
