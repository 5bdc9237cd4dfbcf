"""A Ray that `ray start --head` began, which drivers and jobs join."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.asking import client
from tests.e2e.application import ROOT, wait_for
from tests.ports import free_port
from tests.waits import START_S, STOP_S

BIN = Path(sys.executable).parent


class Head(NamedTuple):
    """Where it is."""

    dashboard: str
    """URL of the dashboard, which takes jobs."""
    address: str
    """What a driver joins."""


@contextmanager
def ray_head(env: dict[str, str], log: Path) -> Iterator[Head]:
    """A head started from the repository's root."""
    dashboard, port = free_port(), free_port()
    # Ray's sockets lie below this folder, and their paths have a length limit.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, log.open("wb") as output:
        head = subprocess.Popen(
            [
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
                "--num-cpus=2",
                "--object-store-memory=200000000",
                f"--temp-dir={folder}",
            ],
            cwd=ROOT,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        address = f"http://127.0.0.1:{dashboard}"

        def answers() -> bool | None:
            try:
                return client.get(f"{address}/api/version").status_code in (200, 401) or None
            except httpx.HTTPError:
                return None

        try:
            wait_for("the dashboard", answers, START_S, lambda: head.poll() is None)
            yield Head(address, f"127.0.0.1:{port}")
        finally:
            head.terminate()
            try:
                head.wait(STOP_S)
            except subprocess.TimeoutExpired:
                head.kill()
                head.wait(STOP_S)
