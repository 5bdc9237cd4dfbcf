"""A Ray that `ray start --head` began, which drivers and jobs join."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.asking import client
from tests.e2e.application import ROOT, wait_for
from tests.ports import free_port
from tests.waits import START_S, STOP_S

BIN = Path(sys.executable).parent
_STARTS = 5


class Head(NamedTuple):
    """Where it is."""

    dashboard: str
    """URL of the dashboard, which takes jobs."""
    address: str
    """What a driver joins."""


@contextmanager
def ray_head(env: dict[str, str], log: Path, cpus: int = 2) -> Iterator[Head]:
    """A head started from the repository's root, with so many CPUs to give away."""
    # Ray's sockets lie below this folder, and their paths have a length limit.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        for _ in range(_STARTS):
            dashboard, port = free_port(), free_port()
            with log.open("wb") as output:
                head = subprocess.Popen(
                    _command(folder, dashboard, port, cpus),
                    cwd=ROOT,
                    env=env,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            try:
                if wait_for("the head", partial(_is_there, head, log), START_S, _always):
                    address = f"http://127.0.0.1:{dashboard}"
                    wait_for("the dashboard", partial(_answers, address), START_S, _always)
                    yield Head(address, f"127.0.0.1:{port}")
                    return
            finally:
                head.terminate()
                try:
                    head.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    head.kill()
                    head.wait(STOP_S)
        raise AssertionError(f"{_STARTS} times not started: {log.read_text()[-2000:]}")


def _command(folder: str, dashboard: int, port: int, cpus: int) -> list[str | Path]:
    return [
        BIN / "ray",
        "start",
        "--head",
        "--block",
        "--node-ip-address=127.0.0.1",
        f"--port={port}",
        f"--ray-client-server-port={free_port()}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}",
        # Given ports, a raylet does not wait 15 s for its agents to say theirs, and die.
        f"--dashboard-agent-listen-port={free_port()}",
        f"--dashboard-agent-grpc-port={free_port()}",
        f"--runtime-env-agent-port={free_port()}",
        f"--metrics-export-port={free_port()}",
        f"--num-cpus={cpus}",
        "--object-store-memory=200000000",
        f"--temp-dir={folder}",
    ]


def _is_there(head: subprocess.Popen[bytes], log: Path) -> bool | None:
    """Whether `ray start` has started it; it gives up after 30 s, as where it gets no core."""
    if head.poll() is not None:
        return False
    return True if "Ray runtime started" in log.read_text(errors="replace") else None


def _answers(address: str) -> bool | None:
    try:
        return client.get(f"{address}/api/version").status_code in (200, 401) or None
    except httpx.HTTPError:
        return None


def _always() -> bool:
    return True
