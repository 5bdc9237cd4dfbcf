"""Structured logs: lines for people on a terminal, JSON elsewhere, and never a secret.

Every module logs through `get_logger(__name__)`, which is structlog on top of the standard library:
a program that sets nothing up sees warnings on standard error. Records of other libraries take the
same way out, so what they say is redacted too.

Examples
--------
>>> from trading.logs import configure_logging, get_logger
>>> configure_logging("WARNING")
>>> get_logger("trading.example").info("not shown", symbol="SPY")
"""

import json
import logging
import sys
from collections.abc import Iterable
from typing import TextIO

import structlog
from structlog.typing import Processor

_HIDDEN = "***"


def configure_logging(
    level: str, secrets: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Set up logging for this process; call it again to change the set-up.

    Parameters
    ----------
    level
        Least severe level that is shown of this package; of other libraries, warnings are.
    secrets
        Values that are replaced by `***` wherever they occur in a line.
    stream
        Where lines go; None: standard error, also one that replaces a terminal later, as the
        display does to keep its figures in place.
    """
    target = sys.stderr if stream is None else stream
    follows = stream is None and target.isatty()
    handler = _PresentStderr() if follows else logging.StreamHandler(target)
    handler.setFormatter(_RedactingFormatter(_renderer(target.isatty()), secrets))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("trading").setLevel(level)
    log_through_standard_library()


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module: `log.info("order filled", symbol=symbol)`."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger


def log_through_standard_library() -> None:
    """Let structlog hand its records to `logging`, whose levels and handlers then hold."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]


def _renderer(for_people: bool) -> Processor:
    if for_people:
        # A rich traceback would print local variables, secrets among them.
        return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    return structlog.processors.JSONRenderer()


class _PresentStderr(logging.Handler):
    """Writes to what `sys.stderr` is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


class _RedactingFormatter(structlog.stdlib.ProcessorFormatter):
    """Renders a record, then hides every secret in the finished line."""

    def __init__(self, renderer: Processor, secrets: Iterable[str]) -> None:
        super().__init__(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=_shared_processors(),
        )
        written = {form for secret in secrets if secret for form in _written_forms(secret)}
        self._written = sorted(written, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        for form in self._written:
            line = line.replace(form, _HIDDEN)
        return line


def _written_forms(secret: str) -> set[str]:
    """Return the ways in which a renderer may write `secret`: as it is, or escaped."""
    plain = {secret, repr(secret)[1:-1]}
    return plain | {json.dumps(form)[1:-1] for form in plain}


if not structlog.is_configured():
    log_through_standard_library()
