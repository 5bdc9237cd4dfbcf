"""A journal is searched while it is written, within bounds."""

from pathlib import Path

import pytest

from tests.execution.scene import new_broker
from trading.errors import JournalError
from trading.execution.events import DecisionMade, OrderRejected, UnderlyingSuspended
from trading.execution.journal import event_search as journal_search
from trading.execution.journal.event_search import MOST_ROWS, Query, search
from trading.execution.orders import Rejection, RejectReason


@pytest.fixture
def path(tmp_path: Path) -> Path:
    broker = new_broker(tmp_path)
    begun = broker.account.last_ts_ns
    events = [
        DecisionMade(begun + n, "SPY" if n % 2 else 'A"B', n % 3, "hold", 1, 0.0, 0.0)
        for n in range(1, 301)
    ]
    broker.record(events)
    for n in range(1, 13):
        at = begun + 300 + n
        why = RejectReason.CROSSED
        broker.record([OrderRejected(at, Rejection(f"paper-{n}", at, why, "bid above ask"))])
    broker.record([UnderlyingSuspended(begun + 313, 1, "SPY", "halted")])
    return broker.journal.path  # still open: who writes is not in the way of who reads


def test_the_newest_come_first_and_a_further_search_goes_on(path: Path) -> None:
    first = search(path, Query(most=3))
    assert [row["kind"] for row in first.rows] == [
        "underlying_suspended",
        "order_rejected",
        "order_rejected",
    ]
    seqs = [row["seq"] for row in first.rows]
    following = search(path, Query(most=2, before=first.before))
    assert [row["seq"] for row in following.rows] == [seqs[-1] - 1, seqs[-1] - 2]


def test_an_order_is_not_taken_for_another(path: Path) -> None:
    found = search(path, Query(order="paper-1"))
    assert [row["event"]["rejection"]["order_id"] for row in found.rows] == ["paper-1"]
    assert found.rows[0]["said"] == "paper-1 crossed: bid above ask"
    assert found.before is None


def test_symbols_kinds_and_times_narrow_it(path: Path) -> None:
    everything = search(path, Query(most=1)).rows[0]["ts_ns"]
    spy = search(path, Query(symbol="SPY", most=MOST_ROWS))
    assert len(spy.rows) == 151
    odd = search(path, Query(symbol='A"B', most=MOST_ROWS))
    assert len(odd.rows) == 150
    assert search(path, Query(symbol="SP")).rows == []
    assert len(search(path, Query(symbol="SPY", kind="underlying_suspended")).rows) == 1
    late = search(path, Query(since_ns=everything - 1, until_ns=everything))
    assert [row["ts_ns"] for row in late.rows] == [everything, everything - 1]


@pytest.mark.parametrize("stretch", [1, 7, 1000])
def test_stretches_lose_nothing(path: Path, monkeypatch: pytest.MonkeyPatch, stretch: int) -> None:
    monkeypatch.setattr(journal_search, "_LATER_ROWS", stretch)
    seen: list[int] = []
    before: int | None = None
    while True:
        found = search(path, Query(symbol="SPY", before=before, most=10))
        seen += [row["seq"] for row in found.rows]
        before = found.before
        if before is None:
            break
    assert len(seen) == 151 and seen == sorted(set(seen), reverse=True)


def test_a_search_that_takes_too_long_says_how_far_it_came(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_search, "LONGEST_S", -1.0)
    found = search(path, Query(symbol="SPY", before=200))
    assert found.rows == [] and found.before == 200


def test_without_a_journal_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal at"):
        search(tmp_path / "none.sqlite", Query())
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"no journal" * 100)
    with pytest.raises(JournalError, match="cannot be read now"):
        search(damaged, Query())
