"""A second opinion on an account, from the rows of its journal and arithmetic of its own.

Nothing here is imported from the package: rows come as plain JSON, stock counts in shares, options
in contracts, money in decimals. What a corporate action makes of holdings is worked out from what
the exchange announced (`announce`), and what a row states of it is held against that.
"""

import re
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

Row = dict[str, Any]

HUNDRED = 100
"""Shares of a round lot, and what a contract's price is multiplied with."""
MICRO = Decimal("0.000001")
CENT = Decimal("0.01")
NEAR = Decimal("0.000005")
"""Money is kept in millionths: sums of rounded fractions differ by less than this."""
_SYMBOL = re.compile(r"O:([A-Z.]+\d?)(\d{6})([CP])(\d{8})")


def exact(number: float) -> Decimal:
    return Decimal(str(number))


def micros(number: Decimal) -> Decimal:
    return number.quantize(MICRO, ROUND_HALF_EVEN)


@dataclass(frozen=True)
class Terms:
    """What the symbol of an option says."""

    root: str
    expiry: date
    right: int
    strike: Decimal


def terms(symbol: str) -> Terms:
    match = _SYMBOL.fullmatch(symbol)
    assert match is not None, symbol
    root, day, right, milli = match.groups()
    expiry = date(2000 + int(day[:2]), int(day[2:4]), int(day[4:]))
    return Terms(root, expiry, 1 if right == "C" else -1, Decimal(milli) / 1000)


@dataclass(frozen=True)
class Delivery:
    """What one contract delivers for 100 times its strike."""

    shares: int = HUNDRED
    cash: Decimal = Decimal(0)
    others: tuple[tuple[str, int, Decimal], ...] = ()

    def value(self, spot: Decimal) -> Decimal:
        fixed = self.cash + sum((count * price for _, count, price in self.others), Decimal(0))
        return self.shares * spot + fixed


STANDARD = Delivery()


@dataclass(frozen=True)
class Announced:
    """A corporate action as the exchange tells it, and the last price of the stock before it."""

    kind: str
    spot: Decimal
    ratio: Fraction = Fraction(1)
    amount: Decimal = Decimal(0)
    """USD a share: of a special dividend, of a merger, or of the new share in a spin-off."""
    new_symbol: str = ""

    def price_after(self, price: Decimal) -> Decimal:
        least = min(price, CENT)
        ratio = Decimal(self.ratio.numerator) / Decimal(self.ratio.denominator)
        if self.kind == "split":
            return price / ratio
        if self.kind == "special_dividend":
            return max(price - self.amount, least)
        if self.kind == "spin_off":
            return max(price - ratio * self.amount, least)
        if self.kind == "merger":
            return max(price - self.amount, least) / ratio if ratio else self.amount
        return price


@dataclass
class Conversion:
    """What an action found and what it made: shares and contracts, and what these deliver."""

    before: dict[str, int]
    delivers: dict[str, Delivery]
    after: dict[str, int]
    cash: Decimal


