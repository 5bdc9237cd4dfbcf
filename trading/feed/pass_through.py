"""REST answers of the vendor, asked for once and given to all readers that want the same."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from hmac import compare_digest
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
import urllib3
from urllib3.exceptions import HTTPError

from trading.data.massive.client.rest_transport import RequestPace
from trading.data.massive.urls import check_api_key, check_url, proxy_of, redact
from trading.logs import get_logger

_NEVER_KEPT: Final = re.compile(r"/v1/marketstatus/")
"""Whoever asks what time it is, or whether the market is open, means now."""
_OF_THIS_INSTANT: Final = re.compile(r"/v3/snapshot|/v2/snapshot|/v[23]/(aggs|quotes|trades|last)/")
_NEXT: Final = re.compile(rb'("next_url"\s*:\s*")([a-z]+:(?:\\?/){2}[^"/\\]+)')
_PASSED_ON: Final = ("Content-Type", "Date", "Retry-After")
_MOST_KEPT: Final = 10_000
_OK, _UNAUTHORIZED, _BAD_GATEWAY = 200, 401, 502

log = get_logger(__name__)


class Answer(NamedTuple):
    """Status, headers and body of an HTTP reply, and when it came on the clock of the cache."""

    status: int
    headers: dict[str, str]
    body: bytes
    came_s: float


class PassThrough:
    """Answers GETs for the vendor: from memory, by a request that is under way, or by asking.

    What changes with every quote is kept for `live_s`, so that readers who ask for the same at
    once cause one request; listings, corporate actions, closes and the like for `keep_s`; the
    vendor's clock and market status never, nor anything that was refused. A reader's
    `Cache-Control: no-cache` is heeded. What was kept says so by its `Age`.

    Parameters
    ----------
    base_url, api_key: the vendor's service and key; the key is added here, readers have another
    keys: what readers may authenticate with
    keep_s, live_s: seconds, see above
    max_bytes: bodies kept, together
    timeout_s: of each step of a request
    max_requests_per_s: the vendor throttles above 100
    clock: seconds that only rise
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        keys: Collection[str],
        *,
        keep_s: float = 60.0,
        live_s: float = 1.0,
        max_bytes: int = 64 << 20,
        timeout_s: float = 10.0,
        max_requests_per_s: float = 80.0,
        max_requests_at_once: int = 8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base_url = check_url(base_url, ("http", "https"))
        self._api_key = check_api_key(api_key)
        self._keys = [key.encode() for key in keys]
        self._keep_s, self._live_s = keep_s, live_s
        self._max_bytes = max_bytes
        self._pace = RequestPace(max_requests_per_s)
        self._clock = clock
        self._kept: OrderedDict[str, Answer] = OrderedDict()
        self._kept_bytes = 0
        self._under_way: dict[str, asyncio.Task[Answer]] = {}
        self._threads = ThreadPoolExecutor(max_requests_at_once, thread_name_prefix="feed-rest")
        proxy = proxy_of(self._base_url)
        options: dict[str, Any] = {
            "timeout": urllib3.Timeout(connect=timeout_s, read=timeout_s),
            "maxsize": max_requests_at_once,
            "retries": False,
        }
        self._http: urllib3.PoolManager = (
            urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
        )
        self.counts = {"asked": 0, "kept": 0, "shared": 0, "refused": 0, "failed": 0}
        """Requests by what became of them: asked of the vendor, answered from memory, answered
        with another's request, refused for their key, failed on the way."""

    @property
    def kept_bytes(self) -> int:
        """Bytes of the bodies that are kept."""
        return self._kept_bytes

    async def get(self, target: str, headers: Mapping[str, str]) -> Answer:
        """Answer a GET of `target`, path with query; never raises."""
        parts = urlsplit(target)
        query = parse_qsl(parts.query, keep_blank_values=True)
        shown = [value for name, value in query if name == "apiKey"]
        shown.append(headers.get("Authorization", "").removeprefix("Bearer "))
        if not any(compare_digest(each.encode(), key) for each in shown for key in self._keys):
            self.counts["refused"] += 1
            return self._error(_UNAUTHORIZED, "Unknown API Key")
        path = parts.path + _query(sorted(pair for pair in query if pair[0] != "apiKey"))
        fresh = "no-cache" in headers.get("Cache-Control", "")
        answer = await self._find(path, fresh)
        return answer._replace(body=self._with_own_pages(answer.body, headers.get("Host", "")))

    def close(self) -> None:
        """End the threads and close the connections; requests under way are not waited for."""
        for task in self._under_way.values():
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._http.clear()

    async def _find(self, path: str, fresh: bool) -> Answer:
        kept = None if fresh else self._kept.get(path)
        if kept is not None:
            age_s = self._clock() - kept.came_s
            if age_s < self._life_s(path):
                self._kept.move_to_end(path)
                self.counts["kept"] += 1
                return kept._replace(headers={**kept.headers, "Age": str(int(age_s))})
            self._drop(path)
        task = None if fresh else self._under_way.get(path)
        if task is None:
            self.counts["asked"] += 1
            task = asyncio.get_running_loop().create_task(self._ask(path))
            if not fresh:
                self._under_way[path] = task
                task.add_done_callback(lambda _: self._under_way.pop(path, None))
        else:
            self.counts["shared"] += 1
        # Who gives up does not take the answer from others.
        return await asyncio.shield(task)

    async def _ask(self, path: str) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            answer = await loop.run_in_executor(self._threads, self._request, path)
        except (HTTPError, OSError) as error:
            self.counts["failed"] += 1
            reason = f"{type(error).__name__}: {redact(str(error), self._api_key)}"
            log.warning("REST call failed", path=urlsplit(path).path, reason=reason)
            return self._error(_BAD_GATEWAY, f"the vendor does not answer: {reason}")
        if answer.status == _OK and self._life_s(path) > 0.0:
            self._keep(path, answer)
        return answer

    def _request(self, path: str) -> Answer:
        self._pace.wait()
        headers = {
            "Authorization": f"Bearer {self._api_key}",
            "Accept-Encoding": "gzip",
            "Cache-Control": "no-cache",
        }
        reply = self._http.request("GET", self._base_url + path, headers=headers)
        told = {name: reply.headers[name] for name in _PASSED_ON if name in reply.headers}
        return Answer(reply.status, told, reply.data, self._clock())

    def _life_s(self, path: str) -> float:
        """For how long an answer is good."""
        if _NEVER_KEPT.match(path):
            return 0.0
        return self._live_s if _OF_THIS_INSTANT.match(path) else self._keep_s

    def _keep(self, path: str, answer: Answer) -> None:
        self._drop(path)
        if len(answer.body) > self._max_bytes // 4:
            return
        self._kept[path] = answer
        self._kept_bytes += len(answer.body)
        while self._kept_bytes > self._max_bytes or len(self._kept) > _MOST_KEPT:
            self._drop(next(iter(self._kept)))

    def _drop(self, path: str) -> None:
        gone = self._kept.pop(path, None)
        if gone is not None:
            self._kept_bytes -= len(gone.body)

    def _with_own_pages(self, body: bytes, host: str) -> bytes:
        """Return the body with the next page's address leading here, where the key counts."""

        def ours(found: re.Match[bytes]) -> bytes:
            where = found.group(2).replace(b"\\", b"").decode("ascii", "replace")
            same = bool(host) and where == self._origin
            return found.group(1) + f"http://{host}".encode() if same else found.group()

        return _NEXT.sub(ours, body) if b'"next_url"' in body else body

    @property
    def _origin(self) -> str:
        parts = urlsplit(self._base_url)
        return f"{parts.scheme}://{parts.netloc}"

    def _error(self, status: int, message: str) -> Answer:
        body = msgspec.json.encode({"status": "ERROR", "error": message})
        return Answer(status, {}, body, self._clock())


def _query(pairs: list[tuple[str, str]]) -> str:
    return f"?{urlencode(pairs)}" if pairs else ""
