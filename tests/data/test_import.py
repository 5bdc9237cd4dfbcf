"""Importing flat files: what is kept, what is refused, and how much memory it takes."""

import gzip
import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
from typer.testing import CliRunner

from tests.waits import WAIT_S
from trading.cli.main import app
from trading.data.catalog import Catalog, Kind, Partition
from trading.data.flatfile_import import (
    FlatFileKind,
    ImportReport,
    Selection,
    find_flat_files,
    flat_file_key,
    import_flat_file,
)
from trading.data.flatfiles import load_quotes
from trading.data.gunzip import verify_gzip
from trading.errors import FlatFileError

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data" / "flatfiles"
GOOG_DAY = date(2015, 12, 24)
DAY = date(2026, 1, 5)
OPEN_NS = 1_767_623_400_000_000_000
QUOTES = Kind.OPTION_QUOTES

QUOTE_HEADER = (
    "ticker,ask_exchange,ask_price,ask_size,bid_exchange,bid_price,bid_size,"
    "sequence_number,sip_timestamp\n"
)
TRADE_HEADER = "ticker,conditions,correction,exchange,price,sip_timestamp,size\n"
BAR_HEADER = "ticker,volume,open,close,high,low,window_start,transactions\n"

THREE_UNDERLYINGS = (
    "O:QQQ260109C00500000,301,2.25,30,302,2.20,40,1,2000\n"
    "O:SPY1260109C00600000,301,9.25,3,302,9.20,4,7,2500\n"
    "O:SPY260109C00600000,301,1.25,3,302,1.20,4,7,2000\n"
    "O:SPY260109P00600000,301,1.35,3,302,1.30,4,9,1000\n"
    "O:SPYG260109C00060000,301,5.25,3,302,5.20,4,7,1000\n"
)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "catalog")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "flatfiles"


def write_flat_file(folder: Path, kind: FlatFileKind, text: str, day: date = DAY) -> Path:
    path = folder / flat_file_key(kind, day)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = after_the_open(text, "" if kind is QUOTES else r",[\d.]+")
    path.write_bytes(gzip.compress(text.encode()))
    return path


def after_the_open(rows: str, behind: str = "") -> str:
    """Rows whose times, the last column or the one before `behind`, count from the open."""
    return re.sub(rf",(\d{{1,6}})(?={behind}\n)", lambda told: f",{OPEN_NS + int(told[1])}", rows)


def contents(catalog: Catalog) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in catalog.folder.rglob("*.parquet")}


def test_a_real_day_is_what_the_reader_of_flat_files_reads(catalog: Catalog) -> None:
    path = SHARED / flat_file_key(QUOTES, GOOG_DAY)
    if not path.is_file():
        pytest.skip(f"real session {GOOG_DAY} of GOOG is absent: no file {path}")
    report = import_flat_file(catalog, path, QUOTES, GOOG_DAY, Selection(["GOOG"]))
    assert report == ImportReport(QUOTES, GOOG_DAY, 275_552, 275_552, 1)
    expected = load_quotes(SHARED, GOOG_DAY, ["GOOG"])
    quotes = catalog.read(QUOTES, "GOOG", GOOG_DAY)
    assert quotes.symbols == expected.symbols
    assert np.array_equal(quotes.contract, expected.contract)
    for name in ("ts_ns", "sequence", "bid", "ask", "bid_size", "ask_size"):
        assert np.array_equal(quotes[name], getattr(expected, name)), name


def test_only_wanted_underlyings_are_kept_and_adjusted_contracts_with_them(
    catalog: Catalog, folder: Path
) -> None:
    path = write_flat_file(folder, QUOTES, QUOTE_HEADER + THREE_UNDERLYINGS)
    report = import_flat_file(catalog, path, QUOTES, DAY, Selection(["SPY"]))
    assert report == ImportReport(QUOTES, DAY, rows_read=5, rows_kept=3, underlyings=1)
    assert catalog.partitions() == [Partition(QUOTES, DAY, "SPY")]
    quotes = catalog.read(QUOTES, "SPY", DAY)
    assert [quotes.symbols[i] for i in quotes.contract] == [
        "O:SPY260109P00600000",
        "O:SPY260109C00600000",
        "O:SPY1260109C00600000",
    ]
    assert quotes["bid"].tolist() == [1.30, 1.20, 9.20]
    assert quotes["ask_exchange"].tolist() == [301, 301, 301]


def test_only_listed_contracts_are_kept(catalog: Catalog, folder: Path) -> None:
    path = write_flat_file(folder, QUOTES, QUOTE_HEADER + THREE_UNDERLYINGS)
    selection = Selection(contracts=["O:SPY260109P00600000", "O:QQQ260109C00500000"])
    assert import_flat_file(catalog, path, QUOTES, DAY, selection).rows_kept == 2
    assert catalog.read(QUOTES, "SPY", DAY).symbols == ["O:SPY260109P00600000"]
    assert catalog.read(QUOTES, "QQQ", DAY).symbols == ["O:QQQ260109C00500000"]


