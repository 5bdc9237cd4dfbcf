"""Closing prices of what lies on disk: whole sessions only, and never a price of another time."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from trading.data.catalog import SCHEMAS, Catalog, Kind
from trading.data.recorded_closes import RecordedCloses
from trading.data.recording import Recorder
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, ExchangeCalendar, Session
from trading.market.contracts import parse_symbol

CALENDAR = ExchangeCalendar()
FRI = date(2026, 1, 9)
CALL = "O:AAA260109C00100000"


def session(day: date = FRI) -> Session:
    found = CALENDAR.session_on(day)
    assert found is not None
    return found


def bar(minutes_before_close: int, price: float) -> StockBar:
    start_ns = session().close_ns - minutes_before_close * MINUTE_NS
    return StockBar("AAA", start_ns, price, price + 1, price - 1, price + 0.5, 100.0, price)


def record(folder: Path, *bars: StockBar, whole: bool = True) -> None:
    """A run of a recording; `whole`: until the session's close."""
    with Recorder(folder / "recordings") as recorder:
        recorder.begin_session(session())
        recorder.list_contracts("AAA", [parse_symbol(CALL)])
        for each in bars:
            recorder.bar(each)
        end_ns = session().close_ns if whole else session().close_ns - 30 * MINUTE_NS
        recorder.close_bar(end_ns)


def catalogue(folder: Path, *bars: StockBar) -> None:
    names = ("start_ns", "open", "high", "low", "close", "volume")
    rows = [
        {"symbol": "AAA", "transactions": 1} | {name: getattr(each, name) for name in names}
        for each in bars
    ]
    with Catalog(folder / "catalog").writing(Kind.STOCK_BARS, FRI, "test") as writer:
        writer.add("AAA", pa.RecordBatch.from_pylist(rows, SCHEMAS[Kind.STOCK_BARS]))


def found(folder: Path, symbol: str = "AAA", day: date = FRI) -> float | None:
    closes = RecordedCloses(folder / "recordings", folder / "catalog", CALENDAR)
    return closes.find(symbol, day)


@pytest.mark.parametrize("keep", [record, catalogue])
def test_the_last_bar_of_a_whole_session_or_the_auctions_tells_the_close(
    tmp_path: Path, keep: object
) -> None:
    assert found(tmp_path) is None
    keep(tmp_path / "a", bar(2, 90.0), bar(1, 91.0))  # type: ignore[operator]
    assert found(tmp_path / "a") == 91.5
    keep(tmp_path / "b", bar(1, 91.0), bar(0, 92.0), bar(-1, 99.0))  # type: ignore[operator]
    assert found(tmp_path / "b") == 92.0, "what trades after the close is no close"
    for other in ("BBB", CALL):
        assert found(tmp_path / "b", other) is None
    for day in (date(2026, 1, 8), date(2026, 1, 10)):
        assert found(tmp_path / "b", day=day) is None


def test_a_recording_that_ended_before_the_session_tells_no_close(tmp_path: Path) -> None:
    record(tmp_path, bar(40, 90.0), bar(31, 91.0), whole=False)
    assert found(tmp_path) is None
    catalogue(tmp_path, bar(40, 90.0), bar(1, 93.0))
    assert found(tmp_path) == 93.5, "the catalogue has the whole day"
    record(tmp_path, bar(5, 94.0))  # The process that took over recorded until the close.
    assert found(tmp_path) == 94.5


def test_a_stock_without_a_bar_in_the_last_hour_has_no_close(tmp_path: Path) -> None:
    record(tmp_path, bar(90, 90.0))
    assert found(tmp_path) is None


def test_a_damaged_recording_tells_no_close(tmp_path: Path) -> None:
    record(tmp_path, bar(1, 90.0))
    (events,) = (tmp_path / "recordings").rglob("events-000000.parquet")
    events.write_bytes(events.read_bytes()[:-20])
    assert found(tmp_path) is None
