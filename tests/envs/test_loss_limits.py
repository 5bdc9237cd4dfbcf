"""The limits of losses that training keeps are those that the broker keeps, to the last bit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.envs.scene import priced_chain, snapshot_of
from tests.usual import risk_limits
from trading.envs.accounts import mark, new_accounts, open_accounts
from trading.envs.defaults import DEFAULT_RULES
from trading.envs.quote_arrays import quote_arrays
from trading.execution.portfolio import Account
from trading.execution.risk import RiskEngine

ONE = np.zeros(1, dtype=np.int64)
CHAIN = priced_chain()
MARKET = (quote_arrays(CHAIN.columns), snapshot_of(CHAIN), ONE)
USD = st.floats(-2e5, 2e5)


@settings(deadline=None)
@given(
    base=USD,
    peak=USD,
    daily=st.floats(0.01, 100.0),
    drawdown=st.floats(0.01, 100.0),
    off=st.sampled_from([-1e-11, 0.0, 1e-11, -5.0, 5.0]),
    at_peak=st.booleans(),
)
def test_an_account_is_restricted_where_the_broker_restricts_it(
    base: float, peak: float, daily: float, drawdown: float, off: float, at_peak: bool
) -> None:
    account = Account()
    account.day_start_equity, account.peak_equity = base, peak
    engine = RiskEngine(risk_limits(max_daily_loss_pct=daily, max_drawdown_pct=drawdown))
    rules = DEFAULT_RULES._replace(
        max_daily_loss=daily / 100.0, max_drawdown=drawdown / 100.0, initial_capital=1e5
    )
    from_where, percent = (peak, drawdown) if at_peak else (base, daily)
    equity = from_where - abs(from_where) * (percent / 100.0) + off
    accounts = new_accounts(1)
    open_accounts(accounts, ONE, equity)
    accounts.day_start[0], accounts.peak[0] = base, peak
    mark(*MARKET, rules, accounts, ONE, np.zeros(1))
    assert accounts.halted[0] == engine.daily_loss_breached(account, equity)
    assert accounts.reduced[0] == engine.drawdown_breached(account, equity)
