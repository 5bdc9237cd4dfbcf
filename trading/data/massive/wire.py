"""The messages of the vendor's WebSocket, as typed values.

Attributes carry the names of the vendor's specification (`websocket.json`); the one exception is
`as_`, since `as` is a Python keyword. A frame is a JSON array that mixes symbols and channels.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeAlias

import msgspec

SUBSCRIBED = "subscribed to: "
UNSUBSCRIBED = "unsubscribed to: "


class StatusCode(StrEnum):
    """What a `Status` can say; the vendor may add others, so `Status.status` stays a string."""

    CONNECTED = "connected"
    AUTH_SUCCESS = "auth_success"
    AUTH_FAILED = "auth_failed"
    AUTH_TIMEOUT = "auth_timeout"
    MAX_CONNECTIONS = "max_connections"
    SUCCESS = "success"
    ERROR = "error"


class Quote(msgspec.Struct, frozen=True, gc=False, tag_field="ev", tag="Q"):
    """The best bid and offer of one symbol.

    Parameters
    ----------
    sym: ticker, `O:SPY251219C00650000` or `SPY`
    bp, ap: bid and ask price in USD per share; 0 means that the side is absent
    bs, as_: bid and ask size, in contracts (options) or round lots (stocks); whole in practice
    bx, ax: exchange ids
    t: SIP timestamp, milliseconds by the specification; see `event_ns`
    q: sequence number, rising per symbol with holes
    """

    sym: str
    t: int
    bp: float = 0.0
    ap: float = 0.0
    bs: float = 0
    as_: float = msgspec.field(default=0, name="as")
    q: int = 0
    bx: int = 0
    ax: int = 0


class Trade(msgspec.Struct, frozen=True, gc=False, tag_field="ev", tag="T"):
    """One trade: price `p` in USD per share, size `s` (may be fractional), condition ids `c`."""

    sym: str
    t: int
    p: float
    s: float
    c: tuple[int, ...] = ()
    q: int = 0
    x: int = 0


class Aggregate(msgspec.Struct, frozen=True, gc=False, tag_field="ev", tag="AM"):
    """A minute's bar, written only when there were qualifying trades.

    Parameters
    ----------
    sym: ticker
    o, h, l, c: prices in USD per share
    v, av: volume of the window and of the day so far; may be fractional
    vw, a: volume-weighted average price of the window and of the day so far
    op: the day's official opening price
    z: average trade size in the window
    s, e: start and end of the window, milliseconds; a repeated `s` replaces the bar
    otc: present and true for an OTC ticker
    """

    sym: str
    s: int
    e: int
    o: float
    h: float
    l: float  # noqa: E741 - the vendor's field name
    c: float
    v: float = 0.0
    vw: float = 0.0
    av: float = 0.0
    op: float = 0.0
    a: float = 0.0
    z: float = 0.0
    otc: bool | msgspec.UnsetType = msgspec.UNSET


class SecondAggregate(Aggregate, frozen=True, gc=False, tag_field="ev", tag="A"):
    """A second's bar, with the fields of `Aggregate`."""


class Status(msgspec.Struct, frozen=True, gc=False, tag_field="ev", tag="status"):
    """A message about the connection itself; `status` is usually a `StatusCode`."""

    status: str
    message: str = ""


class ClientAction(msgspec.Struct, frozen=True, gc=False):
    """What a client sends: `action` is `auth`, `subscribe` or `unsubscribe`."""

    action: str
    params: str


Event: TypeAlias = Quote | Trade | Aggregate | SecondAggregate | Status

_MS_FROM = 10**11
_US_FROM = 10**14
_NS_FROM = 10**17

_EVENTS = msgspec.json.Decoder(list[Event])
_EVENT = msgspec.json.Decoder(Event)
_RAW_EVENTS = msgspec.json.Decoder(list[msgspec.Raw])
_TAG = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ACTION = msgspec.json.Decoder(ClientAction)
_ENCODER = msgspec.json.Encoder()
_KNOWN_TAGS = frozenset(b'"%s"' % tag for tag in (b"Q", b"T", b"AM", b"A", b"status"))


def event_ns(t: int) -> int:
    """Return `t` in nanoseconds since 1970 (UTC), inferring its unit from its magnitude.

    Seconds, milliseconds, microseconds and nanoseconds of the years 1973 to 5138 are told apart.
    """
    if t < _MS_FROM:
        return t * 1_000_000_000
    if t < _US_FROM:
        return t * 1_000_000
    if t < _NS_FROM:
        return t * 1_000
    return t


class EventDecoder:
    """Decodes frames and counts what it could not use, so that one odd event costs only itself.

    Attributes
    ----------
    unknown: events of a kind (`ev`) that this package does not know
    malformed: events or whole frames that are damaged or lack a required field
    """

    def __init__(self) -> None:
        self.unknown = 0
        self.malformed = 0

    def decode(self, frame: bytes | str) -> list[Event]:
        """Return the events of one frame in wire order; never raises."""
        try:
            return _EVENTS.decode(frame)
        except msgspec.DecodeError:
            return self._decode_one_by_one(frame)

    def _decode_one_by_one(self, frame: bytes | str) -> list[Event]:
        try:
            raw_events = _RAW_EVENTS.decode(frame)
        except msgspec.DecodeError:
            self.malformed += 1
            return []
        events: list[Event] = []
        for raw in raw_events:
            try:
                events.append(_EVENT.decode(raw))
            except msgspec.DecodeError:
                self._count(raw)
        return events

    def _count(self, raw: msgspec.Raw) -> None:
        try:
            tag = bytes(_TAG.decode(raw)["ev"])
        except (msgspec.DecodeError, KeyError):
            self.malformed += 1
            return
        if tag in _KNOWN_TAGS:
            self.malformed += 1
        else:
            self.unknown += 1


def decode(frame: bytes | str) -> list[Event]:
    """Return the events of one frame, leaving out what `EventDecoder` would count.

    >>> decode('[{"ev":"status","status":"connected"},{"ev":"LV","sym":"SPY"}]')
    [Status(status='connected', message='')]
    """
    return EventDecoder().decode(frame)


def encode(events: Sequence[Event]) -> bytes:
    """Return one frame (UTF-8 JSON, to be sent as a text message) that holds `events`.

    >>> encode([Status("connected", "Connected Successfully")])
    b'[{"ev":"status","status":"connected","message":"Connected Successfully"}]'
    """
    return _ENCODER.encode(events)


def decode_action(message: bytes | str) -> ClientAction:
    """Return what a client sent; raises `msgspec.DecodeError` when it is no action."""
    return _ACTION.decode(message)


def encode_action(action: str, params: str) -> str:
    """Return the text message by which a client asks for `action`."""
    return _ENCODER.encode(ClientAction(action, params)).decode()
