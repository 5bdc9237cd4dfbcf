"""Actions and features by their names, for traders that are written by people."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from numpy.typing import NDArray

from trading.envs.catalogue import ACTIONS
from trading.envs.features import FEATURES
from trading.errors import UnknownName

_ACTIONS = {each.name: index for index, each in enumerate(ACTIONS)}
_FEATURES = {each.name: index for index, each in enumerate(FEATURES)}


def action(name: str) -> int:
    """Return the number of an action.

    Parameters
    ----------
    name
        As `docs/actions.md` has it.

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
    """
    return _found(_ACTIONS, name, "action", "docs/actions.md")


def feature(observation: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """One feature of every row.

    Parameters
    ----------
    observation
        Of an environment: `observation["observations"]` is float32 [..., F].
    name
        As `docs/observation.md` has it.

    Returns
    -------
    float32 [...]

    Raises
    ------
    UnknownName
        No feature is called so.

    Examples
    --------
    >>> import trading as td
    >>> observation, _ = td.make_vector_env(2, seed=1).reset()
    >>> td.feature(observation, "position_open").tolist()
    [0.0, 0.0]
    """
    column: NDArray[Any] = observation["observations"][..., feature_index(name)]
    return column


def feature_index(name: str) -> int:
    """Return the place of a feature in a row of observations.

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
    return _found(_FEATURES, name, "feature", "docs/observation.md")


def _found(known: Mapping[str, int], name: str, kind: str, page: str) -> int:
    if name in known:
        return known[name]
    near = get_close_matches(name, known, 3)
    meant = f"; near it are {', '.join(near)}" if near else ""
    raise UnknownName(f"there is no {kind} {name!r}{meant}: {page} lists them")
