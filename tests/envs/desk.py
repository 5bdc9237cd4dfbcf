"""A market told by hand: 100 USD stock, options on it quoted at Black's value, one account."""

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from tests.usual import risk_limits
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.live_env import LiveEnv
from trading.envs.rules import TradingRules
from trading.execution.broker import PaperBroker
from trading.execution.events import Settled
from trading.execution.journal import Journal
from trading.execution.matching import FillStyle
from trading.execution.orders import Fill, Intent, Leg, Order, QuoteView, Rejection
from trading.market.bars import StockBar
from trading.market.calendar import MINUTE_NS, ExchangeCalendar, Session
from trading.market.contracts import OptionContract, Right
from trading.market.option_quote import OptionQuote
from trading.market.pricing import YEAR_NS, black_price

CALENDAR = ExchangeCalendar()
DAY, FRIDAY, FEBRUARY = date(2026, 1, 5), date(2026, 1, 9), date(2026, 2, 6)
SYMBOL = "ACME"
CALL = "O:ACME260206C00100000"
LISTING = [
    OptionContract(SYMBOL, expiry, right, 1000 * strike)
    for expiry in (FRIDAY, FEBRUARY)
    for strike in range(80, 121)
    for right in Right
]
HALF_SPREAD = 0.02


def session(day: date = DAY) -> Session:
    found = CALENDAR.session_on(day)
    assert found is not None
    return found


def at(minute: float) -> int:
    return session().open_ns + round(minute * MINUTE_NS)


def fair(contract: OptionContract, spot: float, now_ns: int, iv: float = 0.3) -> float:
    years = max(CALENDAR.expiry_ns(contract.expiry) - now_ns, 0) / YEAR_NS
    discount = math.exp(-DEFAULT_RULES.rate * years)
    forward = spot / discount
    return black_price(int(contract.right), forward, contract.strike, years, discount, iv)


class Desk:
    """Tells `env` bars and quotes, minute by minute of one session."""

    def __init__(self, journal: Journal, rules: TradingRules = DEFAULT_RULES) -> None:
        account = journal.open_account("paper", 100_000.0, session().open_ns)
        limits = risk_limits(max_order_notional=1e9, max_contracts_per_order=50)
        self.journal = journal
        self.broker = PaperBroker(
            journal,
            account,
            DEFAULT_FEES,
            limits,
            style=FillStyle(rules.fill_style),
            working_steps=rules.working_steps,
        )
        self.env = LiveEnv((SYMBOL,), rules, DEFAULT_FEES, CALENDAR, self.broker)
        self.env.begin_session(session())
        self.env.list_contracts(SYMBOL, LISTING)
        self._told = 0

    def quote(self, bid: float, ask: float, minute: float, symbol: str = CALL) -> bool:
        self._told += 1
        quote = OptionQuote(symbol, bid, ask, 50.0, 50.0, at(minute), self._told)
        return self.env.apply_quote(quote)

    def chain(self, minute: float, spot: float, without: Collection[str] = ()) -> None:
        for contract in LISTING:
            if contract.symbol not in without:
                bid = round(max(fair(contract, spot, at(minute)) - HALF_SPREAD, 0.0), 2)
                self.quote(bid, bid + 2 * HALF_SPREAD, minute, contract.symbol)

    def stock(self, minute: float, price: float) -> bool:
        """The bar of the minute that ends at `minute`."""
        start_ns = at(minute) - MINUTE_NS
        return self.env.apply_bar(
            StockBar(SYMBOL, start_ns, price, price, price, price, 1e4, price)
        )

    def close_bar(self, minute: float) -> None:
        self.env.close_bar(at(minute), session())

    def minute(self, minute: float, spot: float, chain: bool = True) -> None:
        """A whole minute: the chain, the stock and the bar's close."""
        if chain:
            self.chain(minute, spot)
        self.stock(minute, spot)
        self.close_bar(minute)

    def held_against(self, symbol: str = CALL) -> QuoteView:
        return self.env._quotes([symbol])[symbol]

    def mark(self, symbol: str = CALL) -> float:
        market, i = self.env._contracts[symbol]
        return float(market.chain.columns.mark[i])

    def order(self, minute: float, ratio: int, units: int = 1) -> Fill | Rejection | None:
        now_ns = at(minute)
        intent = Intent.OPEN if SYMBOL not in self.broker.account.strategies else Intent.CLOSE
        order = Order(
            self.broker.account.next_order_id,
            now_ns,
            SYMBOL,
            "case",
            intent,
            (Leg(CALL, ratio),),
            units,
        )
        quotes = self.env._quotes([CALL])
        equity = self.env.equity()
        return self.broker.submit(order, quotes, True, now_ns, equity, spots={SYMBOL: 100.0})

    def settled(self) -> list[Settled]:
        return [each for each in self.journal.events() if isinstance(each, Settled)]


@contextmanager
def desk(folder: Path, rules: TradingRules = DEFAULT_RULES) -> Iterator[Desk]:
    with Journal(folder / "journal.sqlite") as journal:
        yield Desk(journal, rules)
