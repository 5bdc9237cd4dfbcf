"""Where the learner runs."""

import pytest

from trading.config import load_settings
from trading.learning.build import Placement, place_learner


@pytest.mark.parametrize(
    ("overrides", "gpus", "expected"),
    [
        ([], 0.0, Placement(0, 0, {})),
        ([], 2.0, Placement(1, 1, {})),
        (["learning.num_learners=2"], 2.0, Placement(2, 1, {})),
        (["learning.num_learners=1"], 0.0, Placement(1, 0, {})),
        (["learning.num_learners=0"], 1.0, Placement(0, 0, {})),
        (["learning.learner_resource=learner"], 0.0, Placement(1, 0, {"learner": 1.0})),
        (["learning.learner_resource=learner"], 1.0, Placement(1, 1, {"learner": 1.0})),
    ],
)
def test_the_learner_takes_a_gpu_where_there_is_one(
    overrides: list[str], gpus: float, expected: Placement
) -> None:
    assert place_learner(load_settings(None, overrides, {}), gpus) == expected


def test_the_placement_is_told_in_one_line() -> None:
    assert "GPU" in Placement(1, 1, {}).describe()
    assert "CPU" in Placement(0, 0, {}).describe()
    assert "'learner'" in Placement(1, 0, {"learner": 1.0}).describe()
