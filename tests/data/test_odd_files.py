"""Files as they come from spreadsheets, other programs and bad days: read, dropped, or refused."""

import gzip
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from trading.data.catalog import Catalog, Kind
from trading.data.corporate_action_file import read_corporate_actions
from trading.data.dividend_file import read_dividends
from trading.data.flatfile_import import Selection, flat_file_key, import_flat_file
from trading.data.flatfiles import load_minute_bars, load_quotes
from trading.data.recorded_session import RecordedSession
from trading.errors import DataError, FlatFileError
from trading.market.calendar import ExchangeCalendar
from trading.market.corporate_actions import Split
from trading.market.dividends import Dividend

DAY = date(2016, 1, 4)
OPEN_S = 1_451_917_800
QUOTES, BARS = Kind.OPTION_QUOTES, Kind.STOCK_BARS
QUOTE_HEADER = (
    "ticker,ask_exchange,ask_price,ask_size,bid_exchange,bid_price,bid_size,"
    "sequence_number,sip_timestamp"
)
BAR_HEADER = "ticker,volume,open,close,high,low,window_start,transactions"
QUOTE_ROWS = [
    f"O:ACME160108C{(100 + n) * 1000:08d},300,1.1{n},10,301,1.0{n},12,{n},{(OPEN_S + n) * 10**9}"
    for n in range(8)
]
BAR_ROWS = [f"ACME,1000,100,100.1,100.2,99.9,{(OPEN_S + 60 * n) * 10**9},10" for n in range(8)]


def rewritten(rows: list[str], column: int, change: Callable[[str], str]) -> list[str]:
    cells = [row.split(",") for row in rows]
    for row in cells:
        row[column] = change(row[column])
    return [",".join(row) for row in cells]


def write(folder: Path, kind: Kind, text: str | bytes, day: date = DAY) -> Path:
    path = folder / flat_file_key(kind, day)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(content))
    return path


def lines(header: str, rows: list[str], end: str = "\n") -> str:
    return end.join([header, *rows]) + end


UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
AS_WRITTEN: dict[str, str | bytes] = {
    "byte-order mark": b"\xef\xbb\xbf" + lines(QUOTE_HEADER, QUOTE_ROWS).encode(),
    "windows": lines(QUOTE_HEADER, QUOTE_ROWS, "\r\n"),
    "capitals": lines(QUOTE_HEADER.upper(), QUOTE_ROWS),
    "spaces": lines(QUOTE_HEADER.replace(",", " , "), [r.replace(",", " , ") for r in QUOTE_ROWS]),
    "quoted": lines(
        QUOTE_HEADER, [",".join(f'"{cell}"' for cell in row.split(",")) for row in QUOTE_ROWS]
    ),
    "other columns": lines(QUOTE_HEADER + ",more", [row + ",x" for row in QUOTE_ROWS]),
    "empty lines": lines(QUOTE_HEADER, [part for row in QUOTE_ROWS for part in (row, "")]),
    "floats": lines(QUOTE_HEADER, rewritten(QUOTE_ROWS, 7, lambda cell: cell + ".0")),
    "exponents": lines(QUOTE_HEADER, rewritten(QUOTE_ROWS, 2, lambda c: f"{float(c) * 100}e-2")),
    "fractional sizes": lines(QUOTE_HEADER, rewritten(QUOTE_ROWS, 3, lambda cell: cell + ".5")),
    "no line end": lines(QUOTE_HEADER, QUOTE_ROWS).rstrip("\n"),
    **{
        unit: lines(
            QUOTE_HEADER,
            rewritten(QUOTE_ROWS, 8, lambda cell, f=factor: str(int(cell) // f)),  # type: ignore[misc]
        )
        for unit, factor in UNITS.items()
    },
}


@pytest.mark.parametrize("how", AS_WRITTEN)
def test_the_same_rows_are_read_however_they_are_written(tmp_path: Path, how: str) -> None:
    write(tmp_path / "plain", QUOTES, lines(QUOTE_HEADER, QUOTE_ROWS))
    path = write(tmp_path / "odd", QUOTES, AS_WRITTEN[how])
    plain = load_quotes(tmp_path / "plain", DAY, ["ACME"])
    odd = load_quotes(tmp_path / "odd", DAY, ["ACME"])
    assert len(plain) == 8 and odd.symbols == plain.symbols
    for name in ("contract", "bid", "bid_size", "ask_size", "ts_ns", "sequence"):
        assert (getattr(odd, name) == getattr(plain, name)).all(), name
    assert odd.ask.tolist() == pytest.approx(plain.ask.tolist())
    report = import_flat_file(Catalog(tmp_path / "catalog"), path, QUOTES, DAY)
    assert (report.rows_read, report.rows_kept, report.dropped) == (8, 8, "")


ODD_QUOTES = {
    "a negative price": (rewritten(QUOTE_ROWS[:1], 5, lambda c: "-" + c)[0], "negative bid_price"),
    "a negative size": (rewritten(QUOTE_ROWS[:1], 3, lambda c: "-" + c)[0], "negative ask_size"),
    "no number": (rewritten(QUOTE_ROWS[:1], 2, lambda _: "NaN")[0], "ask_price that is no number"),
    "infinity": (rewritten(QUOTE_ROWS[:1], 2, lambda _: "inf")[0], "ask_price that is no number"),
    "words": (rewritten(QUOTE_ROWS[:1], 2, lambda _: "n/a")[0], "ask_price that is no number"),
    "huge": (
        rewritten(QUOTE_ROWS[:1], 7, lambda _: "9" * 25)[0],
        "sequence_number .* out of range",
    ),
    "a part": (QUOTE_ROWS[0][:40], "another number of columns"),
    "a header": (QUOTE_HEADER, "repeated headers"),
    "another day": (
        rewritten(QUOTE_ROWS[:1], 8, lambda c: str(int(c) + 86_400 * 10**9))[0],
        "not of 2016-01-04",
    ),
    "no time": (rewritten(QUOTE_ROWS[:1], 8, lambda _: "")[0], "without sip_timestamp"),
    "no ticker": (rewritten(QUOTE_ROWS[:1], 0, lambda _: "")[0], "without ticker"),
    "an odd ticker": ("O:ACMEpA" + QUOTE_ROWS[0][6:], "no standard option symbol"),
}


@pytest.mark.parametrize("odd", ODD_QUOTES)
def test_an_odd_row_costs_itself_and_is_counted_with_its_line(tmp_path: Path, odd: str) -> None:
    row, reason = ODD_QUOTES[odd]
    rows = [*QUOTE_ROWS[:3], row, *QUOTE_ROWS[3:]]
    path = write(tmp_path, QUOTES, lines(QUOTE_HEADER, rows))
    assert len(load_quotes(tmp_path, DAY, ["ACME"])) == 8
    for selection in (None, Selection(["ACME"])):
        report = import_flat_file(Catalog(tmp_path / "catalog"), path, QUOTES, DAY, selection)
        assert (report.rows_read, report.rows_kept) == (9, 8)
        assert re.search(rf"^1 .*{reason} \(first in line 5\)$", report.dropped), report.dropped


def test_odd_bars_cost_themselves(tmp_path: Path) -> None:
    odd = [
        BAR_ROWS[1],
        "ACME,0,0,0,0,0," + BAR_ROWS[2].split(",")[6] + ",0",
        BAR_ROWS[3].replace("100,100.1,100.2,99.9", "500,500.1,500.2,499.9"),
        BAR_ROWS[0].replace("100.2", "90").replace(f"{OPEN_S}", f"{OPEN_S - 60}"),
        BAR_ROWS[0].replace("1000,", "-5,").replace(f"{OPEN_S}", f"{OPEN_S - 120}"),
    ]
    path = write(tmp_path, BARS, lines(BAR_HEADER, [*BAR_ROWS, *odd]))
    kept = [bar.start_ns // 10**9 - OPEN_S for bar in load_minute_bars(tmp_path, DAY, ["ACME"])]
    assert kept == [0, 60, 120, 240, 300, 360, 420]
    report = import_flat_file(Catalog(tmp_path / "catalog"), path, BARS, DAY)
    for reason in ("1 repeated", "2 of a minute that", "open not above 0", "high or low", "volume"):
        assert reason in report.dropped


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (QUOTE_HEADER.replace("ticker", "symbol").encode(), "line 1.*ticker is missing"),
        (QUOTE_HEADER.replace(",", ";").encode(), "separated by ';'"),
        ((QUOTE_HEADER + ",ask_price").encode(), "ask_price is there twice"),
        (lines(QUOTE_HEADER, rewritten(QUOTE_ROWS, 5, lambda c: "-" + c)).encode(), "8 with neg"),
        (lines(QUOTE_HEADER, rewritten(QUOTE_ROWS, 8, lambda _: "7")).encode(), "8 not of 2016"),
    ],
)
def test_a_file_of_which_nothing_can_be_used_is_refused_with_what_helps(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = write(tmp_path, QUOTES, content)
    for read in (
        lambda: load_quotes(tmp_path, DAY, ["ACME"]),
        lambda: import_flat_file(Catalog(tmp_path / "catalog"), path, QUOTES, DAY),
    ):
        with pytest.raises(FlatFileError, match=reason) as caught:
            read()
        assert str(path) in str(caught.value)
        assert "download it again" not in str(caught.value)


def test_a_day_without_a_session_is_refused(tmp_path: Path) -> None:
    saturday = date(2016, 1, 2)
    path = write(tmp_path, QUOTES, lines(QUOTE_HEADER, QUOTE_ROWS), saturday)
    for read in (
        lambda: load_quotes(tmp_path, saturday, ["ACME"]),
        lambda: import_flat_file(Catalog(tmp_path / "catalog"), path, QUOTES, saturday),
    ):
        with pytest.raises(FlatFileError, match="Saturday, which is no session"):
            read()


def test_text_that_nobody_compressed_is_said_to_be_that(tmp_path: Path) -> None:
    path = write(tmp_path, QUOTES, "")
    path.write_text(lines(QUOTE_HEADER, QUOTE_ROWS))
    with pytest.raises(FlatFileError, match=r"no gzip file.*ticker.*compress it"):
        load_quotes(tmp_path, DAY, ["ACME"])


@pytest.mark.parametrize("at", [-8, -4, 40])
def test_a_short_gzip_file_that_is_damaged_is_said_to_be_that(tmp_path: Path, at: int) -> None:
    path = write(tmp_path, QUOTES, lines(QUOTE_HEADER, QUOTE_ROWS))
    damaged = bytearray(path.read_bytes())
    damaged[at] ^= 255
    path.write_bytes(bytes(damaged))
    with pytest.raises(FlatFileError, match=r"is damaged near byte.*download it again"):
        load_quotes(tmp_path, DAY, ["ACME"])


DIVIDENDS = [Dividend("SPY", date(2026, 3, 20), 1.69)]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfunderlying,ex_date,amount\r\nSPY,2026-03-20,1.69\r\n",
        "underlying,ex_date,amount\nSPY,2026-03-20,1.69\n".encode("utf-16"),
        b"underlying, ex_date, amount\n spy , 2026-03-20 , 1.69\n\n",
        b"Underlying;Ex_Date;Amount\nSPY;2026-03-20;1.69\n;;\n",
        b"amount\tunderlying\tex_date\n1.69e0\tSPY\t2026-03-20\n",
        b'"underlying","ex_date","amount","currency","paid"\n"SPY","2026-03-20","1.69","USD",""\n',
        b"\n\nunderlying,ex_date,amount,,\nSPY,2026-03-20,1.69,,",
    ],
)
def test_dividends_are_read_as_a_spreadsheet_saves_them(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dividends.csv"
    path.write_bytes(content)
    assert read_dividends(path) == DIVIDENDS


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"underlying,amount\nSPY,1\n", "line 1: .*ex_date is missing"),
        (b"underlying,ex_date,amount,amount\nSPY,2026-03-20,1,2\n", "amount is there twice"),
        (b"underlying,ex_date,amount\nSPY,2026-03-20\n", "line 2.*2 cells"),
        (b"underlying,ex_date,amount\nSPY,20.03.2026,1\n", "line 2.*is no date of the form"),
        (b"underlying,ex_date,amount\n\nSPY,2026-03-20,-1\n", "line 3.*-1"),
        (b"underlying,ex_date,amount\nSPY,2026-03-20,nan\n", "line 2.*nan"),
        (b"underlying,ex_date,amount,currency\nSPY,2026-03-20,1,CAD\n", "line 2.*CAD"),
        (b"underlying,ex_date,amount\n,2026-03-20,1\n", "line 2.*no ticker"),
        (b"underlying,ex_date,amount\nS\xff,2026-03-20,1\n", "no UTF-8"),
    ],
)
def test_a_wrong_dividend_is_refused_with_its_line(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "dividends.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_dividends(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfUnderlying, Ex_Date, Kind, New_Symbol, Ratio, Cash\r\n"
        b"spy,2026-03-20,Split,,2,\r\n",
        b"kind;underlying;ex_date;new_symbol;ratio;cash;note\nsplit;SPY;2026-03-20;;2;;x\n",
    ],
)
def test_corporate_actions_are_read_like_dividends(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "actions.csv"
    path.write_bytes(content)
    assert read_corporate_actions(path) == ([Split("SPY", date(2026, 3, 20), 2, 1)], [])


@pytest.mark.parametrize(
    "content",
    [
        b"underlying;ex_date;amount\nSPY;2026-03-20;1,69\n",
        b"sep=;\r\nunderlying;ex_date;amount\r\nSPY;2026-03-20;1.69\r\n",
        b"# written by hand\nunderlying,ex_date,amount\nSPY,2026-03-20 00:00:00,$1.69\n",
        b"underlying,ex_date,amount\nSPY,2026-03-20T00:00:00Z,1.69\n",
    ],
)
def test_dividends_are_read_as_spreadsheets_of_other_countries_save_them(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "dividends.csv"
    path.write_bytes(content)
    assert read_dividends(path) == DIVIDENDS


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("SPY;2026-03-20;1_69", "'1_69' is no number"),
        ("SPY;2026-03-20;", "a number is missing"),
        ("SPY;2026-03-20;1,690", "may be thousands"),
        ("SPY;03/04/2026;1.69", "is no date"),
        ("SPY;2026-W12-5;1.69", "is no date"),
        ("SPY;2026-03-20 16:00;1.69", "is no date"),
        ("SPY;2026-03-20;1.69\nSPY;2026-03-20;1,69", "line 3.*line 2 says the same"),
    ],
)
def test_what_may_mean_two_things_is_refused(tmp_path: Path, row: str, reason: str) -> None:
    path = tmp_path / "dividends.csv"
    path.write_text(f"underlying;ex_date;amount\n{row}\n")
    with pytest.raises(DataError, match=reason):
        read_dividends(path)


