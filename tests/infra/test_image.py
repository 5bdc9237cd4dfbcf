"""The image is built from nothing but Debian and run as the cluster runs it.

Takes about ten minutes, root, and Debian's packages `docker.io` and `debootstrap`; not part of the
default run. The daemon is the test's own: its folder, its socket, no bridge and no firewall rules.
"""

import contextlib
import functools
import http.server
import json
import os
import shutil
import socketserver
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.infra.manifests import ROOT
from tests.ports import free_port

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(2400)]

_DOCKER = "/usr/bin/docker"
_BASE = "debian-python:bookworm"
_IMAGE = "paper-trading-bot:test"
_PACKAGES = "python3-minimal,python3-venv,python3-pip,ca-certificates"
_MOST_BYTES = 2_300_000_000


class Docker(NamedTuple):
    """A daemon of our own."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        host = f"unix://{self.folder}/docker.sock"
        return {**os.environ, "DOCKER_HOST": host, "DOCKER_BUILDKIT": "1"}

    def __call__(self, *arguments: str, timeout_s: float = 120.0) -> str:
        done = subprocess.run(
            [_DOCKER, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"docker {arguments[0]}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    needed = ["/usr/sbin/dockerd", _DOCKER, "/usr/sbin/debootstrap"]
    missing = [tool for tool in needed if not Path(tool).exists()]
    if missing or os.getuid() != 0:
        pytest.skip(f"needs root and {', '.join(missing) or 'nothing else'}")
    with tempfile.TemporaryDirectory(prefix="docker-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        daemon = subprocess.Popen(
            [
                *(
                    "/usr/sbin/dockerd",
                    "--data-root",
                    folder / "data",
                    "--exec-root",
                    folder / "exec",
                ),
                *("--pidfile", folder / "pid", "--host", f"unix://{folder}/docker.sock"),
                *("--storage-driver", "overlay2", "--bridge", "none", "--iptables=false"),
            ],
            stdout=(folder / "log").open("w"),
            stderr=subprocess.STDOUT,
        )
        try:
            ours = Docker(folder)
            deadline = time.monotonic() + 60.0
            while not (folder / "docker.sock").exists():
                log = (folder / "log").read_text()
                assert daemon.poll() is None, log
                assert time.monotonic() < deadline, log
                threading.Event().wait(0.2)
            ours("version")
            yield ours
        finally:
            daemon.terminate()
            daemon.wait(60.0)
            # The namespace of the host's network stays mounted.
            mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
            for mount in mounts:
                if mount.startswith(f"{folder}/"):
                    subprocess.run(["umount", mount], check=True)


@contextlib.contextmanager
def _wheels() -> Iterator[str | None]:
    """The address of the folder of wheels that this machine's pip looks into, where it has one."""
    folder = Path(os.environ.get("PIP_FIND_LINKS", ""))
    if not list(folder.glob("torch-*.whl")):
        yield None
        return
    handler = functools.partial(_QuietHandler, directory=str(folder))
    with socketserver.ThreadingTCPServer(("127.0.0.1", free_port()), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """The build's log tells enough."""


@pytest.fixture(scope="module")
def image(docker: Docker) -> str:
    """The image, built on a Debian that was made here; its name."""
    root = docker.folder / "root"
    subprocess.run(
        ["/usr/sbin/debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", root],
        check=True,
        capture_output=True,
        timeout=900,
    )
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(
            [_DOCKER, "import", "-", _BASE],
            env=docker.environment,
            stdin=tar.stdout,
            check=True,
            capture_output=True,
            timeout=300,
        )
    shutil.rmtree(root)
    settings = docker.folder / "pip.conf"
    arguments = ["--network", "host", "--build-arg", f"BASE={_BASE}", "-t", _IMAGE]
    with _wheels() as wheels:
        lines = ["[global]", "timeout = 180"]
        if wheels is not None:  # torch for the CPU lies there
            lines += [f"find-links = {wheels}", "trusted-host = 127.0.0.1"]
            arguments += ["--build-arg", "TORCH_CPU_INDEX="]
        settings.write_text("\n".join(lines))
        arguments += ["--secret", f"id=pip,src={settings}"]
        if "SSL_CERT_FILE" in os.environ:
            arguments += ["--secret", f"id=ca,src={os.environ['SSL_CERT_FILE']}"]
        docker("build", *arguments, str(ROOT), timeout_s=3600.0)
    return _IMAGE


def test_the_image_is_small_runs_as_no_root_and_has_no_secret(docker: Docker, image: str) -> None:
    (about,) = json.loads(docker("image", "inspect", image))
    print(f"image: {about['Size'] / 1e6:.0f} MB")
    assert about["Size"] < _MOST_BYTES
    assert about["Config"]["User"] == "10001:10001"
    assert about["Config"]["Healthcheck"]["Test"][0] == "CMD"
    hidden = docker(
        *("run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c"),
        "cat /etc/pip.conf /run/ca.pem 2>/dev/null; env | grep -i pip; true",
    )
    assert hidden == ""


def _answer(port: int, path: str) -> tuple[int, str]:
    """Status and body; 0 while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10.0) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""
    except OSError:
        return 0, ""


def test_it_trades_on_a_read_only_root(docker: Docker, image: str) -> None:
    """As in infra/k8s: no capability, a read-only root, and scratch where the pod has volumes."""
    port = free_port()
    mine = "uid=10001,gid=10001,mode=0755"
    container = docker(
        *("run", "--detach", "--network", "host", "--read-only", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--shm-size", "1g"),
        *("--tmpfs", "/tmp:size=1g", "--tmpfs", f"/home/trading:size=512m,{mine}"),
        *("--tmpfs", f"/var/lib/trading:size=1g,{mine}"),
        *(image, "up", "--duration", "30", "--set", "paths.state_dir=/var/lib/trading"),
        *("--set", f"serving.port={port}", "--set", "learning.pretrain_steps=4096"),
    ).strip()
    deadline = time.monotonic() + 600.0
    seen: dict[str, str] = {}
    while len(seen) < 4:
        state = json.loads(docker("inspect", container))[0]["State"]
        said = docker("logs", container)
        assert state["Running"], f"ended with {state['ExitCode']}: {said}"
        assert time.monotonic() < deadline, f"answered {list(seen)} only: {said}"
        for path in ("/health", "/ready", "/status", "/metrics"):
            status, body = _answer(port, path)
            if status == 200:
                seen[path] = body
        threading.Event().wait(0.5)
    assert "trading_bot_portfolio_value" in seen["/metrics"]
    assert docker("wait", container, timeout_s=300.0).strip() == "0"
    assert "final equity" in docker("logs", container)
    docker("rm", container)


_KUBERAY = (
    # controllers/ray/utils/constant.go, BaseWgetHealthCommand: readiness of a RayService's workers
    "until wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz"
    " | grep success; do sleep 1; done",
    # ... BasePythonHealthCommand: what a job's submitter waits for
    'python -c "import urllib.request; r=urllib.request.urlopen('
    "'http://localhost:52365/api/local_raylet_healthz', timeout=10); "
    "exit(0 if b'success' in r.read() else 1)\"",
    # controllers/ray/raycluster_controller.go, buildRedisCleanupJob
    'python -c "from ray._private.gcs_utils import cleanup_redis_storage; '
    'from urllib.parse import urlparse; import os; import sys"',
    # controllers/ray/common/pod.go: wait-gcs-ready, autoscaler, ray start, the wait for TLS
    "ray health-check --help >/dev/null && (( SECONDS >= 0 ))",
    "ray kuberay-autoscaler --help >/dev/null",
    "ulimit -n ${RAY_START_ULIMIT_OPEN_FILES:-1024}; ray start --help >/dev/null",
    "ray job submit --help >/dev/null && ray job status --help >/dev/null",
    "hostname -i 2>/dev/null | awk '{print $1}' && openssl version && sleep 0",
    # our own, in the manifests
    "command -v timeout && command -v find && command -v trading",
)
"""What KubeRay 1.6 to 1.7 and its newest source run in an image."""


@pytest.mark.parametrize("options", ["-c", "-cl"], ids=["shell", "login shell"])
def test_kuberay_finds_in_it_what_it_runs(docker: Docker, image: str, options: str) -> None:
    """With a read-only root and 256 MiB, as its helpers have; a login shell where it is told so."""
    serve = (
        "mkdir -p /tmp/www/api && echo success >/tmp/www/api/local_raylet_healthz && "
        "(cd /tmp/www && exec python -m http.server 52365 >/dev/null 2>&1) & "
    )
    script = f"{serve}set -e; {'; '.join(_KUBERAY)}; echo all of it"
    said = docker(
        *("run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--memory", "256m", "--tmpfs", "/tmp"),
        *("--entrypoint", "/bin/bash", image, options, "--", script),
        timeout_s=600.0,
    )
    assert said.splitlines()[0] == "success"
    assert said.splitlines()[-1] == "all of it"


def test_it_brings_kernels_that_a_start_need_not_compile(docker: Docker, image: str) -> None:
    count = (
        "import trading, sys; from pathlib import Path; from trading import kernel_cache as k; "
        "print((k.SHIPPED / k.CPUS_FILE).read_text().split(), "
        "len(list(k.SHIPPED.rglob('*.nbc'))))"
    )
    said = docker("run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c", count)
    names, _, kernels = said.strip().rpartition(" ")
    assert names == "['x86-64-v4', 'x86-64-v3']"
    assert int(kernels) > 100


def test_the_folders_of_the_first_document_are_there(docker: Docker, image: str) -> None:
    said = docker(
        *("run", "--rm", "--network", "none", "--entrypoint", "readlink", image),
        *("/checkpoints", "/logs"),
    )
    assert said.split() == ["/var/lib/trading/checkpoints", "/tmp/ray"]
