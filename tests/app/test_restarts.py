"""A part that works in between may die as often as it likes; one that never works, a few times."""

from trading.app.restarts import Restarts
from trading.live.faults import MOST_FAULTS, WINDOW_S


def test_a_part_that_works_in_between_is_started_again_each_time() -> None:
    restarts = Restarts(lambda: 0.0)
    assert not any(restarts.is_spent(work_done) for work_done in range(1, 50))


def test_a_part_that_does_nothing_is_given_up() -> None:
    restarts = Restarts(lambda: 0.0)
    assert [restarts.is_spent(7) for _ in range(MOST_FAULTS + 1)] == [False] * MOST_FAULTS + [True]


def test_deaths_of_long_ago_do_not_count() -> None:
    now = [0.0]
    restarts = Restarts(lambda: now[0])
    for _ in range(5 * MOST_FAULTS):
        assert not restarts.is_spent(0)
        now[0] += WINDOW_S / MOST_FAULTS
