"""What strategies cost in one application, and where it stops: by their number, and by symbols.

    python benchmarks/strategies.py
    python benchmarks/strategies.py --short       # 1 and 3 strategies, three minutes at most

Starts `trading up` on a simulated market for each size, all of it on this machine: first so many
strategies with three symbols each, then one strategy with so many symbols. A row stands for what
was counted in `--seconds` from the moment that all are ready: decisions, the time from the last
data of a bar to its last order, events applied, bars that closed too late to trade in, cores of all
processes together, and their memory (shared pages once). What does not get ready in time, or ends,
is a row that says so, and its log stays.
"""

import argparse
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice, product
from pathlib import Path
from string import ascii_uppercase
from subprocess import STDOUT, Popen
from typing import NamedTuple

from figures import Cell, Figures, add_json, publish
from prometheus_client.parser import text_string_to_metric_families

FEW_SYMBOLS = 3
FAMILY = "trading_bot_action_latency_seconds"
COLUMNS = {
    **{"ready s": "{:.0f}", "decisions/s": "{:.1f}", "mean ms": "{:.1f}", "p99 ms": "{:.0f}"},
    **{"events/s": "{:,.0f}", "late bars": "{:.0f}", "cores": "{:.2f}", "MB": "{:,.0f}"},
}


SHORT = {"strategies": [1, 3], "symbols": [], "seconds": 10.0, "ready": 70.0}


class Totals(NamedTuple):
    """Counters of all strategies together, at one instant."""

    decisions: float
    latency_s: float
    decided: float
    below: dict[float, float]
    """Decisions by the latency that they took at most, in seconds."""
    events: float
    late_bars: float
    cpu_s: float


def main() -> None:
    """Measure each size and print a line for it as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strategies", type=int, nargs="*", default=[1, 3, 10])
    parser.add_argument("--symbols", type=int, nargs="*", default=[3, 30, 300])
    parser.add_argument("--seconds", type=float, default=120.0, help="of each measurement")
    parser.add_argument("--speed", type=float, default=30.0, help="exchange seconds a second")
    parser.add_argument("--learn", action="store_true", help="with learners")
    parser.add_argument("--ready", type=float, default=1200.0, help="seconds until it must trade")
    parser.add_argument("--port", type=int, default=18_090)
    parser.add_argument("--short", action="store_true", help="1 and 3 strategies, 3 minutes")
    add_json(parser)
    if parser.parse_known_args()[0].short:
        parser.set_defaults(**SHORT)
    options = parser.parse_args()
    title = f"{len(os.sched_getaffinity(0))} cores, speed {options.speed:g}"
    table = Figures("strategies x symbols", COLUMNS, title=title)
    sizes = [(number, FEW_SYMBOLS) for number in options.strategies]
    sizes += [(1, number) for number in options.symbols if (1, number) not in sizes]
    for strategies, symbols in sizes:
        cells = measured(strategies, symbols, options)
        table.add(f"{strategies} x {symbols}", *cells)
        print(*table.shown()[-1], sep=", ", file=sys.stderr, flush=True)
    publish(options, [table])


def measured(strategies: int, symbols: int, options: argparse.Namespace) -> list[Cell]:
    """The cells of one size."""
    folder = Path(tempfile.mkdtemp(prefix="strategies-"))
    file = folder / "settings.yaml"
    file.write_text(settings_text(strategies, symbols, options.speed, learn=options.learn))
    began = time.monotonic()
    with application(file, options.port) as process:
        if not wait_ready(options.port, process, options.ready):
            how = "ended" if process.poll() is not None else "not ready"
            return [f"{how}: {folder / 'output.log'}", *[None] * (len(COLUMNS) - 1)]
        ready_s = time.monotonic() - began
        before, began = totals(options.port, process), time.monotonic()
        time.sleep(options.seconds)
        after, took_s = totals(options.port, process), time.monotonic() - began
        memory_mb = memory(process) / 2**20
    decided = after.decided - before.decided
    mean_ms = 1000 * (after.latency_s - before.latency_s) / decided if decided else float("nan")
    p99_ms = min(
        (
            1000 * most_s
            for most_s, count in after.below.items()
            if count - before.below[most_s] >= 0.99 * decided
        ),
        default=float("nan"),
    )
    return [
        ready_s,
        (after.decisions - before.decisions) / took_s,
        mean_ms,
        p99_ms,
        (after.events - before.events) / took_s,
        after.late_bars - before.late_bars,
        (after.cpu_s - before.cpu_s) / took_s,
        memory_mb,
    ]


def settings_text(strategies: int, symbols: int, speed: float, *, learn: bool) -> str:
    """A settings file with so many strategies of so many symbols each."""
    letters = islice(product(ascii_uppercase, repeat=3), symbols)
    names = ", ".join("".join(each) for each in letters)
    section = "".join(f"  s{number}: {{seed: {number}}}\n" for number in range(strategies))
    return (
        f"symbols: [{names}]\n"
        f"data: {{source: simulation, simulation: {{speed: {speed}}}}}\n"
        f"learning: {{pretrain_steps: 0, online: {str(learn).lower()}}}\n"
        f"strategies:\n{section}"
    )


@contextmanager
def application(file: Path, port: int) -> Iterator["Popen[bytes]"]:
    """`trading up` with this file; ended in order."""
    folder = file.parent
    command = [sys.executable, "-m", "trading", "up", "--config", str(file), "--port", str(port)]
    command += ["--set", f"paths.state_dir={folder / 'state'}"]
    with (folder / "output.log").open("wb") as log:
        process = Popen(command, stdout=log, stderr=STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(300)


def wait_ready(port: int, process: "Popen[bytes]", timeout_s: float) -> bool:
    """Whether all of them trade before time is up."""
    deadline = time.monotonic() + timeout_s
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(urllib.error.URLError, OSError):
            asked(port, "ready")
            return True
        time.sleep(0.5)
    return False


def asked(port: int, path: str) -> str:
    """The answer of an endpoint; an error where that is none."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=30) as response:
        return str(response.read().decode())


