"""Fixtures of the learning tests."""

import os
from collections.abc import Iterator

import pytest
import torch

from tests.learning.algorithms import Build
from trading.learning.ppo import CLSTMPPO, CLSTMPPOConfig


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A small Ray of this test session's own, with a node that carries the resource `learner`."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        resources={"learner": 1},
        object_store_memory=100_000_000,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture
def build() -> Iterator[Build]:
    built: list[CLSTMPPO] = []

    def make(wanted: CLSTMPPOConfig) -> CLSTMPPO:
        built.append(wanted.build_algo())
        return built[-1]

    yield make
    for algorithm in built:
        algorithm.stop()
