"""Listed option contracts and the symbols that name them."""

import re
from dataclasses import dataclass
from datetime import date
from enum import IntEnum

from trading.errors import ContractError
from trading.market.products import is_root_of, product_of, underlying_of

_SYMBOL = re.compile(r"O:([A-Z][A-Z0-9.]{0,5})(\d{2})(\d{2})(\d{2})([CP])(\d{8})", re.ASCII)
_CENTURY = 2000


class Right(IntEnum):
    """Call or put; the value is the sign of the payoff's slope."""

    CALL = 1
    PUT = -1


@dataclass(frozen=True, slots=True, order=True)
class OptionContract:
    """One listed option, ordered by root, expiry, right (puts first) and strike.

    Parameters
    ----------
    root : str
        OCC root, usually the underlying; an adjusted contract's root ends in a digit (`GOOG1`).
    expiry : date
        Last trading day in New York.
    right : Right
        Call or put.
    strike_milli : int
        Strike in thousandths of a dollar, which keeps it exact.
    """

    root: str
    expiry: date
    right: Right
    strike_milli: int

    @property
    def strike(self) -> float:
        """Strike in USD per share."""
        return self.strike_milli / 1000

    @property
    def symbol(self) -> str:
        """The symbol that names the contract, as in `O:SPY251219C00650000`."""
        right = "C" if self.right is Right.CALL else "P"
        return f"O:{self.root}{self.expiry:%y%m%d}{right}{self.strike_milli:08d}"

    @property
    def is_adjusted(self) -> bool:
        """Whether a corporate action changed what the contract delivers."""
        return self.root[-1].isdigit()

    @property
    def underlying(self) -> str:
        """The stock, fund or index, as far as the root alone says it.

        Without the digit of an adjusted contract, and `SPX` for `SPXW`. That of `BRKB` is told by
        its listing only.
        """
        return underlying_of(self.root)

    def is_on(self, underlying: str) -> bool:
        """Return whether this is an option on `underlying`: `BRKB` on `BRK.B`, `SPXW` on `SPX`."""
        return is_root_of(self.root, underlying)

    @property
    def refusal(self) -> str:
        """Why the contract is never opened, though it may be held and closed; or empty."""
        if self.is_adjusted:
            return "it delivers an adjusted number of shares"
        return product_of(self.root).refusal


def parse_symbol(symbol: str) -> OptionContract:
    """Read a symbol such as `O:SPY251219C00650000`.

    Raises
    ------
    ContractError
        The symbol has another form, names a day that does not exist, or has a strike of zero.

    Examples
    --------
    >>> parse_symbol("O:SPY251219C00650000").strike
    650.0
    """
    match = _SYMBOL.fullmatch(symbol)
    if match is None:
        raise ContractError(
            f"option symbol {symbol!r} is malformed: expected O:<root><yymmdd><C|P><strike x 1000 "
            "in 8 digits>, as in O:SPY251219C00650000"
        )
    root, year, month, day, right, strike = match.groups()
    try:
        expiry = date(_CENTURY + int(year), int(month), int(day))
    except ValueError as error:
        raise ContractError(
            f"option symbol {symbol!r} expires on {year}{month}{day}, which is no yymmdd date"
        ) from error
    if int(strike) == 0:
        raise ContractError(f"option symbol {symbol!r} has strike 0: a strike is above zero")
    return OptionContract(root, expiry, Right.CALL if right == "C" else Right.PUT, int(strike))
