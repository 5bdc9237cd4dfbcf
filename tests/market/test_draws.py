"""Cheap draws have the moments of the laws they stand for, and no order among them."""

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from trading.market.draws import bits_at, draw_key, exponential_of, normal_of, uniform_of

COUNT = 1 << 18


@njit  # type: ignore[untyped-decorator]
def _sample(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    sample = np.empty((5, count))
    key = draw_key(rng)
    for i in range(count):
        bits = bits_at(key, i)
        sample[0, i] = normal_of(bits, 0)
        sample[1, i] = normal_of(bits, 10)
        sample[2, i] = exponential_of(bits, 20)
        sample[3, i] = uniform_of(bits, 30, 20)
        sample[4, i] = uniform_of(bits, 50, 14)
    return sample


SAMPLE = _sample(np.random.default_rng(1), COUNT)


def test_normal_draws_have_mean_zero_and_variance_one() -> None:
    for row in SAMPLE[:2]:
        assert row.mean() == pytest.approx(0.0, abs=0.01)
        assert row.std() == pytest.approx(1.0, abs=0.01)
        assert np.mean(row**4) == pytest.approx(3.0, abs=0.15)
        assert np.abs(row).max() <= 3.3


def test_exponential_draws_have_mean_and_deviation_one() -> None:
    assert SAMPLE[2].min() > 0.0
    assert SAMPLE[2].mean() == pytest.approx(1.0, abs=0.01)
    assert SAMPLE[2].std() == pytest.approx(1.0, abs=0.02)


def test_uniform_draws_fill_the_unit_interval_evenly() -> None:
    for row in SAMPLE[3:]:
        counts = np.histogram(row, 64, (0.0, 1.0))[0]
        assert np.abs(counts / (COUNT / 64) - 1.0).max() < 0.08
        assert row.max() < 1.0


def test_draws_from_other_bits_and_from_neighbouring_positions_are_unrelated() -> None:
    noise = 5.0 / np.sqrt(COUNT)
    apart = np.corrcoef(SAMPLE) - np.eye(5)
    assert np.abs(apart).max() < noise
    for row in SAMPLE:
        assert abs(np.corrcoef(row[1:], row[:-1])[0, 1]) < noise


def test_one_generator_gives_one_sequence_and_the_next_another() -> None:
    rng = np.random.default_rng(1)
    assert np.array_equal(_sample(rng, COUNT), SAMPLE)
    assert not np.array_equal(_sample(rng, COUNT), SAMPLE)
