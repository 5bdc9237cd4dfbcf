"""The compiled loops compute what PyTorch computes, and say what they do not cover."""

import ast
import inspect
import re
from dataclasses import replace
from pkgutil import resolve_name
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.learning.experience import OPTIONS, SMALL, random_rollout, random_state, small_network
from tests.usual import ppo_settings
from trading.learning import compiled
from trading.learning.clstm import CLSTM, CLSTMConfig
from trading.learning.kernels import lstm, matrix_products
from trading.learning.kernels import network as kernels
from trading.learning.kernels.lstm import exp, tanh
from trading.learning.policy import Policy, seeded_clstm
from trading.learning.ppo_update import _by_autograd, _by_compiled
from trading.learning.rollout import Rollout, whole_columns
from trading.learning.sequences import arrange

SIZES = {
    "small": SMALL,
    "units of one": replace(
        SMALL, observation_size=1, action_count=2, feature_hidden=1, actor_hidden=1, critic_hidden=1
    ),
    "no multiple of a vector": replace(
        SMALL, observation_size=19, feature_hidden=33, actor_hidden=17, critic_hidden=50
    ),
    "wide": replace(SMALL, feature_hidden=128, actor_hidden=200, critic_hidden=128),
}

every_size = pytest.mark.parametrize("config", SIZES.values(), ids=SIZES)


def trained(config: CLSTMConfig, seed: int = 0) -> CLSTM:
    """A network whose every weight matters: none is zero or one, as some are at first."""
    network = seeded_clstm(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return network


def both(network: CLSTM, rollout: Rollout) -> list[tuple]:
    """What PyTorch and the loops make of the same steps: logits, values, state."""
    state = {key: torch.from_numpy(array) for key, array in rollout.initial_state.items()}
    steps = (rollout.observations, rollout.action_mask)
    arguments = (*map(torch.from_numpy, steps), state, torch.from_numpy(rollout.first))
    assert compiled.supports(network)
    with torch.no_grad():
        return [network(*arguments), compiled.forward_without_gradients(network, *arguments)]


@pytest.mark.parametrize(
    "module", [lstm, kernels, matrix_products], ids=["lstm", "network", "products"]
)
def test_every_part_names_the_function_that_it_is_the_twin_of(module: ModuleType) -> None:
    functions = [
        node
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.FunctionDef) and node.decorator_list
    ]
    assert len(functions) > 5
    for function in functions:
        twin = re.search(r"[Tt]win of [^`]*`([\w.]+)`", ast.get_docstring(function) or "")
        assert twin, function.name
        assert resolve_name(twin[1])


@every_size
@pytest.mark.parametrize(("steps", "sequences"), [(1, 1), (1, 70), (33, 5)])
def test_evaluation_is_that_of_pytorch(config: CLSTMConfig, steps: int, sequences: int) -> None:
    rollout = random_rollout(2, steps, sequences, config=config)
    rollout.first[0, ::2] = True
    (logits, values, state), (our_logits, our_values, our_state) = both(trained(config), rollout)
    torch.testing.assert_close(our_logits, logits, atol=5e-6, rtol=1e-5)
    torch.testing.assert_close(our_values, values, atol=5e-6, rtol=1e-5)
    for key, tensor in state.items():
        torch.testing.assert_close(our_state[key], tensor, atol=5e-6, rtol=1e-5, msg=key)


@every_size
def test_gradients_are_those_of_autograd(config: CLSTMConfig) -> None:
    network = trained(config)
    rollout = random_rollout(3, 11, 9, config=config, network=network).padded(13)
    rollout.log_probs[:] += np.random.default_rng(1).normal(scale=0.3, size=rollout.shape)
    settings = ppo_settings(entropy_coefficient=0.05)
    advantages, returns = np.random.default_rng(0).normal(size=(2, 13, 9)).astype(np.float32)
    cut = whole_columns(rollout.shape)
    experience = arrange(rollout, cut, advantages, returns, torch.device("cpu"))
    columns = torch.tensor([4, 1, 0, 3])
    expected = _by_autograd(network, experience, settings)(columns)
    found = _by_compiled(network, experience, settings)(columns)
    scale = float(expected[6:-1].abs().max())
    torch.testing.assert_close(found, expected, atol=1e-5 * scale, rtol=1e-4)
    assert found[5] > 0.0, "no step was clipped"


def test_the_state_that_comes_in_is_kept() -> None:
    network = trained(SMALL)
    state = random_state(np.random.default_rng(0), SMALL, 3)
    before = {key: array.copy() for key, array in state.items()}
    rollout = random_rollout(1, 4, 3)
    loops = compiled.CompiledNetwork(network)
    loops.forward(rollout.observations, rollout.action_mask, state, rollout.first)
    for key, array in state.items():
        np.testing.assert_array_equal(array, before[key])


