"""What the commands share: options, settings, and how they end when something is wrong."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from trading.config import Settings, load_settings
from trading.errors import ConfigError, TradingError

DEFAULT_CONFIG = Path("configs/local.yaml")
_FAILED = 1
_MISUSED = 2

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help=f"YAML file of settings; {DEFAULT_CONFIG} where there is one."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one setting, as in seed=8."),
]


def settings_for(config: Path | None, overrides: Sequence[str]) -> Settings:
    """The settings, with logging set up by them; a mistake ends the command with exit code 2."""
    path = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    try:
        settings = load_settings(path, overrides, os.environ)
    except ConfigError as error:
        misuse(*error.lines)
    from trading.logs import configure_logging

    configure_logging(settings.log_level, settings.credentials.values())
    return settings


def misuse(*lines: str) -> NoReturn:
    """End with these lines and the exit code of a wrong call."""
    _exit(_MISUSED, *lines)


@contextmanager
def failures() -> Iterator[None]:
    """End with one line and exit code 1 where the block fails."""
    try:
        yield
    except (TradingError, OSError) as error:
        _exit(_FAILED, str(error))


def _exit(code: int, *lines: str) -> NoReturn:
    for line in lines:
        print(f"trading: {line}", file=sys.stderr)
    raise typer.Exit(code) from None
