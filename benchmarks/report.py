"""Run the benchmarks, each in a process of its own, and write docs/benchmarks.md.

    make bench                        # all in short form: a quarter of an hour on two quiet cores
    make bench BENCH="learning feed"  # some anew; the others stay as they were last measured
    make bench LONG=1                 # the long form, about two hours
    python benchmarks/report.py --page-only      # the page again, from what was measured

What was measured is kept in var/benchmarks, a JSON file for each benchmark. The page says of each
section when it was measured, at which commit and how busy the machine was.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures import Figures
from machine import STAND_INS, commit, described
from start import SAYS as START_PARTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "var" / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"
TIMEOUT_S, LONG_TIMEOUT_S = 600, 3 * 3600
QUIET = 0.15
"""Share of the cores that other programs may take of a machine that counts as quiet."""


@dataclass(frozen=True)
class Chart:
    """A picture of a table: bars for each row, or a line through all of them."""

    columns: tuple[str, ...]
    label: str
    logarithmic: bool = False
    stacked: bool = False
    line: bool = False
    """Rows are named by numbers, over which the columns are drawn from zero on."""
    table: str = ""
    """Head of the table; by default the first one."""


@dataclass(frozen=True)
class Benchmark:
    """A file of this folder, and how it is run."""

    title: str
    what: str
    page: str
    """The page of `docs/` that explains the figures."""
    short: str = ""
    """Arguments of the short form."""
    long: str = ""
    chart: Chart | None = None
    second_chart: Chart | None = None


BENCHMARKS = {
    "learning": Benchmark(
        "Training",
        "Environment steps a second of sampling and learning together, with an LSTM, on a task "
        "that needs memory, beside three libraries; *this is*: how many times faster this project "
        "is.",
        short="--rounds 3 --seconds 5",
        page="learning-benchmark.md",
        chart=Chart(("this is", "per CPU-s"), "times the steps of the other"),
    ),
    "roofline": Benchmark(
        "Share of the machine's peak",
        "What one core does at most, float32 multiply-adds and bytes to and from memory, and which "
        "share of it each stage of training reaches.",
        short="--seconds 5",
        page="speed.md",
        chart=Chart(("share",), "share of a step's time", table="stage"),
    ),
    "environment": Benchmark(
        "Environment",
        "Steps a second of one core under random valid actions, beside FinRL and gym-anytrading.",
        short="--accounts 64 1024 --rounds 3 --seconds 0.2",
        page="environment-benchmark.md",
        chart=Chart(("steps/s",), "steps a second of one core", logarithmic=True),
    ),
    "pricing": Benchmark(
        "Pricing",
        "Contracts a second of one core, and the error, beside QuantLib and fast-vollib.",
        short="--contracts 50000 --americans 1000 --rounds 3",
        page="pricing.md",
    ),
    "decode": Benchmark(
        "Quotes into the chain",
        "Events a second of processor time from the vendor's frames into the chain, beside the "
        "parsing of the vendor's own client on the same frames.",
        "feed.md",
        short="--events 50000",
        chart=Chart(("events/CPU-s",), "events a second of processor time"),
    ),
    "feed": Benchmark(
        "Delay of the feed",
        "How much later a quote is read through `trading feed` than straight from the vendor.",
        short="--rates 10000 --readers 1,3 --seconds 5",
        page="feed.md",
        chart=Chart(
            tuple(
                f"{way}, {what} ms" for way in ("straight", "by feed") for what in ("p50", "p99")
            ),
            "milliseconds from writing to reading",
            logarithmic=True,
        ),
    ),
    "latency": Benchmark(
        "From quote to order",
        "Milliseconds from the quote that closes a bar to the bar's last order, while quotes pour "
        "in, alone and beside a learner that never rests; and the feed's memory while a vendor "
        "offers more quotes than anybody reads.",
        "feed.md",
        short="--seconds 20 --overload-seconds 20",
        long="--seconds 45 --rates 10000 50000 --overload-seconds 3600",
        chart=Chart(
            ("p50 ms", "p99 ms", "p99.9 ms"), "milliseconds from quote to order", logarithmic=True
        ),
        second_chart=Chart(
            ("MB",), "memory of the feed, MB", line=True, table="seconds of overload"
        ),
    ),
    "start": Benchmark(
        "Start",
        "Seconds of `trading up` until it trades, with a new state and with an old one, by its "
        "parts; memory and processor of each of its processes; and commands that need no Ray.",
        "start.md",
        short="--rounds 3",
        long="--rounds 9 --kernels",
        chart=Chart(tuple(START_PARTS), "seconds until it trades", stacked=True),
    ),
    "endpoints": Benchmark(
        "HTTP while it trades and learns",
        "Latency of the endpoints, and what being asked takes from trading and learning.",
        short="--seconds 5",
        page="reliability.md",
    ),
    "page": Benchmark(
        "The page in a browser",
        "First paint and bytes of the page at the end of a day, in Chromium, beside Ray's own "
        "dashboard of the same processes.",
        "page.md",
        short="--rounds 3",
        chart=Chart(("first paint ms", "drawn ms"), "milliseconds from opening the page"),
    ),
    "strategies": Benchmark(
        "Strategies and symbols in one application",
        "Time until ready, latency of decisions, cores and memory of the whole application.",
        short="--short",
        page="cluster.md",
    ),
    "scaling": Benchmark(
        "Runners, learners and live markets",
        "Processor time of each role as more processes share the work.",
        short="--counts 1 2 --symbols 3 30 --minutes 5 --iterations 3",
        page="cluster.md",
    ),
    "gpu_learner": Benchmark(
        "The learner's update by PyTorch",
        "Samples a second on the GPU where there is one, else on one core, and the share of its "
        "peak.",
        short="--hidden 80 256 --sequences 64 --rounds 3 --variants fp32 bf16",
        page="learner.md",
    ),
    "journal": Benchmark(
        "Journal",
        "What an account's journal takes in a year (in the short form, in a month), and what a "
        "start from it costs.",
        short="--sessions 21",
        page="decisions/one-journal-one-owner.md",
    ),
}
LEFT_OUT = {
    "learning_curves": "hours, and no speed: [learning curves](learning-curves.md)",
    "horizons": "hours, and no speed: [learning curves](learning-curves.md)",
    "fill_styles": "no speed: [what a style of fills changes](execution.md#what-a-style-changes)",
    "slow_edge": "hours, and no speed: [speed of learning](learning-benchmark.md)",
    "learner_settings": "a quarter of an hour, and no speed: [the learner](learner.md)",
    "worlds": "hours, and no speed: [results](results.md)",
    "known_problems": "no benchmark: problems that others learn",
    "recall": "no benchmark: the task of `learning.py`",
    "figures": "no benchmark: tables and data",
    "machine": "no benchmark: names of processor and versions",
    "report": "no benchmark: runs them and writes this page",
}
"""Files of this folder that are not run, with the reason."""

MEASURED = """# Benchmarks

