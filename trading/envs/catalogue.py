"""The agent's actions: named strategies in expiry buckets at delta targets.

The catalogue says what an action is; `trading.envs.market_snapshots` chooses its contracts in a
market and `trading.envs.account_view` says how much of it an account may order.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from trading.errors import ConfigError

if TYPE_CHECKING:
    from trading.envs.structures import StructureLeg

MAX_LEGS = 4
HOLD = 0
CLOSE = 1

CALL, PUT, STOCK_RIGHT = 1, -1, 0


class Strategy(StrEnum):
    """Position shapes the agent can hold."""

    HOLD = "hold"
    CLOSE = "close"
    LONG_CALL = "long_call"
    LONG_PUT = "long_put"
    COVERED_CALL = "covered_call"
    CASH_SECURED_PUT = "cash_secured_put"
    BULL_CALL_DEBIT = "bull_call_debit"
    BEAR_PUT_DEBIT = "bear_put_debit"
    BULL_PUT_CREDIT = "bull_put_credit"
    BEAR_CALL_CREDIT = "bear_call_credit"
    LONG_STRADDLE = "long_straddle"
    LONG_STRANGLE = "long_strangle"
    IRON_CONDOR = "iron_condor"
    CALL_BUTTERFLY = "call_butterfly"


class LegChoice(IntEnum):
    """How the contract of a leg is found in the expiry of the action's bucket."""

    DELTA = 0
    """The tradable contract nearest the delta target."""
    BEYOND = 1
    """The same among strikes strictly further out of the money than the leg before."""
    PAIR = 2
    """The opposite right at the strike of the leg before."""
    MIRROR = 3
    """As far to the other side of the leg before last as the leg before; the nearest strike."""
    STOCK = 4
    """The underlying itself, in round lots."""
    WIDTH = 5
    """At a distance from an earlier leg's strike, and the next: of structures of a user's own."""
    SAME_STRIKE = 6
    """At the strike of an earlier leg, in another expiry."""


class ExpiryBucket(NamedTuple):
    """Which expiry an action trades: the one nearest `target` days, within the bounds."""

    name: str
    target_days: float
    min_days: float
    max_days: float


class LegTemplate(NamedTuple):
    """One leg before a contract is chosen for it."""

    right: int
    """+1 call, -1 put, 0 stock."""
    ratio: int
    """Signed contracts of one unit; of stock, signed round lots."""
    abs_delta: float = 0.0
    choice: LegChoice = LegChoice.DELTA

    def describe(self) -> str:
        """Return the leg in words."""
        if self.choice is LegChoice.STOCK:
            return f"{self.ratio:+d} round lot of stock"
        name = "call" if self.right == CALL else "put"
        where = {
            LegChoice.DELTA: f"at delta {self.abs_delta:.2f}",
            LegChoice.BEYOND: f"at delta {self.abs_delta:.2f}",
            LegChoice.PAIR: "at the same strike",
            LegChoice.MIRROR: "as far to the other side",
        }[self.choice]
        return f"{self.ratio:+d} {name} {where}"


@dataclass(frozen=True, slots=True)
class Action:
    """One entry of the catalogue."""

    name: str
    strategy: str
    """A `Strategy`, or the name of a structure of a user's own."""
    bucket: int
    legs: "tuple[LegTemplate | StructureLeg, ...]"


BUCKETS = (
    ExpiryBucket("near", 7.0, 2.0, 14.0),
    ExpiryBucket("far", 30.0, 14.0, 60.0),
)