def test_two_dividends_of_one_date_are_two(tmp_path: Path) -> None:
    path = tmp_path / "dividends.csv"
    path.write_text("underlying,ex_date,amount,special\nSPY,2026-03-20,1,\nSPY,2026-03-20,1,yes\n")
    assert [each.special for each in read_dividends(path)] == [False, True]


def test_lines_that_end_with_a_carriage_return_alone_are_said_to_do_so(tmp_path: Path) -> None:
    write(tmp_path, QUOTES, lines(QUOTE_HEADER, QUOTE_ROWS).replace("\n", "\r"))
    with pytest.raises(FlatFileError, match="carriage return alone"):
        load_quotes(tmp_path, DAY, ["ACME"])


@pytest.mark.parametrize("cell", ["1_0", "x" * 200_000])
def test_a_cell_that_is_no_number_costs_its_row(tmp_path: Path, cell: str) -> None:
    odd = QUOTE_ROWS[0].split(",")
    odd[QUOTE_HEADER.split(",").index("bid_price")] = cell
    write(tmp_path, QUOTES, lines(QUOTE_HEADER, [",".join(odd), *QUOTE_ROWS[1:]]))
    assert len(load_quotes(tmp_path, DAY, ["ACME"])) == len(QUOTE_ROWS) - 1


