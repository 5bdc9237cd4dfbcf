"""What kind of option an underlying has: its roots, hours, exercise and settlement.

Sources: Cboe Rule 5.1 (trading hours: options on broad indices and on some funds trade until 16:15
New York, and those that settle at an afternoon's index level until 16:00 on their last day), Cboe
Rule 4.13 (index options: cash settlement and European exercise of SPX, XSP, RUT, VIX; OEX is
American; which series settle at the opening). The funds are those that brokers' lists of late
options agree on.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_DIGITS = "0123456789"


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
    settles_at_open : bool
        Whether the level that settles them is made of the opening prices of the morning after
        their last session.
    """

    calendar: str = "CBOE_Equity_Options"
    cash_settled: bool = False
    european: bool = False
    expires_with_stocks: bool = False
    settles_at_open: bool = False

    @property
    def refusal(self) -> str:
        """Why these options are never opened; empty when they are."""
        if self.settles_at_open:
            return "they settle at the opening of the day after they stop trading, unseen"
        if self.cash_settled and not self.european:
            return "they settle in cash and may be exercised on any day"
        return ""


EQUITY = Product()
"""Options on a stock or a narrow fund: American, physically delivered, until 16:00."""

_LATE = "CBOE_Index_Options"
_FUND = Product(_LATE)
_MORNING_INDEX = Product(_LATE, cash_settled=True, european=True, settles_at_open=True)
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

INDEX_ROOTS: Final[dict[str, tuple[str, ...]]] = {
    "SPX": ("SPX", "SPXW"),
    "XSP": ("XSP",),
    "NDX": ("NDX", "NDXP"),
    "RUT": ("RUT", "RUTW"),
    "MRUT": ("MRUT",),
    "DJX": ("DJX",),
    "OEX": ("OEX", "XEO"),
    "VIX": ("VIX", "VIXW"),
}
"""The roots of options on each index."""

_INDEX_OF = {root: index for index, roots in INDEX_ROOTS.items() for root in roots}


def product_of(root: str) -> Product:
    """Return the product of an option root or underlying, as in `SPXW` or `GOOG`."""
    found = _PRODUCTS.get(root)
    return found if found is not None else _PRODUCTS.get(root.rstrip(_DIGITS), EQUITY)


def is_index(underlying: str) -> bool:
    """Return whether an underlying is an index, which has options and no shares."""
    return product_of(underlying).cash_settled


def roots_of(underlying: str) -> tuple[str, ...]:
    """Return the roots of the standard options on an underlying.

    Options on one class of a stock have no dot in their root: those on `BRK.B` are `BRKB`. An
    index may have several roots: `SPX` has `SPX` and `SPXW`.
    """
    name = underlying.removeprefix("I:")
    return INDEX_ROOTS.get(name) or (_undotted(name),)


def main_root(underlying: str) -> str:
    """Return the root of an underlying's options that may be opened, else its first one."""
    roots = roots_of(underlying)
    return next((root for root in roots if not product_of(root).refusal), roots[0])


def underlying_of(root: str) -> str:
    """Return the underlying of a root, adjusted or not, as far as the root alone says it.

    That of `BRKB` is told by its listing only, see `is_root_of`.
    """
    standard = root.rstrip(_DIGITS)
    return _INDEX_OF.get(standard, standard)


def is_root_of(root: str, underlying: str) -> bool:
    """Return whether options with this root, adjusted or not, are options on this underlying.

    An option root also counts as an underlying of its own: `SPXW` lists `SPXW`.
    """
    names = {_undotted(root), _undotted(root.rstrip(_DIGITS))}
    return bool(names & {_undotted(underlying), *roots_of(underlying)})


def option_prefixes(underlyings: Iterable[str]) -> tuple[str, ...]:
    """Return what the symbols of all options on these underlyings begin with.

    Others' may as well.
    """
    names = (root for name in underlyings for root in (name, *roots_of(name)))
    return tuple(dict.fromkeys(f"O:{name}" for name in names))


def data_ticker(underlying: str) -> str:
    """Return the vendor's ticker for an underlying's prices.

    `I:SPX` for the index `SPX`, `GOOG` for GOOG.

    Reference data of options knows an index by its plain name.
    """
    index = _INDEX_OF.get(underlying)
    return f"I:{index}" if index else underlying


def underlying_named(ticker: str) -> str:
    """Return the underlying that the vendor's ticker means.

    `SPX` for `I:SPX`, `BRK.B` for `BRK/B`.
    """
    return ticker.removeprefix("I:").replace("/", ".")


def _undotted(name: str) -> str:
    return name.replace(".", "").replace("/", "")


def products_table() -> str:
    """Return what can be traded and what not, as a Markdown table, for `docs/products.md`."""
    rows = [
        "| underlying | root of the options | settlement | exercise | last trade of a day | "
        "opened |",
        "|---|---|---|---|---|---|",
        _row("stocks, funds", "the ticker without a dot", EQUITY),
        _row("funds that trade late", ", ".join(_FUNDS.split()), _FUND),
    ]
    for index, roots in INDEX_ROOTS.items():
        rows += [_row(index, root, _PRODUCTS[root]) for root in roots]
    return "\n".join(rows) + "\n"


def _row(underlying: str, root: str, product: Product) -> str:
    late = product.calendar == _LATE
    hours = "16:15" if late else "16:00"
    if product.expires_with_stocks:
        hours += ", 16:00 on the last day"
    if product.settles_at_open:
        settled = "cash, at the opening (AM)"
    elif product.cash_settled:
        settled = "cash, at the close (PM)"
    else:
        settled = "shares"
    style = "European" if product.european else "American"
    opened = f"no: {product.refusal}" if product.refusal else "yes"
    return f"| {underlying} | {root} | {settled} | {style} | {hours} | {opened} |"
