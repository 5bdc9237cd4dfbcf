"""Accounts of several underlyings: in training what they are live, to the last bit."""

from pathlib import Path

import numpy as np
import pytest

from tests.envs.fortnight import (
    CALENDAR,
    Choose,
    days,
    for_each,
    in_batch,
    keeps,
    kinds,
    live,
    recorded_sessions,
)
from trading.data.recorded_session import RecordedSession
from trading.envs.catalogue import HOLD, action_names
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.features import FEATURE_COUNT, OTHERS_COUNT
from trading.envs.history import History, write_history
from trading.envs.rewards import RiskMeasure
from trading.envs.rules import TradingRules
from trading.envs.simulated_markets import SESSION_BARS
from trading.envs.single_env import SimulatedOptionsEnv
from trading.envs.vector_env import (
    HistoricalOptionsVectorEnv,
    SimulatedOptionsVectorEnv,
)
from trading.errors import ConfigError, DataError
from trading.evaluation.backtest import EveryDay, backtest_history, history_returns
from trading.evaluation.baselines import BUY_AND_HOLD, SHORT_STRANGLE, random_masked
from trading.evaluation.evaluate import joined
from trading.evaluation.tear_sheet import tear_sheet
from trading.execution.events import OrderFilled, OrderRejected
from trading.market.dividends import Dividend

SESSIONS = 10
SYMBOLS = ("AAA", "BBB")
RULES = DEFAULT_RULES._replace(
    initial_capital=150_000.0,
    max_daily_loss=0.5,
    max_quote_age_ns=3_600_000_000_000,
    underlyings_per_account=2,
)
DIVIDENDS = [
    *(Dividend("AAA", day, 3.0) for day in days(SESSIONS)[1::2]),
    *(Dividend("BBB", day, 0.8) for day in days(SESSIONS)[2::3]),
]


@pytest.fixture(scope="module")
def told() -> list[tuple[RecordedSession, ...]]:
    """A fortnight of two underlyings, day by day."""
    one = recorded_sessions(SESSIONS, 1, vol=0.45)
    other = recorded_sessions(SESSIONS, 8, spot=140.0, vol=0.3, symbol="BBB")
    return list(zip(one, other, strict=True))


def chooses(*names: str) -> Choose:
    """Opens what has such a name in either, and closes now and then."""
    return for_each(keeps(3, *names, closing=0.06))


SCRIPTS: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "calls sold into dividends": (("bear_call_credit_near",), {}),
    "condors under tight limits": (
        ("iron_condor_near",),
        {"max_vega": 0.002, "max_gamma": 0.3, "max_delta": 0.3},
    ),
    "assigned and delivered": (
        ("credit_near", "condor_near", "covered_call_near"),
        {"risk_aversion": 2.0, "risk_measure": int(RiskMeasure.DRAWDOWN), "size_levels": 3},
    ),
    "more than the cash allows": (
        ("cash_secured_put_near", "covered_call_near", "straddle_near"),
        {"secured_fraction": 0.9, "risk_fraction": 0.5, "max_notional": 1e7},
    ),
    "losses that halt": (
        ("long_call_near", "straddle", "butterfly_near"),
        {
            "risk_fraction": 0.5,
            "max_daily_loss": 0.002,
            "slippage": 0.4,
            "max_drawdown": 0.05,
            "max_contracts": 400,
            "max_notional": 1e7,
        },
    ),
}


BOUGHT = {"losses that halt"}
"""Where nothing is sold that holds margin back."""
HAPPENED = {
    "calls sold into dividends": {"assigned", "assigned_early", "dividend", "margin"},
    "condors under tight limits": {"worthless", "assigned"},
    "assigned and delivered": {"assigned", "dividend"},
    "more than the cash allows": {"dividend"},
    # After what the first order of a bar lost, the second is refused.
    "losses that halt": {"daily_loss"},
}
"""Endings and refusals that each is to bring about."""


