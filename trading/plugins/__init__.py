"""What a user's own files add: traders, baselines, fees, rewards, features, option structures.

A file that `plugins` of the settings names, or a module that an installed package tells of by an
entry point of the group `trading.plugins`, registers what it has when it is imported.
"""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.plugins.discovery import load_plugins as load_plugins
    from trading.plugins.plugin_registry import register_baseline as register_baseline
    from trading.plugins.plugin_registry import register_feature as register_feature
    from trading.plugins.plugin_registry import register_fees as register_fees
    from trading.plugins.plugin_registry import register_reward as register_reward
    from trading.plugins.plugin_registry import register_structure as register_structure
    from trading.plugins.plugin_registry import register_trader as register_trader
    from trading.plugins.rule_based import RuleBased as RuleBased

_PLACES = {
    "load_plugins": "discovery",
    "register_baseline": "plugin_registry",
    "register_feature": "plugin_registry",
    "register_fees": "plugin_registry",
    "register_reward": "plugin_registry",
    "register_structure": "plugin_registry",
    "register_trader": "plugin_registry",
    "RuleBased": "rule_based",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
