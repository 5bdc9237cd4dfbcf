"""Functions of a user's own that run inside compiled loops: compiled, and tried out."""

import math
import re
from pathlib import Path
from typing import Any

from trading.errors import PluginError
from trading.plugins.digests import code_digest, plain
from trading.plugins.plugin_registry import Plugin, error_in

_MOST_TOLD = 300
_AT = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def check_digest(plugin: Plugin, digest: str) -> None:
    """Check that a function is the one whose digest a run began with.

    Raises
    ------
    PluginError
        It is another one.
    """
    now = code_digest(plugin.make)
    if now != digest:
        raise PluginError(
            f"{plugin} is another than the one that this run began with ({now}, not {digest}): "
            "let every machine have the same file, and start again"
        )


def compiled(plugin: Plugin) -> Any:
    """Return the function of a plug-in, which numba compiles for what it is called with.

    An index beyond an array is an error there too, and no number that happens to lie behind it.
    """
    from numba import njit

    return njit(error_model="numpy", boundscheck=True)(plain(plugin.make))


def tried(plugin: Plugin, function: Any, argument: Any, known: bool = True) -> float:
    """Return what a compiled function makes of an argument, before it is used in earnest.

    Parameters
    ----------
    plugin, function
        Whose, and as `compiled` made it.
    argument
        Its arrays are to be read-only, so that a function which writes to one cannot be compiled.
    known
        Whether the result must be a finite number.

    Raises
    ------
    PluginError
        It cannot be compiled, fails, gives no number, or another one for the same argument.
    """
    from numba.core import types
    from numba.core.errors import NumbaError
    from numba.core.types.misc import unliteral

    try:
        first, second = function(argument), function(argument)
    except NumbaError as error:
        raise PluginError(
            f"{plugin} cannot be compiled{_why(error, plugin.file)}: write it with numbers, NumPy, "
            "functions under numba.njit, and the arrays that it is given, which it may only read"
        ) from error
    except Exception as error:
        raise PluginError(
            f"{plugin} failed{error_in(error, plugin.file)}: {plugin.way_out}"
        ) from error
    (given,) = {unliteral(each.signature.return_type) for each in function.overloads.values()}
    if not isinstance(given, types.Float):
        raise PluginError(f"{plugin} returns {given}: it must return one float, as in 0.0")
    if first != second and not (math.isnan(first) and math.isnan(second)):
        raise PluginError(
            f"{plugin} gave {first!r} and then {second!r} for the same bar: it must depend on "
            "nothing but what it is given"
        )
    if known and not math.isfinite(first):
        raise PluginError(f"{plugin} gave {first!r} where all is known: it must give a number")
    return float(first)


def read_only(values: Any) -> Any:
    """Return a named tuple with its arrays as views that nobody may write to."""
    import numpy as np

    def shown(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        view = value.view()
        view.flags.writeable = False
        return view

    return type(values)._make(map(shown, values))


def _why(error: BaseException, file: str) -> str:
    """Return the line of a file at which numba gave up, and the first sentence of why."""
    text = str(error)
    # Paths are told relative to where one stands.
    name = Path(file).name
    lines = [int(at["line"]) for at in _AT.finditer(text) if Path(at["file"]).name == name]
    said = [
        line.strip(" -")
        for line in text.splitlines()
        if line.strip() and not line.startswith(("Failed in", "File ", "During", " "))
    ]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{where}: {' '.join(said[:1]).rstrip(':')[:_MOST_TOLD]}"