@pytest.mark.parametrize("hours", [-3, 7])
def test_a_day_of_which_nothing_could_be_traded_is_refused(tmp_path: Path, hours: int) -> None:
    moved = rewritten(QUOTE_ROWS, 8, lambda cell: str(int(cell) + hours * 3600 * 10**9))
    quotes = write(tmp_path, QUOTES, lines(QUOTE_HEADER, moved))
    bars = write(tmp_path, BARS, lines(BAR_HEADER, BAR_ROWS))
    catalog, calendar = Catalog(tmp_path / "catalog"), ExchangeCalendar()
    import_flat_file(catalog, quotes, QUOTES, DAY)
    import_flat_file(catalog, bars, BARS, DAY)
    for read in (
        lambda: RecordedSession.from_flat_files(tmp_path, DAY, "ACME", calendar),
        lambda: RecordedSession.from_catalog(catalog, DAY, "ACME", calendar),
    ):
        with pytest.raises(DataError, match="no quote of ACME lies between the open and the close"):
            read()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("ACME,2026-01-06,split,,1_0,", "'1_0' is no ratio"),
        ("ACME,2026-01-06,split,,3:2,", "'3:2' is no ratio"),
        ("ACME,2026-01-06,split,,1/0,", "line 2"),
        ("ACME,2026-01-06,split,,1e30,", "is no ratio"),
        ("ACME,2026-01-06,split,,2,5", "a split has no cash"),
        ("ACME,2026-01-06,split,NEW,2,", "a split has no new_symbol"),
        ("ACME,2026-01-06,special_dividend,,2,4.5", "a special_dividend has no ratio"),
        ("ACME,2026-01-06,special_dividend,,,4_5", "'4_5' is no number"),
        ("ACME,2026-01-06,rename,new name,,", "'new name' is no ticker"),
        ("AC ME,2026-01-06,delisting,,,", "'AC ME' is no ticker"),
        ("ACME,2026-01-06,merger,ACME,1/2,", "cannot become itself"),
        ("ACME,2026-01-06,spin_off,,1/4,20", "the new symbol is empty"),
        ("ACME,06.01.2026,split,,2,", "is no date"),
    ],
)
def test_an_action_that_may_mean_something_else_is_refused(
    tmp_path: Path, row: str, reason: str
) -> None:
    path = tmp_path / "actions.csv"
    path.write_text(f"underlying,ex_date,kind,new_symbol,ratio,cash\n{row}\n")
    with pytest.raises(DataError, match=reason) as caught:
        read_corporate_actions(path)
    assert "line 2" in str(caught.value)


def test_the_ticker_of_a_class_is_read_as_others_write_it(tmp_path: Path) -> None:
    path = tmp_path / "dividends.csv"
    path.write_text("underlying,ex_date,amount\nbrk/b,2026-03-20,1.69\n")
    assert read_dividends(path) == [Dividend("BRK.B", date(2026, 3, 20), 1.69)]
    path.write_text("underlying,ex_date,amount\nBRK-B,2026-03-20,1.69\n")
    with pytest.raises(DataError, match="'BRK-B' is no ticker"):
        read_dividends(path)