Every figure of speed in one place, measured and written by `make bench`: each ratio is of one run
on one machine, against a peer that took turns with it. Figures of your own are a command away; a
peer that is not installed is named.
"""
NOTHING_MEASURED = """# Benchmarks

Nothing has been measured on this machine yet. `make bench` measures every figure of speed and
writes them all here: each ratio will be of one run on one machine, against a peer that takes turns
with it. What other pages say of speed was measured where they say it was.
"""
"""The head of the page, before there is any result."""
COMMANDS = """
```sh
make bench                        # all in short form: a quarter of an hour on two quiet cores
make bench BENCH="learning feed"  # these anew, the others as they were last measured
make bench LONG=1                 # the long form, about two hours
```
"""

Result = Mapping[str, Any]
"""What one benchmark left: the machine, how it was run, and `figures` or why it `failed`."""


def busy_cores(seconds: float = 2.0) -> float:
    """Return how many cores were busy for so long, all programs together, by /proc/stat."""
    ticks = os.sysconf("SC_CLK_TCK")
    before = _busy_ticks()
    time.sleep(seconds)
    return (_busy_ticks() - before) / ticks / seconds


def _busy_ticks() -> int:
    first = Path("/proc/stat").read_text().splitlines()[0]
    user, nice, system = map(int, first.split()[1:4])
    return user + nice + system


def run(name: str, *, long: bool) -> Result:
    """Run one benchmark and return what it left; whatever it started ends with it."""
    benchmark, file = BENCHMARKS[name], RESULTS / f"{name}.figures.json"
    arguments = shlex.split(benchmark.long if long else benchmark.short)
    file.unlink(missing_ok=True)
    told: dict[str, Any] = {
        "machine": described(),
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": commit(ROOT),
        "busy": busy_cores(),
        "command": shlex.join(["python", f"benchmarks/{name}.py", *arguments]),
    }
    began = time.monotonic()
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *arguments]
    process = subprocess.Popen(
        [*command, "--json", str(file)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=LONG_TIMEOUT_S if long else TIMEOUT_S)
    except subprocess.TimeoutExpired:
        errors = f"it had not ended after {time.monotonic() - began:.0f} s"
    finally:
        # Also where the benchmark itself has ended: what it started may go on without it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    told["seconds"] = time.monotonic() - began
    if process.returncode == 0 and file.exists():
        told |= json.loads(file.read_text())
        file.unlink()
    else:
        sys.stderr.write(errors)
        told["failed"] = (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
    return told


def page(results: Mapping[str, Result], images: Path | None = None) -> str:
    """Return the page that results of benchmarks make.

    Parameters
    ----------
    results
        By the benchmark's name; those that are not there are named as not measured.
    images
        Folder below which pictures are drawn; None: none are.
    """
    newest = max(results.values(), key=lambda each: each["date"], default=None)
    lines = [(NOTHING_MEASURED if newest is None else MEASURED) + COMMANDS]
    if newest is not None:
        lines += ["| | |", "|---|---|"]
        lines += [f"| {what} | {value} |" for what, value in newest["machine"].items()]
        lines += [""]
    for name, benchmark in BENCHMARKS.items():
        lines += [f"## {benchmark.title}", "", benchmark.what, ""]
        lines += section(name, benchmark, results.get(name), newest, images)
    lines += ["## Not part of it", "", "| file of `benchmarks/` | why |", "|---|---|"]
    lines += [f"| `{name}.py` | {why} |" for name, why in LEFT_OUT.items()]
    return "\n".join(lines) + "\n"


def section(
    name: str,
    benchmark: Benchmark,
    result: Result | None,
    newest: Result | None,
    images: Path | None,
) -> list[str]:
    """Return the lines of one benchmark behind its head."""
    more = f" More: [{benchmark.page}]({benchmark.page})."
    if result is None:
        return [f"Not measured yet: `make bench BENCH={name}`.{more}", ""]
    lines: list[str] = []
    if "failed" in result:
        lines += [f"**It failed**: `{result['failed']}`", ""]
    tables = [Figures(**each) for each in result.get("figures", ())]
    for table in tables:
        lines += markdown(table)
    charts = {"": benchmark.chart, "-2": benchmark.second_chart}
    for mark, chart in charts.items():
        drawn = [each for each in tables if chart and chart.table in ("", each.head)]
        if chart is None or not drawn or images is None:
            continue
        images.mkdir(parents=True, exist_ok=True)
        draw(drawn[0], chart, images / f"benchmark-{name}{mark}.png")
        lines += [f"![{benchmark.title}](images/benchmark-{name}{mark}.png)", ""]
    missing = result.get("left_out", {})
    for reason in dict.fromkeys(missing.values()):
        names = "; ".join(each for each, why in missing.items() if why == reason)
        lines += [f"**Left out**, as {reason}: {names}.", ""]
    cores = int(result["machine"]["cores"].split()[0])
    busy = result["busy"] > QUIET * cores
    lines += [
        f"`{result['command']}`, {result['date']}, commit {result['commit']}, "
        f"{result['seconds']:.0f} s; cores that were busy before it: {result['busy']:.1f}"
        + (": **the machine was not quiet**" if busy else "")
        + f".{more}",
        "",
    ]
    if newest is not None and result["machine"] != newest["machine"]:
        other = {k: v for k, v in result["machine"].items() if newest["machine"].get(k) != v}
        other |= {k: "not set" for k in STAND_INS if k in newest["machine"].keys() - other.keys()
                  and k not in result["machine"]}  # fmt: skip
        lines += ["Other than above: " + "; ".join(f"{k} {v}" for k, v in other.items()) + ".", ""]
    return lines


def markdown(figures: Figures) -> list[str]:
    """Return a table's lines, and what is said above and below it."""
    lines = [f"{figures.title}:", ""] if figures.title else []
    lines += [f"| {' | '.join([figures.head, *figures.columns])} |"]
    lines += ["|---" + "|--:" * len(figures.columns) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in figures.shown()]
    return [*lines, "", *([figures.note, ""] if figures.note else [])]


