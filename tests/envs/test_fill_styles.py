"""What fills pay of the spread: one rule for the batch of training and the account's broker.

Orders that work are those of `test_working_orders.py`.
"""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.envs.scene import offered
from trading.config import load_settings
from trading.envs.action_tables import action_tables
from trading.envs.catalogue import CLOSE, HOLD
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.rules import NO_LEG
from trading.envs.vector_env import SimulatedOptionsVectorEnv
from trading.evaluation.baselines import MarketView
from trading.execution.matching import FillStyle
from trading.execution.order_matching import MatchResult
from trading.live.assembly import trading_rules

BATCH = 8


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**20),
    style=st.sampled_from((FillStyle.TOUCH, FillStyle.SHARE_OF_SPREAD)),
    slippage=st.sampled_from((0.0, 0.01)),
)
def test_a_fill_of_the_batch_is_the_brokers_to_the_bit(
    seed: int, style: FillStyle, slippage: float
) -> None:
    rules = DEFAULT_RULES._replace(fill_style=int(style), slippage=slippage)
    env = SimulatedOptionsVectorEnv(BATCH, rules, DEFAULT_FEES, seed=seed)
    observation, _ = env.reset()
    rng = np.random.default_rng(seed)
    accounts, compared = env._accounts, 0
    for _ in range(12):
        actions = np.array([rng.choice(np.flatnonzero(row)) for row in observation["action_mask"]])
        markets = env._markets
        view = MarketView(markets.quotes, markets.snapshots, markets.snapshot_of, ["SIM"] * BATCH)
        expected: dict[int, tuple[MatchResult, int, bool]] = {}
        for b, action in enumerate(actions.tolist()):
            if action == HOLD:
                continue
            closes, f = action == CLOSE, env._markets.snapshot_of[b]
            held = accounts.holdings
            from_legs = held.legs[b] if closes else env._markets.snapshots.legs[f, action]
            legs = [int(leg) for leg in from_legs if leg != NO_LEG]
            signed = -held.ratio[b] if closes else action_tables().ratio[action]
            units = int(accounts.views.units[b, action])
            ratio = [int(each) for each in signed[: len(legs)]]
            _, matched = offered(view, b, legs, ratio, units, rules)
            expected[b] = (matched, units, closes)
        before = accounts.balances.cash.copy()
        env._trade(actions)
        for b, (matched, _, _) in expected.items():
            premium, fees = matched.cash(DEFAULT_FEES, matched.units, rules.multiplier)
            assert accounts.balances.cash[b] == round(before[b] + (premium - fees), 2)
            assert matched.units >= 1
            compared += 1
        env._markets.advance()
        env._observe(env._every)
        observation = env._current()
    assert compared


def test_what_a_unit_may_cost_is_what_it_does_cost() -> None:
    """A snapshot's price of one unit decides how many are ordered: it must be the fill's."""
    rules = DEFAULT_RULES._replace(fill_style=int(FillStyle.SHARE_OF_SPREAD))
    costs = []
    for each in (rules, DEFAULT_RULES):
        env = SimulatedOptionsVectorEnv(BATCH, each, DEFAULT_FEES, seed=3)
        env.reset()
        snapshots = env._markets.snapshots
        costs.append(np.where(snapshots.most_units > 0.0, snapshots.unit_cost, np.nan))
    known = np.isfinite(costs[0]) & np.isfinite(costs[1])
    assert known.any()
    # A dearer sale pays a cent more of the fees that are shares of its value.
    assert np.all(costs[0][known] <= costs[1][known] + 0.05)
    assert np.any(costs[0][known] < costs[1][known] - 1.0)


def test_the_setting_is_the_rule_of_training_and_of_the_account() -> None:
    chosen = load_settings(overrides=["execution.style=share_of_spread"], environ={})
    assert trading_rules(chosen).fill_style == FillStyle.SHARE_OF_SPREAD
    assert trading_rules(load_settings(environ={})) == DEFAULT_RULES
    assert DEFAULT_RULES.fill_style == FillStyle.TOUCH
