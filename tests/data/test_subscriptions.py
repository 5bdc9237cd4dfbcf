"""What the subscription tracker says about names asked for, answered and ticking."""

import pytest

from trading.data.massive.client.subscriptions import (
    SubscriptionCounts,
    SubscriptionTracker,
    check_name,
)
from trading.errors import StreamError

NAMES = ["Q.O:SPY251219C00650000", "Q.O:SPY251219P00650000", "AM.SPY", "T.SPY"]


def sent(names: list[str]) -> SubscriptionTracker:
    tracker = SubscriptionTracker()
    tracker.ask(names)
    tracker.take_unsent(len(names))
    return tracker


@pytest.mark.parametrize("name", [*NAMES, "T.*", "A.*", "AM.BRK.B", "Q.O:BRKB251219C00500000"])
def test_a_well_formed_name_passes(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", "Q", "Q.", "Q.*", "X.SPY", "q.SPY", "AM.SPY,QQQ", "AM. SPY"])
def test_a_malformed_name_is_refused_and_named(name: str) -> None:
    with pytest.raises(StreamError) as caught:
        check_name(name)
    assert repr(name) in str(caught.value)


def test_one_malformed_name_adds_none() -> None:
    tracker = SubscriptionTracker()
    with pytest.raises(StreamError):
        tracker.ask(["AM.SPY", "Q.*"])
    assert tracker.counts().asked == 0


def test_a_name_is_sent_once_however_often_it_is_asked_for() -> None:
    tracker = SubscriptionTracker()
    assert tracker.ask(["AM.SPY", "AM.SPY"]) == 1
    assert tracker.ask(["AM.SPY"]) == 0
    assert tracker.take_unsent(10) == ["AM.SPY"]
    assert tracker.take_unsent(10) == []


def test_names_are_sent_in_the_order_of_asking_and_at_most_so_many() -> None:
    tracker = SubscriptionTracker()
    tracker.ask(NAMES)
    assert tracker.take_unsent(3) == NAMES[:3]
    assert tracker.take_unsent(3) == NAMES[3:]


def test_counts_follow_each_name() -> None:
    tracker = sent(NAMES)
    tracker.acknowledge(NAMES[0])
    tracker.acknowledge(NAMES[1])
    tracker.refuse()
    tracker.tick([NAMES[0], "Q.never asked for"])
    assert tracker.counts() == SubscriptionCounts(
        asked=4, acknowledged=2, refused=1, unanswered=1, ticking=1
    )
    assert tracker.refused == [NAMES[2]]
    assert tracker.silent == [NAMES[1]]
    assert not tracker.is_answered


def test_everything_is_answered_once_the_last_name_is() -> None:
    tracker = SubscriptionTracker()
    assert tracker.is_answered
    tracker.ask(["AM.SPY"])
    assert not tracker.is_answered
    tracker.take_unsent(1)
    assert not tracker.is_answered
    tracker.acknowledge("AM.SPY")
    assert tracker.is_answered


def test_a_refusal_is_charged_behind_the_last_name_answered() -> None:
    tracker = sent(NAMES)
    tracker.acknowledge(NAMES[1])
    assert tracker.refuse() == NAMES[2]
    assert tracker.refuse() == NAMES[3]
    assert tracker.refuse() == NAMES[0]
    assert tracker.refuse() is None


def test_an_acknowledgement_overrides_a_wrong_charge() -> None:
    tracker = sent(NAMES)
    assert tracker.refuse() == NAMES[0]
    tracker.acknowledge(NAMES[0])
    assert tracker.refused == []
    assert tracker.counts().acknowledged == 1


def test_a_new_connection_asks_for_everything_again_and_trusts_no_old_answer() -> None:
    tracker = sent(NAMES)
    tracker.acknowledge(NAMES[0])
    tracker.refuse()
    tracker.tick(NAMES[:1])
    tracker.reconnected()
    assert tracker.counts() == SubscriptionCounts(4, 0, 0, 0, 0)
    assert tracker.take_unsent(10) == NAMES


def test_a_withdrawn_name_is_not_asked_for_again() -> None:
    tracker = sent(NAMES)
    tracker.acknowledge(NAMES[0])
    assert tracker.withdraw([NAMES[0], "AM.unknown"]) == 1
    assert tracker.take_withdrawn(10) == [NAMES[0]]
    assert tracker.take_withdrawn(10) == []
    tracker.acknowledge(NAMES[0])
    assert tracker.counts().acknowledged == 0
    tracker.reconnected()
    assert tracker.take_unsent(10) == NAMES[1:]


def test_a_name_withdrawn_before_it_was_sent_leaves_nothing_to_say() -> None:
    tracker = SubscriptionTracker()
    tracker.ask(["AM.SPY"])
    tracker.withdraw(["AM.SPY"])
    assert tracker.take_unsent(10) == []
    assert tracker.take_withdrawn(10) == []


def test_a_name_withdrawn_and_asked_for_again_is_unsubscribed_first() -> None:
    tracker = sent(["AM.SPY"])
    tracker.withdraw(["AM.SPY"])
    tracker.ask(["AM.SPY"])
    assert tracker.take_withdrawn(10) == ["AM.SPY"]
    assert tracker.take_unsent(10) == ["AM.SPY"]


def test_nothing_is_expected_when_everything_was_refused() -> None:
    tracker = SubscriptionTracker()
    assert tracker.expects_nothing
    tracker.ask(["AM.SPY", "AM.QQQ"])
    tracker.take_unsent(2)
    assert not tracker.expects_nothing
    tracker.refuse()
    tracker.refuse()
    assert tracker.expects_nothing
    tracker.acknowledge("AM.SPY")
    assert not tracker.expects_nothing


def test_what_is_needed_most_is_asked_for_again_last_and_first_after_a_reconnect() -> None:
    tracker = sent(NAMES)
    tracker.rank([NAMES[3], "Q.never asked for", NAMES[1], NAMES[2]])
    tracker.withdraw([NAMES[2]])
    # Each message goes in front of what was asked for before, so the last one stands first.
    assert tracker.take_ranked(2) == [NAMES[1]]
    assert tracker.take_ranked(2) == [NAMES[3]]
    assert tracker.take_ranked(2) == []
    tracker.reconnected()
    assert tracker.take_unsent(10) == [NAMES[3], NAMES[1], NAMES[0]]
    assert tracker.take_ranked(2) == []
