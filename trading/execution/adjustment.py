"""What a corporate action makes of the positions on one underlying.

OCC By-Laws Article VI, section 11A, and its interpretations: a whole split multiplies contracts and
divides strikes, to the cent; any other split, a spin-off and a merger change what a contract
delivers, at the same strike, under a root with a digit; a special dividend lowers strikes by its
amount. Fractions of shares are paid in cash. The value of everything held is the same before and
after: the marks that this module returns say how it is spread.
"""

import math
from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import NamedTuple

import msgspec

from trading.errors import DataError
from trading.execution.deliverables import Deliverable, OtherShares
from trading.execution.events import Converted, CorporateActionApplied
from trading.execution.holdings import Position
from trading.execution.legs import is_stock
from trading.execution.money import round_usd
from trading.execution.portfolio import Account
from trading.market.contracts import OptionContract, parse_symbol
from trading.market.corporate_actions import (
    CorporateAction,
    Delisting,
    Merger,
    Rename,
    SpecialDividend,
    SpinOff,
    Split,
    action_id,
    adjusted_strike,
)


class Adjustment(NamedTuple):
    """The event that books an action, and what each position is worth then, USD a share."""

    event: CorporateActionApplied
    marks: dict[str, float]


def adjustment(
    account: Account,
    action: CorporateAction,
    marks: Mapping[str, float],
    spot: float,
    now_ns: int,
    *,
    adjusted_root: str = "",
) -> Adjustment:
    """Return what `action` makes of the account's positions; nothing is changed here.

    Parameters
    ----------
    marks : mapping of symbol to float
        Value of each position on the underlying before, USD a share.
    spot : float
        Last price of the underlying before, USD a share. It prices fractions of shares, and only
        where there are some may it be NaN.
    adjusted_root : str
        Root that the exchange lists adjusted contracts under; by default the first free one, as in
        `GOOG1`.

    Raises
    ------
    DataError
        A fraction of a share must be paid, or the value of a part be told, and `spot` is no price.
    """
    book = _Book(account, action, marks, spot, adjusted_root)
    for position in account.positions.values():
        if position.underlying == action.underlying:
            book.convert(position)
    event = CorporateActionApplied(
        ts_ns=now_ns,
        action=action_id(action),
        what=action.kind,
        underlying=action.underlying,
        ex_date=action.ex_date.isoformat(),
        terms=action.terms,
        converted=tuple(book.converted),
        after=book.after,
        cash=round_usd(book.cash) + 0.0,
        cash_in_lieu=round_usd(book.cash_in_lieu) + 0.0,
        moved=round_usd(book.moved) + 0.0,
        spun_off=action.new_symbol if isinstance(action, SpinOff) and book.spun_off else "",
        identifier=action.identifier,
    )
    return Adjustment(event, book.marks)


