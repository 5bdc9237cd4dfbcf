"""Calls of the vendor's own client, one GET each, and the paging over several.

The client (`massive`) makes the requests; what it makes of the replies is not used. Its paging
ends without an error at a page that is no JSON or holds no rows, its error for a refusal lacks the
status, and it tries again without telling: here each is told, and a partial answer never returned.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar
from urllib.parse import SplitResult, urlsplit

import massive
import msgspec
from urllib3.exceptions import HTTPError

from trading.data.massive.damaged import mended
from trading.data.massive.urls import check_api_key, check_url, proxy_of, redact
from trading.errors import AuthenticationFailed, NotEntitled, RestError
from trading.logs import get_logger

_GOOD_STATUSES = ("OK", "DELAYED")
_OK, _UNAUTHORIZED, _FORBIDDEN = 200, 401, 403
_PASSING_FAILURES = (429, 500, 502, 503, 504)
_LONGEST_PAUSE_S = 60.0
_SECONDS = re.compile(r"\d{1,18}(\.\d*)?", re.ASCII)

log = get_logger(__name__)

RowType = TypeVar("RowType")
Call = Callable[[massive.RESTClient], Any]
"""Calls one method of the vendor's client with `raw=True`; returns the HTTP reply."""


class Failure(msgspec.Struct):
    """What a reply says about itself; `error` or `message` tells what went wrong."""

    status: str = ""
    error: str = ""
    message: str = ""


class Page(Failure, Generic[RowType]):
    """One page of rows; `next_url` leads to the next one."""

    results: list[RowType] | None = None
    next_url: str | None = None


