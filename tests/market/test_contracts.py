"""Symbols name contracts one to one."""

import csv
import gzip
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.errors import ContractError, DataError
from trading.market.chain import Chain
from trading.market.contracts import OptionContract, Right, parse_symbol

SHARED = Path(__file__).parents[2].parent / "shared"
REAL_QUOTES = SHARED / "data/flatfiles/us_options_opra/quotes_v1/2015/12/2015-12-24.csv.gz"
ASCII_OF_SYMBOLS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:"


def test_symbol_spells_root_expiry_right_and_strike() -> None:
    contract = OptionContract("SPY", date(2025, 12, 19), Right.CALL, 650_000)
    assert contract.symbol == "O:SPY251219C00650000"
    assert contract.strike == 650.0
    assert contract.underlying == "SPY"
    assert not contract.is_adjusted


def test_adjusted_root_names_its_underlying() -> None:
    contract = parse_symbol("O:GOOG1251219P00012500")
    assert contract.root == "GOOG1"
    assert contract.underlying == "GOOG"
    assert contract.is_adjusted
    assert contract.right is Right.PUT
    assert contract.strike == 12.5


def test_class_share_root_keeps_its_dot() -> None:
    assert parse_symbol("O:BRK.B260116C00500000").underlying == "BRK.B"


@given(
    root=st.from_regex(r"[A-Z][A-Z0-9.]{0,5}", fullmatch=True),
    expiry=st.dates(date(2000, 1, 1), date(2099, 12, 31)),
    right=st.sampled_from(Right),
    strike_milli=st.integers(1, 99_999_999),
)
def test_every_contract_survives_its_symbol(
    root: str, expiry: date, right: Right, strike_milli: int
) -> None:
    contract = OptionContract(root, expiry, right, strike_milli)
    assert parse_symbol(contract.symbol) == contract


@pytest.mark.parametrize(
    "symbol",
    [
        "",
        "SPY",
        "SPY251219C00650000",
        "o:SPY251219C00650000",
        "O:spy251219C00650000",
        "O:1SPY251219C00650000",
        "O:TOOLONG251219C00650000",
        "O:251219C00650000",
        "O:SPY251219X00650000",
        "O:SPY251219C0650000",
        "O:SPY251219C000650000",
        "O:SPY251319C00650000",
        "O:SPY250229C00650000",
        "O:SPY251219C00000000",
        "O:SPY251219C00650000\n",
        "O:SPY25121\N{ARABIC-INDIC DIGIT NINE}C00650000",
    ],
)
def test_malformed_symbol_is_refused_by_name(symbol: str) -> None:
    with pytest.raises(ContractError) as caught:
        parse_symbol(symbol)
    assert repr(symbol) in str(caught.value)


VALID = st.builds(
    OptionContract,
    root=st.from_regex(r"[A-Z][A-Z0-9.]{0,5}", fullmatch=True),
    expiry=st.dates(date(2000, 1, 1), date(2099, 12, 31)),
    right=st.sampled_from(Right),
    strike_milli=st.integers(1, 99_999_999),
).map(lambda contract: contract.symbol)


@given(symbol=VALID, data=st.data())
def test_foreign_character_anywhere_is_refused(symbol: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(symbol) - 1))
    foreign = data.draw(st.characters(exclude_characters=ASCII_OF_SYMBOLS))
    for broken in (
        symbol[:position] + foreign + symbol[position + 1 :],
        symbol[:position] + foreign + symbol[position:],
        symbol + foreign,
    ):
        with pytest.raises(ContractError):
            parse_symbol(broken)


@given(symbol=VALID, data=st.data())
def test_symbol_that_lost_a_character_of_its_fixed_part_is_refused(
    symbol: str, data: st.DataObject
) -> None:
    position = data.draw(st.sampled_from([0, 1, *range(len(symbol) - 9, len(symbol))]))
    with pytest.raises(ContractError):
        parse_symbol(symbol[:position] + symbol[position + 1 :])


@given(symbol=VALID, month=st.integers(13, 99), day=st.integers(32, 99))
def test_date_that_does_not_exist_is_refused(symbol: str, month: int, day: int) -> None:
    end = len(symbol) - 9
    for broken in (f"{month:02d}01", f"01{day:02d}", "0001", "0100", "0231"):
        with pytest.raises(ContractError, match="no yymmdd date"):
            parse_symbol(symbol[: end - 4] + broken + symbol[end:])


@given(text=st.text(max_size=30))
def test_whatever_is_read_spells_itself_again(text: str) -> None:
    try:
        contract = parse_symbol(text)
    except ContractError as error:
        assert repr(text) in str(error)
    else:
        assert contract.symbol == text


@pytest.mark.parametrize("root", ["GOOG1", "GOOG2", "SPY7"])
def test_adjusted_contract_is_recognised_and_not_traded(root: str) -> None:
    contract = OptionContract(root, date(2026, 1, 16), Right.CALL, 100_000)
    assert contract.is_adjusted
    with pytest.raises(DataError, match=contract.symbol):
        Chain(contract.underlying, [contract], [1_768_597_200_000_000_000])


def test_contracts_sort_by_root_expiry_right_strike() -> None:
    symbols = [
        "O:AAPL251219C00200000",
        "O:SPY251219P00640000",
        "O:SPY251219P00650000",
        "O:SPY251219C00640000",
        "O:SPY260116P00100000",
    ]
    contracts = [parse_symbol(symbol) for symbol in symbols]
    assert sorted(reversed(contracts)) == contracts


def test_every_real_symbol_round_trips() -> None:
    if not REAL_QUOTES.exists():
        pytest.skip(f"the real option session is absent: no {REAL_QUOTES}")
    with gzip.open(REAL_QUOTES, "rt") as file:
        symbols = {row[0] for row in csv.reader(file)} - {"ticker"}
    assert len(symbols) == 2192
    assert {parse_symbol(symbol).symbol for symbol in symbols} == symbols
