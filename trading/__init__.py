"""Paper trading of US equity options by a policy that keeps learning while it trades.

`import trading as td` has what `docs/api.md` lists. Each name is imported when it is first used,
so that importing the package loads nothing.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trading.kernel_cache import use_cache_of_this_source

# For type checkers, editors and documentation; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.api.accounts import open_journal as open_journal
    from trading.api.backtests import backtest as backtest
    from trading.api.environments import make_env as make_env
    from trading.api.environments import make_vector_env as make_vector_env
    from trading.api.market_data import connect as connect
    from trading.api.market_data import open_catalog as open_catalog
    from trading.api.policies import load_policy as load_policy
    from trading.config.loading import load_settings as load_settings
    from trading.config.settings import Settings as Settings
    from trading.envs.by_name import action as action
    from trading.envs.by_name import feature as feature
    from trading.envs.by_name import feature_index as feature_index
    from trading.envs.catalogue import ACTIONS as ACTIONS
    from trading.envs.catalogue import CLOSE as CLOSE
    from trading.envs.catalogue import HOLD as HOLD
    from trading.envs.features import FEATURES as FEATURES
    from trading.envs.own_features import MarketBar as MarketBar
    from trading.envs.rewards import BarEarnings as BarEarnings
    from trading.envs.structures import StructureLeg as StructureLeg
    from trading.errors import TradingError as TradingError
    from trading.execution.fees import FeeSchedule as FeeSchedule
    from trading.plugins.plugin_registry import register_baseline as register_baseline
    from trading.plugins.plugin_registry import register_feature as register_feature
    from trading.plugins.plugin_registry import register_fees as register_fees
    from trading.plugins.plugin_registry import register_reward as register_reward
    from trading.plugins.plugin_registry import register_structure as register_structure
    from trading.plugins.plugin_registry import register_trader as register_trader

_PLACES = {
    "load_settings": "config.loading",
    "open_journal": "api.accounts",
    "make_env": "api.environments",
    "make_vector_env": "api.environments",
    "load_policy": "api.policies",
    "backtest": "api.backtests",
    "open_catalog": "api.market_data",
    "connect": "api.market_data",
    "action": "envs.by_name",
    "feature": "envs.by_name",
    "feature_index": "envs.by_name",
    "register_trader": "plugins.plugin_registry",
    "register_baseline": "plugins.plugin_registry",
    "register_fees": "plugins.plugin_registry",
    "register_reward": "plugins.plugin_registry",
    "register_feature": "plugins.plugin_registry",
    "register_structure": "plugins.plugin_registry",
    "ACTIONS": "envs.catalogue",
    "FEATURES": "envs.features",
    "HOLD": "envs.catalogue",
    "CLOSE": "envs.catalogue",
    "FeeSchedule": "execution.fees",
    "BarEarnings": "envs.rewards",
    "MarketBar": "envs.own_features",
    "StructureLeg": "envs.structures",
    "Settings": "config.settings",
    "TradingError": "errors",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

use_cache_of_this_source()

# For a checkout that is on the path and not installed: Gymnasium then knows no entry point of it.
if "gymnasium" in sys.modules:
    from trading.envs.registration import register_environments

    register_environments()


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
