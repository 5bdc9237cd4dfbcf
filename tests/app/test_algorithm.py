"""The algorithm, as who trades and who learns begin with it."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

from trading.app.algorithm import learnt_algorithm
from trading.app.display import Display
from trading.config import load_settings
from trading.errors import CheckpointError
from trading.learning.checkpoints import CheckpointStore

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


class Told(Display):
    """Keeps what was to be shown."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        self.lines: list[str] = []

    def phase(self, text: str) -> None:
        self.lines.append(text)

    def note(self, text: str) -> None:
        self.lines.append(text)


def test_nothing_is_built_or_restored_while_another_process_trains_into_the_folder(
    tmp_path: Path,
) -> None:
    settings = load_settings(None, [f"paths.state_dir={tmp_path}", "symbols=[SPY]"], {})
    told = Told()
    theirs = CheckpointStore(settings.paths.checkpoints, 3)
    refused = pytest.raises(CheckpointError, match="another process trains into")
    with theirs.owned(), ExitStack() as stack, refused:
        learnt_algorithm(settings, told, stack)
    assert told.lines == [], "it did not come to the building"
