import doctest
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.learning.experience import OPTIONS, SMALL
from trading.errors import LearningError
from trading.learning import policy
from trading.learning.clstm import CLSTMConfig
from trading.learning.kernels.network import decide
from trading.learning.policy import Policy

ROWS = 5

every_option = pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS)


def situation(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = rng.random((ROWS, SMALL.action_count)) < 0.5
    mask[np.arange(ROWS), rng.integers(0, SMALL.action_count, ROWS)] = True
    return rng.normal(size=(ROWS, SMALL.observation_size)).astype(np.float32), mask


def play(agent: Policy, steps: int = 20) -> list[np.ndarray]:
    state, first, trace = agent.initial_state(ROWS), np.ones(ROWS, np.bool_), []
    for t in range(steps):
        decision, state = agent.act(*situation(t), state, first)
        trace += [*decision, *state.values()]
        first = np.zeros(ROWS, np.bool_)
    return trace


@every_option
def test_equal_seeds_act_equally_to_the_last_bit(config: CLSTMConfig) -> None:
    torch.manual_seed(1)
    one = play(Policy(config, seed=3))
    torch.manual_seed(2)
    two = play(Policy(config, seed=3))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    other = play(Policy(config, seed=4))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_acting_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    play(Policy(SMALL, seed=3), steps=2)
    assert torch.equal(before, torch.random.get_rng_state())


def test_actions_are_drawn_by_probability_and_never_with_probability_zero() -> None:
    never = np.finfo(np.float32).min
    logits = np.array([never, np.log(0.25), never, np.log(0.75), never], np.float32)
    draws = np.random.default_rng(0).random(4000)
    draws[:2] = 0.0, np.nextafter(1.0, 0.0)
    actions, log_probs, probabilities = decide(np.tile(logits, (4000, 1)), draws, False)
    assert set(actions.tolist()) == {1, 3}
    assert abs((actions == 3).mean() - 0.75) < 0.03
    np.testing.assert_allclose(probabilities[0], [0.0, 0.25, 0.0, 0.75, 0.0], rtol=1e-6)
    np.testing.assert_allclose(np.exp(log_probs), probabilities[0, actions], rtol=1e-6)


def test_of_equally_likely_actions_the_first_is_greedy() -> None:
    logits = np.array([[0.0, 2.0, 2.0], [1.0, 1.0, -1.0]], np.float32)
    assert decide(logits, np.zeros(0), True)[0].tolist() == [1, 0]


def test_a_single_allowed_action_is_certain() -> None:
    agent = Policy(SMALL, seed=0)
    for action in range(SMALL.action_count):
        mask = np.zeros((ROWS, SMALL.action_count), np.bool_)
        mask[:, action] = True
        decision, _ = agent.act(
            situation()[0], mask, agent.initial_state(ROWS), np.ones(ROWS, np.bool_)
        )
        assert (decision.actions == action).all()
        np.testing.assert_allclose(decision.log_probs, 0.0, atol=1e-6)


def test_a_decision_is_consistent_with_its_distribution() -> None:
    agent = Policy(SMALL, seed=0)
    observations, mask = situation()
    decision, _ = agent.act(observations, mask, agent.initial_state(ROWS), np.ones(ROWS, np.bool_))
    rows = np.arange(ROWS)
    chosen = decision.probabilities[rows, decision.actions]
    np.testing.assert_allclose(np.exp(decision.log_probs), chosen, rtol=1e-5)
    np.testing.assert_allclose(decision.probabilities.sum(1), 1.0, rtol=1e-5)
    assert (decision.probabilities[~mask] == 0).all()
    assert decision.actions.dtype == np.int64
    assert decision.values.dtype == decision.log_probs.dtype == np.float32


@every_option
def test_what_was_acted_can_be_learned_from_with_the_carried_state(config: CLSTMConfig) -> None:
    """The state that a policy hands on leads the network to the same distributions later."""
    agent = Policy(config, seed=0)
    state, first = agent.initial_state(ROWS), np.ones(ROWS, np.bool_)
    for t in range(5):
        _, state = agent.act(*situation(t), state, first)
        first = np.zeros(ROWS, np.bool_)
    carried = {key: torch.from_numpy(array) for key, array in state.items()}
    steps = [situation(t) for t in range(5, 9)]
    acted = []
    for observations, mask in steps:
        decision, state = agent.act(observations, mask, state, first)
        acted.append(decision.probabilities)
    observations, masks = (torch.from_numpy(np.stack(part)) for part in zip(*steps, strict=True))
    logits, _, _ = agent.model(observations, masks, carried, torch.zeros(4, ROWS, dtype=torch.bool))
    np.testing.assert_allclose(logits.softmax(-1).detach(), np.stack(acted), atol=1e-5)


def test_greedy_takes_the_mode_and_draws_nothing() -> None:
    agent = Policy(SMALL, seed=0)
    before = agent.generator.get_state()
    decision, _ = agent.act(
        *situation(), agent.initial_state(ROWS), np.ones(ROWS, np.bool_), greedy=True
    )
    assert (decision.actions == decision.probabilities.argmax(1)).all()
    assert torch.equal(before, agent.generator.get_state())


def test_a_policy_that_acts_greedily_says_that_it_had_to() -> None:
    agent, drawing = Policy(SMALL, seed=0, acting="greedy"), Policy(SMALL, seed=0)
    before = agent.generator.get_state()
    arguments = (*situation(), agent.initial_state(ROWS), np.ones(ROWS, np.bool_))
    decision, _ = agent.act(*arguments)
    assert (decision.actions == decision.probabilities.argmax(1)).all()
    assert not decision.log_probs.any()
    assert torch.equal(before, agent.generator.get_state())
    np.testing.assert_array_equal(decision.probabilities, drawing.act(*arguments)[0].probabilities)
    assert not agent.is_on_policy and drawing.is_on_policy


@pytest.mark.parametrize("temperature", [1e-3, 0.5, 1.0, 2.0])
def test_a_temperature_draws_from_powers_of_the_distribution(temperature: float) -> None:
    agent = Policy(SMALL, seed=0, acting=temperature)
    with torch.no_grad():
        agent.model.policy_head.weight *= 200.0
    observations, mask = situation()
    rows = np.repeat(0, 4000)
    state, first = agent.initial_state(len(rows)), np.ones(len(rows), np.bool_)
    decision, _ = agent.act(observations[rows], mask[rows], state, first)
    own = decision.probabilities[0].astype(np.float64)
    powers = np.where(mask[0], own / own.max(), 0.0) ** (1.0 / temperature)
    expected = powers / powers.sum()
    taken = np.bincount(decision.actions, minlength=SMALL.action_count) / len(rows)
    np.testing.assert_allclose(taken, expected, atol=0.03)
    np.testing.assert_allclose(
        np.exp(decision.log_probs), expected[decision.actions], rtol=1e-3, atol=1e-6
    )
    assert agent.is_on_policy == (temperature == 1.0)


def test_drawing_again_repeats_the_actions() -> None:
    agent = Policy(SMALL, seed=5)
    arguments = (*situation(), agent.initial_state(ROWS), np.ones(ROWS, np.bool_))
    agent.draw_again()
    first = [agent.act(*arguments)[0].actions.tolist() for _ in range(5)]
    agent.draw_again()
    assert [agent.act(*arguments)[0].actions.tolist() for _ in range(5)] == first


@every_option
def test_value_is_that_of_acting_and_changes_nothing(config: CLSTMConfig) -> None:
    agent = Policy(config, seed=0)
    state, first = agent.initial_state(ROWS), np.zeros(ROWS, np.bool_)
    _, state = agent.act(*situation(0), state, first)
    kept = {key: array.copy() for key, array in state.items()}
    value = agent.value(*situation(1), state)
    decision, _ = agent.act(*situation(1), state, first)
    np.testing.assert_array_equal(value, decision.values)
    assert all(np.array_equal(kept[key], state[key]) for key in kept)


def test_weights_travel_by_value() -> None:
    one, two = Policy(SMALL, seed=0), Policy(SMALL, seed=1)
    weights = one.weights()
    two.load_weights(weights)
    for array in weights.values():
        array[:] = 0.0
    assert any(array.any() for array in two.weights().values())
    assert all(np.array_equal(a, two.weights()[k]) for k, a in one.weights().items())


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "nan"])
def test_weights_that_do_not_fit_are_refused_and_change_nothing(fault: str) -> None:
    agent = Policy(SMALL, seed=0)
    before, weights = agent.weights(), Policy(SMALL, seed=1).weights()
    if fault == "missing":
        del weights["value_head.bias"]
    elif fault == "unknown":
        weights["another"] = np.zeros(1, np.float32)
    elif fault == "shape":
        weights["value_head.bias"] = np.zeros(2, np.float32)
    else:
        weights["value_head.bias"][:] = np.nan
    with pytest.raises(LearningError, match=r"value_head\.bias|another"):
        agent.load_weights(weights)
    assert all(np.array_equal(before[k], a) for k, a in agent.weights().items())


