import numpy as np
import pytest
import ray

from trading.errors import LearningError
from trading.execution.events import ChampionPromoted, PromotedBy
from trading.learning.champions import Champion, Standing
from trading.learning.weights import Reign, WeightRegistry, get_or_create


def reign(number: int, value: float | None = None) -> Reign:
    change = ChampionPromoted(0, number, 10 * number, 0, PromotedBy.GATE, "", 0.0)
    weights = {"layer": np.full((2, 3), number if value is None else value, np.float32)}
    return Reign(Standing(1, number, 0, change), Champion(number, 10 * number, weights), None)


def test_the_reign_is_the_one_published_last_even_when_it_is_older() -> None:
    registry = WeightRegistry()
    assert registry.reign() is None
    for number in (7, 8, 5):
        registry.publish(reign(number))
    present = registry.reign()
    assert present is not None and present.champion.number == 5
    np.testing.assert_array_equal(present.champion.weights["layer"], 5.0)


def test_weights_that_are_not_finite_are_refused() -> None:
    registry = WeightRegistry()
    registry.publish(reign(1))
    with pytest.raises(LearningError, match="layer"):
        registry.publish(reign(2, np.nan))
    present = registry.reign()
    assert present is not None and present.champion.number == 1


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_reign_outlives_the_process_that_published_it() -> None:
    @ray.remote(num_cpus=0)
    class Driver:
        def publish(self) -> None:
            registry = get_or_create("test-weights")
            ray.get(registry.publish.remote(reign(3)))

    driver = Driver.remote()
    ray.get(driver.publish.remote())
    ray.kill(driver)
    registry = get_or_create("test-weights")
    try:
        present = ray.get(registry.reign.remote())
        assert present.standing.champion == 3
        np.testing.assert_array_equal(present.champion.weights["layer"], 3.0)
    finally:
        ray.kill(registry)
