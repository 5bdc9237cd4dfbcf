"""Stock alone and the short strangle: filled, charged and limited as the account's own orders."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.envs.scene import EXPIRIES, NOW_NS, SESSION_CLOSE_NS, SPOT, priced_chain, snapshot_of
from trading.envs.account_view import observe_accounts
from trading.envs.accounts import Accounts, mark, new_accounts, open_accounts, trade
from trading.envs.action_tables import action_tables
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.quote_arrays import quote_arrays
from trading.envs.rules import STOCK_LEG, TradingRules, stock_touch
from trading.evaluation.attribution import COMPONENTS
from trading.evaluation.backtest import backtest_simulation
from trading.evaluation.baselines import (
    BUY_AND_HOLD,
    SHORT_STRANGLE,
    HeldToClose,
    MarketView,
    action_named,
    baselines,
)
from trading.execution.margin.reg_t import reg_t_margin
from trading.execution.orders import Leg
from trading.market.chain import Chain

FIRST = np.zeros(1, dtype=np.int64)


def liquid_chain() -> Chain:
    chain = priced_chain()
    chain.columns.bid_size[:] = chain.columns.ask_size[:] = 1000.0
    return chain


def opened(
    position: HeldToClose,
    rules: TradingRules = DEFAULT_RULES,
    cash: float = 100_000.0,
    close_ns: int = SESSION_CLOSE_NS,
) -> Accounts:
    """An account of cash after the baseline's turn at NOW_NS."""
    chain = liquid_chain()
    snapshots = snapshot_of(chain, rules=rules, session_close_ns=close_ns)
    accounts = new_accounts(1)
    open_accounts(accounts, FIRST, cash)
    view = MarketView(quote_arrays(chain.columns), snapshots, FIRST, ["XYZ"])
    position.open_all(view, rules, DEFAULT_FEES, accounts)
    return accounts


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(
        [
            f"{kind}_{bucket}_d30"
            for kind in ("covered_call", "cash_secured_put")
            for bucket in ("near", "far")
        ]
    ),
    cash=st.floats(15_000.0, 2e6),
    secured=st.floats(0.2, 1.0),
    contracts=st.integers(1, 60),
    greeks=st.tuples(*(st.floats(0.05, 4.0), st.floats(0.05, 4.0), st.floats(0.001, 0.1))),
)
def test_a_fill_is_sized_and_booked_as_the_environment_does_it_to_the_last_bit(
    name: str, cash: float, secured: float, contracts: int, greeks: tuple[float, float, float]
) -> None:
    cash = round(cash, 2)
    rules = DEFAULT_RULES._replace(
        secured_fraction=secured, max_contracts=contracts, max_notional=1e9,
        max_delta=greeks[0], max_gamma=greeks[1], max_vega=greeks[2],
    )  # fmt: skip
    chain = liquid_chain()
    snapshots, quotes = snapshot_of(chain, rules=rules), quote_arrays(chain.columns)
    accounts, action = new_accounts(1), np.array([action_named(name)])
    open_accounts(accounts, FIRST, cash)
    view, ratios = (quotes, snapshots, FIRST, rules), action_tables().ratio
    mark(*view, accounts, FIRST, np.zeros(1))
    observe_accounts(*view, accounts.holdings, accounts.balances, FIRST, accounts.views)
    trade(*view, DEFAULT_FEES, ratios, accounts, FIRST, action, np.zeros(1, dtype=np.bool_))
    ratio = tuple(each for each in ratios[action[0]].tolist() if each)
    mine = opened(HeldToClose("the same", ratio, contracts_of=name), rules, cash)
    if name.startswith("cash_secured_put"):
        # A baseline's put holds Reg-T margin back, and is sized as if it were all of the cash.
        assert mine.holdings.units == accounts.holdings.units
        assert mine.balances.cash == accounts.balances.cash
        return
    for theirs, ours in (
        (accounts.holdings, mine.holdings),
        (accounts.balances, mine.balances),
        (accounts[3:8], mine[3:8]),
    ):
        for expected, got in zip(theirs, ours, strict=True):
            assert np.array_equal(expected, got)


