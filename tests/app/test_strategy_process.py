"""A strategy's process, by programs that speak with the driver as it does."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from rich.console import Console

from trading.app.display import Display
from trading.app.driver import ApplicationFailed, Summary
from trading.app.strategy_process import StrategyStart, run_strategy
from trading.config import Settings

Process: TypeAlias = Callable[[str], None]
PRELUDE = """#!{python}
import os, signal, sys
from multiprocessing.connection import Connection
pipe = Connection(int(sys.argv[-1]))
start = pipe.recv()
"""
SUMMARY = """
from trading.app.driver import Summary
pipe.send(("summary", Summary(1, 2, 3, 4.0, 5.0, 0, 0, 0, 0, None, 6.0)))
"""


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Process:
    """Have this program run in place of the strategy's."""

    def stand_in(text: str) -> None:
        program = tmp_path / "process"
        program.write_text(PRELUDE.format(python=sys.executable) + text)
        program.chmod(0o755)
        monkeypatch.setattr("trading.app.strategy_process.sys.executable", str(program))
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    return stand_in


class Shown(Display):
    """Keeps what it is to show."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        self.said: list[str] = []

    def phase(self, text: str) -> None:
        self.said.append(text)

    note = phase


def run(stop: threading.Event | None = None, shown: Display | None = None) -> Summary:
    start = StrategyStart(Settings(), "127.0.0.1:1", None, Path("driver.log"))
    shown = shown or Shown()
    return run_strategy(start, shown, stop or threading.Event(), lambda: shown.note("it trades"))


def test_what_a_strategy_shows_and_sums_up_reaches_the_driver(process: Process) -> None:
    process('pipe.send(("phase", start.address)); pipe.send(("traded", None))' + SUMMARY)
    shown = Shown()
    assert run(shown=shown).decisions == 2
    assert shown.said == ["127.0.0.1:1", "it trades"]


def test_a_strategy_that_is_told_to_stop_ends_in_order(process: Process) -> None:
    process('pipe.send(("phase", "begins")); assert pipe.recv() == "stop"' + SUMMARY)
    stop = threading.Event()

    class Stops(Shown):
        def phase(self, text: str) -> None:
            stop.set()

    assert run(stop, Stops()).fills == 3


def test_a_strategy_that_fails_says_of_what_and_where_its_log_is(process: Process) -> None:
    process('pipe.send(("failed", "no disk")); sys.exit(1)')
    with pytest.raises(ApplicationFailed, match=r"no disk; its log is driver\.log"):
        run()


def test_a_strategy_whose_process_is_killed_is_a_failure(process: Process) -> None:
    process("os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ApplicationFailed, match="its process ended by signal 9"):
        run()
