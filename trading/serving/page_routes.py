"""The page at `/`, its files, and the questions it asks beside `/events`.

The page is made of the files in `trading/serving/page`, served as they are: no build, and nothing
from anywhere else, which its content security policy enforces.
"""

import asyncio
import contextlib
import gzip
import hashlib
import html
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib import resources
from typing import Annotated, Any, NamedTuple

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import StreamingResponse
from ray.exceptions import TaskCancelledError
from starlette.types import Receive

from trading.errors import JournalError
from trading.execution.journal import event_search as journal_search
from trading.live.status_updates import as_json
from trading.serving.page_stream import (
    MOST_VIEWERS,
    PageInput,
    PageStream,
    Viewers,
    account_edition,
    compressed,
)

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'self'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # Asked again each time, and answered that it is the same: a new release is seen at once.
    "cache-control": "no-cache",
}
_IMPORTED = re.compile(r'^import .*? from "\./([\w/.]+)";', re.MULTILINE)
"""Modules that a module of the page needs, one a line."""
_VARY = "accept-encoding"
_SEARCHES = 2
"""Of the journal, at once."""
_ASK_S = 4.0
_FAR_S = 9e9
"""Seconds from 1970: no journal's nanoseconds reach further."""


class _File(NamedTuple):
    content: bytes
    compressed: bytes
    """In gzip."""
    media_type: str
    etag: str


class Document(NamedTuple):
    """A page: what it is, and the module that draws it."""

    script: str
    about: str
    waiting: str
    """Shown until the module draws."""


ACCOUNT = Document(
    "app.js", "A paper-trading account: what it holds, does, and why.", "Loading the account…"
)
STRATEGIES = Document(
    "strategies.js",
    "Paper-trading strategies side by side: what each is worth, holds and does.",
    "Loading the strategies…",
)


class EventStream(StreamingResponse):
    """An answer that ends quietly where its reader goes.

    Serve cancels its own waiting for the reader then, of which Starlette knows nothing: unheeded,
    every page that is closed would leave a traceback in the log.
    """

    async def listen_for_disconnect(self, receive: Receive) -> None:
        """Wait until the reader is gone."""
        with contextlib.suppress(TaskCancelledError):
            await super().listen_for_disconnect(receive)


def _file(content: bytes, media_type: str) -> _File:
    etag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    return _File(content, gzip.compress(content, mtime=0), media_type, etag)


def add_page(
    api: FastAPI,
    tell: Callable[[], Awaitable[PageInput]],
    ask: Callable[..., Awaitable[Any]],
    viewers: Viewers,
) -> None:
    """Add the page's routes.

    Parameters
    ----------
    tell
        The newest that is known of the account; raises TradingError where nothing is.
    ask
        `ask(method, timeout_s)` of the live market.
    viewers
        Of all pages of the replica.
    """
    stream = PageStream(tell, account_edition, viewers)
    add_document(api, ACCOUNT, stream)
    _add_chain(api, stream, ask)
    _add_journal(api, tell)


