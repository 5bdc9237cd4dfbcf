"""A Ray of a process's own: whom it lets in, and what a slow machine does to it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.sockets import is_loopback
from tests.waits import START_S

ROOT = Path(__file__).parents[2]
OPTIONS = (
    "num_cpus=1, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False, "
    "follow_logs=False"
)

START = f"""
import os
from pathlib import Path
from trading.app import local_ray
local_ray.prepare(local=True)
import ray
from tests.sockets import descendants, listeners
local_ray.start(print, {OPTIONS})
ray.get(ray.remote(lambda: None).remote())
for process in descendants(os.getpid()):
    print("runs", Path(f"/proc/{{process}}/cmdline").read_bytes().replace(bytes(1), b" ").decode())
for address, port in sorted(listeners(descendants(os.getpid()))):
    print("listens", address, port)
ray.shutdown()
try:
    ray.put(1)
except ray.exceptions.RaySystemError:
    print("told that Ray has ended")
print("a script may start one" if "RAY_ENABLE_AUTO_CONNECT" not in os.environ else "")
"""

WITH_DASHBOARD = """
import os, sys, urllib.error, urllib.request
from pathlib import Path
from rich.console import Console
from trading.app.display import Display
from trading.app.up import ray_runtime
from trading.config import load_settings
from tests.sockets import descendants

more = ["ray.dashboard=true", "serving.port=0", "ray.object_store_mb=100"]
display = Display(Console(width=200))
with ray_runtime(load_settings(None, more, {}), display, shows_logs=False, others_join=True):
    for process in descendants(os.getpid()):
        if b"log_monitor.py" in Path(f"/proc/{process}/cmdline").read_bytes():
            print("logs are followed")
    from ray._private.worker import get_dashboard_url
    address = "http://" + get_dashboard_url()
    print("page", urllib.request.urlopen(address).status)
    try:
        urllib.request.urlopen(address + "/api/cluster_status")
    except urllib.error.HTTPError as error:
        print("without a token", error.code)
"""

MISSES_AGENT = """
import os
os.environ.update(RAY_ADDRESS="a local Ray", RAY_enable_metrics_collection="0")
import ray
from ray._private.ray_logging import global_worker_stdstream_dispatcher as shown
from rich.console import Console
from trading.app.display import Display
from trading.app.up import ray_runtime
from trading.config import load_settings

def join(**_):
    shown.add_handler("test", lambda data: print(data["pid"], *data["lines"]))

ray.init = join
missed = "gcs_server.cc:1361: Failed to establish connection to the event+metrics exporter agent."
with ray_runtime(load_settings(None, [], {}), Display(Console(quiet=True))):
    shown.emit({"pid": "gcs_server", "lines": [missed]})
    shown.emit({"pid": "raylet", "lines": [missed, "another line"]})
from ray._private import auto_init_hook
print("another Ray may start:", auto_init_hook.enable_auto_connect)
"""

AGENTS_HELD = f"""
import os, signal, threading, time
from pathlib import Path
from trading.app import local_ray
local_ray.prepare(local=True)
import ray
from tests.sockets import descendants

done, held = threading.Event(), set()

def hold_the_agents():
    while not done.is_set():
        for process in descendants(os.getpid()) - held:
            try:
                words = Path(f"/proc/{{process}}/cmdline").read_bytes().split(bytes(1))
            except OSError:
                continue
            if any(word.endswith((b"dashboard/agent.py", b"agent/main.py")) for word in words[:4]):
                os.kill(process, signal.SIGSTOP)
                held.add(process)
        time.sleep(0.01)

threading.Thread(target=hold_the_agents, daemon=True).start()
began = time.monotonic()
local_ray.start(print, {OPTIONS.replace("dashboard=False", "dashboard=True")})
# Longer than a raylet would have waited for them.
time.sleep(max(20.0 - (time.monotonic() - began), 0.0))
done.set()
print("held", len(held))
for process in held:
    os.kill(process, signal.SIGCONT)
