"""What the terminal shows while trading: all of it on a small screen, nothing cut."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from trading.app.display import Display
from trading.live.actor import Progress

NOTE = "dashboard of Ray: http://127.0.0.1:8265/#/" + "x" * 60


def progress(**changes: object) -> Progress:
    fills = tuple(f"15:{i:02d} SPY bull_call_debit_far x{i}  profit +1.00 USD" for i in range(5))
    plain = Progress(
        phase="trading",
        connected=True,
        process=1,
        events=12_345_678,
        decisions=123_456,
        fills=1_234,
        fees=1_234.5,
        equity=101_000.0,
        open_positions=3,
        market_time_ns=1_767_625_200_000_000_000,
        recent_fills=fills,
        rollbacks=2,
        profit_today=1_000.0,
    )
    return plain._replace(**changes)


def report() -> SimpleNamespace:
    return SimpleNamespace(judgements=12, live_updates=345, entropy=1.234, kl=0.0123)


def screen(columns: int, lines: int, notes: int, shown: Progress) -> list[str]:
    """The panel as a terminal of that size shows it."""
    console = Console(
        file=io.StringIO(), width=columns, height=lines, force_terminal=True, color_system=None
    )
    display = Display(console)
    for number in range(notes):
        display.note(f"{number} {NOTE}")
    with display.running():
        display.progress(shown, report())
        assert display._live is not None
        panel = display._live.renderable
    with console.capture() as captured:
        console.print(panel)
    return captured.get().splitlines()


@pytest.mark.parametrize("notes", [0, 1, 9])
def test_the_panel_fits_80_by_24_with_every_figure(notes: int) -> None:
    lines = screen(80, 24, notes, progress())
    assert len(lines) <= 23
    assert max(map(len, lines)) <= 79
    told = "\n".join(lines)
    for figure in ("P&L today", "+1,000.00 (+1.00%)", "101,000.00", "judgements", "345", "0.0123"):
        assert figure in told
    assert "15:04" in told


def test_the_newest_notes_stay_whole_where_there_is_room() -> None:
    told = "".join(line.strip("│ ") for line in screen(80, 40, 9, progress()))
    assert f"8 {NOTE}" in told
    assert "8 dashboard" in "".join(screen(80, 24, 9, progress()))


def test_without_a_fill_and_notes_it_says_so() -> None:
    assert any("no fill yet" in line for line in screen(80, 24, 0, progress(recent_fills=())))


def test_a_log_gets_quiet_lines_without_a_frame() -> None:
    out = io.StringIO()
    display = Display(Console(file=out, width=200, force_terminal=False), line_interval_s=0.0)
    with display.running():
        display.progress(progress(), report())
    assert out.getvalue().count("\n") == 1
    assert "P&L today +1,000.00 (+1.00%)" in out.getvalue()
    assert "│" not in out.getvalue()
