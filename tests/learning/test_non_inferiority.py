"""How often the gate errs, by simulation, and how levels add up."""

import numpy as np
import pytest

from trading.execution.events import Compared
from trading.learning.champion.non_inferiority import (
    Levels,
    chances,
    compare,
    not_proven,
    spent_confidence,
)

MARGIN, DEVIATION, SESSIONS = 0.02, 0.095, 24
"""Percent a session: 24 episodes of ten sessions whose paired differences deviate by 0.3 %."""


def passes(loss: float, judgement: int, rng: np.random.Generator) -> bool:
    """Whether one that is really worse by so many percent a session passes its judgement."""
    champion = rng.normal(0.0, 0.01, SESSIONS)
    difference = rng.normal(-loss, DEVIATION, SESSIONS) / 100.0
    confidence = spent_confidence(0.95, judgement)
    each = compare("set", champion, champion + difference, confidence, 0.95)
    return not_proven(each, MARGIN) is None


def test_the_error_spent_adds_up_to_what_is_allowed() -> None:
    spent = [1.0 - spent_confidence(0.95, k) for k in range(1, 1000)]
    assert sum(spent) == pytest.approx(0.05, rel=2e-3)
    assert spent == sorted(spent, reverse=True)


def test_asking_again_and_again_gets_no_worse_challenger_through() -> None:
    """Thirty judgements against each of 400 champions, of challengers that lose the margin."""
    rng = np.random.default_rng(1)
    wrong = sum(any(passes(MARGIN, k, rng) for k in range(1, 31)) for _ in range(400))
    assert wrong / 400 <= 0.05 + 2.0 * np.sqrt(0.05 * 0.95 / 400)
    naive = sum(any(passes(MARGIN, 1, rng) for _ in range(30)) for _ in range(100))
    assert naive / 100 > 0.3, "the test would see the difference"


@pytest.mark.parametrize("judgement", [1, 4])
def test_chances_are_those_of_simulation(judgement: int) -> None:
    rng = np.random.default_rng(2)
    champion = rng.normal(0.0, 0.01, 4000)
    noise = rng.normal(0.0, DEVIATION, 4000) / 100.0
    noise = (noise - noise.mean()) * (DEVIATION / 100.0 / noise.std(ddof=1))
    confidence = spent_confidence(0.95, judgement)
    many = compare("set", champion, champion + noise, confidence)
    scale = np.sqrt(SESSIONS / 4000)
    low = many.difference - (many.difference - (many.low or 0.0)) / scale
    told = dict(chances([Compared("set", SESSIONS, 0, 0, 0.0, low, 1.0)], confidence, MARGIN))
    assert list(told) == [0.0, MARGIN, 2 * MARGIN, 4 * MARGIN]
    for loss in (0.0, MARGIN):
        found = np.mean([passes(loss, judgement, rng) for _ in range(2000)])
        assert told[loss] == pytest.approx(found, abs=0.02)


def test_sets_without_bounds_tell_no_chances() -> None:
    assert chances([Compared("few", 3, 0, 0, 0.0, None, None)], 0.95, MARGIN) == ()
    assert chances([Compared("equal", 64, 0, 0, 0.0, 0.0, 0.0)], 0.95, MARGIN) == ()


def difference(value: float) -> Compared:
    return Compared("set", 64, 0.0, value, value, value, value)


def test_levels_add_up_differences_and_begin_anew_with_an_owners_champion() -> None:
    levels = Levels()
    levels.begin("first")
    for digest, gain in (("second", 0.5), ("third", -0.3)):
        assert levels.below_best(difference(gain)) == pytest.approx(-gain)
        levels.passed(digest, [difference(gain)])
        levels.begin(digest)
    assert levels.below_best(difference(-0.1)) == pytest.approx(0.4)
    levels.passed("withdrawn", [difference(-0.1)])
    levels.begin("its owner's")
    assert levels.below_best(difference(-0.1)) == pytest.approx(0.1)
