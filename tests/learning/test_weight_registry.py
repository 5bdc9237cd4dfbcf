import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray

from tests.learning.experience import SMALL
from tests.waits import WAIT_S
from trading.app.waiting import Heartbeat
from trading.errors import LearningError
from trading.execution.events import ChampionPromoted, PromotedBy
from trading.learning.champion.manager import state_on_disk
from trading.learning.champion.registry import (
    ChampionState,
    RegistryAddress,
    WeightRegistry,
    create_registry,
    registry_name,
)
from trading.learning.champion.store import Champion, ChampionPointer, ChampionStore, Promotion
from trading.learning.checkpoints import write_module_weights
from trading.learning.policy import Policy


def champion_state(number: int, value: float | None = None) -> ChampionState:
    change = ChampionPromoted(0, number, 10 * number, 0, PromotedBy.GATE, "", 0.0)
    weights = {"layer": np.full((2, 3), number if value is None else value, np.float32)}
    return ChampionState(
        ChampionPointer(1, number, 0, change), Champion(number, 10 * number, weights), None
    )


def test_the_reign_is_the_one_published_last_even_when_it_is_older() -> None:
    registry = WeightRegistry()
    assert registry.state() is None
    for number in (7, 8, 5):
        registry.publish(champion_state(number))
    present = registry.state()
    assert present is not None and present.champion.number == 5
    np.testing.assert_array_equal(present.champion.weights["layer"], 5.0)


def test_weights_that_are_not_finite_are_refused() -> None:
    registry = WeightRegistry()
    registry.publish(champion_state(1))
    with pytest.raises(LearningError, match="layer"):
        registry.publish(champion_state(2, np.nan))
    present = registry.state()
    assert present is not None and present.champion.number == 1


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_each_driver_has_a_registry_of_its_own_which_ends_with_it() -> None:
    @ray.remote(num_cpus=0)
    class Driver:
        def publish(self, number: int) -> RegistryAddress:
            where = RegistryAddress(registry_name(), "test-weights")
            self.registry = create_registry(where.namespace, name=where.name)
            ray.get(self.registry.publish.remote(champion_state(number)))
            return where

        def own(self) -> int:
            return ray.get(self.registry.state.remote()).champion.number

    first, second = Driver.remote(), Driver.remote()
    where = ray.get(first.publish.remote(3))
    ray.get(second.publish.remote(4))
    assert [ray.get(each.own.remote()) for each in (first, second)] == [3, 4]
    present = where.state()
    assert present is not None and present.champion.number == 3
    ray.kill(second)
    assert ray.get(first.own.remote()) == 3
    ray.kill(first)
    deadline = time.monotonic() + WAIT_S
    while where.state() is not None:
        assert time.monotonic() < deadline, "the registry outlives its driver"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_registry_that_was_killed_is_filled_again_from_disk(tmp_path: Path) -> None:
    champions = ChampionStore(tmp_path, keep=3)
    policy = Policy(SMALL, 7)
    champions.promote(
        lambda folder: write_module_weights(folder, policy.weights()),
        Promotion(5, PromotedBy.START, "the beginning"),
    )
    where = RegistryAddress(registry_name(), "test-weights")
    registry = create_registry(
        where.namespace, refill=partial(state_on_disk, tmp_path, 3), name=where.name
    )
    ray.kill(registry, no_restart=False)
    deadline = time.monotonic() + WAIT_S
    while (found := where.state()) is None:
        assert time.monotonic() < deadline, "the registry stays empty"
        time.sleep(0.1)
    assert (found.champion.number, found.champion.version) == (1, 5)
    for name, array in policy.weights().items():
        np.testing.assert_array_equal(found.champion.weights[name], array)
    ray.kill(registry)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_registry_that_hangs_is_found_and_one_in_its_place_holds_the_same(
    tmp_path: Path,
) -> None:
    ChampionStore(tmp_path, keep=3).promote(
        lambda folder: write_module_weights(folder, Policy(SMALL, 7).weights()),
        Promotion(5, PromotedBy.START, "the beginning"),
    )
    where = RegistryAddress(registry_name(), "test-weights")
    registry = create_registry(
        where.namespace, refill=partial(state_on_disk, tmp_path, 3), name=where.name
    )
    heartbeat, deadline = Heartbeat(), time.monotonic() + WAIT_S
    assert not heartbeat.is_lost(registry, time.monotonic(), 1.0)
    ray.get(registry.ping.remote())
    process = ray.get(registry.__ray_call__.remote(lambda _: os.getpid()))
    os.kill(process, signal.SIGSTOP)
    while not heartbeat.is_lost(registry, time.monotonic(), 1.0):
        assert time.monotonic() < deadline, "nobody notices"
        time.sleep(0.1)
    ray.kill(registry, no_restart=False)
    present = where.state()
    assert present is not None and present.champion.version == 5
    assert ray.get(registry.__ray_call__.remote(lambda _: os.getpid())) != process
    ray.kill(registry)


def test_without_a_champion_on_disk_a_registry_begins_empty(tmp_path: Path) -> None:
    assert WeightRegistry(partial(state_on_disk, tmp_path, 3)).state() is None
