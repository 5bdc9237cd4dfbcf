"""A rule-based trader in the policy's place, against a real market server over real sockets."""

from pathlib import Path

import pytest

from tests.live.market import FirstMinutes, await_that, serving, settings_for, trade
from trading.config import Settings
from trading.envs.catalogue import ACTIONS, MOST_SIZE_LEVELS, action_count, action_names
from trading.errors import ConfigError, PluginError, UnknownName
from trading.execution.events import (
    AccountOpened,
    ChampionPromoted,
    DecisionMade,
    Event,
    OrderFilled,
    OwnerCommand,
    PromotedBy,
    TermsAdopted,
    WeightsAdopted,
)
from trading.execution.journal import Journal
from trading.execution.owner import Command
from trading.execution.portfolio import Account
from trading.live import assembly
from trading.live.actor import LiveMarket
from trading.live.rule_based import check_account
from trading.reporting.tables import JournalTables

MINUTES = 12
ACTS = """
import numpy as np
import trading as td

@td.register_trader("of_{name}")
def of_{name}(seed):
    call = td.action("long_call_far_d50")

    def act(observation, first):
        allowed = observation["action_mask"]
        {act}

    return act
"""
OPENS = "return np.where(allowed[:, call], call, np.where(allowed[:, td.CLOSE], td.CLOSE, td.HOLD))"


def rules(folder: Path, name: str, act: str) -> Settings:
    """Settings by which a trader of `folder` trades, whose file stands there."""
    (folder / f"{name}.py").write_text(ACTS.format(name=name, act=act))
    return settings_for(
        folder,
        f"plugins={folder / name}.py",
        f"policy.trader=of_{name}",
        "learning.online=true",
        "learning.lockstep=false",
    )


def events_of(settings: Settings) -> list[Event]:
    with Journal(assembly.journal_path(settings), read_only=True) as journal:
        return list(journal.events())


def test_it_acts_where_the_policy_acts_and_its_decisions_are_journalled(tmp_path: Path) -> None:
    settings = rules(tmp_path, "opener", OPENS)
    with serving(FirstMinutes(MINUTES)) as (endpoint, begin):
        result = trade(
            settings, endpoint, begin, learning=assembly.trader_settings(settings).learning
        )
    events = events_of(settings)
    decisions = [each for each in events if isinstance(each, DecisionMade)]
    assert len(decisions) == 2 * MINUTES
    assert {each.trader for each in decisions} == {"of_opener"}
    assert {each.probability for each in decisions} == {1.0}
    assert not any(each.masked for each in decisions)
    assert {"long_call_far_d50", "close"} <= {each.action_name for each in decisions}
    assert [each for each in events if isinstance(each, OrderFilled)]
    assert result.fold == result.trader.env.broker.account.fingerprint()
    assert result.trader.fragments.empty(), "nothing is learned"
    assert not any(isinstance(each, ChampionPromoted | WeightsAdopted) for each in events)
    trades = JournalTables(assembly.journal_path(settings)).trades
    assert set(trades.reason_open) == {"of_opener chose long_call_far_d50"}
    assert "of_opener chose close" in set(trades.reason_close)


def test_one_that_acts_outside_the_mask_ends_before_anything_is_journalled(tmp_path: Path) -> None:
    settings = rules(tmp_path, "outside", "return np.full(len(first), td.CLOSE)")
    with (
        serving(FirstMinutes(MINUTES)) as (endpoint, begin),
        pytest.raises(PluginError, match=r"of_outside of .*outside\.py chose close in row 0"),
    ):
        trade(settings, endpoint, begin)
    assert not any(isinstance(each, DecisionMade) for each in events_of(settings))


def test_the_live_market_trades_by_rules_without_a_champion(tmp_path: Path) -> None:
    settings = rules(tmp_path, "actor", OPENS)
    with serving(FirstMinutes(380), speed=120.0) as (endpoint, begin):
        live = LiveMarket(settings, endpoint, assembly.chosen_plugins(settings))
        try:
            await_that("trading", lambda: live.progress().connected)
            begin()
            await_that("a bar", lambda: live.progress().decisions)
            refused, _ = live.control(Command(OwnerCommand.ROLLBACK, "alice"))
            status = live.status()
        finally:
            live.stop()
    assert refused.startswith("the rule-based trader of_actor trades this account (policy.trader)")
    assert (status["trader"], status["champion"]["number"]) == ("of_actor", 0)
    (terms,) = [each for each in events_of(settings) if isinstance(each, TermsAdopted)]
    assert terms.terms["policy.trader"].startswith("of_actor (")


def test_an_account_that_champions_have_traded_is_refused() -> None:
    account = Account()
    account.apply(AccountOpened(1, "paper", 1000.0))
    check_account(account, "calm")
    account.apply(ChampionPromoted(2, 3, 30, 0, PromotedBy.START, "of the test", 1000.0))
    with pytest.raises(ConfigError, match=r"policy\.trader: calm cannot trade account paper.*3"):
        check_account(account, "calm")


def test_every_action_can_be_called_by_its_name() -> None:
    import trading as td

    assert [td.action(each.name) for each in ACTIONS] == list(range(len(ACTIONS)))


@pytest.mark.parametrize("levels", [2, 3, MOST_SIZE_LEVELS])
def test_every_smaller_size_can_be_called_by_its_name(levels: int) -> None:
    import trading as td

    names = action_names(action_count(levels))
    assert [td.action(name) for name in names] == list(range(len(names)))
    assert [td.action(name, levels) for name in names] == list(range(len(names)))
    settings = td.load_settings(None, [f"env.size_levels={levels}"])
    mask = td.make_vector_env(1, settings, seed=1).reset()[0]["action_mask"]
    assert td.action(names[-1]) == mask.shape[1] - 1


@pytest.mark.parametrize(
    ("name", "levels", "said"),
    [
        (
            "long_call_near_d30_1of3",
            2,
            r"env\.size_levels is 2: set that to 3, or name a part of 2",
        ),
        ("long_call_near_d30_3of3", None, r"long_call_near_d30.*docs/actions\.md"),
        ("long_call_near_d30_1of99", None, r"near it are .*docs/actions\.md"),
        ("close_1of3", None, r"no action 'close_1of3'"),
    ],
)
def test_a_size_that_there_is_not_is_told(name: str, levels: int | None, said: str) -> None:
    import trading as td

    with pytest.raises(UnknownName, match=said):
        td.action(name, levels)
