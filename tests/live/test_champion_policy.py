"""Which policy trades, by decisions, by drawdowns, and after a death in between."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.execution.scene import NOW_NS, SECOND_NS, market, new_broker
from trading.config import Settings
from trading.execution.broker import PaperBroker
from trading.execution.events import (
    ChallengerRefused,
    ChampionPromoted,
    ChampionRolledBack,
    PromotedBy,
    RolledBackBy,
    WeightsAdopted,
)
from trading.execution.journal import Journal
from trading.execution.orders import RejectReason
from trading.execution.risk import RiskLimits
from trading.execution.states import TradingState
from trading.learning.champion.manager import AccountChampion, PromotionDecision
from trading.learning.champion.registry import ChampionState
from trading.learning.champion.store import Champion, ChampionPointer, weights_digest
from trading.learning.clstm import CLSTMConfig
from trading.learning.policy import Policy
from trading.live import assembly
from trading.live.champion_policy import ChampionPolicy

CAPITAL = 10_000.0
CONFIG = CLSTMConfig(2, 2, feature_hidden=2, actor_hidden=2, critic_hidden=2)


@cache
def champion(number: int) -> Champion:
    return Champion(number, 10 * number, Policy(CONFIG, number).weights())


def promoted(number: int, before: int, by: PromotedBy = PromotedBy.GATE) -> ChampionPromoted:
    return ChampionPromoted(0, number, 10 * number, before, by, "because", 0.0)


def champion_state(number: int, before: int = 0, change: object = None) -> ChampionState:
    made = change or promoted(number, before)
    pointer = ChampionPointer(1, number, before, made)  # type: ignore[arg-type]
    return ChampionState(pointer, champion(number), champion(before) if before else None)


class Live:
    """An account's champion_policy, as a process that can die."""

    def __init__(self, folder: Path, present: ChampionState) -> None:
        self.broker = new_broker(folder, CAPITAL)
        self.policy = Policy(CONFIG, 99)
        self.champion_policy = ChampionPolicy(self.broker, self.policy, present)
        self.champion_policy.begin(NOW_NS)

    def take(self, event: object, number: int = 0, equity: float = CAPITAL) -> None:
        decision = PromotionDecision(event, champion(number) if number else None)  # type: ignore[arg-type]
        self.champion_policy.take(decision, NOW_NS + SECOND_NS, equity)

    def fall(self) -> None:
        """A drawdown under the champion, as the broker finds it at a bar."""
        account = self.broker.account
        equity = account.champion_peak_equity * 0.915
        self.broker.close_session("2026-01-05", equity / 0.96, NOW_NS + 2 * SECOND_NS)
        self.broker.on_bar(market(), NOW_NS + 3 * SECOND_NS, equity=equity)

    def trades(self) -> int:
        """The champion whose weights the policy has."""
        digest = weights_digest(self.policy.weights())
        (number,) = (n for n in range(1, 9) if weights_digest(champion(n).weights) == digest)
        return number

    def events(self, kind: type) -> list[object]:
        return [each for each in self.broker.journal.events() if isinstance(each, kind)]

    def die(self) -> None:
        self.broker.journal.close()


@pytest.fixture
def live(tmp_path: Path) -> Live:
    """Champion 2 trades, after champion 1."""
    made = Live(tmp_path, champion_state(1))
    made.take(promoted(2, 1), 2)
    return made


def test_the_first_champion_is_journalled_as_the_start(tmp_path: Path) -> None:
    live = Live(tmp_path, champion_state(3, 2))
    (event,) = live.events(ChampionPromoted)
    assert isinstance(event, ChampionPromoted)
    assert (event.champion, event.by, event.equity) == (3, PromotedBy.START, CAPITAL)
    (adopted,) = live.events(WeightsAdopted)
    assert isinstance(adopted, WeightsAdopted)
    assert adopted.digest == weights_digest(champion(3).weights)
    assert live.trades() == 3
    assert live.champion_policy.account_champion == AccountChampion(3, 3, 0, 0)


def test_a_promotion_is_journalled_with_what_it_adopts(live: Live) -> None:
    assert live.trades() == 2 and live.champion_policy.version == 20
    assert [type(each) for each in live.broker.journal.events()][-2:] == [
        ChampionPromoted,
        WeightsAdopted,
    ]
    assert live.broker.account.champion_before == 1


def test_a_ruling_that_comes_twice_is_journalled_once(live: Live) -> None:
    live.take(promoted(2, 1), 2)
    refusal = ChallengerRefused(0, 1, 30, 2, ("kl",), "too far", 1, False)
    live.take(refusal)
    live.take(refusal)
    assert len(live.events(ChampionPromoted)) == 2
    assert len(live.events(ChallengerRefused)) == 1
    assert live.champion_policy.account_champion.refusals == 1