@dataclass
class Ledger:
    """Cash, shares and contracts; every amount that a row states is computed again."""

    cash: Decimal
    shares: dict[str, int] = field(default_factory=dict)
    contracts: dict[str, int] = field(default_factory=dict)
    delivers: dict[str, Delivery] = field(default_factory=dict)
    """Of contracts that are not standard."""
    owner: dict[str, str] = field(default_factory=dict)
    """Ticker that a contract is on."""
    unit: dict[str, int] = field(default_factory=dict)
    """Shares that the journal counts a stock in, where these are no round lots."""
    announced: dict[str, Announced] = field(default_factory=dict)
    into_ex_date: dict[str, tuple[int, Decimal]] = field(default_factory=dict)
    """Shares held into an ex-date, and USD a share paid for it so far."""
    settled: set[tuple[str, int]] = field(default_factory=set)
    converted: dict[str, "Conversion"] = field(default_factory=dict)
    """What each action made, so that it can be turned back."""

    def announce(self, action: str, what: Announced) -> None:
        self.announced[action] = what

    def book(self, row: Row) -> None:
        does = {
            "order_filled": self._fill,
            "settled": self._settle,
            "dividend_paid": self._pay,
            "corporate_action_applied": self._convert,
            "carried": self._carry,
            "cash_moved": self._move_cash,
        }.get(row["kind"])
        if does is not None:
            does(row)

    def value(self, marks: dict[str, float]) -> float:
        """Cash and holdings at marks in USD a share."""
        held = {name: HUNDRED * count for name, count in self.contracts.items()} | self.shares
        return float(
            self.cash + sum((n * exact(marks[name]) for name, n in held.items()), Decimal(0))
        )

    def holdings(self) -> dict[str, int]:
        """Contracts and shares by symbol."""
        return self.contracts | self.shares

    def expired(self, today: date) -> set[str]:
        """Contracts that are held though they expired before a day: what is pending."""
        return {name for name in self.contracts if terms(name).expiry < today}

    def _fill(self, row: Row) -> None:
        fill = row["fill"]
        total = Decimal(0)
        for leg in fill["legs"]:
            # Prices are whole cents up to what binary makes of them.
            price, name, count = exact(round(leg["price"], 6)), leg["symbol"], leg["quantity"]
            if name.startswith("O:"):
                size = HUNDRED
                self.owner[name] = fill["underlying"]
                self._move_contracts(name, count)
            else:
                size = self.unit.get(name, HUNDRED)
                self._move_shares(name, count * size)
            total -= count * size * price
        assert abs(total - exact(fill["premium"])) < NEAR, (total, fill)
        assert fill["fees"] >= 0
        self.cash += total - exact(fill["fees"])

    def _settle(self, row: Row) -> None:
        name, held, spot = row["symbol"], row["quantity"], exact(row["underlying_price"])
        assert self.contracts[name] == held
        key = (name, row["ts_ns"])
        assert key not in self.settled, f"{key} settles twice"
        self.settled.add(key)
        option, delivery = terms(name), self.delivers.get(name, STANDARD)
        worth = delivery.value(spot) / HUNDRED
        intrinsic = micros(max(Decimal(0), option.right * (worth - option.strike)))
        in_the_money = intrinsic >= CENT
        moved = row.get("lots", 0) * round(row.get("lot", 0) or HUNDRED)
        assert moved % delivery.shares == 0 if delivery.shares else moved == 0
        turned = option.right * moved // delivery.shares if delivery.shares else 0
        assert abs(turned) <= abs(held)
        assert turned * held >= 0
        early = row.get("ending") == "assigned_early"
        if early:
            assert turned == held < 0
            assert option.right > 0
        elif delivery.shares and not delivery.others and in_the_money and held < 0:
            assert turned == held, "sold in the money and not assigned"
        elif not in_the_money:
            assert turned == 0
        paid = (held - turned) * HUNDRED * intrinsic if in_the_money else Decimal(0)
        aggregate = HUNDRED * option.strike - delivery.cash
        total = paid - option.right * turned * aggregate
        assert abs(total - exact(row["cash"])) < NEAR, (total, row)
        self.cash += total
        ticker = self.owner[name]
        self._move_contracts(name, -held)
        if moved:
            lot = round(row.get("lot", 0) or HUNDRED)
            self._count_in(ticker, lot)
            self._move_shares(ticker, moved)

    def _pay(self, row: Row) -> None:
        key = f"{row['underlying']} {row['ex_date']}"
        held, paid = self.into_ex_date.get(key, (self.shares.get(row["underlying"], 0), Decimal(0)))
        self.into_ex_date[key] = (held, paid + exact(row["amount"]))
        total = held * exact(row["amount"])
        assert abs(total - exact(row["cash"])) < NEAR, (total, row)
        self.cash += micros(total)

    def _carry(self, row: Row) -> None:
        self.cash += exact(row["interest"]) - sum(map(exact, row.get("borrow_fees", {}).values()))

    def _move_cash(self, row: Row) -> None:
        self.cash += exact(row["amount"])

    def _convert(self, row: Row) -> None:
        if row.get("undoes"):
            self._turn_back(row)
            return
        told = self.announced[row["action"]]
        ticker, after = row["underlying"], row["after"]
        found = self._on(ticker)
        delivered = {name: self.delivers[name] for name in found if name in self.delivers}
        assert after == (told.new_symbol if self._is_another(told) else ticker)
        into: dict[str, Row] = {}
        for each in row["converted"]:
            into[each["symbol"]] = each
        owned = [name for name in self.contracts if self.owner[name] == ticker]
        held = ([ticker] if ticker in self.shares else []) + owned
        assert {name for name in into if name} == set(held)
        cash = Decimal(0)
        stock = self.shares.pop(ticker, 0)
        self.unit.pop(ticker, None)
        options = [(name, self.contracts.pop(name)) for name in owned]
        for name, count in options:
            self._convert_option(name, count, told, into[name], after)
        if stock:
            cash += self._convert_stock(stock, told, into, after)
        assert abs(cash - exact(row.get("cash", 0.0))) < NEAR, (cash, row)
        self.cash += micros(cash)
        made = self._on(after) | (self._on(told.new_symbol) if told.kind == "spin_off" else {})
        self.converted[row["action"]] = Conversion(found, delivered, made, micros(cash))

    def _on(self, ticker: str) -> dict[str, int]:
        """Shares of a company and contracts on it."""
        held = {name: count for name, count in self.shares.items() if name == ticker}
        owned = {name: n for name, n in self.contracts.items() if self.owner[name] == ticker}
        return held | owned

    def _turn_back(self, row: Row) -> None:
        """What was converted is again what it was, and the cash for fractions goes back."""
        was = self.converted.pop(row["undoes"])
        for name, count in was.after.items():
            assert self.holdings()[name] == count
            move = self._move_contracts if name.startswith("O:") else self._move_shares
            move(name, -count)
        stated = {each["into"]: each for each in row["converted"] if each["into"]}
        assert stated.keys() == was.before.keys()
        for name, count in was.before.items():
            lot = round(stated[name].get("lot", 0) or HUNDRED)
            if name.startswith("O:"):
                assert stated[name]["into_quantity"] == count
                self.owner[name] = row["after"]
                self._move_contracts(name, count)
                if name in was.delivers:
                    self.delivers[name] = was.delivers[name]
                self._check_delivery(
                    was.delivers.get(name, STANDARD), stated[name]["deliverable"], row["after"]
                )
            else:
                self._receive(name, count, stated[name])
                assert self.unit[name] == lot
        assert abs(exact(row["cash"]) + was.cash) < NEAR
        self.cash -= was.cash

    @staticmethod
    def _is_another(told: Announced) -> bool:
        return told.kind == "rename" or (told.kind == "merger" and bool(told.new_symbol))

    def _convert_stock(
        self, stock: int, told: Announced, into: dict[str, Row], after: str
    ) -> Decimal:
        """Shares of before become shares of after; what is paid in cash for them."""
        whole, paid, ticker = stock, Decimal(0), after
        if told.kind in ("split", "merger"):
            became = stock * told.ratio
            whole = int(became)
            paid = self._of(became - whole, told.price_after(told.spot))
            if told.kind == "merger":
                paid += stock * told.amount
        elif told.kind == "spin_off":
            became = stock * told.ratio
            new = int(became)
            part = self._of(1 / told.ratio, told.spot - told.price_after(told.spot))
            paid = self._of(became - new, part)
            self._receive(told.new_symbol, new, into.get("", {}))
        self._receive(ticker, whole, next((each for name, each in into.items() if name
                                          and not name.startswith("O:")), {}))  # fmt: skip
        return paid

    def _receive(self, ticker: str, shares: int, stated: Row) -> None:
        if not shares:
            assert not stated.get("into_quantity")
            return
        lot = round(stated.get("lot", 0) or HUNDRED)
        assert (stated["into"], stated["into_quantity"] * lot) == (ticker, shares)
        self._count_in(ticker, lot)
        self._move_shares(ticker, shares)

    def _convert_option(
        self, name: str, count: int, told: Announced, stated: Row, after: str
    ) -> None:
        option, before = terms(name), self.delivers.pop(name, STANDARD)
        strike, became = option.strike, before
        times = told.ratio
        if before == STANDARD and told.kind == "split" and times.denominator == 1:
            strike = max((strike / times.numerator).quantize(CENT, ROUND_HALF_UP), CENT)
            count *= times.numerator
        elif (
            before == STANDARD
            and told.kind == "special_dividend"
            and (strike - told.amount >= CENT)
        ):
            strike = (strike - told.amount).quantize(CENT, ROUND_HALF_UP)
        else:
            became = self._delivery_after(before, told)
        new = terms(stated["into"])
        assert (new.expiry, new.right, new.strike) == (option.expiry, option.right, strike)
        assert stated["into_quantity"] == count
        self._check_delivery(became, stated.get("deliverable"), after)
        if became != STANDARD:
            self.delivers[stated["into"]] = became
        self.owner[stated["into"]] = after
        self._move_contracts(stated["into"], count)

    def _delivery_after(self, before: Delivery, told: Announced) -> Delivery:
        if told.kind == "special_dividend":
            return Delivery(before.shares, before.cash + before.shares * told.amount, before.others)
        became = before.shares * told.ratio
        whole = int(became)
        if told.kind == "spin_off":
            part = self._of(1 / told.ratio, told.spot - told.price_after(told.spot))
            cash = before.cash + self._of(became - whole, part)
            others = ((told.new_symbol, whole, part),) if whole else ()
            return Delivery(before.shares, micros(cash), before.others + others)
        if told.kind in ("split", "merger"):
            cash = before.cash + self._of(became - whole, told.price_after(told.spot))
            if told.kind == "merger":
                cash += before.shares * told.amount
            return Delivery(whole, micros(cash), before.others)
        return before

    @staticmethod
    def _of(part: Fraction, price: Decimal) -> Decimal:
        return price * part.numerator / part.denominator

    @staticmethod
    def _check_delivery(ours: Delivery, stated: Row | None, after: str) -> None:
        if ours == STANDARD:
            assert stated is None
            return
        assert stated is not None
        assert (stated["underlying"], round(stated["shares"])) == (after, ours.shares)
        assert abs(exact(stated.get("cash", 0.0)) - ours.cash) < NEAR
        others = stated.get("others", [])
        assert [(each["symbol"], each["shares"]) for each in others] == [
            (name, count) for name, count, _ in ours.others
        ]

    def _count_in(self, ticker: str, lot: int) -> None:
        """A stock is counted in the least unit of what is held and of what comes."""
        ours = self.unit.get(ticker, HUNDRED) if ticker in self.shares else HUNDRED
        self.unit[ticker] = min(ours, lot)

    def _move_shares(self, ticker: str, count: int) -> None:
        after = self.shares.get(ticker, 0) + count
        self.shares[ticker] = after
        if not after:
            del self.shares[ticker]
            self.unit.pop(ticker, None)

    def _move_contracts(self, name: str, count: int) -> None:
        after = self.contracts.get(name, 0) + count
        self.contracts[name] = after
        if not after:
            del self.contracts[name]
            self.delivers.pop(name, None)
