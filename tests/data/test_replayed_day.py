"""A replay takes a day from flat files, recordings and the catalogue: the same one from each."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.test_odd_files import (
    BAR_HEADER,
    BAR_ROWS,
    BARS,
    DAY,
    QUOTE_HEADER,
    QUOTE_ROWS,
    QUOTES,
    lines,
    write,
)
from trading.data.catalog import Catalog
from trading.data.flatfile_import import import_flat_file
from trading.data.massive.server.source import ReplaySource
from trading.data.recording import Recorder
from trading.data.replayed_day import load_day
from trading.errors import DataError
from trading.market.calendar import ExchangeCalendar
from trading.market.contracts import parse_symbol
from trading.market.option_quote import OptionQuote


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    write(tmp_path / "flat", QUOTES, lines(QUOTE_HEADER, QUOTE_ROWS))
    write(tmp_path / "flat", BARS, lines(BAR_HEADER, BAR_ROWS))
    return tmp_path / "flat"


def catalogued(flat: Path, folder: Path) -> Path:
    for kind in (QUOTES, BARS):
        (path,) = flat.glob(f"{'us_options_opra' if kind is QUOTES else 'us_stocks_sip'}/*/*/*/*")
        import_flat_file(Catalog(folder), path, kind, DAY)
    return folder


def recorded(flat: Path, folder: Path) -> Path:
    """As a live day of the same events is recorded."""
    day = load_day(flat, DAY, ["ACME"])
    session = ExchangeCalendar().session_on(DAY)
    assert session is not None
    table = day.quotes
    with Recorder(folder, waits=True) as recorder:
        recorder.begin_session(session)
        recorder.list_contracts("ACME", [parse_symbol(symbol) for symbol in table.symbols])
        known = (0.9, 1.0, 1.0, 1.0, session.open_ns - 1, 0)
        recorder.quote(OptionQuote(table.symbols[0], *known))
        for row in range(len(table)):
            columns = (table.bid, table.ask, table.bid_size, table.ask_size, table.ts_ns)
            quote = (column[row].item() for column in columns)
            sequence = int(table.sequence[row]) + 1
            recorder.quote(OptionQuote(table.symbols[table.contract[row]], *quote, sequence))
        for bar in day.bars:
            recorder.bar(bar)
        recorder.close_bar(session.close_ns)
    return folder


@pytest.mark.parametrize("made", [catalogued, recorded])
def test_a_replay_streams_the_same_day_from_each(flat: Path, tmp_path: Path, made: object) -> None:
    assert callable(made)
    one = ReplaySource(flat, DAY, ["ACME"])
    other = ReplaySource(made(flat, tmp_path / "other"), DAY, ["ACME"])
    assert one.start_ns == other.start_ns
    assert list(one.listing.symbols) == list(other.listing.symbols)
    for step, again in zip(one.steps(), other.steps(), strict=True):
        assert step.ts_ns == again.ts_ns and step.bars == again.bars
        for name in ("contract", "bid", "ask", "bid_size", "ask_size", "ts_ns"):
            assert np.array_equal(getattr(step.quotes, name), getattr(again.quotes, name)), name


def test_a_folder_without_the_day_says_what_it_may_hold(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds nothing of ACME on 2016-01-04.*recordings"):
        ReplaySource(tmp_path, DAY, ["ACME"])


def test_a_day_in_which_nothing_can_be_traded_is_refused(flat: Path) -> None:
    with pytest.raises(DataError, match="nothing could be traded"):
        ReplaySource(flat, DAY, ["OTHER"])
