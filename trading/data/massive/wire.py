"""The messages of the vendor's WebSocket, as typed values.

Attributes carry the names of the vendor's specification (`websocket.json`); the one exception is
`as_`, since `as` is a Python keyword. A frame is a JSON array that mixes symbols and channels.
"""

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from math import isfinite
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from trading.data.massive.damaged import elements
from trading.errors import DataError

SUBSCRIBED = "subscribed to: "
UNSUBSCRIBED = "unsubscribed to: "
DISPLACED = "no longer subscribed to: "


_INT64 = 2**63 - 1
_LATEST_US = _INT64 // 1000
MAX_PRICE = 1e8
"""USD a share: more than a hundred times the dearest stock; a larger number is damage."""

Time: TypeAlias = Annotated[int, Meta(ge=0, le=_LATEST_US)]
Price: TypeAlias = Annotated[float, Meta(ge=0.0, le=MAX_PRICE)]
Amount: TypeAlias = Annotated[float, Meta(ge=0.0, le=1e18)]
Whole: TypeAlias = Annotated[int, Meta(ge=0, le=_INT64)]


class StatusCode(StrEnum):
    """What a `Status` can say; the vendor may add others, so `Status.status` stays a string."""

    CONNECTED = "connected"
    AUTH_SUCCESS = "auth_success"
    AUTH_FAILED = "auth_failed"
    AUTH_TIMEOUT = "auth_timeout"
    MAX_CONNECTIONS = "max_connections"
    SUCCESS = "success"
    ERROR = "error"
    DISPLACED = "displaced"
    """Of a feed alone: a subscription has ended for one that is needed more, or by the vendor."""


class Quote(msgspec.Struct, frozen=True, gc=False, tag_field="ev", tag="Q"):
    """The best bid and offer of one symbol.

    Parameters
    ----------
    sym: ticker, `O:SPY251219C00650000` or `SPY`
    bp, ap: bid and ask price in USD per share; 0 means that the side is absent
    bs, as_: bid and ask size, in contracts (options) or round lots (stocks); whole in practice
    bx, ax: exchange ids
    t: SIP timestamp, milliseconds by the specification; see `event_ns`
    q: sequence number, rising per symbol with holes; 0 where there is none
    """

    sym: str
    t: Time
    bp: Price = 0.0
    ap: Price = 0.0
    bs: Amount = 0
    as_: Amount = msgspec.field(default=0, name="as")
    q: Whole = 0
    bx: int = 0
    ax: int = 0


class Trade(msgspec.Struct, frozen=True, gc=False, tag_field="ev", tag="T"):
    """One trade: price `p` in USD per share, size `s` (may be fractional), condition ids `c`."""

    sym: str
    t: Time
    p: Price
    s: Amount
    c: tuple[Whole, ...] = ()
    q: Whole = 0
    x: Whole = 0


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
    s: Time
    e: Time
    o: Price
    h: Price
    l: Price  # noqa: E741 - the vendor's field name
    c: Price
    v: Amount = 0.0
    vw: Price = 0.0
    av: Amount = 0.0
    op: Price = 0.0
    a: Price = 0.0
    z: Amount = 0.0
    otc: bool | msgspec.UnsetType = msgspec.UNSET


class SecondAggregate(Aggregate, frozen=True, gc=False, tag_field="ev", tag="A"):
    """A second's bar, with the fields of `Aggregate`."""


class PriceBand(msgspec.Struct, frozen=True, gc=False, tag_field="ev", tag="LULD"):
    """Between which prices a stock may trade now (limit up, limit down).

    Parameters
    ----------
    sym: ticker, `T` on the wire
    h, l: highest and lowest price in USD per share; 0 means that there is none
    i: indicator ids
    z: tape
    """

    sym: str = msgspec.field(name="T")
    t: Time
    h: Price = 0.0
    l: Price = 0.0  # noqa: E741 - the vendor's field name
    i: tuple[int, ...] = ()
    z: int = 0
    q: int = 0


class Status(msgspec.Struct, frozen=True, gc=False, tag_field="ev", tag="status"):
    """A message about the connection itself; `status` is usually a `StatusCode`."""

    status: str
    message: str = ""


