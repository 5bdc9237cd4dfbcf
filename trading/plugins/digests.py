"""Tells a user's compiled functions apart: by a digest of one and of all of theirs that it uses.

It is of texts and values, never of bytecode or of where a file lies: the same in every process, on
every machine and with every version of Python.
"""

import ast
import dis
import hashlib
import inspect
import io
import site
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from trading.errors import PluginError

_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_OUTER = ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_MOST_TOLD = 100


def code_digest(function: Callable[..., Any]) -> str:
    """Return 12 digits of a SHA-256 of a function and of all that it uses of its owner's.

    That is its text, the values of the names it refers to and of its parameters' defaults, and the
    same of every function among these that is in its file, or in another one that is neither of an
    installed package nor of Python. Of installed ones it is the name. What else is in the file
    changes nothing. A compiled function has no more than these, since numba takes the values of
    names for constants.

    Raises
    ------
    PluginError
        A text cannot be read, or a value has no form that is the same in every process.
    """
    digest = hashlib.sha256()
    mine = plain(function)
    for part in _Walk(mine.__module__).function(mine):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:12]


def plain(function: Any) -> Any:
    """Return a function without a decorator of numba's that its owner has put there."""
    return getattr(function, "py_func", function)


class _Walk:
    """What a function is made of, part by part, each function once.

    Parameters
    ----------
    root
        The module of the function that is asked about.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._seen: set[int] = set()

    def function(self, function: FunctionType) -> Iterator[str]:
        """Yield the text of a function, and of what it refers to."""
        self._seen.add(id(function))
        # Without decorators: a feature that is called otherwise is still the same function.
        yield _text(function)
        for name, value in sorted(self._used(function).items()):
            yield from self._value(name, value, function)
        defaults = {str(k): value for k, value in enumerate(function.__defaults__ or ())}
        defaults |= function.__kwdefaults__ or {}
        for name, value in defaults.items():
            yield from self._value(f"default {name}", value, function)

    def _used(self, function: FunctionType) -> dict[str, Any]:
        """Return what the names in a function stand for, by name; a dotted one in a module."""
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        outer = {name: cell.cell_contents for name, cell in cells}
        found = {}
        for is_global, (first, *attributes) in _loads(function.__code__):
            known: Mapping[str, Any] = function.__globals__ if is_global else outer
            if first not in known:
                continue  # Of Python's own, or of a function around it in the same text.
            name, value = first, known[first]
            for attribute in attributes:
                if not isinstance(value, ModuleType) or not self._is_own(value.__name__):
                    break
                if not hasattr(value, attribute):
                    break
                name, value = f"{name}.{attribute}", getattr(value, attribute)
            found[name] = value
        return found

    def _value(self, name: str, value: Any, of: FunctionType) -> Iterator[str]:
        """Yield what tells a value apart from others of its name, in function `of`."""
        value = plain(value)
        wrapped = getattr(value, "__wrapped__", None)
        is_wrapper = inspect.isfunction(wrapped) and not inspect.isfunction(value)
        if is_wrapper and self._is_own(wrapped.__module__):
            value = wrapped  # Under numba.vectorize.
        module = getattr(value, "__module__", None)
        own = isinstance(module, str) and self._is_own(module)
        if isinstance(value, ModuleType):
            yield f"{name}={value.__name__}"
            if self._is_own(value.__name__):
                yield inspect.getsource(value)
        elif inspect.isfunction(value) and own:
            if id(value) in self._seen:
                yield f"{name}={value.__qualname__}"
            else:
                yield from self.function(value)
        elif inspect.isclass(value) and own:
            yield f"{name}={value.__qualname__}"
            yield _text_of_class(value)
        elif isinstance(value, tuple | list) and not all(type(each) in _PLAIN for each in value):
            yield f"{name}={type(value).__name__} of {len(value)}"
            for number, each in enumerate(value):
                yield from self._value(f"{name}[{number}]", each, of)
        else:
            yield f"{name}={_told(name, value, of)}"

    def _is_own(self, module: str) -> bool:
        """Whether a module is its owner's: not Python's, of no installed package, and not ours."""
        package = module.partition(".")[0]
        if package == self._root.partition(".")[0]:
            return True
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is None or package == "trading":
            return False
        return not any(Path(file).resolve().is_relative_to(place) for place in _installed())


def _loads(code: CodeType) -> Iterator[tuple[bool, tuple[str, ...]]]:
    """Yield the names that code and the functions in it read, with attributes read of them.

    With each whether it is a name of the module, or else one of a function around it.
    """
    is_global, path = False, tuple[str, ...]()
    for step in dis.get_instructions(code):
        if step.opname in ("CACHE", "EXTENDED_ARG"):
            continue
        if path and step.opname in _ATTRIBUTE:
            path += (str(step.argval),)
            continue
        if path:
            yield is_global, path
        is_global = step.opname in _GLOBAL
        path = (str(step.argval),) if is_global or step.opname in _OUTER else ()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _loads(constant)


def _told(name: str, value: Any, of: FunctionType) -> str:
    """Return a value as text that is the same in every process."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is not None and shape is not None and not dtype.hasobject:
        return f"{dtype.str}{shape}{value.tobytes().hex()}"
    if isinstance(value, set | frozenset):
        return repr(sorted(map(repr, value)))
    module = getattr(value, "__module__", None)
    qualified = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if module is not None and qualified is not None:
        return f"{module}.{qualified}"
    told = repr(value)
    if " at 0x" in told or dtype is not None:
        raise PluginError(
            f"{_place(of)}: {name} is {told[:_MOST_TOLD]}, which is another text in every process: "
            "use numbers, texts, NumPy arrays of numbers, and functions"
        )
    return told


