"""The application: the driver that starts, watches and ends all parts."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.app.algorithm import online_rules as online_rules
    from trading.app.algorithm import open_algorithm as open_algorithm
    from trading.app.display import Display as Display
    from trading.app.doctor import Finding as Finding
    from trading.app.doctor import examine as examine
    from trading.app.driver import ApplicationFailed as ApplicationFailed
    from trading.app.driver import Summary as Summary
    from trading.app.driver import run_application as run_application
    from trading.app.fleet import Fleet as Fleet
    from trading.app.fleet import up_strategies as up_strategies
    from trading.app.held_out import HeldOutSessions as HeldOutSessions
    from trading.app.learning_loop import LearningLoop as LearningLoop
    from trading.app.waiting import StopRequested as StopRequested

_PLACES = {
    "online_rules": "algorithm",
    "open_algorithm": "algorithm",
    "Display": "display",
    "Finding": "doctor",
    "examine": "doctor",
    "ApplicationFailed": "driver",
    "Summary": "driver",
    "run_application": "driver",
    "Fleet": "fleet",
    "up_strategies": "fleet",
    "HeldOutSessions": "held_out",
    "LearningLoop": "learning_loop",
    "StopRequested": "waiting",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
