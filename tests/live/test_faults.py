"""Notes of why the live market's process ended, and when starting it again is of no use."""

import os
from pathlib import Path

import pytest

from trading.live import faults
from trading.live.faults import MOST_FAULTS, MOST_STARTS, FaultNotes, describe_fault


@pytest.fixture
def notes(tmp_path: Path) -> FaultNotes:
    made = FaultNotes(tmp_path / "journal-paper.sqlite")
    made.begin()
    return made


def test_faults_in_a_row_end_it_with_the_last_ones_reason(notes: FaultNotes) -> None:
    for life in range(MOST_FAULTS):
        assert notes.why_no_restart() is None
        notes.note()
        notes.note(describe_fault(ValueError(f"life {life}\nof many")))
    assert (
        notes.why_no_restart() == "3 times within a minute, at last by ValueError: life 2 of many"
    )


def test_faults_that_lie_apart_do_not(notes: FaultNotes, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = faults.time.monotonic()
    for life in range(10):
        monkeypatch.setattr(faults.time, "monotonic", lambda at=now_s + 31.0 * life: at)
        notes.note()
        notes.note("ValueError")
        assert notes.why_no_restart() is None


def test_a_process_that_is_killed_a_few_times_goes_on(notes: FaultNotes) -> None:
    for _ in range(MOST_STARTS):
        notes.note()
    assert notes.why_no_restart() is None
    notes.note()
    assert notes.why_no_restart() is not None


def test_notes_of_another_run_are_forgotten(notes: FaultNotes) -> None:
    for _ in range(MOST_FAULTS):
        notes.note("ValueError")
    notes.begin()
    assert notes.why_no_restart() is None


def test_a_note_that_was_cut_off_is_left_out(notes: FaultNotes, tmp_path: Path) -> None:
    for _ in range(MOST_FAULTS):
        notes.note("ValueError")
    file = tmp_path / "journal-paper.sqlite.faults"
    assert os.stat(file).st_mode & 0o002 == 0
    file.write_bytes(file.read_bytes()[:-5])
    assert notes.why_no_restart() is None