def _text(function: FunctionType) -> str:
    """Return the text of a function without its decorators, or of the lambdas of its line."""
    code = function.__code__
    text, tree = _source(function)
    lines = io.StringIO(text).readlines()
    lambdas = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno:
            lambdas.append(ast.get_source_segment(text, node) or "")
        elif isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if first == code.co_firstlineno:
                return textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno]))
    if code.co_name == "<lambda>" and lambdas:
        return "\n".join(lambdas)
    raise PluginError(
        f"{_place(function)}: its text is not there, so that it cannot be told from another one: "
        "write it in the file with def, and start again if the file was changed meanwhile"
    )


def _text_of_class(owner: type) -> str:
    """Return the text of a class; of one that a call has made, its fields."""
    node: Any = None
    try:
        text, within = _source(owner)
        for name in owner.__qualname__.split("."):
            node = next(
                each
                for each in ast.walk(node or within)
                if isinstance(each, ast.ClassDef | ast.FunctionDef) and each.name == name
            )
        return ast.get_source_segment(text, node) or ""
    except (PluginError, StopIteration):
        defaults = getattr(owner, "_field_defaults", {})
        return f"{getattr(owner, '_fields', ())}{defaults}"


def _source(of: Any) -> tuple[str, ast.Module]:
    """Return the text of the file of a function or class, and the same as a tree."""
    try:
        file = inspect.getsourcefile(of) or ""
        lines = inspect.findsource(sys.modules[of.__module__] if inspect.isclass(of) else of)[0]
        return "".join(lines), _parsed("".join(lines), file)
    except (OSError, TypeError, SyntaxError) as error:
        raise PluginError(
            f"{_place(of)}: its text cannot be read ({error}): write it in a file"
        ) from error


@cache
def _parsed(text: str, file: str) -> ast.Module:
    return ast.parse(text, file)


@cache
def _installed() -> tuple[Path, ...]:
    """Return the folders of Python itself and of what is installed into it."""
    paths = sysconfig.get_paths()
    places = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    places += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(Path(each).resolve() for each in places)


def _place(of: Any) -> str:
    file = getattr(sys.modules.get(of.__module__), "__file__", None)
    return f"{of.__qualname__} of {file or of.__module__}"
