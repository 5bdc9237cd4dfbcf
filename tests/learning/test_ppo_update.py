import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.learning.experience import SMALL, random_rollout, small_network
from trading.errors import LearningError
from trading.learning.clstm import CLSTM
from trading.learning.ppo_update import PPOSettings, ppo_loss, update
from trading.learning.rollout import Rollout, vtrace

SETTINGS = PPOSettings(learning_rate=1e-2, minibatches=2)


def adam(network: CLSTM) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=SETTINGS.learning_rate, fused=True)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(network: CLSTM) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def plain_loss(network: CLSTM, rollout: Rollout, settings: PPOSettings) -> torch.Tensor:
    """PPO's loss written out one step and one column at a time."""
    advantages, returns = vtrace(rollout, settings.gamma, settings.gae_lambda)
    counted = advantages[rollout.valid]
    total, count = torch.zeros(()), 0
    for b in range(rollout.shape[1]):
        column = slice(b, b + 1)
        state = {k: torch.from_numpy(v[:, column]) for k, v in rollout.initial_state.items()}
        for t in range(rollout.shape[0]):
            if rollout.first[t, b]:
                state = network.initial_state(1)
            logits, value, state = network(
                torch.from_numpy(rollout.observations[t : t + 1, column]),
                torch.from_numpy(rollout.action_mask[t : t + 1, column]),
                state,
                torch.zeros(1, 1, dtype=torch.bool),
            )
            if not rollout.valid[t, b]:
                continue
            allowed = rollout.action_mask[t, b].nonzero()[0].tolist()
            probabilities = dict(zip(allowed, logits[0, 0, allowed].softmax(0), strict=True))
            ratio = probabilities[int(rollout.actions[t, b])] / np.exp(rollout.log_probs[t, b])
            advantage = float((advantages[t, b] - counted.mean()) / (counted.std() + 1e-8))
            clipped = min(
                max(ratio, torch.tensor(1 - settings.clip)), torch.tensor(1 + settings.clip)
            )
            gain = min(ratio * advantage, clipped * advantage)
            entropy = -sum(p * torch.log(p) for p in probabilities.values())
            error = 0.5 * (value[0, 0] - float(returns[t, b])) ** 2
            total = total - gain + settings.value_coefficient * error
            total = total - settings.entropy_coefficient * entropy
            count += 1
    return total / count


