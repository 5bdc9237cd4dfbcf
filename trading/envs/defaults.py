"""The rules and fees that the default configuration stands for, for examples and tests."""

from trading.config import ExecutionSettings
from trading.envs.rules import TradingRules
from trading.execution.configured_fees import configured_fees

DEFAULT_FEES = configured_fees(ExecutionSettings())
DEFAULT_RULES = TradingRules(
    initial_capital=100_000.0,
    max_positions=10,
    risk_fraction=0.05,
    secured_fraction=0.75,
    max_contracts=20,
    max_notional=100_000.0,
    max_delta=2.0,
    max_gamma=3.0,
    max_vega=0.05,
    max_daily_loss=0.05,
    max_drawdown=0.25,
    min_short_equity=2_000.0,
    max_quote_age_ns=90_000_000_000,
    slippage=0.0,
    stock_half_spread=0.0001,
    multiplier=100.0,
    rate=0.04,
    no_open_ns=600_000_000_000,
    reward_scale=100.0,
)
