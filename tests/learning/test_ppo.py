"""The algorithm on a small Ray of its own."""

import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import ray
from structlog.testing import capture_logs

from tests.learning.algorithms import HIDDEN, NETWORK, OPTIONS, Build, config, equal, learned, live
from tests.learning.experience import random_rollout
from tests.learning.recall_env import MaskedRecallVectorEnv
from tests.usual import clstm_config, ppo_settings
from trading.errors import LearnerLostError, LearningError, SettingRefused
from trading.learning.build import Start, pretrain, revive, warm_start
from trading.learning.checkpoints import CheckpointStore, load_module_weights
from trading.learning.policy import Policy
from trading.learning.ppo import CLSTMPPO
from trading.learning.sampling import fetched
from trading.learning.shards import Replica

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


def recall_rate(policy: Policy, remember: bool) -> float:
    """Share of right answers over some episodes; without memory the state is always reset."""
    env = MaskedRecallVectorEnv(num_envs=64, seed=99)
    situation, _ = env.reset()
    state, first = policy.initial_state(64), np.ones(64, np.bool_)
    returns: list[float] = []
    for _ in range(60):
        decision, state = policy.act(
            situation["observations"],
            situation["action_mask"],
            state,
            first if remember else np.ones(64, np.bool_),
        )
        situation, _, terminated, _, info = env.step(decision.actions)
        if terminated.any():
            returns += info["episode"]["r"][terminated].tolist()
        first = terminated
    assert env.invalid_actions == 0
    return float(np.mean(returns))


def test_it_learns_to_remember_what_a_memoryless_policy_cannot(build: Build) -> None:
    algorithm = build(config())
    for _ in range(40):
        results = algorithm.train()
        if results["env_runners"]["episode_return_mean"] > 0.97:
            break
    assert algorithm.evaluate()["env_runners"]["episode_return_mean"] > 0.9
    policy = Policy(NETWORK, seed=1)
    assert recall_rate(policy, remember=True) < 0.5
    policy.load_weights(algorithm.weights())
    assert recall_rate(policy, remember=True) > 0.9
    assert recall_rate(policy, remember=False) < 0.5
    assert algorithm.env_runner.env.invalid_actions == 0
    assert algorithm.weights_version == results["training_iteration"]
    assert results["num_env_steps_sampled_lifetime"] == 1024 * results["training_iteration"]


def test_equal_seeds_train_to_equal_weights(build: Build) -> None:
    results = []
    for seed in (5, 5, 6):
        algorithm = build(config(seed))
        algorithm.train()
        algorithm.train()
        results.append(algorithm.weights())
    assert equal(results[0], results[1])
    assert not equal(results[0], results[2])


def test_a_restored_algorithm_continues_as_the_uninterrupted_one(
    build: Build, tmp_path: Path
) -> None:
    algorithm = build(config())
    algorithm.train()
    algorithm.feed(live(1))
    algorithm.train()
    store = CheckpointStore(tmp_path, keep=2)
    path = store.save(algorithm.save_to_path, {"step": algorithm.weights_version})
    saved = algorithm.weights()
    assert equal(load_module_weights(path), saved)

    algorithm.feed(live(2))
    uninterrupted = learned(algorithm.train())

    restored = CLSTMPPO.from_checkpoint(path)
    try:
        assert equal(restored.weights(), saved)
        assert restored.weights_version == 2
        assert equal(restored.env_runner.policy.weights(), saved)
        restored.feed(live(2))
        assert learned(restored.train()) == uninterrupted
        assert equal(restored.weights(), algorithm.weights())
        restored.train()
        assert restored.iteration == 4
    finally:
        restored.stop()

    algorithm.restore_from_path(path)
    assert equal(algorithm.weights(), saved)
    assert equal(algorithm.env_runner.policy.weights(), saved)
    algorithm.feed(live(2))
    assert learned(algorithm.train()) == uninterrupted


def as_saved_by_a_former_version(path: Path, model: dict[str, object], **update: object) -> None:
    """Put settings that are gone into the config that RLlib opens a checkpoint by."""
    file = path / CLSTMPPO.CLASS_AND_CTOR_ARGS_FILE_NAME
    made = pickle.loads(file.read_bytes())
    ((state,), _) = made["ctor_args_and_kwargs"]
    state |= {**update, "_model_config": {**state["_model_config"], **model}}
    file.write_bytes(pickle.dumps(made))


