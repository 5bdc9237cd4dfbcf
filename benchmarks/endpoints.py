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

from figures import Cell, Figures, add_json, publish
from machine import processor

PATHS = ("/health", "/ready", "/status", "/metrics")
COLUMNS = {
    **{"req/s": "{:.0f}", "p50 ms": "{:.1f}", "p99 ms": "{:.1f}", "decisions/s": "{:.2f}"},
    **{"mean ms to decide": "{:.1f}", "p99 ms to decide": "{:.0f}", "updates/s": "{:.3f}"},
    "answers": "{}",
}
CONNECTIONS = 20
RATE = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=20, help="of each measurement")
    parser.add_argument("--port", type=int, default=18_080)
    parser.add_argument("--set", action="append", default=[], help="settings of the application")
    add_json(parser)
    options = parser.parse_args()
    if shutil.which("hey") is None:
        publish(options, [], {"every endpoint": "hey is not installed (apt-get install hey)"})
        return
    url = f"http://127.0.0.1:{options.port}"
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"paths.state_dir={folder}", "learning.pretrain_steps=4096", *options.set]
        command = [sys.executable, "-m", "trading", "up", "--port", str(options.port)]
        command += [word for each in settings for word in ("--set", each)]
        with (Path(folder) / "output.log").open("wb") as log:
            application = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_ready(url, application)
            publish(options, [measure(url, options.seconds)], width=140)
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


def measure(url: str, seconds: int) -> Figures:
    """Measure with nobody who asks, then each endpoint."""
    title = f"{processor()}, {len(os.sched_getaffinity(0))} cores"
    table = Figures("asked", COLUMNS, title=title)
    with work_beside(url) as work:
        time.sleep(2 * seconds)
    table.add("nothing", None, None, None, *work.done(), None)
    for path in PATHS:
        # hey's rate is that of each worker.
        with work_beside(url) as work:
            said = hey("-z", f"{seconds}s", "-c", "5", "-q", str(RATE // 5), url + path)
        table.add(f"{path} at {RATE}/s", *cells(said, work))
    for path in ("/status", "/health"):
        with work_beside(url) as work:
            said = hey("-z", f"{seconds}s", "-c", str(CONNECTIONS), url + path)
        table.add(f"{path} flat out, {CONNECTIONS}", *cells(said, work))
    return table


class Work:
    """What trading and learning did between two readings of the metrics.

    A decision's latency is from the last frame of its bar to the last order; its p99 is the upper
    end of the bucket that holds it.
    """

    def __init__(self) -> None:
        self.before: dict[str, float] = {}
        self.after: dict[str, float] = {}
        self.seconds = 1.0

    def done(self) -> list[Cell]:
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
        return [steps, mean_ms, p99_ms, updates]


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


def hey(*arguments: str) -> str:
    """What the tool says."""
    return subprocess.run(["hey", *arguments], capture_output=True, text=True, check=True).stdout


def cells(said: str, work: Work) -> list[Cell]:
    """Return what hey said, and what was done meanwhile."""
    rate = float(found(r"Requests/sec:\s+([\d.]+)", said))
    p50, p99 = (1000 * float(found(rf"{each}% in ([\d.]+) secs", said)) for each in (50, 99))
    answers = ", ".join(
        f"{count} x {code}" for code, count in re.findall(r"\[(\d{3})\]\s+(\d+) responses", said)
    )
    return [rate, p50, p99, *work.done(), answers or "none"]


def found(pattern: str, text: str) -> str:
    """The group of the pattern; not a number where there is none."""
    match = re.search(pattern, text)
    return match[1] if match else "nan"


if __name__ == "__main__":
    main()
