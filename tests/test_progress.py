"""What people read while something takes its time."""

import io

import pytest

from trading.progress import Pace, counted


def test_a_pace_tells_rate_and_time_left() -> None:
    clock = iter([100.0, 100.0, 110.0, 110.0])
    pace = Pace(3_000, 1_000, lambda: next(clock))
    assert pace.told(1_000) == ""
    assert pace.told(2_000) == "100/s, 10 s left"
    assert pace.told(3_000) == "200/s, 0 s left"


def test_long_waits_are_told_in_minutes() -> None:
    clock = iter([0.0, 10.0])
    assert Pace(10_000, 0, lambda: next(clock)).told(100) == "10/s, 16 min left"


def test_without_a_terminal_short_work_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = io.StringIO()
    monkeypatch.setattr("sys.stderr", heard)
    with counted("reading", "events", 3) as progress:
        for done in range(3):
            progress(done)
    assert heard.getvalue() == ""


def test_without_a_terminal_long_work_is_told_in_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = io.StringIO()
    monkeypatch.setattr("sys.stderr", heard)
    monkeypatch.setattr("trading.progress._QUIET_S", 0.0)
    with counted("reading", "events", 3) as progress:
        progress(2)
    assert heard.getvalue().startswith("reading: 2 of 3 events, ")
    assert heard.getvalue().endswith(" left\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_with_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Terminal()
    monkeypatch.setattr("sys.stderr", heard)
    monkeypatch.setenv("COLUMNS", "100")
    with counted("reading", "events", 3) as progress:
        progress(1)
        progress(3)
    assert "reading" in heard.getvalue() and "3/3" in heard.getvalue()
