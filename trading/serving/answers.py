"""What is answered for one account, by its status updates and by who supervises it."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias, TypeGuard

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST

from trading.live.status_updates import as_json
from trading.serving.exposition import supervisor_text
from trading.serving.live_market import LiveMarketUnavailable, NamedActor, StatusReader
from trading.serving.page_stream import PageInput
from trading.serving.supervisor import TRADING, SupervisorState

Lifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class AccountAnswers:
    """The answers for one account; all raise LiveMarketUnavailable where none has come of it.

    Parameters
    ----------
    market
        Its live market.
    state
        Tells where its supervisor stands; None where nobody supervises it.
    strategy
        What its metrics are labelled with; None: nothing.
    """

    def __init__(
        self,
        market: NamedActor,
        state: Callable[[], Awaitable[SupervisorState]] | None = None,
        strategy: str | None = None,
    ) -> None:
        self._market = market
        self._status_reader = StatusReader(market)
        self._supervised = state
        self._strategy = strategy

    def begin(self) -> None:
        """Follow the status updates from now on."""
        self._status_reader.begin()

    async def health(self) -> str:
        """Return what it is at, where anybody answers for it."""
        try:
            at = await self._state()
        except LiveMarketUnavailable:
            at = None
        if at is None:
            await self._status_reader.newest()
        return at.phase if _idle(at) else "ok"

    async def readiness(self) -> tuple[bool, list[str]]:
        """Whether the account can trade, and why not."""
        at = await self._state()
        if _idle(at):
            return False, [at.reason]
        update = await self._status_reader.newest()
        return update.ready, list(update.reasons)

    async def status(self) -> bytes:
        """Return the live market's own account of itself, as a JSON object."""
        at = await self._state()
        if at is None:
            return (await self._status_reader.newest()).status
        told = (
            as_json({"phase": at.phase})
            if _idle(at)
            else (await self._status_reader.newest()).status
        )
        return _joined(told, as_json({"supervisor": at._asdict()}))

    async def metrics(self) -> bytes:
        """Prometheus text."""
        at = await self._state()
        text = b"" if _idle(at) else (await self._status_reader.newest()).metrics
        return text if at is None else text + supervisor_text(at, self._strategy)

    async def told(self) -> PageInput:
        """Return what the page shows."""
        at = await self._state()
        update = None if _idle(at) else await self._status_reader.newest()
        return PageInput(update, at._asdict() if at is not None else None, self._strategy or "")

    async def command(self, method: str, timeout_s: float, *arguments: object) -> Any:
        """Return the answer of the live market's `method`."""
        at = await self._state()
        if _idle(at):
            raise LiveMarketUnavailable(at.reason)
        return await self._market.ask(method, timeout_s, *arguments)

    async def _state(self) -> SupervisorState | None:
        return await self._supervised() if self._supervised is not None else None


def new_api(lifespan: Lifespan | None = None) -> FastAPI:
    """Return an application without routes: it answers 503 where nobody answers for an account."""
    api = FastAPI(title="trading", docs_url=None, redoc_url=None, lifespan=lifespan)

    @api.exception_handler(LiveMarketUnavailable)
    async def unavailable(_: object, error: LiveMarketUnavailable) -> Response:
        return json_answer({"status": "unavailable", "reason": str(error)}, status_code=503)

    return api


def readiness_answer(is_ready: bool, reasons: Sequence[str], **more: object) -> Response:
    """200 where it is ready, 503 with the reasons where not."""
    body = {"status": "ready" if is_ready else "not ready", "reasons": list(reasons), **more}
    return json_answer(body, status_code=200 if is_ready else 503)


def metrics_answer(text: bytes) -> Response:
    """Prometheus text."""
    return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})


def json_answer(content: object, status_code: int = 200) -> Response:
    """`content` as JSON, in which a number that is not finite is null."""
    return answer(as_json(content), status_code)


def answer(body: bytes, status_code: int = 200) -> Response:
    """JSON that is written already."""
    return Response(body, status_code=status_code, media_type="application/json")


_OBJECT = {"application/json": {"schema": {"type": "object"}}}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": _OBJECT},
    503: {"description": "Why it is not so", "content": _OBJECT},
}
METRICS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
    503: ANSWERS[503],
}
"""Of the routes, for the document."""


def _idle(state: SupervisorState | None) -> TypeGuard[SupervisorState]:
    """Whether there is no live market to ask, by what the supervisor says."""
    return state is not None and state.phase != TRADING


def _joined(one: bytes, other: bytes) -> bytes:
    """Two JSON objects, none of them empty, as one."""
    return one[:-1] + b"," + other[1:]
