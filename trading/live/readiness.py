"""Why a live market's data may not be traded on: the reasons that `/ready` gives."""

from collections.abc import Mapping

from trading.data.massive.connection import ConnectionHealth, ConnectionState
from trading.live.clock import LiveClock
from trading.live.status import iso_time
from trading.live.trader import Trader
from trading.market.calendar import ExchangeCalendar

SILENT_NS = 90_000_000_000
"""A market that is open and tells nothing for longer does not tick."""


def connection_reasons(connections: Mapping[str, ConnectionHealth]) -> list[str]:
    """Connections that are not live."""
    return [
        f"{asset_class} feed is {health['state'].value}"
        for asset_class, health in connections.items()
        if health["state"] is not ConnectionState.LIVE
    ]


def subscription_reasons(connections: Mapping[str, ConnectionHealth]) -> list[str]:
    """Connections that are live, with subscriptions that are refused or got no answer."""
    reasons = []
    for asset_class, health in connections.items():
        if health["state"] is not ConnectionState.LIVE:
            continue
        for what in ("refused", "unanswered"):
            count = health[what]
            if count:
                reasons.append(
                    f"{asset_class} feed: {count} of {health['asked']} subscriptions are {what}: "
                    "see the data plan and data.max_quote_contracts"
                )
    return reasons


def clock_reasons(trader: Trader, calendar: ExchangeCalendar) -> list[str]:
    """A clock that is off, a journal that is ahead of it, and a market that does not tick."""
    reasons = []
    clock = trader.live_clock
    if trader.ahead_until_ns:
        reasons.append(
            f"the account's journal is ahead of the clock, until {iso_time(trader.ahead_until_ns)}:"
            " wait, or start with data.accept_journal_ahead=true"
        )
    if clock is None:
        return reasons
    if clock.is_off:
        reasons.append(
            f"the machine's clock is {clock.offset_s:+.1f} s off the vendor's: set it by NTP"
        )
    silence_s = silent_s(trader, clock, calendar)
    if silence_s > 0.0:
        reasons.append(f"nothing ticks: the newest event is {silence_s:.0f} s old")
    return reasons


def silent_s(trader: Trader, clock: LiveClock, calendar: ExchangeCalendar) -> float:
    """Seconds since the newest event, where an open market has been silent for too long; else 0."""
    now_ns = clock.time_ns
    session = calendar.session_at(now_ns)
    if session is None:
        return 0.0
    silence_ns = now_ns - max(trader.clock.watermark_ns, session.open_ns)
    return silence_ns / 1e9 if silence_ns > SILENT_NS else 0.0
