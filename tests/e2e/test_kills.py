"""SIGKILL of every part of a running application, again and again.

    KILLS=20 KILLS_REPORT=var/kills.md python -m pytest tests/e2e/test_kills.py

Once, parts are killed by test_healing.py, test_up.py and test_cluster.py.
KILLS is how often each part is killed, 1 when unset. After each time the application trades again
by itself, the account is what its journal says, no order was sent twice, and who asked meanwhile
was answered with a reason or refused at once. The report says how long it took.
"""

import contextlib
import os
import signal
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.e2e.application import ANSWER_S, Application, processes_of
from tests.e2e.healed import await_decisions, await_gone, check_account, pairs, same_account
from tests.e2e.ray_nodes import HEAD, Cluster, why_no_nodes
from tests.e2e.test_cluster import LIVE_MARKET, REDIS, Trading, answers_http, redis_server
from tests.sockets import descendants
from tests.waits import STOP_S, WAIT_S

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.faults,
    pytest.mark.timeout(24 * 3600),
]

KILLS = int(os.environ.get("KILLS", "1"))
REPORT = os.environ.get("KILLS_REPORT")
SETTINGS = {
    "learning.num_learners": 1,
    "learning.num_env_runners": 1,
    "learning.pretrain_steps": 4096,
    "learning.update_frequency": 12,
    "learning.save_frequency": 24,
    "learning.gate.sessions": 20,
    "env.sessions_per_episode": 1,
}
PARTS = {
    "live market": "LiveMarket",
    "learner": "_WrappedExecutable",
    "runner": "BatchedEnvRunner",
    "market server": "MarketServerHost",
    "replica": "ServeReplica",
    "proxy": "ProxyActor",
}
took: dict[str, list[float]] = defaultdict(list)
"""Seconds from each kill to trading again, with the part back, by part."""
silent: dict[str, list[float]] = defaultdict(list)
"""Longest that there was no answer at all meanwhile."""


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    yield
    rows = [
        f"| {part} | {len(seconds)} | {statistics.median(seconds):.1f} | {max(seconds):.1f} "
        f"| {max(silent[part], default=0.0):.1f} |"
        for part, seconds in took.items()
    ]
    head = [
        "| killed | times | trades again, p50 s | most s | no answer at all, most s |",
        "|---|---|---|---|---|",
    ]
    text = "\n".join([*head, *rows]) + "\n"
    print(text)
    if REPORT:
        Path(REPORT).write_text(text)


class Asker:
    """Asks the HTTP service four times a second, and keeps what it was answered."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._stop = threading.Event()
        self._answered_s = time.monotonic()
        self.silent_s = 0.0
        self.wrong: list[str] = []
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> "Asker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=ANSWER_S) as client:
            while not self._stop.wait(0.25):
                for path in ("/health", "/ready", "/status", "/metrics"):
                    self._one(client, path)

    def _one(self, client: httpx.Client, path: str) -> None:
        try:
            response = client.get(path)
        except httpx.TimeoutException:
            self.wrong.append(f"{path} gave no answer in {ANSWER_S:g} s")
        except httpx.TransportError:
            # Refused, or cut off with who answered; at once, so that one may ask again.
            self.silent_s = max(self.silent_s, time.monotonic() - self._answered_s)
        else:
            self._answered_s = time.monotonic()
            if response.status_code != 200 and not _reasoned(response):
                self.wrong.append(f"{path}: {response.status_code} {response.text[:200]}")


def _reasoned(response: httpx.Response) -> bool:
    """Whether an answer other than 200 says why."""
    if "json" not in response.headers.get("content-type", ""):
        # Serve's own, while no replica is there: a sentence of text.
        return response.status_code in (500, 503, 504, 404) and bool(response.text.strip())
    told = response.json()
    return response.status_code == 503 and bool(told.get("reason") or told.get("reasons"))


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    folder = tmp_path_factory.mktemp("kills")
    with closing(Application.up(folder, *pairs(SETTINGS))) as running:
        running.wait_ready()
        yield running


def kill(processes: set[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def await_part(application: Application, kind: str, killed: set[int], count: int) -> None:
    """So many of a kind, without those that were killed."""
    application.wait_until(
        f"another {kind}",
        lambda: len(processes_of(application, kind) - killed) >= count or None,
    )


def updates(application: Application) -> int:
    return int(application.status()["learner"].get("live_updates", 0))


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_part_comes_back(application: Application, part: str) -> None:
    for _ in range(KILLS):
        kill_part(application, part)
        check_account(application)


def kill_part(application: Application, part: str) -> None:
    """Kill a process of a part, and wait for another; of two HTTP replicas the other answers."""
    kind = PARTS[part]
    there = application.wait_until(part, lambda: processes_of(application, kind) or None)
    killed = {min(there)}
    learnt = updates(application)
    with Asker(application.port) as asker:
        began_s = time.monotonic()
        kill(killed)
        await_part(application, kind, killed, len(there))
        await_decisions(application)
        application.wait_ready()
        took[part].append(time.monotonic() - began_s)
        if part in ("learner", "runner"):
            application.wait_until(
                "learning again", lambda: updates(application) > learnt + 1 or None
            )
    silent[part].append(asker.silent_s)
    assert asker.wrong == []


def test_a_killed_driver_leaves_nothing_behind_and_a_new_one_goes_on(tmp_path: Path) -> None:
    running = Application.up(tmp_path, *pairs(SETTINGS))
    try:
        running.wait_ready()
        for _ in range(KILLS):
            before = await_decisions(running)
            started = descendants(running.process.pid)
            began_s = time.monotonic()
            running.process.kill()
            running.process.wait(STOP_S)
            # At once, as whoever watches over it does: Ray's agents, which trade nothing, take a
            # minute to find out.
            running = Application.up(tmp_path, *pairs(SETTINGS))
            running.wait_ready()
            after = await_decisions(running)
            took["driver"].append(time.monotonic() - began_s)
            await_gone(started)
            assert after["account"]["decisions"] > before["account"]["decisions"]
            check_account(running)
        assert running.terminate() == 0, running.output()
    finally:
        running.close()


@pytest.mark.skipif(why_no_nodes() is not None, reason=str(why_no_nodes()))
@pytest.mark.skipif(REDIS is None, reason="no redis-server, which keeps the head's state")
@pytest.mark.skipif(KILLS == 1, reason="once is played by test_cluster.py")
def test_a_killed_head_finds_its_cluster_again(tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis, closing(Cluster(tmp_path, redis)) as cluster:
        cluster.start_head()
        cluster.start_worker(
            "live-market", LIVE_MARKET, "--num-cpus=0", '--resources={"live_market": 1}'
        )
        trading = Trading(cluster, tmp_path)
        trading.start_learner_node()
        trading.start_cpu_node()
        trading.wait("ready", trading.ready)
        for _ in range(KILLS):
            before = trading.status()
            began_s = time.monotonic()
            cluster.kill("head")
            trading.wait_for_decisions(3)
            cluster.start_head()
            trading.wait("HTTP on the head", lambda: answers_http(cluster, HEAD))
            trading.wait("ready", trading.ready)
            took["head, with Redis"].append(time.monotonic() - began_s)
            trading.wait_for_updates(1)
            after = trading.status()
            assert after["restarts"] == before["restarts"], "trading went on meanwhile"
            same_account(trading.state_dir / "journal-paper.sqlite", after["account"])
