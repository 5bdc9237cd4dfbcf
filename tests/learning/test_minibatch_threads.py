"""A minibatch that is shared out among threads teaches what it teaches in one piece."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.learning.experience import random_rollout, small_network
from tests.usual import ppo_settings
from tests.waits import WAIT_S
from trading.learning.minibatch_threads import SMALLEST_SHARE, shared_out
from trading.learning.ppo_update import update


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def learned(threads: int, sequences: int = 40) -> tuple[dict[str, float], list[np.ndarray]]:
    """Statistics and weights after two passes over the same rollout by the same network."""
    torch.set_num_threads(threads)
    network = small_network(2)
    stats = update(
        network,
        torch.optim.Adam(network.parameters(), lr=1e-3),
        random_rollout(3, sequences=sequences, network=network),
        ppo_settings(epochs=2, minibatches=2),
        torch.Generator().manual_seed(4),
    )
    return stats, [parameter.detach().numpy() for parameter in network.parameters()]


@pytest.mark.usefixtures("two_threads")
def test_two_threads_learn_as_one() -> None:
    one, two, again = learned(1), learned(2), learned(2)
    assert two[0] == pytest.approx(one[0], rel=1e-3, abs=1e-5)
    for alone, together, repeated in zip(one[1], two[1], again[1], strict=True):
        np.testing.assert_allclose(together, alone, atol=1e-5)
        np.testing.assert_array_equal(together, repeated)


@pytest.mark.usefixtures("two_threads")
def test_each_share_has_a_thread_to_itself_and_results_keep_the_order() -> None:
    both_run = threading.Barrier(2, timeout=WAIT_S)
    inner: list[int] = []

    def work(share: torch.Tensor) -> torch.Tensor:
        both_run.wait()
        inner.append(torch.get_num_threads())
        return share

    columns = torch.arange(2 * SMALLEST_SHARE + 1)
    shares = shared_out(work, columns, threads=2)
    assert len(shares) == 2
    assert torch.equal(torch.cat(shares), columns)
    assert inner == [1, 1]
    assert torch.get_num_threads() == 2


def test_few_sequences_stay_in_one_piece_on_the_calling_thread() -> None:
    columns = torch.arange(2 * SMALLEST_SHARE - 1)
    callers = []

    def work(share: torch.Tensor) -> torch.Tensor:
        callers.append(threading.current_thread())
        return share

    assert [len(share) for share in shared_out(work, columns, threads=2)] == [len(columns)]
    assert callers == [threading.current_thread()]
