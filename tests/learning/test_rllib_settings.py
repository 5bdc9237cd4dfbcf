"""RLlib's own settings: each has an effect, or is refused with what to do instead."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback

from tests.learning.algorithms import Build, config, equal, learned
from tests.usual import ppo_settings
from trading.errors import SettingRefused
from trading.learning.ppo import CLSTMPPOConfig

Change = Callable[[CLSTMPPOConfig], Any]


def test_every_hyperparameter_has_one_owner() -> None:
    made = CLSTMPPOConfig().training(
        gamma=0.9,
        lambda_=0.8,
        lr=1e-3,
        clip_param=0.3,
        num_epochs=2,
        grad_clip=0.7,
        entropy_coeff=0.02,
        vf_loss_coeff=0.6,
        minibatches=3,
    )
    wanted = ppo_settings(
        gamma=0.9,
        gae_lambda=0.8,
        learning_rate=1e-3,
        clip=0.3,
        epochs=2,
        max_grad_norm=0.7,
        entropy_coefficient=0.02,
        value_coefficient=0.6,
        minibatches=3,
    )
    assert made.ppo == wanted
    assert CLSTMPPOConfig().training(ppo=wanted).ppo == wanted
    assert CLSTMPPOConfig().training(ppo=wanted, gamma=0.5).ppo.gamma == 0.5
    assert CLSTMPPOConfig().update_from_dict({"gamma": 0.5, "lambda": 0.4}).ppo.gae_lambda == 0.4
    assert pickle.loads(pickle.dumps(made)).ppo == wanted
    assert CLSTMPPOConfig().ppo == ppo_settings()


def test_a_config_of_a_checkpoint_that_held_one_value_opens() -> None:
    then = dict(vars(AlgorithmConfig()))
    settings = ppo_settings(gamma=0.7, epochs=2, max_grad_norm=0.25, clip=0.1)
    then |= {"ppo": settings, "lr": settings.learning_rate, "gamma": 0.99}
    opened = CLSTMPPOConfig.__new__(CLSTMPPOConfig)
    opened.__setstate__(then)
    assert opened.ppo == settings


class OfEpisodes(RLlibCallback):  # type: ignore[misc]
    """Wants episodes."""

    def on_episode_end(self, **_: Any) -> None:
        """Never called."""


REFUSED: dict[str, tuple[Change, str]] = {
    "gamma": (lambda c: c.training(gamma=2.0), "gamma is 2.0"),
    "grad_clip_by": (lambda c: c.training(grad_clip_by="norm"), "global_norm"),
    "vf_clip_param": (lambda c: c.training(vf_clip_param=1.0), "vf_loss_coeff"),
    "use_kl_loss": (lambda c: c.training(use_kl_loss=True), "clip_param"),
    "train_batch_size": (lambda c: c.training(train_batch_size=9), "train_batch_size_per_learner"),
    "a batch below a round": (
        lambda c: c.training(train_batch_size_per_learner=100),
        "one round of sampling is 1024",
    ),
    "minibatch_size": (lambda c: c.training(minibatch_size=5), "whole sequences"),
    "a minibatch above the batch": (
        lambda c: c.training(train_batch_size_per_learner=2048, minibatch_size=4096),
        "is above",
    ),
    "shuffle": (lambda c: c.training(shuffle_batch_per_epoch=False), "shuffled in every pass"),
    "model": (lambda c: c.training(model={"fcnet_hiddens": [4]}), "model_config"),
    "a misspelt part": (
        lambda c: c.rl_module(model_config={"feature_hiden": 8}),
        "feature_hiden is no part",
    ),
    "a part that is gone": (
        lambda c: c.rl_module(model_config={"residual": True}),
        "residual=True: there is no such setting any more",
    ),
    "schedule": (lambda c: c.training(lr=[[5, 1e-3], [9, 1e-4]]), "first timestep"),
    "batch_mode": (lambda c: c.env_runners(batch_mode="complete_episodes"), "truncate_episodes"),
    "explore": (lambda c: c.env_runners(explore=False), "evaluation_config"),
    "auto": (lambda c: c.env_runners(rollout_fragment_length="auto"), "needs train_batch_size_per"),
    "filter": (lambda c: c.env_runners(observation_filter="MeanStdFilter"), "wrapper"),
    "connector": (lambda c: c.env_runners(env_to_module_connector=lambda: None), "no connectors"),
    "learner connector": (lambda c: c.learners(learner_connector=lambda: None), "no connectors"),
    "callbacks": (lambda c: c.callbacks(OfEpisodes), "on_sample_end"),
    "a callback": (lambda c: c.callbacks(on_episode_step=print), "on_sample_end"),
    "policies": (lambda c: c.multi_agent(policies={"a", "b"}), "one policy"),
    "offline": (lambda c: c.offline_data(input_="somewhere"), "does not use it"),
    "no setting": (lambda c: c.update_from_dict({"gama": 0.5}), "no such setting"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_have_no_effect_is_refused(name: str) -> None:
    change, instead = REFUSED[name]
    changed = config()
    change(changed)
    with pytest.raises((SettingRefused, ValueError), match=instead):
        changed.validate()


@pytest.mark.parametrize("name", ["target_kl", "vtrace_rho", "vtrace_c", "burn_in"])
def test_a_setting_that_is_gone_is_refused_with_why(name: str) -> None:
    told = f"{name}=2: there is no such setting any more.*remove it.*experiment of Ray Tune"
    with pytest.raises(SettingRefused, match=told):
        config().training(**{name: 2})
    with pytest.raises(SettingRefused, match=told):
        config().update_from_dict({name: 2})


def test_a_setting_that_is_gone_and_had_no_effect_is_passed_over() -> None:
    begun_before = {"target_kl": None, "vtrace_rho": 1.0, "vtrace_c": 1.0, "burn_in": 0}
    opened = config().update_from_dict({**begun_before, "lr": 1e-5})
    opened.validate()
    assert opened.lr == 1e-5 and not begun_before.keys() & opened.to_dict().keys()


def test_a_part_that_is_gone_may_be_given_as_it_has_to_be() -> None:
    config().rl_module(model_config={"window": None, "feature_layers": 1}).validate()


def test_an_evaluation_may_take_the_most_likely_action() -> None:
    evaluated = config().evaluation(evaluation_config={"explore": False})
    evaluated.validate()
    of_evaluation = evaluated.get_evaluation_config_object()
    of_evaluation.validate()
    assert not of_evaluation.explore


EFFECTIVE: dict[str, Change] = {
    "gamma": lambda c: c.training(gamma=0.1),
    "lambda_": lambda c: c.training(lambda_=0.1),
    "lr": lambda c: c.training(lr=1e-5),
    "lr schedule": lambda c: c.training(lr=[[0, 1e-5], [10_000, 1e-6]]),
    "clip_param": lambda c: c.training(clip_param=1e-4),
    "num_epochs": lambda c: c.training(num_epochs=9),
    "minibatch_size": lambda c: c.training(minibatch_size=64),
    "grad_clip": lambda c: c.training(grad_clip=1e-6),
    "no grad_clip": lambda c: c.training(grad_clip=None, vf_loss_coeff=1e3),
    "entropy_coeff": lambda c: c.training(entropy_coeff=[[0, 1.0], [10_000, 0.0]]),
    "vf_loss_coeff": lambda c: c.training(vf_loss_coeff=9.0),
    "train_batch_size_per_learner": lambda c: c.training(train_batch_size_per_learner=4096),
    "auto": lambda c: c.env_runners(rollout_fragment_length="auto").training(
        train_batch_size_per_learner=512
    ),
    "clip_rewards": lambda c: c.environment(clip_rewards=0.01),
}


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_every_other_setting_has_its_effect(build: Build) -> None:
    weights, samples = {}, {}
    for name, change in {"as it is": lambda c: c, **EFFECTIVE}.items():
        changed = config()
        change(changed)
        algorithm = build(changed)
        samples[name] = learned(algorithm.train())["samples"]
        weights[name] = algorithm.weights()
    for name in EFFECTIVE:
        assert not equal(weights[name], weights["as it is"]), name
    assert samples["as it is"] == 1024
    assert (samples["train_batch_size_per_learner"], samples["auto"]) == (4096, 512)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_schedules_follow_what_was_learned(build: Build) -> None:
    algorithm = build(config().training(lr=[[0, 1e-3], [2048, 0.0]]))
    rates = [learned(algorithm.train())["learning_rate"] for _ in range(3)]
    np.testing.assert_allclose(rates, [1e-3, 5e-4, 0.0], atol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_the_configured_learning_rate_holds_on_a_restored_checkpoint(
    build: Build, tmp_path: Any
) -> None:
    before = build(config())
    before.train()
    path = before.save_to_path(str(tmp_path / "checkpoint"))
    slow = build(config().training(lr=1e-12))
    slow.restore_from_path(path)
    rates = slow.learner_group.foreach_learner(
        lambda learner: [g["lr"] for g in learner.get_optimizer("default_policy").param_groups]
    )
    assert [result.get() for result in rates] == [[1e-12]]
    restored = slow.weights()
    assert equal(restored, before.weights())
    slow.train()
    moved = [np.abs(a - restored[name]).max() for name, a in slow.weights().items()]
    assert max(moved) < 1e-9


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_callbacks_of_the_driver_are_called(build: Build) -> None:
    told: list[str] = []
    algorithm = build(
        config().callbacks(
            on_algorithm_init=lambda **_: told.append("init"),
            on_train_result=lambda **_: told.append("result"),
            on_sample_end=lambda **_: told.append("sample"),
        )
    )
    algorithm.train()
    assert told == ["init", "sample", "result"]