def test_without_a_selection_every_underlying_is_kept(catalog: Catalog, folder: Path) -> None:
    path = write_flat_file(folder, QUOTES, QUOTE_HEADER + THREE_UNDERLYINGS)
    import_flat_file(catalog, path, QUOTES, DAY)
    assert [each.underlying for each in catalog.partitions()] == ["QQQ", "SPY", "SPYG"]


def test_an_underlying_without_a_row_is_known_to_have_none(catalog: Catalog, folder: Path) -> None:
    path = write_flat_file(folder, QUOTES, QUOTE_HEADER)
    import_flat_file(catalog, path, QUOTES, DAY, Selection(["SPY"]))
    assert len(catalog.read(QUOTES, "SPY", DAY)) == 0


def test_trades_keep_their_conditions_and_fractional_sizes(catalog: Catalog, folder: Path) -> None:
    rows = (
        'O:SPY260109C00600000,"209,232",0,302,1.25,2000,1.5\n'
        "O:SPY260109C00600000,227,1,303,1.30,1000,2\n"
        "O:SPY260109C00600000,,0,303,1.35,3000,2\n"
    )
    path = write_flat_file(folder, Kind.OPTION_TRADES, TRADE_HEADER + rows)
    import_flat_file(catalog, path, Kind.OPTION_TRADES, DAY, Selection(["SPY"]))
    trades = catalog.read(Kind.OPTION_TRADES, "SPY", DAY)
    assert trades["conditions"].tolist() == ["227", "209,232", ""]
    assert trades["size"].tolist() == [2.0, 1.5, 2.0]
    assert trades["correction"].tolist() == [1, 0, 0]


def test_stock_bars_are_kept_by_ticker(catalog: Catalog, folder: Path) -> None:
    rows = "NA,1,1,1,1,1,60,1\nSPY,2.5,1,2,3,0.5,120,4\nSPY,2,2,2,2,2,60,4\nSPYG,1,1,1,1,1,60,1\n"
    path = write_flat_file(folder, Kind.STOCK_BARS, BAR_HEADER + rows)
    selection = Selection(["SPY", "NA"], contracts=["O:SPY260109C00600000"])
    import_flat_file(catalog, path, Kind.STOCK_BARS, DAY, selection)
    bars = catalog.read(Kind.STOCK_BARS, "SPY", DAY)
    assert (bars["start_ns"] - OPEN_NS).tolist() == [60, 120]
    assert [bars[name][1] for name in ("open", "high", "low", "close", "volume")] == [
        1.0,
        3.0,
        0.5,
        2.0,
        2.5,
    ]
    assert catalog.read(Kind.STOCK_BARS, "NA", DAY).symbols == ["NA"]


def test_an_empty_price_is_an_absent_side(catalog: Catalog, folder: Path) -> None:
    path = write_flat_file(
        folder, QUOTES, QUOTE_HEADER + "O:SPY260109C00600000,1,1.25,3,,,,9,1000\n"
    )
    import_flat_file(catalog, path, QUOTES, DAY)
    quotes = catalog.read(QUOTES, "SPY", DAY)
    assert (quotes["bid"][0], quotes["bid_size"][0], quotes["ask"][0]) == (0.0, 0, 1.25)


def test_importing_again_changes_nothing_and_a_newer_file_replaces_its_day(
    catalog: Catalog, folder: Path
) -> None:
    path = write_flat_file(folder, QUOTES, QUOTE_HEADER + THREE_UNDERLYINGS)
    import_flat_file(catalog, path, QUOTES, DAY)
    before = contents(catalog)
    import_flat_file(catalog, path, QUOTES, DAY)
    assert contents(catalog) == before
    write_flat_file(folder, QUOTES, QUOTE_HEADER + THREE_UNDERLYINGS.splitlines()[0] + "\n")
    import_flat_file(catalog, path, QUOTES, DAY)
    assert catalog.partitions() == [Partition(QUOTES, DAY, "QQQ")]


def many_quotes() -> bytes:
    generator = np.random.default_rng(7)
    rows = (
        f"O:SPY260109C00{600 + number // 10_000}000,1,{price:.4f},3,1,1.20,4,{number},"
        f"{OPEN_NS + number}\n"
        for number, price in enumerate(generator.uniform(2.0, 3.0, 200_000))
    )
    return gzip.compress((QUOTE_HEADER + "".join(rows)).encode(), compresslevel=1)


def cut_short(whole: bytes) -> bytes:
    return whole[:-1_000]


