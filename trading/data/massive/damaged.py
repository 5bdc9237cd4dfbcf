"""Takes damaged JSON apart, so that what is whole in it can still be read."""

import re

import msgspec

_RAW_EVENTS = msgspec.json.Decoder(list[msgspec.Raw])
_STRUCTURE = re.compile(rb'["{}\[\]]')
_STRING_END = re.compile(rb'["\\]')
_BEGINNING = re.compile(rb'\{\s*"ev"')
_BLANK = b" \t\r\n,"
_MOST_DAMAGES = 1000
"""Damaged stretches of one frame after which its rest is given up: time has a bound."""
_LONGEST_EVENT = 1 << 16
"""Bytes: a longer event is damage, and the search for its end has a bound."""


_BOM = b"\xef\xbb\xbf"
_TEXT_OR_NO_NUMBER = re.compile(rb'"(?:[^"\\]|\\.)*"|[+-]?\b(?:NaN|nan|Infinity|inf)\b', re.DOTALL)
_HALF = re.compile(
    rb"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def mended(body: bytes) -> bytes:
    """Return a JSON text without what other programs write and JSON has not.

    A byte-order mark is left out, NaN and Infinity become `null`, halves of surrogate pairs the
    replacement character.

    >>> mended(b'{"bid": NaN, "name": "NaN"}')
    b'{"bid": null, "name": "NaN"}'
    """
    return _TEXT_OR_NO_NUMBER.sub(_mended_token, body.removeprefix(_BOM))


def _mended_token(found: re.Match[bytes]) -> bytes:
    token = found.group()
    if not token.startswith(b'"'):
        return b"null"
    return _HALF.sub(lambda half: half.group(1) or b"\\ufffd", token)


def elements(frame: bytes) -> list[bytes] | None:
    """Return the elements of the JSON array `frame`, each unread; None when it is no array.

    Where the array as a whole cannot be read, its objects are found by their brackets. From one
    whose brackets do not close, the search goes on at the next thing that looks like an event.
    What lies between counts as one element each time, which cannot be read either.

    >>> elements(b'[{"ev":"Q","t":NaN},{"ev":"T","t":1}]')
    [b'{"ev":"Q","t":NaN}', b'{"ev":"T","t":1}']
    """
    try:
        return [bytes(raw) for raw in _RAW_EVENTS.decode(frame)]
    except Exception:  # any damage, in bytes or in nesting
        pass
    frame = frame.removeprefix(_BOM).lstrip()
    if not frame.startswith(b"["):
        return None
    found: list[bytes] = []
    at, damages = 1, 0
    while at < len(frame) and damages < _MOST_DAMAGES:
        while at < len(frame) and frame[at] in _BLANK:
            at += 1
        if frame[at : at + 1] == b"]":
            return found
        end = _object_end(frame, at) if frame[at : at + 1] == b"{" else None
        if end is not None and _is_json(frame[at:end]):
            found.append(frame[at:end])
            at = end
            continue
        damages += 1
        limit = len(frame) if end is None else end
        following = _BEGINNING.search(frame, at + 1, limit)
        if following is None and end is None:
            # Nothing that closes and nothing that begins: the rest is one piece of damage.
            found.append(frame[at : at + _LONGEST_EVENT])
            return found
        found.append(frame[at : at + 1] if following else frame[at:limit])
        at = following.start() if following else limit
    if damages == _MOST_DAMAGES or not found:
        found.append(b"")
    return found


def _is_json(piece: bytes) -> bool:
    """Whether `piece` can be read, though perhaps with bytes that are no UTF-8."""
    try:
        msgspec.json.decode(piece)
    except UnicodeDecodeError:
        return True
    except Exception:
        return False
    return True


def _object_end(frame: bytes, at: int) -> int | None:
    """Where the object that begins at `at` ends, None when it does not within the longest event."""
    limit = min(len(frame), at + _LONGEST_EVENT)
    depth = 0
    while True:
        token = _STRUCTURE.search(frame, at, limit)
        if token is None:
            return None
        at = token.end()
        mark = token.group()
        if mark == b'"':
            while True:
                stop = _STRING_END.search(frame, at, limit)
                if stop is None:
                    return None
                at = stop.end() + (stop.group() == b"\\")
                if stop.group() == b'"':
                    break
        else:
            depth += 1 if mark in b"{[" else -1
            if depth == 0:
                return at
            if depth < 0:
                return None
