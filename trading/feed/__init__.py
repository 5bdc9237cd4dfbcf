"""One connection to the vendor, shared by many readers that connect to it as to the vendor."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.feed.embedded import embedded_feed as embedded_feed
    from trading.feed.embedded import reading_from as reading_from
    from trading.feed.feed_metrics import FeedCounts as FeedCounts
    from trading.feed.feed_server import FeedOptions as FeedOptions
    from trading.feed.feed_server import FeedServer as FeedServer
    from trading.feed.running import feed_options as feed_options
    from trading.feed.running import run_feed as run_feed

_PLACES = {
    "embedded_feed": "embedded",
    "reading_from": "embedded",
    "FeedCounts": "feed_metrics",
    "feed_options": "running",
    "run_feed": "running",
    "FeedOptions": "feed_server",
    "FeedServer": "feed_server",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
