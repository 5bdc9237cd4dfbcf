"""What a position holds back from buying power: margin by its rules, at opening and after."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.execution.margin.buying_power import initial_margin as initial_margin
    from trading.execution.margin.formulas import buying_power_effect as buying_power_effect
    from trading.execution.margin.formulas import payoff_margin as payoff_margin
    from trading.execution.margin.formulas import uncovered_margin as uncovered_margin
    from trading.execution.margin.maintenance import maintenance_margin as maintenance_margin
    from trading.execution.margin.reg_t import defined_risk_margin as defined_risk_margin
    from trading.execution.margin.reg_t import reg_t_margin as reg_t_margin

_PLACES = {
    "initial_margin": "buying_power",
    "buying_power_effect": "formulas",
    "payoff_margin": "formulas",
    "uncovered_margin": "formulas",
    "maintenance_margin": "maintenance",
    "defined_risk_margin": "reg_t",
    "reg_t_margin": "reg_t",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
