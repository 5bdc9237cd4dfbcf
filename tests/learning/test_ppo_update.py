import copy
import pickle
import subprocess
import sys
from dataclasses import replace
from shutil import which

import numpy as np
import pytest
import torch

from tests.learning.experience import OPTIONS, SMALL, random_rollout, small_network
from tests.learning.reference import plain_loss
from tests.usual import ppo_settings
from trading.errors import LearningError
from trading.learning.clstm import CLSTM, CLSTMConfig
from trading.learning.policy import Policy
from trading.learning.ppo_update import PPOSettings, float32_precision, ppo_loss, update
from trading.learning.rollout import OTHER_BEHAVIOUR, Rollout

SETTINGS = ppo_settings(learning_rate=1e-2, minibatches=2)


def adam(network: CLSTM) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=SETTINGS.learning_rate, fused=True)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(network: CLSTM) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def check_gradient(
    rollout: Rollout, settings: PPOSettings, config: CLSTMConfig = SMALL, version: int | None = None
) -> None:
    """One step of plain descent follows the gradient of the loss written out plainly."""
    settings = replace(settings, minibatches=1, epochs=1, max_grad_norm=1e9)
    network = small_network(config=config)
    reference = copy.deepcopy(network)
    loss = plain_loss(reference, rollout, settings, stale=version is not None)
    loss.backward()
    stats = update(network, torch.optim.SGD(network.parameters(), lr=1.0), rollout, settings,
                   generator(), version=version)  # fmt: skip
    assert stats["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
    before = dict(reference.named_parameters())
    for name, parameter in network.named_parameters():
        moved = (before[name] - parameter).detach()
        torch.testing.assert_close(moved, before[name].grad, atol=2e-5, rtol=1e-3, msg=name)


def test_what_acted_otherwise_is_corrected_whatever_the_version() -> None:
    """Greedy actions are certain: each weighs as much as the policy would have chosen it."""
    network = small_network()
    acted = random_rollout(1, network=network)
    greedy = replace(
        acted, log_probs=np.zeros_like(acted.log_probs), weights_version=OTHER_BEHAVIOUR
    )
    stats = update(copy.deepcopy(network), adam(network), acted, SETTINGS, generator(), version=1)
    assert stats["behaviour_kl"] == 0.0
    check_gradient(greedy, SETTINGS, version=7)
    stats = update(network, adam(network), greedy, SETTINGS, generator(), version=7)
    assert stats["behaviour_kl"] > 0.0


@pytest.mark.parametrize("ends", [0.0, 0.1, 0.3, 0.9])
def test_one_step_follows_the_gradient_of_the_loss_written_out_plainly(ends: float) -> None:
    check_gradient(random_rollout(1, steps=7, sequences=3, ends=ends).padded(8), SETTINGS)


@pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS)
def test_the_gradient_is_right_for_every_network(config: CLSTMConfig) -> None:
    rollout = random_rollout(1, steps=7, sequences=3, ends=0.2, config=config)
    check_gradient(rollout, SETTINGS, config)


@pytest.mark.parametrize("ends", [0.0, 0.2, 0.9])
def test_the_gradient_is_right_for_experience_of_older_weights(ends: float) -> None:
    rollout = random_rollout(1, steps=7, sequences=3, ends=ends).padded(8)
    check_gradient(rollout, SETTINGS, version=rollout.weights_version + 1)


def test_the_gradient_is_right_for_old_and_fresh_experience_together() -> None:
    old = random_rollout(1, steps=7, sequences=3, network=small_network(9))
    fresh = random_rollout(2, steps=7, sequences=3, network=small_network())
    joined = Rollout.concatenate([old, fresh])
    assert joined.weights_version == 1
    check_gradient(joined, SETTINGS, version=2)


class Calls:
    """Counts how often a network is evaluated, and how often with gradient."""

    def __init__(self, network: CLSTM) -> None:
        self.with_gradient: list[bool] = []
        network.register_forward_hook(lambda *_: self.with_gradient.append(torch.is_grad_enabled()))


def test_only_experience_of_other_weights_is_evaluated_once_more() -> None:
    config = OPTIONS["layer norm"]  # PyTorch evaluates it, so its calls can be counted
    for version, extra in ((3, []), (None, []), (4, [False]), (2, [False])):
        network = small_network(config=config)
        rollout = random_rollout(3, config=config, network=network)
        calls = Calls(network)
        stats = update(network, adam(network), rollout, SETTINGS, generator(), version=version)
        assert calls.with_gradient == extra + [True] * SETTINGS.epochs * SETTINGS.minibatches
        assert stats["behaviour_kl"] == pytest.approx(0.0, abs=1e-6)


