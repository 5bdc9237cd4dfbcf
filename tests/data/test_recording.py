"""Recordings of live days: what was told, in order, and what a dying process leaves of it."""

import gzip
import math
import os
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.waits import WAIT_S, until
from trading.data.catalog import Catalog, Kind
from trading.data.flatfile_import import flat_file_key, import_flat_file
from trading.data.flatfiles import minute_bars_path, quotes_path
from trading.data.recorded_session import RecordedBars, RecordedQuotes, bar_ends
from trading.data.recording import (
    RecordedSession,
    Recorder,
    Run,
    load_recording,
    recorded_runs,
)
from trading.errors import DataError, FlatFileError
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, ExchangeCalendar, Session
from trading.market.contracts import parse_symbol
from trading.market.option_quote import OptionQuote

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data" / "flatfiles"
GOOG_DAY = date(2015, 12, 24)
CALENDAR = ExchangeCalendar()
DAY, NEXT_DAY = date(2026, 1, 5), date(2026, 1, 6)
CALLS = [parse_symbol(f"O:SPY260116C00{strike}000") for strike in (680, 685, 690)]
PUT = parse_symbol("O:SPY260116P00680000")


def session_on(day: date) -> Session:
    session = CALENDAR.session_on(day)
    assert session is not None
    return session


MONDAY, TUESDAY = session_on(DAY), session_on(NEXT_DAY)


def bar(minute: int, close: float, session: Session = MONDAY, symbol: str = "SPY") -> StockBar:
    start_ns = session.open_ns + minute * MINUTE_NS
    return StockBar(symbol, start_ns, close - 0.5, close + 1.0, close - 1.0, close, 100.0, close)


def end_of(minute: int, session: Session = MONDAY) -> int:
    return session.open_ns + (minute + 1) * MINUTE_NS


def told(symbol: str, number: int, session: Session = MONDAY) -> OptionQuote:
    ts_ns = session.open_ns + number
    return OptionQuote(symbol, 1.0 + number, 1.5 + number, 3.0, 4.0, ts_ns, number)


def quotes_of(session: RecordedSession) -> list[OptionQuote]:
    columns = [column.tolist() for column in session.quotes[1:7]]
    symbols = [session.contracts[i].symbol for i in session.quotes.contract.tolist()]
    return [OptionQuote(*each) for each in zip(symbols, *columns, strict=True)]


def begin(recorder: Recorder, session: Session = MONDAY) -> None:
    recorder.begin_session(session)
    recorder.list_contracts("SPY", CALLS)


def test_a_session_is_read_back_event_by_event(tmp_path: Path) -> None:
    warm_up = [bar(minute, 680.0 + minute) for minute in (-3, -2, -1)]
    quotes = [told(CALLS[k % 3].symbol, k) for k in range(7)]
    with Recorder(tmp_path, rows_per_part=3) as recorder:
        recorder.begin_session(MONDAY)
        recorder.warm_up("SPY", warm_up)
        recorder.list_contracts("SPY", CALLS)
        for each in quotes[:2]:
            recorder.quote(each)
        recorder.bar(bar(0, 681.0))
        recorder.quote(quotes[2])
        recorder.close_bar(end_of(0))
        for each in quotes[3:]:
            recorder.quote(each)
        recorder.close_bar(end_of(1))
        recorder.bar(bar(2, 682.0))
    found = load_recording(tmp_path, DAY, "SPY")
    assert (found.underlying, found.session, found.contracts) == ("SPY", MONDAY, CALLS)
    assert found.warm_up.stock_bars("SPY") == warm_up
    assert quotes_of(found) == quotes
    assert found.quotes.bar.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert found.bars.stock_bars("SPY") == [bar(0, 681.0), bar(2, 682.0)]
    assert found.bars.bar.tolist() == [0, 2]
    assert found.bars.quotes_before.tolist() == [2, 7]
    assert found.bar_end_ns.tolist() == [end_of(0), end_of(1)]
    assert not found.is_complete


