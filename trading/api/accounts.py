"""An account's journal, for people who analyse."""

from pathlib import Path

from trading.config import Settings
from trading.reporting.tables import JournalTables


def open_journal(source: str | Path | Settings) -> JournalTables:
    """Read a journal into pandas tables.

    Parameters
    ----------
    source
        File of a journal, or the settings of the account whose journal it is.

    Returns
    -------
    An object with the tables `fills`, `legs`, `decisions`, `equity`, `trades` and `days`, and
    `account`, the account's fold. The journal is read and not changed, also while it trades.

    Raises
    ------
    JournalError
        It is not there, is damaged, or another version wrote it.

    Examples
    --------
    >>> import trading as td
    >>> journal = td.open_journal("var/journal-paper.sqlite")
    >>> int((journal.trades.strategy == "long_call").sum())
    14
    >>> bool(journal.fills.fees.sum() == journal.account.fees_paid)
    True
    """
    if isinstance(source, Settings):
        from trading.live.assembly import journal_path

        source = journal_path(source)
    return JournalTables(Path(source))
