"""Recorded and imported days of the market, and where they come from."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.data.catalog import Catalog as Catalog
    from trading.data.catalog import Kind as Kind
    from trading.data.catalog import Partition as Partition
    from trading.data.catalog import Rows as Rows
    from trading.data.dividend_file import read_dividends as read_dividends
    from trading.data.download import FlatFileStore as FlatFileStore
    from trading.data.download import download_flat_file as download_flat_file
    from trading.data.download import import_remote_file as import_remote_file
    from trading.data.flatfile_import import Selection as Selection
    from trading.data.flatfile_import import import_flat_file as import_flat_file
    from trading.data.recorded_session import RecordedBars as RecordedBars
    from trading.data.recorded_session import RecordedQuotes as RecordedQuotes
    from trading.data.recorded_session import RecordedSession as RecordedSession
    from trading.data.recording import Recorder as Recorder
    from trading.data.recording_files import load_recording as load_recording
    from trading.data.recording_files import recorded_runs as recorded_runs
    from trading.data.replayed_day import ReplayedDay as ReplayedDay
    from trading.data.replayed_day import load_day as load_day
    from trading.data.rest_import import import_chain_snapshot as import_chain_snapshot
    from trading.data.rest_import import import_quotes as import_quotes

_PLACES = {
    "Catalog": "catalog",
    "Kind": "catalog",
    "Partition": "catalog",
    "Rows": "catalog",
    "read_dividends": "dividend_file",
    "FlatFileStore": "download",
    "download_flat_file": "download",
    "import_remote_file": "download",
    "Selection": "flatfile_import",
    "import_flat_file": "flatfile_import",
    "RecordedBars": "recorded_session",
    "RecordedQuotes": "recorded_session",
    "RecordedSession": "recorded_session",
    "Recorder": "recording",
    "load_recording": "recording_files",
    "recorded_runs": "recording_files",
    "ReplayedDay": "replayed_day",
    "load_day": "replayed_day",
    "import_chain_snapshot": "rest_import",
    "import_quotes": "rest_import",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