class TapeClock(msgspec.Struct, frozen=True, gc=False, tag_field="ev", tag="CLK"):
    """What our own market server says of its clock, `t` in milliseconds, to clients that ask.

    It leads every frame of such a client: no event in the frame is later. The vendor has no such
    message.
    """

    t: Time


class ClientAction(msgspec.Struct, frozen=True, gc=False):
    """What a client sends: `action` is `auth`, `subscribe` or `unsubscribe`.

    Our own market server also takes `clock`, see `TapeClock`; its parameter names the session, as a
    date, that the client has listed and subscribed to.
    """

    action: str
    params: str


FeedEvent: TypeAlias = Quote | Trade | Aggregate | SecondAggregate | PriceBand | Status | TapeClock

MS_FROM = 10**11
US_FROM = 10**14
_NS_FROM = 10**17

_EVENTS = msgspec.json.Decoder(list[FeedEvent])
_EVENT = msgspec.json.Decoder(FeedEvent)
_ANY = msgspec.json.Decoder()
_ACTION = msgspec.json.Decoder(ClientAction)
_ENCODER = msgspec.json.Encoder()


def event_ns(t: int) -> int:
    """Return `t` in nanoseconds since 1970 (UTC), inferring its unit from its magnitude.

    Seconds, milliseconds, microseconds and nanoseconds of the years 1973 to 5138 are told apart.
    """
    if t < MS_FROM:
        return t * 1_000_000_000
    if t < US_FROM:
        return t * 1_000_000
    if t < _NS_FROM:
        return t * 1_000
    return t


class EventDecoder:
    """Decodes frames and counts what it could not use, so that one odd event costs only itself.

    A frame that is all as specified is decoded in one go. Of any other one each event is read by
    itself and with patience: what it says in fields that are needed must be of the right kind,
    fields that nobody needs may hold anything, and a price or size that is absent or `null` is 0.

    Attributes
    ----------
    unknown: events of a kind (`ev`) that this package does not know
    malformed: events or whole frames that are damaged or lack a required field
    mistimed: events whose time cannot be read as one, whatever its unit
    """

    def __init__(self) -> None:
        self.unknown = 0
        self.malformed = 0
        self.mistimed = 0

    def decode(self, frame: bytes | str) -> list[FeedEvent]:
        """Return the events of one frame in wire order; never raises."""
        try:
            return _EVENTS.decode(frame)
        except Exception:  # whatever it is, the events are now read one by one
            return self._decode_one_by_one(frame)

    def _decode_one_by_one(self, frame: bytes | str) -> list[FeedEvent]:
        data = frame.encode("utf-8", "replace") if isinstance(frame, str) else bytes(frame)
        events: list[FeedEvent] = []
        found = elements(data)
        if found is None:
            self.malformed += 1
            return events
        for raw in found:
            try:
                event = _read(raw)
            except _Mistimed:
                self.mistimed += 1
            except Exception:  # never raises: one event is lost
                self.malformed += 1
            else:
                if event is None:
                    self.unknown += 1
                else:
                    events.append(event)
        return events


class _Mistimed(DataError):
    """An event's time is no time."""


def _read(raw: bytes) -> FeedEvent | None:
    """Return the event that `raw` holds, None for one of an unknown kind.

    Raises for a damaged one.
    """
    event: FeedEvent
    try:
        event = _EVENT.decode(raw)
        return event
    except Exception:  # now with patience
        pass
    try:
        value = _ANY.decode(raw)
    except UnicodeDecodeError:
        value = _ANY.decode(raw.decode("utf-8", "replace"))
    if not isinstance(value, dict) or "ev" not in value:
        raise DataError("an event is a JSON object with a kind, `ev`")
    tag = value["ev"]
    build = _BUILDERS.get(tag) if isinstance(tag, str) else None
    return None if build is None else build(value)


_NUMBER = re.compile(r"-?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,3})?", re.ASCII)