print("answer", ray.get(ray.remote(lambda: 42).remote()))
"""

KILLED_AT_FIRST = f"""
import os, signal, threading, time
from pathlib import Path
from trading.app import local_ray
local_ray.prepare(local=True)
import ray

def kill_the_first_raylet():
    while True:
        for child in local_ray.children():
            try:
                name = Path(f"/proc/{{child}}/comm").read_text().strip()
            except OSError:
                continue
            if name == "raylet":
                os.kill(child, signal.SIGKILL)
                return
        time.sleep(0.01)

threading.Thread(target=kill_the_first_raylet, daemon=True).start()
local_ray.start(print, {OPTIONS})
print("answer", ray.get(ray.remote(lambda: 42).remote()))
print("raylets", sum(
    Path(f"/proc/{{child}}/comm").read_text().strip() == "raylet" for child in local_ray.children()
))
"""


def run(code: str, home: Path) -> str:
    """What a process with this home prints."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    env = {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_local_ray_listens_on_the_loopback_only_and_keeps_its_token_to_itself(
    tmp_path: Path,
) -> None:
    lines = [line.split() for line in run(START, tmp_path).splitlines()]
    listening = [line[1:] for line in lines if line[:1] == ["listens"]]
    # Control store, raylet, the agent that makes environments, worker, and this driver.
    assert len(listening) >= 5
    assert [each for each in listening if not is_loopback(each[0])] == []
    token = tmp_path / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert len(token.read_text()) == 64
    running = " ".join(" ".join(line) for line in lines if line[:1] == ["runs"])
    assert "gcs_server" in running and "default_worker" in running
    assert "-I -S -c" in running, "what stands in for the agent"
    for nobody_asks in ("dashboard.py", "log_monitor.py", "/monitor.py"):
        assert nobody_asks not in running
    assert ["told", "that", "Ray", "has", "ended"] in lines
    assert ["a", "script", "may", "start", "one"] in lines


@pytest.mark.slow
def test_the_dashboard_is_told_where_it_is_and_wants_the_token(tmp_path: Path) -> None:
    lines = run(WITH_DASHBOARD, tmp_path).splitlines()
    (said,) = [line for line in lines if "Ray's dashboard: http://127.0.0.1:" in line]
    assert "ray get-auth-token" in said
    assert "page 200" in lines
    assert "without a token 401" in lines
    assert "logs are followed" in lines, "for the strategies that join"


class Disturbed(NamedTuple):
    """What two starts print, of which one waits while the other does."""

    agents_held: Future[str]
    killed_at_first: Future[str]


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disturbed]:
    with ThreadPoolExecutor(2) as both:
        codes = (AGENTS_HELD, KILLED_AT_FIRST)
        yield Disturbed(
            *(both.submit(run, code, tmp_path_factory.mktemp("home")) for code in codes)
        )


@pytest.mark.slow
@pytest.mark.long
def test_agents_that_are_slow_to_start_do_not_end_it(disturbed: Disturbed) -> None:
    output = disturbed.agents_held.result()
    assert "held 2" in output
    assert "once more" not in output
    assert "answer 42" in output


@pytest.mark.slow
@pytest.mark.long
def test_a_ray_that_does_not_come_up_is_started_again(disturbed: Disturbed) -> None:
    output = disturbed.killed_at_first.result()
    assert "starting Ray once more: " in output
    assert "answer 42" in output
    assert "raylets 1" in output, "what is left of the first try is gone"


def test_what_stands_in_for_an_agent_ends_where_its_raylet_is_gone_already() -> None:
    from trading.app import local_ray

    subprocess.run([sys.executable, *local_ray.STANDS_IN], timeout=START_S, check=True)


def test_who_joins_is_shown_nothing_of_the_agent_that_is_left_out(tmp_path: Path) -> None:
    said = run(MISSES_AGENT, tmp_path).splitlines()
    assert said == ["raylet another line", "another Ray may start: False"]


def test_the_token_of_others_is_closed_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trading.app import local_ray

    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("of an earlier Ray")
    token.chmod(0o644)
    local_ray.prepare(local=True)
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.read_text() == "of an earlier Ray"
