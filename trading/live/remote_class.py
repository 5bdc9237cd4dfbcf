"""The class of the live market's actor, for those who only ask it something.

Whoever gets the handle of an actor loads the actor's class. Those who answer by HTTP would load all
that trading takes, network and kernels, to ask for a status update.
"""

from collections.abc import Callable
from typing import Any


def remote_class(of: type) -> type:
    """Return a class with the same public methods, which imports `of` where it is made.

    It belongs to no module, so Ray hands it over as it is, and `of` only by its place.
    """
    methods: dict[str, Any] = {"__init__": _made(of.__module__, of.__name__)}
    for each, value in vars(of).items():
        if callable(value) and not each.startswith("_"):
            methods[each] = _asked(each)
    return type(of.__name__, (), methods)


def _made(module: str, name: str) -> Callable[..., None]:
    def make(self: Any, *arguments: Any) -> None:
        from importlib import import_module

        self._own = getattr(import_module(module), name)(*arguments)

    return make


def _asked(name: str) -> Callable[..., Any]:
    def method(self: Any, *arguments: Any) -> Any:
        return getattr(self._own, name)(*arguments)

    method.__name__ = name
    return method
