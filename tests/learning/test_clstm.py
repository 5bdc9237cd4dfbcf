import doctest
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.learning import experience
from tests.learning.experience import OPTIONS, SMALL, small_network
from tests.usual import clstm_config
from trading.config import Settings
from trading.errors import LearningError
from trading.learning import clstm
from trading.learning.clstm import CLSTMConfig

STEPS, ROWS = 9, 4

every_option = pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS)


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    observations = torch.randn(STEPS, ROWS, SMALL.observation_size, generator=generator)
    mask = torch.rand(STEPS, ROWS, SMALL.action_count, generator=generator) < 0.7
    mask[..., 0] = True
    return observations, mask


def never() -> Tensor:
    return torch.zeros(STEPS, ROWS, dtype=torch.bool)


def random_state(config: CLSTMConfig = SMALL) -> dict[str, Tensor]:
    state = experience.random_state(np.random.default_rng(2), config, ROWS)
    return {key: torch.from_numpy(array) for key, array in state.items()}


def some_first() -> Tensor:
    first = never()
    first[4, 1] = first[0, 2] = first[7, 0] = first[8, 0] = True
    return first


COMBINATIONS = [
    replace(
        SMALL,
        layer_norm=layer_norm,
        feature_hidden=hidden,
    )
    for layer_norm, hidden in product((False, True), (5, 8))
]


@pytest.mark.parametrize("with_gradient", [False, True])
@pytest.mark.parametrize("config", COMBINATIONS, ids=lambda config: str(config.architecture()))
def test_carrying_the_state_step_by_step_equals_the_whole_sequence(
    inputs, config: CLSTMConfig, with_gradient: bool
) -> None:
    network, (observations, mask) = small_network(config=config), inputs
    first = some_first()
    whole = network(observations, mask, random_state(config), first)
    state = random_state(config)
    with torch.set_grad_enabled(with_gradient):
        for t in range(STEPS):
            at = slice(t, t + 1)
            logits, values, state = network(observations[at], mask[at], state, first[at])
            torch.testing.assert_close(logits[0], whole[0][t], atol=1e-5, rtol=0)
            torch.testing.assert_close(values[0], whole[1][t], atol=1e-5, rtol=0)
    assert {key: (len(t), t.shape[2]) for key, t in state.items()} == config.state_shapes
    for key, tensor in state.items():
        torch.testing.assert_close(tensor, whole[2][key], atol=1e-5, rtol=0)


def test_without_options_the_weights_are_those_of_older_checkpoints() -> None:
    lstms = ("feature", "actor", "critic")
    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    modules = ("input_norm", "policy_head", "value_head")
    names = {f"{lstm}.{part}_l0" for lstm in lstms for part in parts}
    names |= {f"{module}.{part}" for module in modules for part in ("weight", "bias")}
    assert set(small_network().state_dict()) == names
    assert Settings().model.model_dump() == clstm_config(1, 1).architecture()
    assert clstm_config(1, 1) == clstm_config(1, 1, layer_norm=False)


def test_layer_norm_changes_what_the_network_computes(inputs) -> None:
    plain, network = small_network(), small_network(config=OPTIONS["layer norm"])
    extra = set(network.state_dict()) - set(plain.state_dict())
    assert extra == {"feature_norm.weight", "feature_norm.bias"}
    network.load_state_dict(plain.state_dict(), strict=False)
    one, two = (n(*inputs, random_state(), never())[1] for n in (plain, network))
    assert (one - two).abs().max() > 1e-3


def test_first_inside_a_sequence_equals_two_separate_sequences(inputs) -> None:
    network, (observations, mask) = small_network(), inputs
    first, cut = never(), 5
    first[cut] = True
    logits, values, state = network(observations, mask, random_state(), first)
    before = network(observations[:cut], mask[:cut], random_state(), never()[:cut])
    after = network(observations[cut:], mask[cut:], network.initial_state(ROWS), never()[cut:])
    torch.testing.assert_close(logits, torch.cat([before[0], after[0]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(values, torch.cat([before[1], after[1]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(state["actor_c"], after[2]["actor_c"], atol=1e-5, rtol=0)


def test_first_resets_only_its_own_sequence(inputs) -> None:
    network, (observations, mask) = small_network(), inputs
    first = never()
    first[3, 1] = True
    reset, plain = (network(observations, mask, random_state(), f)[1] for f in (first, never()))
    others = [0, 2, 3]
    torch.testing.assert_close(reset[:, others], plain[:, others], atol=1e-6, rtol=0)
    torch.testing.assert_close(reset[:3, 1], plain[:3, 1], atol=1e-6, rtol=0)
    assert (reset[3:, 1] - plain[3:, 1]).abs().min() > 1e-4


@every_option
def test_nan_in_a_state_that_is_reset_does_not_survive(inputs, config: CLSTMConfig) -> None:
    network, (observations, mask) = small_network(config=config), inputs
    first = never()
    first[0] = True
    poisoned = {key: torch.full_like(t, float("nan")) for key, t in random_state(config).items()}
    _, values, state = network(observations, mask, poisoned, first)
    assert values.isfinite().all()
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_forbidden_actions_have_no_probability_and_no_gradient(inputs) -> None:
    network, (observations, mask) = small_network(), inputs
    logits, _, _ = network(observations, mask, random_state(), never())
    probabilities = logits.softmax(-1)
    assert (probabilities[~mask] == 0).all()
    probabilities.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_the_first_policy_is_nearly_uniform_over_allowed_actions(inputs) -> None:
    network, (observations, mask) = small_network(), inputs
    probabilities = network(observations, mask, random_state(), never())[0].softmax(-1)
    uniform = mask / mask.sum(-1, keepdim=True)
    torch.testing.assert_close(probabilities, uniform, atol=0.02, rtol=0)


@pytest.mark.parametrize("field", ["observation_size", "actor_hidden"])
def test_a_size_below_one_is_refused_by_name(field: str) -> None:
    with pytest.raises(LearningError, match=field):
        clstm_config(**{**SMALL.to_dict(), field: 0})


def test_a_switch_that_is_no_bool_is_refused_by_name() -> None:
    with pytest.raises(LearningError, match="layer_norm"):
        clstm_config(**{**SMALL.to_dict(), "layer_norm": 1})


def test_the_docstring_example_runs() -> None:
    assert doctest.testmod(clstm).failed == 0