def _told(value: Any) -> Any:
    """Return a number that came as text, as the number; empty text as nothing; else what came."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not _NUMBER.fullmatch(text):
        return value if text else None
    return float(text) if any(mark in text for mark in ".eE") else int(text)


def _time(value: Any) -> int:
    value = _told(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError("a time is a number")
    if not isfinite(value) or value < 0 or value > _INT64:
        raise _Mistimed("a time lies between 1970 and 2262")
    t = int(value)
    if event_ns(t) > _INT64:
        raise _Mistimed("a time lies between 1970 and 2262")
    return t


def _number(value: Any, most: float) -> float:
    """Return a price or size; `None`, which stands for an absent one, is 0."""
    value = _told(value)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise DataError("a price or size is a number, not negative and of a sane magnitude")
    return float(value)


def _price(value: Any) -> float:
    return _number(value, MAX_PRICE)


def _known_price(value: Any) -> float:
    if _told(value) is None:
        raise DataError("the price is absent")
    return _price(value)


def _price_or(value: Any, instead: float) -> float:
    return instead if _told(value) is None else _price(value)


def _size(value: Any) -> float:
    """Return a size; one that is no number displays nothing."""
    try:
        return _number(value, 1e18)
    except DataError:
        return 0.0


def _whole(value: Any) -> int:
    """Return a number that can be done without: 0 where it is odd."""
    value = _told(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _INT64
    return value if usable else 0


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise DataError("a name is text")
    return value


def _quote(value: dict[str, Any]) -> Quote:
    get = value.get
    return Quote(
        sym=_text(value["sym"]),
        t=_time(value["t"]),
        bp=_price(get("bp")),
        ap=_price(get("ap")),
        bs=_size(get("bs")),
        as_=_size(get("as")),
        q=_whole(get("q")),
        bx=_whole(get("bx")),
        ax=_whole(get("ax")),
    )


def _trade(value: dict[str, Any]) -> Trade:
    conditions = value.get("c")
    return Trade(
        sym=_text(value["sym"]),
        t=_time(value["t"]),
        p=_known_price(value["p"]),
        s=_size(value["s"]),
        c=tuple(map(_whole, conditions)) if isinstance(conditions, list) else (),
        q=_whole(value.get("q")),
        x=_whole(value.get("x")),
    )


def _aggregate(kind: type[Aggregate]) -> Callable[[dict[str, Any]], Aggregate]:
    def build(value: dict[str, Any]) -> Aggregate:
        get = value.get
        otc = get("otc")
        close = _known_price(value["c"])
        # Without them it is a bar of its last price alone.
        first = _price_or(get("o"), close)
        return kind(
            sym=_text(value["sym"]),
            s=_time(value["s"]),
            e=_time(value["e"]),
            o=first,
            h=_price_or(get("h"), max(first, close)),
            l=_price_or(get("l"), min(first, close)),
            c=close,
            v=_size(get("v")),
            vw=_size(get("vw")),
            av=_size(get("av")),
            op=_size(get("op")),
            a=_size(get("a")),
            z=_size(get("z")),
            otc=otc if isinstance(otc, bool) else msgspec.UNSET,
        )

    return build


def _price_band(value: dict[str, Any]) -> PriceBand:
    get = value.get
    indicators = get("i")
    return PriceBand(
        sym=_text(value["T"]),
        t=_time(value["t"]),
        h=_price(get("h")),
        l=_price(get("l")),
        i=tuple(map(_whole, indicators)) if isinstance(indicators, list) else (),
        z=_whole(get("z")),
        q=_whole(get("q")),
    )


def _status(value: dict[str, Any]) -> Status:
    message = value.get("message")
    return Status(_text(value["status"]), message if isinstance(message, str) else "")


_BUILDERS: dict[str, Callable[[dict[str, Any]], FeedEvent]] = {
    "Q": _quote,
    "T": _trade,
    "AM": _aggregate(Aggregate),
    "A": _aggregate(SecondAggregate),
    "LULD": _price_band,
    "status": _status,
    "CLK": lambda value: TapeClock(_time(value["t"])),
}


def decode(frame: bytes | str) -> list[FeedEvent]:
    """Return the events of one frame, leaving out what `EventDecoder` would count.

    >>> decode('[{"ev":"status","status":"connected"},{"ev":"LV","sym":"SPY"}]')
    [Status(status='connected', message='')]
    """
    return EventDecoder().decode(frame)


def encode(events: Sequence[FeedEvent]) -> bytes:
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