@pytest.mark.parametrize("ends", [0.0, 0.1, 0.3, 0.9])
def test_one_step_follows_the_gradient_of_the_loss_written_out_plainly(ends: float) -> None:
    settings = replace(SETTINGS, minibatches=1, epochs=1, max_grad_norm=1e9)
    network = small_network()
    rollout = random_rollout(1, steps=7, sequences=3, ends=ends).padded(8)
    reference = copy.deepcopy(network)
    loss = plain_loss(reference, rollout, settings)
    loss.backward()
    stats = update(network, torch.optim.SGD(network.parameters(), lr=1.0), rollout, settings,
                   generator())  # fmt: skip
    assert stats["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
    before = dict(reference.named_parameters())
    for name, parameter in network.named_parameters():
        moved = (before[name] - parameter).detach()
        torch.testing.assert_close(moved, before[name].grad, atol=2e-5, rtol=1e-3, msg=name)


def test_the_loss_counts_valid_steps_only() -> None:
    shape, count = (3, 2), SMALL.action_count
    arguments = [
        torch.randn(*shape, count, generator=generator()),
        torch.randn(shape, generator=generator(1)),
        torch.zeros(shape, dtype=torch.int64),
        torch.full(shape, -1.0),
        torch.randn(shape, generator=generator(2)),
        torch.randn(shape, generator=generator(3)),
    ]
    valid = torch.ones(shape)
    valid[2] = 0.0
    loss, _ = ppo_loss(*arguments, valid, SETTINGS)
    shorter, _ = ppo_loss(*(a[:2] for a in arguments), valid[:2], SETTINGS)
    torch.testing.assert_close(loss, shorter)


def test_equal_seeds_give_equal_weights_after_two_updates() -> None:
    results = []
    for _ in range(2):
        network, order = small_network(), generator(5)
        optimizer = adam(network)
        for seed in (1, 2):
            update(network, optimizer, random_rollout(seed), SETTINGS, order)
        results.append(weights(network))
    assert equal(*results)


def test_before_any_step_the_new_policy_is_the_old_one() -> None:
    network = small_network()
    rollout = random_rollout(1, network=network)
    settings = replace(SETTINGS, epochs=1, minibatches=1)
    stats = update(network, adam(network), rollout, settings, generator())
    assert stats["kl"] == pytest.approx(0.0, abs=1e-6)
    assert stats["clip_fraction"] == 0.0
    assert stats["samples"] == rollout.steps
    assert 0.0 < stats["entropy"] < np.log(SMALL.action_count)


def test_target_kl_ends_the_passes() -> None:
    network = small_network()
    settings = replace(SETTINGS, learning_rate=0.1, epochs=10, target_kl=1e-4)
    stats = update(network, adam(network), random_rollout(1, network=network), settings,
                   generator())  # fmt: skip
    assert stats["epochs"] < 10
    assert stats["kl"] > 1e-4


@pytest.mark.parametrize(("steps", "sequences"), [(1, 1), (1, 7), (43, 3), (5, 20)])
def test_any_shape_can_be_learned_from(steps: int, sequences: int) -> None:
    network = small_network()
    before = weights(network)
    stats = update(
        network,
        adam(network),
        random_rollout(0, steps=steps, sequences=sequences),
        replace(SETTINGS, minibatches=4),
        generator(),
    )
    assert stats["samples"] == steps * sequences
    assert np.isfinite(stats["loss"])
    assert not equal(before, weights(network))


@pytest.mark.parametrize("fault", ["nan", "features", "actions", "state", "empty"])
def test_a_rollout_that_cannot_be_learned_from_changes_nothing(fault: str) -> None:
    network = small_network()
    optimizer = adam(network)
    update(network, optimizer, random_rollout(1), SETTINGS, generator())
    before, moments = weights(network), copy.deepcopy(optimizer.state_dict())
    rollout = random_rollout(2)
    if fault == "nan":
        rollout.rewards[0, 0] = np.nan
    elif fault == "features":
        rollout = replace(rollout, observations=rollout.observations[..., :-1])
    elif fault == "actions":
        extra = np.ones((*rollout.shape, 1), np.bool_)
        rollout = replace(rollout, action_mask=np.concatenate([rollout.action_mask, extra], -1))
    elif fault == "state":
        rollout.initial_state.pop("critic_c")
    else:
        rollout.valid[:] = False
    with pytest.raises(LearningError):
        update(network, optimizer, rollout, SETTINGS, generator())
    assert equal(before, weights(network))
    for key, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(v, moments["state"][key][n]) for n, v in state.items())


def test_a_loss_that_overflows_midway_is_undone() -> None:
    network = small_network()
    optimizer = adam(network)
    update(network, optimizer, random_rollout(1), SETTINGS, generator())
    before, moments = weights(network), copy.deepcopy(optimizer.state_dict())
    rollout = random_rollout(2)
    rollout.log_probs[0, 0] = -1e30
    with pytest.raises(LearningError, match="unchanged"):
        update(network, optimizer, rollout, SETTINGS, generator())
    assert equal(before, weights(network))
    assert optimizer.state_dict()["state"][0]["step"] == moments["state"][0]["step"]
    assert torch.equal(
        optimizer.state_dict()["state"][0]["exp_avg"], moments["state"][0]["exp_avg"]
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("gamma", 1.1), ("learning_rate", 0.0), ("epochs", 0), ("clip", float("nan")),
     ("entropy_coefficient", -0.1), ("target_kl", 0.0)],
)  # fmt: skip
def test_a_setting_outside_its_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(LearningError, match=name):
        PPOSettings(**{name: value})
