"""The trading loop against a real market server over real sockets."""

from pathlib import Path

import numpy as np
import pytest

from tests.live.market import (
    DAY,
    Bars,
    FirstMinutes,
    Run,
    champions_of,
    serving,
    settings_for,
    trade,
)
from trading.data.massive.client.stream import StreamClient
from trading.errors import AuthenticationFailed
from trading.execution.events import (
    ChampionRolledBack,
    DecisionMade,
    OrderAccepted,
    OrderFilled,
    PromotedBy,
    StateChanged,
)
from trading.execution.journal import Journal
from trading.execution.orders import Intent
from trading.execution.states import TradingState
from trading.learning.champion.store import AccountChampion, Promotion
from trading.learning.checkpoints import write_module_weights
from trading.learning.policy import Policy
from trading.learning.rollout import OTHER_BEHAVIOUR
from trading.live import assembly
from trading.live.endpoint import Endpoint
from trading.market.calendar import ExchangeCalendar

MINUTES = 12


def run(folder: Path, *, minutes: int = MINUTES, frame: int = 500, **kwargs: object) -> Run:
    settings = settings_for(folder)
    with serving(FirstMinutes(minutes), max_frame_events=frame) as (endpoint, begin):
        return trade(settings, endpoint, begin, **kwargs)  # type: ignore[arg-type]


def test_every_bar_is_decided_once_for_every_underlying(tmp_path: Path) -> None:
    result = run(tmp_path)
    with Journal(assembly.journal_path(settings_for(tmp_path)), read_only=True) as journal:
        decisions = [each for each in journal.events() if isinstance(each, DecisionMade)]
        fills = [each for each in journal.events() if isinstance(each, OrderFilled)]
    times = sorted({each.ts_ns for each in decisions})
    assert len(times) == MINUTES
    assert np.all(np.diff(times) == 60_000_000_000)
    assert len(decisions) == 2 * MINUTES
    assert fills, "an untrained policy tries something within a dozen bars"
    assert result.trader.finished


