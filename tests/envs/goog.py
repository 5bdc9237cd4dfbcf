"""The real session that tests may use, where it is at hand."""

from datetime import date
from functools import cache
from pathlib import Path

import pytest

from trading.data.flatfiles import quotes_path
from trading.data.recorded_session import RecordedSession
from trading.market.calendar import ExchangeCalendar

CALENDAR = ExchangeCalendar()
DAY = date(2015, 12, 24)
FOLDER = Path(__file__).parents[2].parent / "shared" / "data" / "flatfiles"


@cache
def recorded_goog() -> RecordedSession:
    """GOOG's whole chain on a half-day; skips the test where the files are absent."""
    if not quotes_path(FOLDER, DAY).is_file():
        pytest.skip(f"real session {DAY} of GOOG is absent: no file below {FOLDER}")
    return RecordedSession.from_flat_files(FOLDER, DAY, "GOOG", CALENDAR)
