"""Fixtures of the environments' tests."""

from pathlib import Path

import pytest

from tests.envs.goog import CALENDAR, recorded_goog
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.history import write_history


@pytest.fixture(scope="session")
def goog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history of GOOG's real session, for the default rules."""
    folder = tmp_path_factory.mktemp("history") / "goog"
    write_history(folder, [recorded_goog()], DEFAULT_RULES, DEFAULT_FEES, CALENDAR)
    return folder
