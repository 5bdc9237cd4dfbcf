"""The server's side of the vendor's WebSocket protocol, without sockets.

One `FeedProtocol` is one connection. It reads the client's messages, answers with statuses,
and knows what the connection is subscribed to.

What follows the vendor's specification: `auth_success`, `auth_failed`, `auth_required` before
authentication, one `success` a subscription. What follows field notes: a refusal is an `error`
that names no symbol; an unknown channel and a duplicate get no answer; a misspelt symbol is
acknowledged and then silent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, get_args

import msgspec

from trading.data.massive.wire import (
    SUBSCRIBED,
    UNSUBSCRIBED,
    Status,
    StatusCode,
    decode_action,
)

AssetClass = Literal["options", "stocks", "indices"]
ASSET_CLASSES: Final[tuple[AssetClass, ...]] = get_args(AssetClass)

WILDCARD: Final = "*"

VENDOR_CHANNELS: Final[dict[AssetClass, frozenset[str]]] = {
    "options": frozenset({"Q", "T", "A", "AM"}),
    "stocks": frozenset({"Q", "T", "A", "AM", "LULD", "NOI"}),
    "indices": frozenset({"V", "A", "AM"}),
}
_ENTITLED_CHANNELS: Final[dict[AssetClass, frozenset[str]]] = {
    "options": frozenset({"Q", "T", "AM"}),
    "stocks": frozenset({"AM", "LULD"}),
    "indices": frozenset({"AM"}),
}


class Reply(NamedTuple):
    """Statuses to send, in order; a `refused` connection is closed after them."""

    statuses: list[Status]
    refused: bool = False


@dataclass(slots=True)
class FeedProtocol:
    """One connection's state: who it is and what it asked for.

    Parameters
    ----------
    asset_class
        The path of the connection.
    keys
        API keys that are accepted.
    max_quote_contracts
        Contracts of `Q` that one connection may subscribe to.

    Attributes
    ----------
    key
        The API key once authenticated, else None.
    symbols
        Subscribed symbols by channel; `*` stands for all of a channel.
    revision
        Rises with every change of `symbols`.
    tells_time
        Whether every frame is to begin with the server's clock, see `TapeClock`.
    opened
        The session that the client said last it has listed, as a date; empty at first.
    """

    asset_class: AssetClass
    keys: Collection[str]
    max_quote_contracts: int
    key: str | None = None
    symbols: dict[str, set[str]] = field(default_factory=dict)
    revision: int = 0
    tells_time: bool = False
    opened: str = ""

    def receive(self, message: str | bytes) -> Reply:
        """Take one message of the client and say what to answer."""
        try:
            command = decode_action(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Reply([Status(StatusCode.ERROR, "invalid message: expected action and params")])
        if command.action == "auth":
            return self._authenticate(command.params)
        if self.key is None:
            return Reply([Status("auth_required", "authenticate first")])
        match command.action:
            case "subscribe":
                statuses = self._subscribe(_topics(command.params))
            case "unsubscribe":
                statuses = self._unsubscribe(_topics(command.params))
            case "clock":
                self.tells_time, statuses = True, []
                self.opened = command.params or self.opened
            case _:
                statuses = [Status(StatusCode.ERROR, f"unknown action: {command.action}")]
        return Reply(statuses)

    def wants(self, channel: str, symbol: str) -> bool:
        """Whether an event of `channel` about `symbol` belongs on this connection."""
        symbols = self.symbols.get(channel)
        return symbols is not None and (symbol in symbols or WILDCARD in symbols)

    def _authenticate(self, key: str) -> Reply:
        if key not in self.keys:
            refusal = Status(StatusCode.AUTH_FAILED, "authentication failed")
            return Reply([refusal], refused=True)
        self.key = key
        return Reply([Status(StatusCode.AUTH_SUCCESS, "authenticated")])

    def _subscribe(self, topics: Iterable[tuple[str, str]]) -> list[Status]:
        statuses: list[Status] = []
        for channel, symbol in topics:
            if channel not in VENDOR_CHANNELS[self.asset_class]:
                continue
            held = self.symbols.setdefault(channel, set())
            if symbol in held:
                continue
            refusal = self._refusal(channel, symbol)
            if refusal is not None:
                statuses.append(Status(StatusCode.ERROR, refusal))
                continue
            held.add(symbol)
            self.revision += 1
            statuses.append(Status(StatusCode.SUCCESS, f"{SUBSCRIBED}{channel}.{symbol}"))
        return statuses

    def _refusal(self, channel: str, symbol: str) -> str | None:
        if channel not in _ENTITLED_CHANNELS[self.asset_class]:
            return "not authorized"
        if channel != "Q":
            return None
        if symbol == WILDCARD:
            return "not authorized"
        if len(self.symbols["Q"]) >= self.max_quote_contracts:
            return f"Subscription limit reached for feed: {self.max_quote_contracts} contracts"
        return None

    def _unsubscribe(self, topics: Iterable[tuple[str, str]]) -> list[Status]:
        statuses: list[Status] = []
        for channel, symbol in topics:
            held = self.symbols.get(channel, set())
            if symbol not in held:
                continue
            held.remove(symbol)
            self.revision += 1
            statuses.append(Status(StatusCode.SUCCESS, f"{UNSUBSCRIBED}{channel}.{symbol}"))
        return statuses


def connected() -> Status:
    """Return the first status of every connection."""
    return Status(StatusCode.CONNECTED, "Connected Successfully")


def auth_timeout(seconds: float) -> Status:
    """Sent before the close of a connection that did not authenticate."""
    return Status(StatusCode.AUTH_TIMEOUT, f"No authentication request received in {seconds:g}s")


def max_connections() -> Status:
    """Sent before the close of a second connection of one key and asset class."""
    return Status(StatusCode.MAX_CONNECTIONS, "Maximum number of websocket connections exceeded")


def slow_consumer() -> Status:
    """Sent before the close of a connection that does not read fast enough."""
    return Status("slow_consumer", "disconnected: client reads slower than the feed writes")


def _topics(params: str) -> list[tuple[str, str]]:
    """`"Q.O:SPY…,AM.BRK.B"` as (channel, symbol) pairs; a topic without a symbol is dropped."""
    pairs = (topic.strip().partition(".") for topic in params.split(","))
    return [(channel, symbol) for channel, _, symbol in pairs if symbol]
