"""Whether one of two traders is not worse than the other by more than a margin, by paired sessions.

A test of non-inferiority (Piaggio et al. 2012, the CONSORT statement on such trials): one passes
where the lower bound of the mean difference is above minus the margin.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from trading.execution.events import Compared
from trading.learning.champion.gate_sessions import ENOUGH_SESSIONS

Returns = npt.NDArray[np.float64]

WORSE, UNPROVEN, DRIFTED = "worse", "unproven", "drifted"


def spent_confidence(confidence: float, judgement: int) -> float:
    """Of the lower bound of the k-th judgement against one champion, k from 1.

    It spends 1 / (k (k + 1)) of the allowed error; over all judgements that adds up to all of it.
    """
    return 1.0 - (1.0 - confidence) / (judgement * (judgement + 1))


class Levels:
    """How far above the first champion the present one and the best one are, by set, in percent."""

    def __init__(self) -> None:
        self.digest = ""
        """Of the present champion."""
        self._present: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self._passed: dict[str, tuple[Compared, ...]] = {}
        """The last challenger that passed, by its digest: it may become the champion."""

    def begin(self, digest: str) -> None:
        """Another champion: one that passed, or its owner's, with whom everything begins anew."""
        passed = self._passed.get(digest)
        if passed is None:
            self._present, self._best = {}, {}
        for each in passed or ():
            level = self._present.get(each.held_out, 0.0) + each.difference
            self._present[each.held_out] = level
            self._best[each.held_out] = max(self._best.get(each.held_out, 0.0), level)
        self.digest, self._passed = digest, {}

    def passed(self, digest: str, compared: Sequence[Compared]) -> None:
        """Note that a challenger passed."""
        self._passed = {digest: tuple(compared)}

    def below_best(self, each: Compared) -> float:
        """By how much a challenger is below the best champion."""
        level = self._present.get(each.held_out, 0.0) + each.difference
        return self._best.get(each.held_out, 0.0) - level


def compare(
    held_out: str,
    champion: Returns,
    challenger: Returns,
    confidence: float,
    upper: float | None = None,
) -> Compared:
    """Session returns of both, paired; bounds of the mean difference by Student's t.

    `confidence` is that of the lower bound, and of the upper one where `upper` is not given.
    """
    difference = 100.0 * (challenger - champion)
    count, mean = len(difference), float(difference.mean())
    low = high = None
    if count >= ENOUGH_SESSIONS:
        error = float(difference.std(ddof=1)) / math.sqrt(count)
        low = mean - float(stdtrit(count - 1, confidence)) * error
        high = mean + float(stdtrit(count - 1, upper or confidence)) * error
    return Compared(
        held_out,
        count,
        100.0 * float(champion.mean()),
        100.0 * float(challenger.mean()),
        mean,
        low,
        high,
    )


def not_proven(each: Compared, margin_pct: float) -> tuple[str, str] | None:
    """Why a challenger does not count as not worse by more than the margin; None where it does."""
    at_least = each.difference if each.low is None else each.low
    if at_least > -margin_pct:
        return None
    lost = f"{each.difference:+.3f} % a session on {each.held_out}"
    if each.high is None:
        return UNPROVEN, f"{lost} ({each.sessions} episodes)"
    if each.high < 0.0:
        return WORSE, f"{lost}, at most {each.high:+.3f} %"
    return UNPROVEN, f"{lost}, perhaps {each.low:+.3f} %"


def chances(
    compared: Sequence[Compared], confidence: float, margin_pct: float
) -> tuple[tuple[float, float], ...]:
    """With what probability a challenger passes that is really worse, on the largest set.

    For losses of none, one, two and four margins. As if differences varied as they did here.
    """
    bounded = [each for each in compared if each.low is not None]
    if not bounded:
        return ()
    largest = max(bounded, key=lambda each: each.sessions)
    degrees = largest.sessions - 1
    critical = float(stdtrit(degrees, confidence))
    error = (largest.difference - float(largest.low or 0.0)) / critical
    if not error > 0.0:
        return ()
    return tuple(
        (
            times * margin_pct,
            float(stdtr(degrees, (1.0 - times) * margin_pct / error - critical)),
        )
        for times in (0.0, 1.0, 2.0, 4.0)
    )
