"""How fast the HTTP service answers while the application trades and learns: by `hey`.

    apt-get install hey
    python benchmarks/endpoints.py

Starts `trading up` on a simulated market with everything on, asks each of the four endpoints at 50
requests a second, then /status and /health by 20 connections as fast as they can. Beside each row
stands what trading and learning did meanwhile, and above them what they do when nobody asks.
Two cores, nothing else running: taskset -c 0,1 python benchmarks/endpoints.py
"""

import argparse
import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

PATHS = ("/health", "/ready", "/status", "/metrics")
CONNECTIONS = 20
RATE = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=20, help="of each measurement")
    parser.add_argument("--port", type=int, default=18_080)
    parser.add_argument("--set", action="append", default=[], help="settings of the application")
    options = parser.parse_args()
    if shutil.which("hey") is None:
        sys.exit("hey is not installed: apt-get install hey")
    url = f"http://127.0.0.1:{options.port}"
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"paths.state_dir={folder}", "learning.pretrain_steps=4096", *options.set]
        command = [sys.executable, "-m", "trading", "up", "--port", str(options.port)]
        command += [word for each in settings for word in ("--set", each)]
        with (Path(folder) / "output.log").open("wb") as log:
            application = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_ready(url, application)
            measure(url, options.seconds)
        finally:
            application.terminate()
            application.wait(180)


def wait_ready(url: str, application: "subprocess.Popen[bytes]") -> None:
    """Until it trades."""
    while application.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    sys.exit("the application ended before it traded")


def measure(url: str, seconds: int) -> None:
    """Print a line for each measurement."""
    print(f"{processor()}, {len(os.sched_getaffinity(0))} cores")
    print(f"{'':22} {'asked':>25}  {'traded meanwhile':>37}")
    print(
        f"{'':22} {'req/s':>7} {'p50 ms':>8} {'p99 ms':>8}  {'decisions/s':>11} {'mean ms':>8} "
        f"{'p99 ms':>7} {'updates/s':>9}  answers"
    )
    with work_beside(url) as work:
        time.sleep(2 * seconds)
    print(f"{'nobody asks':22} {'':25}  {work}", flush=True)
    for path in PATHS:
        # hey's rate is that of each worker.
        with work_beside(url) as work:
            said = hey("-z", f"{seconds}s", "-c", "5", "-q", str(RATE // 5), url + path)
        print(row(f"{path} at {RATE}/s", said, work), flush=True)
    for path in ("/status", "/health"):
        with work_beside(url) as work:
            said = hey("-z", f"{seconds}s", "-c", str(CONNECTIONS), url + path)
        print(row(f"{path} flat out, {CONNECTIONS}", said, work), flush=True)


class Work:
    """What trading and learning did between two readings of the metrics.

    A decision's latency is from the last frame of its bar to the last order; its p99 is the upper
    end of the bucket that holds it.
    """

    def __init__(self) -> None:
        self.before: dict[str, float] = {}
        self.after: dict[str, float] = {}
        self.seconds = 1.0

    def __str__(self) -> str:
        def grown(name: str) -> float:
            return self.after[name] - self.before[name]

        family = "trading_bot_action_latency_seconds"
        count = grown(f"{family}_count")
        mean_ms = 1000 * grown(f"{family}_sum") / count if count else float("nan")
        bounds = [name for name in self.after if name.startswith(f"{family}_bucket")]
        below = {float(found(r'le="([^"]+)"', name)): grown(name) for name in bounds}
        p99_ms = min((1000 * le for le, n in below.items() if n >= 0.99 * count), default=0.0)
        steps = grown("trading_bot_steps_total") / self.seconds
        updates = grown("trading_bot_learner_updates_total") / self.seconds
        return f"{steps:11.2f} {mean_ms:8.1f} {p99_ms:7.0f} {updates:9.3f}"


@contextlib.contextmanager
def work_beside(url: str) -> Iterator[Work]:
    """What was done while the block ran."""
    work, began = Work(), time.monotonic()
    work.before = metrics(url)
    yield work
    work.seconds, work.after = time.monotonic() - began, metrics(url)


def metrics(url: str) -> dict[str, float]:
    """Samples of /metrics, by name with labels."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
        lines = response.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def processor() -> str:
    """Its name, as the system tells it."""
    with contextlib.suppress(OSError):
        return found(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return platform.processor()


def hey(*arguments: str) -> str:
    """What the tool says."""
    return subprocess.run(["hey", *arguments], capture_output=True, text=True, check=True).stdout


def row(name: str, said: str, work: Work) -> str:
    """One line of the table."""
    rate = float(found(r"Requests/sec:\s+([\d.]+)", said))
    p50, p99 = (1000 * float(found(rf"{each}% in ([\d.]+) secs", said)) for each in (50, 99))
    answers = ", ".join(
        f"{count} x {code}" for code, count in re.findall(r"\[(\d{3})\]\s+(\d+) responses", said)
    )
    return f"{name:22} {rate:7.0f} {p50:8.1f} {p99:8.1f}  {work}  {answers or 'none'}"


def found(pattern: str, text: str) -> str:
    """The group of the pattern; not a number where there is none."""
    match = re.search(pattern, text)
    return match[1] if match else "nan"


if __name__ == "__main__":
    main()
