"""`make bench` runs every benchmark or names it, and its page says what was measured."""

import importlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.image
import pytest

from tests.waits import WAIT_S

ROOT = Path(__file__).parents[1]
MACHINE = {"processor": "One of 2 GHz", "vector units": "AVX2", "cores": "2 of 2", "numpy": "2.0"}
LEARNING = {
    "head": "trainer",
    "columns": {"steps/s": "{:,.0f}", "this is": "{:.2f} x", "per CPU-s": "{:.2f} x"},
    "rows": [
        ["this project", 12345.6, 1.0, 1.0],
        ["RLlib", 4115.2, 3.0, 2.5],
        ["other", "n/a", None, None],
    ],
    "title": "",
    "note": "Two cores.",
}


@pytest.fixture(scope="module")
def report() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("report")


def measured(**changed: Any) -> dict[str, Any]:
    """What `learning.py` left."""
    return {
        "machine": MACHINE,
        "date": "2026-01-05 09:30 UTC",
        "commit": "abc1234",
        "busy": 0.1,
        "seconds": 61.4,
        "command": "python benchmarks/learning.py --rounds 3",
        "figures": [LEARNING],
        "left_out": {"PufferLib": "pufferlib is not installed"},
        **changed,
    }


def section(page: str, title: str) -> str:
    return page.split(f"## {title}\n")[1].split("\n## ", maxsplit=1)[0]


def test_every_file_is_run_or_named_with_the_reason(report: ModuleType) -> None:
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert set(report.BENCHMARKS) | set(report.LEFT_OUT) == files
    assert not set(report.BENCHMARKS) & set(report.LEFT_OUT)
    assert all(report.LEFT_OUT.values())


def test_the_page_tells_machine_table_peers_and_command(report: ModuleType) -> None:
    page = report.page({"learning": measured()})
    assert "| processor | One of 2 GHz |" in page and "| vector units | AVX2 |" in page
    training = section(page, "Training")
    assert "| trainer | steps/s | this is | per CPU-s |" in training
    assert "| RLlib | 4,115 | 3.00 x | 2.50 x |" in training
    assert "| other | n/a |  |  |" in training and "Two cores." in training
    assert "**Left out**, as pufferlib is not installed: PufferLib." in training
    assert "`python benchmarks/learning.py --rounds 3`" in training and "abc1234" in training
    assert "not quiet" not in page
    assert "Not measured yet: `make bench BENCH=pricing`" in section(page, "Pricing")
    for name, why in report.LEFT_OUT.items():
        assert f"| `{name}.py` | {why} |" in page


def test_the_page_that_is_there_has_a_section_for_each_benchmark(report: ModuleType) -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    heads = re.findall(r"^## (.+)$", text, re.MULTILINE)
    titles = [benchmark.title for benchmark in report.BENCHMARKS.values()]
    assert heads == [*titles, "Not part of it"], "run python benchmarks/report.py --page-only"


def test_pages_that_explain_a_benchmark_point_to_its_figures(report: ModuleType) -> None:
    """By the anchor of its section."""
    for name, benchmark in report.BENCHMARKS.items():
        anchor = re.sub(r"[^\w\- ]", "", benchmark.title.lower()).replace(" ", "-")
        text = (ROOT / "docs" / benchmark.page).read_text()
        assert f"benchmarks.md#{anchor})" in text, f"{benchmark.page} does not point to {name}"


def test_a_picture_is_drawn_of_the_rows_that_have_numbers(
    report: ModuleType, tmp_path: Path
) -> None:
    page = report.page({"learning": measured()}, tmp_path)
    assert "(images/benchmark-learning.png)" in page
    pixels = matplotlib.image.imread(tmp_path / "benchmark-learning.png")
    assert pixels.shape[1] == 800 and pixels.min() < 0.5


def test_a_benchmark_that_failed_is_named(report: ModuleType) -> None:
    failed = {k: v for k, v in measured().items() if k not in ("figures", "left_out")}
    page = report.page({"learning": {**failed, "failed": "MemoryError"}})
    assert "**It failed**: `MemoryError`" in section(page, "Training")


def test_a_busy_machine_and_another_one_are_told(report: ModuleType) -> None:
    other = {**MACHINE, "vector units": "AVX-512", "NUMBA_CPU_NAME": "haswell"}
    older = measured(machine=other, date="2025-12-01 09:30 UTC", busy=1.5)
    page = report.page({"learning": measured(), "pricing": older})
    told = "cores that were busy before it: 1.5: **the machine was not quiet**"
    assert told in section(page, "Pricing")
    told = "Other than above: vector units AVX-512; NUMBA_CPU_NAME haswell."
    assert told in section(page, "Pricing")
    assert "Other than above" not in section(page, "Training")


def test_each_benchmark_has_its_page_and_takes_its_arguments(report: ModuleType) -> None:
    for name, benchmark in report.BENCHMARKS.items():
        assert (ROOT / "docs" / benchmark.page).exists()
        text = (ROOT / "benchmarks" / f"{name}.py").read_text()
        for option in re.findall(r"--[a-z-]+", f"{benchmark.short} {benchmark.long}"):
            assert f'"{option}"' in text, f"{name}.py has no {option}"
        assert "add_json(parser)" in text


