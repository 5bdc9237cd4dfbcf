"""A reward is money, less what its risk weighs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading.config import load_settings
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.rewards import RiskMeasure, largest_reward, reward_of
from trading.envs.vector_env import SimulatedOptionsVectorEnv
from trading.evaluation.backtest import simulation_returns
from trading.evaluation.baselines import random_masked
from trading.live.assembly import trading_rules

CHANGES = st.floats(-1.0, 1.0, allow_subnormal=False)


@settings(deadline=None)
@given(CHANGES, CHANGES, st.floats(0.0, 50.0), st.sampled_from(RiskMeasure))
def test_the_reward_is_its_formula(
    change: float, below: float, aversion: float, measure: RiskMeasure
) -> None:
    risk = {
        RiskMeasure.VARIANCE: change**2 / 2,
        RiskMeasure.DOWNSIDE: min(change, 0.0) ** 2,
        RiskMeasure.DRAWDOWN: max(0.0, max(below, 0.0) - max(below + change, 0.0)),
    }[measure]
    reward = reward_of(change, below, 100.0, aversion, int(measure))
    assert reward == pytest.approx(100.0 * (change - aversion * risk), rel=1e-12, abs=1e-300)
    assert abs(reward) <= largest_reward(100.0, aversion)


@settings(deadline=None)
@given(CHANGES)
def test_without_aversion_a_reward_is_money_to_the_bit(change: float) -> None:
    assert reward_of(change, 0.1, 100.0, 0.0, 0) == change * 100.0


def test_a_drawdown_that_is_not_known_is_no_risk() -> None:
    assert reward_of(-0.25, float("nan"), 100.0, 3.0, int(RiskMeasure.DRAWDOWN)) == -25.0


def test_the_settings_say_how_much_risk_weighs() -> None:
    for measure in RiskMeasure:
        chosen = ["env.risk_aversion=3", f"env.risk_measure={measure.name.lower()}"]
        rules = trading_rules(load_settings(None, chosen, {}))
        assert (rules.risk_aversion, rules.risk_measure) == (3.0, measure)
    assert trading_rules(load_settings(None, [], {})).risk_aversion == 0.0


def test_the_reward_loses_the_risk_and_the_account_and_the_gate_do_not() -> None:
    averse = DEFAULT_RULES._replace(risk_aversion=500.0)
    earned = {}
    for rules in (DEFAULT_RULES, averse):
        env = SimulatedOptionsVectorEnv(4, rules, DEFAULT_FEES, seed=3)
        observation, _ = env.reset()
        act, rewards = random_masked(1), []
        for _ in range(20):
            observation, reward, *_ = env.step(act(observation, np.zeros(4, np.bool_)))
            rewards.append(reward)
        earned[rules] = np.stack(rewards), env.equity.copy()
    (money, equity), (less, same) = earned.values()
    assert np.array_equal(equity, same)
    change = money.astype(np.float64) / averse.reward_scale
    expected = averse.reward_scale * (change - 500.0 * change**2 / 2)
    assert less == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert less.sum() < money.sum() - 0.01
    gate = [
        simulation_returns(2, 5, rules, DEFAULT_FEES, random_masked(1))
        for rules in (DEFAULT_RULES, averse)
    ]
    assert np.array_equal(*gate)


def test_a_bar_that_deepens_the_drawdown_is_charged_by_how_much() -> None:
    """The equity of every bar and the peaks of the closes say what each reward was to be."""
    rules = DEFAULT_RULES._replace(risk_aversion=2.0, risk_measure=int(RiskMeasure.DRAWDOWN))
    env = SimulatedOptionsVectorEnv(8, rules, DEFAULT_FEES, seed=5, sessions_per_episode=3)
    observation, _ = env.reset()
    act, capital, charged = random_masked(2), rules.initial_capital, 0.0
    for _ in range(2):
        before = env.equity.copy()
        observation, reward, _, truncated, _ = env.step(act(observation, np.zeros(8, np.bool_)))
        assert not truncated.any()
        peak = env._accounts.peak
        deeper = np.maximum(peak - env.equity, 0.0) - np.maximum(peak - before, 0.0)
        earned = env.equity - before - 2.0 * np.maximum(deeper, 0.0)
        assert reward == pytest.approx(rules.reward_scale * earned / capital, abs=1e-5)
        charged += float(np.maximum(deeper, 0.0).sum())
    assert charged > 0.0
