"""A server that speaks the vendor's protocol, for simulated and recorded markets."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.data.massive.server.server import MarketServer as MarketServer
    from trading.data.massive.server.source import EventSource as EventSource
    from trading.data.massive.server.source import Listing as Listing
    from trading.data.massive.server.source import ReplaySource as ReplaySource
    from trading.data.massive.server.source import SimulationSource as SimulationSource
    from trading.data.massive.server.source import SourceStep as SourceStep

_PLACES = {
    "MarketServer": "server",
    "EventSource": "source",
    "Listing": "source",
    "ReplaySource": "source",
    "SimulationSource": "source",
    "SourceStep": "source",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
