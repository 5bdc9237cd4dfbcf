"""The vendor's stream and its REST answers, read."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.data.massive.client.connection import ConnectionHealth as ConnectionHealth
    from trading.data.massive.client.connection import ConnectionState as ConnectionState
    from trading.data.massive.client.rest import ContractSnapshot as ContractSnapshot
    from trading.data.massive.client.rest import HistoricalQuote as HistoricalQuote
    from trading.data.massive.client.rest import ListedContract as ListedContract
    from trading.data.massive.client.rest import MarketStatus as MarketStatus
    from trading.data.massive.client.rest import RestClient as RestClient
    from trading.data.massive.client.stream import StreamClient as StreamClient
    from trading.data.massive.client.stream_settings import StreamSettings as StreamSettings
    from trading.data.massive.client.subscriptions import SubscriptionCounts as SubscriptionCounts
    from trading.data.massive.client.subscriptions import SubscriptionTracker as SubscriptionTracker

_PLACES = {
    "ConnectionHealth": "connection",
    "ConnectionState": "connection",
    "ContractSnapshot": "rest",
    "HistoricalQuote": "rest",
    "ListedContract": "rest",
    "MarketStatus": "rest",
    "RestClient": "rest",
    "StreamClient": "stream",
    "StreamSettings": "stream_settings",
    "SubscriptionCounts": "subscriptions",
    "SubscriptionTracker": "subscriptions",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