def test_a_benchmark_leaves_data_that_the_page_is_made_of(
    report: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`journal.py`, which needs no peer, as `make bench` runs it, and one that cannot run."""
    small = report.Benchmark("Journal", "What it takes.", "cluster.md", "--sessions 1 --bars 5")
    broken = report.Benchmark("Pricing", "Speed.", "pricing.md", "--no-such-option")
    monkeypatch.setattr(report, "BENCHMARKS", {"journal": small, "pricing": broken})
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    results = {name: report.run(name, long=False) for name in report.BENCHMARKS}
    assert json.loads(json.dumps(results)) == results
    page = report.page(results)
    assert re.search(r"\| events \| \d+ \|", section(page, "Journal"))
    assert "**It failed**" in section(page, "Pricing")
    assert "--no-such-option" in results["pricing"]["failed"]
    assert results["journal"]["machine"]["processor"]


CHILD = "import time; time.sleep(600)"
KILLED = f"""
import os, pathlib, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stderr=subprocess.DEVNULL)
pathlib.Path(os.environ["CHILD"]).write_text(str(child.pid))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_benchmark_started_ends_with_it(
    report: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "start.py").write_text(KILLED)
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "commit", lambda _: "abc1234")
    monkeypatch.setenv("CHILD", str(tmp_path / "child"))
    told = report.run("start", long=False)
    assert told["failed"] == "exit code -9"
    child = Path("/proc") / (tmp_path / "child").read_text()
    deadline = time.monotonic() + WAIT_S
    while child.exists() and ") Z " not in (child / "stat").read_text():
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.05)


def test_the_page_claims_no_figures_before_there_are_any(report: ModuleType) -> None:
    assert "Nothing has been measured on this machine yet" in report.page({})
    assert "in one place, measured and written" not in report.page({})
    measured_page = report.page({"learning": measured()})
    assert "Nothing has been measured" not in measured_page
    assert "in one place, measured and written" in measured_page
    head = (ROOT / "docs" / "benchmarks.md").read_text().split("\n## ")[0]
    assert ("Nothing has been measured" in head) == ("| processor |" not in head)


def test_a_start_is_cut_where_the_application_says_what_it_does(report: ModuleType) -> None:
    start = sys.modules["start"]
    lines = [
        (2.0, "· starting Ray"),
        (3.0, "something that a library says"),
        (9.0, "· starting the market server"),
        (10.0, "· building the algorithm"),
        (11.0, "• learner: on this machine's processor"),
        (14.0, "· pre-training 4,096 of 8,192 decisions"),
        (18.0, "· pre-training 8,192 of 8,192 decisions, 1,024/s, 0 s left"),
        (19.0, "• policy: pre-training on 8,192 simulated decisions"),
        (20.0, "• champion: 0 (version 1)"),
        (20.5, "· starting the live market"),
        (21.0, "· starting the HTTP service"),
        (25.0, "· connecting the feeds"),
    ]
    new = start.parts_of(lines, 31.5)
    assert list(new.values()) == [2.0, 7.0, 1.0, 4.0, 5.0, 1.0, 0.5, 0.5, 4.0, 6.5]
    old = start.parts_of([each for each in lines if "pre-training 4" not in each[1]][:5], 12.0)
    assert old["pre-training"] is None and old["algorithm, first update"] == 2.0
    said = "\n".join(path.read_text() for path in (ROOT / "trading").rglob("*.py"))
    assert all(f'"{says}' in said for says in start.SAYS.values())


def test_a_start_is_drawn_as_one_bar_of_its_parts(report: ModuleType, tmp_path: Path) -> None:
    start = sys.modules["start"]
    columns = dict.fromkeys((*start.SAYS, "all"), "{:.1f}")
    rows = [["new state", *[2.0] * 11], ["old state", *[2.0] * 4, None, *[2.0] * 6]]
    figures = {"head": "trading up", "columns": columns, "rows": rows}
    page = report.page({"start": measured(figures=[figures])}, tmp_path)
    assert "| old state | 2.0 | 2.0 | 2.0 | 2.0 |  | 2.0 |" in page
    assert matplotlib.image.imread(tmp_path / "benchmark-start.png").shape[1] == 800


def test_the_memory_of_an_overload_is_drawn_as_a_line(report: ModuleType, tmp_path: Path) -> None:
    delays = {"p50 ms": "{:.1f}", "p99 ms": "{:.1f}", "p99.9 ms": "{:.1f}"}
    memory = {"MB": "{:.1f}", "replaced so far": "{:,.0f}"}
    figures = [
        {"head": "quotes/s", "columns": delays, "rows": [["50,000, alone", 1.0, 2.0, 3.0]]},
        {
            "head": "seconds of overload",
            "columns": memory,
            "rows": [["0", 70.0, 1.0], ["1,800", 71.0, 2.0]],
        },
    ]
    page = report.page({"latency": measured(figures=figures)}, tmp_path)
    shown = section(page, "From quote to order")
    assert "| 1,800 | 71.0 | 2 |" in shown
    for name in ("benchmark-latency.png", "benchmark-latency-2.png"):
        assert f"(images/{name})" in shown
        assert matplotlib.image.imread(tmp_path / name).shape[1] == 800


def test_an_unknown_benchmark_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "report.py", "speed"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no benchmark speed; there are learning, " in done.stderr
