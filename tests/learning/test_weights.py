import numpy as np
import pytest
import ray

from trading.errors import LearningError
from trading.learning.weights import WeightRegistry, get_or_create


def weights(value: float) -> dict[str, np.ndarray]:
    return {"layer": np.full((2, 3), value, np.float32)}


def test_the_latest_is_the_one_published_last_even_when_it_is_older() -> None:
    registry = WeightRegistry(remember=2)
    assert registry.latest() is None
    assert registry.version() is None
    for version in (7, 8, 5):
        registry.publish(version, weights(version))
    version, latest = registry.latest()
    assert version == registry.version() == 5
    np.testing.assert_array_equal(latest["layer"], 5.0)
    assert registry.versions() == [8, 5]


def test_weights_that_are_not_finite_are_refused() -> None:
    registry = WeightRegistry()
    registry.publish(1, weights(1.0))
    with pytest.raises(LearningError, match="layer"):
        registry.publish(2, weights(np.nan))
    assert registry.version() == 1


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_weights_outlive_the_process_that_published_them() -> None:
    @ray.remote(num_cpus=0)
    class Trainer:
        def publish(self) -> None:
            registry = get_or_create("test-weights")
            ray.get(registry.publish.remote(3, weights(3.0)))

    trainer = Trainer.remote()
    ray.get(trainer.publish.remote())
    ray.kill(trainer)
    registry = get_or_create("test-weights")
    try:
        version, latest = ray.get(registry.latest.remote())
        assert version == 3
        np.testing.assert_array_equal(latest["layer"], 3.0)
    finally:
        ray.kill(registry)