class _Book:
    """Collects what the positions on one underlying become."""

    def __init__(
        self,
        account: Account,
        action: CorporateAction,
        marks: Mapping[str, float],
        spot: float,
        adjusted_root: str,
    ) -> None:
        self.account = account
        self.action = action
        self.before = marks
        self.spot = spot
        self.after = _ticker_after(action)
        self.adjusted_root = adjusted_root
        self.roots: dict[str, str] = {}
        """Of adjusted contracts after the action, by those before."""
        self.converted: list[Converted] = []
        self.marks: dict[str, float] = {}
        self.cash = 0.0
        self.cash_in_lieu = 0.0
        self.moved = 0.0
        self.spun_off = False

    def convert(self, position: Position) -> None:
        """Work out what one position becomes."""
        if is_stock(position.symbol):
            self._convert_stock(position)
        else:
            self._convert_option(position)

    def _convert_stock(self, position: Position) -> None:
        action = self.action
        held = position.quantity * self.account.size(position.symbol)
        mark = self.before.get(position.symbol, position.average_price)
        if isinstance(action, SpinOff):
            self._spin_off(position, held, mark, action)
            return
        if isinstance(action, SpecialDividend):
            # The cash is paid by the dividend itself, in the same morning.
            self._keep(position, mark, action.price_after(mark) / mark if mark else 1.0)
            return
        if isinstance(action, Merger):
            self.cash += held * action.cash
            if action.ratio == 0:
                self._end(position)
                return
            ratio = action.ratio
        elif isinstance(action, Split):
            ratio = action.ratio
        else:
            ratio = Fraction(1)
        price = action.price_after(mark)
        whole, fraction = _whole(Fraction(round(held)) * ratio)
        if fraction:
            paid = float(fraction) * self._price(price, position.symbol)
            self.cash += paid
            self.cash_in_lieu += paid
        if whole == 0:
            self._end(position)
            return
        quantity, lot = _in_lots(whole, self.account.multiplier)
        average = position.average_price / float(ratio)
        self._become(position, self.after, quantity, average, price, lot=lot)
        if self.after != position.symbol:
            self.moved += whole * price

    def _spin_off(self, position: Position, held: float, mark: float, action: SpinOff) -> None:
        left = self._price(action.price_after(self._price(mark, position.symbol)), position.symbol)
        part = (mark - left) / float(action.ratio)
        self._keep(position, mark, left / mark)
        whole, fraction = _whole(Fraction(round(held)) * action.ratio)
        paid = float(fraction) * part
        self.cash += paid
        self.cash_in_lieu += paid
        if whole:
            quantity, lot = _in_lots(whole, self.account.multiplier)
            mark = self._joined(action.new_symbol, quantity, lot, part)
            self.converted.append(
                Converted("", 0, action.new_symbol, quantity, part, mark, lot=lot)
            )
            self.marks[action.new_symbol] = mark
            self.moved += whole * part
            self.spun_off = True

    def _convert_option(self, position: Position) -> None:
        action = self.action
        contract = parse_symbol(position.symbol)
        mark = self.before.get(position.symbol, position.average_price)
        delivered = self.account.deliverables.get(position.symbol)
        if delivered is None and isinstance(action, Split) and action.is_whole:
            times = action.new // action.old
            divided = adjusted_strike(action, contract.strike_milli)
            assert divided is not None
            self._become(
                position,
                _symbol(contract, self.after, divided),
                position.quantity * times,
                position.average_price / times,
                mark / times,
            )
            return
        if delivered is None and isinstance(action, SpecialDividend):
            strike = adjusted_strike(action, contract.strike_milli)
            if strike is not None:
                symbol = _symbol(contract, self.after, strike)
                self._become(position, symbol, position.quantity, position.average_price, mark)
                return
        changed = self._deliverable(delivered)
        if changed is None:
            symbol = _symbol(contract, self.after, contract.strike_milli, contract.root)
            self._become(position, symbol, position.quantity, position.average_price, mark)
        else:
            same = contract.underlying == self.after.replace(".", "")
            root = contract.root if delivered is not None and same else self._root(contract.root)
            symbol = OptionContract(
                root, contract.expiry, contract.right, contract.strike_milli
            ).symbol
            self._become(position, symbol, position.quantity, position.average_price, mark, changed)
        if self.after != position.underlying:
            self.moved += position.quantity * self.account.multiplier * mark

    def _root(self, before: str) -> str:
        """Return the root of adjusted contracts.

        One for each before, as they deliver different things.
        """
        if before not in self.roots:
            free = _free_root(self.account, self.after, set(self.roots.values()))
            self.roots[before] = free if self.roots else self.adjusted_root or free
        return self.roots[before]

    def _deliverable(self, held: Deliverable | None) -> Deliverable | None:
        """Return what a contract delivers after the action; None for what is standard."""
        action, multiplier = self.action, self.account.multiplier
        now = held or Deliverable(action.underlying, multiplier)
        if isinstance(action, Rename | Delisting):
            return held and msgspec.structs.replace(held, underlying=self.after)
        if isinstance(action, SpecialDividend):
            return msgspec.structs.replace(
                now, cash=round_usd(now.cash + now.shares * action.amount)
            )
        if isinstance(action, SpinOff):
            whole, fraction = _whole(Fraction(round(now.shares)) * action.ratio)
            price = (self.spot - action.price_after(self.spot)) / float(action.ratio)
            cash = now.cash
            if fraction:
                cash += float(fraction) * self._price(price, action.new_symbol)
            others = now.others
            if whole:
                price = self._price(price, action.new_symbol)
                others = (*others, OtherShares(action.new_symbol, float(whole), price))
            return msgspec.structs.replace(now, cash=round_usd(cash), others=others)
        ratio = action.ratio
        whole, fraction = _whole(Fraction(round(now.shares)) * ratio)
        cash = now.cash
        if isinstance(action, Merger):
            cash += now.shares * action.cash
        if fraction:
            price = self._price(action.price_after(self.spot), action.underlying)
            cash += float(fraction) * price
        after = Deliverable(self.after, float(whole), round_usd(cash), now.others)
        return None if after == Deliverable(self.after, multiplier) else after

    def _keep(self, position: Position, mark: float, factor: float) -> None:
        quantity, lot = position.quantity, self.account.stock_lots.get(position.symbol, 0.0)
        average = position.average_price * factor
        self._become(position, position.symbol, quantity, average, mark * factor, lot=lot)

    def _become(
        self,
        position: Position,
        into: str,
        quantity: int,
        average: float,
        mark: float,
        deliverable: Deliverable | None = None,
        lot: float = 0.0,
    ) -> None:
        mark = self._joined(into, quantity, lot, mark)
        self.converted.append(
            Converted(
                position.symbol,
                position.quantity,
                into,
                quantity,
                average,
                mark,
                deliverable,
                lot,
            )
        )
        self.marks[into] = mark

    def _joined(self, symbol: str, quantity: int, lot: float, mark: float) -> float:
        """Return the mark of what comes together with what is held of the same symbol already.

        There is one mark for all of it, at which all of it is worth what both were.
        """
        held = self.account.positions.get(symbol)
        if held is None or held.underlying == self.action.underlying:
            return mark
        ours = held.quantity * self.account.size(symbol)
        theirs = quantity * (lot or self.account.multiplier)
        known = self.before.get(symbol, held.average_price)
        if ours * theirs < 0.0:
            return known  # One closes the other; what is left is worth what it was.
        return (ours * known + theirs * mark) / (ours + theirs)

    def _end(self, position: Position) -> None:
        average = position.average_price
        self.converted.append(Converted(position.symbol, position.quantity, "", 0, average))

    def _price(self, price: float, symbol: str) -> float:
        if not 0.0 < price < math.inf:
            raise DataError(
                f"{self.action.underlying}: {self.action.terms} on {self.action.ex_date} needs a "
                f"price of {symbol}, which is {price}: it waits for one"
            )
        return price


