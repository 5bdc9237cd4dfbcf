"""The value types of the settings tree, each with the sentence that says what is allowed."""

import datetime as dt
import math
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

_SYMBOL = re.compile(r"[A-Z]{1,6}(\.[A-Z])?")
_ACCOUNT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
SHARED_LEARNER = "shared-learner"
"""Folder of checkpoints of the learner that strategies share, and the name of its actor."""
_STATE_FOLDERS = (
    *("catalog", "checkpoints", "history", "recordings", "replay"),
    SHARED_LEARNER,
)
"""What an account without a strategy has in its state folder, and strategies in common."""
_ROUTES = {
    "page": "/page/ of the HTTP service has the page's own files",
    "status": "/status/NAME of the HTTP service is the status of the strategy NAME",
    "ready": "/ready/NAME of the HTTP service is whether the strategy NAME can trade",
}
"""Names below which a strategy's own page, `/NAME/`, could not be found, and why."""


def _check_symbol(value: str) -> str:
    if not _SYMBOL.fullmatch(value):
        raise ValueError("must be 1 to 6 capital letters, with a class like .B if it has one")
    return value


def _split(value: object) -> object:
    """Accept a YAML list, or one text with commas as `SYMBOLS` and `--set` have it."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


def _check_distinct(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("must name at least one symbol")
    return _check_once(value, what="symbol")


def _check_once(value: tuple[str, ...], *, what: str = "one") -> tuple[str, ...]:
    repeated = sorted({each for each in value if value.count(each) > 1})
    if repeated:
        raise ValueError(f"must name each {what} once; repeated: {', '.join(repeated)}")
    return value


def _check_account_id(value: str) -> str:
    if not _ACCOUNT_ID.fullmatch(value):
        raise ValueError("must be 1 to 32 of A-Z, a-z, 0-9, - and _, first a letter or digit")
    return value


def _check_strategy_name(value: str) -> str:
    if value in _STATE_FOLDERS:
        folders = ", ".join(_STATE_FOLDERS)
        raise ValueError(f"must not be one of {folders}: these are folders of paths.state_dir")
    if value in _ROUTES:
        raise ValueError(f"must not be {value}: {_ROUTES[value]}")
    return _check_account_id(value)


def _check_acting(value: str | float) -> str | float:
    if value in ("sampled", "greedy") or (isinstance(value, float | int) and value > 0):
        return value
    raise ValueError("must be sampled, greedy, or a temperature above 0")


_SECONDS = {"minute": 60.0, "hour": 3600.0, "session": 390 * 60.0}
"""Of market time; a session is one of full length, a half-day is about half of one."""
_HORIZON = re.compile(r"(\d+(?:\.\d+)?)\s*(minute|hour|session)s?")


def horizon_seconds(horizon: str) -> float:
    """Market time that a text such as `5 sessions` stands for, in s.

    Raises
    ------
    ValueError
        It is no such text.
    """
    found = _HORIZON.fullmatch(horizon.strip())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not 0.0 < seconds < float("inf"):
        raise ValueError(
            "must be a number above 0 and its unit, minutes, hours or sessions of market time, "
            "as in 5 sessions"
        )
    return seconds


def horizon_of(discount: float, bar_seconds: float) -> str | None:
    """Return the horizon, in minutes, that a discount a bar stands for; None: there is none."""
    if not 0.0 < discount < 1.0:
        return None
    minutes = f"{-bar_seconds / math.log(discount) / 60.0:.4f}"
    return f"{minutes.rstrip('0').rstrip('.')} minutes"


def _check_horizon(value: str) -> str:
    horizon_seconds(value)
    return value


def _read_date(value: object) -> object:
    if isinstance(value, str):
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            raise ValueError("must be a date written YYYY-MM-DD") from None
    return value


def _read_path(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str) and value.strip() else value


def _check_exists(value: Path) -> Path:
    if not value.exists():
        raise ValueError("must be an existing file or folder")
    return value


def _check_scheme(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        if not value.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            allowed = " or ".join(f"{scheme}://" for scheme in schemes)
            raise ValueError(f"must be an address that starts with {allowed}")
        return value

    return AfterValidator(check)


Symbol = Annotated[str, AfterValidator(_check_symbol)]
Symbols = Annotated[
    tuple[Symbol, ...],
    BeforeValidator(_split),
    AfterValidator(_check_distinct),
]
AccountId = Annotated[str, AfterValidator(_check_account_id)]
StrategyName = Annotated[str, AfterValidator(_check_strategy_name)]
Date = Annotated[dt.date, BeforeValidator(_read_date)]
FilePath = Annotated[Path, BeforeValidator(_read_path)]
FilePaths = Annotated[tuple[FilePath, ...], BeforeValidator(_split)]
ExistingPath = Annotated[Path, BeforeValidator(_read_path), AfterValidator(_check_exists)]
WebSocketUrl = Annotated[str, _check_scheme("ws", "wss")]
HttpUrl = Annotated[str, _check_scheme("http", "https")]
Acting = Annotated[str | float, AfterValidator(_check_acting)]
Horizon = Annotated[str, AfterValidator(_check_horizon)]
Text = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Text, ...], BeforeValidator(_split), AfterValidator(_check_once)]
Port = Annotated[int, Field(ge=0, le=65535)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(gt=0, le=100)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
