"""A restored run and the uninterrupted one are the same to the last bit; sampling ahead."""

import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from tests.learning.algorithms import NETWORK, OPTIONS, RECALL, Build, config, equal, learned
from tests.learning.experience import acted_by
from trading.learning.policy import Policy
from trading.learning.ppo import CLSTMPPO, CLSTMPPOConfig
from trading.learning.rollout import Rollout
from trading.learning.sampling import RolloutSource

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


def of(env: dict[str, Any], runners: int, envs: int = 8) -> CLSTMPPOConfig:
    return (
        config()
        .environment(env_config=env)
        .env_runners(
            num_env_runners=runners,
            num_envs_per_env_runner=envs,
            rollout_fragment_length=32,
            num_cpus_per_env_runner=0.5,
        )
        .training(overlap=True)
    )


def rollouts(sources: list[RolloutSource]) -> list[Rollout]:
    return [s if isinstance(s, Rollout) else ray.get(s)[0] for s in sources]


def trained(algorithm: CLSTMPPO) -> dict[str, Any]:
    """One iteration, without the times that it took."""
    results = algorithm.train()
    runners = results["env_runners"]
    counted = ("num_env_steps_sampled_lifetime", "episode_return_mean", "episode_len_mean")
    return {**learned(results), **{name: runners.get(name) for name in counted}}


@pytest.mark.parametrize("runners", [0, 2])
@pytest.mark.parametrize("env", [RECALL, OPTIONS], ids=["recall", "options"])
def test_a_restored_run_goes_on_as_the_uninterrupted_one(
    build: Build, tmp_path: Path, env: dict[str, Any], runners: int
) -> None:
    algorithm = build(of(env, runners))
    for _ in range(3):
        algorithm.train()
    path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    following = [trained(algorithm) for _ in range(2)]
    last = rollouts(algorithm.sample())
    assert len(last) == max(1, runners)

    restored = build(of(env, runners))
    for one in (restored, algorithm):
        one.restore_from_path(path)
        np.testing.assert_equal([trained(one) for _ in range(2)], following)
        for rollout, expected in zip(rollouts(one.sample()), last, strict=True):
            for field in fields(Rollout):
                name = field.name
                np.testing.assert_equal(getattr(rollout, name), getattr(expected, name), name)
    assert equal(restored.weights(), algorithm.weights())


def test_a_checkpoint_of_another_cluster_is_learned_on_from_in_new_episodes(
    build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    algorithm = build(of(RECALL, runners=2))
    algorithm.train()
    many = algorithm.save_to_path(str(tmp_path / "many"))
    alone = build(of(RECALL, runners=0))
    with caplog.at_level(logging.WARNING, logger="trading"):
        alone.restore_from_path(many)
    assert "episodes of 2 runners, of which 2 are no more" in caplog.text
    assert "runner 0 starts new episodes" in caplog.text
    assert rollouts(alone.sample())[0].first[0].all()
    alone.train()
    assert alone.weights_version == 2

    wide = alone.save_to_path(str(tmp_path / "wide"))
    narrow = build(of(RECALL, runners=0, envs=4))
    with caplog.at_level(logging.WARNING, logger="trading"):
        narrow.restore_from_path(wide)
    assert "it had 8 environments and has 4 now" in caplog.text
    narrow.train()
    assert narrow.weights_version == 3


def test_overlapped_rollouts_are_acted_by_the_weights_of_one_update_before(build: Build) -> None:
    acted: list[list[int]] = []
    weights = []
    for _ in range(2):
        algorithm = build(of(RECALL, runners=1))
        acted.append([])
        for _ in range(4):
            sources = algorithm.sample()
            acted[-1].append(rollouts(sources)[0].weights_version)
            for source in sources:
                algorithm.feed(source)
            algorithm.train()
        weights.append(algorithm.weights())
    assert acted == [[0, 0, 1, 2]] * 2
    assert equal(*weights)

    (kept,) = rollouts(algorithm.sample())
    for _ in range(2):
        algorithm.feed(kept)
        algorithm.train()
    (fresh,) = rollouts(algorithm.sample())
    assert fresh.weights_version == 6, "what was sampled ahead is older than one update by now"

    other = Policy(NETWORK, seed=11)
    algorithm.load_weights(other.weights())
    (by_other,) = rollouts(algorithm.sample())
    again = acted_by(other.model, by_other)
    np.testing.assert_allclose(by_other.log_probs, again.log_probs, atol=1e-5)