def test_weights_that_change_in_place_are_seen() -> None:
    agent, other = Policy(SMALL, seed=0), Policy(SMALL, seed=1)
    agent.load_weights(other.weights())
    rollout = random_rollout(1, 1, 3)
    step = (rollout.observations[0], rollout.action_mask[0])
    first = np.ones(3, np.bool_)
    ours, _ = agent.act(*step, agent.initial_state(3), first, greedy=True)
    theirs, _ = other.act(*step, other.initial_state(3), first, greedy=True)
    np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)


@pytest.mark.parametrize("where", ["observations", "feature.weight_hh_l0", "value_head.bias"])
def test_a_nan_is_not_swallowed(where: str) -> None:
    network, rollout = trained(SMALL), random_rollout(1, 3, 2)
    if where == "observations":
        rollout.observations[1, 0, 0] = np.nan
    else:
        with torch.no_grad():
            network.get_parameter(where).view(-1)[0] = np.nan
    (logits, values, _), (our_logits, our_values, _) = both(network, rollout)
    assert torch.equal(our_values.isnan(), values.isnan())
    assert torch.equal(our_logits.isnan(), logits.isnan())
    assert values.isnan().any()


def test_arrays_of_other_kinds_do_not_compile_it_anew() -> None:
    loops, rollout = compiled.CompiledNetwork(trained(SMALL)), random_rollout(1, 4, 6)
    state = {key: array[:, ::2] for key, array in rollout.initial_state.items()}
    plain = loops.forward(
        rollout.observations[:, ::2].copy(),
        rollout.action_mask[:, ::2].copy(),
        state,
        rollout.first[:, ::2].copy(),
    )
    count = len(kernels.evaluate.signatures)
    rollout.observations.flags.writeable = False
    strided = loops.forward(
        rollout.observations[:, ::2], rollout.action_mask[:, ::2], state, rollout.first[:, ::2]
    )
    assert len(kernels.evaluate.signatures) == count
    np.testing.assert_array_equal(strided[0], plain[0])


def test_tanh_is_right_everywhere() -> None:
    x = np.linspace(-12.0, 12.0, 100_001, dtype=np.float32)
    found = np.array([tanh(value) for value in x])
    np.testing.assert_allclose(found, np.tanh(x.astype(np.float64)), rtol=4e-7, atol=1e-12)
    assert np.isnan(tanh(np.float32(np.nan)))
    assert (tanh(np.float32(np.inf)), tanh(np.float32(-np.inf))) == pytest.approx((1.0, -1.0))


def test_the_exponential_is_right_from_one_end_to_the_other() -> None:
    x = np.linspace(-87.0, 88.0, 100_001, dtype=np.float32)
    found = np.array([exp(value) for value in x])
    np.testing.assert_allclose(found, np.exp(x.astype(np.float64)), rtol=3e-7)
    assert np.isnan(exp(np.float32(np.nan)))
    assert exp(np.finfo(np.float32).min) < 2e-38


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "plain"])
def test_options_are_left_to_pytorch(name: str) -> None:
    assert not compiled.supports(small_network(config=OPTIONS[name]))


def test_a_network_derived_from_it_is_left_to_pytorch() -> None:
    assert compiled.supports(small_network())
    assert not compiled.supports(type("Other", (CLSTM,), {})(SMALL))


@pytest.mark.parametrize(("rows", "terms"), [(1, 1), (3, 5), (16, 122), (13, 257)])
@pytest.mark.parametrize("columns", [1, 16, 38, 64, 100])
def test_products_are_right_for_every_shape(rows: int, terms: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    left = rng.normal(size=(rows, terms)).astype(np.float32)
    right = rng.normal(size=(terms, columns)).astype(np.float32)
    wanted = left.astype(np.float64) @ right
    across = np.ascontiguousarray(right.T)
    parts = [right[:, : columns // 2].copy(), right[:, columns // 2 :].copy()]
    for packed in (
        matrix_products.pack(right),
        matrix_products.pack_beside(*parts),
        matrix_products.pack_across(across[:, : terms // 2].copy(), across[:, terms // 2 :].copy()),
    ):
        found = np.full((rows + 1, columns), 7.0, np.float32)
        matrix_products.multiply(left, packed, found[:rows])
        np.testing.assert_allclose(found[:rows], wanted, atol=1e-4)
        assert (found[rows] == 7.0).all(), "wrote behind the last row"
    found = matrix_products.multiply_across(np.ascontiguousarray(left.T), right)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("where", ["left", "right"])
def test_a_product_with_a_nan_is_one(where: str) -> None:
    sides = {"left": np.ones((2, 3), np.float32), "right": np.ones((3, 2), np.float32)}
    sides[where][0, 1] = np.nan
    found = np.zeros((2, 2), np.float32)
    matrix_products.multiply(sides["left"], matrix_products.pack(sides["right"]), found)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(sides["left"] @ sides["right"]))


def test_a_weight_without_memory_of_its_own_is_refused() -> None:
    network = small_network()
    network.policy_head.weight = torch.nn.Parameter(network.policy_head.weight.t().contiguous().t())
    with pytest.raises(ValueError, match="not contiguous"):
        compiled.CompiledNetwork(network)
