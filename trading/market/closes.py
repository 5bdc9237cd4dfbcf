"""What a session's closing price is, and who said so."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import TypeAlias


class CloseSource(StrEnum):
    """Where the price that something settled at comes from."""

    OFFICIAL = "official"
    """The exchange's official close, or the tape's own where a tape is the exchange."""
    MINUTE_BAR = "minute_bar"
    """The bar that the closing auction prints in, or else the last one of the session."""
    RECORDED = "recorded"
    """What was recorded here: the close of a recording or of the catalogue."""
    ACTION = "action"
    """The terms of a corporate action."""
    OWNER = "owner"


@dataclass(frozen=True, slots=True)
class OfficialClose:
    """A closing price in USD a share and where it comes from."""

    price: float
    source: CloseSource = CloseSource.OFFICIAL


Closes: TypeAlias = Mapping[tuple[str, date], OfficialClose]
"""Closing prices by symbol, of a stock or a contract, and New York date of the session."""
