"""Reading the vendor's flat files: real data where it is at hand, small files otherwise."""

import gzip
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from trading.data.flatfiles import (
    load_minute_bars,
    load_quotes,
    minute_bars_path,
    quotes_path,
)
from trading.errors import FlatFileError

SHARED = Path(__file__).parents[2].parent / "shared"
GOOG_DAY = date(2015, 12, 24)
DAY = date(2026, 1, 5)
OPEN_NS = 1_767_623_400_000_000_000

QUOTE_HEADER = (
    "ticker,ask_exchange,ask_price,ask_size,bid_exchange,bid_price,bid_size,"
    "sequence_number,sip_timestamp\n"
)
BAR_HEADER = "ticker,volume,open,close,high,low,window_start,transactions\n"


@pytest.fixture
def goog_folder() -> Path:
    folder = SHARED / "data" / "flatfiles"
    if not quotes_path(folder, GOOG_DAY).is_file():
        pytest.skip(f"real session {GOOG_DAY} of GOOG is absent: no file below {folder}")
    return folder


def write_gzip(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))
    return path


def test_paths_follow_the_vendors_layout() -> None:
    assert quotes_path(Path("f"), DAY) == Path(
        "f/us_options_opra/quotes_v1/2026/01/2026-01-05.csv.gz"
    )
    assert minute_bars_path(Path("f"), DAY) == Path(
        "f/us_stocks_sip/minute_aggs_v1/2026/01/2026-01-05.csv.gz"
    )


def test_a_real_day_is_complete_and_sorted_by_time(goog_folder: Path) -> None:
    table = load_quotes(goog_folder, GOOG_DAY, ["GOOG"])
    assert len(table) == 275_552
    assert len(table.symbols) == 2_192
    assert table.symbols == sorted(table.symbols)
    assert np.all(np.diff(table.ts_ns) >= 0)
    assert np.array_equal(np.unique(table.contract), np.arange(2_192))


def test_a_real_day_keeps_its_missing_sides(goog_folder: Path) -> None:
    table = load_quotes(goog_folder, GOOG_DAY, ["GOOG"])
    assert np.all(table.bid >= 0.0)
    assert np.count_nonzero(table.bid == 0.0) > 0
    assert np.count_nonzero(table.ask == 0.0) > 0
    assert not np.isnan(table.bid).any()


def test_real_minute_bars_are_sorted_and_bounded_by_their_extremes(goog_folder: Path) -> None:
    bars = load_minute_bars(goog_folder, GOOG_DAY, ["GOOG"])
    assert len(bars) == 227
    assert [bar.start_ns for bar in bars] == sorted(bar.start_ns for bar in bars)
    assert all(bar.low <= min(bar.open, bar.close, bar.vwap) + 1e-9 for bar in bars)
    assert all(bar.high >= max(bar.open, bar.close, bar.vwap) - 1e-9 for bar in bars)


def test_only_the_wanted_underlyings_are_kept(tmp_path: Path) -> None:
    rows = (
        f"O:SPY260109C00600000,1,1.25,3,1,1.20,4,7,{OPEN_NS + 2000}\n"
        f"O:SPY1260109C00600000,1,9.25,3,1,9.20,4,7,{OPEN_NS + 2500}\n"
        f"O:SPYG260109C00600000,1,5.25,3,1,5.20,4,7,{OPEN_NS + 1000}\n"
        f"O:TSLA260109P00300000,1,2.25,3,1,2.20,4,7,{OPEN_NS + 3000}\n"
    )
    write_gzip(quotes_path(tmp_path, DAY), QUOTE_HEADER + rows)
    table = load_quotes(tmp_path, DAY, ["SPY"])
    # SPY1 is an adjusted root of SPY; SPYG is another fund.
    assert table.symbols == ["O:SPY1260109C00600000", "O:SPY260109C00600000"]
    assert (table.ts_ns - OPEN_NS).tolist() == [2000, 2500]


