"""`trading` as users run it: a process of its own, asked over HTTP, ended by its process id."""

import contextlib
import os
import pickle
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.asking import client
from tests.ports import free_port
from tests.sockets import descendants
from tests.waits import START_S, STOP_S
from trading.config import Settings
from trading.learning.policy import Policy
from trading.live import assembly

ANSWER_S = 45.0
"""Beyond this an answer hangs: after 35 s Serve itself gives one, on a busy machine too."""
ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
T = TypeVar("T")
PLANTED = {
    "MASSIVE_API_KEY": "planted-key-of-the-vendor",
    "S3_ACCESS_KEY": "planted-access-key",
    "S3_SECRET_KEY": "planted-secret-key",
    "CONTROL_TOKEN": "planted-token-of-the-owner",
    "NOTIFY_URLS": "json://planted-user:planted-password@127.0.0.1:9/planted-path",
}
"""Secrets that no output may show."""


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without settings of the application, with a token for Ray."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {**kept, **token, "PYTHONUNBUFFERED": "1", **extra}


def wait_for(
    what: str,
    probe: Callable[[], T | None],
    timeout_s: float,
    alive: Callable[[], bool],
    poll_s: float = 0.25,
) -> T:
    """The first answer of `probe` that is not None; fails when time is up or the process ended."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        answer = probe()
        if answer is not None:
            return answer
        if not alive():
            raise AssertionError(f"the process ended before: {what}")
        time.sleep(poll_s)
    raise AssertionError(f"not within {timeout_s:g} s: {what}")


def write_model(folder: Path, seed: int = 11) -> Path:
    """A model with the weights of `seed`, in the format of an RLModule's checkpoint."""
    policy = Policy(assembly.model_config(Settings()), seed)
    folder.mkdir(parents=True)
    state = {f"clstm.{name}": array for name, array in policy.weights().items()}
    (folder / "module_state.pkl").write_bytes(pickle.dumps(state))
    return folder


class Application:
    """One `trading` process; its output is kept in `log`."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "output.log"
        self.port = free_port()
        self._url = f"http://127.0.0.1:{self.port}"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trading", *arguments],
                cwd=ROOT,
                env=env or environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @classmethod
    def up(cls, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> "Application":
        """`trading up` with its state in `folder` and a port of its own."""
        port = free_port()
        state = f"paths.state_dir={folder / 'state'}"
        application = cls(folder, "up", "--port", str(port), "--set", state, *arguments, env=env)
        application.port = port
        application._url = f"http://127.0.0.1:{port}"
        return application

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def get(self, path: str) -> httpx.Response | None:
        """The response, None when there is none."""
        try:
            return client.get(self._url + path, timeout=ANSWER_S)
        except httpx.HTTPError:
            return None

    def answer(self, path: str) -> httpx.Response:
        """The response, once there is one: who answers may just be started again."""
        return self.wait_until(f"an answer of {path}", lambda: self.get(path), STOP_S)

    def status(self) -> dict[str, Any]:
        """The answer of /status, once there is one: a busy actor may miss its deadline."""

        def answered() -> dict[str, Any] | None:
            response = self.get("/status")
            return response.json() if response is not None and response.is_success else None

        return self.wait_until("an answer of /status", answered, STOP_S)

    def wait_until(
        self,
        what: str,
        probe: Callable[[], T | None],
        timeout_s: float = START_S,
        poll_s: float = 0.25,
    ) -> T:
        try:
            return wait_for(what, probe, timeout_s, lambda: self.alive, poll_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output()[-6000:]}") from None

    def wait_ready(self) -> None:
        def ready() -> bool | None:
            response = self.get("/ready")
            return True if response is not None and response.status_code == 200 else None

        self.wait_until("ready", ready)

    def wait_exit(self, timeout_s: float = START_S) -> int:
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running:\n{self.output()[-6000:]}") from None

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait_exit(STOP_S)

    def close(self) -> None:
        """Make sure that the process is gone."""
        if self.alive:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(STOP_S)


def files_below(*folders: Path) -> Iterator[Path]:
    """Every file below these folders that is no link; what is removed meanwhile is left out."""
    for top in folders:
        for folder, _, names in os.walk(top):
            for file in (Path(folder, name) for name in names):
                if file.is_file() and not file.is_symlink():
                    yield file


def processes_of(application: Application, part: str) -> set[int]:
    """Ids of the processes of one kind of actor."""
    found = set()
    for process in descendants(application.process.pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{process}/cmdline").read_bytes().startswith(f"ray::{part}".encode()):
                found.add(process)
    return found