def cut_in_the_trailer(whole: bytes) -> bytes:
    return whole[:-3]


def with_a_flipped_bit(whole: bytes) -> bytes:
    middle = len(whole) * 3 // 4
    return whole[:middle] + bytes([whole[middle] ^ 0x10]) + whole[middle + 1 :]


def with_another_checksum(whole: bytes) -> bytes:
    return whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]


def with_another_size(whole: bytes) -> bytes:
    return whole[:-1] + bytes([whole[-1] ^ 1])


def with_something_behind(whole: bytes) -> bytes:
    return whole + b"something"


def of_no_bytes(whole: bytes) -> bytes:
    return whole[:0]


@pytest.mark.parametrize(
    "damaged",
    [
        cut_short,
        cut_in_the_trailer,
        with_a_flipped_bit,
        with_another_checksum,
        with_another_size,
        with_something_behind,
        of_no_bytes,
    ],
)
def test_a_damaged_file_is_named_and_leaves_the_catalogue_as_it_was(
    damaged: object, catalog: Catalog, folder: Path
) -> None:
    path = write_flat_file(folder, QUOTES, QUOTE_HEADER + THREE_UNDERLYINGS)
    import_flat_file(catalog, path, QUOTES, DAY, Selection(["SPY"]))
    before = contents(catalog)
    assert callable(damaged)
    path.write_bytes(damaged(many_quotes()))
    with pytest.raises(FlatFileError, match=str(path)):
        import_flat_file(catalog, path, QUOTES, DAY, Selection(["SPY"]))
    with pytest.raises(FlatFileError, match=str(path)):
        verify_gzip(path, str(path))
    assert contents(catalog) == before
    assert list((catalog.folder / ".staging").iterdir()) == []


def test_several_gzip_members_are_one_file(catalog: Catalog, folder: Path) -> None:
    path = write_flat_file(folder, QUOTES, QUOTE_HEADER)
    parts = [
        gzip.compress(line.encode() + b"\n")
        for line in after_the_open(THREE_UNDERLYINGS).splitlines()
    ]
    path.write_bytes(path.read_bytes() + b"".join(parts) + b"\0" * 512)
    assert import_flat_file(catalog, path, QUOTES, DAY).rows_kept == 5
    assert verify_gzip(path, "x") == len(QUOTE_HEADER + after_the_open(THREE_UNDERLYINGS))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ticker,price\nO:SPY260109C00600000,1\n", "sip_timestamp"),
        (QUOTE_HEADER + "O:SPY260109C00600000,1,1.25,3,1,1.2,1,9,\n", "sip_timestamp"),
        (
            QUOTE_HEADER + "O:SPY260109C00600000,1,1.25,3,1,1.2,1,9,noon\n",
            "sip_timestamp that is no number",
        ),
        (QUOTE_HEADER + "O:SPY260109C00600000,1,1.25\n", "1 with another number of columns"),
        (QUOTE_HEADER + "O:SPYC00600000,1,1.25,3,1,1.2,1,9,1\n", "no standard option symbol"),
        (QUOTE_HEADER + ",1,1.25,3,1,1.2,1,9,1\n", "1 without ticker"),
        ("", "is empty"),
    ],
)
def test_other_columns_or_values_are_refused_with_the_files_name(
    text: str, reason: str, catalog: Catalog, folder: Path
) -> None:
    path = write_flat_file(folder, QUOTES, text)
    with pytest.raises(FlatFileError, match=reason) as caught:
        import_flat_file(catalog, path, QUOTES, DAY, Selection(["SPY"]))
    assert str(path) in str(caught.value)
    assert catalog.partitions() == []


def test_a_missing_file_is_named(catalog: Catalog, folder: Path) -> None:
    path = folder / flat_file_key(QUOTES, DAY)
    with pytest.raises(FlatFileError, match=f"{path} does not exist"):
        import_flat_file(catalog, path, QUOTES, DAY)


def test_flat_files_are_found_in_the_vendors_layout(folder: Path) -> None:
    quotes = write_flat_file(folder, QUOTES, QUOTE_HEADER)
    bars = write_flat_file(folder, Kind.STOCK_BARS, BAR_HEADER)
    (quotes.parent / "2026-01-06.csv.gz.part").touch()
    (quotes.parent / "2026-02-06.csv.gz").touch()
    (quotes.parent / "notes.csv.gz").touch()
    assert find_flat_files(folder) == [(QUOTES, DAY, quotes), (Kind.STOCK_BARS, DAY, bars)]


