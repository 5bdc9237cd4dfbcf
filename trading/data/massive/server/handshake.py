"""How a server of the vendor's protocol lets connections in and sends them away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from trading.data.massive import protocol
from trading.data.massive.protocol import AssetClass, FeedProtocol
from trading.data.massive.wire import Status, encode

_POLICY_VIOLATION: Final = 1008


def is_stream(request: Request) -> bool:
    """Whether a request asks for a stream rather than for a REST answer."""
    return urlsplit(request.path).path.strip("/") in protocol.ASSET_CLASSES


def asset_class_of(connection: ServerConnection) -> AssetClass:
    """Return what a connection that was opened asks for."""
    assert connection.request is not None  # the handshake is over
    path = urlsplit(connection.request.path).path.strip("/")
    return next(name for name in protocol.ASSET_CLASSES if name == path)


async def authenticate(
    connection: ServerConnection, feed: FeedProtocol, timeout_s: float, close_timeout_s: float
) -> bool:
    """Wait for a key that is accepted; False after the connection was refused and closed."""
    try:
        async with asyncio.timeout(timeout_s):
            while feed.key is None:
                reply = feed.receive(await connection.recv())
                await send_statuses(connection, reply.statuses)
                if reply.refused:
                    await refuse(connection, close_timeout_s)
                    return False
    except TimeoutError:
        await send_statuses(connection, [protocol.auth_timeout(timeout_s)])
        await refuse(connection, close_timeout_s)
        return False
    return True


async def send_statuses(
    connection: ServerConnection, statuses: Sequence[Status], max_events: int = 500
) -> None:
    """Send statuses, `max_events` in a frame."""
    for begin in range(0, len(statuses), max_events):
        await connection.send(encode(statuses[begin : begin + max_events]), text=True)


async def refuse(connection: ServerConnection, timeout_s: float | None) -> None:
    """Close a connection that may not stay."""
    await close(connection, _POLICY_VIOLATION, "", timeout_s)


async def close(
    connection: ServerConnection, code: int, reason: str, timeout_s: float | None
) -> None:
    """Close with a handshake, or hard when the client does not answer in time."""
    try:
        async with asyncio.timeout(timeout_s):
            await connection.close(code, reason)
    except TimeoutError:
        connection.transport.abort()


def response(status: int, body: bytes, more: Mapping[str, str] | None = None) -> Response:
    """Return a whole HTTP answer that ends the connection; JSON unless `more` says otherwise."""
    headers = Headers(
        {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
    )
    for name, value in (more or {}).items():
        if name in headers:
            del headers[name]
        headers[name] = value
    return Response(status, HTTPStatus(status).phrase, headers, body)
