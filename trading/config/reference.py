"""Every setting explained: its sentence, unit, what is allowed, default and variable."""

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from trading.config.settings import Settings
from trading.config.tree import settings_by_key

_SUFFIXES = (
    ("_per_million", "USD per million"),
    ("_ms", "ms"),
    ("_pct", "%"),
    ("_bps", "basis points"),
    ("_mb", "MB"),
    ("_seconds", "s"),
    ("_minutes_before_close", "min"),
    ("_s", "s"),
)
_WORDS = (
    (r"^[\w ]+ a year", "a year"),
    (r"USD", "USD"),
    (r"[Ss]econds per second", "s per s"),
    (r"Seconds", "s"),
    (r"[Pp]ercent", "%"),
    (r"nats", "nats"),
)
_PROBES: tuple[Any, ...] = ("", -1.0, (), Path("/no such file"), "-")
"""Wrong values of each type, to hear from its check what is allowed."""


class Explained(NamedTuple):
    """One setting, for people; `-` where there is nothing to say."""

    key: str
    about: str
    unit: str
    allowed: str
    default: str
    environment: str


def explain_settings() -> dict[str, tuple[str, list[Explained]]]:
    """Every section by its key, in the tree's order, with its sentence and its settings."""
    return dict(_sections(Settings, ""))


def reference_table() -> str:
    """All of it as Markdown, a table for each section."""
    lines = []
    for section, (about, settings) in explain_settings().items():
        lines += [f"## {section or 'Top level'}", "", about, ""]
        lines += ["| setting | unit | allowed | default | variable |", "|---|---|---|---|---|"]
        for each in settings:
            name = f"`{each.key}`: {each.about}"
            default = each.default if each.default == "unset" else f"`{each.default}`"
            variable = each.environment if each.environment == "-" else f"`{each.environment}`"
            cells = (name, each.unit, each.allowed, default, variable)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _sections(
    model: type[BaseModel], prefix: str
) -> Iterator[tuple[str, tuple[str, list[Explained]]]]:
    own, within = [], []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            within.append((field.annotation, f"{prefix}{name}."))
        else:
            own.append(_explained(f"{prefix}{name}", field))
    about = (model.__doc__ or "").split("\n\n")[0].split("; `")[0].replace("\n", " ").rstrip(".")
    yield prefix.rstrip("."), (f"{about}.", own)
    for section, key in within:
        yield from _sections(section, key)


def _explained(key: str, field: FieldInfo) -> Explained:
    setting = settings_by_key()[key]
    return Explained(
        key,
        setting.description,
        _unit(key, setting.description) if setting.numeric else "-",
        "a secret, from the environment only" if setting.secret else _allowed(field),
        _shown(field.default),
        setting.environment or "-",
    )


def _unit(key: str, about: str) -> str:
    """Return the unit that a number's name or its sentence tells; a count or a ratio has none."""
    for suffix, unit in _SUFFIXES:
        if key.endswith(suffix):
            return unit
    for word, unit in _WORDS:
        if re.search(word, about):
            return unit
    return "-"


def _allowed(field: FieldInfo) -> str:
    """Return what a value must be, as its type and its own check say."""
    parts = [_one(each, list(field.metadata)) for each in _alternatives(field.annotation)]
    said = [part for part in parts if part]
    return " or ".join(dict.fromkeys(said)) + (", or unset" if len(said) < len(parts) else "")


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(each for part in get_args(annotation) for each in _alternatives(part))
    return (annotation,)


def _one(annotation: Any, metadata: list[Any]) -> str:
    if annotation is type(None):
        return ""
    if get_origin(annotation) is Annotated:
        annotation, *own = get_args(annotation)
        metadata = [*metadata, *own]
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, get_args(annotation)))
    if said := _said_by_check(annotation, metadata):
        return said
    if annotation is bool:
        return "true or false"
    if annotation in (int, float):
        whole = "whole number" if annotation is int else "number"
        bounds = ", ".join(_bounds(metadata))
        return f"{whole}, {bounds}" if bounds else whole
    return {Path: "path", str: "text"}.get(annotation, _collection(annotation))


def _collection(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is dict:
        return "mapping by name"
    if origin in (list, tuple) and parts:
        return f"list: {_one(parts[0], [])}"
    return "value"


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for each in metadata:
        for part in getattr(each, "metadata", [each]):
            for name, words in (("ge", "at least"), ("gt", "above"), ("le", "at most")):
                if (bound := getattr(part, name, None)) is not None:
                    yield f"{words} {bound:g}"
            if (bound := getattr(part, "lt", None)) is not None:
                yield f"below {bound:g}"


def _said_by_check(annotation: Any, metadata: list[Any]) -> str:
    """Return the sentence of a check of its own, from the error that a wrong value gets."""
    if not any(hasattr(each, "func") for each in metadata) or annotation is SecretStr:
        return ""
    checked = TypeAdapter(Annotated[(annotation, *metadata)])
    for probe in _PROBES:
        try:
            checked.validate_python(probe)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                if details["type"] == "value_error":
                    return str(details["ctx"]["error"]).removeprefix("must ").removeprefix("be ")
    return ""


def _shown(default: Any) -> str:
    if default is None:
        return "unset"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list | tuple):
        return ", ".join(map(str, default)) or "none"
    if isinstance(default, float):
        return f"{default:g}" if abs(default) < 1e5 else f"{default:.0f}"
    return "none" if default == {} else str(default)
