"""Which policy trades, by decisions, by drawdowns, by its owner, and after a death in between."""

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.execution.scene import NOW_NS, SECOND_NS, market, new_broker, open_order
from tests.usual import clstm_config
from trading.config import Settings
from trading.errors import CheckpointError, OwnerRefused
from trading.execution.broker import PaperBroker
from trading.execution.events import (
    ChallengerRejected,
    ChampionPromoted,
    ChampionRolledBack,
    OwnerCommand,
    PromotedBy,
    RolledBackBy,
    WeightsAdopted,
)
from trading.execution.journal import Journal
from trading.execution.orders import RejectReason
from trading.execution.owner import Command, Effect, execute_command
from trading.execution.risk import RiskLimits
from trading.execution.states import TradingState
from trading.learning.champion.manager import ChampionManager, PromotionDecision
from trading.learning.champion.owner_choice import OwnerChoice
from trading.learning.champion.store import (
    PASSED_OVER,
    AccountChampion,
    ChampionStore,
    Promotion,
    weights_digest,
)
from trading.learning.checkpoints import write_module_weights
from trading.learning.policy import Policy, Weights
from trading.live import assembly
from trading.live.champion_policy import ChampionPolicy

CAPITAL = 10_000.0
CONFIG = clstm_config(2, 2, feature_hidden=2, actor_hidden=2, critic_hidden=2)
GATE = PromotedBy.GATE


@cache
def weights(seed: int) -> Weights:
    return Policy(CONFIG, seed).weights()


def fill(seed: int) -> Callable[[Path], None]:
    return lambda folder: write_module_weights(folder, weights(seed))


def why(seed: int, by: PromotedBy = GATE) -> Promotion:
    return Promotion(10 * seed, by, "because")


