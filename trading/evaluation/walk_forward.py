"""Folds of a walk forward: train on the past, test on what follows, with a gap between."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from trading.errors import TradingError


class FoldsError(TradingError):
    """The days do not make the folds that were asked for."""


@dataclass(frozen=True)
class Fold:
    """Days to train on and days to test on, both in order."""

    train: tuple[date, ...]
    test: tuple[date, ...]


def walk_forward(
    days: Sequence[date], *, folds: int, test_days: int, purge: int = 0, embargo: int = 0
) -> list[Fold]:
    """Folds whose test days are the last `folds * test_days` days, earliest fold first.

    A fold trains on all days before its test but the `purge` days right before it, and but the
    `embargo` days after the test of every earlier fold (López de Prado 2018, chapter 7). Counts
    are of days that are present.

    Raises
    ------
    FoldsError
        A count is out of range, days are not in strict order, or a fold would have no day to train
        on.
    """
    if folds < 1 or test_days < 1 or purge < 0 or embargo < 0:
        raise FoldsError(
            f"folds={folds} and test_days={test_days} must be at least 1, "
            f"purge={purge} and embargo={embargo} at least 0"
        )
    if any(b <= a for a, b in pairwise(days)):
        raise FoldsError("days must be in order, each once")
    first = len(days) - folds * test_days
    result = []
    for fold in range(folds):
        start = first + fold * test_days
        kept_out: set[int] = set()
        for earlier in range(fold):
            end = first + (earlier + 1) * test_days
            kept_out.update(range(end, end + embargo))
        train = tuple(days[i] for i in range(max(start - purge, 0)) if i not in kept_out)
        if start < 0 or not train:
            raise FoldsError(
                f"{len(days)} days leave none to train on with folds={folds}, "
                f"test_days={test_days}, purge={purge}, embargo={embargo}: ask for fewer folds"
            )
        result.append(Fold(train, tuple(days[start : start + test_days])))
    return result
