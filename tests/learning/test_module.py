import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from tests.learning.experience import OPTIONS, SMALL, random_state
from trading.errors import LearningError
from trading.learning.module import CLSTMModule, clstm_config

OBSERVATION = gym.spaces.Dict(
    {
        "observations": gym.spaces.Box(-1.0, 1.0, (SMALL.observation_size,), np.float32),
        "action_mask": gym.spaces.MultiBinary(SMALL.action_count),
    }
)
ACTION = gym.spaces.Discrete(SMALL.action_count)


@pytest.fixture(params=OPTIONS)
def module(request: pytest.FixtureRequest) -> CLSTMModule:
    return CLSTMModule(
        observation_space=OBSERVATION,
        action_space=ACTION,
        model_config={**OPTIONS[request.param].architecture(), "vf_share_layers": True},
    )


def batch(rows: int, steps: int, module: CLSTMModule) -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(rows, steps, SMALL.action_count, generator=generator) < 0.6
    mask[..., 0] = True
    observations = torch.randn(rows, steps, SMALL.observation_size, generator=generator)
    carried = random_state(np.random.default_rng(0), module.clstm.config, rows)
    state = {key: torch.from_numpy(array).transpose(0, 1) for key, array in carried.items()}
    return {
        Columns.OBS: {"observations": observations, "action_mask": mask.to(torch.int8)},
        Columns.STATE_IN: state,
    }


@pytest.mark.parametrize("name", OPTIONS)
def test_the_shape_comes_from_the_spaces_and_the_model_config(name: str) -> None:
    config = OPTIONS[name]
    assert clstm_config(OBSERVATION, ACTION, config.architecture()) == config


def test_an_option_that_is_gone_is_refused_where_it_would_have_an_effect() -> None:
    assert clstm_config(OBSERVATION, ACTION, {"residual": False}).feature_hidden == 64
    with pytest.raises(LearningError, match="residual=True; there is no such setting any more"):
        clstm_config(OBSERVATION, ACTION, {"residual": True})


def test_the_start_state_has_the_shapes_of_the_network(module: CLSTMModule) -> None:
    start = module.get_initial_state()
    assert {k: tuple(t.shape) for k, t in start.items()} == module.clstm.config.state_shapes
    assert module.is_stateful()


def test_batch_major_forward_equals_the_time_major_network(module: CLSTMModule) -> None:
    given = batch(3, 4, module)
    outputs = module.forward_inference(given)
    obs, state = given[Columns.OBS], given[Columns.STATE_IN]
    logits, values, new_state = module.clstm(
        obs["observations"].transpose(0, 1),
        obs["action_mask"].transpose(0, 1).bool(),
        {key: tensor.transpose(0, 1).contiguous() for key, tensor in state.items()},
        torch.zeros(4, 3, dtype=torch.bool),
    )
    torch.testing.assert_close(outputs[Columns.ACTION_DIST_INPUTS], logits.transpose(0, 1))
    torch.testing.assert_close(outputs[Columns.VF_PREDS], values.transpose(0, 1))
    for key, tensor in new_state.items():
        torch.testing.assert_close(outputs[Columns.STATE_OUT][key], tensor.transpose(0, 1))
        assert outputs[Columns.STATE_OUT][key].shape[0] == 3


def test_values_come_from_embeddings_or_are_computed(module: CLSTMModule) -> None:
    given = batch(2, 3, module)
    embeddings = module.forward_train(given)[Columns.EMBEDDINGS]
    torch.testing.assert_close(module.compute_values(given), embeddings)
    assert module.compute_values(given, embeddings=embeddings) is embeddings


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (OBSERVATION, gym.spaces.Box(0, 1, (1,))),
        (OBSERVATION["observations"], ACTION),
        (OBSERVATION, gym.spaces.Discrete(SMALL.action_count + 1)),
        (gym.spaces.Dict({"observations": OBSERVATION["observations"]}), ACTION),
    ],
)
def test_other_spaces_are_refused(observation: gym.Space, action: gym.Space) -> None:
    with pytest.raises(LearningError, match="wants"):
        clstm_config(observation, action, {})