def test_experience_that_only_claims_to_be_old_teaches_the_same() -> None:
    results = []
    for version in (0, 5):
        network = small_network()
        rollout = random_rollout(0, network=network)
        update(network, adam(network), rollout, SETTINGS, generator(), version=version)
        results.append(weights(network))
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], atol=2e-4, rtol=0)


def test_old_experience_is_corrected() -> None:
    acted = small_network(1)
    with torch.no_grad():
        acted.policy_head.bias.copy_(torch.tensor([3.0, -3.0, 3.0, -3.0]))
    rollout = random_rollout(0, steps=30, network=acted)
    settings = replace(SETTINGS, epochs=1, minibatches=1)
    found = {}
    for version in (0, 1):
        network = small_network()
        found[version] = update(network, adam(network), rollout, settings, generator(),
                                version=version)  # fmt: skip
    assert found[0]["kl"] == pytest.approx(found[1]["behaviour_kl"], rel=1e-3)
    assert found[0]["clip_fraction"] > 0.5
    assert found[1]["behaviour_kl"] > 0.05
    assert found[1]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert found[1]["clip_fraction"] == 0.0
    assert found[1]["samples"] == rollout.steps


def updated(**settings: object) -> dict[str, torch.Tensor]:
    network = small_network()
    rollout = random_rollout(0, network=small_network(1))
    one = replace(SETTINGS, epochs=1, **settings)
    stats = update(network, torch.optim.SGD(network.parameters(), lr=1.0), rollout, one,
                   generator(), version=1)  # fmt: skip
    assert np.isfinite(list(stats.values())).all()
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}
    return weights(network)


def test_in_bf16_an_update_is_near_that_in_fp32() -> None:
    start = weights(small_network())
    fp32, bf16 = (updated(precision=p) for p in ("fp32", "bf16"))
    assert not equal(fp32, bf16)
    step, error = (
        torch.cat([(a[name] - b[name]).flatten() for name in start]).norm()
        for a, b in ((fp32, start), (bf16, fp32))
    )
    assert error < 0.05 * step


def test_tf32_on_a_cpu_is_fp32() -> None:
    assert equal(updated(precision="tf32"), updated(precision="fp32"))


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("tf32", True), ("bf16", False)])
def test_the_precision_holds_on_a_gpu_for_the_update_only(precision: str, tf32: bool) -> None:
    def flags() -> list[object]:
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        by_name = [matmul.allow_tf32, cudnn.allow_tf32, torch.get_float32_matmul_precision()]
        return [*by_name, matmul.fp32_precision == "tf32", cudnn.rnn.fp32_precision == "tf32"]

    before = flags()
    with float32_precision(torch.device("cuda"), precision):
        assert flags() == [tf32, tf32, "high" if tf32 else "highest", tf32, tf32]
    assert flags() == before


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_an_update_is_that_of_the_plain_network() -> None:
    results = []
    for compiled in (False, True):
        network = small_network()
        settings = replace(SETTINGS, epochs=2, minibatches=1, compile=compiled)
        update(network, adam(network), random_rollout(1), settings, generator())
        results.append(weights(network))
    assert results[0].keys() == results[1].keys()
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], atol=1e-4, rtol=0, msg=name)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    again = pickle.loads(pickle.dumps(network))
    assert equal(weights(again), weights(network))


def test_the_learning_core_runs_without_ray() -> None:
    names = ("clstm", "ppo_update", "rollout", "sequences", "policy")
    modules = ", ".join(f"trading.learning.{name}" for name in names)
    code = f"import sys, {modules}; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


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


def test_a_policy_acts_by_the_weights_that_were_learned_in_its_own_network() -> None:
    policy, rollout = Policy(SMALL, 0), random_rollout()
    seen = (
        rollout.observations[0],
        rollout.action_mask[0],
        rollout.initial_state,
        rollout.first[0],
    )
    policy.act(*seen)
    update(policy.model, adam(policy.model), rollout, SETTINGS, generator())
    decision, _ = policy.act(*seen, greedy=True)
    fresh, _ = Policy(SMALL, 0, policy.model).act(*seen, greedy=True)
    np.testing.assert_array_equal(decision.values, fresh.values)


def test_before_any_step_the_new_policy_is_the_old_one() -> None:
    network = small_network()
    rollout = random_rollout(1, network=network)
    settings = replace(SETTINGS, epochs=1, minibatches=1)
    stats = update(network, adam(network), rollout, settings, generator())
    assert stats["kl"] == pytest.approx(0.0, abs=1e-6)
    assert stats["clip_fraction"] == 0.0
    assert stats["samples"] == rollout.steps
    assert 0.0 < stats["entropy"] < np.log(SMALL.action_count)


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
     ("entropy_coefficient", -0.1), 
     ("precision", "fp16")],
)  # fmt: skip
def test_a_setting_outside_its_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(LearningError, match=name):
        ppo_settings(**{name: value})