def test_quotes_of_equal_time_keep_the_order_of_their_sequence(tmp_path: Path) -> None:
    rows = (
        f"O:SPY260109C00600000,1,1.25,3,1,1.20,4,9,{OPEN_NS + 1000}\n"
        f"O:SPY260109C00600000,1,1.30,3,1,1.20,4,8,{OPEN_NS + 1000}\n"
        f"O:SPY260109C00600000,1,1.35,3,1,1.20,4,7,{OPEN_NS + 3000}\n"
    )
    write_gzip(quotes_path(tmp_path, DAY), QUOTE_HEADER + rows)
    table = load_quotes(tmp_path, DAY, ["SPY"])
    assert table.sequence.tolist() == [8, 9, 7]
    assert table.ask.tolist() == [1.30, 1.25, 1.35]


def test_an_empty_price_is_an_absent_side(tmp_path: Path) -> None:
    write_gzip(
        quotes_path(tmp_path, DAY),
        QUOTE_HEADER + f"O:SPY260109C00600000,1,1.25,3,,,,9,{OPEN_NS + 1000}\n",
    )
    table = load_quotes(tmp_path, DAY, ["SPY"])
    assert (table.bid[0], table.bid_size[0], table.ask[0]) == (0.0, 0, 1.25)


def test_option_bars_are_read_by_underlying_and_may_have_fractional_volume(tmp_path: Path) -> None:
    rows = (
        f"O:SPY260109C00600000,2.5,1,2,3,0.5,{OPEN_NS},4\n"
        f"O:QQQ260109C00600000,1,1,1,1,1,{OPEN_NS},1\n"
    )
    write_gzip(minute_bars_path(tmp_path, DAY, "options"), BAR_HEADER + rows)
    (bar,) = load_minute_bars(tmp_path, DAY, ["SPY"], "options")
    assert bar.symbol == "O:SPY260109C00600000"
    assert (bar.open, bar.high, bar.low, bar.close, bar.volume) == (1.0, 3.0, 0.5, 2.0, 2.5)
    assert bar.vwap == pytest.approx((3.0 + 0.5 + 2.0) / 3)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FlatFileError, match=str(quotes_path(tmp_path, DAY))):
        load_quotes(tmp_path, DAY, ["SPY"])


def test_another_header_is_refused(tmp_path: Path) -> None:
    path = write_gzip(quotes_path(tmp_path, DAY), "ticker,price\nO:SPY260109C00600000,1\n")
    with pytest.raises(FlatFileError, match=str(path)):
        load_quotes(tmp_path, DAY, ["SPY"])


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    row = f"O:SPY260109C00600000,1,1.25,3,1,1.20,4,{{}},{OPEN_NS + 1000}\n"
    text = QUOTE_HEADER + "".join(row.format(number) for number in range(5_000))
    path = write_gzip(quotes_path(tmp_path, DAY), text)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FlatFileError, match=str(path)):
        load_quotes(tmp_path, DAY, ["SPY"])


def test_a_row_without_a_time_is_refused(tmp_path: Path) -> None:
    write_gzip(
        quotes_path(tmp_path, DAY), QUOTE_HEADER + "O:SPY260109C00600000,1,1.25,3,1,1.2,1,9,\n"
    )
    with pytest.raises(FlatFileError, match="sip_timestamp"):
        load_quotes(tmp_path, DAY, ["SPY"])


def test_a_malformed_option_symbol_costs_its_row(tmp_path: Path) -> None:
    rows = f"O:SPYC00600000,1,1.25,3,1,1.2,1,9,{OPEN_NS}\n"
    write_gzip(quotes_path(tmp_path, DAY), QUOTE_HEADER + rows)
    with pytest.raises(FlatFileError, match=r"1 with a ticker that is no .* line 2"):
        load_quotes(tmp_path, DAY, ["SPY"])
    rows += f"O:SPY260109C00600000,1,1.25,3,1,1.20,4,9,{OPEN_NS}\n"
    write_gzip(quotes_path(tmp_path, DAY), QUOTE_HEADER + rows)
    assert load_quotes(tmp_path, DAY, ["SPY"]).symbols == ["O:SPY260109C00600000"]
