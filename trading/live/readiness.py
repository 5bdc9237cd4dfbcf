"""Why a live market's data may not be traded on: the reasons that `/ready` gives."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from trading.data.massive.client.connection import ConnectionHealth, ConnectionState
from trading.live.clock import LiveClock
from trading.live.status import iso_time
from trading.live.trader import Trader
from trading.market.calendar import ExchangeCalendar

SILENT_NS = 90_000_000_000
"""A market that is open and tells nothing for longer does not tick."""


class UnreadyKind(StrEnum):
    """What keeps a live market from being ready: the kinds of reasons, for the metrics."""

    PHASE = "phase"
    """It starts, has ended or has failed."""
    HANGS = "hangs"
    """The trading thread shows no sign of life."""
    CONNECTION = "connection"
    """A connection is not live."""
    SUBSCRIPTIONS = "subscriptions"
    """Subscriptions are refused, or got no answer."""
    SILENT = "silent"
    """Nothing ticks while the market is open."""
    CLOCK = "clock"
    """The machine's clock is off."""
    JOURNAL = "journal"
    """The account's journal is dated ahead of the clock."""
    WARMING = "warming"
    """No bar has closed yet."""
    HALTED = "halted"
    """Trading is halted."""


class UnreadyReason(NamedTuple):
    """One reason: its kind, and what is wrong and what to do in words."""

    kind: UnreadyKind
    text: str


def connection_reasons(connections: Mapping[str, ConnectionHealth]) -> list[UnreadyReason]:
    """Return connections that are not live, and why they were lost."""
    return [
        UnreadyReason(
            UnreadyKind.CONNECTION,
            f"{asset_class} feed is {health['state'].value}"
            + (f": {health['last_error']}" if health["last_error"] else ""),
        )
        for asset_class, health in connections.items()
        if health["state"] is not ConnectionState.LIVE
    ]


def subscription_reasons(connections: Mapping[str, ConnectionHealth]) -> list[UnreadyReason]:
    """Return connections that are live, with subscriptions that are refused or got no answer."""
    reasons = []
    for asset_class, health in connections.items():
        if health["state"] is not ConnectionState.LIVE:
            continue
        for what in ("refused", "unanswered"):
            count = health[what]
            if count:
                text = (
                    f"{asset_class} feed: {count} of {health['asked']} subscriptions are {what}: "
                    "see the data plan and data.max_quote_contracts"
                )
                reasons.append(UnreadyReason(UnreadyKind.SUBSCRIPTIONS, text))
    return reasons


def clock_reasons(trader: Trader, calendar: ExchangeCalendar) -> list[UnreadyReason]:
    """Return that a clock is off, a journal ahead of it, or a market does not tick."""
    reasons = []
    clock = trader.live_clock
    if trader.ahead_until_ns:
        until = iso_time(trader.ahead_until_ns)
        text = (
            f"the account's journal is ahead of the clock, until {until}: wait, or start with "
            "data.accept_journal_ahead=true"
        )
        reasons.append(UnreadyReason(UnreadyKind.JOURNAL, text))
    if clock is None:
        return reasons
    if clock.is_off:
        text = f"the machine's clock is {clock.offset_s:+.1f} s off the vendor's: set it by NTP"
        reasons.append(UnreadyReason(UnreadyKind.CLOCK, text))
    silence_s = silent_s(trader, clock, calendar)
    if silence_s > 0.0:
        text = f"nothing ticks: the newest event is {silence_s:.0f} s old"
        reasons.append(UnreadyReason(UnreadyKind.SILENT, text))
    return reasons


def silent_s(trader: Trader, clock: LiveClock, calendar: ExchangeCalendar) -> float:
    """Seconds since the newest event, where an open market has been silent for too long; else 0."""
    now_ns = clock.time_ns
    session = calendar.session_at(now_ns)
    if session is None:
        return 0.0
    silence_ns = now_ns - max(trader.clock.watermark_ns, session.open_ns)
    return silence_ns / 1e9 if silence_ns > SILENT_NS else 0.0
