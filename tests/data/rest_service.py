"""An HTTP server on the loopback that gives REST answers as a test wants them."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit


class Asked(NamedTuple):
    """One request as the server saw it."""

    path: str
    query: dict[str, str]
    authorization: str


class Answer(NamedTuple):
    """What the server answers; bytes are sent as they are, anything else as JSON."""

    body: Any
    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    cut: bool = False


class Service(ThreadingHTTPServer):
    """Gives `answers` one after the other, the last one again and again.

    A path in `answers_of` has its own.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = []
        self.answers_of: dict[str, list[Answer]] = {}
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def pages(self, path: str, *results: list[Any]) -> None:
        """Answer with one page for each of `results`."""
        self.answers += self.paged(path, *results)

    def paged(self, path: str, *results: list[Any]) -> list[Answer]:
        """One page for each of `results`, each but the last with the address of the next."""
        answers = []
        for number, rows in enumerate(results, start=1):
            body: dict[str, Any] = {"status": "OK", "request_id": "1", "results": rows}
            if number < len(results):
                body["next_url"] = f"{self.url}{path}?cursor=page{number + 1}"
            answers.append(Answer(body))
        return answers


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        authorization = self.headers.get("Authorization", "")
        self.server.asked.append(Asked(parts.path, dict(parse_qsl(parts.query)), authorization))
        answers = self.server.answers_of.get(parts.path, self.server.answers)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        if "Date" in answer.headers:
            self.send_response_only(answer.status)
        else:
            self.send_response(answer.status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if answer.cut:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def running_service() -> Iterator[Service]:
    """A service that listens, until the block ends."""
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10.0)
        assert not thread.is_alive()