def test_columns_have_the_documented_types(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        begin(recorder)
        recorder.quote(told(CALLS[0].symbol, 1))
        recorder.bar(bar(0, 681.0))
        recorder.close_bar(end_of(0))
    found = load_recording(tmp_path, DAY, "SPY")
    floats = {"bid", "ask", "bid_size", "ask_size", "open", "high", "low", "close", "volume"}
    for table in (found.quotes, found.bars, found.warm_up):
        for name, column in table._asdict().items():
            assert column.dtype == (np.float64 if name in floats | {"vwap"} else np.int64), name
    assert found.bar_end_ns.dtype == np.int64


def test_an_empty_session_is_one_too(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        begin(recorder)
    found = load_recording(tmp_path, DAY, "SPY")
    assert len(found.quotes.ts_ns) == len(found.bars.start_ns) == len(found.bar_end_ns) == 0
    assert found.contracts == CALLS


def test_underlyings_are_recorded_side_by_side(tmp_path: Path) -> None:
    other = parse_symbol("O:QQQ260116C00600000")
    with Recorder(tmp_path) as recorder:
        begin(recorder)
        recorder.list_contracts("QQQ", [other])
        for number in range(4):
            recorder.quote(told((CALLS[0], other)[number % 2].symbol, number))
        recorder.bar(bar(0, 600.0, symbol="QQQ"))
        recorder.quote(told("O:IWM260116C00240000", 9))
        recorder.bar(bar(0, 240.0, symbol="IWM"))
        recorder.close_bar(end_of(0))
    assert recorded_runs(tmp_path) == [Run(DAY, "QQQ", 0), Run(DAY, "SPY", 0)]
    spy, qqq = (load_recording(tmp_path, DAY, name) for name in ("SPY", "QQQ"))
    assert spy.quotes.sequence.tolist() == [0, 2]
    assert qqq.quotes.sequence.tolist() == [1, 3]
    assert (len(spy.bars.close), len(qqq.bars.close)) == (0, 1)
    assert spy.bar_end_ns.tolist() == qqq.bar_end_ns.tolist() == [end_of(0)]


def test_a_later_session_begins_with_what_the_environment_keeps(tmp_path: Path) -> None:
    with Recorder(tmp_path, history_bars=3) as recorder:
        recorder.begin_session(MONDAY)
        recorder.warm_up("SPY", [bar(-1, 670.0)])
        recorder.list_contracts("SPY", CALLS)
        for each in (told(CALLS[0].symbol, 1), told(CALLS[1].symbol, 2), told(CALLS[0].symbol, 3)):
            recorder.quote(each)
        recorder.bar(bar(0, 681.0))
        recorder.close_bar(end_of(0), {"SPY": 681.0})
        recorder.close_bar(end_of(1), {"SPY": 681.25})
        recorder.close_bar(MONDAY.close_ns, {"SPY": math.nan})
        recorder.quote(told(CALLS[1].symbol, 5))
        recorder.bar(bar(-30, 690.0, TUESDAY))
        recorder.begin_session(TUESDAY)
        recorder.list_contracts("SPY", [PUT, CALLS[1], CALLS[0]])
        recorder.quote(told(PUT.symbol, 1, TUESDAY))
        recorder.close_bar(end_of(0, TUESDAY))
    monday = load_recording(tmp_path, DAY, "SPY")
    assert monday.is_complete
    assert monday.quotes.sequence.tolist() == [1, 2, 3]
    tuesday = load_recording(tmp_path, NEXT_DAY, "SPY")
    assert tuesday.warm_up.close.tolist() == [670.0, 681.0, 681.25]
    assert tuesday.warm_up.volume.tolist() == [100.0, 100.0, 0.0]
    kept = (told(CALLS[1].symbol, 5), told(CALLS[0].symbol, 3))
    carried = [msgspec.structs.replace(each, sequence=-1) for each in kept]
    assert quotes_of(tuesday) == [*carried, told(PUT.symbol, 1, TUESDAY)]
    assert tuesday.quotes.bar.tolist() == [0, 0, 0]
    assert tuesday.bars.stock_bars("SPY") == [bar(-30, 690.0, TUESDAY)]
    assert tuesday.bars.bar.tolist() == [0]


def test_of_several_runs_the_longest_is_read_unless_one_is_named(tmp_path: Path) -> None:
    for bars in (1, 3, 2):
        with Recorder(tmp_path) as recorder:
            begin(recorder)
            for minute in range(bars):
                recorder.close_bar(end_of(minute))
    assert [run.number for run in recorded_runs(tmp_path, DAY, "SPY")] == [0, 1, 2]
    assert len(load_recording(tmp_path, DAY, "SPY").bar_end_ns) == 3
    assert len(load_recording(tmp_path, DAY, "SPY", run=2).bar_end_ns) == 2


def test_the_files_are_plain_parquet_with_a_row_for_each_event(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        begin(recorder)
        recorder.quote(told(CALLS[2].symbol, 1))
        recorder.bar(bar(0, 681.0))
        recorder.close_bar(end_of(0))
    events = pq.read_table(next(tmp_path.rglob("events-*.parquet"))).to_pylist()
    assert [each["kind"] for each in events] == ["quote", "stock_bar", "bar_end"]
    assert [each["contract"] for each in events] == [2, None, None]
    assert [each["close"] for each in events] == [None, 681.0, None]


DYING = """
import os, signal, sys, time
from pathlib import Path
from tests.data.test_recording import *

recorder = Recorder(Path(sys.argv[1]), rows_per_part=100)
begin(recorder)
for number in range(1050):
    if number == 500:
        recorder.close_bar(end_of(0))
    recorder.quote(told(CALLS[number % 3].symbol, number))
tenth = Path(sys.argv[1]) / "date=2026-01-05/underlying=SPY/run=0/events-000009.parquet"
while not tenth.is_file():
    time.sleep(0.001)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_a_readable_prefix(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", DYING, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=WAIT_S,
        check=False,
    )
    assert result.returncode == -signal.SIGKILL
    found = load_recording(tmp_path, DAY, "SPY")
    assert quotes_of(found) == [told(CALLS[k % 3].symbol, k) for k in range(1000)]
    assert found.quotes.bar.tolist() == [0] * 500 + [1] * 500
    assert not found.is_complete


def test_a_part_that_was_being_written_is_not_there(tmp_path: Path) -> None:
    with Recorder(tmp_path, rows_per_part=2) as recorder:
        begin(recorder)
        for number in range(6):
            recorder.quote(told(CALLS[0].symbol, number))
    folder = tmp_path / f"date={DAY}" / "underlying=SPY" / "run=0"
    last = folder / "events-000002.parquet"
    last.rename(folder / ".events-000002.parquet")
    (folder.parent / ".new-abandoned").mkdir()
    assert load_recording(tmp_path, DAY, "SPY").quotes.sequence.tolist() == [0, 1, 2, 3]


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        begin(recorder)
        recorder.quote(told(CALLS[0].symbol, 1))
    part = next(tmp_path.rglob("events-*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"events-000000\.parquet cannot be read"):
        load_recording(tmp_path, DAY, "SPY")


def test_a_disk_that_fails_ends_the_recording_and_not_the_caller(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Recorder(tmp_path / "recordings", rows_per_part=2) as recorder:
        (tmp_path / "recordings").rmdir()
        (tmp_path / "recordings").write_text("a file where the folder was")
        begin(recorder)
        for number in range(500):
            recorder.quote(told(CALLS[0].symbol, number))
    assert "the next session is recorded again" in recorder.failure
    assert "recording ends here" in caplog.text


def test_the_next_session_is_recorded_once_the_disk_takes_it(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    with Recorder(folder, rows_per_part=2, waits=True) as recorder:
        begin(recorder)
        recorder.quote(told(CALLS[0].symbol, 0))
        recorder.quote(told(CALLS[0].symbol, 1))
        until(lambda: any(folder.rglob("events-*")))
        folder.rename(tmp_path / "away")
        folder.write_text("a file where the folder was")
        recorder.quote(told(CALLS[0].symbol, 2))
        recorder.quote(told(CALLS[1].symbol, 3))
        until(lambda: recorder.failure)
        for number in range(4, 12):
            recorder.quote(told(CALLS[0].symbol, number))
        recorder.close_bar(MONDAY.close_ns)
        folder.unlink()
        (tmp_path / "away").rename(folder)
        begin(recorder, TUESDAY)
        recorder.quote(told(CALLS[2].symbol, 100, TUESDAY))
    assert not recorder.failure
    monday, tuesday = load_recording(folder, DAY, "SPY"), load_recording(folder, NEXT_DAY, "SPY")
    assert quotes_of(monday) == [told(CALLS[0].symbol, k) for k in range(2)]
    # What the environment keeps of Monday is there, also what was never recorded of it.
    kept = {quote.symbol: quote.bid for quote in quotes_of(tuesday)}
    assert kept == {CALLS[0].symbol: 12.0, CALLS[1].symbol: 4.0, CALLS[2].symbol: 101.0}


def test_a_recorder_that_waits_loses_nothing_to_a_slow_disk(tmp_path: Path) -> None:
    with Recorder(tmp_path, rows_per_part=2, bars_per_part=1, waits=True) as recorder:
        begin(recorder)
        for number in range(300):
            recorder.quote(told(CALLS[0].symbol, number))
            recorder.close_bar(end_of(number))
    found = load_recording(tmp_path, DAY, "SPY")
    assert found.quotes.sequence.tolist() == found.quotes.bar.tolist() == list(range(300))
    assert len(found.bar_end_ns) == 300


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="state_dir"):
        Recorder(tmp_path / "file" / "recordings")


def test_what_was_never_recorded_is_told_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.record=true"):
        load_recording(tmp_path, DAY, "SPY")


# Flat files


def test_bars_end_at_every_interval_and_at_the_close() -> None:
    half_day = session_on(GOOG_DAY)
    ends = bar_ends(half_day, 7 * MINUTE_NS)
    assert ends[0] == half_day.open_ns + 7 * MINUTE_NS
    assert ends[-1] == half_day.close_ns
    assert len(bar_ends(half_day, MINUTE_NS)) == 210
    assert len(bar_ends(MONDAY, MINUTE_NS)) == 390


@pytest.fixture(scope="module")
def goog() -> RecordedSession:
    if not (SHARED / flat_file_key(Kind.OPTION_QUOTES, GOOG_DAY)).is_file():
        pytest.skip(f"real session {GOOG_DAY} of GOOG is absent: no file below {SHARED}")
    return RecordedSession.from_flat_files(SHARED, GOOG_DAY, "GOOG", CALENDAR)


def test_a_real_day_is_cut_into_bars_by_event_time(goog: RecordedSession) -> None:
    assert goog.is_complete
    assert len(goog.bar_end_ns) == 210
    assert len(goog.contracts) == 2192
    assert goog.contracts == sorted(goog.contracts, key=lambda each: each.symbol)
    ends = goog.bar_end_ns[goog.quotes.bar]
    starts = ends - MINUTE_NS
    assert np.all(goog.quotes.ts_ns <= ends)
    assert np.all((goog.quotes.ts_ns > starts) | (goog.quotes.bar == 0))
    assert np.all(goog.bars.start_ns + MINUTE_NS <= goog.bar_end_ns[goog.bars.bar])
    assert np.all(np.diff(goog.quotes.ts_ns) >= 0)
    assert np.all(goog.quotes.ts_ns % 1_000_000 == 0)


def test_the_catalogue_gives_the_same_day(goog: RecordedSession, tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    for kind in (Kind.OPTION_QUOTES, Kind.STOCK_BARS):
        import_flat_file(catalog, SHARED / flat_file_key(kind, GOOG_DAY), kind, GOOG_DAY)
    same = RecordedSession.from_catalog(catalog, GOOG_DAY, "GOOG", CALENDAR)
    assert same.contracts == goog.contracts
    assert_same_columns(same.quotes, goog.quotes)
    assert_same_columns(same.bars, goog.bars)


def assert_same_columns(
    one: RecordedQuotes | RecordedBars, other: RecordedQuotes | RecordedBars
) -> None:
    for name, column in one._asdict().items():
        np.testing.assert_array_equal(column, getattr(other, name), name)


def write_flat_files(folder: Path, day: date, quotes: list[str], bars: list[str]) -> None:
    header = (
        "ticker,ask_exchange,ask_price,ask_size,bid_exchange,bid_price,bid_size,"
        "sequence_number,sip_timestamp"
    )
    bar_header = "ticker,volume,open,close,high,low,window_start,transactions"
    for path, lines in (
        (quotes_path(folder, day), [header, *quotes]),
        (minute_bars_path(folder, day), [bar_header, *bars]),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt") as file:
            file.write("\n".join(lines) + "\n")


def test_an_event_belongs_to_the_bar_that_ends_with_it_or_after_it(tmp_path: Path) -> None:
    end_ns = end_of(0, TUESDAY)
    adjusted = "O:SPY1260116C00680000"
    times = [
        end_ns,
        end_ns + 999_999,
        end_ns + 1_000_000,
        TUESDAY.close_ns,
        TUESDAY.close_ns + 10**6,
    ]
    quotes = [
        f"{adjusted},0,1.5,1,0,1,2,99,{end_ns}",
        *(f"{CALLS[0].symbol},0,1.5,1,0,1,2,{k},{ts}" for k, ts in enumerate(times)),
    ]
    starts = [TUESDAY.open_ns - MINUTE_NS, TUESDAY.open_ns, end_ns, TUESDAY.close_ns]
    bars = [f"SPY,10,1,2,3,0.5,{start},5" for start in starts]
    evening_ns = MONDAY.close_ns
    before = [f"SPY,10,1,2,3,0.5,{start},5" for start in (MONDAY.open_ns, evening_ns)]
    write_flat_files(tmp_path, NEXT_DAY, quotes, bars)
    write_flat_files(tmp_path, DAY, [], before)
    found = RecordedSession.from_flat_files(tmp_path, NEXT_DAY, "SPY", CALENDAR)
    assert found.contracts == CALLS[:1]
    assert found.quotes.sequence.tolist() == [0, 1, 2, 3]
    assert found.quotes.bar.tolist() == [0, 0, 1, 389]
    assert found.quotes.ts_ns.tolist() == [end_ns, end_ns, end_ns + 1_000_000, TUESDAY.close_ns]
    assert found.bars.bar.tolist() == [0, 0, 1]
    assert found.bars.quotes_before.tolist() == [0, 0, 3]
    assert found.warm_up.start_ns.tolist() == [MONDAY.open_ns]


def test_a_day_without_a_session_or_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no session"):
        RecordedSession.from_flat_files(tmp_path, date(2025, 12, 25), "SPY", CALENDAR)
    with pytest.raises(FlatFileError, match="does not exist"):
        RecordedSession.from_flat_files(tmp_path, DAY, "SPY", CALENDAR)
