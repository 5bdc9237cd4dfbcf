"""`docs/api.md`, made from the docstrings of what `import trading as td` offers."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import trading
from trading.reporting.tables import TABLES, columns_table

_GROUPS = {
    "Settings": ("load_settings",),
    "Accounts": ("open_journal",),
    "Markets and policies": ("make_env", "make_vector_env", "load_policy", "backtest"),
    "Actions and features by name": ("action", "feature", "feature_index"),
    "Market data": ("open_catalog", "connect"),
    "Code of one's own": (
        "register_trader",
        "register_baseline",
        "register_fees",
        "register_reward",
        "register_feature",
        "register_structure",
    ),
}
_VALUES = {
    "ACTIONS": "Every action in order: `name`, `strategy`, `bucket`, `legs` ([table](actions.md)).",
    "FEATURES": "Every feature in order: `name`, `meaning` ([table](observation.md)).",
    "HOLD": "The action that changes nothing, which the mask always allows.",
    "CLOSE": "The action that closes what is open on the underlying.",
    "FeeSchedule": "What one order pays: a named tuple of rates ([costs](costs.md)).",
    "BarEarnings": "What one bar brought, which a reward of one's own is made of "
    "([fields](plugins.md#a-reward)).",
    "MarketBar": "What is known of an underlying at a bar, which a feature of one's own is made of "
    "([fields](plugins.md#a-feature)).",
    "StructureLeg": "One leg of an option structure of one's own "
    "([how its strike is found](plugins.md#an-option-structure)).",
    "Settings": "All settings, frozen ([list](settings.md)); `load_settings` makes them.",
    "TradingError": "Base of every error that this package raises on purpose.",
}
_HEADING = re.compile(r"^([A-Z][a-z]+)\n-{3,}$", re.MULTILINE)
_LISTS = ("Parameters", "Raises", "Attributes")


def api_reference() -> str:
    """Every function with its parameters, errors and examples, and the tables of a journal."""
    parts: list[str] = []
    for group, names in _GROUPS.items():
        parts.append(f"## {group}\n")
        parts += [_function(name) for name in names]
        if group == "Accounts":
            parts += [f"#### `{name}`\n\n{columns_table(name)}" for name in TABLES]
    rows = [f"| `td.{name}` | {meaning} |" for name, meaning in _VALUES.items()]
    parts.append("\n".join(["## Values and types\n", "| name | what it is |", "|---|---|", *rows]))
    return "\n".join(parts) + "\n"


def documented() -> set[str]:
    """Return the names that the page has."""
    return {name for names in _GROUPS.values() for name in names} | set(_VALUES)


def _function(name: str) -> str:
    function = getattr(trading, name)
    return f"### `td.{name}{_signature(function)}`\n\n{_markdown(inspect.getdoc(function) or '')}"


def _signature(function: Any) -> str:
    shown = inspect.signature(function)
    plain = [each.replace(annotation=each.empty) for each in shown.parameters.values()]
    return str(shown.replace(parameters=plain, return_annotation=shown.empty))


def _markdown(docstring: str) -> str:
    """Return a numpydoc docstring as Markdown."""
    first, *rest = _HEADING.split(docstring)
    parts = [first.strip()]
    for heading, body in zip(rest[::2], rest[1::2], strict=True):
        if heading == "Examples":
            code = re.sub(r"  # doctest: \+SKIP", "", body.strip())
            parts.append(f"```pycon\n{code}\n```")
        elif heading in _LISTS:
            parts.append(f"**{heading}**\n\n" + "\n".join(_items(body)))
        else:
            parts.append(f"**{heading}**\n\n{body.strip()}")
    return "\n\n".join(parts) + "\n"


def _items(body: str) -> Iterator[str]:
    """Each name with what is said of it."""
    for item in re.split(r"\n(?=\S)", body.strip()):
        name, _, said = item.partition("\n")
        yield f"- `{name}`: {' '.join(said.split())}"
