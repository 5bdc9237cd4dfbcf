"""Which subscription goes to which connection."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trading.feed.allotment import Allotment


def needs(*names: str) -> dict[str, tuple[int, ...]]:
    return {name: (place, 0) for place, name in enumerate(names)}


def test_quotes_are_shared_out_evenly_and_other_channels_stay_together() -> None:
    allotment = Allotment(max_quotes=2)
    allotment.share_out(needs("AM.SPY", "Q.a", "Q.b", "T.*", "Q.c", "AM.*"), lines=[0, 1])
    assert {allotment.placed[name] for name in ("AM.SPY", "T.*", "AM.*")} == {0}
    quoted = Counter(line for name, line in allotment.placed.items() if name.startswith("Q."))
    assert sorted(quoted.values()) == [1, 2]
    assert not allotment.left_out


def test_what_is_needed_least_is_left_out_and_comes_in_when_there_is_room() -> None:
    allotment = Allotment(max_quotes=2)
    allotment.share_out(needs("Q.a", "Q.b", "Q.c"), lines=[0])
    assert allotment.left_out == {"Q.c"}
    allotment.share_out(needs("Q.c", "Q.a", "Q.b"), lines=[0])
    assert allotment.left_out == {"Q.b"}
    allotment.share_out(needs("Q.c", "Q.b"), lines=[0])
    assert not allotment.left_out


def test_without_a_connection_nothing_has_a_place() -> None:
    allotment = Allotment(max_quotes=2)
    allotment.share_out(needs("Q.a", "AM.SPY"), lines=[])
    assert (allotment.placed, allotment.left_out) == ({}, {"Q.a"})


names = st.lists(st.sampled_from([f"Q.{each}" for each in range(12)] + ["AM.*"]), unique=True)


@given(st.lists(st.tuples(names, st.lists(st.integers(0, 2), unique=True, min_size=1))))
def test_it_never_overfills_nor_moves_what_has_its_place(
    steps: list[tuple[list[str], list[int]]],
) -> None:
    allotment = Allotment(max_quotes=3)
    for wanted, lines in steps:
        before = dict(allotment.placed)
        allotment.share_out(needs(*wanted), lines)
        after = allotment.placed
        assert set(after) | allotment.left_out == set(wanted)
        quoted = Counter(line for name, line in after.items() if name.startswith("Q."))
        assert all(count <= 3 for count in quoted.values())
        assert set(after.values()) <= set(lines)
        assert all(
            after[name] == before[name]
            for name in after
            if name in before and before[name] in lines
        )
        chosen = [name for name in wanted if name.startswith("Q.")][: 3 * len(lines)]
        assert set(chosen) <= set(after)
