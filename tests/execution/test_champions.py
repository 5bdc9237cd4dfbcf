"""Which policy may trade, and what a loss under it leads to, as a fold of the journal."""

from pathlib import Path

import pytest

from tests.execution.scene import NOW_NS, SECOND_NS, market, new_broker, open_order
from trading.errors import JournalError
from trading.execution.broker import PaperBroker
from trading.execution.events import (
    ChallengerRejected,
    ChampionPromoted,
    ChampionRolledBack,
    Compared,
    PromotedBy,
    RolledBackBy,
    WeightsAdopted,
)
from trading.execution.journal import Journal
from trading.execution.orders import Rejection, RejectReason
from trading.execution.states import TradingState

CAPITAL = 10_000.0


def promote(
    broker: PaperBroker,
    champion: int,
    by: PromotedBy = PromotedBy.GATE,
    equity: float = CAPITAL,
    ts_ns: int = NOW_NS,
) -> None:
    before = broker.account.champion
    event = ChampionPromoted(ts_ns, champion, 10 * champion, before, by, "because", equity)
    broker.change_champion(event, WeightsAdopted(ts_ns, 10 * champion, "digest"))


@pytest.fixture
def broker(tmp_path: Path) -> PaperBroker:
    """An account under its second champion."""
    made = new_broker(tmp_path, CAPITAL)
    promote(made, 1, PromotedBy.START)
    promote(made, 2)
    return made


def bar(broker: PaperBroker, equity: float, minute: int = 1) -> None:
    broker.on_bar(market(), NOW_NS + minute * 60 * SECOND_NS, equity=equity)


def standing(broker: PaperBroker) -> tuple[int, int, TradingState, str]:
    account = broker.account
    return account.champion, account.champion_before, account.trading_state, account.state_reason


def test_a_drawdown_under_a_champion_brings_the_one_before_back_and_leaves_only_closing(
    broker: PaperBroker, tmp_path: Path
) -> None:
    broker.close_session("2026-01-05", 11_000.0, NOW_NS)
    bar(broker, 10_500.0)
    assert standing(broker) == (2, 1, TradingState.ACTIVE, "")
    broker.close_session("2026-01-06", 10_300.0, NOW_NS + SECOND_NS)
    bar(broker, 10_110.0)
    assert standing(broker) == (1, 0, TradingState.REDUCING, RejectReason.CHAMPION_DRAWDOWN)
    account = broker.account
    assert (account.champion_version, account.newest_champion) == (10, 2)
    assert account.champion_peak_equity == 10_110.0
    events = list(broker.journal.events())
    (event,) = [each for each in events if isinstance(each, ChampionRolledBack)]
    assert (event.equity, event.peak, event.by) == (10_110.0, 11_000.0, RolledBackBy.DRAWDOWN)
    assert "8.09 %" in event.reason
    answer = broker.submit(open_order(broker, "long_call"), market(), True, NOW_NS)
    assert isinstance(answer, Rejection) and answer.reason is RejectReason.REDUCING
    broker.journal.close()
    with Journal(tmp_path / "journal.db") as journal:
        assert journal.fold().fingerprint() == account.fingerprint()


def test_a_champion_is_rolled_back_once(broker: PaperBroker) -> None:
    for minute in (1, 2):
        bar(broker, 9_150.0, minute)
        bar(broker, 9_100.0, minute)
    assert broker.account.rollbacks == 1


def test_without_an_earlier_champion_the_account_only_closes(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, CAPITAL)
    promote(broker, 1, PromotedBy.START)
    broker.close_session("2026-01-05", 9_600.0, NOW_NS)
    bar(broker, 9_180.0)
    assert standing(broker) == (1, 0, TradingState.REDUCING, RejectReason.CHAMPION_DRAWDOWN)


def test_an_account_without_champions_has_no_such_limit(tmp_path: Path) -> None:
    broker = new_broker(tmp_path, CAPITAL)
    broker.close_session("2026-01-05", 9_600.0, NOW_NS)
    bar(broker, 9_180.0)
    assert broker.account.trading_state is TradingState.ACTIVE


@pytest.mark.parametrize("by", list(PromotedBy)[1:])
def test_only_the_owners_choice_lets_the_account_open_again(
    broker: PaperBroker, by: PromotedBy
) -> None:
    broker.close_session("2026-01-05", 9_600.0, NOW_NS)
    bar(broker, 9_180.0)
    promote(broker, 3, by, equity=9_180.0)
    assert broker.account.champion == 3
    active = broker.account.trading_state is TradingState.ACTIVE
    assert active == (by is PromotedBy.OWNER) == (not broker.account.is_rolled_back)


def test_the_day_after_a_halt_the_account_still_only_closes(broker: PaperBroker) -> None:
    bar(broker, 9_100.0)
    assert broker.account.trading_state is TradingState.HALTED
    assert broker.account.champion == 1
    broker.close_session("2026-01-05", 9_100.0, NOW_NS + 120 * SECOND_NS)
    assert standing(broker) == (1, 0, TradingState.REDUCING, RejectReason.CHAMPION_DRAWDOWN)


def test_a_champion_that_an_owner_chose_counts_its_losses_from_then(broker: PaperBroker) -> None:
    broker.close_session("2026-01-05", 9_600.0, NOW_NS)
    promote(broker, 3, PromotedBy.OWNER, equity=9_500.0)
    bar(broker, 9_150.0)
    assert broker.account.champion == 3
    broker.close_session("2026-01-06", 9_150.0, NOW_NS + 60 * SECOND_NS)
    bar(broker, 8_700.0, 2)
    assert broker.account.champion == 2


def test_refusals_are_counted_by_check_and_once(broker: PaperBroker) -> None:
    compared = (Compared("simulated", 64, 0.1, -0.2, -0.3, -0.4, -0.2),)
    refusal = ChallengerRejected(
        NOW_NS, 1, 30, 2, ("kl", "worse"), "too far, and worse", 1, False, 0.5, compared
    )
    for _ in range(2):
        broker.record([refusal])
    account = broker.account
    assert (account.refusals, account.refusals_in_a_row) == (1, 1)
    assert account.refusals_by_check == {"kl": 1, "worse": 1}
    promote(broker, 3)
    assert (account.promotions, account.refusals_in_a_row) == (2, 0)
    with pytest.raises(JournalError, match="refusal of a challenger 3"):
        broker.account.apply(ChallengerRejected(NOW_NS, 3, 1, 2, ("kl",), "", 1, False))