def totals(port: int, process: "Popen[bytes]") -> Totals:
    """What is counted until now, over all strategies."""
    sums: dict[str, float] = {}
    below: dict[float, float] = {}
    for family in text_string_to_metric_families(asked(port, "metrics")):
        for sample in family.samples:
            if sample.name == f"{FAMILY}_bucket":
                most_s = float(sample.labels["le"])
                below[most_s] = below.get(most_s, 0.0) + sample.value
            else:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return Totals(
        sums["trading_bot_steps_total"],
        sums[f"{FAMILY}_sum"],
        sums[f"{FAMILY}_count"],
        below,
        sums["trading_bot_feed_events_total"],
        sums["trading_bot_late_bars_total"],
        cpu_s(process),
    )


def processes(process: "Popen[bytes]") -> list[Path]:
    """The application's below /proc, with those of its Ray."""
    children: dict[int, list[int]] = {}
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            children.setdefault(int(fields(each)[1]), []).append(int(each.name))
    found, last = [process.pid], [process.pid]
    while last:
        last = [child for parent in last for child in children.get(parent, [])]
        found += last
    return [Path("/proc") / str(each) for each in found]


def fields(process: Path) -> list[str]:
    """What `stat` tells behind the command's name, which may hold blanks."""
    return (process / "stat").read_text().rpartition(")")[2].split()


def cpu_s(process: "Popen[bytes]") -> float:
    """Seconds of the processor, of all processes and of their children that have ended."""
    ticks = 0
    for each in processes(process):
        with suppress(OSError):
            ticks += sum(int(field) for field in fields(each)[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(process: "Popen[bytes]") -> int:
    """Bytes of all processes, what they share counted once."""
    total = 0
    for each in processes(process):
        with suppress(OSError):
            total += pss(each)
    return total


def pss(process: Path) -> int:
    """Bytes of one process, of what it shares its part; an OSError where it has ended."""
    for line in (process / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])
    raise ProcessLookupError(f"{process} has no memory")


if __name__ == "__main__":
    main()
