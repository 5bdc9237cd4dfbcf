"""Dividends from a file, and by REST from a server that the vendor's client reads."""

import asyncio
from datetime import date
from pathlib import Path

import pytest

from tests.data.test_server import KEY, rest_client, run, running_server, scripted_source
from trading.data.dividend_file import read_dividends
from trading.data.massive.client.rest import RestClient
from trading.errors import DataError
from trading.market.dividends import Dividend

KNOWN = [
    Dividend("SPY", date(2026, 3, 20), 1.9),
    Dividend("SPY", date(2026, 6, 19), 2.0),
    Dividend("QQQ", date(2026, 3, 23), 0.7),
]


def test_dividends_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "dividends.csv"
    file.write_text("underlying,ex_date,amount\nSPY,2026-03-20,1.9\n\nqqq, 2026-03-23, 0.7\n")
    assert read_dividends(file) == [KNOWN[0], KNOWN[2]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty: the first line must be underlying,ex_date,amount"),
        ("ticker,date\n", "underlying, ex_date, amount is missing"),
        ("underlying,ex_date,amount\nSPY,20 March,1.9\n", "line 2, 'SPY,20 March,1.9'"),
        ("underlying,ex_date,amount\nSPY,2026-03-20,0\n", "above 0"),
        ("underlying,ex_date,amount\nSPY,2026-03-20\n", "line 2, 'SPY,2026-03-20'"),
        ("underlying,ex_date,amount\nSPY,2026-03-20,nan\n", "line 2"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line_and_the_way_out(
    tmp_path: Path, text: str, told: str
) -> None:
    file = tmp_path / "dividends.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=told):
        read_dividends(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read dividends"):
        read_dividends(tmp_path / "none.csv")


def test_the_server_tells_dividends_to_the_vendors_client_and_to_ours() -> None:
    async def body() -> None:
        async with running_server(scripted_source(), dividends=KNOWN) as (_, port):
            theirs = rest_client(port)
            rows = await asyncio.to_thread(lambda: list(theirs.list_stocks_dividends(ticker="SPY")))
            assert [(row.ex_dividend_date, row.cash_amount) for row in rows] == [
                ("2026-03-20", 1.9),
                ("2026-06-19", 2.0),
            ]

            def ours(symbol: str, last: date) -> list[Dividend]:
                with RestClient(f"http://127.0.0.1:{port}", KEY) as rest:
                    return rest.dividends(symbol, date(2026, 3, 1), last)

            assert await asyncio.to_thread(ours, "SPY", date(2026, 3, 31)) == [KNOWN[0]]
            assert await asyncio.to_thread(ours, "QQQ", date(2026, 12, 31)) == [KNOWN[2]]
            assert await asyncio.to_thread(ours, "IWM", date(2026, 12, 31)) == []

    run(body)