class Live:
    """An account and its driver, as processes that can die; champion N is of seed N."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ChampionStore(folder / "checkpoints", 3)
        self.choice = OwnerChoice(folder / "checkpoints", 3)
        self.broker = new_broker(folder, CAPITAL)
        self.now_ns = max(NOW_NS, self.broker.account.last_ts_ns)
        self.policy = Policy(CONFIG, 99)
        self.manager = ChampionManager(self.store)
        self.manager.begin(fill(1), 10, "the beginning", self.account)
        self.champion_policy = ChampionPolicy(self.broker, self.policy, self.store)
        self.champion_policy.begin(self.now_ns)

    @property
    def account(self) -> AccountChampion:
        return AccountChampion.of(self.broker.account)

    def take(self, decision: PromotionDecision, equity: float = CAPITAL) -> None:
        self.champion_policy.receive(decision, self.now_ns + SECOND_NS, equity)

    def promote(self, seed: int) -> None:
        """By the gate, as the driver offers it and the live market takes it up."""
        self.take(self.manager.promote(fill(seed), why(seed)))
        self.manager.follow(self.account)

    def obey(self, effect: Effect, kind: OwnerCommand) -> str:
        command = Command(kind, "alice")
        now_ns = max(self.now_ns, self.broker.account.last_ts_ns)
        said = execute_command(self.broker, command, now_ns, np.nan, effect).said
        self.champion_policy.follow_account(now_ns)
        return said

    def promote_by_owner(self, seed: int) -> str:
        model = self.folder / f"model-{seed}"
        model.mkdir(exist_ok=True)
        fill(seed)(model)
        effect = self.choice.promote(str(model), CONFIG, self.account)
        return self.obey(effect, OwnerCommand.PROMOTE)

    def roll_back(self) -> str:
        return self.obey(self.choice.roll_back(CONFIG, self.account), OwnerCommand.ROLLBACK)

    def fall(self) -> None:
        """A drawdown under the champion, as the broker finds it at a bar."""
        account = self.broker.account
        equity = account.champion_peak_equity * 0.915
        self.broker.close_session("2026-01-05", equity / 0.96, NOW_NS + 2 * SECOND_NS)
        self.broker.on_bar(market(), NOW_NS + 3 * SECOND_NS, equity=equity)

    def follow(self) -> None:
        self.champion_policy.follow_account(NOW_NS + 3 * SECOND_NS)

    def trades(self) -> int:
        """The seed of the weights that the policy has."""
        digest = weights_digest(self.policy.weights())
        (seed,) = (n for n in range(1, 9) if weights_digest(weights(n)) == digest)
        return seed

    def events(self, kind: type) -> list[Any]:
        return [each for each in self.broker.journal.events() if isinstance(each, kind)]

    def die(self) -> None:
        self.broker.journal.close()

    def again(self) -> "Live":
        self.die()
        return Live(self.folder)

    def agrees(self) -> int:
        """The champion of the journal, of what trades and of the driver, which are one."""
        number = self.broker.account.champion
        assert self.manager.champion.number == number
        held = self.store.load(number)
        assert weights_digest(held.weights) == weights_digest(self.policy.weights())
        assert self.champion_policy.version == self.broker.account.weights_version == held.version
        return number


@pytest.fixture
def live(tmp_path: Path) -> Live:
    """Champion 2 trades, after champion 1."""
    made = Live(tmp_path)
    made.promote(2)
    return made


def test_the_first_champion_is_journalled_as_the_start(tmp_path: Path) -> None:
    live = Live(tmp_path)
    (event,) = live.events(ChampionPromoted)
    assert (event.champion, event.by, event.equity) == (1, PromotedBy.START, CAPITAL)
    (adopted,) = live.events(WeightsAdopted)
    assert adopted.digest == weights_digest(weights(1))
    assert live.trades() == live.agrees() == 1
    assert live.account == AccountChampion(1, 0, 1, 0, 0)


def test_a_new_account_begins_with_the_newest_champion_of_the_folder(live: Live) -> None:
    live.die()
    for journal in live.folder.glob("journal.db*"):
        journal.unlink()
    again = Live(live.folder)
    assert again.agrees() == 2 and again.events(ChampionPromoted)[0].by is PromotedBy.START
    assert again.account.before == 0


def test_a_promotion_is_journalled_with_what_it_adopts(live: Live) -> None:
    assert live.trades() == 2 and live.champion_policy.version == 20
    assert [type(each) for each in live.broker.journal.events()][-2:] == [
        ChampionPromoted,
        WeightsAdopted,
    ]
    assert live.account == AccountChampion(2, 1, 2, 1)


def test_a_decision_that_comes_twice_is_journalled_once(live: Live) -> None:
    offered = live.manager.promote(fill(3), why(3))
    refused = ChallengerRejected(0, 1, 30, 2, ("kl",), "too far", 1, False)
    for decision in (offered, refused, offered, refused):
        live.take(decision)
    assert len(live.events(ChampionPromoted)) == 3
    assert len(live.events(ChallengerRejected)) == live.account.refusals == 1


def test_a_restart_goes_on_without_another_event(live: Live) -> None:
    before = live.broker.journal.last_seq
    again = live.again()
    assert again.broker.journal.last_seq == before
    assert again.agrees() == 2


def test_a_promotion_that_never_arrived_is_made_up_for_at_the_restart(live: Live) -> None:
    live.manager.promote(fill(3), why(3))
    again = live.again()
    assert again.agrees() == 3
    last = again.events(ChampionPromoted)[-1]
    assert (last.champion, last.before, last.by, last.reason) == (3, 2, GATE, "because")
    assert again.again().broker.journal.last_seq == again_seq(again)


def again_seq(live: Live) -> int:
    with Journal(live.folder / "journal.db", read_only=True) as journal:
        return journal.last_seq


def test_a_drawdown_brings_the_champion_before_back(live: Live) -> None:
    live.fall()
    live.follow()
    assert live.trades() == 1 and live.champion_policy.version == 10
    assert live.manager.follow(live.account)
    assert live.agrees() == 1
    assert live.broker.account.trading_state is TradingState.REDUCING


@pytest.mark.parametrize("adopted", [False, True])
def test_a_death_after_a_drawdown_ends_in_the_same_state(live: Live, adopted: bool) -> None:
    live.fall()
    if adopted:
        live.follow()
    again = live.again()
    assert again.agrees() == again.trades() == 1
    account = again.broker.account
    assert (account.champion, account.rollbacks, account.weights_version) == (1, 1, 10)
    assert account.trading_state is TradingState.REDUCING
    assert account.state_reason == RejectReason.CHAMPION_DRAWDOWN
    again.die()
    with Journal(live.folder / "journal.db", read_only=True) as journal:
        assert journal.fold().fingerprint() == account.fingerprint()


@pytest.mark.parametrize("arrives", [False, True])
def test_a_challenger_judged_against_a_fallen_champion_is_void(live: Live, arrives: bool) -> None:
    decision = live.manager.promote(fill(3), why(3))
    live.fall()
    live.follow()
    if arrives:
        live.take(decision)
    assert live.trades() == live.account.champion == 1
    assert live.manager.follow(live.account) and not live.manager.waiting
    again = live.again()
    assert again.agrees() == 1
    again.promote(4)
    assert again.agrees() == 4


def test_an_owners_champion_trades_whatever_was_before_and_opens_again(live: Live) -> None:
    live.fall()
    live.follow()
    said = live.promote_by_owner(3)
    assert said == (
        "champion-3 trades from the next bar on (version 0); the one before it: champion-1"
    )
    assert live.trades() == 3
    assert live.broker.account.trading_state is TradingState.ACTIVE
    assert live.manager.follow(live.account) and live.agrees() == 3


@pytest.mark.parametrize("by", ["owner", "rollback", "restart"])
def test_where_holdings_have_no_value_yet_a_champion_is_measured_from_the_first_bar(
    live: Live, by: str
) -> None:
    order = open_order(live.broker, "long_call")
    live.broker.submit(order, market(), True, NOW_NS)
    assert live.broker.account.positions
    live.broker.close_session("2026-01-05", 0.955 * CAPITAL, NOW_NS + SECOND_NS)
    if by == "owner":
        live.promote_by_owner(3)
    elif by == "rollback":
        live.promote(3)
        live.roll_back()
    else:
        live.manager.promote(fill(3), why(3))
        live = live.again()
    broker, account = live.broker, live.broker.account
    champion = account.champion
    (*_, change) = [
        *(live.events(ChampionRolledBack) if by == "rollback" else live.events(ChampionPromoted))
    ]
    assert change.champion == champion and change.equity is None
    assert account.champion_peak_due
    at_ns = account.last_ts_ns + SECOND_NS
    broker.on_bar({}, at_ns, equity=0.915 * CAPITAL)
    assert account.champion == champion and account.trading_state is TradingState.ACTIVE
    assert account.champion_peak_equity == 0.915 * CAPITAL and not account.champion_peak_due
    # A loss since then counts, and a death in between changes nothing.
    live = live.again()
    assert live.broker.account.fingerprint() == account.fingerprint()
    live.broker.close_session("2026-01-06", 0.87 * CAPITAL, at_ns + SECOND_NS)
    live.broker.on_bar({}, at_ns + 2 * SECOND_NS, equity=0.835 * CAPITAL)
    (*_, fallen) = live.events(ChampionRolledBack)
    assert (fallen.by, fallen.peak) == (RolledBackBy.DRAWDOWN, 0.915 * CAPITAL)


def test_an_owners_rollback_is_numbered_and_goes_as_far_as_champions_are_kept(live: Live) -> None:
    live.promote(3)
    live.roll_back()
    (event,) = live.events(ChampionRolledBack)
    assert (event.number, event.peak, event.by) == (1, CAPITAL, RolledBackBy.OWNER)
    assert live.trades() == 2
    live.roll_back()
    assert live.trades() == 1 and live.broker.account.trading_state is TradingState.ACTIVE
    with pytest.raises(CheckpointError, match="no champion before"):
        live.roll_back()
    assert live.manager.follow(live.account) and live.again().agrees() == 1


def test_a_judgement_gives_way_to_what_the_owner_chose_meanwhile(live: Live) -> None:
    live.promote_by_owner(5)
    decision = live.manager.promote(fill(4), why(4))
    live.take(decision)
    assert live.trades() == 5
    assert live.manager.follow(live.account) and live.agrees() == 3
    live.promote(6)
    assert live.agrees() == 5 and live.trades() == 6


def test_of_two_choices_at_once_the_later_number_trades_and_the_other_is_refused(
    live: Live,
) -> None:
    model = live.folder / "model"
    model.mkdir()
    fill(5)(model)
    effect = live.choice.promote(str(model), CONFIG, live.account)
    live.promote(4)
    with pytest.raises(OwnerRefused, match="champion 4 was promoted meanwhile"):
        live.obey(effect, OwnerCommand.PROMOTE)
    back = live.choice.roll_back(CONFIG, live.account)
    live.promote(6)
    with pytest.raises(OwnerRefused, match="champion 5 has taken over meanwhile"):
        live.obey(back, OwnerCommand.ROLLBACK)
    assert live.agrees() == 5 and live.trades() == 6


def test_a_champion_to_fall_back_to_that_cannot_be_read_stops_no_trading(live: Live) -> None:
    shutil.rmtree(live.store.path(1))
    again = live.again()
    again.fall()
    again.follow()
    assert (again.broker.account.champion, again.trades()) == (1, 2)
    assert again.broker.account.trading_state is TradingState.REDUCING
    with pytest.raises(CheckpointError, match="trading checkpoints promote"):
        again.again()
    assert again.folder  # its owner chooses, as `trading checkpoints promote` does offline
    broker = new_broker(again.folder, CAPITAL)
    effect = again.choice.promote("champion-2", CONFIG, AccountChampion.of(broker.account))
    execute_command(broker, Command(OwnerCommand.PROMOTE, "bob"), NOW_NS * 2, effect=effect)
    broker.journal.close()
    assert Live(again.folder).trades() == 2


def test_a_champion_of_another_network_is_not_fallen_back_to_and_ends_no_trading(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    other = Policy(clstm_config(2, 2, feature_hidden=3, actor_hidden=2, critic_hidden=2), 1)
    live.store.write_again(live.store.load(1)._replace(weights=other.weights()), live.account)
    before = live.broker.journal.last_seq
    with pytest.raises(CheckpointError, match="does not fit the configured network"):
        live.roll_back()
    assert live.broker.journal.last_seq == before and live.trades() == 2
    live.fall()
    for _ in range(2):
        live.follow()
    assert (live.broker.account.champion, live.trades()) == (1, 2)
    assert live.broker.account.trading_state is TradingState.REDUCING
    assert caplog.text.count("a champion cannot be read") == 1
    before = live.broker.journal.last_seq
    live.die()
    with pytest.raises(CheckpointError, match="does not fit the configured network"):
        Live(live.folder)
    assert again_seq(live) == before


def test_what_cannot_be_read_is_taken_up_once_it_can(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    aside = live.folder / "aside"
    offered = live.manager.promote(fill(3), why(3))
    live.store.path(3).rename(aside)
    for _ in range(2):
        live.take(offered)
    assert (live.account.champion, live.trades()) == (2, 2)
    assert caplog.text.count("a champion cannot be read") == 1
    aside.rename(live.store.path(3))
    live.take(offered)
    live.manager.follow(live.account)
    assert live.agrees() == live.trades() == 3

    live.store.path(2).rename(aside)
    live.fall()
    live.follow()
    assert (live.account.champion, live.trades()) == (2, 3)
    assert live.broker.account.trading_state is TradingState.REDUCING
    aside.rename(live.store.path(2))
    live.follow()
    assert live.trades() == 2 and live.broker.account.weights_version == 20


def test_the_same_key_is_the_same_choice(live: Live) -> None:
    def promote(which: str) -> bool:
        command = Command(OwnerCommand.PROMOTE, "alice", key="k", which=which)
        effect = live.choice.promote(which, CONFIG, live.account)
        return execute_command(live.broker, command, live.now_ns, CAPITAL, effect).repeated

    assert [promote("champion-1"), promote("champion-1")] == [False, True]
    with pytest.raises(OwnerRefused, match="give every command a key of its own"):
        promote("champion-2")
    assert live.broker.account.promotions == 2
    # A journal of an older version does not say what was chosen: the key alone counts.
    said = live.broker.account.commands["k"]
    live.broker.account.commands["k"] = msgspec.structs.replace(said, which="")
    assert promote("champion-2")


class Died(BaseException):
    """The process is gone."""


def writes(patch: pytest.MonkeyPatch, at: int) -> None:
    """Die before the write of that number: a rename in the folder, or a commit of the journal."""
    left = at

    def dying(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def written(*given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Died
            return original(*given, **named)

        patch.setattr(owner, name, written)

    dying(Path, "rename")
    dying(os, "replace")
    dying(Journal, "append_many")


DOES: dict[str, tuple[Callable[[Live], object], set[int]]] = {
    "a promotion": (lambda live: live.promote(3), {2, 3}),
    "two promotions": (lambda live: (live.promote(3), live.promote(4)), {2, 3, 4}),
    "an owner's promotion": (lambda live: live.promote_by_owner(3), {2, 3}),
    "a rollback": (lambda live: live.roll_back(), {1, 2}),
    "a promotion and back": (lambda live: (live.promote_by_owner(3), live.roll_back()), {2, 3}),
    "a drawdown": (lambda live: (live.fall(), live.follow()), {1, 2}),
    "a drawdown during a promotion": (
        lambda live: (live.manager.promote(fill(3), why(3)), live.fall(), live.follow()),
        {1, 2, 3},
    ),
}


@pytest.mark.parametrize("does", DOES)
def test_a_death_before_any_write_leaves_one_champion_from_which_the_next_start_goes_on(
    tmp_path: Path, does: str
) -> None:
    happens, may_trade = DOES[does]
    for at in range(100):
        live = Live(tmp_path / str(at))
        live.promote(2)
        died = False
        with pytest.MonkeyPatch.context() as patch:
            writes(patch, at)
            try:
                happens(live)
            except Died:
                died = True
        again = live.again()
        number = again.agrees()
        assert number in may_trade, f"died before write {at}"
        seen = again.broker.journal.last_seq
        third = again.again()
        assert (third.agrees(), third.broker.journal.last_seq) == (number, seen)
        third.promote(7)
        assert third.agrees() > max(2, number) and third.trades() == 7
        third.die()
        if not died:
            return
    raise AssertionError("it never came to its end")


def test_a_death_before_any_write_of_a_start_leaves_one_champion(tmp_path: Path) -> None:
    for at in range(100):
        folder, died = tmp_path / str(at), False
        new_broker(folder, CAPITAL).journal.close()
        with pytest.MonkeyPatch.context() as patch:
            writes(patch, at)
            try:
                Live(folder).die()
            except Died:
                died = True
        again = Live(folder)
        assert again.agrees() == again.trades() == 1
        assert [each.by for each in again.events(ChampionPromoted)] == [PromotedBy.START]
        again.die()
        if not died:
            return
    raise AssertionError("it never came to its end")


def test_what_an_older_version_passed_over_is_its_owners_alone_to_choose(live: Live) -> None:
    """It noted so in champions that its pointer had not been moved to."""
    live.store.write(fill(3), why(3), live.account)
    (live.store.path(3) / PASSED_OVER).touch()
    live = live.again()
    assert live.agrees() == 2
    live.obey(live.choice.promote("champion-3", CONFIG, live.account), OwnerCommand.PROMOTE)
    assert live.trades() == 3 and live.again().agrees() == 3


def test_the_limit_is_the_settings(tmp_path: Path) -> None:
    settings = Settings()
    limits: RiskLimits = assembly.risk_limits(settings)
    assert limits.max_champion_drawdown_pct == settings.learning.gate.max_drawdown_pct
    broker: PaperBroker = new_broker(tmp_path, limits=limits)
    assert not broker.risk.champion_breached(broker.account, 1.0)
