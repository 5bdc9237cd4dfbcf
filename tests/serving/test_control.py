"""The owner's commands by HTTP: who gets in, what a request may be, and what it is answered."""

import asyncio
import hashlib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ray.exceptions import RayTaskError

from tests.execution.scene import NOW_NS, market, new_broker, open_order
from trading.errors import OwnerRefused
from trading.execution.broker import PaperBroker
from trading.execution.events import OwnerCommand
from trading.execution.owner import Command, execute_command
from trading.market.corporate_actions import Split
from trading.serving.control import (
    COMMANDS,
    MOST_BYTES,
    ControlError,
    OwnerAccess,
    TokenBucket,
    add_control,
)
from trading.serving.live_market import NamedActor

TOKEN = "a-token-of-the-test-0123456789"


class Market:
    """Answers as the live market's actor does, for a real account."""

    def __init__(self, broker: PaperBroker, token: str | None = TOKEN) -> None:
        self.broker, self.token = broker, token
        self.asked: list[str] = []

    async def __call__(self, method: str, timeout_s: float, *arguments: Any) -> Any:
        self.asked.append(method)
        if method == "control_digest":
            return hashlib.sha256(self.token.encode()).digest() if self.token else None
        (command,) = arguments
        assert isinstance(command, Command)
        prepared = (OwnerCommand.PROMOTE, OwnerCommand.ROLLBACK, OwnerCommand.RELOAD)
        effect = lambda *_: (f"{command.which} is to trade", [])  # noqa: E731
        try:
            answer = execute_command(
                self.broker,
                command,
                NOW_NS,
                effect=effect if command.command in prepared else None,
            )
        except OwnerRefused as error:
            return str(error), {}
        return "", msgspec.to_builtins(answer)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Market]:
    broker = new_broker(tmp_path)
    yield Market(broker)
    broker.journal.close()


def api(owner: Market) -> FastAPI:
    made = FastAPI()
    add_control(made, owner)
    return made


async def _post(app: FastAPI, path: str, **kwargs: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://trading") as client:
        return await client.post(path, **kwargs)


def post(app: FastAPI, name: str, token: str | None = TOKEN, **kwargs: Any) -> httpx.Response:
    headers = kwargs.pop("headers", {})
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return asyncio.run(_post(app, f"/control/{name}", headers=headers, **kwargs))


def test_each_command_is_obeyed_journalled_and_answered(owner: Market) -> None:
    app, broker = api(owner), owner.broker
    broker.submit(open_order(broker, "long_call"), market(), True, NOW_NS)
    for number, name in enumerate(COMMANDS, 1):
        body = {"by": "alice", "why": "of the test", "symbol": "SPY", "which": "champion-1"}
        if name == "close":
            post(app, "resume")
        elif name == "reinstate":
            broker.suspend("SPY", "unexplained since 2026-01-05: 100.00 -> 10.00 USD", NOW_NS)
        elif name == "undo-action":
            broker.apply_action(Split("SPY", date(2026, 1, 5), 10, 1), NOW_NS)
        response = post(app, name, json=body)
        assert response.status_code == 200, response.text
        told = response.json()
        assert told["done"] and told["said"] and told["account"]["owner_commands"] >= number
    assert set(COMMANDS) == {
        "halt", "reduce", "resume", "flatten", "close", "reset-peak", "promote", "rollback",
        "reload", "reinstate", "undo-action",
    }  # fmt: skip


def test_cash_is_not_moved_by_http(owner: Market) -> None:
    for name in ("deposit", "withdraw"):
        assert post(api(owner), name, json={"amount": 1.0}).status_code == 404


def test_without_a_configured_token_every_command_is_refused(owner: Market) -> None:
    owner.token = None
    for token in (None, "", TOKEN):
        response = post(api(owner), "halt", token)
        assert response.status_code == 403
        assert "set CONTROL_TOKEN" in response.json()["said"]
    assert owner.broker.account.owner_commands == 0


def test_while_the_token_is_not_known_yet_the_owner_is_told_to_come_again(
    owner: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting = "the live market is starting: give the command again"
    begun = False

    async def ask(actor: NamedActor, method: str, arguments: tuple[object, ...]) -> Any:
        if not begun:
            # As Ray tells what a method of an actor raised.
            raise RayTaskError(method, "", OwnerRefused(starting)).as_instanceof_cause()
        return await owner(method, 1.0, *arguments)

    monkeypatch.setattr(NamedActor, "_ask", ask)
    app = FastAPI()
    add_control(app, NamedActor("live", "here").ask)
    response = post(app, "halt")
    assert (response.status_code, response.json()) == (503, {"done": False, "said": starting})
    begun = True
    assert post(app, "halt").status_code == 200


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer wrong", 403),
        (f"Basic {TOKEN}", 403),
        (f"Bearer {TOKEN}x", 403),
        (f"Bearer {TOKEN[:-1]}", 403),
        (f"Bearer {TOKEN} {TOKEN}", 403),
    ],
)
def test_whoever_has_not_the_token_is_kept_out(
    owner: Market, header: str | None, status: int
) -> None:
    headers = {} if header is None else {"Authorization": header}
    response = post(api(owner), "halt", None, headers=headers)
    assert response.status_code == status
    assert response.json()["done"] is False
    assert TOKEN not in response.text
    assert "control" not in owner.asked