@pytest.fixture(scope="module")
def history(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[RecordedSession, ...]]
) -> Path:
    """The fortnight, day by day; snapshots do not depend on how many an account trades."""
    folder = tmp_path_factory.mktemp("together") / "history"
    sessions = [each for together in told for each in together]
    write_history(folder, sessions, RULES, DEFAULT_FEES, CALENDAR, nights=True, dividends=DIVIDENDS)
    return folder


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_fortnight_of_two_underlyings_is_the_same_in_training(
    tmp_path: Path, told: list[tuple[RecordedSession, ...]], script: str
) -> None:
    names, changes = SCRIPTS[script]
    rules = RULES._replace(**changes)  # type: ignore[arg-type]
    folder = tmp_path / "history"
    sessions = [each for together in told for each in together]
    write_history(folder, sessions, rules, DEFAULT_FEES, CALENDAR, nights=True, dividends=DIVIDENDS)
    lived = live(tmp_path, told, rules, DEFAULT_FEES, chooses(*names), DIVIDENDS)
    env = HistoricalOptionsVectorEnv(2, rules, DEFAULT_FEES, folder, sessions_per_episode=SESSIONS)
    again = in_batch(env, chooses(*names))
    for number, (one, other) in enumerate(zip(lived.seen, again.seen, strict=True)):
        assert one == other, f"decision {number} of {script}"
    assert lived.actions == again.actions
    assert max(each.open_positions for each in lived.seen) == 2
    filled = {each.fill.underlying for each in lived.events if isinstance(each, OrderFilled)}
    assert filled == set(SYMBOLS)
    observed = np.array([np.frombuffer(each.observations, np.float32) for each in lived.seen])
    seen = observed.reshape(len(observed), 2, -1)[..., -OTHERS_COUNT:].std(axis=(0, 1))
    assert (seen[[0, 1, 2, 3, 5]] > 0.0).all() and (seen[4] > 0.0) == (script not in BOUGHT)
    assert HAPPENED[script] <= {*kinds(lived.events)} | {
        str(each.rejection.reason) for each in lived.events if isinstance(each, OrderRejected)
    }


def on_the_first_day(
    folder: Path, told: list[tuple[RecordedSession, ...]], rules: TradingRules
) -> tuple[HistoricalOptionsVectorEnv, list[str]]:
    """One account at the open, and the names of its actions."""
    write_history(folder, told[0], rules, DEFAULT_FEES, CALENDAR)
    env = HistoricalOptionsVectorEnv(2, rules, DEFAULT_FEES, folder)
    return env, action_names(int(env.single_action_space.n))


def test_an_order_gets_what_the_one_before_it_left(
    tmp_path: Path, told: list[tuple[RecordedSession, ...]]
) -> None:
    """Both rows are shown all the cash; what the first one takes the second one cannot."""
    rules = RULES._replace(initial_capital=12_000.0, secured_fraction=1.0, max_delta=9.0)
    env, names = on_the_first_day(tmp_path / "history", told, rules)
    observation, _ = env.reset()
    balances, views = env._accounts.balances, env._accounts.views
    put = names.index("cash_secured_put_far_d30")
    assert observation["action_mask"][0, put]
    call = next(k for k, n in enumerate(names) if "long_" in n and observation["action_mask"][1, k])
    env._accounts.views.units[1, call] = 1_000
    env._trade(np.array([put, call]))
    taken = balances.margin_used[0]
    assert taken > 8_000.0 and env._accounts.holdings.units[0] == 1
    assert env._accounts.holdings.units[1] == views.units[1, call] < 1_000
    assert (balances.cash - balances.margin_used >= 0.0).all()
    assert balances.cash[0] == balances.cash[1] and balances.margin_used[1] == taken