OFF = {"window": None, "residual": False, "feature_layers": 1}


def test_a_checkpoint_of_settings_that_are_gone_opens_unless_its_network_had_one(
    build: Build, tmp_path: Path
) -> None:
    algorithm = build(config())
    algorithm.train()
    path = Path(algorithm.save_to_path(str(tmp_path / "saved")))
    as_saved_by_a_former_version(path, OFF, target_kl=None, vtrace_rho=1.0, vtrace_c=1.0, burn_in=8)
    with capture_logs() as told:
        restored = CLSTMPPO.from_checkpoint(path)
    try:
        assert equal(restored.weights(), algorithm.weights())
        restored.train()
        assert restored.iteration == 2
    finally:
        restored.stop()
    gone = [line for line in told if "is gone" in line["event"]]
    assert [(line["name"], line["value"]) for line in gone] == [("burn_in", 8)]
    as_saved_by_a_former_version(path, {"window": 30})
    with pytest.raises(SettingRefused, match="window=30: there is no such setting any more"):
        CLSTMPPO.from_checkpoint(path)


def test_fed_rollouts_of_any_shape_are_learned_from_together(build: Build) -> None:
    algorithm = build(config())
    before = algorithm.weights()
    algorithm.feed(live(1, steps=21, sequences=3))
    algorithm.feed(live(2, steps=40, sequences=1))
    results = algorithm.train()
    assert learned(results)["samples"] == 21 * 3 + 40
    everything = results["learners"]["__all_modules__"]
    assert everything["num_fed_steps_trained_lifetime"] == 103
    assert results["num_env_steps_sampled_lifetime"] == 0
    assert not equal(before, algorithm.weights())
    assert equal(algorithm.weights(), algorithm.env_runner.policy.weights())
    algorithm.train()
    assert algorithm.weights_version == 2


def test_a_rollout_that_is_not_finite_is_refused_and_changes_nothing(build: Build) -> None:
    algorithm = build(config())
    algorithm.train()
    before = algorithm.weights()
    poisoned = live(1)
    poisoned.rewards[2, 1] = np.nan
    with pytest.raises(LearningError, match="rewards holds NaN"):
        algorithm.feed(poisoned)
    algorithm.feed(ray.put([poisoned]))
    with pytest.raises(LearningError, match="rewards holds NaN"):
        algorithm.train()
    other = random_rollout(1, config=clstm_config(observation_size=6, action_count=5, **HIDDEN))
    algorithm.feed(other)
    with pytest.raises(LearningError, match="6 features"):
        algorithm.train()
    assert equal(before, algorithm.weights())
    assert algorithm.weights_version == 1
    algorithm.train()
    assert algorithm.weights_version == 2


def test_loaded_weights_reach_learner_and_runner_and_must_fit(build: Build) -> None:
    algorithm = build(config())
    algorithm.train()
    wanted = Policy(NETWORK, seed=11).weights()
    algorithm.load_weights(wanted)
    assert equal(algorithm.weights(), wanted)
    assert equal(algorithm.env_runner.policy.weights(), wanted)
    with pytest.raises(LearningError, match="lack"):
        algorithm.load_weights({})


def test_remote_learner_and_runner_work_and_go_on_after_a_refusal(
    build: Build, tmp_path: Path
) -> None:
    algorithm = build(
        config()
        .env_runners(num_env_runners=1)
        .learners(num_learners=1, custom_resources_per_learner={"learner": 1})
    )
    assert ray.available_resources().get("learner", 0.0) == 0.0
    results = algorithm.train()
    assert learned(results)["samples"] == 1024
    assert results["num_env_steps_sampled_lifetime"] == 1024
    before = algorithm.weights()

    poisoned = live(1)
    poisoned.values[0, 0] = np.inf
    algorithm.feed(ray.put([poisoned]))
    with pytest.raises(LearningError, match="values holds NaN"):
        algorithm.train()
    assert equal(before, algorithm.weights())

    path = algorithm.save_to_path(str(tmp_path / "remote"))
    algorithm.feed(live(2))
    uninterrupted = learned(algorithm.train())
    algorithm.train()
    assert algorithm.weights_version == 3

    algorithm.restore_from_path(path)
    assert equal(algorithm.weights(), before)
    algorithm.feed(live(2))
    assert learned(algorithm.train()) == uninterrupted


