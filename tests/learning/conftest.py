"""Fixtures of the learning tests."""

from collections.abc import Iterator

import pytest
import torch

from tests.learning.algorithms import Build
from trading.learning.ppo import CLSTMPPO, CLSTMPPOConfig


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def build() -> Iterator[Build]:
    built: list[CLSTMPPO] = []

    def make(wanted: CLSTMPPOConfig) -> CLSTMPPO:
        built.append(wanted.build_algo())
        return built[-1]

    yield make
    for algorithm in built:
        algorithm.stop()
