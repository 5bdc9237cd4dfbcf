"""Episodes of many sessions: what was held over nights live is the same in training, to the bit."""

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.envs.fortnight import (
    CALENDAR,
    SYMBOL,
    days,
    for_each,
    in_batch,
    keeps,
    kinds,
    live,
    recorded_sessions,
)
from trading.envs.accounts import Accounts, new_accounts, open_accounts
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.history import (
    HistoricalMarkets,
    History,
    episode_starts,
    history_of_days,
    single_days,
    tell_single_days,
    write_history,
)
from trading.envs.market_snapshots import MarketSnapshots, empty_snapshots
from trading.envs.nights import close_accounts
from trading.envs.quote_arrays import QuoteArrays, quote_arrays
from trading.envs.rewards import RiskMeasure
from trading.envs.rules import STOCK_LEG
from trading.envs.simulated_markets import SESSION_BARS
from trading.envs.vector_env import HistoricalOptionsVectorEnv, SimulatedOptionsVectorEnv
from trading.execution.events import AccountOpened, OrderAccepted, OrderFilled
from trading.execution.margin.maintenance import margins_after
from trading.execution.orders import Fill, Intent, Leg, LegFill, Order
from trading.execution.portfolio import Account
from trading.execution.settlement import settlements
from trading.market.chain import Chain
from trading.market.contracts import OptionContract, Right
from trading.market.corporate_actions import Split
from trading.market.dividends import Dividend

SESSIONS = 10
RULES = DEFAULT_RULES._replace(
    initial_capital=400_000.0, max_daily_loss=0.5, max_quote_age_ns=3_600_000_000_000
)
DIVIDENDS = [Dividend(SYMBOL, day, 1.5) for day in days(SESSIONS)[1::2]]


SCRIPTS = {
    0: ("bear_call_credit_near",),
    1: ("iron_condor_near",),
    3: ("credit_near", "condor_near", "covered_call_near"),
    4: ("butterfly_near", "straddle_near", "debit_near"),
}


OTHERWISE = {
    0: {"size_levels": 3},
    1: {"risk_aversion": 20.0, "risk_measure": int(RiskMeasure.VARIANCE)},
    3: {"risk_aversion": 20.0, "risk_measure": int(RiskMeasure.DOWNSIDE)},
    4: {"risk_aversion": 2.0, "risk_measure": int(RiskMeasure.DRAWDOWN)},
}
"""What some of these open a part of, and take off their rewards; the markets are the same."""