def test_a_killed_runner_is_replaced_and_what_it_owed_is_counted(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    algorithm = build(config().env_runners(num_env_runners=1))
    assert os.getpriority(os.PRIO_PROCESS, 0) == before, "the driver gives way to nobody"
    algorithm.train()
    runner = algorithm.env_runner_group._worker_manager.actors()[1]
    ray.kill(runner, no_restart=False)
    deadline = time.monotonic() + 90
    while algorithm.weights_version < 3 and time.monotonic() < deadline:
        results = algorithm.train()
    assert algorithm.weights_version == 3
    assert learned(results)["samples"] == 1024
    assert results["fault_tolerance"]["num_healthy_workers"] == 1
    lost = results["learners"]["__all_modules__"]["num_rollouts_lost_lifetime"]
    missing = results["env_runners"]["num_env_steps_missing_lifetime"]
    assert lost + missing // 1024 == results["training_iteration"] - 3
    assert results["fault_tolerance"]["num_remote_worker_restarts"] == 1
    assert "1024 decisions are missing: 0 of 1 environment runners delivered" in caplog.text


def test_two_learners_learn_as_one_and_stay_equal(build: Build) -> None:
    whole = ppo_settings(learning_rate=1e-4, minibatches=1, epochs=2)
    one, two = (
        build(config().training(ppo=whole).learners(num_learners=n, num_cpus_per_learner=0.5))
        for n in (0, 2)
    )
    stats, fed = [], live(1, steps=16, sequences=4)
    for algorithm in (one, two):
        algorithm.load_weights(Policy(NETWORK, seed=11).weights())
        algorithm.feed(fed)
        stats.append(learned(algorithm.train()))
    assert stats[1]["rollout_bytes"] == stats[0]["rollout_bytes"] == fed.nbytes, "once, not twice"
    for name in ("loss", "policy_loss", "value_loss", "entropy", "kl", "samples"):
        assert stats[1][name] == pytest.approx(stats[0][name], rel=1e-3, abs=1e-5), name
    copies = [r.get() for r in two.learner_group.foreach_learner(lambda le: le.get_state())]
    modules = [copy["rl_module"]["default_policy"] for copy in copies]
    assert len(modules) == 2
    assert equal(*modules)
    together = two.weights()
    for name, array in one.weights().items():
        np.testing.assert_allclose(together[name], array, atol=5e-5)


def test_one_runners_rollouts_are_shared_out_among_two_learners(
    build: Build, tmp_path: Path
) -> None:
    algorithm = build(
        config().env_runners(num_env_runners=1).learners(num_learners=2, num_cpus_per_learner=0.5)
    )
    learned(algorithm.train())
    shares = [
        [rollout.shape for rollout in fetched(Replica(rank, 2).share(algorithm.sample()))[0]]
        for rank in range(2)
    ]
    assert shares == [[(32, 16)], [(32, 16)]]
    path = algorithm.save_to_path(tmp_path / "checkpoint")
    assert learned(algorithm.train())["samples"] == 1024
    algorithm.restore_from_path(path)
    assert learned(algorithm.train())["samples"] == 1024
    wrong = live(1, sequences=4)
    algorithm.feed(wrong)
    wrong.rewards[0, 3] = np.nan
    with pytest.raises(LearningError, match="rewards holds NaN"):
        algorithm.train()
    assert learned(algorithm.train())["samples"] == 1024


def test_a_lost_learner_is_told_and_the_algorithm_revives_from_its_checkpoint(
    build: Build, tmp_path: Path
) -> None:
    algorithm = build(config().learners(num_learners=1))
    store = CheckpointStore(tmp_path, keep=2)
    algorithm.train()
    path = store.save(algorithm.save_to_path, {"step": 1})
    expected = [learned(algorithm.train()) for _ in range(2)]

    process = algorithm.learner_group.foreach_learner(lambda _: os.getpid()).result_or_errors[0]
    os.kill(process.get(), signal.SIGKILL)
    with pytest.raises(LearnerLostError, match="restore the algorithm from its checkpoint"):
        algorithm.train()
    with pytest.raises(LearnerLostError, match="0 of 1 learners are alive"):
        algorithm.train()
    with pytest.raises(LearnerLostError):
        store.save(algorithm.save_to_path, {"step": 4})
    assert store.latest() == (path, {"step": 1})

    assert revive(algorithm, store) == path
    assert algorithm.weights_version == 1
    assert [learned(algorithm.train()) for _ in range(2)] == expected


def test_pretraining_outlives_its_learner_and_counts_what_was_learned(
    build: Build, tmp_path: Path
) -> None:
    algorithm = build(config().environment(env_config=OPTIONS).learners(num_learners=1))
    store, told = CheckpointStore(tmp_path, keep=2), []

    def progress(line: str) -> None:
        told.append(line)
        if len(told) == 3:
            ray.kill(algorithm.learner_group._workers[0])

    never = bool
    path = pretrain(algorithm, store, 4 * 1024, 2 * 1024, progress, never).checkpoint
    done = [line.split()[1] for line in told]
    assert done == ["1,024", "2,048", "3,072", "3,072", "4,096"], "from the checkpoint at 2,048"
    assert algorithm.weights_version == 4
    assert store.latest() == (path, {"step": 4, "version": 4})


def test_a_pretraining_that_was_interrupted_goes_on_with_the_rest(
    build: Build, tmp_path: Path
) -> None:
    algorithm = build(config().environment(env_config=OPTIONS))
    store, told = CheckpointStore(tmp_path, keep=2), []
    never = bool

    def interrupted() -> bool:
        return len(told) == 2

    assert warm_start(algorithm, store, model_path=None) == Start(None, 0)
    first = pretrain(algorithm, store, 4 * 1024, 1 << 20, told.append, interrupted)
    assert first == (2 * 1024, store.path(2))
    again = build(config().environment(env_config=OPTIONS))
    start = warm_start(again, store, model_path=None)
    assert start == Start("checkpoint step-000000002 (version 2)", 2 * 1024, {})
    rest = pretrain(again, store, 4 * 1024, 1024, told.append, never, done=2 * 1024)
    assert rest == (4 * 1024, store.path(4))
    assert [line.split()[1] for line in told] == ["1,024", "2,048", "3,072", "4,096"]
    assert warm_start(again, store, model_path=None).pretrained is None

    more = pretrain(again, store, 1024, 1 << 20, told.append, stopped=lambda: True)
    assert warm_start(again, store, model_path=None).pretrained == 0
    assert more == (0, store.path(4))
    enough = pretrain(again, store, 1024, 1024, told.append, never, done=3 * 1024)
    assert enough == (3 * 1024, store.path(4))
    assert warm_start(again, store, model_path=None).pretrained is None


def test_a_killed_pretraining_goes_on_from_its_last_checkpoint(
    build: Build, tmp_path: Path
) -> None:
    algorithm = build(config().environment(env_config=OPTIONS))
    store = CheckpointStore(tmp_path, keep=2)

    def killed(line: str) -> None:
        if " 3,072 " in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(algorithm, store, 4 * 1024, 2 * 1024, killed, bool)
    start = warm_start(algorithm, store, model_path=None)
    assert start == Start("checkpoint step-000000002 (version 2)", 2 * 1024, {})


def test_pretraining_is_the_newest_checkpoint_also_where_versions_fell(
    build: Build, tmp_path: Path
) -> None:
    algorithm = build(config().environment(env_config=OPTIONS))
    store = CheckpointStore(tmp_path, keep=1)
    store.save(algorithm.save_to_path, {"step": 7, "version": 0})
    warm_start(algorithm, store, model_path=None)
    path = pretrain(algorithm, store, 1024, 1024, print, bool).checkpoint
    assert store.latest() == (path, {"step": 8, "version": 1})


def test_pretraining_gives_up_when_no_rollout_arrives(build: Build, tmp_path: Path) -> None:
    algorithm = build(config().env_runners(num_env_runners=1, sample_timeout_s=0.0))
    with pytest.raises(LearningError, match="no environment runner delivered a rollout for 0 s"):
        pretrain(algorithm, CheckpointStore(tmp_path, 1), 1, 1, print, bool, patience_s=0.0)


def test_the_first_rollout_of_slow_runners_is_not_waited_for(build: Build) -> None:
    """Their nodes may come minutes after the driver; once they deliver they are waited for."""
    algorithm = build(config().env_runners(num_env_runners=1))
    assert algorithm.sample(first_wait_s=0.0) == []
    deadline = time.monotonic() + 120.0
    while not algorithm.sample(first_wait_s=0.0):
        assert time.monotonic() < deadline
    for _ in range(3):
        assert algorithm.sample(first_wait_s=0.0)