class RequestPace:
    """Lets at most `per_s` requests begin in a second, from any number of threads.

    Parameters
    ----------
    clock: seconds that only rise
    pause: waits for so many seconds
    """

    def __init__(
        self,
        per_s: float,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval_s = 1.0 / per_s
        self._clock = clock
        self._pause = pause
        self._next_s = clock()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when the next request may begin."""
        with self._lock:
            now_s = self._clock()
            begin_s = max(self._next_s, now_s)
            self._next_s = begin_s + self._interval_s
        if begin_s > now_s:
            self._pause(begin_s - now_s)


class RestTransport:
    """Gets replies and decodes them; see `RestClient` for what is tried again and what raises."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        timeout_s: float,
        attempts: int,
        pause: Callable[[float], None],
        pace: RequestPace,
    ) -> None:
        self._base_url = check_url(base_url, ("http", "https"))
        self._api_key = check_api_key(api_key)
        self._attempts = attempts
        self._pause = pause
        self._pace = pace
        self._client = massive.RESTClient(
            self._api_key,  # never the one that the client found in the environment
            connect_timeout=timeout_s,
            read_timeout=timeout_s,
            base=self._base_url,
            proxy=proxy_of(self._base_url),
            # Tried again here, where it is told; a redirect is not followed.
            connection_pool_kw={"retries": False},
        )
        self._accepted = False
        """Whether the vendor has accepted the key before."""
        self._refused = False
        """Whether it has refused the key since, to every attempt of a call."""
        self.rows_left_out = 0
        """Rows that could not be read, since the start."""
        self._connections = _TellingConnections(self._client.client)
        self._client.client = self._connections

    def close(self) -> None:
        """Close the connections."""
        self._connections.clear()

    def one(self, call: Call, path: str, kind: type[RowType]) -> RowType:
        """Return the reply of `path`, or raise."""
        return self._decode(self._get(call, path), kind, path)

    def tried_once(self, path: str) -> tuple[bytes, int | None]:
        """Body of the reply to one GET of `path`, whatever its status, and what its `Date` says.

        The `Date` (RFC 9110, section 6.6.1) is UTC nanoseconds, cut to a second. Nothing is tried
        again, so that the answer is of the instant at which it was asked for. An answer that a
        cache kept (RFC 9111, section 5.1: it has an `Age`) is of another one, and refused.
        """
        headers = {**self._client.headers, "Cache-Control": "no-cache"}
        self._pace.wait()
        try:
            reply = self._connections.request("GET", self._base_url + path, headers=headers)
            body, told = reply.data, reply.headers
        except _Refused as refused:
            body, told = b"", refused.headers
        except (HTTPError, OSError) as error:
            reason = redact(str(error), self._api_key)
            raise RestError(f"{path}: {type(error).__name__}: {reason}") from error
        if "Age" in told:
            raise RestError(f"{path}: a cache answered, {told['Age']} s after the vendor did")
        return body, _http_date_ns(told.get("Date", ""))

    def pages(self, call: Call, path: str, kind: type[Page[RowType]]) -> Iterator[list[RowType]]:
        """Yield the rows of `path` page by page to the last one, or raise."""
        seen = set()
        number = 1
        while True:
            where = f"{path}, page {number}"
            page = self._decode(self._get(call, where), kind, where)
            if page.status.upper() not in _GOOD_STATUSES or page.error:
                raise RestError(f"{where}: {self._reason(page)}")
            if page.results is None and number > 1:
                raise RestError(f"{where}: the page that the one before announced has no rows")
            yield page.results or []
            if not page.next_url:
                return
            url = self._checked_next(page.next_url, where)
            if url in seen:
                raise RestError(f"{where}: the next page is one that was read before")
            seen.add(url)
            call = _getting(url)
            number += 1

    def rows(self, call: Call, path: str, kind: type[RowType]) -> Iterator[RowType]:
        """Yield the rows of every page of `path`, or raise.

        A row that cannot be read is logged and left out: it costs itself. A page of nothing but
        rows of another kind, and an answer without any row that can be read, are not what the
        vendor documents, and that is an error.
        """
        read, faults = 0, []
        for number, page in enumerate(self.pages(call, path, Page[msgspec.Raw]), start=1):
            of_another_kind = 0
            for row in page:
                try:
                    # Numbers as text, and whole numbers with a point, are read as what they are.
                    one = msgspec.json.decode(row, type=kind, strict=False)
                except (msgspec.MsgspecError, ValueError) as error:
                    faults.append(redact(str(error), self._api_key))
                    of_another_kind += "missing required field" in faults[-1]
                    continue
                read += 1
                yield one
            if page and of_another_kind == len(page):
                raise RestError(
                    f"{path}, page {number}: none of {len(page)} rows is what the vendor "
                    f"documents: {faults[-1]}"
                )
        if faults and not read:
            raise RestError(
                f"{path}: none of {len(faults)} rows is what the vendor documents: {faults[0]}"
            )
        if faults:
            log.warning("rows left out", path=path, rows=len(faults), first=faults[0])
            self.rows_left_out += len(faults)

    def whole_pages(
        self, call: Call, path: str, kind: type[RowType], is_sound: Callable[[RowType], bool]
    ) -> Iterator[list[RowType]]:
        """Yield the rows of `path` page by page, or raise.

        A row that cannot be read or is not sound is logged and left out; a field that is `null` is
        absent.
        """
        for number, page in enumerate(self.pages(call, path, Page[msgspec.Raw]), start=1):
            try:
                rows = msgspec.json.decode(b"[" + b",".join(page) + b"]", type=list[kind])  # type: ignore[valid-type]
            except (msgspec.MsgspecError, UnicodeDecodeError):
                rows = [row for each in page for row in self._patiently(each, kind)]
            sound = [row for row in rows if is_sound(row)]
            if page and not sound:
                raise RestError(
                    f"{path}, page {number}: none of {len(page)} rows is what the vendor documents"
                )
            if odd := len(page) - len(sound):
                log.warning("rows left out", path=path, page=number, rows=odd)
                self.rows_left_out += odd
            yield sound

    def _patiently(self, row: msgspec.Raw, kind: type[RowType]) -> list[RowType]:
        try:
            told = msgspec.json.decode(row, type=dict[str, Any])
            known = {name: value for name, value in told.items() if value is not None}
            return [msgspec.convert(known, kind, strict=False)]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return []

    def _get(self, call: Call, where: str) -> bytes:
        """Return the body of a GET, trying again what may pass."""
        attempt = 1
        while True:
            pause_s = 0.5 * 2.0 ** (attempt - 1)
            self._pace.wait()
            try:
                body: bytes = call(self._client).data
                self._accepted, self._refused = True, False
                return body
            except _Refused as refused:
                failure = self._refusal(refused, where)
                pause_s = _retry_after_s(refused, pause_s)
                # Many calls that each wait for the key would look like a thread that hangs.
                is_last = self._refused or attempt >= self._attempts
                if refused.status == _UNAUTHORIZED and is_last:
                    self._refused = True
                    raise RestError(
                        f"{where}: {failure}, after {attempt} attempts: where the vendor says so "
                        "for long, check MASSIVE_API_KEY"
                    ) from None
            except (HTTPError, OSError) as error:
                failure = f"{type(error).__name__}: {redact(str(error), self._api_key)}"
            if attempt >= self._attempts:
                raise RestError(f"{where}: {failure}, after {attempt} attempts")
            log.warning("REST call failed", what=where, reason=failure, next_attempt_s=pause_s)
            self._pause(pause_s)
            attempt += 1

    def _refusal(self, refused: "_Refused", where: str) -> str:
        """Return why a request that may pass later failed; raises for any other."""
        code = refused.status
        try:
            reason = self._reason(msgspec.json.decode(refused.body, type=Failure))
        except (msgspec.DecodeError, UnicodeDecodeError):
            reason = refused.phrase
        if code == _UNAUTHORIZED and not self._accepted:
            raise AuthenticationFailed(
                f"{where}: the vendor refused the API key ({reason}): check MASSIVE_API_KEY"
            ) from None
        if code == _FORBIDDEN:
            raise NotEntitled(
                f"{where}: the API key's plan does not include this ({reason})"
            ) from None
        if code not in (*_PASSING_FAILURES, _UNAUTHORIZED):
            raise RestError(f"{where}: HTTP {code} ({reason})") from None
        return f"HTTP {code} ({reason})"

    def _reason(self, failure: Failure) -> str:
        reason = failure.error or failure.message or f"status {failure.status!r}"
        return redact(reason, self._api_key)

    def _decode(self, body: bytes, kind: type[RowType], where: str) -> RowType:
        try:
            try:
                return msgspec.json.decode(body, type=kind)
            except (msgspec.DecodeError, UnicodeDecodeError):
                # What is odd may lie in a row that costs only itself.
                return msgspec.json.decode(mended(body), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RestError(
                f"{where}: the reply is not what the vendor documents: {error}"
            ) from error

    def _checked_next(self, next_url: str, where: str) -> str:
        """Return `next_url` if it leads to the same server, the only one to be shown the key."""
        try:
            ours, other = urlsplit(self._base_url), urlsplit(next_url)
            same = _origin(ours) == _origin(other)
        except ValueError as error:
            raise RestError(f"{where}: the address of the next page is malformed") from error
        if not same:
            raise RestError(
                f"{where}: the next page is on {other.scheme}://{other.hostname}, "
                f"not on {self._base_url}"
            )
        return next_url


class _Refused(Exception):
    """A reply other than 200."""

    def __init__(self, reply: Any) -> None:
        super().__init__(f"HTTP {reply.status}")
        self.status: int = reply.status
        self.phrase: str = reply.reason or ""
        self.body: bytes = reply.data
        self.headers: Mapping[str, str] = reply.headers


class _TellingConnections:
    """The client's connections, raising `_Refused` for what is not 200.

    The client itself raises an error then that holds the body alone.
    """

    def __init__(self, connections: Any) -> None:
        self._connections = connections

    def request(self, *arguments: Any, **options: Any) -> Any:
        """One request, see `urllib3.PoolManager.request`."""
        reply = self._connections.request(*arguments, **options)
        if reply.status != _OK:
            raise _Refused(reply)
        return reply

    def clear(self) -> None:
        """Close what is open."""
        self._connections.clear()


def _http_date_ns(text: str) -> int | None:
    """Return the instant of a header's date, UTC nanoseconds; None where it is no date."""
    try:
        date = parsedate_to_datetime(text)
        # Without a zone the standard means UTC, which Python leaves open.
        return int(date.replace(tzinfo=date.tzinfo or UTC).timestamp()) * 1_000_000_000
    except (ValueError, OverflowError):
        return None


def _getting(url: str) -> Call:
    """Get a page by its address, over the client's connections and with its headers."""
    return lambda client: client.client.request("GET", url, headers=client.headers)


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or usual


def _retry_after_s(refused: _Refused, default_s: float) -> float:
    """Return the seconds that `Retry-After` names (RFC 9110, section 10.2.3), else `default_s`.

    A date counts from the reply's own `Date`, whatever the machine's clock says.
    """
    text = refused.headers.get("Retry-After", "")
    if _SECONDS.fullmatch(text):
        return min(float(text), _LONGEST_PAUSE_S)
    until_ns, made_ns = _http_date_ns(text), _http_date_ns(refused.headers.get("Date", ""))
    if until_ns is None:
        return default_s
    left_s = (until_ns - (time.time_ns() if made_ns is None else made_ns)) / 1e9
    return min(max(left_s, default_s), _LONGEST_PAUSE_S)
