"""Says what the tests are doing and how far they are, where several processes share them."""

import threading
import time

import pytest

INTERVAL_S = 20.0
_LONGEST_SHOWN = 3


class Progress:
    """Writes a line every so often, and one for each failure at once.

    Parameters
    ----------
    config
        Of pytest, whose terminal it writes to.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._total = 0
        self._done = 0
        self._failed = 0
        self._running: dict[str, float] = {}
        self._began = time.monotonic()
        self._ended = threading.Event()

    def pytest_sessionstart(self) -> None:
        threading.Thread(target=self._tell_now_and_then, name="progress", daemon=True).start()

    def pytest_sessionfinish(self) -> None:
        self._ended.set()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._total = len(ids)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)
        self._done += 1

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed += 1
            self._write(f"FAILED {report.nodeid} ({report.when})")

    def line(self) -> str:
        """How far the tests are, and which of them run."""
        now = time.monotonic()
        longest = sorted(self._running.items(), key=lambda each: each[1])[:_LONGEST_SHOWN]
        running = ", ".join(f"{name} ({now - since:.0f} s)" for name, since in longest)
        return (
            f"{_minutes(now - self._began)}: {self._done} of {self._total or 'all'} tests, "
            f"{self._failed} failed; running: {running or 'none yet'}"
        )

    def _tell_now_and_then(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self._write(self.line())

    def _write(self, line: str) -> None:
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"\n{line}")  # dots may stand on this line


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
