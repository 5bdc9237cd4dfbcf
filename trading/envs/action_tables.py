"""The actions as arrays, by which compiled functions choose contracts and price them."""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trading.envs.catalogue import (
    ACTIONS,
    BUCKETS,
    MAX_LEGS,
    STOCK_RIGHT,
    Action,
    LegChoice,
    LegTemplate,
)
from trading.envs.structures import RIGHTS, Structure, StructureLeg, all_actions
from trading.execution.margin.reg_t import shape_sells_short
from trading.market.chain import F64, I8, I64


class ActionTables(NamedTuple):
    """N actions of full size, hold and close among them, and the D deltas that legs aim at."""

    n_legs: I64
    """[N]"""
    secured: NDArray[np.bool_]
    """[N]: what is sold is covered by stock or cash, which then size it, see `ties_up_cash`."""
    sells_short: NDArray[np.bool_]
    """[N]: opening it needs a margin account."""
    outlasts: NDArray[np.bool_]
    """[N]: an option lasts longer than another, so that no payoff at expiry bounds its value."""
    with_stock: I64
    """Those with a leg of stock."""
    bucket: I64
    """[N, MAX_LEGS], and likewise the rest: place in `BUCKETS`."""
    right: I8
    ratio: I64
    """Signed contracts of one unit."""
    choice: I64
    """A `LegChoice`."""
    slot: I64
    """Place in `deltas`."""
    of: I64
    """The leg that its strike is held against."""
    reach: F64
    """Distance in strike, as a fraction of the underlying's price."""
    deltas: F64
    """[D]: those of the catalogue first."""


CATALOGUE_DELTAS = sorted(
    {leg.abs_delta for a in ACTIONS for leg in a.legs if isinstance(leg, LegTemplate)} - {0.0}
)
"""Delta targets of the catalogue's own legs."""


def ties_up_cash(shape: list[tuple[int, int]]) -> bool:
    """Whether legs (right, signed ratio) sell more than they buy of a right.

    Stock or cash secures that, as of a covered call and a cash-secured put; such a position is
    sized by the capital that it ties up.
    """
    return any(sum(ratio for right, ratio in shape if right == side) < 0 for side in (1, -1))


@cache
def action_tables(structures: tuple[Structure, ...] = ()) -> ActionTables:
    """Return the tables of the catalogue with structures of a user's own behind it."""
    actions = all_actions(structures)
    own = {leg.delta for each in structures for leg in each.legs if leg.delta is not None}
    deltas = [*CATALOGUE_DELTAS, *sorted(own - set(CATALOGUE_DELTAS))]
    shapes = [[_shape(leg) for leg in action.legs] for action in actions]
    stock = [k for k, shape in enumerate(shapes) if any(r == STOCK_RIGHT for r, _ in shape)]
    shaped = len(actions), MAX_LEGS
    whole = {
        name: np.zeros(shaped, np.int64) for name in ("bucket", "ratio", "choice", "slot", "of")
    }
    right, reach = np.zeros(shaped, np.int8), np.zeros(shaped)
    for a, action in enumerate(actions):
        for k, leg in enumerate(action.legs):
            right[a, k], whole["ratio"][a, k] = shapes[a][k]
            choice, delta, of, reach[a, k] = _choice(leg, k)
            bucket = _bucket(leg, action.bucket)
            if choice is LegChoice.PAIR and bucket != whole["bucket"][a, of]:
                choice = LegChoice.SAME_STRIKE
            whole["bucket"][a, k], whole["choice"][a, k] = bucket, choice
            whole["of"][a, k] = of
            whole["slot"][a, k] = deltas.index(delta) if delta else 0
    return ActionTables(
        n_legs=np.array([len(action.legs) for action in actions], np.int64),
        secured=np.array([ties_up_cash(shape) for shape in shapes]),
        sells_short=np.array([shape_sells_short(shape) for shape in shapes]),
        outlasts=np.array([_outlasts(action) for action in actions]),
        with_stock=np.array(stock, np.int64),
        right=right,
        reach=reach,
        deltas=np.array(deltas),
        **whole,
    )


def _shape(leg: LegTemplate | StructureLeg) -> tuple[int, int]:
    """Right and signed ratio."""
    right = leg.right if isinstance(leg, LegTemplate) else RIGHTS[leg.right]
    return right, leg.ratio


def _bucket(leg: LegTemplate | StructureLeg, usual: int) -> int:
    """Place of a leg's expiry in `BUCKETS`: that of the action, unless it names its own."""
    named = None if isinstance(leg, LegTemplate) else leg.expiry
    return usual if named is None else [each.name for each in BUCKETS].index(named)


def _outlasts(action: Action) -> bool:
    return any(_bucket(leg, action.bucket) > action.bucket for leg in action.legs)


def _choice(leg: LegTemplate | StructureLeg, k: int) -> tuple[LegChoice, float, int, float]:
    """How leg `k` is found, its delta target, the leg that it is held against, and its reach."""
    if isinstance(leg, LegTemplate):
        return leg.choice, leg.abs_delta, k - 1, 0.0
    if leg.right == "stock":
        return LegChoice.STOCK, 0.0, 0, 0.0
    if leg.at is not None:
        return LegChoice.PAIR, 0.0, leg.at, 0.0
    if leg.width is not None:
        return LegChoice.WIDTH, 0.0, leg.of or 0, leg.width / 100.0
    if leg.beyond is not None:
        return LegChoice.BEYOND, leg.delta or 0.0, leg.beyond, 0.0
    return LegChoice.DELTA, leg.delta or 0.0, 0, 0.0
