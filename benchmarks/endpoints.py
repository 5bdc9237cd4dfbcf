"""How fast the HTTP service answers while the application trades and learns: by `hey`.

    apt-get install hey
    python benchmarks/endpoints.py

Starts `trading up` on a simulated market with everything on, asks each of the four endpoints at 50
requests a second, then /status by 20 connections as fast as they can, and tells whether decisions
went on meanwhile. Two cores: taskset -c 0,1 python benchmarks/endpoints.py
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
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
    before, began = decisions(url), time.monotonic()
    print(f"{'':22} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8}  answers")
    for path in PATHS:
        # hey's rate is that of each worker.
        said = hey("-z", f"{seconds}s", "-c", "5", "-q", str(RATE // 5), url + path)
        print(row(f"{path} at {RATE}/s", said), flush=True)
    for path in ("/status", "/health"):
        said = hey("-z", f"{seconds}s", "-c", str(CONNECTIONS), url + path)
        print(row(f"{path} flat out, {CONNECTIONS}", said), flush=True)
    took = time.monotonic() - began
    print(f"decisions meanwhile: {decisions(url) - before} in {took:.0f} s")


def hey(*arguments: str) -> str:
    """What the tool says."""
    return subprocess.run(["hey", *arguments], capture_output=True, text=True, check=True).stdout


def row(name: str, said: str) -> str:
    """One line of the table."""
    rate = float(found(r"Requests/sec:\s+([\d.]+)", said))
    p50, p99 = (1000 * float(found(rf"{each}% in ([\d.]+) secs", said)) for each in (50, 99))
    answers = ", ".join(
        f"{count} x {code}" for code, count in re.findall(r"\[(\d{3})\]\s+(\d+) responses", said)
    )
    return f"{name:22} {rate:10.0f} {p50:8.1f} {p99:8.1f}  {answers or 'none'}"


def found(pattern: str, text: str) -> str:
    """The group of the pattern; not a number where there is none."""
    match = re.search(pattern, text)
    return match[1] if match else "nan"


def decisions(url: str) -> int:
    """Of the account, so far."""
    with urllib.request.urlopen(f"{url}/status", timeout=30) as response:
        return int(json.load(response)["account"]["decisions"])


if __name__ == "__main__":
    main()
