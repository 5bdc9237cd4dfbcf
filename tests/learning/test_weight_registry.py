"""Weights by number: held, and read from the folder where they are not."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import ray

from tests.learning.experience import SMALL
from tests.waits import WAIT_S
from trading.app.waiting import Heartbeat
from trading.errors import CheckpointError
from trading.execution.events import PromotedBy
from trading.learning.champion.registry import (
    KEPT,
    RegistryAddress,
    WeightRegistry,
    create_registry,
    registry_name,
)
from trading.learning.champion.store import (
    AccountChampion,
    Champion,
    ChampionStore,
    Promotion,
    weights_digest,
)
from trading.learning.checkpoints import write_module_weights
from trading.learning.policy import Policy

Found = TypeVar("Found")


def champions(folder: Path, count: int) -> ChampionStore:
    """That many champions on disk, champion N of seed N."""
    store = ChampionStore(folder, count)
    for seed in range(1, count + 1):
        store.write(
            lambda directory, seed=seed: write_module_weights(  # type: ignore[misc]
                directory, Policy(SMALL, seed).weights()
            ),
            Promotion(5, PromotedBy.GATE, ""),
            AccountChampion(seed - 1, 0, seed - 1),
        )
    return store


def is_of_seed(champion: Champion | None, seed: int) -> bool:
    return champion is not None and weights_digest(champion.weights) == weights_digest(
        Policy(SMALL, seed).weights()
    )


def await_that(condition: Callable[[], Found | None]) -> Found:
    deadline = time.monotonic() + WAIT_S
    while (found := condition()) is None:
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.1)
    return found


def test_what_is_held_outlives_the_folder_and_the_oldest_is_read_again(tmp_path: Path) -> None:
    store = champions(tmp_path, KEPT + 1)
    registry = WeightRegistry(store.load)
    for number in range(1, KEPT + 2):
        assert is_of_seed(registry.champion(number), number)
    shutil.rmtree(store.directory)
    assert is_of_seed(registry.champion(2), 2)
    with pytest.raises(CheckpointError, match="champion-000000001"):
        registry.champion(1)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_each_driver_has_a_registry_of_its_own_which_ends_with_it(tmp_path: Path) -> None:
    @ray.remote(num_cpus=0)
    class Driver:
        def begin(self, folder: Path) -> RegistryAddress:
            where = RegistryAddress(registry_name(), "test-weights")
            read = ChampionStore(folder, 3).load
            self.registry = create_registry(where.namespace, read, name=where.name)
            ray.get(self.registry.ping.remote())
            return where

    champions(tmp_path / "first", 1)
    champions(tmp_path / "second", 2)
    drivers = [Driver.remote(), Driver.remote()]
    first, second = ray.get(
        [
            each.begin.remote(tmp_path / name)
            for each, name in zip(drivers, ("first", "second"), strict=True)
        ]
    )
    assert is_of_seed(first.champion(1), 1) and is_of_seed(second.champion(2), 2)
    with pytest.raises(CheckpointError, match="champion-000000002"):
        first.champion(2)
    for each in drivers:
        ray.kill(each)
    await_that(lambda: True if first.champion(1) is None else None)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_registry_that_was_killed_reads_the_folder_again(tmp_path: Path) -> None:
    where = RegistryAddress(registry_name(), "test-weights")
    read = champions(tmp_path, 2).load
    registry = create_registry(where.namespace, read, name=where.name)
    assert is_of_seed(where.champion(1), 1)
    ray.kill(registry, no_restart=False)
    assert is_of_seed(await_that(lambda: where.champion(2)), 2)
    ray.kill(registry)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_registry_that_hangs_is_found_and_one_in_its_place_gives_the_same(
    tmp_path: Path,
) -> None:
    where = RegistryAddress(registry_name(), "test-weights")
    registry = create_registry(where.namespace, champions(tmp_path, 1).load, name=where.name)
    heartbeat = Heartbeat()
    assert not heartbeat.is_lost(registry, time.monotonic(), 1.0)
    ray.get(registry.ping.remote())
    process = ray.get(registry.__ray_call__.remote(lambda _: os.getpid()))
    os.kill(process, signal.SIGSTOP)
    await_that(lambda: heartbeat.is_lost(registry, time.monotonic(), 1.0) or None)
    ray.kill(registry, no_restart=False)
    assert is_of_seed(await_that(lambda: where.champion(1)), 1)
    assert ray.get(registry.__ray_call__.remote(lambda _: os.getpid())) != process
    ray.kill(registry)
