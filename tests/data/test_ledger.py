"""What the subscription ledger says about names asked for, answered and ticking."""

import pytest

from trading.data.massive.client.subscriptions import LedgerCounts, SubscriptionLedger, check_name
from trading.errors import StreamError

NAMES = ["Q.O:SPY251219C00650000", "Q.O:SPY251219P00650000", "AM.SPY", "T.SPY"]


def sent(names: list[str]) -> SubscriptionLedger:
    ledger = SubscriptionLedger()
    ledger.ask(names)
    ledger.take_unsent(len(names))
    return ledger


@pytest.mark.parametrize("name", [*NAMES, "T.*", "A.*", "AM.BRK.B", "Q.O:BRKB251219C00500000"])
def test_a_well_formed_name_passes(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", "Q", "Q.", "Q.*", "X.SPY", "q.SPY", "AM.SPY,QQQ", "AM. SPY"])
def test_a_malformed_name_is_refused_and_named(name: str) -> None:
    with pytest.raises(StreamError) as caught:
        check_name(name)
    assert repr(name) in str(caught.value)


def test_one_malformed_name_adds_none() -> None:
    ledger = SubscriptionLedger()
    with pytest.raises(StreamError):
        ledger.ask(["AM.SPY", "Q.*"])
    assert ledger.counts().asked == 0


def test_a_name_is_sent_once_however_often_it_is_asked_for() -> None:
    ledger = SubscriptionLedger()
    assert ledger.ask(["AM.SPY", "AM.SPY"]) == 1
    assert ledger.ask(["AM.SPY"]) == 0
    assert ledger.take_unsent(10) == ["AM.SPY"]
    assert ledger.take_unsent(10) == []


def test_names_are_sent_in_the_order_of_asking_and_at_most_so_many() -> None:
    ledger = SubscriptionLedger()
    ledger.ask(NAMES)
    assert ledger.take_unsent(3) == NAMES[:3]
    assert ledger.take_unsent(3) == NAMES[3:]


def test_counts_follow_each_name() -> None:
    ledger = sent(NAMES)
    ledger.acknowledge(NAMES[0])
    ledger.acknowledge(NAMES[1])
    ledger.refuse()
    ledger.tick([NAMES[0], "Q.never asked for"])
    assert ledger.counts() == LedgerCounts(
        asked=4, acknowledged=2, refused=1, unanswered=1, ticking=1
    )
    assert ledger.refused == [NAMES[2]]
    assert ledger.silent == [NAMES[1]]
    assert not ledger.is_answered


def test_everything_is_answered_once_the_last_name_is() -> None:
    ledger = SubscriptionLedger()
    assert ledger.is_answered
    ledger.ask(["AM.SPY"])
    assert not ledger.is_answered
    ledger.take_unsent(1)
    assert not ledger.is_answered
    ledger.acknowledge("AM.SPY")
    assert ledger.is_answered


def test_a_refusal_is_charged_behind_the_last_name_answered() -> None:
    ledger = sent(NAMES)
    ledger.acknowledge(NAMES[1])
    assert ledger.refuse() == NAMES[2]
    assert ledger.refuse() == NAMES[3]
    assert ledger.refuse() == NAMES[0]
    assert ledger.refuse() is None


def test_an_acknowledgement_overrides_a_wrong_charge() -> None:
    ledger = sent(NAMES)
    assert ledger.refuse() == NAMES[0]
    ledger.acknowledge(NAMES[0])
    assert ledger.refused == []
    assert ledger.counts().acknowledged == 1


def test_a_new_connection_asks_for_everything_again_and_trusts_no_old_answer() -> None:
    ledger = sent(NAMES)
    ledger.acknowledge(NAMES[0])
    ledger.refuse()
    ledger.tick(NAMES[:1])
    ledger.reconnected()
    assert ledger.counts() == LedgerCounts(4, 0, 0, 0, 0)
    assert ledger.take_unsent(10) == NAMES


def test_a_withdrawn_name_is_not_asked_for_again() -> None:
    ledger = sent(NAMES)
    ledger.acknowledge(NAMES[0])
    assert ledger.withdraw([NAMES[0], "AM.unknown"]) == 1
    assert ledger.take_withdrawn(10) == [NAMES[0]]
    assert ledger.take_withdrawn(10) == []
    ledger.acknowledge(NAMES[0])
    assert ledger.counts().acknowledged == 0
    ledger.reconnected()
    assert ledger.take_unsent(10) == NAMES[1:]


def test_a_name_withdrawn_before_it_was_sent_leaves_nothing_to_say() -> None:
    ledger = SubscriptionLedger()
    ledger.ask(["AM.SPY"])
    ledger.withdraw(["AM.SPY"])
    assert ledger.take_unsent(10) == []
    assert ledger.take_withdrawn(10) == []


def test_a_name_withdrawn_and_asked_for_again_is_unsubscribed_first() -> None:
    ledger = sent(["AM.SPY"])
    ledger.withdraw(["AM.SPY"])
    ledger.ask(["AM.SPY"])
    assert ledger.take_withdrawn(10) == ["AM.SPY"]
    assert ledger.take_unsent(10) == ["AM.SPY"]


def test_nothing_is_expected_when_everything_was_refused() -> None:
    ledger = SubscriptionLedger()
    assert ledger.expects_nothing
    ledger.ask(["AM.SPY", "AM.QQQ"])
    ledger.take_unsent(2)
    assert not ledger.expects_nothing
    ledger.refuse()
    ledger.refuse()
    assert ledger.expects_nothing
    ledger.acknowledge("AM.SPY")
    assert not ledger.expects_nothing


def test_what_is_needed_most_is_asked_for_again_last_and_first_after_a_reconnect() -> None:
    ledger = sent(NAMES)
    ledger.rank([NAMES[3], "Q.never asked for", NAMES[1], NAMES[2]])
    ledger.withdraw([NAMES[2]])
    # Each message goes in front of what was asked for before, so the last one stands first.
    assert ledger.take_ranked(2) == [NAMES[1]]
    assert ledger.take_ranked(2) == [NAMES[3]]
    assert ledger.take_ranked(2) == []
    ledger.reconnected()
    assert ledger.take_unsent(10) == [NAMES[3], NAMES[1], NAMES[0]]
    assert ledger.take_ranked(2) == []
