"""Recorded days that accounts trade together: the same session of several underlyings."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trading.envs.rules import NO_LEG
from trading.market.chain import I64


class CommonDays(NamedTuple):
    """What an account may trade in a session; each of an account that trades one is a day."""

    days: I64
    """[J, K], days of the history, one underlying each."""
    following: I64
    """[J], which of them goes on from each; -1 where none does."""


def common_days(
    underlyings: Sequence[str],
    dates: Sequence[str],
    ends_ns: Sequence[NDArray[np.int64]],
    following: I64,
    count: int,
    *,
    each_once: bool = False,
) -> CommonDays:
    """Return the sessions of `count` underlyings that a history has of one date, bar for bar.

    They stand in the order of the history, as underlyings stand in `symbols` live.

    Parameters
    ----------
    underlyings, dates
        Of the history's D days.
    ends_ns
        When the bars of each day end: days with other bars are not traded together.
    following
        [D], of each day the one that goes on from it, -1 where none does.
    count
        K, underlyings of an account.
    each_once
        Whether no underlying is in two of them, as far as their number allows; otherwise all
        neighbours in the list trade together, first and last too.
    """
    if count == 1:
        return CommonDays(np.arange(len(dates), dtype=np.int64)[:, None], following)
    names = list(dict.fromkeys(underlyings))
    together: dict[tuple[str, bytes], dict[str, int]] = {}
    for day, (name, date, ends) in enumerate(zip(underlyings, dates, ends_ns, strict=True)):
        together.setdefault((date, ends.tobytes()), {})[name] = day
    found: dict[tuple[int, ...], int] = {}
    for chosen in _chosen(len(names), count, each_once):
        for by_name in together.values():
            days = [by_name.get(names[k]) for k in chosen]
            if None not in days:
                found.setdefault(tuple(day for day in days if day is not None), len(found))
    table = np.array(list(found), dtype=np.int64).reshape(-1, count)
    after = [found.get(tuple(days), NO_LEG) for days in following[table].tolist()]
    return CommonDays(table, np.array(after, dtype=np.int64))


def _chosen(total: int, count: int, each_once: bool) -> list[tuple[int, ...]]:
    """Return the choices of `count` among so many underlyings."""
    if total < count:
        return []
    if total == count:
        return [tuple(range(count))]
    if each_once:
        # The last ones fill up with some that are traded before.
        firsts = [min(first, total - count) for first in range(0, total, count)]
        return [tuple(range(first, first + count)) for first in firsts]
    return [tuple(sorted((first + k) % total for k in range(count))) for first in range(total)]