def test_a_part_is_cut_only_where_the_room_is_less(
    tmp_path: Path, told: list[tuple[RecordedSession, ...]]
) -> None:
    rules = RULES._replace(size_levels=2, max_vega=0.002)
    env, names = on_the_first_day(tmp_path / "history", told, rules)
    observation, _ = env.reset()
    state, mask = env.get_state(), observation["action_mask"]
    shown = env._accounts.views.units.copy()
    first = names.index("long_straddle_near_d50_1of2")
    parts = [a for a, name in enumerate(names) if name.endswith("_1of2") and mask[1, a]]

    def taken(action: int) -> int:
        env.set_state(state)
        env._trade(np.array([first, action]))
        assert env._accounts.holdings.units[0] > 0
        return int(env._accounts.holdings.units[1])

    kept = 0
    for part in parts:
        whole = names.index(names[part].removesuffix("_1of2"))
        got = taken(whole)
        assert taken(part) == min(shown[1, part], got), names[part]
        kept += shown[1, part] <= got < shown[1, whole]
    assert kept > 0


def test_the_mask_of_one_underlying_knows_what_is_held_in_the_other(
    tmp_path: Path, told: list[tuple[RecordedSession, ...]]
) -> None:
    rules = RULES._replace(max_vega=0.0006)
    env, names = on_the_first_day(tmp_path / "history", told, rules)
    observation, _ = env.reset()
    free = observation["action_mask"][1].copy()
    straddle = names.index("long_straddle_near_d50")
    assert observation["action_mask"][0, straddle] and free[straddle]
    observation, *_ = env.step(np.array([straddle, HOLD]))
    assert (env._accounts.holdings.units > 0).tolist() == [True, False]
    left = observation["action_mask"][1]
    assert left.sum() < free.sum() and not left[straddle]
    others = observation["observations"][:, -OTHERS_COUNT:]
    assert not others[0].any() and others[1][0] > 0.0 and others[1][3] > 0.3


def test_delivered_stock_is_sold_in_the_order_of_the_symbols(
    tmp_path: Path, told: list[tuple[RecordedSession, ...]]
) -> None:
    puts, condor = map(
        action_names().index, ("cash_secured_put_near_d30", "iron_condor_near_d30_15")
    )
    number = 0

    def second_first(masks: np.ndarray) -> list[int]:
        nonlocal number
        number += 1
        opens = {1: [HOLD, condor], 2: [puts, HOLD]}.get(number, [HOLD, HOLD])
        assert masks[[0, 1], opens].all()
        return opens

    events = live(tmp_path, told, RULES, DEFAULT_FEES, second_first, DIVIDENDS).events
    filled = [each.fill.underlying for each in events if isinstance(each, OrderFilled)]
    assert filled == ["BBB", "AAA", "AAA", "BBB"]


def simulated(rows: int, seed: int = 1, **changes: object) -> SimulatedOptionsVectorEnv:
    rules = DEFAULT_RULES._replace(underlyings_per_account=3)
    return SimulatedOptionsVectorEnv(
        rows,
        rules,
        DEFAULT_FEES,
        seed=seed,
        accounts_per_market=2,
        **changes,  # type: ignore[arg-type]
    )


def test_accounts_of_three_simulated_markets_share_their_cash_through_nights() -> None:
    env = simulated(12, sessions_per_episode=2)
    assert env._markets.snapshot_of.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]
    observation, _ = env.reset()
    assert observation["observations"].shape == (12, FEATURE_COUNT + OTHERS_COUNT)
    act, gained = random_masked(4), np.zeros(12)
    seen = np.zeros((12, OTHERS_COUNT))
    for _ in range(SESSION_BARS + 20):
        actions = act(observation, np.zeros(12, np.bool_))
        actions[env._accounts.holdings.units > 0] = HOLD
        observation, reward, _, truncated, info = env.step(actions)
        seen = np.maximum(seen, np.abs(observation["observations"][:, -OTHERS_COUNT:]))
        gained += reward
        for part in (env.equity, env._accounts.balances.cash, env._accounts.balances.margin_used):
            assert (part.reshape(4, 3) == part[::3, None]).all()
        assert (truncated.reshape(4, 3) == truncated[::3, None]).all()
        if truncated.any():
            worth = info["episode"]["equity"] / env._rules.initial_capital - 1.0
            together = gained.reshape(4, 3).sum(axis=1).repeat(3) / env._rules.reward_scale
            assert np.allclose(together[truncated], worth[truncated], atol=1e-5)
            gained[truncated] = 0.0
    assert (seen.max(axis=0) > 0.0).all()


