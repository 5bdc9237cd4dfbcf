"""What an ordinary Algorithm does for RLlib's and Ray Tune's users: evaluate, and be tuned."""

from pathlib import Path

import numpy as np
import pytest
from ray import tune

from tests.learning.algorithms import Build, config, equal
from trading.learning.ppo import CLSTMPPO

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


@pytest.mark.parametrize("runners", [None, 0, 1], ids=["no group", "local", "remote"])
def test_evaluation_plays_whole_episodes_greedily_and_disturbs_nothing(
    build: Build, runners: int | None
) -> None:
    evaluated = config().evaluation(evaluation_duration=100, evaluation_duration_unit="episodes")
    if runners is not None:
        evaluated.evaluation(evaluation_num_env_runners=runners, evaluation_interval=3)
    algorithm, alone = build(evaluated), build(config())
    for one in (algorithm, alone):
        one.train()
    results = algorithm.evaluate()["env_runners"]
    assert results["num_episodes"] == 100
    assert 4 <= results["episode_len_mean"] <= 6
    assert 0 <= results["episode_return_mean"] <= 1
    again = algorithm.evaluate()["env_runners"]
    assert again["episode_return_mean"] == results["episode_return_mean"]
    for one in (algorithm, alone):
        one.train()
    assert equal(algorithm.weights(), alone.weights()), "evaluation disturbed training"
    if runners is not None:
        assert "episode_return_mean" in algorithm.train()["evaluation"]["env_runners"]


def test_tune_compares_learning_rates_and_its_checkpoints_restore(tmp_path: Path) -> None:
    rates = [1e-3, 3e-3]
    found = tune.Tuner(
        CLSTMPPO,
        param_space=config().training(lr=tune.grid_search(rates)),
        run_config=tune.RunConfig(
            name="recall",
            storage_path=str(tmp_path),
            stop={"training_iteration": 4},
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
            verbose=0,
        ),
    ).fit()
    assert not found.errors
    assert sorted(result.config["lr"] for result in found) == rates
    returns = [result.metrics["env_runners"]["episode_return_mean"] for result in found]
    assert np.isfinite(returns).all() and returns[0] != returns[1]
    best = found.get_best_result("env_runners/episode_return_mean", mode="max")
    restored = CLSTMPPO.from_checkpoint(best.checkpoint.path)
    try:
        assert restored.weights_version == 4
        restored.train()
        assert restored.iteration == 5
    finally:
        restored.stop()
