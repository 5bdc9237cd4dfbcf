"""Size as part of the action: openings at a part of what is allowed.

With `TradingRules.size_levels` L, each opening of the catalogue has L sizes: all that the account
may open, at the catalogue's own index, and k/L of it for k = 1 to L - 1, whole units rounded down,
in blocks behind (`trading.envs.catalogue.action_names`). A part of less than one unit is masked.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.catalogue import ACTION_COUNT, CLOSE, OPENING_COUNT


@njit(cache=True, error_model="numpy")
def of_full_size(action: int) -> int:
    """Return the action of the catalogue whose contracts an action trades."""
    if action < ACTION_COUNT:
        return action
    return (action - ACTION_COUNT) % OPENING_COUNT + CLOSE + 1


@njit(cache=True, error_model="numpy")
def allow_parts(b: int, levels: int, units: NDArray[np.int32], mask: NDArray[np.bool_]) -> None:
    """Write what account `b` may order of the parts of openings, whose full size is known."""
    for level in range(1, levels):
        part = ACTION_COUNT + (level - 1) * OPENING_COUNT
        for action in range(CLOSE + 1, ACTION_COUNT):
            units[b, part] = units[b, action] * level // levels
            mask[b, part] = units[b, part] >= 1
            part += 1
