"""YAML as settings are written in it: plain scalars mean what they look like.

Differs from PyYAML's default. Only `true` and `false` are booleans, so the symbol `ON` stays text.
`3e-4` is a number. Whole numbers are decimal: `010` is ten, not eight, and `1:30` is text, which no
number takes, not 90. Dates stay text, for the setting's own type to read. A key written twice is an
error instead of the last one winning. Aliases are errors too: a few lines of them stand for more
values than any memory holds.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

_FLOAT = re.compile(
    r"""^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$
       |^[-+]?[0-9]+[eE][-+]?[0-9]+$
       |^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$""",
    re.VERBOSE,
)
_INT = re.compile(r"^[-+]?[0-9][0-9_]*$")
_REPLACED = {"tag:yaml.org,2002:" + name for name in ("bool", "int", "float", "timestamp")}


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                problem=f"the alias *{event.anchor} is not read: write its value out",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key_node.value!r} is written twice",
                    problem_mark=key_node.start_mark,
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)

    def construct_decimal(self, node: yaml.ScalarNode) -> int:
        return int(str(self.construct_scalar(node)).replace("_", ""))


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_decimal)


class YamlProblem(Exception):
    """The text is not YAML; the message is one line without any of the text's values."""


def parse_yaml(text: str) -> object:
    """Return the value that `text` means.

    Raises
    ------
    YamlProblem
        The text is malformed; names the line and column.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise YamlProblem(f"{place}{error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise YamlProblem(str(error).splitlines()[0]) from None
    except RecursionError:
        raise YamlProblem("it is nested too deeply") from None
