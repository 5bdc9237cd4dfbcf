"""What a start takes, and of which parts: commands, and `trading up` until it trades.

    python benchmarks/start.py
    python benchmarks/start.py --kernels        # also from an empty folder of kernels: minutes more

Commands run several times, each in a process of its own; the median counts. `trading up` starts
with a new state, is told to stop, and starts again with the state that it left, on a simulated
market and with the default settings. Its parts are cut where it says what it does now; the last
one ends when `/ready` answers 200. Parts that it does not wait for begin beside others and are
counted where it comes to wait for them. Seconds are those of the clock, so the machine must be
quiet; those of the processor, of all processes together, say how much of it there was to do.

When it is ready the second time each of its processes is told with its memory, in which what
several share counts once in all (PSS), and with what it took of the processor until then.
"""

import argparse
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from figures import Figures, add_json, publish
from strategies import cpu_s, fields, processes, pss

COMMANDS: dict[str, tuple[str, ...]] = {
    "trading --help": ("--help",),
    "trading config": ("config",),
    "trading stop, nothing to stop": ("stop", "--set", "paths.state_dir={folder}"),
    "trading report --help": ("report", "--help"),
}
SAYS = {
    "imports, settings, lease": "",
    "Ray": "starting Ray",
    "market server": "starting the market server",
    "algorithm, first update": "building the algorithm",
    "pre-training": "pre-training",
    "champion": "policy:",
    "gate's sessions": "champion:",
    "live market": "starting the live market",
    "HTTP": "starting the HTTP service",
    "feeds, warm-up": "connecting the feeds",
}
"""Parts of a start, by what the line that begins them says behind its bullet."""
READY_S, STOP_S = 1200.0, 180.0
ROLES = {
    r"trading up": "driver",
    r"^\S*/raylet ": "raylet",
    r"-I -S -c": "stand-in for an agent",
    r"ray::(?!IDLE)([A-Za-z]+)": "",
    r"ray::IDLE": "worker without an actor",
    r"(gcs_server|raylet|log_monitor|runtime_env/agent|dashboard)": "",
    r"monitor\.py": "autoscaler",
}
"""What a process is, by its command: the group of the expression where there is no name."""


class NotReady(Exception):
    """The application ended, or did not trade in time."""


def parts_of(lines: list[tuple[float, str]], ready_s: float) -> dict[str, float | None]:
    """Seconds of each part.

    Parameters
    ----------
    lines
        What was said, with the seconds since the start at which it was.
    ready_s
        Seconds from the start until it traded.
    """
    begins: dict[str, float] = {}
    for at_s, line in lines:
        for part, says in SAYS.items():
            if says and line.lstrip("·• ").startswith(says):
                begins.setdefault(part, at_s)
    begins[next(iter(SAYS))] = 0.0
    found = [(part, begins[part]) for part in SAYS if part in begins]
    ends = [*(begin for _, begin in found[1:]), ready_s]
    spent = {part: end - begin for (part, begin), end in zip(found, ends, strict=True)}
    return {part: spent.get(part) for part in SAYS}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Started(NamedTuple):
    """A start, until the application trades."""

    parts: dict[str, float | None]
    all_s: float
    by_process: list[tuple[str, float, float]]
    """Role, memory in MB, and seconds of the processor, of each process that there is."""
    cpu_s: float
    """Of the processor, with processes that have ended."""


def role(command: str) -> str:
    """What a process is, by its command."""
    for said, name in ROLES.items():
        if found := re.search(said, command):
            return name or found.group(1)
    return command[:40]


def by_process(process: "subprocess.Popen[str]") -> list[tuple[str, float, float]]:
    """Role, memory in MB, and seconds of the processor, of the application's processes."""
    found = []
    for each in processes(process):
        with suppress(OSError):
            command = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            spent_s = sum(map(int, fields(each)[11:13])) / os.sysconf("SC_CLK_TCK")
            found.append((role(command), pss(each) / 2**20, spent_s))
    return found


