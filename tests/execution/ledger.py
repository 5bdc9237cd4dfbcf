"""A second opinion on an account: decimals and the arithmetic of the journal's events alone."""

from dataclasses import dataclass, field
from decimal import Decimal

from trading.execution.events import DividendPaid, Event, OrderFilled, Settled
from trading.execution.legs import terms_of


def exact(number: float) -> Decimal:
    return Decimal(str(number))


@dataclass
class Ledger:
    """Cash and quantities; every amount that an event states is computed again from its parts."""

    cash: Decimal
    multiplier: Decimal = Decimal(100)
    quantities: dict[str, int] = field(default_factory=dict)

    def book(self, event: Event) -> None:
        if isinstance(event, OrderFilled):
            self._fill(event)
        elif isinstance(event, Settled):
            self._settle(event)
        elif isinstance(event, DividendPaid):
            self.cash += event.lots * self.multiplier * exact(event.amount)

    def value(self, marks: dict[str, float]) -> float:
        worth = sum(quantity * exact(marks[symbol]) for symbol, quantity in self.quantities.items())
        return float(self.cash + self.multiplier * worth)

    def _fill(self, event: OrderFilled) -> None:
        for leg in event.fill.legs:
            # Prices are whole cents up to what binary makes of them.
            price = exact(round(leg.price, 6))
            self.cash -= leg.quantity * self.multiplier * price
            self._move(leg.symbol, leg.quantity)
        self.cash -= exact(event.fill.fees)

    def _settle(self, event: Settled) -> None:
        right, strike, _, root = terms_of(event.symbol)
        spot = exact(event.underlying_price)
        intrinsic = max(Decimal(0), right * (spot - exact(strike)))
        delivered = event.lots * right
        assert abs(delivered) <= abs(event.quantity)
        assert delivered * event.quantity >= 0
        exercised = intrinsic >= Decimal("0.01")
        paid = (event.quantity - delivered) * intrinsic if exercised else Decimal(0)
        self.cash += self.multiplier * (paid - event.lots * exact(strike))
        self._move(event.symbol, -event.quantity)
        self._move(root, event.lots)

    def _move(self, symbol: str, quantity: int) -> None:
        after = self.quantities.get(symbol, 0) + quantity
        self.quantities[symbol] = after
        if not after:
            del self.quantities[symbol]