def test_stock_is_bought_at_the_ask_in_round_lots_up_to_the_capital_it_may_tie_up() -> None:
    accounts = opened(BUY_AND_HOLD)
    _, ask = stock_touch(SPOT, DEFAULT_RULES.stock_half_spread)
    assert accounts.holdings.legs[0, 0] == STOCK_LEG
    assert accounts.holdings.units[0] == 75_000 // (100 * ask) == 7
    assert accounts.balances.cash[0] == pytest.approx(100_000 - 700 * ask)
    assert accounts.balances.margin_used[0] == 0.0


def test_a_short_strangle_reserves_reg_t_margin_and_is_sized_as_a_secured_put() -> None:
    accounts, chain = opened(SHORT_STRANGLE), liquid_chain()
    call, put = (int(i) for i in accounts.holdings.legs[0, :2])
    columns, units = chain.columns, int(accounts.holdings.units[0])
    assert (columns.right[call], columns.right[put]) == (1, -1)
    assert columns.strike[put] < SPOT < columns.strike[call]
    assert accounts.holdings.ratio[0].tolist() == [-1, -1, 0, 0]
    symbols = [chain.symbols[i] for i in (call, put)]
    assert f"{EXPIRIES[1]:%y%m%d}" in symbols[0]
    marks = {symbol: float(columns.bid[i]) for symbol, i in zip(symbols, (call, put), strict=True)}
    margin = reg_t_margin(tuple(Leg(s, -1) for s in symbols), 100.0, SPOT, marks)
    assert accounts.margin_per_unit[0] == pytest.approx(margin, abs=0.01)
    credit = 100.0 * sum(marks.values())
    assert units == 75_000 // (100 * columns.strike[put] - credit + 2) == 7
    assert accounts.balances.cash[0] == pytest.approx(100_000 + units * credit, abs=20.0)


@pytest.mark.parametrize(
    ("limits", "units"),
    [
        ({"max_contracts": 6}, 3),
        ({"max_notional": 1_000.0}, 3),
        ({"max_vega": 1e-6}, 0),
        ({"max_gamma": 1e-6}, 0),
        ({"min_short_equity": 200_000.0}, 0),
        ({"secured_fraction": 0.05}, 0),
    ],
)
def test_every_limit_of_the_rules_holds_a_strangle_back(limits: dict, units: int) -> None:
    accounts = opened(SHORT_STRANGLE, DEFAULT_RULES._replace(**limits))
    assert accounts.holdings.units[0] == units
    assert accounts.trades[0] == (units > 0)


@pytest.mark.parametrize("position", [BUY_AND_HOLD, SHORT_STRANGLE], ids=lambda s: s.name)
def test_nothing_is_opened_close_to_the_end_or_without_money(position: HeldToClose) -> None:
    close_ns = NOW_NS + DEFAULT_RULES.no_open_ns
    assert opened(position, close_ns=close_ns).trades[0] == 0
    assert opened(position, cash=1_000.0).trades[0] == 0


def test_buying_and_holding_earns_what_the_stock_moves_and_pays_half_the_spread() -> None:
    result = backtest_simulation(4, 5, DEFAULT_RULES, DEFAULT_FEES, BUY_AND_HOLD)
    delta, spread = (result.parts[:, :, COMPONENTS.index(n)].sum() for n in ("delta", "spread"))
    assert delta + spread == pytest.approx(result.returns.sum() * result.capital)
    assert (result.trades == (result.traded > 0.0)).all() and result.trades.sum() > 1
    assert (result.traded < 0.75 * result.capital).all()
    assert 0.0 < -spread < 0.001 * result.traded.sum()
    assert np.nanmax(result.contracts) == 0.0


def test_no_baseline_is_given_the_same_trader_twice() -> None:
    one, other = baselines(1), baselines(1)
    assert one.keys() == other.keys()
    assert one["covered call"] is not other["covered call"]