def test_who_guesses_is_slowed_down_and_the_owner_is_not(owner: Market) -> None:
    app = api(owner)
    statuses = [post(app, "halt", f"guess-{number}").status_code for number in range(40)]
    assert statuses[0] == 403 and statuses[-1] == 429
    assert post(app, "halt").status_code == 200
    assert owner.asked.count("control_digest") == 1


def test_the_owner_may_not_command_without_end(owner: Market) -> None:
    app = api(owner)
    responses = [post(app, "halt") for _ in range(60)]
    assert responses[-1].status_code == 429
    assert "wait" in responses[-1].json()["said"]
    assert int(responses[-1].headers["Retry-After"]) > 0


def test_a_bucket_refills_with_time() -> None:
    now = [0.0]
    bucket = TokenBucket(2.0, 0.5, lambda: now[0])
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    now[0] = 2.0
    assert [bucket.take() for _ in range(2)] == [True, False]


def test_another_token_holds_after_a_while() -> None:
    now, tokens = [0.0], [TOKEN]

    async def ask(method: str, timeout_s: float) -> bytes:
        return hashlib.sha256(tokens[0].encode()).digest()

    door = OwnerAccess(ask, lambda: now[0])
    asyncio.run(door.admit(f"Bearer {TOKEN}"))
    tokens[0] = "another-token-of-the-test"
    now[0] = 60.0
    with pytest.raises(ControlError, match="not the owner's"):
        asyncio.run(door.admit(f"Bearer {TOKEN}"))


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b'"halt"', b'{"by": 1}', b'{"whom": "x"}', b"\xff\xfe", b"[" * 4000, b"null"],
)
def test_a_body_that_is_not_in_order_is_refused(owner: Market, content: bytes) -> None:
    response = post(api(owner), "halt", content=content)
    assert response.status_code == 400
    assert "symbol" in response.json()["said"]
    assert "control" not in owner.asked


def test_a_body_is_read_no_further_than_it_may_be_long(owner: Market) -> None:
    sent = []

    async def endless() -> Any:
        for _ in range(1000):
            sent.append(1)
            yield b"x" * 1024

    response = post(api(owner), "halt", content=endless())
    assert response.status_code == 413
    assert str(MOST_BYTES) in response.json()["said"]


def test_what_cannot_be_done_is_a_conflict_with_the_reason(owner: Market) -> None:
    response = post(api(owner), "close", json={"symbol": "SPY"})
    assert response.status_code == 409
    assert response.json() == {"done": False, "said": "nothing is open on SPY: open are nothing"}


@pytest.mark.parametrize("by_header", [False, True])
def test_a_key_makes_a_command_be_done_once(owner: Market, by_header: bool) -> None:
    app = api(owner)
    kwargs: dict[str, Any] = {"json": {"key": "k"}}
    for repeated in (False, True):
        if by_header:
            kwargs = {"headers": {"Idempotency-Key": "k"}}
        told = post(app, "halt", **kwargs).json()
        assert told["repeated"] is repeated
    assert owner.broker.account.owner_commands == 1


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=300), header=st.binary(max_size=60))
def test_no_bytes_are_an_error_of_the_server(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, header: bytes
) -> None:
    broker = new_broker(tmp_path_factory.mktemp("account"))
    app = api(Market(broker))
    kept = bytes(each for each in header if 32 < each < 127)
    for authorization in (b"Bearer " + TOKEN.encode(), kept):
        response = asyncio.run(
            _post(app, "/control/halt", content=content, headers={b"Authorization": authorization})
        )
        assert response.status_code in (200, 400, 401, 403, 409, 429)
        assert "said" in response.json()
    broker.journal.close()