@pytest.mark.parametrize(
    ("fault", "message"),
    [("nan", "NaN"), ("no_action", "allows no action"), ("width", r"wants \[B, 5\]")],
)
def test_a_situation_that_cannot_be_decided_is_refused(fault: str, message: str) -> None:
    agent = Policy(SMALL, seed=0)
    observations, mask = situation()
    if fault == "nan":
        observations[2, 1] = np.nan
    elif fault == "no_action":
        mask[3] = False
    else:
        observations = observations[:, :-1]
    with pytest.raises(LearningError, match=message):
        agent.act(observations, mask, agent.initial_state(ROWS), np.ones(ROWS, np.bool_))


def test_the_docstring_example_runs() -> None:
    assert doctest.testmod(policy).failed == 0


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"observation_size": 3}, r"it reads 3 features, this program shows \d+"),
        ({"action_count": 2}, r"it has 2 actions and \d+ are asked for; env.size_levels"),
        ({"feature_hidden": 9}, r"model\.feature_hidden is 9 there and \d+ here"),
        ({"actor_hidden": 9}, r"model\.actor_hidden is 9 there and \d+ here"),
    ],
)
def test_a_model_that_does_not_fit_says_what_differs(other: dict[str, int], told: str) -> None:
    weights = Policy(replace(SMALL, **other), seed=1).weights()
    with pytest.raises(LearningError, match=told):
        Policy(SMALL, seed=1).load_weights(weights)
