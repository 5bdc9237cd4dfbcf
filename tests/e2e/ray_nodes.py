"""Ray's nodes as machines of their own: started by `ray start`, lost without a word.

Each node is a PID namespace (and an address of the loopback network): its processes see none of
another node, and die with it at one instant, as on a machine that loses its power. Without that a
driver on a worker would find the head's processes, and join the head's node instead of its own.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.application import ANSWER_S, ROOT, environment, wait_for
from tests.ports import free_port
from tests.waits import START_S, STOP_S, WAIT_S

BIN = Path(sys.executable).parent
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
_NAMESPACE = (
    *(*DIES_WITH_US, "unshare"),
    *(("--map-root-user",) if os.geteuid() else ()),
    *("--pid", "--fork", "--kill-child", "--mount-proc"),
)
_POLL_S = 0.3
_STARTS = 8
_OBJECT_STORE_BYTES = 120_000_000
HEAD = "127.0.0.5"
"""Not 127.0.0.1, in whose place Ray puts an address of the machine."""


def why_no_nodes() -> str | None:
    """Why nodes cannot be isolated from one another here; None where they can."""
    if missing := [tool for tool in ("setpriv", "unshare") if shutil.which(tool) is None]:
        return f"util-linux is not installed, to isolate nodes by {missing}"
    tried = subprocess.run([*_NAMESPACE, "true"], capture_output=True, text=True, check=False)
    return f"no PID namespaces: {tried.stderr.strip()}" if tried.returncode else None


class Node:
    """One node's processes; `log` keeps what `ray start` says."""

    def __init__(self, log: Path, env: Mapping[str, str], *options: str) -> None:
        self.log = log
        with log.open("ab") as output:
            self._begin = output.tell()
            self._process = subprocess.Popen(
                [*_NAMESPACE, BIN / "ray", "start", "--block", *options],
                cwd=ROOT,
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._namespace = wait_for("the node's first process", self._find, 10.0, lambda: self.alive)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def started(self) -> bool:
        """Whether `ray start` was content with what it started."""
        return b"Ray runtime started" in self.log.read_bytes()[self._begin :]

    def processes(self) -> list[int]:
        """Ids of all processes of this node."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.readlink(folder / "ns" / "pid") == self._namespace:
                    found.append(int(folder.name))
        return found

    def kill(self) -> None:
        """SIGKILL for every process of the node; returns when all are gone."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(STOP_S)
        wait_for("the end of the node", lambda: None if self.processes() else True, 30.0, _always)

    def _find(self) -> str | None:
        with suppress(OSError):
            link = os.readlink(f"/proc/{self._process.pid}/ns/pid_for_children")
            return link if link and link != os.readlink("/proc/self/ns/pid") else None
        return None


class Cluster:
    """A head and workers; the loss of the head is survived where there is a `redis` address.

    `name` is what KubeRay would tell its pods; `ip` is the head's address; `variables` are in the
    environment of every node.
    """

    def __init__(
        self,
        folder: Path,
        redis: str | None = None,
        name: str = "",
        ip: str = HEAD,
        **variables: str,
    ) -> None:
        self._folder = folder
        self._ip = ip
        # Ray's sockets lie below this folder, and their paths have a length limit.
        self.temp = Path(tempfile.mkdtemp(prefix="ray-"))
        self._env = environment(RAY_USAGE_STATS_ENABLED="0", **variables)
        self._env["PATH"] = f"{BIN}:{self._env['PATH']}"
        self._env["RAY_JOB_STOP_WAIT_TIME_S"] = "100"  # as infra/kuberay sets it
        if name:
            self._env["RAY_CLUSTER_NAME"] = name
        self._head_env = dict(self._env)
        if redis is not None:
            self._head_env["RAY_REDIS_ADDRESS"] = redis
            self._head_env["RAY_external_storage_namespace"] = secrets.token_hex(8)
        self._port, self._dashboard_port = free_port(), free_port()
        self._nodes: dict[str, Node] = {}
        self.dashboard = f"http://127.0.0.1:{self._dashboard_port}"
        self._client = httpx.Client(
            base_url=self.dashboard,
            headers={"Authorization": f"Bearer {self._env['RAY_AUTH_TOKEN']}"},
            timeout=ANSWER_S,
        )

    def start_head(self) -> None:
        """Start the head, or start it again where it was; it runs nothing that needs a CPU."""
        self._start(
            "head",
            self._head_env,
            "--head",
            f"--node-ip-address={self._ip}",
            f"--port={self._port}",
            f"--ray-client-server-port={free_port()}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self._dashboard_port}",
            "--num-cpus=0",
        )

    def start_worker(self, name: str, ip: str, *options: str) -> None:
        """Start a worker at a loopback address; returns when the head knows of it."""
        address = f"--address={self._ip}:{self._port}"
        self._start(name, self._env, address, f"--node-ip-address={ip}", *options)

    def processes(self) -> list[int]:
        """Ids of all processes of all nodes."""
        return [each for node in self._nodes.values() for each in node.processes()]

    def deploy(self, config: dict[str, Any]) -> None:
        """Give Serve its configuration, as KubeRay's operator does."""

        def taken() -> httpx.Response | None:
            try:
                response = self._client.put("/api/serve/applications/", json=config)
            except httpx.HTTPError:
                return None
            # The head's agent comes up some seconds after the dashboard.
            return response if response.status_code < 500 else None

        response = self.wait("the agent that takes Serve's configuration", taken)
        assert response.is_success, response.text

    def application(self, name: str) -> dict[str, Any]:
        """What Serve says of an application, empty while it says nothing."""
        try:
            answer = self._client.get("/api/serve/applications/").json()
        except (httpx.HTTPError, ValueError):
            return {}
        found: dict[str, Any] = answer.get("applications", {}).get(name, {})
        return found

    def kill(self, name: str) -> None:
        """Lose a node."""
        self._nodes.pop(name).kill()

    def close(self) -> None:
        """Lose all of it."""
        self._client.close()
        for name in list(self._nodes):
            self.kill(name)
        shutil.rmtree(self.temp, ignore_errors=True)

    def nodes(self) -> dict[str, str]:
        """IP addresses of the nodes that are alive, by their ids; none while the head is away."""
        rows = self.state("nodes")
        return {row["node_id"]: row["node_ip"] for row in rows if row["state"] == "ALIVE"}

    def actors(self) -> list[dict[str, Any]]:
        """What the state API says of the living actors, with their node's `ip`."""
        nodes = self.nodes()
        return [
            {**row, "ip": nodes[row["node_id"]]}
            for row in self.state("actors")
            if row["state"] == "ALIVE" and row["node_id"] in nodes
        ]

    def state(self, what: str) -> list[dict[str, Any]]:
        """Rows of the state API; none while the head is away."""
        try:
            response = self._client.get(f"/api/v0/{what}", params={"limit": 1000, "detail": True})
            answer = response.json()
        except (httpx.HTTPError, ValueError):
            return []
        rows: list[dict[str, Any]] = answer["data"]["result"]["result"] if answer["result"] else []
        return rows

    def dashboard_says(self, path: str) -> str:
        """What a page of the dashboard's API holds; empty where there is none."""
        try:
            return self._client.get(path).text
        except httpx.HTTPError:
            return ""

    def ray_job(
        self, verb: str, *arguments: str, token: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`ray job VERB`, by another token than the cluster's if one is given."""
        env = self._env if token is None else {**self._env, "RAY_AUTH_TOKEN": token}
        command = [BIN / "ray", "job", verb, "--address", self.dashboard, *arguments]
        return subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=WAIT_S, check=False
        )

    def submit(self, name: str, resources: str, *command: str) -> None:
        """`ray job submit`, without waiting for the job's end."""
        options = ["--no-wait", "--submission-id", name, "--entrypoint-resources", resources]

        def submitted() -> subprocess.CompletedProcess[str] | None:
            result = self.ray_job("submit", *options, "--", *command)
            # The head's agent comes up some seconds after the dashboard.
            return None if "No available agent" in result.stderr else result

        result = self.wait("the agent that takes jobs", submitted)
        assert result.returncode == 0, result.stdout + result.stderr

    def job(self, name: str) -> dict[str, Any]:
        """Status of a job, empty while the head is away."""
        try:
            response = self._client.get(f"/api/jobs/{name}")
            return dict(response.json()) if response.is_success else {}
        except (httpx.HTTPError, ValueError):
            return {}

    def job_log(self, name: str) -> str:
        """What a job has written so far."""
        try:
            return str(self._client.get(f"/api/jobs/{name}/logs").json()["logs"])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            return f"no log: {error}"

    def wait(
        self, what: str, probe: Any, timeout_s: float = START_S, ends: Collection[str] = ()
    ) -> Any:
        """The first answer of `probe` that is not None, while every node runs but `ends`."""
        try:
            return wait_for(
                what,
                probe,
                timeout_s,
                lambda: all(node.alive for name, node in self._nodes.items() if name not in ends),
                _POLL_S,
            )
        except AssertionError as error:
            logs = "\n".join(node.log.read_text()[-2000:] for node in self._nodes.values())
            raise AssertionError(f"{error}\n{logs}") from None

    def _start(self, name: str, env: Mapping[str, str], *options: str) -> None:
        """Start a node, and again if `ray start` gives up, as it does where it gets no core."""
        assert name not in self._nodes
        known = set(self.nodes())
        for _ in range(_STARTS):
            node = Node(
                self._folder / f"{name}.log",
                env,
                f"--temp-dir={self.temp / name}",
                f"--object-store-memory={_OBJECT_STORE_BYTES}",
                # Given ports, a raylet does not wait 15 s for its agents to say theirs, and die.
                f"--dashboard-agent-listen-port={free_port()}",
                f"--dashboard-agent-grpc-port={free_port()}",
                f"--runtime-env-agent-port={free_port()}",
                f"--metrics-export-port={free_port()}",
                "--min-worker-port=0",
                "--max-worker-port=0",
                *options,
            )
            self._nodes[name] = node
            if self.wait(f"the node {name}", partial(self._joined, node, known), ends=(name,)):
                return
            self.kill(name)
        raise AssertionError(f"{_STARTS} times not started: {name}\n{node.log.read_text()[-2000:]}")

    def _joined(self, node: Node, known: set[str]) -> bool | None:
        if not node.alive:
            return False
        return True if node.started and set(self.nodes()) - known else None


def _always() -> bool:
    return True
