"""The Parquet catalogue: what is written whole is read back, and nothing else is."""

import os
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trading.data.catalog import SCHEMAS, Catalog, Kind, Partition
from trading.errors import DataError

DAY = date(2026, 1, 5)
NEXT_DAY = date(2026, 1, 6)
CALL, PUT = "O:SPY260109C00600000", "O:SPY260109P00600000"
QUOTES = Kind.OPTION_QUOTES


def quote(symbol: str, ts_ns: int, sequence: int = 1, bid: float = 1.0) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "ts_ns": ts_ns,
        "sequence": sequence,
        "bid": bid,
        "ask": bid + 0.05,
        "bid_size": 3,
        "ask_size": 4,
        "bid_exchange": 1,
        "ask_exchange": 2,
    }


def bar(symbol: str, start_ns: int) -> dict[str, Any]:
    prices = {"open": 1.0, "high": 3.0, "low": 0.5, "close": 2.0}
    return {"symbol": symbol, "start_ns": start_ns, "volume": 2.5, "transactions": 7} | prices


def write(
    catalog: Catalog,
    kind: Kind,
    rows: dict[str, list[dict[str, Any]]],
    *,
    day: date = DAY,
    source: str = "test",
    complete: bool = False,
) -> None:
    with catalog.writing(kind, day, source) as writer:
        writer.is_complete = complete
        for underlying, each in rows.items():
            writer.add(underlying, pa.RecordBatch.from_pylist(each, SCHEMAS[kind]))


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "catalog")


def staged(catalog: Catalog) -> list[Path]:
    return list((catalog.folder / ".staging").iterdir())


def test_columns_are_typed_and_sorted_by_time_then_sequence(catalog: Catalog) -> None:
    rows = [quote(PUT, 3000, 7), quote(PUT, 1000, 9), quote(CALL, 1000, 8, bid=0.0)]
    write(catalog, QUOTES, {"SPY": rows})
    quotes = catalog.read(QUOTES, "SPY", DAY)
    assert quotes.symbols == [CALL, PUT]
    assert quotes.contract.tolist() == [0, 1, 1]
    assert quotes["ts_ns"].tolist() == [1000, 1000, 3000]
    assert quotes["sequence"].tolist() == [8, 9, 7]
    assert quotes["bid"].tolist() == [0.0, 1.0, 1.0]
    assert {name: column.dtype for name, column in quotes.values.items()} == {
        "ts_ns": np.int64,
        "sequence": np.int64,
        "bid": np.float64,
        "ask": np.float64,
        "bid_size": np.int64,
        "ask_size": np.int64,
        "bid_exchange": np.int32,
        "ask_exchange": np.int32,
    }
    assert quotes.contract.dtype == np.int32


def test_bars_of_equal_time_are_in_order_of_their_symbol(catalog: Catalog) -> None:
    write(catalog, Kind.OPTION_BARS, {"SPY": [bar(PUT, 60), bar(CALL, 60), bar(PUT, 0)]})
    bars = catalog.read(Kind.OPTION_BARS, "SPY", DAY)
    assert bars["start_ns"].tolist() == [0, 60, 60]
    assert [bars.symbols[i] for i in bars.contract] == [PUT, CALL, PUT]


def test_trades_of_equal_time_stay_as_the_source_had_them(catalog: Catalog) -> None:
    rows = [
        {
            "symbol": symbol,
            "ts_ns": ts_ns,
            "price": price,
            "size": 1.5,
            "exchange": 302,
            "correction": 0,
            "conditions": conditions,
        }
        for symbol, ts_ns, price, conditions in [
            (PUT, 5, 1.0, "209,232"),
            (CALL, 5, 2.0, ""),
            (PUT, 4, 3.0, "227"),
        ]
    ]
    write(catalog, Kind.OPTION_TRADES, {"SPY": rows})
    trades = catalog.read(Kind.OPTION_TRADES, "SPY", DAY)
    assert trades["price"].tolist() == [3.0, 1.0, 2.0]
    assert trades["conditions"].tolist() == ["227", "209,232", ""]


