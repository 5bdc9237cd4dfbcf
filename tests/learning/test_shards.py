"""Rollouts shared out among learners: each goes to one, and what is learned is as by one alone."""

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed

from tests.learning.experience import SMALL, random_rollout, small_network
from tests.usual import ppo_settings
from tests.waits import START_S, WAIT_S
from trading.errors import LearningError
from trading.learning.clstm import CLSTM, CLSTMConfig
from trading.learning.ppo_update import PPOSettings, update
from trading.learning.rollout import Rollout
from trading.learning.shards import RefusedElsewhere, Replica, pieces

WHOLE = ppo_settings(learning_rate=1e-3, minibatches=1, epochs=3)
BY_AUTOGRAD = replace(SMALL, layer_norm=True)
"""Its network is none that the compiled one covers."""
OLD = 4
"""Version of the weights that acted."""


def rollout(seed: int, sequences: int, config: CLSTMConfig) -> Rollout:
    made = random_rollout(seed, 12, sequences, config=config)
    return replace(made, weights_version=OLD)


def learned(
    network: CLSTM, of: Rollout | None, settings: PPOSettings, replica: Replica
) -> dict[str, float]:
    adam = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(replica.rank)
    return update(network, adam, of, settings, generator, replica, version=OLD + 1)


def _learner(pipe: Any) -> None:
    """In a process of its own: one learner of several, and what it came to, again and again."""
    torch.set_num_threads(1)
    while (told := pipe.recv()) is not None:
        group, replica, of, settings, config = told
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{group}", rank=replica.rank, world_size=replica.size
        )
        network = small_network(7, config)
        try:
            stats: dict[str, float] | str = learned(network, of, settings, replica)
        except LearningError as error:
            stats = f"{type(error).__name__}: {error}"
        pipe.send((stats, [each.detach().numpy() for each in network.parameters()]))
        torch.distributed.destroy_process_group()


class Learners:
    """Three processes, of which each test takes as many as it has shares."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        ends = [context.Pipe() for _ in range(3)]
        self._pipes = [ours for ours, _ in ends]
        self._started = [
            context.Process(target=_learner, args=(theirs,), daemon=True) for _, theirs in ends
        ]
        for each in self._started:
            each.start()

    def learn(
        self,
        group: Path,
        shares: list[Rollout | None],
        settings: PPOSettings,
        config: CLSTMConfig = SMALL,
    ) -> list[tuple[Any, list[np.ndarray]]]:
        pipes = self._pipes[: len(shares)]
        for rank, (pipe, share) in enumerate(zip(pipes, shares, strict=True)):
            pipe.send((str(group), Replica(rank, len(shares)), share, settings, config))
        answers = []
        for pipe in pipes:
            assert pipe.poll(START_S), "a learner waits for another one"
            answers.append(pipe.recv())
        return answers

    def close(self) -> None:
        for pipe, process in zip(self._pipes, self._started, strict=True):
            pipe.send(None)
            process.join(WAIT_S)


@pytest.fixture(scope="module")
def learners() -> Iterator[Learners]:
    made = Learners()
    yield made
    made.close()


@pytest.mark.parametrize("config", [SMALL, BY_AUTOGRAD], ids=["compiled", "autograd"])
@pytest.mark.parametrize("sizes", [(4, 4), (5, 2), (6, 0)], ids=str)
def test_shares_are_learned_from_as_the_whole_by_one(
    learners: Learners, tmp_path: Path, sizes: tuple[int, int], config: CLSTMConfig
) -> None:
    shares = [rollout(k, size, config) if size else None for k, size in enumerate(sizes)]
    one = small_network(7, config)
    whole = Rollout.concatenate([share for share in shares if share is not None])
    expected = learned(one, whole, WHOLE, Replica())
    told = learners.learn(tmp_path / "group", shares, WHOLE, config)
    for stats, weights in told:
        assert stats.keys() == expected.keys()
        for name, value in expected.items():
            assert stats[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
        for ours, theirs in zip(weights, one.parameters(), strict=True):
            np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=2e-5)
    for ours, theirs in zip(told[0][1], told[1][1], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_learners_take_as_many_steps_whatever_their_shares_and_stay_equal(
    learners: Learners, tmp_path: Path
) -> None:
    settings = replace(WHOLE, minibatches=4)
    shares: list[Rollout | None] = [rollout(1, 9, SMALL), rollout(2, 2, SMALL), None]
    (first, weights), *others = learners.learn(tmp_path / "group", shares, settings)
    assert first["samples"] == sum(share.steps for share in shares if share is not None)
    for stats, theirs in others:
        assert stats == first
        for ours, other in zip(weights, theirs, strict=True):
            np.testing.assert_array_equal(ours, other)


def test_a_share_that_is_refused_leaves_every_learner_as_it_was(
    learners: Learners, tmp_path: Path
) -> None:
    wrong = rollout(1, 3, SMALL)
    wrong.rewards[0, 0] = np.nan
    (good, weights), (bad, others) = learners.learn(
        tmp_path / "group", [rollout(0, 3, SMALL), wrong], WHOLE
    )
    assert good.startswith(RefusedElsewhere.__name__)
    assert bad.startswith("LearningError") and "rewards holds NaN" in bad
    before = [each.detach().numpy() for each in small_network(7).parameters()]
    for found in (weights, others):
        for ours, theirs in zip(found, before, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("runners", range(1, 9))
@pytest.mark.parametrize("count", range(1, 5))
def test_every_learner_gets_as_many_pieces_and_each_goes_to_one(runners: int, count: int) -> None:
    sources = list(range(runners * pieces(runners, count)))
    shares = [Replica(rank, count).share(sources) for rank in range(count)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(each for share in shares for each in share) == sources
    assert pieces(runners, count) <= count


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_parts_of_a_rollout_are_valid_and_make_it_up(count: int) -> None:
    whole = rollout(3, 4, SMALL)
    parts = whole.parts(count)
    assert len(parts) == min(count, 4)
    assert max(part.shape[1] for part in parts) - min(part.shape[1] for part in parts) <= 1
    for part in parts:
        part.validate()
        assert part.weights_version == OLD
    again = Rollout.concatenate(parts)
    for name in ("observations", "actions", "first", "last_values"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    assert sum(part.nbytes for part in parts) == whole.nbytes
    assert count == 1 or parts[0].observations.flags.c_contiguous