def test_a_restored_environment_goes_on_to_the_bit() -> None:
    env, other = simulated(12), simulated(12, seed=7)
    observation, _ = env.reset(seed=5)
    other.reset()
    act = random_masked(1)
    for _ in range(20):
        observation, *_ = env.step(act(observation, np.zeros(12, np.bool_)))
    other.set_state(env.get_state())
    for _ in range(20):
        actions = act(observation, np.zeros(12, np.bool_))
        observation, reward, *_ = env.step(actions)
        again, same, *_ = other.step(actions)
        assert np.array_equal(observation["observations"], again["observations"])
        assert np.array_equal(reward, same)


@pytest.mark.parametrize("saved", [3, 6])
def test_a_state_of_accounts_of_other_underlyings_is_refused(saved: int) -> None:
    """Its arrays have the shapes of this one's."""
    made = [
        SimulatedOptionsVectorEnv(
            12, DEFAULT_RULES._replace(underlyings_per_account=rows), DEFAULT_FEES
        )
        for rows in (saved, 2)
    ]
    for env in made:
        env.reset()
    state, before = made[0].get_state(), made[1].get_state()
    with pytest.raises(DataError, match=f"accounts of {saved} underlyings, and .* is 2: start new"):
        made[1].set_state(state)
    np.testing.assert_equal(made[1].get_state(), before)


def test_a_backtest_counts_accounts_and_not_their_rows(history: Path) -> None:
    for trader in (random_masked(2), BUY_AND_HOLD, SHORT_STRANGLE):
        result = backtest_history(history, RULES, DEFAULT_FEES, trader, SESSIONS)
        assert result.names[0] == f"AAA+BBB {days(1)[0]}" and len(result.names) == SESSIONS
        assert result.trades.sum() > 1
        assert np.allclose(
            result.parts.sum(axis=(1, 2)) / result.capital, result.returns, atol=1e-9
        )
    sheet = tear_sheet("two underlyings", {"strangle": result}, {})
    assert "10 sessions in 1 episode: an account" in sheet and "Trades of strangle" not in sheet
    returns = history_returns(history, RULES, DEFAULT_FEES, random_masked(2), SESSIONS)
    whole = backtest_history(history, RULES, DEFAULT_FEES, random_masked(2), SESSIONS)
    assert returns == pytest.approx([whole.closed_returns.sum() / SESSIONS])


def test_joined_backtests_are_of_accounts_of_as_many_underlyings(history: Path) -> None:
    one = backtest_history(history, RULES, DEFAULT_FEES, BUY_AND_HOLD, SESSIONS)
    both = joined([one, one])
    assert one.underlyings == both.underlyings == 2
    assert both.episode.tolist() == [0] * SESSIONS + [1] * SESSIONS
    assert "Trades of bought" not in tear_sheet("two underlyings", {"bought": both}, {})


def test_underlyings_that_a_history_has_not_are_asked_for_in_vain(history: Path) -> None:
    rules = RULES._replace(underlyings_per_account=3)
    with pytest.raises(DataError, match="no date with the same bars of 3 underlyings"):
        EveryDay(History(history, rules, DEFAULT_FEES), 1, 3)


def test_rows_that_are_no_whole_accounts_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_envs 8 over env\.underlyings_per_account 3"):
        simulated(8)
    with pytest.raises(ConfigError, match="make_vector_env"):
        SimulatedOptionsEnv(DEFAULT_RULES._replace(underlyings_per_account=2))
