"""What kind of option an underlying has: its hours, its exercise and its settlement.

Sources: Cboe Rule 5.1 (trading hours: options on broad indices and on some funds trade until 16:15
New York, and those that settle at an afternoon's index level until 16:00 on their last day), Cboe
Rule 4.13 (index options: cash settlement and European exercise of SPX, XSP, RUT, VIX; OEX is
American). The funds are those that brokers' lists of late options agree on.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Product:
    """Rules that all options of one root share.

    Parameters
    ----------
    calendar : str
        Calendar of `pandas_market_calendars` that says when the options trade.
    cash_settled : bool
        Whether exercise pays the intrinsic value; otherwise it delivers shares.
    european : bool
        Whether exercise is possible at expiry only.
    expires_with_stocks : bool
        Whether contracts on their last day stop with the stock exchange, although others of the
        root trade on for a quarter of an hour.
    """

    calendar: str = "CBOE_Equity_Options"
    cash_settled: bool = False
    european: bool = False
    expires_with_stocks: bool = False


EQUITY = Product()
"""Options on a stock or a narrow fund: American, physically delivered, until 16:00."""

_LATE = "CBOE_Index_Options"
_FUND = Product(_LATE)
_MORNING_INDEX = Product(_LATE, cash_settled=True, european=True)
_INDEX = Product(_LATE, cash_settled=True, european=True, expires_with_stocks=True)
_FUNDS = (
    "DBA DBB DBC DBO DIA EEM EFA GAZ IWM IWN IWO IWV KBE KRE MDY MOO OEF OIL QQQ SLX SPY SVXY UNG "
    "UUP UVIX VIXM VIXY VXX VXZ XHB XLB XLE XLF XLI XLK XLP XLU XLV XLY XME XRT"
)
_PRODUCTS = {
    **dict.fromkeys(_FUNDS.split(), _FUND),
    **dict.fromkeys(("SPX", "NDX", "RUT", "DJX", "VIX", "VIXW"), _MORNING_INDEX),
    **dict.fromkeys(("SPXW", "XSP", "NDXP", "RUTW", "MRUT", "XEO"), _INDEX),
    "OEX": Product(_LATE, cash_settled=True, expires_with_stocks=True),
}


def product_of(root: str) -> Product:
    """The product of an option root or underlying, as in `SPXW` or `GOOG`."""
    return _PRODUCTS.get(root, EQUITY)
