"""A page in a real browser, of real live markets that run here without Ray around them."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Page
from pydantic import SecretStr

from tests.live.market import (
    FirstMinutes,
    await_that,
    serving,
    settings_for,
    write_first_champion,
)
from tests.ports import free_port
from tests.waits import WAIT_S
from trading.live import assembly
from trading.live.actor import LiveMarket as LiveMarketActor
from trading.serving.live_market import LiveMarketGone, NamedActor

TOKEN = "token-of-the-page-0123456789"


class Called(NamedActor):
    """Asks a live market of this process, as its actor is asked; None: it is dead."""

    def __init__(self, live: LiveMarketActor) -> None:
        super().__init__("live-market", "")
        self.live: LiveMarketActor | None = live
        self.asked: list[str] = []

    async def ask(self, method: str, timeout_s: float, *arguments: object) -> Any:
        self.asked.append(method)
        if self.live is None:
            raise LiveMarketGone("the actor is dead or restarting")
        return await asyncio.to_thread(getattr(self.live, method), *arguments)


class Server:
    """The HTTP service on a thread; it can be ended and begun again on the same port."""

    def __init__(self, build: Callable[[], FastAPI]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._build = build
        self.begin()

    def begin(self) -> None:
        config = uvicorn.Config(
            self._build(), port=self.port, log_level="warning", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        await_that("the server listens", lambda: self._server.started)

    def end(self) -> None:
        self._server.should_exit = True
        self._thread.join(WAIT_S)


@contextmanager
def trading_in(folder: Path, *overrides: str) -> Iterator[LiveMarketActor]:
    """A live market with some bars behind it, slow enough to look at."""
    settings = settings_for(folder, "learning.lockstep=false", *overrides)
    secrets = settings.credentials.model_copy(update={"control_token": SecretStr(TOKEN)})
    settings = settings.model_copy(update={"credentials": secrets})
    with serving(FirstMinutes(380), speed=60.0) as (endpoint, begin):
        write_first_champion(settings)
        live = LiveMarketActor(settings, endpoint, assembly.chosen_plugins(settings))
        await_that("trading", lambda: live.progress().connected)
        begin()
        await_that("a fill", lambda: live.progress().fills and live.progress().market_time_ns)
        yield live
        live.stop()


class Watched:
    """A page, and what went wrong on it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.received: list[tuple[str, int]] = []
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.text} {message.location}")
