"""What the page of several strategies shows: the same figures of each, side by side.

Of each strategy it is what one compares at a glance; all else is on the page of its own.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from trading.live.status_updates import StatusUpdate
from trading.serving.answers import AccountAnswers
from trading.serving.live_market import LiveMarketUnavailable
from trading.serving.page_stream import PageEdition, PageInput, account_edition

_OF_ACCOUNT = (
    *("equity", "paid_in", "profit_today", "peak_equity", "trading_state", "restrictions"),
    *("trades", "closed_trades", "win_rate", "fees_paid", "suspended"),
)
_OF_LEARNER = ("updates", "paused", "verdict", "kl_to_champion")


class FleetInput(NamedTuple):
    """What there is to show of several strategies."""

    strategies: Mapping[str, PageInput | str]
    """By name; a text is why nothing is known of it."""
    ours: tuple[str, ...]
    """Those that this application trades."""
    waiting: str
    """Why it has none to trade; empty where it has one."""


async def input_or_reason(answers: AccountAnswers) -> PageInput | str:
    """Return what there is to show of one strategy, or why there is nothing."""
    try:
        return await answers.told()
    except LiveMarketUnavailable as error:
        return str(error)


class FleetEditions:
    """Makes editions of the page of several strategies; what did not change is not read again."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[PageInput | str, str, dict[str, Any]]] = {}

    def __call__(self, told: FleetInput) -> PageEdition:
        """Return an edition; its name depends on nothing but what is told."""
        number = hashlib.sha256(repr((told.ours, told.waiting)).encode())
        strategies = {}
        for name, one in told.strategies.items():
            made = self._made.get(name)
            if made is None or made[0] != one:
                self._made[name] = made = (one, *_summary(one))
            number.update(made[1].encode())
            strategies[name] = {**made[2], "ours": name in told.ours}
        content = {"strategies": strategies, "waiting": told.waiting}
        return PageEdition(number.hexdigest()[:24], content)


def _summary(told: PageInput | str) -> tuple[str, dict[str, Any]]:
    """Return the name of one strategy's edition, and what is shown of it."""
    if isinstance(told, str):
        return f"silent-{told}", {"gone": told}
    edition = account_edition(told)
    whole = edition.content
    shown: dict[str, Any] = {"ready": whole["ready"], "reasons": whole["reasons"]}
    if told.supervisor is not None:
        shown["phase"] = told.supervisor["phase"]
        shown["reason"] = told.supervisor["reason"]
    if isinstance(told.update, StatusUpdate):
        shown |= _figures(whole["status"], whole["day"])
    return edition.id, shown


def _figures(status: Mapping[str, Any], day: Mapping[str, Any]) -> dict[str, Any]:
    account, learner = status.get("account"), status.get("learner") or {}
    if account is None:
        return {"phase": status.get("phase", "starting")}
    market, champion = status.get("market") or {}, status.get("champion") or {}
    return {
        "account": {name: account.get(name) for name in _OF_ACCOUNT},
        "drawdown": status.get("limits", {}).get("max_drawdown_pct"),
        "positions": [
            {name: each[name] for name in ("underlying", "strategy", "units")}
            for each in status.get("positions", ())
        ],
        "market_open": status.get("market_open"),
        "time": market.get("time"),
        "underlyings": list(market.get("underlyings", ())),
        "trader": status.get("trader"),
        "champion": {name: champion.get(name) for name in ("number", "version", "promotions")},
        "learner": {name: learner[name] for name in _OF_LEARNER if name in learner},
        "profit": (day.get("profit") or {}).get("total"),
        "session": day.get("session"),
        "bars": day.get("bars", {}),
        "sessions": day.get("sessions", {}),
        "moves": day.get("moves", {}),
    }
