"""What kind of option an underlying has: its hours, its exercise and its settlement.

Sources: Cboe Rule 5.1 (trading hours; options on broad-based funds and indices trade to 16:15 New
York), Cboe Rule 4.13 (index options: cash settlement and European exercise of SPX, XSP, RUT, VIX;
OEX is American).
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
    """

    calendar: str = "CBOE_Equity_Options"
    cash_settled: bool = False
    european: bool = False


EQUITY = Product()
"""Options on a stock or a narrow fund: American, physically delivered, until 16:00."""

_LATE = "CBOE_Index_Options"
_FUND = Product(_LATE)
_INDEX = Product(_LATE, cash_settled=True, european=True)
_PRODUCTS = {
    **dict.fromkeys(("SPY", "QQQ", "IWM", "DIA", "EFA", "EEM", "XLF", "XLE", "VXX", "UNG"), _FUND),
    **dict.fromkeys(("SPX", "SPXW", "XSP", "NDX", "NDXP", "RUT", "RUTW", "VIX", "VIXW"), _INDEX),
    **dict.fromkeys(("XEO", "DJX", "MRUT"), _INDEX),
    "OEX": Product(_LATE, cash_settled=True),
}


def product_of(root: str) -> Product:
    """The product of an option root or underlying, as in `SPXW` or `GOOG`."""
    return _PRODUCTS.get(root, EQUITY)
