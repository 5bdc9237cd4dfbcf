"""The application on a cluster of real nodes, through the loss of each kind of them."""

import contextlib
import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from tests.asking import client
from tests.e2e.application import ANSWER_S, PLANTED, files_below
from tests.e2e.ray_nodes import DIES_WITH_US, HEAD, Cluster, why_no_nodes
from tests.ports import free_port
from tests.waits import STOP_S, WAIT_S
from trading.execution.journal import Journal
from trading.learning.checkpoints import CheckpointStore

NO_NODES = why_no_nodes()
REDIS = shutil.which("redis-server")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(NO_NODES is not None, reason=str(NO_NODES)),
]

JOB = "paper-trading-bot"
LIVE_MARKET, LEARNER, CPUS = "127.0.0.2", "127.0.0.3", "127.0.0.4"
T = TypeVar("T")


class Trading:
    """`trading up` as a job on a cluster of the groups of infra/kuberay."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.redis: str | None = None
        self.state_dir = folder / "state"
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        settings = {
            "paths.state_dir": self.state_dir,
            "serving.host": "127.0.0.1",
            "serving.port": port,
            "symbols": "SPY",
            "learning.num_env_runners": 1,
            "learning.pretrain_steps": 4096,
            "learning.update_frequency": 6,
            "learning.save_frequency": 24,
            "learning.gate.sessions": 20,
            "env.sessions_per_episode": 1,
            "learning.gate.updates": 4,
        }
        pairs = [each for key, value in settings.items() for each in ("--set", f"{key}={value}")]
        command = ("python", "-m", "trading", "up", "--config", "configs/cluster.yaml", *pairs)
        cluster.submit(JOB, json.dumps({"live_market": 0.001}), *command)

    def start_learner_node(self) -> None:
        self.cluster.start_worker("learner", LEARNER, "--num-cpus=0", '--resources={"learner": 1}')

    def start_cpu_node(self) -> None:
        self.cluster.start_worker("cpus", CPUS, "--num-cpus=1")

    def get(self, path: str) -> httpx.Response | None:
        try:
            return client.get(self._url + path, timeout=ANSWER_S)
        except httpx.HTTPError:
            return None

    def answer(self, path: str) -> httpx.Response:
        """The response, once there is one."""
        return self.wait(f"an answer of {path}", lambda: self.get(path))

    def ready(self) -> bool | None:
        response = self.get("/ready")
        return True if response is not None and response.status_code == 200 else None

    def status(self) -> dict[str, Any]:
        def answered() -> dict[str, Any] | None:
            response = self.get("/status")
            return response.json() if response is not None and response.is_success else None

        return self.wait("an answer of /status", answered)

    def decisions(self) -> int:
        """By the account's journal, which is there whether or not anyone answers."""
        with Journal(self.state_dir / "journal-paper.sqlite", read_only=True) as journal:
            return journal.fold().decisions

    def wait_for_decisions(self, more: int) -> None:
        before = self.decisions()
        self.wait(f"{more} decisions", lambda: self.decisions() >= before + more or None)

    def wait_for_updates(self, more: int) -> None:
        def updates() -> int:
            learnt: int = self.status()["learner"].get("live_updates", 0)
            return learnt

        before = updates()
        self.wait(f"{more} updates", lambda: updates() >= before + more or None)

    def wait(self, what: str, probe: Callable[[], T | None]) -> T:
        try:
            answer: T = self.cluster.wait(what, probe)
        except AssertionError as error:
            log = self.cluster.job_log(JOB)
            raise AssertionError(f"{error}\n{log[-6000:]}") from None
        return answer


@contextmanager
def redis_server(folder: Path) -> Iterator[str | None]:
    """Address of a Redis of this test's own; None where it is not installed."""
    if REDIS is None:
        yield None
        return
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    options += ["--rdbcompression", "no"]
    with (folder / "redis.log").open("wb") as output:
        server = subprocess.Popen(
            [*DIES_WITH_US, REDIS, *options], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait(STOP_S)


@pytest.fixture(scope="module")
def trading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trading]:
    folder = tmp_path_factory.mktemp("cluster")
    with redis_server(folder) as redis, closing(Cluster(folder, redis, **PLANTED)) as cluster:
        cluster.start_head()
        cluster.start_worker(
            "live-market", LIVE_MARKET, "--num-cpus=0", '--resources={"live_market": 1}'
        )
        running = Trading(cluster, folder)
        running.redis = redis
        running.start_learner_node()
        running.start_cpu_node()
        running.wait("ready", running.ready)
        yield running


WHERE_IT_BELONGS = {
    "LiveMarket": [LIVE_MARKET],
    "MarketServerHost": [LIVE_MARKET],
    ":api": [LIVE_MARKET, LIVE_MARKET],  # Serve names a replica after application and deployment
    "_WrappedExecutable": [LEARNER],  # what RLlib's learners are called
    "BatchedEnvRunner": [CPUS],
}


def placed(cluster: Cluster) -> dict[str, list[str]]:
    """Addresses of the nodes that hold each kind of actor."""
    actors = cluster.actors()
    return {
        kind: [actor["ip"] for actor in actors if actor["class_name"].endswith(kind)]
        for kind in WHERE_IT_BELONGS
    }


def live_actor(cluster: Cluster) -> tuple[str, int, str] | None:
    """Identity, process id in its node, and node of the live market."""
    for actor in cluster.actors():
        if actor["class_name"] == "LiveMarket":
            return actor["actor_id"], actor["pid"], actor["node_id"]
    return None


