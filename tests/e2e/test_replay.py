"""The recorded session, through the socket to its end."""

import re
from contextlib import closing
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.application import SHARED, Application, write_model
from trading.data.flatfiles import quotes_path
from trading.data.recording import RecordedSession, load_recording
from trading.execution.events import (
    ChallengerRejected,
    ChampionPromoted,
    PromotedBy,
    WeightsAdopted,
)
from trading.execution.journal import Journal
from trading.market.calendar import ExchangeCalendar

DAY = date(2015, 12, 24)
FOLDER = SHARED / "data" / "flatfiles"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(
        not quotes_path(FOLDER, DAY).exists(),
        reason=f"no recorded session at {FOLDER}: it is not part of this repository",
    ),
]


def replay(folder: Path, model: Path, *, record: bool) -> Application:
    return Application.up(
        folder,
        "--replay",
        str(FOLDER),
        "--date",
        str(DAY),
        "--symbols",
        "GOOG",
        "--set",
        f"paths.model_path={model}",
        "--set",
        "learning.update_frequency=32",
        "--set",
        "learning.gate.sessions=20",
        "--set",
        "env.sessions_per_episode=1",
        "--set",
        f"data.record={str(record).lower()}",
    )


def test_the_whole_session_is_traded_and_a_second_run_gives_the_same_journal(
    tmp_path: Path,
) -> None:
    model = write_model(tmp_path / "model")
    digests = []
    for name in ("first", "second"):
        folder = tmp_path / name
        with closing(replay(folder, model, record=name == "second")) as run:
            assert run.wait_exit() == 0, run.output()
        output = run.output()
        # 275,552 quotes and the 227 minute bars of GOOG, those outside the session included.
        assert re.search(r"market events\W+275,779", output), output
        assert re.search(r"learner updates\W+6\b", output), output
        for row in ("decisions", "fills", "fees", "final equity", "wall time"):
            assert row in output
        with Journal(folder / "state" / "journal-paper.sqlite", read_only=True) as journal:
            account = journal.fold()
            events = list(journal.events())
            digests.append(journal.digest())
        session = ExchangeCalendar().session_on(DAY)
        assert session is not None
        assert account.decisions == (session.close_ns - session.open_ns) // 60_000_000_000 - 1
        assert account.last_session == str(DAY)
        first, *judged = [e for e in events if isinstance(e, ChampionPromoted | ChallengerRejected)]
        assert isinstance(first, ChampionPromoted) and first.by is PromotedBy.START
        assert len(judged) == 6
        adopted = [each.version for each in events if isinstance(each, WeightsAdopted)]
        promoted = [each.version for each in judged if isinstance(each, ChampionPromoted)]
        assert adopted == [0, *promoted]
    assert digests[0] == digests[1]
    assert not (tmp_path / "first" / "state" / "recordings").exists()
    recorded = load_recording(tmp_path / "second" / "state" / "recordings", DAY, "GOOG")
    history = RecordedSession.from_flat_files(FOLDER, DAY, "GOOG", ExchangeCalendar())
    assert recorded.is_complete
    assert recorded.contracts == history.contracts
    for one, other in zip(recorded.quotes, history.quotes, strict=True):
        np.testing.assert_array_equal(one, other)
