"""Size as part of the action: openings at a part of what is allowed.

With `TradingRules.size_levels` L, each opening has L sizes: all that the account may open, at its
own index, and k/L of it for k = 1 to L - 1, whole units rounded down, in blocks behind the `whole`
actions of full size (`trading.envs.catalogue.action_names`). A part of less than one unit is
masked.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading.envs.catalogue import CLOSE


@njit(cache=True, error_model="numpy")
def of_full_size(action: int, whole: int) -> int:
    """Return the action, of `whole` ones of full size, whose contracts an action trades."""
    if action < whole:
        return action
    return (action - whole) % (whole - CLOSE - 1) + CLOSE + 1


@njit(cache=True, error_model="numpy")
def allow_parts(
    b: int, levels: int, whole: int, units: NDArray[np.int32], mask: NDArray[np.bool_]
) -> None:
    """Write what account `b` may order of the parts of openings, whose full size is known."""
    for level in range(1, levels):
        part = whole + (level - 1) * (whole - CLOSE - 1)
        for action in range(CLOSE + 1, whole):
            units[b, part] = units[b, action] * level // levels
            mask[b, part] = units[b, part] >= 1
            part += 1
