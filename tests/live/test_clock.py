"""What time a live market goes by: the machine's clock, held against the vendor's."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trading.errors import RestError
from trading.live.clock import LiveClock

SECOND = 1_000_000_000
START = 1_767_623_400 * SECOND


class World:
    """True time, and a machine whose clock is wrong by `off_s`."""

    def __init__(self, off_s: float = 0.0) -> None:
        self.passed_ns = 0
        self.off_s = off_s
        self.vendor_off_s = 0.0
        self.answers = True
        self.asked = 0
        self.way_s = 0.0
        """How long an answer is on its way, all of it behind the vendor's clock."""

    def true_ns(self) -> int:
        return START + self.passed_ns

    def machine_ns(self) -> int:
        return self.true_ns() + round(self.off_s * SECOND)

    def steady_ns(self) -> int:
        return 17 * SECOND + self.passed_ns

    def vendor_ns(self) -> int:
        self.asked += 1
        if not self.answers:
            raise RestError("/v1/marketstatus/now: no answer")
        told_ns = (self.true_ns() + round(self.vendor_off_s * SECOND)) // SECOND * SECOND
        self.passed_ns += round(self.way_s * SECOND)
        return told_ns

    def clock(self) -> "CheckedAtOnce":
        clock = CheckedAtOnce(self.machine_ns, self.vendor_ns, self.steady_ns)
        clock.check()
        return clock

    def error_s(self, clock: LiveClock) -> float:
        return abs(clock.now_ns() - self.true_ns()) / SECOND


class CheckedAtOnce(LiveClock):
    """Compares where the trading thread stands, so that a test knows when."""

    def check_soon(self) -> None:
        self.check()


def test_a_good_clock_is_believed_to_the_nanosecond() -> None:
    world = World()
    clock = world.clock()
    world.passed_ns += 100 * SECOND + 1
    assert clock.now_ns() == world.true_ns() and not clock.is_off and clock.steps == 0


@pytest.mark.parametrize("off_s", [3600.0, -3600.0, 26 * 3600.0, -30.0])
def test_a_machine_that_starts_with_a_wrong_clock_goes_by_the_vendors(off_s: float) -> None:
    world = World(off_s)
    clock = world.clock()
    assert world.error_s(clock) <= 1.0
    assert clock.is_off and clock.offset_s == pytest.approx(off_s, abs=1.0)


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 26 * 3600.0, 2.0, -2.0])
@pytest.mark.parametrize("answers", [True, False])
def test_a_step_of_the_machines_clock_moves_no_time(step_s: float, answers: bool) -> None:
    world = World()
    clock = world.clock()
    world.answers = answers
    world.passed_ns += SECOND
    world.off_s = step_s
    for _ in range(3):
        world.passed_ns += SECOND
        assert world.error_s(clock) <= 1.0
    assert clock.steps == 1
    assert clock.is_off is (abs(step_s) > 5.0)
    world.off_s, world.answers = 0.0, True
    world.passed_ns += SECOND
    assert world.error_s(clock) <= 1.0
    assert not clock.is_off


def test_without_an_answer_the_steady_clock_keeps_the_time_and_failures_are_counted() -> None:
    world = World()
    world.answers = False
    clock = world.clock()
    world.passed_ns += 3600 * SECOND
    assert world.error_s(clock) == 0.0
    assert clock.failures >= 1


def test_a_comparison_that_failed_is_made_again_soon() -> None:
    world = World(off_s=3600.0)
    clock = world.clock()
    world.answers = False
    clock.follow(1)
    world.answers = True
    failed = world.asked
    world.passed_ns += 14 * SECOND
    clock.now_ns()
    assert world.asked == failed
    world.passed_ns += 2 * SECOND
    clock.now_ns()
    assert world.asked == failed + 1 and clock.failures == 1
    world.passed_ns += 30 * SECOND
    clock.now_ns()
    assert world.asked == failed + 1, "the answer counts for ten minutes"


@pytest.mark.parametrize("way_s", [3.0, 9.0, 20.0])
def test_an_answer_that_took_long_does_not_make_a_good_clock_wrong(way_s: float) -> None:
    world = World()
    world.way_s = way_s
    clock = world.clock()
    assert not clock.is_off and abs(clock.offset_s) <= 1.0
    assert world.error_s(clock) == 0.0
    world.off_s = 3600.0
    clock.check()
    assert clock.is_off
    assert world.error_s(clock) <= 1.0 + way_s / 2


def test_a_first_answer_counts_though_no_second_one_comes() -> None:
    world = World(off_s=-90.0)
    world.way_s = 1.0
    clock = CheckedAtOnce(world.machine_ns, world.vendor_ns, world.steady_ns)
    tell = world.vendor_ns

    def once() -> int:
        told = tell()
        world.answers = False
        return told

    clock._vendor_ns = once
    clock.check()
    assert clock.is_off and clock.failures == 0


def test_connections_opened_anew_are_a_reason_to_compare() -> None:
    world = World()
    clock = world.clock()
    asked = world.asked
    clock.follow(0)
    assert world.asked == asked
    clock.follow(1)
    assert world.asked == asked + 1


@given(
    st.lists(st.tuples(st.floats(0.0, 2000.0), st.floats(-1e5, 1e5), st.booleans()), max_size=20)
)
@example([(1.5, 0.0, False), (1.5, 1.5, True)])
def test_no_history_of_steps_moves_time_by_more_than_the_vendor_tells(
    events: list[tuple[float, float, bool]],
) -> None:
    """A machine is believed to a second, and the vendor's seconds leave half of one open."""
    world = World()
    clock = world.clock()
    last_ns = clock.now_ns()
    for passed_s, off_s, answers in events:
        world.passed_ns += round(passed_s * SECOND)
        world.off_s, world.answers = off_s, answers
        assert world.error_s(clock) <= 1.5
        assert clock.now_ns() >= last_ns - 1.5 * SECOND
        last_ns = clock.now_ns()
