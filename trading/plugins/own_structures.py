"""Option structures of a user's own, as the settings name them."""

from trading.config import Settings
from trading.envs.structures import Structure
from trading.errors import PluginError
from trading.plugins.discovery import load_files
from trading.plugins.plugin_registry import Plugin, chosen

KEY = "env.structures"


def registered_structures(settings: Settings) -> tuple[Structure, ...]:
    """Return the structures that the settings name, in their order.

    They are values: whoever is given the rules that carry them needs no file of plugins.

    Raises
    ------
    PluginError
        A plug-in cannot be loaded, none registers one of them, or actions of two have one name.
    """
    registered = load_files(each.resolve() for each in settings.plugins).structures
    plugins = [chosen(registered, "structure", name, KEY) for name in settings.env.structures]
    structures, taken = tuple(each.make() for each in plugins), dict[str, Plugin]()
    for plugin, structure in zip(plugins, structures, strict=True):
        for action in structure.actions:
            other = taken.setdefault(action.name, plugin)
            if other is not plugin:
                raise PluginError(
                    f"{plugin}: its action {action.name} is called as one of {other}; choose "
                    "another name"
                )
    return structures