def run_import(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = "import typer; from trading.cli.data import import_; typer.run(import_)"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def test_the_command_imports_a_folder(catalog: Catalog, folder: Path) -> None:
    write_flat_file(folder, QUOTES, QUOTE_HEADER + THREE_UNDERLYINGS)
    write_flat_file(folder, Kind.STOCK_BARS, BAR_HEADER + "SPY,2.5,1,2,3,0.5,120,4\n")
    where = ("--catalog", str(catalog.folder))
    result = run_import(str(folder), "--symbols", "SPY", *where)
    assert result.returncode == 0, result.stderr
    assert "option_quotes 2026-01-05: kept 3 of 5 rows" in result.stdout
    assert [each.underlying for each in catalog.partitions()] == ["SPY", "SPY"]


def test_the_command_names_what_is_wrong(catalog: Catalog, folder: Path) -> None:
    where = ("--catalog", str(catalog.folder))
    empty = run_import(str(folder), *where)
    assert (empty.returncode, empty.stdout) == (1, "")
    assert str(folder) in empty.stderr
    path = write_flat_file(folder, QUOTES, QUOTE_HEADER)
    path.write_bytes(path.read_bytes()[:-4])
    damaged = run_import(str(folder), "--all", *where)
    assert damaged.returncode == 1
    assert damaged.stderr.startswith(f"trading: flat file {path}")
    misused = run_import(str(folder), "--date", "Monday", *where)
    assert misused.returncode == 2
    assert "--date Monday" in misused.stderr


QUOTES_OF_THE_LARGE_FILE = 10_000_000
MEASURED_IMPORT = """
import re, sys, time
from datetime import date
from pathlib import Path
from trading.data.catalog import Catalog, Kind
from trading.data.flatfile_import import import_flat_file
start = time.perf_counter()
report = import_flat_file(
    Catalog(Path(sys.argv[1])), Path(sys.argv[2]), Kind.OPTION_QUOTES, date(2026, 1, 5)
)
seconds = time.perf_counter() - start
status = Path("/proc/self/status").read_text()
print(report.rows_kept, re.search(r"VmHWM:\\s+(\\d+) kB", status)[1], seconds)
"""


def write_large_file(path: Path) -> None:
    """2,000 contracts of two underlyings, sorted by ticker, 5,000 quotes each."""
    path.parent.mkdir(parents=True)
    generator = np.random.default_rng(7)
    options = pa_csv.WriteOptions(include_header=False, quoting_style="none")
    count = QUOTES_OF_THE_LARGE_FILE // 2_000
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(QUOTE_HEADER.encode())
        for root in ("QQQ", "SPY"):
            for strike in range(1_000):
                bid = np.round(generator.uniform(0.05, 20.0, count), 2)
                columns = {
                    "ticker": np.full(count, f"O:{root}260109C{100_000 + strike * 500:08d}"),
                    "ask_exchange": np.full(count, 302),
                    "ask_price": np.round(bid + 0.05, 2),
                    "ask_size": generator.integers(1, 500, count),
                    "bid_exchange": np.full(count, 303),
                    "bid_price": bid,
                    "bid_size": generator.integers(1, 500, count),
                    "sequence_number": np.arange(count),
                    "sip_timestamp": 1_767_623_400_000_000_000
                    + np.sort(generator.integers(0, 23_400_000_000_000, count)),
                }
                pa_csv.write_csv(pa.table(columns), file, options)


@pytest.mark.soak
def test_ten_million_quotes_are_imported_in_a_gibibyte(catalog: Catalog, folder: Path) -> None:
    if not Path("/proc/self/status").is_file():
        pytest.skip("the peak of a process's memory is read from /proc, which is absent here")
    path = folder / flat_file_key(QUOTES, DAY)
    write_large_file(path)
    result = subprocess.run(
        [sys.executable, "-c", MEASURED_IMPORT, str(catalog.folder), str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    rows, peak_kib, seconds = result.stdout.split()
    print(
        f"{path.stat().st_size / 1e6:.0f} MB: {int(rows) / float(seconds):,.0f} quotes/s, "
        f"peak {int(peak_kib) / 1024:.0f} MiB"
    )
    assert int(rows) == QUOTES_OF_THE_LARGE_FILE
    assert int(peak_kib) <= 1 << 20
    assert len(catalog.read(QUOTES, "SPY", DAY)) == QUOTES_OF_THE_LARGE_FILE // 2


def test_the_command_tells_each_file_as_json(folder: Path, tmp_path: Path) -> None:
    write_flat_file(folder, QUOTES, QUOTE_HEADER + THREE_UNDERLYINGS)
    arguments = ["import", str(folder), "--symbols", "SPY", "--catalog", str(tmp_path / "told")]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "kind": str(QUOTES),
        "day": str(DAY),
        "rows_read": 5,
        "rows_kept": 3,
        "underlyings": 1,
        "dropped": "",
    }
    assert "kept 3 of 5 rows" in CliRunner().invoke(app, arguments).stdout
