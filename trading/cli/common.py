"""What the commands share: options, settings, and how they end when something is wrong."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from trading.errors import ConfigError, TradingError

if TYPE_CHECKING:
    from trading.config import Settings

DEFAULT_CONFIG = Path("configs/local.yaml")
DEBUG_FLAG = "--debug"
DEBUG_VARIABLE = "TRADING_DEBUG"
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
AddressOption = Annotated[
    str | None, typer.Option(help="Ray cluster to join; unset: RAY_ADDRESS, or a local one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer with JSON, for scripts.")]
StrategyOption = Annotated[
    str | None,
    typer.Option("--strategy", help="One of the settings' strategies, where they have any."),
]


def settings_for(
    config: Path | None,
    overrides: Sequence[str],
    strategy: str | None = None,
    *,
    several: bool = False,
) -> "Settings":
    """Return the settings, with logging set up by them.

    A mistake ends the command with exit code 2.

    Parameters
    ----------
    config
        YAML file; None: the default one, where it is.
    overrides
        `section.key=value` texts.
    strategy
        The one of the settings' strategies that it is about; None: as they say.
    several
        Whether settings that have strategies, none of them chosen, are no mistake.
    """
    from trading.config import load_settings

    path = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    chosen = [] if strategy is None else [f"strategy={strategy}"]
    try:
        settings = load_settings(path, [*overrides, *chosen], os.environ)
    except ConfigError as error:
        misuse(*error.lines)
    if settings.strategies and not several:
        names = ", ".join(settings.strategies)
        misuse(f"these settings have the strategies {names}: name one, as in --set strategy=NAME")
    from trading.logs import configure_logging

    configure_logging(settings.log_level, settings.credentials.values())
    return settings


def each_strategy(
    config: Path | None, overrides: Sequence[str], strategy: str | None = None
) -> "dict[str, Settings]":
    """Return the settings of each strategy by its name.

    Where there are none, or one is chosen, its own.

    Those of an account that is no strategy have an empty name.
    """
    settings = settings_for(config, overrides, strategy, several=True)
    if not settings.strategies:
        return {settings.strategy or "": settings}
    return {name: settings_for(config, overrides, name) for name in settings.strategies}


def misuse(*lines: str) -> NoReturn:
    """End with these lines and the exit code of a wrong call."""
    _exit(_MISUSED, *lines)


def check_output(option: str, file: Path | None, *suffixes: str) -> None:
    """End with exit code 2 where the file that an option names cannot be written, before the work.

    Its name must end in one of the suffixes, where any are given, and its folder be there.
    """
    if file is None:
        return
    if suffixes and file.suffix.lower() not in suffixes:
        allowed = " or ".join(suffixes)
        misuse(f"{option} {file}: the name must end in {allowed}, which says what is written")
    if file.is_dir():
        misuse(f"{option} {file}: is a folder; name a file in it")
    folder = file.parent
    if not folder.is_dir():
        misuse(f"{option} {file}: there is no folder {folder}; make it first")
    written = file if file.exists() else folder
    if not os.access(written, os.W_OK):
        misuse(f"{option} {file}: {written} cannot be written; name another place")


@contextmanager
def failures() -> Iterator[None]:
    """End with one line and exit code 1 where the block fails, and with where logs lie."""
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        _exit(_FAILED, failure_text(error), *getattr(error, "__notes__", ()))


def failure_text(error: Exception) -> str:
    """Return what went wrong, for people; a fault of the application says that it is one."""
    text = " ".join(str(error).split())
    if isinstance(error, TradingError | OSError):
        return text or type(error).__name__
    return (
        f"a fault of the application: {type(error).__name__}: {text[:500]}: {DEBUG_FLAG} shows "
        "where; please report it"
    )


def _exit(code: int, *lines: str) -> NoReturn:
    for line in lines:
        print(f"trading: {line}", file=sys.stderr)
    raise typer.Exit(code) from None
