from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.execution.scene import new_broker
from trading.execution.broker import PaperBroker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[PaperBroker]:
    """An account of 10,000 USD that pays no fees."""
    made = new_broker(tmp_path)
    yield made
    made.journal.close()
