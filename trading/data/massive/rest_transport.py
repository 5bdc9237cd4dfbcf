"""One GET of the vendor's REST service, and the paging over several."""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

import httpx
import msgspec

from trading.data.massive.endpoint import check_api_key, check_url, is_loopback, redact
from trading.errors import AuthenticationFailed, NotEntitled, RestError

_GOOD_STATUSES = ("OK", "DELAYED")
_PASSING_FAILURES = (429, 500, 502, 503, 504)
_LONGEST_PAUSE_S = 60.0

logger = logging.getLogger(__name__)

Query = Mapping[str, str]
Row = TypeVar("Row")


class Failure(msgspec.Struct):
    """What a reply says about itself; `error` or `message` tells what went wrong."""

    status: str = ""
    error: str = ""
    message: str = ""


class Page(Failure, Generic[Row]):
    """One page of rows; `next_url` leads to the next one."""

    results: list[Row] | None = None
    next_url: str | None = None


class RestTransport:
    """Gets replies and decodes them; see `RestClient` for what is tried again and what raises."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        timeout_s: float,
        attempts: int,
        pause: Callable[[float], None],
    ) -> None:
        self._base_url = check_url(base_url, ("http", "https"))
        self._api_key = check_api_key(api_key)
        self._attempts = attempts
        self._pause = pause
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {self._api_key}"},
            timeout=timeout_s,
            trust_env=not is_loopback(self._base_url),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def one(self, path: str, kind: type[Row]) -> Row:
        """Return the reply of `path`, or raise."""
        return self._decode(self._get(self._base_url + path, {}, path), kind, path)

    def rows(self, path: str, query: Query, kind: type[Page[Row]]) -> Iterator[Row]:
        """Yield the rows of every page of `path`, or raise."""
        url = self._base_url + path
        seen = set()
        number = 1
        while True:
            where = f"{path}, page {number}"
            page = self._decode(self._get(url, query, where), kind, where)
            if page.status not in _GOOD_STATUSES or page.error:
                raise RestError(f"{where}: {self._reason(page)}")
            yield from page.results or ()
            if not page.next_url:
                return
            url, query = self._checked_next(page.next_url, where), {}
            if url in seen:
                raise RestError(f"{where}: the next page is one that was read before")
            seen.add(url)
            number += 1

    def _get(self, url: str, query: Query, where: str) -> bytes:
        """Return the body of a GET, trying again what may pass."""
        attempt = 1
        while True:
            failure, pause_s = "", 0.5 * 2.0 ** (attempt - 1)
            try:
                reply = self._http.get(url, params=query or None)
            except httpx.HTTPError as error:
                failure = type(error).__name__
                if detail := redact(str(error), self._api_key):
                    failure += f": {detail}"
            else:
                if reply.status_code == httpx.codes.OK:
                    return reply.content
                failure = self._refusal(reply, where)
                pause_s = _retry_after_s(reply, pause_s)
            if attempt >= self._attempts:
                raise RestError(f"{where}: {failure}, after {attempt} attempts")
            logger.warning("%s: %s; next attempt in %.1f s", where, failure, pause_s)
            self._pause(pause_s)
            attempt += 1

    def _refusal(self, reply: httpx.Response, where: str) -> str:
        """Return why a request that may pass later failed; raises for any other."""
        code = reply.status_code
        try:
            reason = self._reason(msgspec.json.decode(reply.content, type=Failure))
        except msgspec.DecodeError:
            reason = reply.reason_phrase
        if code == httpx.codes.UNAUTHORIZED:
            raise AuthenticationFailed(
                f"{where}: the vendor refused the API key ({reason}): check MASSIVE_API_KEY"
            )
        if code == httpx.codes.FORBIDDEN:
            raise NotEntitled(f"{where}: the API key's plan does not include this ({reason})")
        if code not in _PASSING_FAILURES:
            raise RestError(f"{where}: HTTP {code} ({reason})")
        return f"HTTP {code} ({reason})"

    def _reason(self, failure: Failure) -> str:
        reason = failure.error or failure.message or f"status {failure.status!r}"
        return redact(reason, self._api_key)

    def _decode(self, body: bytes, kind: type[Row], where: str) -> Row:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise RestError(
                f"{where}: the reply is not what the vendor documents: {error}"
            ) from error

    def _checked_next(self, next_url: str, where: str) -> str:
        """Return `next_url` if it leads to the same server, the only one to be shown the key."""
        try:
            ours, other = httpx.URL(self._base_url), httpx.URL(next_url)
        except httpx.InvalidURL as error:
            raise RestError(f"{where}: the address of the next page is malformed") from error
        if (ours.scheme, ours.host, ours.port) != (other.scheme, other.host, other.port):
            raise RestError(
                f"{where}: the next page is on {other.scheme}://{other.netloc.decode('ascii')}, "
                f"not on {self._base_url}"
            )
        return next_url


def _retry_after_s(reply: httpx.Response, default_s: float) -> float:
    """Return the seconds that `Retry-After` names (RFC 9110, section 10.2.3), else `default_s`."""
    text = reply.headers.get("Retry-After", "")
    pause_s = float(text) if text.isdecimal() else default_s
    return min(pause_s, _LONGEST_PAUSE_S)
