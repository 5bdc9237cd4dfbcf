"""What the trials of a search came to, on disk as it becomes known."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from trading.files import sync


class TrialScore(msgspec.Struct, frozen=True, tag="judged"):
    """A trial's score, after a part of its learning."""

    trial: int
    """Counted from 1."""
    judgement: int
    decisions: int
    score: float
    """Mean return of a session, in percent of the initial capital."""
    returns: list[float]
    """Of every episode, in percent of the initial capital a session."""
    point: dict[str, Any]


class TrialEnd(msgspec.Struct, frozen=True, tag="ended"):
    """A trial ended, by its end, by the scheduler, or by a failure."""

    trial: int
    failure: str = ""


@dataclass
class Trial:
    """All that is known of one trial."""

    number: int
    judged: dict[int, TrialScore] = field(default_factory=dict)
    """By judgement."""
    has_ended: bool = False
    failure: str = ""

    @property
    def newest(self) -> TrialScore | None:
        """Its last score."""
        return self.judged[max(self.judged)] if self.judged else None


class TrialLog:
    """A file of lines, which a kill at any instant leaves readable."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: TrialScore | TrialEnd) -> None:
        """Add one entry; it is on disk when this returns."""
        with self.path.open("ab+") as file:
            whole = file.tell()
            if whole:
                file.seek(whole - 1)
                if file.read(1) != b"\n":
                    # The rest of a line that a kill cut off.
                    file.write(b"\n")
            file.write(msgspec.json.encode(entry) + b"\n")
        sync(self.path)

    def trials(self) -> dict[int, Trial]:
        """Every trial by its number; of a judgement that was made twice the later one counts."""
        found: dict[int, Trial] = {}
        for line in self.path.read_bytes().splitlines() if self.path.exists() else ():
            try:
                entry = msgspec.json.decode(line, type=TrialScore | TrialEnd)
            except msgspec.MsgspecError:
                continue
            trial = found.setdefault(entry.trial, Trial(entry.trial))
            if isinstance(entry, TrialScore):
                trial.judged[entry.judgement] = entry
                trial.has_ended, trial.failure = False, ""
            else:
                trial.has_ended, trial.failure = True, entry.failure
        return dict(sorted(found.items()))
