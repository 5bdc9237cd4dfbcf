"""One readable line for each mistake: the key, the value, where it came from, what is allowed."""

import re
from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_SECRET_NAME = re.compile(r"key|secret|token|password|credential", re.IGNORECASE)
_LONGEST_VALUE = 60

_ALLOWED = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text (quote it)",
    "is_instance_of": "must be a path",
    "path_type": "must be a path",
    "date_type": "must be a date written YYYY-MM-DD",
    "tuple_type": "must be a list",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be {ge:g} or greater",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be {le:g} or less",
    "string_too_short": "must not be empty",
    "literal_error": "must be one of {expected}",
}


def problem_line(key: str, value: object, origin: str, allowed: str) -> str:
    """`key = value (origin): allowed`, with the value hidden where the key names a secret."""
    return f"{key} = {printable(key, value)} ({origin}): {allowed}"


def printable(key: str, value: object) -> str:
    """`value` on one line, shortened, and hidden where `key` or a key within it names a secret."""
    text = repr(value)
    if _SECRET_NAME.search(key) or (isinstance(value, dict | list) and _SECRET_NAME.search(text)):
        return "***"
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _dotted(location: tuple[int | str, ...]) -> str:
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return key


def _origin_of(key: str, origins: Mapping[str, str]) -> str:
    """Where a key came from, or the setting that it is an entry of."""
    while key and key not in origins:
        key = key.rpartition(".")[0]
    return origins.get(key, "default")


def _allowed(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"] == "value_error":
        return str(context["error"])
    sentence = _ALLOWED.get(error["type"])
    return sentence.format(**context) if sentence else error["msg"]


def problem_lines(error: ValidationError, origins: Mapping[str, str]) -> list[str]:
    """One line for each of pydantic's errors; `origins` says where each dotted key came from."""
    lines = []
    for details in error.errors(include_url=False):
        key = _dotted(details["loc"])
        origin = _origin_of(key.partition("[")[0], origins)
        lines.append(problem_line(key, details["input"], origin, _allowed(details)))
    return lines