def _shapes() -> list[tuple[Strategy, str, tuple[LegTemplate, ...]]]:
    """Return the opening strategies of one bucket: strategy, label of its deltas, legs."""
    leg, beyond = LegTemplate, LegChoice.BEYOND
    shapes: list[tuple[Strategy, str, tuple[LegTemplate, ...]]] = []
    for delta in (0.30, 0.50):
        label = f"d{round(delta * 100)}"
        shapes.append((Strategy.LONG_CALL, label, (leg(CALL, 1, delta),)))
        shapes.append((Strategy.LONG_PUT, label, (leg(PUT, 1, delta),)))
    stock = leg(STOCK_RIGHT, 1, 0.0, LegChoice.STOCK)
    shapes.append((Strategy.COVERED_CALL, "d30", (leg(CALL, -1, 0.30), stock)))
    shapes.append((Strategy.CASH_SECURED_PUT, "d30", (leg(PUT, -1, 0.30),)))
    for near, far in ((0.50, 0.25), (0.30, 0.15)):
        label = f"d{round(near * 100)}_{round(far * 100)}"
        for strategy, right, ratio in (
            (Strategy.BULL_CALL_DEBIT, CALL, 1),
            (Strategy.BEAR_PUT_DEBIT, PUT, 1),
            (Strategy.BULL_PUT_CREDIT, PUT, -1),
            (Strategy.BEAR_CALL_CREDIT, CALL, -1),
        ):
            wing = leg(right, -ratio, far, beyond)
            shapes.append((strategy, label, (leg(right, ratio, near), wing)))
    straddle = (leg(CALL, 1, 0.50), leg(PUT, 1, 0.0, LegChoice.PAIR))
    strangle = (leg(CALL, 1, 0.30), leg(PUT, 1, 0.30))
    condor = (
        leg(PUT, -1, 0.30),
        leg(PUT, 1, 0.15, beyond),
        leg(CALL, -1, 0.30),
        leg(CALL, 1, 0.15, beyond),
    )
    butterfly = (
        leg(CALL, -2, 0.50),
        leg(CALL, 1, 0.25, beyond),
        leg(CALL, 1, 0.0, LegChoice.MIRROR),
    )
    shapes.append((Strategy.LONG_STRADDLE, "d50", straddle))
    shapes.append((Strategy.LONG_STRANGLE, "d30", strangle))
    shapes.append((Strategy.IRON_CONDOR, "d30_15", condor))
    shapes.append((Strategy.CALL_BUTTERFLY, "d50_25", butterfly))
    return shapes


ACTIONS = (
    Action("hold", Strategy.HOLD, 0, ()),
    Action("close", Strategy.CLOSE, 0, ()),
    *(
        Action(f"{strategy}_{bucket.name}_{label}", strategy, b, legs)
        for b, bucket in enumerate(BUCKETS)
        for strategy, label, legs in _shapes()
    ),
)
ACTION_COUNT = len(ACTIONS)
"""Actions of one size, as much as is allowed, without structures of a user's own."""
MOST_SIZE_LEVELS = 10


def action_count(size_levels: int = 1, whole: int = ACTION_COUNT) -> int:
    """Actions where openings have so many sizes: `whole` ones, then those of each smaller part.

    After the `whole` of full size come the openings at 1/levels of it, 2/levels, and so on.
    """
    return whole + (size_levels - 1) * (whole - CLOSE - 1)


@cache
def action_names(
    count: int = ACTION_COUNT, actions: tuple[Action, ...] = ACTIONS
) -> tuple[str, ...]:
    """Names of `count` actions; one that opens less than is allowed says which part of it.

    `actions` are those of full size, see `trading.envs.structures.all_actions`.
    """
    whole = len(actions)
    levels = (count - whole) // (whole - CLOSE - 1) + 1
    if action_count(levels, whole) != count:
        raise ConfigError([f"{count} actions: no number of env.size_levels gives so many"])
    names = [action.name for action in actions]
    parts = [
        f"{name}_{level}of{levels}" for level in range(1, levels) for name in names[CLOSE + 1 :]
    ]
    return (*names, *parts)


def action_table() -> str:
    """Return the catalogue as a Markdown table, for `docs/actions.md`."""
    rows = ["| index | name | legs | expiry |", "|---|---|---|---|"]
    for a, action in enumerate(ACTIONS):
        legs = ", ".join(leg.describe() for leg in action.legs)
        bucket = BUCKETS[action.bucket]
        days = f"{bucket.min_days:.0f} to {bucket.max_days:.0f} days, near {bucket.target_days:.0f}"
        rows.append(f"| {a} | `{action.name}` | {legs or '-'} | {days if legs else '-'} |")
    return "\n".join(rows) + "\n"
