"""Every dollar of an account explained by what `trading journal export` prints, and by that alone.

A second opinion: decimals, the parts of each row, and no code of the account that wrote it.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

Row = dict[str, Any]
_OPTION = re.compile(r"O:([A-Z.]+)(\d*)(\d{6})([CP])(\d{8})")
_CENT = Decimal("0.01")


def exact(number: float) -> Decimal:
    """What a printed number says; prices are whole cents up to what binary makes of them."""
    return Decimal(str(round(number, 8)))


@dataclass
class Dollars:
    """Cash by what it came from and went to, positions, and what was not as its parts say."""

    by_category: dict[str, Decimal] = field(default_factory=dict)
    quantities: dict[str, int] = field(default_factory=dict)
    lots: dict[str, Decimal] = field(default_factory=dict)
    """Shares of one unit of a stock that is not held in round lots."""
    deliverables: dict[str, Row] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    multiplier: Decimal = Decimal(100)

    @property
    def cash(self) -> Decimal:
        return sum(self.by_category.values(), Decimal(0))

    def size(self, symbol: str) -> Decimal:
        return self.lots.get(symbol, self.multiplier)

    def value(self, marks: dict[str, float]) -> Decimal:
        """Cash and positions at `marks`."""
        worth = (
            quantity * self.size(symbol) * Decimal(marks[symbol])
            for symbol, quantity in self.quantities.items()
        )
        return self.cash + sum(worth, Decimal(0))

    def read(self, lines: Iterable[str]) -> "Dollars":
        for line in lines:
            row = json.loads(line)
            self.kinds[row["kind"]] += 1
            getattr(self, f"_{row['kind']}", lambda _: None)(row)
        return self

    def _book(self, category: str, amount: Decimal) -> None:
        self.by_category[category] = self.by_category.get(category, Decimal(0)) + amount

    def _agree(self, row: Row, what: str, told: float, parts: Decimal) -> Decimal:
        """What a row says, to the cent, which its parts must say too."""
        said = exact(told)
        if abs(said - parts) > _CENT / 2:
            self.faults.append(f"event {row['seq']}, {what}: {said} told, {parts} by its parts")
        return said

    def _account_opened(self, row: Row) -> None:
        self.multiplier = exact(row["multiplier"])
        self._book("deposit", exact(row["cash"]))

    def _cash_moved(self, row: Row) -> None:
        self._book("deposit", exact(row["amount"]))

    def _carried(self, row: Row) -> None:
        self._book("interest", exact(row["interest"]))
        for fee in row["borrow_fees"].values():
            self._book("borrow fees", -exact(fee))

    def _order_filled(self, row: Row) -> None:
        fill = row["fill"]
        paid = Decimal(0)
        for leg in fill["legs"]:
            symbol, quantity = leg["symbol"], leg["quantity"]
            paid -= quantity * self.size(symbol) * exact(leg["price"])
            self._move(row, symbol, quantity)
        self._book("trades", self._agree(row, "premium", fill["premium"], paid))
        self._book("fees", -exact(fill["fees"]))

    def _dividend_paid(self, row: Row) -> None:
        owed = row["lots"] * self.size(row["underlying"]) * exact(row["amount"])
        self._book("dividends", self._agree(row, "dividend", row["cash"], owed))

    def _settled(self, row: Row) -> None:
        symbol, quantity = row["symbol"], row["quantity"]
        match = _OPTION.fullmatch(symbol)
        assert match is not None
        sign = 1 if match[4] == "C" else -1
        strike = Decimal(match[5]) / 1000
        spot = exact(row["underlying_price"])
        delivered = self.deliverables.get(symbol)
        unit, in_cash = self.multiplier, Decimal(0)
        if delivered is not None:
            unit, in_cash = exact(delivered["shares"]), exact(delivered["cash"])
        intrinsic = max(Decimal(0), sign * (unit * spot + in_cash - self.multiplier * strike))
        if intrinsic < self.multiplier * _CENT:
            intrinsic = Decimal(0)
        shares = row["lots"] * (exact(row["lot"]) if row["lot"] else self.multiplier)
        contracts = sign * shares / unit
        if abs(contracts) > abs(quantity) or contracts * quantity < 0:
            self.faults.append(f"event {row['seq']} delivers {shares} shares for {quantity}")
        paid = (quantity - contracts) * intrinsic
        paid -= sign * contracts * (self.multiplier * strike - in_cash)
        category = "settlement" if not shares else "delivery"
        self._book(category, self._agree(row, f"settlement of {symbol}", row["cash"], paid))
        underlying = self.owner_of(symbol)
        self._move(row, symbol, -quantity)
        if shares:
            self._receive_stock(row, underlying, int(shares))

    def owner_of(self, symbol: str) -> str:
        """The stock behind an option."""
        if symbol in self.deliverables:
            return str(self.deliverables[symbol]["underlying"])
        match = _OPTION.fullmatch(symbol)
        assert match is not None
        return match[1]

    def _receive_stock(self, row: Row, ticker: str, shares: int) -> None:
        held = self.quantities.get(ticker, 0) * self.size(ticker)
        total = int(held) + shares
        self.quantities.pop(ticker, None)
        in_lots = total % self.multiplier == 0 and ticker not in self.lots and not row["lot"]
        if not in_lots and total:
            self.lots[ticker] = Decimal(1)
        elif not total:
            self.lots.pop(ticker, None)
        if total:
            self.quantities[ticker] = int(total / self.size(ticker))

    def _corporate_action_applied(self, row: Row) -> None:
        self.kinds[f"action {row['what']}"] += 1
        self._book("in lieu of fractions", exact(row["cash_in_lieu"]))
        self._book("corporate actions", exact(row["cash"]) - exact(row["cash_in_lieu"]))
        ratio = None
        if row["what"] == "split":
            new, old = row["terms"].split(" for ")
            ratio = Fraction(int(new), int(old))
        fractions = Decimal(0)
        for each in row["converted"]:
            before = each["symbol"]
            shares = each["quantity"] * self.size(before)
            if self.quantities.get(before, 0) != each["quantity"]:
                self.faults.append(f"event {row['seq']} converts {each['quantity']} {before}")
            after = each["into_quantity"] * (exact(each["lot"]) if each["lot"] else self.multiplier)
            if ratio is not None and not before.startswith("O:"):
                whole = Fraction(int(shares)) * ratio
                lost = whole - int(after)
                if abs(lost) >= 1:
                    self.faults.append(f"event {row['seq']}: {shares} {before} became {after}")
                price = exact(each["mark"])
                fractions += Decimal(lost.numerator) / lost.denominator * price
        for each in row["converted"]:
            if each["symbol"]:
                self.quantities.pop(each["symbol"], None)
                self.deliverables.pop(each["symbol"], None)
                self.lots.pop(each["symbol"], None)
        for each in row["converted"]:
            into = each["into"]
            if into:
                if each["lot"]:
                    self.lots[into] = exact(each["lot"])
                if each["deliverable"]:
                    self.deliverables[into] = each["deliverable"]
                self._move(row, into, each["into_quantity"])
        # What ended whole in cash has no price in the row.
        if all(each["into"] for each in row["converted"]):
            self._agree(row, "cash in lieu", row["cash_in_lieu"], fractions)

    def _move(self, row: Row, symbol: str, quantity: int) -> None:
        after = self.quantities.get(symbol, 0) + quantity
        self.quantities[symbol] = after
        if not after:
            del self.quantities[symbol]
            self.lots.pop(symbol, None)
            self.deliverables.pop(symbol, None)
