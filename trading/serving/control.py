r"""`POST /control/...`: the owner's commands by HTTP.

    curl -X POST -H "Authorization: Bearer $CONTROL_TOKEN" -d '{"why": "holiday"}' \
        http://127.0.0.1:8000/control/flatten

The token comes from `CONTROL_TOKEN` where the live market runs; without one every command is
refused. A replica knows only its SHA-256, which it asks of the live market.
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import msgspec
from fastapi import Depends, FastAPI, Request, Response
from fastapi.security import HTTPBearer

from trading.errors import OwnerRefused
from trading.execution.commands import Command
from trading.execution.events import OwnerCommand

COMMANDS = {
    each.value.replace("_", "-"): each
    for each in OwnerCommand
    if each not in (OwnerCommand.DEPOSIT, OwnerCommand.WITHDRAW)
}
"""By the last part of their path. Cash is moved by the command line alone."""
MOST_BYTES = 4096
"""Of a request's body."""
COMMAND_TIMEOUT_S = 30.0
_DIGEST_TIMEOUT_S = 5.0
_DIGEST_KEPT_S = 5.0


class CommandBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a command may bring; all of it may be left out but what the command needs.

    All are as in `Command`.
    """

    by: str = "http"
    why: str = ""
    key: str = ""
    symbol: str = ""
    which: str = ""


class TokenBucket:
    """Allows `burst` at once, and `a_second` on average.

    Parameters
    ----------
    clock
        Seconds, rising.
    """

    def __init__(
        self, burst: float, a_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst, self._rate, self._clock = burst, a_second, clock
        self._left, self._at = burst, clock()

    def take(self) -> bool:
        """Whether one more is allowed now."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class ControlError(Exception):
    """An answer other than 200, with its sentence."""

    def __init__(self, status: int, said: str, **headers: str) -> None:
        super().__init__(said)
        self.status, self.said, self.headers = status, said, headers


class OwnerAccess:
    """Lets the owner in, and nobody else.

    Wrong tokens have a limit of their own, so that who guesses cannot keep the owner out.

    Parameters
    ----------
    ask
        `ask(method, timeout_s)` of the live market.
    """

    def __init__(
        self, ask: Callable[..., Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask, self._clock = ask, clock
        self._strangers = TokenBucket(10.0, 1.0, clock)
        self._owner = TokenBucket(30.0, 1.0, clock)
        self._digest: bytes | None = None
        self._asked_s = -_DIGEST_KEPT_S

    async def admit(self, authorization: str) -> None:
        """Raise ControlError unless the header carries the owner's token, and not too often."""
        if self._clock() - self._asked_s >= _DIGEST_KEPT_S:
            try:
                self._digest = await self._ask("control_digest", _DIGEST_TIMEOUT_S)
            except OwnerRefused as starting:
                raise ControlError(503, str(starting), **{"Retry-After": "5"}) from None
            self._asked_s = self._clock()
        if self._digest is None:
            raise ControlError(
                403,
                "no token is configured: set CONTROL_TOKEN where the application runs (in "
                "Kubernetes in the Secret trading-bot-secrets), or use `trading account`",
            )
        scheme, _, token = authorization.partition(" ")
        given = hashlib.sha256(token.strip().encode()).digest()
        is_owner = hmac.compare_digest(given, self._digest) and scheme.lower() == "bearer"
        if not (self._owner if is_owner else self._strangers).take():
            raise ControlError(429, "too many commands: wait some seconds", **{"Retry-After": "10"})
        if is_owner:
            return
        if not token:
            raise ControlError(
                401,
                "the header Authorization: Bearer TOKEN is missing",
                **{"WWW-Authenticate": "Bearer"},
            )
        raise ControlError(403, "the token is not the owner's")


def add_control(api: FastAPI, ask: Callable[..., Any], strategy: str | None = None) -> None:
    """Add the commands to the HTTP routes; `ask(method, timeout_s, *arguments)` as above.

    Those to a strategy have its name in their path.
    """
    whose = "" if strategy is None else f"{strategy}/"
    door = OwnerAccess(ask)

    async def obey(name: str, request: Request) -> Response:
        try:
            await door.admit(request.headers.get("authorization", ""))
            body = _read(await _bounded(request))
            key = body.key or request.headers.get("idempotency-key", "")
            command = Command(COMMANDS[name], body.by, body.why, key, body.symbol, which=body.which)
            refused, answer = await ask("control", COMMAND_TIMEOUT_S, command)
            if refused:
                raise ControlError(409, refused)
        except ControlError as refusal:
            content = {"done": False, "said": refusal.said}
            return _json(content, refusal.status, refusal.headers)
        return _json({"done": True, **answer}, 200, {})

    # Only for the document: `admit` looks at the header itself.
    shown = Depends(HTTPBearer(scheme_name="owner", auto_error=False))

    def route(name: str) -> None:
        async def command(request: Request) -> Response:
            return await obey(name, request)

        api.post(
            f"/control/{whose}{name}",
            name=f"{whose}{name}",
            summary=f"The owner's command {name}" + (f" to {strategy}" if strategy else ""),
            dependencies=[shown],
            responses=_ANSWERS,
            openapi_extra=_TAKES,
        )(command)

    for name in COMMANDS:
        route(name)


async def _bounded(request: Request) -> bytes:
    """Return the body, read no further than it may be long."""
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            raise ControlError(413, f"the body is longer than {MOST_BYTES} bytes")
    return content


def _read(content: bytes) -> CommandBody:
    try:
        return msgspec.json.decode(content or b"{}", type=CommandBody)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        fields = ", ".join(CommandBody.__struct_fields__)
        raise ControlError(
            400, f"the body is no JSON object with any of {fields}: {error}"
        ) from None


def _json(content: object, status: int, headers: dict[str, str]) -> Response:
    return Response(
        msgspec.json.encode(content),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )


def _object(*texts: str, **fields: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON schema's object: fields of text, and others."""
    return {
        "type": "object",
        "properties": {**{each: {"type": "string"} for each in texts}, **fields},
    }


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_TOLD = {**_object("said", done={"type": "boolean"}), "required": ["done", "said"]}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _answer("Done, or done before by the same key", _TOLD),
    400: _answer("The body is not in order", _TOLD),
    401: _answer("No token", _TOLD),
    403: _answer("Not the owner's token, or none is configured", _TOLD),
    409: _answer("It cannot be done, and why", _TOLD),
    413: _answer(f"The body is longer than {MOST_BYTES} bytes", _TOLD),
    429: _answer("Too many commands", _TOLD),
    503: _answer(
        "Nobody trades who could obey, or not yet",
        _object("status", "reason", "said", done={"type": "boolean"}),
    ),
}
_TAKES = {
    "requestBody": {
        "required": False,
        "content": {
            "application/json": {
                "schema": {**_object(*CommandBody.__struct_fields__), "additionalProperties": False}
            }
        },
    }
}
"""What a command takes, for the document."""
