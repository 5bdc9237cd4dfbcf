"""Whatever the environment lets an account open the broker lets it open, and not one unit more.

But for one rule: where an action sells short, the environment asks for the least equity of a short
sale for each unit, and the broker once.

Training and live trading size an order in a compiled kernel (`market_snapshots`, `account_view`);
the broker checks it by `trading.execution.risk`.
"""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.envs.scene import NOW_NS, offered, priced_chain, snapshot_of
from tests.usual import risk_limits
from trading.envs.account_view import observe_accounts, unit_greeks
from trading.envs.accounts import mark, new_accounts, open_accounts
from trading.envs.action_tables import action_tables
from trading.envs.catalogue import ACTIONS, CLOSE
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.quote_arrays import quote_arrays
from trading.envs.rules import NO_LEG
from trading.evaluation.baselines import MarketView
from trading.execution.exposure import Greeks
from trading.execution.margin.buying_power import initial_margin, order_buying_power_effect
from trading.execution.matching import FillStyle
from trading.execution.orders import Rejection
from trading.execution.portfolio import Account
from trading.execution.risk import RiskEngine

ONE = np.zeros(1, dtype=np.int64)
SIZE = 1000
TABLES = action_tables()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    cash=st.floats(1_000.0, 2e6),
    contracts=st.integers(1, 60),
    notional=st.floats(500.0, 1e6),
    greeks=st.tuples(*(st.floats(0.02, 4.0), st.floats(0.02, 4.0), st.floats(0.001, 0.1))),
    short_equity=st.floats(1.0, 5e4),
    style=st.sampled_from(FillStyle),
)
def test_the_units_of_an_opening_are_the_most_that_the_broker_takes(
    cash: float,
    contracts: int,
    notional: float,
    greeks: tuple[float, float, float],
    short_equity: float,
    style: FillStyle,
) -> None:
    cash = round(cash, 2)
    max_delta, max_gamma, max_vega = greeks
    # What one position may risk is the environment's alone: here it may risk everything.
    rules = DEFAULT_RULES._replace(
        max_contracts=contracts, max_notional=notional, max_delta=max_delta, max_gamma=max_gamma,
        max_vega=max_vega, min_short_equity=short_equity, fill_style=int(style),
        secured_fraction=1.0, risk_fraction=1e9,
    )  # fmt: skip
    engine = RiskEngine(
        risk_limits(
            max_contracts_per_order=contracts, max_order_notional=notional,
            max_delta_pct=100.0 * max_delta, max_gamma_pct=100.0 * max_gamma,
            max_vega_pct=100.0 * max_vega, min_short_equity=short_equity,
        )
    )  # fmt: skip
    account = Account()
    account.cash = account.day_start_equity = account.peak_equity = cash
    chain = priced_chain()
    chain.columns.bid_size[:] = chain.columns.ask_size[:] = float(SIZE)
    market = (quote_arrays(chain.columns), snapshot_of(chain, rules=rules), ONE)
    accounts = new_accounts(1)
    open_accounts(accounts, ONE, cash)
    mark(*market, rules, accounts, ONE, np.zeros(1))
    observe_accounts(*market, rules, accounts.holdings, accounts.balances, ONE, accounts.views)
    view = MarketView(*market, ["XYZ"])
    spot = float(view.snapshots.spot[0])

    def checked(action: int, units: int) -> Rejection | None:
        legs = [int(leg) for leg in view.snapshots.legs[0, action] if leg != NO_LEG]
        ratio = TABLES.ratio[action, : len(legs)].tolist()
        order, matched = offered(view, 0, legs, ratio, units, rules)
        assert matched.units == units
        margin = initial_margin(matched, account, spot, allow_naked=False)
        effect = order_buying_power_effect(
            matched, units, matched.net, margin, DEFAULT_FEES, rules.multiplier
        )
        one = Greeks(*unit_greeks(*market[:2], 0, rules.multiplier, TABLES.ratio, action))
        traded = matched.gross * rules.multiplier * units
        return engine.check(order, account, effect, traded, cash, NOW_NS, None, one)

    units = accounts.views.units[0]
    openings = [
        action
        for action in range(CLOSE + 1, len(ACTIONS))
        if view.snapshots.legs[0, action, 0] != NO_LEG and view.snapshots.most_units[0, action] > 0
    ]
    assert openings
    for action in openings:
        n = int(units[action])
        assert n == 0 or checked(action, n) is None, ACTIONS[action]
        displayed = SIZE // int(np.abs(TABLES.ratio[action]).max())
        most = cash // short_equity if TABLES.sells_short[action] else np.inf
        assert n == min(displayed, most) or checked(action, n + 1) is not None, ACTIONS[action]