def test_the_account_is_the_fold_of_its_journal(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.fold == result.trader.env.broker.account.fingerprint()


def test_the_journal_does_not_depend_on_how_frames_are_packed(tmp_path: Path) -> None:
    digests = {run(tmp_path / str(frame), frame=frame).digest for frame in (1, 37, 500)}
    assert len(digests) == 1


@pytest.mark.parametrize("acting", ["sampled", "greedy", 0.5])
def test_experience_says_whether_it_was_drawn_from_what_is_learned(
    tmp_path: Path, acting: str | float
) -> None:
    settings = settings_for(tmp_path, f"policy.act={acting}", "learning.update_frequency=8")
    with serving(FirstMinutes(MINUTES)) as (endpoint, begin):
        result = trade(settings, endpoint, begin, learning=True)
    rollout = result.trader.fragments.get_nowait().rollout
    if acting == "sampled":
        assert rollout.weights_version == result.trader.weights_version
    else:
        assert rollout.weights_version == OTHER_BEHAVIOUR
    assert (rollout.log_probs == 0.0).all() == (acting == "greedy")


def test_a_second_run_gives_the_identical_journal(tmp_path: Path) -> None:
    assert run(tmp_path / "a").digest == run(tmp_path / "b").digest


def test_a_restart_goes_on_where_the_journal_ended(tmp_path: Path) -> None:
    first = run(tmp_path, bars=Bars(stop_after=5))
    before = first.trader.env.broker.account
    assert before.decisions == 10
    second = run(tmp_path)
    account = second.trader.env.broker.account
    assert account.decisions == 2 * MINUTES
    assert second.bars.ends[0] == first.bars.ends[-1] + 60_000_000_000
    assert second.fold == account.fingerprint()


def test_fragments_hold_what_was_decided_and_earned(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "learning.update_frequency=8")
    with serving(FirstMinutes(MINUTES)) as (endpoint, begin):
        result = trade(settings, endpoint, begin, learning=True)
    fragments = result.trader.fragments
    assert fragments.qsize() == 2
    first = fragments.get().rollout
    first.validate()
    assert first.shape == (4, 2)
    assert first.first[0].all() and not first.first[1:].any()
    initial, scale = settings.account.initial_capital, settings.env.reward_scale
    equity = np.array(result.bars.equity)
    # Equity is noted after the orders of a bar, so fees already paid show up a bar earlier.
    gained = (equity[4] - initial) / initial * scale
    assert first.rewards.sum() == pytest.approx(gained, abs=0.5)


def test_the_session_end_settles_and_closes_the_day(tmp_path: Path) -> None:
    session = ExchangeCalendar().session_on(DAY)
    assert session is not None
    minutes = (session.close_ns - session.open_ns) // 60_000_000_000
    result = run(tmp_path, minutes=minutes)
    account = result.trader.env.broker.account
    assert account.last_session == str(DAY)
    assert account.day_start_equity == pytest.approx(result.trader.env.equity())
    assert account.decisions == 2 * (minutes - 1)


def test_a_wrong_key_is_refused_in_words(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    with serving(FirstMinutes(2)) as (endpoint, begin):
        wrong = Endpoint(endpoint.websocket_url, endpoint.rest_url, "wrong-key")
        with pytest.raises(AuthenticationFailed, match="API key"):
            trade(settings, wrong, begin)


def test_a_wrong_key_gets_auth_failed_from_the_stream_too(tmp_path: Path) -> None:
    with serving(FirstMinutes(2)) as (endpoint, _):
        wrong = Endpoint(endpoint.websocket_url, endpoint.rest_url, "wrong-key")
        settings = assembly.stream_settings(settings_for(tmp_path), wrong)
        with StreamClient(settings) as stream:
            stream.subscribe("stocks", ["AM.AAA"])
            with pytest.raises(AuthenticationFailed, match="auth"):
                for _ in range(200):
                    stream.frames(0.1)


def test_equity_is_cash_plus_marked_positions_at_every_bar(tmp_path: Path) -> None:
    result = run(tmp_path)
    account, env = result.trader.env.broker.account, result.trader.env
    value = sum(
        position.quantity * env.marks()[symbol] * account.multiplier
        for symbol, position in account.positions.items()
    )
    assert env.equity() == pytest.approx(account.cash + value)
    contributions = sum(account.contribution(symbol, env.marks()) for symbol in env.symbols)
    assert env.equity() == pytest.approx(account.initial_cash + contributions)


def test_a_loss_under_the_champion_brings_the_one_before_back_and_a_restart_keeps_it(
    tmp_path: Path,
) -> None:
    """Fees alone are loss enough; the second life begins with the account's champion."""
    settings = settings_for(tmp_path, "learning.gate.max_drawdown_pct=0.01")
    before, present = (Policy(assembly.model_config(settings), seed) for seed in (21, 22))
    champions = champions_of(settings.paths.checkpoints, before)
    path = assembly.journal_path(settings)
    with serving(FirstMinutes(MINUTES)) as (endpoint, begin):
        trade(settings, endpoint, begin, bars=Bars(stop_after=1))
    champions.write(
        lambda folder: write_module_weights(folder, present.weights()),
        Promotion(20, PromotedBy.GATE, "of the test"),
        AccountChampion(1, 0, 1),
    )
    with serving(FirstMinutes(MINUTES)) as (endpoint, begin):
        first = trade(settings, endpoint, begin, bars=Bars(stop_after=7))
    with serving(FirstMinutes(MINUTES)) as (endpoint, begin):
        second = trade(settings, endpoint, begin)
    for result in (first, second):
        account = result.trader.env.broker.account
        assert (account.champion, account.newest_champion) == (1, 2)
        assert account.trading_state is TradingState.REDUCING
        assert result.trader.weights_version == 0
        ours = result.trader.policy.weights()
        assert all(np.array_equal(ours[name], array) for name, array in before.weights().items())
    assert second.fold == second.trader.env.broker.account.fingerprint()
    with Journal(path, read_only=True) as journal:
        events = list(journal.events())
    fallen = next(i for i, each in enumerate(events) if isinstance(each, ChampionRolledBack))
    assert isinstance(events[fallen], ChampionRolledBack) and events[fallen].discarded == 2
    assert isinstance(events[fallen + 1], StateChanged)
    accepted = [each for each in events[fallen:] if isinstance(each, OrderAccepted)]
    assert all(each.order.intent is Intent.CLOSE for each in accepted)
    decided = [each for each in events[fallen:] if isinstance(each, DecisionMade)]
    assert decided and {each.weights_version for each in decided} == {0}
