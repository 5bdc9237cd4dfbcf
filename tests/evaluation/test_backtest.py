from pathlib import Path

import numpy as np
import pytest

from tests.envs.goog import CALENDAR, recorded_goog
from tests.usual import gate_limits
from trading.config import Settings
from trading.envs.catalogue import HOLD
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.history import write_history
from trading.evaluation.backtest import (
    backtest_history,
    backtest_simulation,
    history_returns,
    learnt,
    simulation_returns,
)
from trading.evaluation.baselines import (
    SHORT_STRANGLE,
    hold,
    open_and_keep,
    random_masked,
)
from trading.learning.champion.gate import Gate, HeldOut
from trading.learning.policy import Policy
from trading.live import assembly


def test_holding_cash_earns_nothing_on_simulated_sessions():
    result = backtest_simulation(3, 5, DEFAULT_RULES, DEFAULT_FEES, hold)
    assert not result.returns.any() and not result.trades.any()
    assert result.actions.sum() == result.actions[HOLD]
    assert len(result.equity[0]) == np.isfinite(result.equity[0]).sum()


def test_a_position_is_opened_once_where_nothing_expires_and_equal_seeds_agree():
    def run():
        trader = open_and_keep("iron_condor_near_d30_15")
        return backtest_simulation(4, 5, DEFAULT_RULES, DEFAULT_FEES, trader)

    one, other = run(), run()
    assert one.trades.max() == 1
    assert np.array_equal(one.equity, other.equity, equal_nan=True)


@pytest.mark.parametrize(
    "trader", [open_and_keep("iron_condor_near_d30_15"), SHORT_STRANGLE], ids=["condor", "strangle"]
)
def test_a_baseline_opens_again_after_what_it_held_has_expired(trader):
    result = backtest_simulation(
        40, 5, DEFAULT_RULES, DEFAULT_FEES, trader, sessions_per_episode=20
    )
    held = (np.nanmax(result.contracts, axis=1) > 0).reshape(2, 20)
    for one in held:
        assert one.any() and one[one.argmax() :].mean() > 0.9


def test_every_bar_of_a_recorded_day_is_traded(tmp_path: Path):
    folder = tmp_path / "goog"
    write_history(folder, [recorded_goog()], DEFAULT_RULES, DEFAULT_FEES, CALENDAR)
    result = backtest_history(folder, DEFAULT_RULES, DEFAULT_FEES, random_masked(1))
    assert result.names == ("GOOG 2015-12-24",)
    assert result.equity.shape == (1, len(recorded_goog().bar_end_ns) - 1)
    assert result.trades[0] > 0
    assert result.returns[0] == result.equity[0, -1] / DEFAULT_RULES.initial_capital - 1.0
    returns = history_returns(folder, DEFAULT_RULES, DEFAULT_FEES, random_masked(1))
    assert np.array_equal(returns, result.returns)


@pytest.mark.parametrize("acting", ["sampled", "greedy", 0.5])
def test_a_backtest_is_of_the_trader_that_trades_and_repeats_itself(acting):
    policy = Policy(assembly.model_config(Settings()), 3, acting=acting)

    def taken():
        return backtest_simulation(3, 5, DEFAULT_RULES, DEFAULT_FEES, learnt(policy)).actions

    first = taken()
    assert np.array_equal(first, taken())
    # New weights are nearly indifferent: the most likely action is one of few, a draw any.
    assert (np.count_nonzero(first) > 25) == (acting != "greedy")


def test_gate_and_backtest_trade_alike():
    weights = Policy(assembly.model_config(Settings()), 3).weights()
    seen = []

    def held_out(trader):
        seen.append(simulation_returns(3, 5, DEFAULT_RULES, DEFAULT_FEES, trader))
        return seen[-1]

    gate = Gate(
        assembly.model_config(Settings()), gate_limits(), [HeldOut("a set", held_out)], "greedy"
    )
    gate.judge(weights, weights)
    policy = Policy(assembly.model_config(Settings()), 8, acting="greedy")
    policy.load_weights(weights)
    alone = backtest_simulation(3, 5, DEFAULT_RULES, DEFAULT_FEES, learnt(policy))
    assert np.array_equal(seen[0], alone.returns)


def test_returns_without_a_note_of_every_bar_are_the_same():
    returns = simulation_returns(6, 5, DEFAULT_RULES, DEFAULT_FEES, random_masked(1))
    noted = backtest_simulation(6, 5, DEFAULT_RULES, DEFAULT_FEES, random_masked(1)).returns
    assert returns.any()
    assert np.array_equal(returns, noted)


def test_one_account_goes_through_the_nights_of_an_episode_and_both_figures_are_told():
    trader = open_and_keep("long_straddle_near_d50")
    result = backtest_simulation(6, 5, DEFAULT_RULES, DEFAULT_FEES, trader, sessions_per_episode=3)
    assert result.names[:4] == (
        "simulated 1, session 1", "simulated 1, session 2", "simulated 1, session 3",
        "simulated 2, session 1",
    )  # fmt: skip
    assert result.episode.tolist() == [0, 0, 0, 1, 1, 1]
    # What is kept over a night earns in a session in which nothing was traded.
    assert (result.returns[1:3] != 0.0).any() and result.trades[1:3].sum() <= 1
    gained = result.returns * result.capital
    assert np.allclose(gained, result.parts.sum(axis=(1, 2)), atol=0.01)
    ends = [2, 5]
    assert (result.exits[ends] < 0.0).any() and not np.delete(result.exits, ends).any()

    returns = simulation_returns(
        6, 5, DEFAULT_RULES, DEFAULT_FEES, open_and_keep("long_straddle_near_d50"),
        sessions_per_episode=3,
    )  # fmt: skip
    whole = result.closed_returns.reshape(2, 3).sum(axis=1)
    assert np.allclose(returns, whole / 3.0, atol=1e-12)
