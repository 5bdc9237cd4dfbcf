"""HTTP: health, readiness, status, metrics, the page and the owner's commands."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.serving.answers import AccountAnswers as AccountAnswers
    from trading.serving.app import build_api as build_api
    from trading.serving.app import build_app as build_app
    from trading.serving.entry import application as application
    from trading.serving.live_market import LiveMarketGone as LiveMarketGone
    from trading.serving.live_market import LiveMarketUnavailable as LiveMarketUnavailable
    from trading.serving.live_market import NamedActor as NamedActor
    from trading.serving.service import serve_account as serve_account
    from trading.serving.service import serve_application as serve_application
    from trading.serving.strategies import build_strategies_api as build_strategies_api
    from trading.serving.strategies import build_strategies_app as build_strategies_app
    from trading.serving.strategy_states import FleetState as FleetState
    from trading.serving.strategy_states import FleetStates as FleetStates
    from trading.serving.supervisor import Supervisor as Supervisor
    from trading.serving.supervisor import SupervisorState as SupervisorState

_PLACES = {
    "AccountAnswers": "answers",
    "build_api": "app",
    "build_app": "app",
    "application": "entry",
    "LiveMarketGone": "live_market",
    "LiveMarketUnavailable": "live_market",
    "NamedActor": "live_market",
    "serve_account": "service",
    "serve_application": "service",
    "build_strategies_api": "strategies",
    "build_strategies_app": "strategies",
    "FleetState": "strategy_states",
    "FleetStates": "strategy_states",
    "Supervisor": "supervisor",
    "SupervisorState": "supervisor",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
