"""Products follow the rulebook: hours, settlement and exercise of each root."""

import pytest

from trading.market.products import EQUITY, product_of


@pytest.mark.parametrize("root", ["GOOG", "AAPL", "TLT", "ARKK", "GOOG1"])
def test_unlisted_root_is_an_equity_option(root: str) -> None:
    assert product_of(root) is EQUITY
    assert not EQUITY.cash_settled
    assert not EQUITY.european
    assert EQUITY.calendar == "CBOE_Equity_Options"


@pytest.mark.parametrize("root", ["SPY", "QQQ", "IWM", "DIA", "XLF", "XRT"])
def test_broad_fund_trades_late_and_delivers_shares(root: str) -> None:
    product = product_of(root)
    assert product.calendar == "CBOE_Index_Options"
    assert not product.cash_settled
    assert not product.european
    assert not product.expires_with_stocks


@pytest.mark.parametrize("root", ["SPX", "SPXW", "XSP", "NDX", "NDXP", "RUT", "RUTW", "VIX", "XEO"])
def test_index_option_is_european_and_pays_cash(root: str) -> None:
    product = product_of(root)
    assert product.calendar == "CBOE_Index_Options"
    assert product.cash_settled
    assert product.european


def test_oex_pays_cash_and_is_american() -> None:
    assert product_of("OEX").cash_settled
    assert not product_of("OEX").european


@pytest.mark.parametrize(("root", "early"), [("SPXW", True), ("XSP", True), ("SPX", False)])
def test_afternoon_settled_index_option_stops_with_stocks_on_its_last_day(
    root: str, early: bool
) -> None:
    assert product_of(root).expires_with_stocks == early
