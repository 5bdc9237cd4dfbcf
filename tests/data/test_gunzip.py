"""Gzip files that unfold to more than any market data does."""

import gzip
import re
from datetime import date
from pathlib import Path

import pytest

from tests.data.command import trading
from trading.data.flatfiles import load_minute_bars, load_quotes, minute_bars_path, quotes_path
from trading.data.gunzip import verify_gzip
from trading.errors import FlatFileError

DAY = date(2026, 1, 5)
QUOTES = (
    b"ticker,ask_exchange,ask_price,ask_size,bid_exchange,bid_price,bid_size,sequence_number,"
    b"sip_timestamp\n"
)
BARS = b"ticker,volume,open,close,high,low,window_start,transactions\n"
ROW = b"O:SPY260116C00500000,302,1.0,1,302,0.9,1,1,1767623400000000000\n"
BAR = b"SPY,1,1.0,1.0,1.0,1.0,1767623400000000000,1\n"
MIB = 1 << 20


def write_bomb(path: Path, head: bytes, regular: bytes) -> Path:
    """A file of half a megabyte that unfolds to more than 300: members of one stream."""
    path.parent.mkdir(parents=True, exist_ok=True)
    member = gzip.compress(regular * (16 * MIB // len(regular)))
    path.write_bytes(gzip.compress(head) + member * 20)
    assert path.stat().st_size < 3 * MIB
    return path


@pytest.mark.parametrize("regular", [ROW, b"\n", b"\0"])
def test_a_bomb_of_quotes_is_refused_before_it_fills_the_memory(
    tmp_path: Path, regular: bytes
) -> None:
    path = write_bomb(quotes_path(tmp_path, DAY), QUOTES, regular)
    with pytest.raises(FlatFileError, match=re.escape(str(path))):
        load_quotes(tmp_path, DAY, ["SPY"])
    with pytest.raises(FlatFileError, match="unfolds to more than 200 times its size"):
        verify_gzip(path, str(path))


def test_a_bomb_of_bars_is_refused(tmp_path: Path) -> None:
    path = write_bomb(minute_bars_path(tmp_path, DAY), BARS, BAR)
    with pytest.raises(FlatFileError, match=f"{re.escape(str(path))}.* unfolds to more"):
        load_minute_bars(tmp_path, DAY, ["SPY"])


@pytest.mark.parametrize("regular", [ROW, b'"' + b"a" * 1023])
def test_the_command_that_imports_a_bomb_ends_in_one_line(tmp_path: Path, regular: bytes) -> None:
    path = write_bomb(quotes_path(tmp_path / "files", DAY), QUOTES, regular)
    done = trading("import", str(tmp_path / "files"), "--set", f"paths.state_dir={tmp_path}")
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"trading: flat file {path}")


def test_short_files_may_be_as_regular_as_they_like(tmp_path: Path) -> None:
    path = tmp_path / "short.gz"
    path.write_bytes(gzip.compress(b"\0" * (100 * MIB)))
    assert verify_gzip(path, "short") == 100 * MIB