def add_document(api: FastAPI, document: Document, stream: PageStream[Any]) -> None:
    """Add a page at `/`, the files that it is made of, and what it shows at `/events`.

    Parameters
    ----------
    document
        What is put into `document.html`, the head that all pages have.
    stream
        Editions of what it shows.
    """
    files = _page_files()
    written = _written(files, document)

    @api.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        """Return the page; its addresses are below the application's own path."""
        root = html.escape(request.scope.get("root_path", "").rstrip("/"), quote=True)
        content = written.replace('<base href="/">', f'<base href="{root}/">')
        return _answer(request, _file(content.encode(), _TYPES[".html"]))

    @api.get("/page/{name:path}", include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        """Return a file of the page."""
        found = files.get(name)
        return Response(status_code=404) if found is None else _answer(request, found)

    @api.get("/events", include_in_schema=False)
    async def events(request: Request) -> Response:
        """Return what the page shows, see `page_stream`."""
        if stream.viewers.is_full:
            return _json({"reason": f"{MOST_VIEWERS} look at it already"}, 503, _LATER)
        last = request.headers.get("last-event-id", "")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no", "vary": _VARY}
        told = stream.events(last)
        if _takes_gzip(request):
            told, headers["content-encoding"] = compressed(told), "gzip"
        return EventStream(told, media_type="text/event-stream", headers=headers)


def _add_chain(
    api: FastAPI, stream: PageStream[PageInput], ask: Callable[..., Awaitable[Any]]
) -> None:
    sheets: dict[str, dict[str, bytes]] = {}
    """The chains at the last bar that they were asked for; one question a bar, whoever looks."""
    asking = asyncio.Lock()

    @api.get("/chain/{underlying}", responses=_FOUND)
    async def chain(underlying: str) -> Response:
        """Return an underlying's option chain at the last bar: quotes, volatilities, deltas."""
        edition = await stream.newest()
        status = edition.content["status"]
        bar = f"{status.get('process')} {status.get('market', {}).get('time')}"
        async with asking:
            if bar not in sheets:
                told = await ask("chains", _ASK_S)
                sheets.clear()
                sheets[bar] = told
        found = sheets[bar].get(underlying)
        if found is None:
            known = ", ".join(sheets[bar]) or "none yet"
            return _json({"reason": f"no chain of {underlying}; there are {known}"}, 404)
        return Response(found, media_type="application/json")


def _add_journal(api: FastAPI, tell: Callable[[], Awaitable[PageInput]]) -> None:
    searching = asyncio.Semaphore(_SEARCHES)

    @api.get("/journal", responses=_FOUND | _BUSY)
    async def journal(
        since: Annotated[datetime | None, Query(alias="from")] = None,
        until: Annotated[datetime | None, Query(alias="to")] = None,
        order: Annotated[str, Query(max_length=100)] = "",
        symbol: Annotated[str, Query(max_length=40)] = "",
        kind: Annotated[str, Query(max_length=40)] = "",
        before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
        limit: Annotated[int, Query(ge=1, le=journal_search.MOST_ROWS)] = 50,
    ) -> Response:
        """Rows of the account's journal, newest first.

        `from` and `to` are ISO 8601 (UTC where they do not say); `before` goes on where an answer
        stopped. A search ends after two seconds; `before` of its answer says how far it came.
        """
        query = journal_search.Query(_ns(since), _ns(until), order, symbol, kind, before, limit)
        update = (await tell()).update
        if update is None or not update.journal:
            return _json({"reason": "nobody trades: its journal is not known here"}, 404)
        if searching.locked():
            return _json({"reason": "others search the journal: try again"}, 429, _LATER)
        async with searching:
            try:
                found = await asyncio.to_thread(journal_search.search, update.journal, query)
            except JournalError as error:
                return _json({"reason": str(error)}, 404)
        return _json(found._asdict())


def _page_files() -> dict[str, _File]:
    """Every file of the page by its path below `page`."""
    files = {}
    folders = [("", resources.files("trading.serving") / "page")]
    while folders:
        prefix, folder = folders.pop()
        for each in folder.iterdir():
            name = f"{prefix}{each.name}"
            if each.is_dir():
                folders.append((f"{name}/", each))
            elif (kind := _TYPES.get(f".{name.rpartition('.')[2]}")) is not None:
                files[name] = _file(each.read_bytes(), kind)
    return files


def _written(files: dict[str, _File], document: Document) -> str:
    """Return a page's document, which asks at once for every module that its script needs."""
    modules = [document.script]
    for name in modules:  # It grows meanwhile.
        found = _IMPORTED.findall(files[name].content.decode())
        modules += [each for each in dict.fromkeys(found) if each not in modules]
    preloads = [f'<link rel="modulepreload" href="page/{name}">' for name in modules[1:]]
    places = {
        "{about}": document.about,
        "{script}": document.script,
        "{waiting}": document.waiting,
        "{preloads}": "\n    ".join(preloads),
    }
    text = files["document.html"].content.decode()
    for place, content in places.items():
        text = text.replace(place, content)
    return text


def _answer(request: Request, found: _File) -> Response:
    headers = _HEADERS | {"etag": found.etag, "vary": _VARY}
    if found.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    content = found.content
    if _takes_gzip(request):
        content, headers["content-encoding"] = found.compressed, "gzip"
    return Response(content, media_type=found.media_type, headers=headers)


def _takes_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")


def _ns(when: datetime | None) -> int | None:
    """UTC nanoseconds, within what a journal can hold; None where there is no time."""
    if when is None:
        return None
    seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    return int(min(max(seconds, -_FAR_S), _FAR_S)) * 1_000_000_000


def _json(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = as_json(content)
    return Response(body, status_code=status, headers=headers, media_type="application/json")


_LATER = {"retry-after": "5"}
_REASON = {"application/json": {"schema": {"type": "object"}}}
_FOUND: dict[int | str, dict[str, Any]] = {
    200: {"content": _REASON},
    404: {"description": "It is not there, and why", "content": _REASON},
    503: {"description": "There is no status update of the live market", "content": _REASON},
}
_BUSY: dict[int | str, dict[str, Any]] = {
    429: {"description": "Others search at this moment", "content": _REASON},
}
