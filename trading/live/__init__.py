"""The live market: chains, broker and policy, while it trades."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.live.actor import LiveMarket as LiveMarket
    from trading.live.actor import Progress as Progress
    from trading.live.bar_clock import BarClock as BarClock
    from trading.live.endpoint import Endpoint as Endpoint
    from trading.live.market_server import MarketServerHost as MarketServerHost
    from trading.live.recent_activity import RecentActivity as RecentActivity
    from trading.live.trader import Fragment as Fragment
    from trading.live.trader import Trader as Trader
    from trading.live.trader import TraderSettings as TraderSettings

_PLACES = {
    "LiveMarket": "actor",
    "Progress": "actor",
    "BarClock": "bar_clock",
    "RecentActivity": "recent_activity",
    "Endpoint": "endpoint",
    "MarketServerHost": "market_server",
    "Fragment": "trader",
    "Trader": "trader",
    "TraderSettings": "trader",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