def draw(figures: Figures, chart: Chart, path: Path) -> None:
    """Draw some columns of a table."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    drawn = draw_line(figures, chart) if chart.line else draw_bars(figures, chart)
    drawn.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(drawn)


def draw_line(figures: Figures, chart: Chart) -> "Figure":
    """Draw columns over what the rows are named by."""
    import matplotlib.pyplot as plt

    drawn, axes = plt.subplots(figsize=(8.0, 2.4), layout="constrained")
    places = [float(str(row[0]).replace(",", "")) for row in figures.rows]
    highest = 0.0
    for head in chart.columns:
        values = [float(value or 0.0) for value in figures.column(head)]
        highest = max(highest, *values)
        axes.plot(places, values, label=head)
    axes.set_ylim(0.0, 1.2 * highest)
    axes.set_xlabel(figures.head)
    axes.set_ylabel(chart.label)
    axes.spines[["top", "right"]].set_visible(False)
    return drawn


def draw_bars(figures: Figures, chart: Chart) -> "Figure":
    """Draw bars of some columns, a group for each row that has numbers in them."""
    import matplotlib.pyplot as plt
    import numpy as np

    numbers = {head: figures.column(head) for head in chart.columns}
    kept = [
        k
        for k in range(len(figures.rows))
        if all(isinstance(column[k], (int, float)) for column in numbers.values())
        or (chart.stacked and any(isinstance(column[k], float) for column in numbers.values()))
    ]
    groups = 1 if chart.stacked else len(numbers)
    place, height = np.arange(len(kept)), 0.8 / groups
    size = (8.0, 1.2 + 0.2 * (len(numbers) // 4) + len(kept) * max(0.35, 0.22 * groups))
    drawn, axes = plt.subplots(figsize=size, layout="constrained")
    reached = np.zeros(len(kept))
    for index, (head, column) in enumerate(numbers.items()):
        values = np.array([column[k] or 0.0 for k in kept], dtype=float)
        shift = 0.0 if chart.stacked else (index - (groups - 1) / 2) * height
        how = figures.columns[head]
        bars = axes.barh(place + shift, values, height, left=reached, label=head)
        if chart.stacked:
            reached = reached + values
        else:
            axes.bar_label(bars, [how.format(value) for value in values], padding=3, fontsize=8)
    axes.set_yticks(place, [str(figures.rows[k][0]) for k in kept])
    axes.invert_yaxis()
    axes.set_xlabel(chart.label)
    if chart.logarithmic:
        axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    if len(numbers) > 1:
        drawn.legend(
            loc="outside upper right", ncols=min(len(numbers), 4), fontsize=8, frameon=False
        )
    return drawn


def kept() -> dict[str, Result]:
    """Return what was measured last, by benchmark."""
    files = {name: RESULTS / f"{name}.json" for name in BENCHMARKS}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benchmarks", nargs="*", metavar="benchmark", help="default: all")
    parser.add_argument("--long", action="store_true", help="the long form")
    parser.add_argument("--page-only", action="store_true", help="run nothing, write the page")
    options = parser.parse_args(words)
    if unknown := set(options.benchmarks) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in [] if options.page_only else options.benchmarks or BENCHMARKS:
        print(f"== {name}", flush=True)
        result = run(name, long=options.long)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        failed += [name] if "failed" in result else []
    PAGE.write_text(page(kept(), PAGE.parent / "images"))
    print(f"wrote {PAGE.relative_to(ROOT)}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