def test_a_fortnight_lived_is_the_same_fortnight_in_training(tmp_path: Path) -> None:
    told = recorded_sessions(SESSIONS, 1, vol=0.45)
    history = tmp_path / "history"
    write_history(history, told, RULES, DEFAULT_FEES, CALENDAR, nights=True, dividends=DIVIDENDS)
    happened: dict[str, int] = {}
    for script, names in SCRIPTS.items():
        folder = tmp_path / str(script)
        folder.mkdir()
        rules = RULES._replace(**OTHERWISE.get(script, {}))
        chosen = for_each(keeps(script, *names))
        lived = live(folder, [(each,) for each in told], rules, DEFAULT_FEES, chosen, DIVIDENDS)
        env = HistoricalOptionsVectorEnv(
            1, rules, DEFAULT_FEES, history, sessions_per_episode=SESSIONS
        )
        again = in_batch(env, for_each(keeps(script, *names)))
        assert lived.actions == again.actions
        assert len(lived.seen) == len(again.seen) == SESSIONS * (len(told[0].bar_end_ns) - 1)
        for one, other in zip(lived.seen, again.seen, strict=True):
            assert one == other
        for name, count in kinds(lived.events).items():
            happened[name] = happened.get(name, 0) + count
    expected = {"worthless", "cash", "assigned", "exercised", "assigned_early", "dividend"}
    assert set(happened) >= expected, happened


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sessions in a row, and one that follows none: a split fell before it."""
    folder = tmp_path_factory.mktemp("week") / "history"
    told = recorded_sessions(5, 2)
    split = Split(SYMBOL, days(5)[4], 2, 1)
    write_history(
        folder, told, RULES, DEFAULT_FEES, CALENDAR, nights=True, dividends=DIVIDENDS,
        actions=[split],
    )  # fmt: skip
    return folder


def test_sessions_go_on_from_each_other_up_to_a_corporate_action(week: Path) -> None:
    history = History(week, RULES, DEFAULT_FEES)
    assert history.following.tolist() == [1, 2, 3, -1, -1]
    assert [day.dividend for day in history.days] == [0.0, 1.5, 0.0, 1.5, 0.0]
    for before, day in zip(history.days[:3], history.days[1:4], strict=True):
        ours, theirs = (history.quotes.contract_offset[each.first] for each in (day, before))
        formerly = history.formerly[ours : ours + day.contracts]
        known = np.flatnonzero(formerly >= 0)
        assert len(known) > 20
        for name in ("strike", "expiry_ns", "right"):
            column = getattr(history.quotes, name)
            assert (column[ours + known] == column[theirs + formerly[known]]).all()


def test_an_episode_is_at_most_so_many_sessions_as_there_are_in_a_row(week: Path) -> None:
    bars = History(week, RULES, DEFAULT_FEES).days[0].bars - 1
    lived = set()
    for seed in range(8):
        env = HistoricalOptionsVectorEnv(1, RULES, DEFAULT_FEES, week, seed, sessions_per_episode=9)
        lived.add(len(in_batch(env, for_each(keeps(0))).seen))
    assert lived == {4 * bars, bars}


def test_runs_of_every_length_are_traded(week: Path) -> None:
    following = np.array([*range(1, 12), -1, *range(13, 16), -1, -1])
    assert episode_starts(following, 10).tolist() == [0, 1, 2, 12, 16]
    assert episode_starts(following, 3).tolist() == [*range(10), 12, 13, 16]
    assert episode_starts(following, 1).tolist() == list(range(17))
    # Days of two underlyings stand between each other.
    assert episode_starts(np.array([2, 3, 4, -1, 5, -1]), 3).tolist() == [0, 1, 2]
    markets = HistoricalMarkets(
        64, History(week, RULES, DEFAULT_FEES), np.random.default_rng(0), sessions_per_episode=3
    )
    markets.restart(np.arange(64))
    assert {int(each) for each in markets._day_of(np.arange(64))} == {0, 1, 4}


def test_each_day_of_a_history_without_nights_is_an_episode_and_that_is_said(
    week: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "alone"
    first, _, third, *_ = days(5)
    history_of_days(week, alone, [first, third])
    env = HistoricalOptionsVectorEnv(1, RULES, DEFAULT_FEES, alone, sessions_per_episode=2)
    history = History(alone, RULES, DEFAULT_FEES)
    assert len(in_batch(env, for_each(keeps(0))).seen) == history.days[0].bars - 1
    assert "knows of no night between its 2 dates" in single_days(history, 2)
    assert single_days(history, 1) == ""
    with capture_logs() as logged:
        tell_single_days(history, 2, "training")
        tell_single_days(history, 1, "the gate")
    assert [each["event"] for each in logged] == ["training has no nights"]
    one_date = [replace(day, date=history.days[0].date) for day in history.days]
    monkeypatch.setattr(history, "days", one_date)
    assert single_days(history, 2) == ""
    assert single_days(History(week, RULES, DEFAULT_FEES), 2) == ""


CLOSE_NS = CALENDAR.expiry_ns(date(2026, 1, 9))
CONTRACTS = [
    OptionContract("A", date(2026, 1, 9), right, 1000 * strike)
    for strike in range(95, 106)
    for right in Right
]


class Twins(NamedTuple):
    """The same position in the books and in the batch."""

    account: Account
    accounts: Accounts
    quotes: QuoteArrays
    snapshots: MarketSnapshots


def twins(legs: list[tuple[int, int]], lots: int, units: int, spot: float) -> Twins:
    """`legs` are contracts and ratios; the chain is marked at a dollar over intrinsic value."""
    chain = Chain("A", CONTRACTS, [CLOSE_NS] * len(CONTRACTS))
    chain.columns.mark[:] = 1.0 + np.maximum(
        chain.columns.right * (spot - chain.columns.strike), 0.0
    )
    snapshots, quotes = empty_snapshots(1), quote_arrays(chain.columns)
    snapshots.now_ns[:] = snapshots.close_ns[:] = CLOSE_NS
    snapshots.spot[:] = spot
    accounts = new_accounts(1)
    open_accounts(accounts, np.array([0]), 1e6)
    places = [STOCK_LEG] * bool(lots) + [each for each, _ in legs]
    ratios = [lots] * bool(lots) + [each for _, each in legs]
    accounts.holdings.legs[0, : len(places)] = places
    accounts.holdings.ratio[0, : len(places)] = ratios
    accounts.holdings.units[0] = units

    named = [
        Leg("A" if i == STOCK_LEG else chain.symbols[i], ratio)
        for i, ratio in zip(places, ratios, strict=True)
    ]
    account = Account()
    account.apply(AccountOpened(1, "paper", 1e6))
    order = Order("paper-1", 2, "A", "a case", Intent.OPEN, tuple(named), units)
    account.apply(OrderAccepted(2, order))
    filled = tuple(LegFill(leg.symbol, leg.ratio * units, 1.0) for leg in named)
    account.apply(OrderFilled(2, Fill("f", "paper-1", 2, "A", units, filled, 0.0, 0.0)))
    margin = account.strategies["A"].margin_per_unit
    accounts.margin_per_unit[0] = margin
    accounts.margin_moves[0] = not np.isfinite(margin)
    return Twins(account, accounts, quotes, snapshots)


@settings(max_examples=150, deadline=None)
@given(
    legs=st.lists(
        st.tuples(st.integers(0, 2 * 11 - 1), st.sampled_from([-2, -1, 1, 2])),
        min_size=1,
        max_size=3,
        unique_by=lambda leg: leg[0],
    ),
    lots=st.integers(-1, 1),
    units=st.integers(1, 6),
    cents=st.integers(9_400, 10_600),
)
def test_an_expiry_leaves_in_the_batch_what_it_leaves_in_the_books(
    legs: list[tuple[int, int]], lots: int, units: int, cents: int
) -> None:
    spot = cents / 100.0
    account, accounts, quotes, snapshots = twins(legs, lots, units, spot)
    # Nothing without a greatest loss is ever opened here, but an expiry may leave it.
    assume(np.isfinite(account.strategies["A"].margin_per_unit))
    symbols = [symbol for symbol in account.positions if symbol.startswith("O:")]
    ended = settlements(account.positions, symbols, {"A": spot}, 100.0, CLOSE_NS)
    margins = margins_after(account, ended, {}, CLOSE_NS)
    for event in [*ended, *margins]:
        account.apply(event)
    only = np.array([0])
    close_accounts(
        quotes, snapshots, np.zeros(1, np.int64), RULES, accounts, only, np.zeros(1),
        np.zeros(1, np.bool_),
    )  # fmt: skip
    held = account.strategies.get("A")
    assert accounts.balances.cash[0] == account.cash
    assert accounts.net_cash[0] == account.net_cash["A"]
    assert accounts.balances.margin_used[0] == account.margin_used
    assert accounts.holdings.units[0] == (held.units if held else 0)
    assert accounts.balances.open_positions[0] == len(account.strategies)
    assert accounts.delivered[0] == bool(held and held.delivered)
    if held is not None:
        assert [leg.symbol for leg in held.legs] == ["A"]
        assert accounts.holdings.legs[0].tolist() == [STOCK_LEG, -1, -1, -1]
        assert accounts.holdings.ratio[0, 0] == held.legs[0].ratio
        assert accounts.margin_moves[0] == held.margin_moves
        assert accounts.holdings.net_cash[0] == held.net_cash


def test_delivered_short_stock_holds_back_what_the_broker_holds_back() -> None:
    call, wing = (2 * (strike - 95) for strike in (100, 105))
    account, accounts, quotes, snapshots = twins([(call, -1), (wing, 1)], 0, 3, 102.0)
    close_accounts(
        quotes, snapshots, np.zeros(1, np.int64), RULES, accounts, np.array([0]), np.zeros(1),
        np.zeros(1, np.bool_),
    )  # fmt: skip
    assert accounts.holdings.ratio[0, 0] * accounts.holdings.units[0] == -3
    assert accounts.margin_moves[0] and accounts.balances.margin_used[0] == 1.5 * 102.0 * 300
    assert account.cash + 100.0 * 300 == accounts.balances.cash[0]


def simulated(sessions: int, seed: int = 1) -> SimulatedOptionsVectorEnv:
    return SimulatedOptionsVectorEnv(
        8, DEFAULT_RULES, DEFAULT_FEES, seed=seed, accounts_per_market=4,
        sessions_per_episode=sessions,
    )  # fmt: skip


def held_contracts(env: SimulatedOptionsVectorEnv) -> list[list[tuple[float, int, int]]]:
    """Strike, expiry and right of everything held, account by account."""
    quotes, holdings = env._markets.quotes, env._accounts.holdings
    found = []
    for b, f in enumerate(env._markets.snapshot_of):
        at = quotes.contract_offset[f] + holdings.legs[b][holdings.legs[b] >= 0]
        columns = (quotes.strike[at], quotes.expiry_ns[at], quotes.right[at])
        found.append([tuple(map(float, each)) for each in zip(*columns, strict=True)])
    return found


def test_simulated_markets_go_through_nights_with_what_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env, choose = simulated(4), [keeps(b, "_near", closing=0.0) for b in range(8)]
    observation, _ = env.reset()
    passed: list[np.ndarray] = []
    through = env._markets.pass_night

    def watched(accounts: np.ndarray, holdings: object) -> None:
        before, units = held_contracts(env), env._accounts.holdings.units.copy()
        through(accounts, holdings)  # type: ignore[arg-type]
        after = held_contracts(env)
        for b in accounts.tolist():
            assert before[b] == after[b]
            now_ns = env._markets.snapshots.now_ns[env._markets.snapshot_of[b]]
            assert all(expiry > now_ns for _, expiry, _ in after[b])
        passed.append(units[accounts])

    monkeypatch.setattr(env._markets, "pass_night", watched)
    totals, ended = np.zeros(8), np.zeros(8, np.bool_)
    while not ended.all():
        mask = observation["action_mask"]
        actions = np.array([choose[b](mask[b]) for b in range(8)])
        observation, reward, _, truncated, info = env.step(actions)
        assert np.isfinite(observation["observations"]).all() and np.isfinite(reward).all()
        totals += reward
        if truncated.any():
            worth = info["episode"]["equity"] / DEFAULT_RULES.initial_capital
            gained = (worth - 1.0) * DEFAULT_RULES.reward_scale
            assert np.allclose(totals[truncated], gained[truncated], atol=1e-3)
            assert np.allclose(info["episode"]["r"][truncated], gained[truncated], atol=1e-3)
            totals[truncated] = 0.0
            ended |= truncated
    assert sum(int((units > 0).sum()) for units in passed) >= 6
    assert env._accounts.balances.equity.shape == (8,)


def test_an_episode_is_so_many_simulated_sessions_and_a_restored_one_continues_to_the_bit() -> None:
    env = simulated(2)
    observation, _ = env.reset(seed=4)
    rng = np.random.default_rng(1)

    def played(each: SimulatedOptionsVectorEnv, mask: np.ndarray, steps: int) -> list[bytes]:
        seen = []
        for _ in range(steps):
            actions = (rng.random(mask.shape) * mask * np.arange(mask.shape[1])).argmax(axis=1)
            observation, reward, _, truncated, info = each.step(actions)
            mask = observation["action_mask"]
            seen += [part.tobytes() for part in (*observation.values(), reward, truncated)]
            if truncated.any():
                lengths.extend(info["episode"]["l"][truncated].tolist())
        return seen

    lengths: list[int] = []
    played(env, observation["action_mask"], SESSION_BARS + 30)
    state, mask = env.get_state(), env._accounts.views.mask.copy()
    rng = np.random.default_rng(2)
    after = played(env, mask, SESSION_BARS + 100)
    other = simulated(2, seed=9)
    other.reset()
    other.set_state(state)
    rng = np.random.default_rng(2)
    assert played(other, mask, SESSION_BARS + 100) == after
    played(other, other._accounts.views.mask.copy(), 2 * SESSION_BARS)
    assert max(lengths) == 2 * SESSION_BARS - 1


def test_a_session_recorded_to_no_close_ends_a_row(tmp_path: Path) -> None:
    told = recorded_sessions(3, 2)
    told[1] = replace(told[1], bar_end_ns=told[1].bar_end_ns[:-1])
    write_history(tmp_path / "h", told, RULES, DEFAULT_FEES, CALENDAR, nights=True)
    assert History(tmp_path / "h", RULES, DEFAULT_FEES).following.tolist() == [1, -1, -1]