def test_chosen_contracts_are_read_alone(catalog: Catalog) -> None:
    write(catalog, QUOTES, {"SPY": [quote(CALL, 1), quote(PUT, 2)]})
    quotes = catalog.read(QUOTES, "SPY", DAY, contracts=[PUT, "O:SPY260109P00700000"])
    assert quotes.symbols == [PUT]
    assert quotes["ts_ns"].tolist() == [2]


def test_a_partition_without_rows_reads_as_empty_columns(catalog: Catalog) -> None:
    write(catalog, Kind.OPTION_TRADES, {"SPY": []})
    trades = catalog.read(Kind.OPTION_TRADES, "SPY", DAY)
    assert len(trades) == 0
    assert trades.symbols == []
    assert trades["price"].dtype == np.float64


def test_what_was_never_written_is_named_with_the_way_out(catalog: Catalog) -> None:
    with pytest.raises(DataError, match=r"no option_quotes of QQQ on 2026-01-05.*trading download"):
        catalog.read(QUOTES, "QQQ", DAY)


def test_the_same_source_replaces_its_rows_and_leaves_those_of_others(catalog: Catalog) -> None:
    write(catalog, QUOTES, {"SPY": [quote(CALL, 1), quote(CALL, 2)]}, source="a")
    write(catalog, QUOTES, {"SPY": [quote(CALL, 3)]}, source="b")
    write(catalog, QUOTES, {"SPY": [quote(CALL, 4)]}, source="a")
    assert catalog.read(QUOTES, "SPY", DAY)["ts_ns"].tolist() == [3, 4]
    assert catalog.read(QUOTES, "SPY", DAY, source="a")["ts_ns"].tolist() == [4]
    assert catalog.sources(QUOTES, "SPY", DAY) == ["a", "b"]


def test_a_source_may_have_a_file_for_each_of_its_parts(catalog: Catalog) -> None:
    write(catalog, QUOTES, {"SPY": [quote(CALL, 1)]}, source="rest.one")
    write(catalog, QUOTES, {"SPY": [quote(PUT, 2)]}, source="rest.two")
    write(catalog, QUOTES, {"SPY": [quote(PUT, 3)]}, source="restless")
    assert catalog.read(QUOTES, "SPY", DAY, source="rest")["ts_ns"].tolist() == [1, 2]
    assert catalog.read(QUOTES, "SPY", DAY, source="rest.two")["ts_ns"].tolist() == [2]


def test_a_quote_that_two_sources_have_is_one_row(catalog: Catalog) -> None:
    again = [quote(CALL, 1, 1), quote(PUT, 1, 1), quote(CALL, 1, 2), quote(CALL, 2, 3)]
    write(catalog, QUOTES, {"SPY": again}, source="flat-file")
    write(catalog, QUOTES, {"SPY": [*again[1:], quote(CALL, 2, 4)]}, source="rest.put")
    rows = catalog.read(QUOTES, "SPY", DAY)
    keys = zip(
        rows["ts_ns"].tolist(), rows["sequence"].tolist(), rows.contract.tolist(), strict=True
    )
    assert list(keys) == [(1, 1, 0), (1, 1, 1), (1, 2, 0), (2, 3, 0), (2, 4, 0)]


def test_a_complete_source_takes_back_underlyings_that_it_no_longer_has(catalog: Catalog) -> None:
    both = {"QQQ": [quote(CALL, 1)], "SPY": [quote(CALL, 1)]}
    write(catalog, QUOTES, both, complete=True)
    write(catalog, QUOTES, both, day=NEXT_DAY, complete=True)
    write(catalog, QUOTES, {"SPY": [quote(CALL, 2)]}, complete=True)
    assert catalog.partitions(QUOTES, DAY) == [Partition(QUOTES, DAY, "SPY")]
    assert len(catalog.partitions(QUOTES, NEXT_DAY)) == 2


def test_a_filtered_source_leaves_the_other_underlyings(catalog: Catalog) -> None:
    write(catalog, QUOTES, {"QQQ": [quote(CALL, 1)]})
    write(catalog, QUOTES, {"SPY": [quote(CALL, 1)]})
    assert [each.underlying for each in catalog.partitions(QUOTES)] == ["QQQ", "SPY"]


