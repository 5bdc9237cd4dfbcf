"""The rules and rates that examples and tests take are those of the default configuration."""

from trading.config import Settings
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.execution.carry import NO_CARRY
from trading.live.assembly import carry_rates, fee_schedule, risk_limits, trading_rules


def test_default_rules_are_those_of_the_default_settings() -> None:
    settings = Settings()
    assert trading_rules(settings) == DEFAULT_RULES
    assert fee_schedule(settings) == DEFAULT_FEES
    assert carry_rates(settings) == NO_CARRY
    assert risk_limits(settings).max_order_notional == DEFAULT_RULES.max_notional