def started(folder: Path, environment: dict[str, str]) -> Started:
    """Return what a start on the state in `folder` took; the application is ended again."""
    port = free_port()
    command = [sys.executable, "-m", "trading", "up", "--port", str(port)]
    command += ["--set", f"paths.state_dir={folder}"]
    lines: list[tuple[float, str]] = []
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
    )

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.monotonic() - began, line.rstrip()))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        while not _answers(f"http://127.0.0.1:{port}/ready"):
            if process.poll() is not None or time.monotonic() - began > READY_S:
                said = "\n".join(line for _, line in lines[-20:])
                raise NotReady(f"trading up did not trade; it said last:\n{said}")
            time.sleep(0.1)
        ready_s = time.monotonic() - began
        spent_s = cpu_s(process)
        return Started(parts_of(lines, ready_s), ready_s, by_process(process), spent_s)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        finally:
            process.kill()
            reader.join()


def _answers(url: str) -> bool:
    with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=5) as reply:
        return bool(reply.status == 200)
    return False


def commands(rounds: int) -> Figures:
    """Seconds that short commands take, and whether they import what is heavy."""
    figures = Figures("command", {"seconds": "{:.2f}", "spread": "{:.0%}", "imports": "{}"})
    with tempfile.TemporaryDirectory() as folder:
        for name, words in COMMANDS.items():
            arguments = [word.format(folder=folder) for word in words]
            taken = []
            for _ in range(rounds + 1):
                start = time.monotonic()
                _run("-m", "trading", *arguments)
                taken.append(time.monotonic() - start)
            loaded = _run("-X", "importtime", "-m", "trading", *arguments).stderr
            names = {line.rpartition("|")[2].strip() for line in loaded.splitlines()}
            heavy = [each for each in ("torch", "ray", "numba", "pandas") if each in names]
            timed = taken[1:]  # the first one reads from the disk
            middle = statistics.median(timed)
            spread = (max(timed) - min(timed)) / middle
            figures.add(name, middle, spread, ", ".join(heavy) or "none of the heavy ones")
    return figures


def _run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)


def starts(*, kernels: bool) -> list[Figures]:
    """Parts of `trading up`, with a new state and with the one that it left, and its processes."""
    figures = Figures("trading up, seconds", dict.fromkeys((*SAYS, "all", "CPU"), "{:.1f}"))
    with tempfile.TemporaryDirectory() as folder:
        if kernels:
            empty = {"NUMBA_CACHE_DIR": str(Path(folder) / "kernels")}
            start = started(Path(folder) / "compiled", empty)
            figures.add("new state, no kernels", *start.parts.values(), start.all_s, start.cpu_s)
        for name in ("new state", "old state"):
            start = started(Path(folder) / "state", {})
            figures.add(name, *start.parts.values(), start.all_s, start.cpu_s)
    parts = Figures("process", {"number": "{:.0f}", "MB": "{:,.0f}", "CPU-s": "{:.1f}"})
    for role_ in sorted({each for each, _, _ in start.by_process}):
        own = [(mb, spent_s) for each, mb, spent_s in start.by_process if each == role_]
        parts.add(role_, len(own), sum(mb for mb, _ in own), sum(spent for _, spent in own))
    parts.rows.sort(key=lambda row: -float(row[2] or 0.0))
    parts.add("all", *(sum(map(float, parts.column(head))) for head in parts.columns))
    return [figures, parts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of each command")
    parser.add_argument(
        "--parts", nargs="+", choices=("commands", "up"), default=["up", "commands"]
    )
    parser.add_argument("--kernels", action="store_true", help="also without compiled kernels")
    add_json(parser)
    options = parser.parse_args()
    figures = []
    if "up" in options.parts:
        figures += starts(kernels=options.kernels)
    if "commands" in options.parts:
        figures.append(commands(options.rounds))
    publish(options, figures, width=140)


if __name__ == "__main__":
    main()
