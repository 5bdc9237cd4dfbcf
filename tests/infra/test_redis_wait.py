"""The head's init container, as its manifest has it, against a Redis that comes late."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.application import wait_for
from tests.infra.manifests import CLUSTERS, one
from tests.ports import free_port
from tests.waits import WAIT_S

REDIS = shutil.which("redis-server")
_PASSWORD = "b1f6"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(REDIS is None, reason="no redis-server"),
]


@contextmanager
def waiting(port: int, log: Path, password: str = _PASSWORD) -> Iterator[Callable[[], int | None]]:
    """The container's own command; whether and how it ended."""
    head = one(CLUSTERS[0], "RayCluster")["spec"]["headGroupSpec"]["template"]["spec"]
    (container,) = [each for each in head["initContainers"] if each["name"] == "wait-for-redis"]
    address = {"REDIS_ADDRESS": f"127.0.0.1:{port}", "REDIS_PASSWORD": password}
    assert {each["name"] for each in container["env"]} == address.keys()
    with log.open("wb") as output:
        process = subprocess.Popen(
            container["command"],
            env={"PATH": os.environ["PATH"], **address},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process.poll
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def redis(port: int, folder: Path) -> Iterator[None]:
    assert REDIS is not None
    options = ["--port", str(port), "--bind", "127.0.0.1", "--requirepass", _PASSWORD]
    with (folder / "redis.log").open("wb") as output:
        server = subprocess.Popen(
            [REDIS, *options, "--save", "", "--dir", str(folder)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            server.terminate()
            server.wait(WAIT_S)


def _tries(log: Path) -> int:
    return log.read_text().count("waiting for Redis")


def test_the_head_waits_until_redis_answers(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    with waiting(port, log) as ended:
        wait_for("two tries", lambda: _tries(log) >= 2 or None, WAIT_S, lambda: ended() is None)
        with redis(port, tmp_path):
            wait_for("its end", lambda: ended() is not None or None, WAIT_S, lambda: True)
            assert ended() == 0


def test_the_head_does_not_begin_with_a_redis_that_refuses_it(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    with redis(port, tmp_path):
        with waiting(port, tmp_path / "right") as ended:
            wait_for("its end", lambda: ended() == 0 or None, WAIT_S, lambda: True)
        with waiting(port, log, "another") as ended:
            wait_for("tries", lambda: _tries(log) >= 3 or None, WAIT_S, lambda: ended() is None)
