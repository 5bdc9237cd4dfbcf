"""What every test stands on."""

import logging
from collections.abc import Iterator

import pytest
import structlog

import trading  # noqa: F401 - before numba is imported: it says where kernels are cached


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Undo what a test's command or application did to the process's logging."""
    root, package = logging.getLogger(), logging.getLogger("trading")
    handlers, levels = root.handlers[:], (root.level, package.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    package.setLevel(levels[1])
    structlog.reset_defaults()
