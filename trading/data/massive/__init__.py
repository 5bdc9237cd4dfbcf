"""The vendor's protocol: its events, its frames, and who may say what."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.data.massive.columns import Quotes as Quotes
    from trading.data.massive.columns import Trades as Trades
    from trading.data.massive.encoding import encode_bar as encode_bar
    from trading.data.massive.encoding import encode_quotes as encode_quotes
    from trading.data.massive.encoding import encode_trades as encode_trades
    from trading.data.massive.frames import FrameQueue as FrameQueue
    from trading.data.massive.frames import TaggedFrame as TaggedFrame
    from trading.data.massive.protocol import FeedProtocol as FeedProtocol
    from trading.data.massive.wire import Aggregate as Aggregate
    from trading.data.massive.wire import EventDecoder as EventDecoder
    from trading.data.massive.wire import Quote as Quote
    from trading.data.massive.wire import Status as Status
    from trading.data.massive.wire import Trade as Trade
    from trading.data.massive.wire import decode as decode
    from trading.data.massive.wire import encode as encode

_PLACES = {
    "Quotes": "columns",
    "Trades": "columns",
    "encode_bar": "encoding",
    "encode_quotes": "encoding",
    "encode_trades": "encoding",
    "FrameQueue": "frames",
    "TaggedFrame": "frames",
    "FeedProtocol": "protocol",
    "Aggregate": "wire",
    "EventDecoder": "wire",
    "Quote": "wire",
    "Status": "wire",
    "Trade": "wire",
    "decode": "wire",
    "encode": "wire",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
