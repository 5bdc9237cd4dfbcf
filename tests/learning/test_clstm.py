import doctest

import pytest
import torch
from torch import Tensor

from tests.learning.experience import SMALL, small_network
from trading.errors import LearningError
from trading.learning import clstm
from trading.learning.clstm import CLSTMConfig

STEPS, ROWS = 9, 4


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    observations = torch.randn(STEPS, ROWS, SMALL.observation_size, generator=generator)
    mask = torch.rand(STEPS, ROWS, SMALL.action_count, generator=generator) < 0.7
    mask[..., 0] = True
    return observations, mask


def never() -> Tensor:
    return torch.zeros(STEPS, ROWS, dtype=torch.bool)


def random_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        key: torch.randn(tensor.shape, generator=generator)
        for key, tensor in small_network().initial_state(ROWS).items()
    }


@pytest.mark.parametrize("with_gradient", [False, True])
def test_carrying_the_state_step_by_step_equals_the_whole_sequence(inputs, with_gradient) -> None:
    network, (observations, mask) = small_network(), inputs
    first = never()
    first[4, 1] = first[0, 2] = first[7, 0] = True
    whole = network(observations, mask, random_state(), first)
    state = random_state()
    with torch.set_grad_enabled(with_gradient):
        for t in range(STEPS):
            at = slice(t, t + 1)
            logits, values, state = network(observations[at], mask[at], state, first[at])
            torch.testing.assert_close(logits[0], whole[0][t], atol=1e-5, rtol=0)
            torch.testing.assert_close(values[0], whole[1][t], atol=1e-5, rtol=0)
    for key, tensor in state.items():
        torch.testing.assert_close(tensor, whole[2][key], atol=1e-5, rtol=0)


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


def test_nan_in_a_state_that_is_reset_does_not_survive(inputs) -> None:
    network, (observations, mask) = small_network(), inputs
    first = never()
    first[0] = True
    poisoned = {key: torch.full_like(t, float("nan")) for key, t in random_state().items()}
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


@pytest.mark.parametrize("field", ["observation_size", "actor_hidden", "feature_layers"])
def test_a_size_below_one_is_refused_by_name(field: str) -> None:
    with pytest.raises(LearningError, match=field):
        CLSTMConfig(**{**SMALL.to_dict(), field: 0})


def test_the_docstring_example_runs() -> None:
    assert doctest.testmod(clstm).failed == 0
