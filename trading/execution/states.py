"""What an account may trade, and why: every cause that restricts trading, in one table.

Causes stand side by side, each with a state of its own, and the strictest state holds. So one that
ends never lifts another. Which of them stand is a fold of the journal.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec


class TradingState(StrEnum):
    """What an account may trade."""

    ACTIVE = "active"
    """Every order that passes the checks."""
    REDUCING = "reducing"
    """Only orders that close a strategy."""
    HALTED = "halted"
    """Nothing; expiry and settlement still happen."""


_STRICTNESS = {TradingState.ACTIVE: 0, TradingState.REDUCING: 1, TradingState.HALTED: 2}


class Cause(StrEnum):
    """What restricts trading; equal to the `RejectReason` of the same name where there is one."""

    NOT_A_NUMBER = "not_a_number"
    DAILY_LOSS = "daily_loss"
    MAX_DRAWDOWN = "max_drawdown"
    CHAMPION_DRAWDOWN = "champion_drawdown"
    MARGIN_CALL = "margin_call"
    UNATTENDED = "unattended"
    OWNER_HALT = "owner_halt"
    OWNER_REDUCE = "owner_reduce"
    OWNER_FLATTEN = "owner_flatten"


OWNER_ORDERS = (Cause.OWNER_HALT, Cause.OWNER_REDUCE, Cause.OWNER_FLATTEN)
"""Of these one stands at most: the owner's newest word replaces the one before."""


class Restriction(msgspec.Struct, frozen=True):
    """One cause that stands: what it leaves, why (for people), and since when."""

    state: TradingState
    reason: str
    since_ns: int
    flatten: bool = False
    """Whether every open strategy is to be closed while it stands."""


class RestrictionRule(NamedTuple):
    """One row of the table: a cause, what enters and leaves it, and what its owner may do."""

    cause: Cause
    state: TradingState
    enters: str
    leaves: str
    """What ends it without the owner."""
    owner: str
    """What the owner may do about it."""
    owner_closes: bool
    """Whether the owner's `close` and `flatten` trade in spite of it."""
    flatten: bool = False


RESTRICTION_RULES: dict[str, RestrictionRule] = {
    row.cause: row
    for row in (
        RestrictionRule(
            Cause.NOT_A_NUMBER,
            TradingState.HALTED,
            "equity, or a price, greek or margin that an order of the whole account needs, is no "
            "number",
            "nothing",
            "`resume` once equity is a number again; `close`, `flatten` of what is quoted",
            owner_closes=True,
        ),
        RestrictionRule(
            Cause.DAILY_LOSS,
            TradingState.HALTED,
            "equity is more than `risk.max_daily_loss_pct` below that of the last session's close",
            "the session's close",
            "`close`, `flatten`; `resume` once equity is back above the limit",
            owner_closes=True,
        ),
        RestrictionRule(
            Cause.MAX_DRAWDOWN,
            TradingState.REDUCING,
            "equity is more than `risk.max_drawdown_pct` below its peak",
            "nothing",
            "`reset-peak`; `resume` once equity is back above the limit",
            owner_closes=True,
        ),
        RestrictionRule(
            Cause.CHAMPION_DRAWDOWN,
            TradingState.REDUCING,
            "equity is more than `learning.gate.max_drawdown_pct` below its peak under the "
            "champion, and the one before it trades again",
            "nothing",
            "`promote` or `rollback` to a champion of choice, or `resume` with the present one",
            owner_closes=True,
        ),
        RestrictionRule(
            Cause.MARGIN_CALL,
            TradingState.REDUCING,
            "buying power is below zero",
            "buying power is back at zero",
            "`close`, `flatten`, `deposit`; `resume` only once it is met",
            owner_closes=True,
        ),
        RestrictionRule(
            Cause.UNATTENDED,
            TradingState.REDUCING,
            "with positions open in market hours, no decision, nothing from the feed, no word of "
            "the driver, or a wrong clock for longer than `safety.patience_s`; with "
            "`safety.unattended: flatten` all is closed",
            "decisions, feed, driver and clock are back (and all that was to be closed is)",
            "`resume`: it enters again while it holds",
            owner_closes=True,
        ),
        RestrictionRule(
            Cause.OWNER_HALT,
            TradingState.HALTED,
            "`halt`",
            "nothing",
            "`resume`, or replace it by `reduce` or `flatten`",
            owner_closes=False,
        ),
        RestrictionRule(
            Cause.OWNER_REDUCE,
            TradingState.REDUCING,
            "`reduce`",
            "nothing",
            "`resume`, or replace it by `halt` or `flatten`",
            owner_closes=True,
        ),
        RestrictionRule(
            Cause.OWNER_FLATTEN,
            TradingState.REDUCING,
            "`flatten`: all is closed, bar by bar, and nothing is opened",
            "nothing, also when all is closed",
            "`resume`, or replace it by `halt` or `reduce`: what is open then stays",
            owner_closes=True,
            flatten=True,
        ),
    )
}


def strictest(restrictions: Mapping[str, Restriction]) -> tuple[TradingState, str]:
    """Return the state that holds and its reason; of equal ones the reason that stands longest.

    Of those since one instant it is what was set by hand, and else the first of the table.
    """
    if not restrictions:
        return TradingState.ACTIVE, ""
    order = list(RESTRICTION_RULES)

    def rank(cause: str) -> tuple[int, int, int, str]:
        each = restrictions[cause]
        place = order.index(cause) if cause in RESTRICTION_RULES else -1
        return -_STRICTNESS[each.state], each.since_ns, place, cause

    first = restrictions[min(restrictions, key=rank)]
    return first.state, first.reason


def owner_may_close(restrictions: Mapping[str, Restriction]) -> bool:
    """Return whether the owner's closing orders trade, whatever halts the others.

    A cause that is not in the table was set by its words alone, and the owner's order overrides it.
    """
    return all(
        RESTRICTION_RULES[cause].owner_closes
        for cause, each in restrictions.items()
        if each.state is TradingState.HALTED and cause in RESTRICTION_RULES
    )


def state_table() -> str:
    """Return the table in Markdown."""
    lines = [
        "| cause | state | entered when | left by itself at | the owner |",
        "|---|---|---|---|---|",
    ]
    for row in RESTRICTION_RULES.values():
        lines.append(
            f"| `{row.cause}` | {row.state.upper()} | {row.enters} | {row.leaves} | {row.owner} |"
        )
    return "\n".join(lines) + "\n"
