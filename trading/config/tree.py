"""The settings tree as flat dotted keys: what exists, and where a value belongs.

A dotted key such as `data.replay.speed` names one setting; `data.replay` names a section.
"""

import difflib
from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr

from trading.config.settings import Settings


class Setting(NamedTuple):
    """One leaf of the tree.

    Attributes
    ----------
    key
        Dotted key.
    description
        One sentence with the unit.
    secret
        Whether the value may come from the environment only.
    numeric
        Whether text from the environment is read as a number.
    whole
        Whether a number must be a whole one.
    environment
        Name of its environment variable, if it has one.
    """

    key: str
    description: str
    secret: bool
    numeric: bool
    whole: bool
    environment: str | None


def _alternatives(annotation: object) -> tuple[object, ...]:
    """Return the types that an annotation allows, without their conditions."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return tuple(each for part in get_args(annotation) for each in _alternatives(part))
    return _alternatives(get_args(annotation)[0]) if origin is Annotated else (annotation,)


def _walk(model: type[BaseModel], prefix: str) -> Iterator[Setting | str]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield key
            yield from _walk(field.annotation, f"{key}.")
        else:
            types = _alternatives(field.annotation)
            extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            environment = extra.get("environment")
            yield Setting(
                key,
                field.description or "",
                secret=SecretStr in types,
                numeric=int in types or float in types,
                whole=int in types and float not in types,
                environment=environment if isinstance(environment, str) else None,
            )


@cache
def settings_by_key() -> dict[str, Setting]:
    """Every leaf of the tree by its dotted key, in the tree's order."""
    return {node.key: node for node in _walk(Settings, "") if isinstance(node, Setting)}


@cache
def section_keys() -> frozenset[str]:
    """Return the dotted key of every section."""
    return frozenset(node for node in _walk(Settings, "") if isinstance(node, str))


def suggestion(key: str) -> str:
    """Return what to write instead of the unknown `key`, as the end of a sentence."""
    parent, _, name = key.rpartition(".")
    known = [*settings_by_key(), *section_keys()]
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == parent}
    by_name = {k.rpartition(".")[2]: k for k in known}
    for candidates in (siblings, by_name):
        close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.75)
        if close:
            return f"did you mean {candidates[close[0]]}?"
    return f"allowed here: {', '.join(sorted(siblings))}"


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Return the mapping of mappings that `flat` has dotted keys into."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[name] = value
    return tree
