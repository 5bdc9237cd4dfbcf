"""What ended the live market's process, for the driver: it cannot say so itself any more."""

import os
import time
from pathlib import Path

import msgspec

from trading.execution.journal.schema import beside

MOST_FAULTS = 3
MOST_STARTS = 10
WINDOW_S = 60.0


class ProcessNote(msgspec.Struct, frozen=True):
    """One start of the process, or the fault that ended it."""

    at_s: float
    """Of `time.monotonic`, which all processes of a machine share."""
    pid: int
    fault: str = ""
    """Empty for a start."""


class FaultNotes:
    """A file beside the journal in which each life of the live market notes its start and its end.

    Parameters
    ----------
    journal
        The account's.
    """

    def __init__(self, journal: Path) -> None:
        self._path = beside(journal, ".faults")

    def begin(self) -> None:
        """Forget what was noted in another run."""
        self._path.unlink(missing_ok=True)

    def note(self, fault: str = "") -> None:
        """Add a start, or a fault. Where the disk is full, nothing is noted."""
        line = msgspec.json.encode(ProcessNote(time.monotonic(), os.getpid(), fault)) + b"\n"
        try:
            with self._path.open("ab") as file:
                file.write(line)
        except OSError:
            return

    def why_no_restart(self) -> str | None:
        """Why starting it again is of no use; None while it may be."""
        since_s = time.monotonic() - WINDOW_S
        recent = [each for each in self._notes() if each.at_s >= since_s]
        faults = [each.fault for each in recent if each.fault]
        starts = sum(not each.fault for each in recent)
        if len(faults) >= MOST_FAULTS:
            return f"{len(faults)} times within a minute, at last by {faults[-1]}"
        if starts > MOST_STARTS:
            last = faults[-1] if faults else "no fault of its own: was it killed, or out of memory?"
            return f"{starts} times within a minute, by {last}"
        return None

    def _notes(self) -> list[ProcessNote]:
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            try:
                found.append(msgspec.json.decode(line, type=ProcessNote))
            except (msgspec.MsgspecError, UnicodeDecodeError):  # its writer was killed
                continue
        return found


def describe_fault(error: BaseException) -> str:
    """Return an error in one line: its type, and what it says."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