def answers_http(cluster: Cluster, ip: str) -> bool | None:
    """True once Serve has a proxy on the node at this address."""
    proxies = [each for each in cluster.actors() if each["class_name"].endswith("ProxyActor")]
    return ip in [proxy["ip"] for proxy in proxies] or None


def test_a_job_without_the_clusters_token_is_refused(trading: Trading) -> None:
    refused = trading.cluster.ray_job("submit", "--no-wait", "--", "true", token="0" * 64)
    assert refused.returncode != 0
    assert "token authentication" in refused.stderr
    assert [job["submission_id"] for job in trading.cluster.state("jobs")] == [JOB]


def test_every_part_runs_on_the_node_that_is_meant_for_it(trading: Trading) -> None:
    # One of two replicas is enough to be ready.
    in_place = "all parts in their places"
    trading.wait(in_place, lambda: placed(trading.cluster) == WHERE_IT_BELONGS or None)
    drivers = [job for job in trading.cluster.state("jobs") if job["submission_id"] == JOB]
    assert [job["driver_info"]["node_ip_address"] for job in drivers] == [LIVE_MARKET]
    assert trading.answer("/health").status_code == 200


def redis_state(address: str, folder: Path) -> bytes:
    """All that a Redis holds, as it writes it to its disk."""
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), WAIT_S) as connection:
        connection.sendall(b"SAVE\r\n")
        assert connection.recv(100) == b"+OK\r\n"
    return (folder / "dump.rdb").read_bytes()


def test_no_key_is_in_what_ray_keeps_tells_or_logs(trading: Trading) -> None:
    """Not in the head's state in Redis, the dashboard's API, the nodes' logs, or the journal."""
    cluster, folder = trading.cluster, trading.state_dir.parent
    told = {
        path: cluster.dashboard_says(path).encode()
        for path in (
            "/api/v0/actors?detail=true",
            "/api/v0/tasks?detail=true",
            "/api/v0/workers?detail=true",
            "/api/v0/jobs?detail=true",
            "/api/v0/nodes?detail=true",
            "/api/jobs/",
            "/api/serve/applications/",
            "/logical/actors",
            "/nodes?view=details",
        )
    }
    assert b"LiveMarket" in told["/api/v0/actors?detail=true"]
    if trading.redis is not None:
        told["Redis"] = redis_state(trading.redis, folder)
        assert b"LiveMarket" in told["Redis"]
    for path in ("/status", "/metrics", "/ready", "/openapi.json"):
        told[path] = trading.answer(path).content
    for file in files_below(folder, cluster.temp):
        with contextlib.suppress(FileNotFoundError):
            told[str(file)] = file.read_bytes()
    assert sum(name.endswith((".log", ".out", ".err")) for name in told) > 20
    assert any(name.endswith(".sqlite") for name in told)
    # Each of them has it, the password within an address too.
    assert [where for where, content in told.items() if b"planted-" in content] == []


def test_trading_goes_on_without_learner_and_runners_which_come_back(trading: Trading) -> None:
    cluster, before = trading.cluster, live_actor(trading.cluster)
    trading.wait_for_updates(1)
    restarts = trading.status()["learner"]["restarts"]
    cluster.kill("learner")
    cluster.kill("cpus")
    trading.wait_for_decisions(10)
    trading.start_learner_node()
    trading.start_cpu_node()
    trading.wait("all parts in their places", lambda: placed(cluster) == WHERE_IT_BELONGS or None)
    trading.wait_for_updates(2)
    assert trading.status()["learner"]["restarts"] > restarts
    assert live_actor(cluster) == before


@pytest.mark.skipif(REDIS is None, reason="no redis-server, which keeps the head's state")
def test_trading_goes_on_without_the_head_which_finds_its_cluster_again(trading: Trading) -> None:
    cluster, before = trading.cluster, live_actor(trading.cluster)
    status = trading.status()
    cluster.kill("head")
    assert cluster.nodes() == {}
    trading.wait_for_decisions(10)
    cluster.start_head()
    trading.wait("HTTP on the head", lambda: answers_http(cluster, HEAD))
    trading.wait("ready", trading.ready)
    # The head's dashboard comes after its HTTP.
    trading.wait("all parts in their places", lambda: placed(cluster) == WHERE_IT_BELONGS or None)
    trading.wait("the live market", lambda: live_actor(cluster) == before or None)
    running = "the job, which runs"
    trading.wait(running, lambda: cluster.job(JOB).get("status") == "RUNNING" or None)
    trading.wait_for_updates(2)
    after = trading.status()
    assert after["restarts"] == status["restarts"]
    assert after["learner"]["restarts"] == status["learner"]["restarts"]


def test_a_stopped_job_ends_in_order_and_leaves_its_checkpoint(trading: Trading) -> None:
    decisions = trading.decisions()
    # Without waiting: Ray calls a job stopped only once the time that it may take is over.
    stopped = trading.cluster.ray_job("stop", "--no-wait", JOB)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr

    def summed_up() -> str | None:
        log = trading.cluster.job_log(JOB)
        return log if "Summary" in log else None

    log = trading.wait("the summary of the job", summed_up)
    assert "joining Ray" in log
    assert trading.decisions() >= decisions > 0
    latest = CheckpointStore(trading.state_dir / "checkpoints", 5).latest()
    assert latest is not None and latest[0].name in log
