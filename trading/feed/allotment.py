"""Which subscription is made on which connection, and what there is no room for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

QUOTES = "Q."


class Allotment:
    """Shares subscriptions out among connections.

    A connection holds `max_quotes` contracts of quotes; of more than fit on all, those that are
    needed most are chosen. What has a place keeps it while it is needed enough, so that nobody's
    data are interrupted without need; what is new goes where most room is. Other channels have no
    limit and stay together, as `AM.*` and `AM.SPY` on two connections would tell the same twice.

    Parameters
    ----------
    max_quotes: contracts of quotes of one connection

    Attributes
    ----------
    placed: the connection of each name
    left_out: quotes that there is no room for
    """

    def __init__(self, max_quotes: int) -> None:
        self._max_quotes = max_quotes
        self.placed: dict[str, int] = {}
        self.left_out: frozenset[str] = frozenset()

    def share_out(self, needs: Mapping[str, tuple[int, ...]], lines: Sequence[int]) -> None:
        """Place the names of `needs`, whose lowest values are needed most, on `lines`."""
        quotes = sorted(
            (name for name in needs if name.startswith(QUOTES)), key=lambda name: needs[name]
        )
        room = self._max_quotes * len(lines)
        chosen = quotes[:room]
        self.left_out = frozenset(quotes[room:])
        others = [name for name in needs if not name.startswith(QUOTES)] if lines else []
        usable = set(lines)
        before = {name: line for name, line in self.placed.items() if line in usable}
        placed = {name: before[name] for name in (*chosen, *others) if name in before}
        taken = Counter(line for name, line in placed.items() if name.startswith(QUOTES))
        for name in chosen:
            if name not in placed:
                placed[name] = min(lines, key=lambda line: (taken[line], line))
                taken[placed[name]] += 1
        for name in others:
            placed.setdefault(name, lines[0])
        self.placed = placed
