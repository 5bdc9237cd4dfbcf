"""Copies of the arrays that an environment's state consists of, and putting them back in place."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trading.errors import DataError

Arrays: TypeAlias = "NDArray[Any] | dict[str, Arrays]"
"""Arrays by name, nested."""


_SINCE = {
    *("known", "peak", "halted", "reduced", "delivered", "margin_moves"),
    *("order_opens", "order_hold", "orders", "last_action", "last_price"),
    *("sessions", "session", "extra", "later", "expiry", "kept"),
}
"""Parts that older states lack: they are 0, nothing known."""

_FORMER_NAMES = {
    "purses": "balances",
    "sights": "views",
    "frames": "snapshots",
    "frame_of": "snapshot_of",
    "reserved": "margin_used",
    "unit_reserve": "margin_per_unit",
    "moves": "margin_moves",
}
"""What parts were called in older states, and are called now."""


def copy_state(state: Any) -> Arrays:
    """Return copies of an array, of a named tuple of arrays, or of a dict of them."""
    if isinstance(state, np.ndarray):
        return state.copy()
    return {name: copy_state(part) for name, part in _parts(state).items()}


def restore_state(state: Any, saved: Any, name: str = "state") -> None:
    """Write what `copy_state` returned into the arrays of `state`, of which others may hold views.

    Raises
    ------
    DataError
        A name, a shape or a dtype differs; nothing is changed then.
    """
    saved = _with_present_names(saved)
    _check(state, saved, name)
    _write(state, saved)


class MarketsWithState:
    """What consists of arrays and a generator, and can go on where another one stood."""

    _rng: np.random.Generator

    def get_state(self) -> dict[str, Any]:
        """Return a copy of the arrays and of the generator."""
        return {"rng": self._rng.bit_generator.state, "arrays": copy_state(self._arrays())}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a state in place.

        Raises
        ------
        DataError
            The state is of another size or kind; nothing is changed then.
        """
        restore_state(self._arrays(), state["arrays"], "markets")
        self._rng.bit_generator.state = state["rng"]

    def _arrays(self) -> dict[str, Any]:
        """All that the state consists of beside the generator, as `copy_state` takes it."""
        raise NotImplementedError


def _with_present_names(saved: Any) -> Any:
    if not isinstance(saved, dict):
        return saved
    return {
        _FORMER_NAMES.get(name, name): _with_present_names(part) for name, part in saved.items()
    }


def _check(state: Any, saved: Any, name: str) -> None:
    if isinstance(state, np.ndarray):
        have = (saved.shape, saved.dtype) if isinstance(saved, np.ndarray) else type(saved)
        if have != (state.shape, state.dtype):
            raise DataError(
                f"{name} was saved as {have}, but is {state.dtype} {list(state.shape)} here: the "
                "environment has another number of accounts or another version"
            )
        return
    parts = _parts(state)
    if not isinstance(saved, dict) or saved.keys() | _SINCE != parts.keys() | _SINCE:
        raise DataError(f"{name} was saved with other parts than {sorted(parts)}")
    for part, value in parts.items():
        if part in saved or part not in _SINCE:
            _check(value, saved[part], f"{name}.{part}")


def _write(state: Any, saved: Any) -> None:
    if isinstance(state, np.ndarray):
        state[...] = saved
        return
    for part, value in _parts(state).items():
        if part in saved:
            _write(value, saved[part])
        else:
            _forget(value)


def _forget(state: Any) -> None:
    if isinstance(state, np.ndarray):
        state[...] = 0
        return
    for part in _parts(state).values():
        _forget(part)


def _parts(state: Any) -> dict[str, Any]:
    parts: dict[str, Any] = state if isinstance(state, dict) else state._asdict()
    return parts