def test_partitions_are_found_by_kind_day_and_underlying(catalog: Catalog) -> None:
    write(catalog, QUOTES, {"SPY": [], "BRK.B": []})
    write(catalog, Kind.STOCK_BARS, {"SPY": []}, day=NEXT_DAY)
    assert catalog.partitions(underlying="SPY") == [
        Partition(QUOTES, DAY, "SPY"),
        Partition(Kind.STOCK_BARS, NEXT_DAY, "SPY"),
    ]
    assert catalog.partitions(day=DAY, underlying="BRK.B") == [Partition(QUOTES, DAY, "BRK.B")]
    assert Catalog(catalog.folder / "none").partitions() == []


def test_a_strange_ticker_stays_inside_the_catalogue(catalog: Catalog) -> None:
    write(catalog, Kind.STOCK_BARS, {"../../X Y": [bar("../../X Y", 1)]})
    assert catalog.partitions() == [Partition(Kind.STOCK_BARS, DAY, "../../X Y")]
    assert catalog.read(Kind.STOCK_BARS, "../../X Y", DAY).symbols == ["../../X Y"]
    assert [each.name for each in catalog.folder.parent.iterdir()] == ["catalog"]


def test_a_write_that_fails_leaves_the_catalogue_as_it_was(catalog: Catalog) -> None:
    write(catalog, QUOTES, {"SPY": [quote(CALL, 1)]})
    with pytest.raises(RuntimeError), catalog.writing(QUOTES, DAY, "test") as writer:
        for underlying in ("SPY", "QQQ"):
            writer.add(underlying, pa.RecordBatch.from_pylist([quote(CALL, 2)], SCHEMAS[QUOTES]))
        raise RuntimeError
    assert catalog.partitions() == [Partition(QUOTES, DAY, "SPY")]
    assert catalog.read(QUOTES, "SPY", DAY)["ts_ns"].tolist() == [1]
    assert staged(catalog) == []


def test_what_a_killed_writer_left_is_removed_and_a_live_writers_is_not(catalog: Catalog) -> None:
    program = (
        "import sys; from datetime import date; from pathlib import Path\n"
        "from trading.data.catalog import Catalog, Kind\n"
        "with Catalog(Path(sys.argv[1])).writing(Kind.OPTION_QUOTES, date(2026, 1, 5), 'x'):\n"
        "    print('writing', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(catalog.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        write(catalog, QUOTES, {"SPY": [quote(CALL, 1)]})
        assert len(staged(catalog)) == 1
        os.kill(process.pid, signal.SIGKILL)
    write(catalog, QUOTES, {"SPY": [quote(CALL, 2)]})
    assert staged(catalog) == []
    assert catalog.read(QUOTES, "SPY", DAY)["ts_ns"].tolist() == [2]


def test_hundreds_of_underlyings_are_written_one_after_the_other(catalog: Catalog) -> None:
    names = [f"S{number:03d}" for number in range(200)]
    write(catalog, Kind.STOCK_BARS, {name: [bar(name, 1)] for name in names})
    assert [each.underlying for each in catalog.partitions()] == names
    assert catalog.read(Kind.STOCK_BARS, "S000", DAY).symbols == ["S000"]


def test_an_underlying_that_comes_back_after_many_others_is_refused(catalog: Catalog) -> None:
    empty = pa.RecordBatch.from_pylist([], SCHEMAS[QUOTES])
    with (
        pytest.raises(DataError, match="S0 come back after 64"),
        catalog.writing(QUOTES, DAY, "x") as writer,
    ):
        for number in [*range(65), 0]:
            writer.add(f"S{number}", empty)
    assert catalog.partitions() == []


def test_a_damaged_file_is_named(catalog: Catalog) -> None:
    write(catalog, QUOTES, {"SPY": [quote(CALL, 1)]})
    (file,) = catalog.folder.rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match=str(file)):
        catalog.read(QUOTES, "SPY", DAY)


def test_other_readers_of_parquet_understand_the_files(catalog: Catalog) -> None:
    write(catalog, QUOTES, {"SPY": [quote(CALL, 1)]})
    rows = pq.read_table(catalog.folder / "option_quotes").to_pylist()
    assert [(row["underlying"], row["symbol"]) for row in rows] == [("SPY", CALL)]
    (file,) = catalog.folder.rglob("*.parquet")
    assert pq.read_schema(file).equals(SCHEMAS[QUOTES])
