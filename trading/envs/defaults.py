"""The rules and fees that the default configuration stands for, for examples and tests."""

from trading.envs.actions import TradingRules
from trading.execution.fees import FeeSchedule

DEFAULT_FEES = FeeSchedule()
DEFAULT_RULES = TradingRules(
    initial_capital=100_000.0,
    max_positions=10,
    risk_fraction=0.05,
    max_contracts=20,
    max_notional=50_000.0,
    max_quote_age_ns=90_000_000_000,
    slippage=0.0,
    multiplier=100.0,
    rate=0.04,
    no_open_ns=600_000_000_000,
    reward_scale=100.0,
)
