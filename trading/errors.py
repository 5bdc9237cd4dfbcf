"""The one family of errors that this package raises.

A message names the thing, the bad value and the way out.
"""

from pathlib import Path


class TradingError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(TradingError):
    """The settings are wrong; `lines` holds one readable line for each mistake."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[list[str]]]:
        return type(self), (self.lines,)


class ContractError(TradingError):
    """A contract symbol is malformed."""


class CalendarError(TradingError):
    """A date or time lies outside what the exchange calendar knows."""


class DataError(TradingError):
    """Market data is missing or malformed."""


class FlatFileError(DataError):
    """A flat file is missing, damaged or has other columns than expected."""


class RestError(DataError):
    """A REST call failed."""


class AuthenticationFailed(DataError):
    """The vendor refused the API key."""


class NotEntitled(DataError):
    """The API key's plan does not include what was asked for."""


class StreamError(DataError):
    """The streaming connection cannot go on."""


class JournalError(TradingError):
    """The journal cannot be read or written."""


class JournalLocked(JournalError):
    """Another process writes this journal: one account has one owner."""


class JournalDiskError(JournalError):
    """The journal's disk takes nothing: it is full, read-only, or gone. What is written stays."""


class AccountLeased(JournalError):
    """Another application trades this account; `holder` says which."""

    def __init__(self, journal: Path, holder: str) -> None:
        super().__init__(
            f"the account of journal {journal} is traded by another application ({holder}): stop "
            "it with `trading stop`, or trade another account with account.id"
        )
        self.journal = journal
        self.holder = holder

    def __reduce__(self) -> tuple[type["AccountLeased"], tuple[Path, str]]:
        return type(self), (self.journal, self.holder)


class OrderError(TradingError):
    """An order is malformed."""


class OwnerRefused(TradingError):
    """A command of the owner cannot be obeyed; nothing was changed."""


class PluginError(TradingError):
    """Something that a user's own file registered is missing or wrong."""


class UnknownName(TradingError):
    """No action, feature or column is called so."""


class LearningError(TradingError):
    """A learning step failed or was given unusable data."""


class LearnerLostError(LearningError):
    """A learner has died; the algorithm learns again once it is rebuilt and restored."""


class CheckpointError(LearningError):
    """A checkpoint is missing, damaged or does not fit the model."""


class SettingRefused(LearningError, ValueError):
    """A setting of the algorithm is out of range, or would have no effect."""
