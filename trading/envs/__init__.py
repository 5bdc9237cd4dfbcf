"""Markets and accounts bar by bar, live, simulated and recorded, as Gymnasium sees them."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.envs.catalogue import Action as Action
    from trading.envs.catalogue import Strategy as Strategy
    from trading.envs.history import History as History
    from trading.envs.history import HistoryDay as HistoryDay
    from trading.envs.history import write_history as write_history
    from trading.envs.live_env import LiveEnv as LiveEnv
    from trading.envs.registration import register_environments as register_environments
    from trading.envs.rules import TradingRules as TradingRules
    from trading.envs.single_env import SimulatedOptionsEnv as SimulatedOptionsEnv
    from trading.envs.vector_env import HistoricalOptionsVectorEnv as HistoricalOptionsVectorEnv
    from trading.envs.vector_env import OptionsVectorEnv as OptionsVectorEnv
    from trading.envs.vector_env import SimulatedOptionsVectorEnv as SimulatedOptionsVectorEnv

_PLACES = {
    "Action": "catalogue",
    "Strategy": "catalogue",
    "History": "history",
    "HistoryDay": "history",
    "write_history": "history",
    "LiveEnv": "live_env",
    "register_environments": "registration",
    "TradingRules": "rules",
    "SimulatedOptionsEnv": "single_env",
    "HistoricalOptionsVectorEnv": "vector_env",
    "OptionsVectorEnv": "vector_env",
    "SimulatedOptionsVectorEnv": "vector_env",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