def _ticker_after(action: CorporateAction) -> str:
    if isinstance(action, Rename):
        return action.new_symbol
    if isinstance(action, Merger) and action.new_symbol:
        return action.new_symbol
    return action.underlying


def _free_root(account: Account, ticker: str, besides: Collection[str]) -> str:
    stem = ticker.replace(".", "")
    taken = {parse_symbol(symbol).root for symbol in account.deliverables}.union(besides)
    number = 1
    while f"{stem}{number}" in taken:
        number += 1
    return f"{stem}{number}"


def _symbol(contract: OptionContract, ticker: str, strike_milli: int, root: str = "") -> str:
    """Return a contract's symbol with another strike, or under another ticker."""
    same = contract.underlying.replace(".", "") == ticker.replace(".", "")
    root = (root or contract.root) if same else ticker.replace(".", "")
    return OptionContract(root, contract.expiry, contract.right, strike_milli).symbol


def _whole(shares: Fraction) -> tuple[int, Fraction]:
    """Whole shares and the fraction of one, both with the sign of what is held."""
    whole = int(shares)
    return whole, shares - whole


def _in_lots(shares: int, multiplier: float) -> tuple[int, float]:
    """Units of stock and the shares of one, 0 for round lots."""
    lot = round(multiplier)
    return (shares // lot, 0.0) if shares % lot == 0 else (shares, 1.0)
