"""What stands for the default configuration in examples and tests is the default configuration."""

from trading.config import Settings
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.execution.carry import CarryRates
from trading.execution.fees import FeeSchedule
from trading.execution.risk import RiskLimits
from trading.live.assembly import carry_rates, fee_schedule, risk_limits, trading_rules


def test_internal_types_have_the_defaults_of_the_settings() -> None:
    settings = Settings()
    assert RiskLimits() == risk_limits(settings)
    assert FeeSchedule() == DEFAULT_FEES == fee_schedule(settings)
    assert CarryRates() == carry_rates(settings)
    assert trading_rules(settings) == DEFAULT_RULES
