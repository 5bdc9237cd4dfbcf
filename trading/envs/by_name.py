"""Actions and features by their names, for traders that are written by people."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from functools import cache
from typing import Any

from numpy.typing import NDArray

from trading.envs.catalogue import MOST_SIZE_LEVELS, action_count, action_names
from trading.envs.features import (
    FEATURE_COUNT,
    FEATURES,
    ORDER_FEATURES,
    OTHERS_COUNT,
    OTHERS_FEATURES,
)
from trading.envs.structures import Structure, all_actions
from trading.errors import UnknownName

_SIZES = re.compile(r"_\d+of(\d+)$")
_OTHERS = {each.name: index - OTHERS_COUNT for index, each in enumerate(OTHERS_FEATURES)}
_ORDERS = {each.name: index - len(ORDER_FEATURES) for index, each in enumerate(ORDER_FEATURES)}
_FEATURES = {each.name: index for index, each in enumerate(FEATURES)} | _OTHERS | _ORDERS
_LISTED = (
    "docs/observation.md lists them, and td.feature(..., features=settings.env.features) finds "
    "your own too"
)
_STRUCTURES: ContextVar[tuple[Structure, ...]] = ContextVar("structures", default=())
"""Those of the rules that a registered trader acts by, while it is called."""
_OWN: ContextVar[tuple[str, ...] | None] = ContextVar("features", default=None)
"""Names of a user's own features in what such a trader sees then; None: nobody says."""


@contextmanager
def acting_with(structures: tuple[Structure, ...], features: tuple[str, ...]) -> Iterator[None]:
    """Let `action` know the actions of these structures within the block, `feature` these names."""
    acting, seeing = _STRUCTURES.set(structures), _OWN.set(features)
    try:
        yield
    finally:
        _STRUCTURES.reset(acting)
        _OWN.reset(seeing)


def action(
    name: str,
    size_levels: int | None = None,
    structures: Sequence[Structure] | None = None,
) -> int:
    """Return the number of an action.

    Parameters
    ----------
    name
        As `docs/actions.md` has it; of a smaller size with its part, as `long_call_near_d30_1of3`.
    size_levels
        `env.size_levels` of the environment that is acted in, so that a part that it does not have
        is refused; unset: the number that the name says.
    structures
        Those that `register_structure` returned, in the order of `env.structures`; unset: in a
        registered trader or baseline those of the settings that it acts by, else none.

    Raises
    ------
    UnknownName
        No action is called so.

    Examples
    --------
    >>> import trading as td
    >>> td.action("close") == td.CLOSE
    True
    >>> td.ACTIONS[td.action("iron_condor_far_d30_15")].legs[0].describe()
    '-1 put at delta 0.30'
    >>> td.action("long_call_near_d30_1of3") == len(td.ACTIONS)
    True
    """
    part = _SIZES.search(name)
    named = int(part[1]) if part else 1
    if size_levels is not None and part and named != size_levels:
        raise UnknownName(
            f"there is no action {name!r} where env.size_levels is {size_levels}: set that to "
            f"{named}, or name a part of {size_levels}"
        )
    levels = named if 1 <= named <= MOST_SIZE_LEVELS else 1
    own = _STRUCTURES.get() if structures is None else tuple(structures)
    where = "docs/actions.md lists them, and env.structures adds those of structures"
    return _found(_actions(levels, own), name, "action", where)


def feature(
    observation: Mapping[str, NDArray[Any]], name: str, features: Sequence[str] | None = None
) -> NDArray[Any]:
    """One feature of every row.

    Parameters
    ----------
    observation
        Of an environment: `observation["observations"]` is float32 [..., F].
    name
        As `docs/observation.md` has it, or one of `features`.
    features
        Names of your own features in the observation: `env.features` of its settings. They are
        needed for these, and for what stands behind them: what is open on an account's other
        underlyings, and orders that work. Unset: in a registered trader or baseline those of the
        settings that it acts by, else not known.

    Returns
    -------
    float32 [...]

    Raises
    ------
    UnknownName
        No feature is called so; it is of an account's other underlyings or of orders that work,
        and there are none or `features` are not known; or the observation is not one of `features`.

    Examples
    --------
    >>> import trading as td
    >>> observation, _ = td.make_vector_env(2, seed=1).reset()
    >>> td.feature(observation, "position_open").tolist()
    [0.0, 0.0]
    """
    rows: NDArray[Any] = observation["observations"]
    own, added = _OWN.get() if features is None else tuple(features), rows.shape[-1] - FEATURE_COUNT
    if own is not None and added < len(own):
        raise UnknownName(
            f"{', '.join(own)}: the observation has {added} numbers behind those of "
            "docs/observation.md: give env.features of the settings that it was made by"
        )
    if name in _OTHERS:
        _check_others(name, added, own)
    if name in _ORDERS and (own is None or added != len(own) + len(_ORDERS)):
        raise UnknownName(
            f"{name} is seen with execution.style=working; outside of a registered trader say "
            f"which features are your own: td.feature(observation, {name!r}, "
            "features=settings.env.features)"
        )
    places = _FEATURES | {each: FEATURE_COUNT + k for k, each in enumerate(own or ())}
    column: NDArray[Any] = rows[..., _found(places, name, "feature", _LISTED)]
    return column


def _check_others(name: str, added: int, own: tuple[str, ...] | None) -> None:
    """Check that an observation of so many `added` numbers ends with those of other underlyings.

    Raises UnknownName where it does not, or where some of them may be a user's own.
    """
    if added < len(own or ()) + OTHERS_COUNT:
        raise UnknownName(
            f"{name} is seen where accounts trade several underlyings: set "
            "env.underlyings_per_account above 1"
        )
    if own is None or added > len(own) + OTHERS_COUNT:
        raise UnknownName(
            f"{name}: of the {added} numbers behind those of docs/observation.md it is not known "
            "which are your own: say so, as in "
            f"td.feature(observation, {name!r}, features=settings.env.features)"
        )


def feature_index(name: str) -> int:
    """Return the place of a feature in a row of observations.

    Below zero, from the end, where it is of an account's other underlyings or of orders that work.

    Parameters
    ----------
    name
        As `docs/observation.md` has it.

    Raises
    ------
    UnknownName
        No feature is called so.

    Examples
    --------
    >>> import trading as td
    >>> td.FEATURES[td.feature_index("rsi")].name
    'rsi'
    """
    return _found(_FEATURES, name, "feature", _LISTED)


@cache
def _actions(size_levels: int, structures: tuple[Structure, ...]) -> dict[str, int]:
    actions = all_actions(structures)
    names = action_names(action_count(size_levels, len(actions)), actions)
    return {name: index for index, name in enumerate(names)}


def _found(known: Mapping[str, int], name: str, kind: str, where: str) -> int:
    if name in known:
        return known[name]
    near = get_close_matches(name, known, 3)
    meant = f"; near it are {', '.join(near)}" if near else ""
    raise UnknownName(f"there is no {kind} {name!r}{meant}: {where}")
