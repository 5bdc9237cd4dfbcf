"""Takes a frame apart into events that are passed on as they came, with what they are about."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from trading.data.massive.damaged import elements


class RawEvent(NamedTuple):
    """One event: its channel, whom it is about, and its JSON text as the vendor wrote it."""

    channel: str
    symbol: str
    data: bytes


class _Head(msgspec.Struct, gc=False):
    """Of whom an event tells: halts, imbalances and index values say `T` where others say `sym`."""

    ev: str
    sym: str = ""
    T: str = ""


_RAW = msgspec.json.Decoder(list[msgspec.Raw])
_HEADS = msgspec.json.Decoder(list[_Head])
_HEAD = msgspec.json.Decoder(_Head)
_ANY = msgspec.json.Decoder()


class Splitter:
    """Splits frames and counts what cannot be passed on.

    Attributes
    ----------
    malformed: events, or whole frames, that no reader could read
    """

    def __init__(self) -> None:
        self.malformed = 0

    def split(self, frame: bytes) -> list[RawEvent]:
        """Return the events of a frame in order; a damaged one costs only itself. Never raises.

        >>> Splitter().split(b'[{"ev":"Q","sym":"O:X","bp":1.0}, {"ev":"LULD","T":"SPY"}]')
        [RawEvent(channel='Q', symbol='O:X', data=b'{"ev":"Q","sym":"O:X","bp":1.0}'), \
RawEvent(channel='LULD', symbol='SPY', data=b'{"ev":"LULD","T":"SPY"}')]
        """
        text = _as_text(frame)
        try:
            pairs = zip(_HEADS.decode(text), _RAW.decode(text), strict=True)
            return [RawEvent(head.ev, head.sym or head.T, bytes(raw)) for head, raw in pairs]
        except Exception:  # whatever it is, the events are now read one by one
            return self._one_by_one(text)

    def _one_by_one(self, frame: bytes) -> list[RawEvent]:
        pieces = elements(frame)
        if pieces is None:
            self.malformed += 1
            return []
        found = []
        for piece in pieces:
            event = _read(piece)
            if event is None:
                self.malformed += 1
            else:
                found.append(event)
        return found


def _as_text(frame: bytes) -> bytes:
    """Return the frame with what is no UTF-8 replaced.

    Such bytes in a text message end a connection.
    """
    if frame.isascii():
        return frame
    try:
        frame.decode()
    except UnicodeDecodeError:
        return frame.decode("utf-8", "replace").encode()
    return frame


def _read(piece: bytes) -> RawEvent | None:
    try:
        head = _HEAD.decode(piece)
        return RawEvent(head.ev, head.sym or head.T, piece)
    except Exception:  # now with patience: a field that tells nothing here may hold anything
        pass
    try:
        value: Any = _ANY.decode(piece)
    except Exception:  # any damage
        return None
    if not isinstance(value, dict) or not isinstance(value.get("ev"), str):
        return None
    names = (value.get("sym"), value.get("T"))
    symbol = next((name for name in names if isinstance(name, str)), "")
    return RawEvent(value["ev"], symbol, piece)