def test_a_restart_goes_on_without_another_event(live: Live, tmp_path: Path) -> None:
    before = live.broker.journal.last_seq
    live.die()
    again = Live(tmp_path, champion_state(2, 1))
    assert again.broker.journal.last_seq == before
    assert again.trades() == 2


def test_a_promotion_that_never_arrived_is_made_up_for_at_the_restart(
    live: Live, tmp_path: Path
) -> None:
    live.die()
    again = Live(tmp_path, champion_state(3, 2))
    assert again.trades() == 3
    last = again.events(ChampionPromoted)[-1]
    assert isinstance(last, ChampionPromoted)
    assert (last.champion, last.before, last.by) == (3, 2, PromotedBy.GATE)


def test_a_drawdown_brings_the_champion_before_back(live: Live) -> None:
    live.fall()
    live.champion_policy.follow_account(NOW_NS + 3 * SECOND_NS)
    assert live.trades() == 1 and live.champion_policy.version == 10
    assert live.champion_policy.account_champion == AccountChampion(1, 2, 2, 0)
    assert live.broker.account.trading_state is TradingState.REDUCING


@pytest.mark.parametrize("driver_knows", [False, True])
@pytest.mark.parametrize("adopted", [False, True])
def test_a_death_after_a_drawdown_ends_in_the_same_state(
    live: Live, tmp_path: Path, driver_knows: bool, adopted: bool
) -> None:
    live.fall()
    if adopted:
        live.champion_policy.follow_account(NOW_NS + 3 * SECOND_NS)
    live.die()
    rolled = ChampionRolledBack(0, 0, 1, 10, 2, RolledBackBy.DRAWDOWN, "lost", 0.0, 0.0)
    again = Live(tmp_path, champion_state(1, 0, rolled) if driver_knows else champion_state(2, 1))
    assert again.trades() == 1
    account = again.broker.account
    assert (account.champion, account.rollbacks, account.weights_version) == (1, 1, 10)
    assert account.trading_state is TradingState.REDUCING
    assert account.state_reason == RejectReason.CHAMPION_DRAWDOWN
    again.die()
    with Journal(tmp_path / "journal.db", read_only=True) as journal:
        assert journal.fold().fingerprint() == account.fingerprint()


def test_a_challenger_judged_against_a_fallen_champion_is_void(live: Live) -> None:
    live.fall()
    live.champion_policy.follow_account(NOW_NS + 3 * SECOND_NS)
    live.take(promoted(3, 2), 3)
    assert live.trades() == 1 and live.broker.account.champion == 1


def test_an_owners_champion_trades_whatever_was_before_and_opens_again(live: Live) -> None:
    live.fall()
    live.champion_policy.follow_account(NOW_NS + 3 * SECOND_NS)
    live.take(promoted(3, 2, PromotedBy.OWNER), 3, equity=np.nan)
    assert live.trades() == 3
    assert live.broker.account.trading_state is TradingState.ACTIVE


def test_an_owners_rollback_is_numbered_and_tells_the_peak(live: Live) -> None:
    back = ChampionRolledBack(0, 0, 1, 10, 2, RolledBackBy.OWNER, "by its owner", 0.0, 0.0)
    live.take(back, 1, equity=9_900.0)
    (event,) = live.events(ChampionRolledBack)
    assert isinstance(event, ChampionRolledBack)
    assert (event.number, event.equity, event.peak) == (1, 9_900.0, CAPITAL)
    assert live.trades() == 1
    assert live.broker.account.trading_state is TradingState.ACTIVE


def test_weights_that_only_the_driver_has_are_loaded_when_they_come(tmp_path: Path) -> None:
    """The live market knows one champion only, and another one is the account's."""
    live = Live(tmp_path, champion_state(2))
    live.take(promoted(3, 2), 3)
    live.die()
    fallen = Live(tmp_path, champion_state(3))
    fallen.fall()
    fallen.champion_policy.follow_account(NOW_NS)
    assert (fallen.broker.account.champion, fallen.trades()) == (2, 3)
    back = ChampionRolledBack(0, 0, 2, 20, 3, RolledBackBy.DRAWDOWN, "lost", 0.0, 0.0)
    fallen.take(back, 2)
    fallen.champion_policy.follow_account(NOW_NS + 5 * SECOND_NS)
    assert fallen.trades() == 2
    assert len(fallen.events(ChampionRolledBack)) == 1


def test_the_limit_is_the_settings(tmp_path: Path) -> None:
    settings = Settings()
    limits: RiskLimits = assembly.risk_limits(settings)
    assert limits.max_champion_drawdown_pct == settings.learning.gate.max_drawdown_pct
    broker: PaperBroker = new_broker(tmp_path, limits=limits)
    assert not broker.risk.champion_breached(broker.account, 1.0)
